package cmd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Accounts are synchronised some at a time: servers that say nothing keep as many
// waiting, and the others come behind them.
func TestNotAllAccountsAtOnce(t *testing.T) {
	const accounts = together + 3
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 3*accounts)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	home := t.TempDir()
	var conf strings.Builder
	for i := range accounts {
		fmt.Fprintf(&conf, "[account.a%d]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_command = [\"true\"]\nconnections = 1\n",
			i, l.Addr().(*net.TCPAddr).Port)
	}
	file := filepath.Join(home, "config.toml")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, l.Addr().String(), "me", "x") // for its notmuch
	t.Setenv("NOTMUCH_CONFIG", w.config)
	type end struct {
		status int
		stderr string
	}
	ended := make(chan end, 1)
	go func() {
		status, _, stderr := runHere(t.Context(), map[string]string{"HOME": home}, "sync", "--config", file)
		ended <- end{status, stderr}
	}()
	take := func() net.Conn {
		select {
		case c := <-accepted:
			return c
		case <-time.After(tooLong):
			t.Fatal("nobody connected")
			return nil
		}
	}
	var waiting []net.Conn
	for range together {
		waiting = append(waiting, take())
	}
	for range accounts - together {
		// As long as none of them ends, no other one begins.
		select {
		case <-accepted:
			t.Error("one more than are to be synchronised at once")
		case <-time.After(100 * time.Millisecond):
		}
		_ = waiting[0].Close()
		waiting = append(waiting[1:], take())
	}
	_ = l.Close()
	for _, c := range waiting {
		_ = c.Close()
	}
	e := <-ended
	<-done
	if e.status != exitLater || strings.Count(e.stderr, "\n") != accounts {
		t.Errorf("status %d: %s", e.status, e.stderr)
	}
}
