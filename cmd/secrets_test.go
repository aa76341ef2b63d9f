package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

// TestASecretThatDoesNotComeHoldsUpOneAccountAlone: all others sign in meanwhile, and it is
// said what is waited for. Of the program nothing is left behind.
func TestASecretThatDoesNotComeHoldsUpOneAccountAlone(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	file := filepath.Join(w.dir, "config.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second := strings.Replace(string(text), "[account.work]", "[account.asks]", 1)
	second = strings.Replace(second, `password_file = "secret"`, fmt.Sprintf(`password_command = ["sh", "-c", "exec 3> %[1]s/alive; echo $$ >> %[1]s/asked; sleep 300; exit 1"]`, w.dir), 1)
	if err := os.WriteFile(file, []byte(second+string(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	// All that is running of the program has it open for writing.
	alive := filepath.Join(w.dir, "alive")
	if err := syscall.Mkfifo(alive, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(alive, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	asked := func() (pids []int) {
		out, _ := os.ReadFile(filepath.Join(w.dir, "asked"))
		for _, f := range strings.Fields(string(out)) {
			var pid int
			if _, err := fmt.Sscan(f, &pid); err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return pids
	}
	w.start()
	w.until("the program is asked", func() bool { return len(asked()) > 0 })
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.until("mail of the other account is here", w.here("id:first@example.org and path:work/**", 1))
	if pids := asked(); len(pids) != 1 || syscall.Kill(pids[0], 0) != nil {
		t.Errorf("the account waited for the program of another one: %v", pids)
	}
	const slow = "its password_command has not ended for 10 s"
	w.until("it is said what is waited for", w.said("asks: "+slow))
	w.until("status says it", func() bool {
		out, _ := w.run(name, "status", "asks")
		return strings.Contains(strings.Join(strings.Fields(out), " "), slow)
	})
	w.stop(syscall.SIGTERM)
	if err := r.SetReadDeadline(time.Now().Add(tooLong)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("something of it is left: %v", err)
	}
}

// TestAHangingSecretIsSaid: every command that signs in says what it waits for.
func TestAHangingSecretIsSaid(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"sync"}, {"check"}, {"inspect", "work/INBOX/1"}, {"verify"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, "")
			appendAll(t, w.server, "INBOX", watchMail("first"))
			w.sync()
			file := filepath.Join(w.dir, "config.toml")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text = []byte(strings.Replace(string(text), `password_file = "secret"`, `password_command = ["sleep", "300"]`, 1))
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			w.args = args
			w.start()
			w.until("it is said what is waited for", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return strings.Contains(strings.Join(strings.Fields(strings.Join(w.lines, " ")), " "), "work: its password_command has not ended for 10 s")
			})
			w.stop(os.Interrupt)
		})
	}
}

// TestARememberedPasswordThatIsRefusedIsAskedForOnceMore: it may be another one since. One that is
// the same is tried no second time, and one that was just asked for is not asked for again.
func TestARememberedPasswordThatIsRefusedIsAskedForOnceMore(t *testing.T) {
	t.Parallel()
	srv := dovecot(t)
	for _, tc := range []struct {
		name       string
		remembered string // "": none
		now        string // what the command gives; "": it fails
		asked      int
		tries      int
		refused    bool
	}{
		{"another one since", "old", srv.Password, 1, 2, false},
		{"the same", "old", "old", 1, 1, true},
		{"another wrong one", "old", "other", 1, 2, true},
		{"it cannot be had", "old", "", 1, 1, true},
		{"just asked for", "", "old", 1, 1, true},
		{"right", srv.Password, srv.Password, 0, 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "now"), []byte(tc.now), 0o600); err != nil {
				t.Fatal(err)
			}
			a := &config.Account{Name: "work", Host: srv.Host, Port: srv.Port, TLS: "none", AllowPlaintext: true, User: srv.User, Timeout: time.Minute,
				PasswordCommand: []string{"sh", "-c", fmt.Sprintf("echo >> %[1]s/asked; test -s %[1]s/now && cat %[1]s/now", dir)}}
			keys := (&program{getenv: os.Getenv, stderr: io.Discard}).newSecrets(nil)
			if tc.remembered != "" {
				keys.got[a.Name] = tc.remembered
			}
			tries := 0
			o, err := remoteOptions(a, keys)
			if err != nil {
				t.Fatal(err)
			}
			o.Record = func(l mail.Line) {
				if strings.Contains(l.Text, "AUTHENTICATE") && l.Client {
					tries++
				}
			}
			var s *remote.Session
			s, err = keys.dial(t.Context(), a, o)
			if err == nil {
				defer s.Close()
			}
			f, _ := errors.AsType[*mail.Fault](err)
			if refused := f != nil && f.Kind == mail.KindAuth; refused != tc.refused || (err != nil) != refused {
				t.Errorf("it comes to %v", err)
			}
			asked, _ := os.ReadFile(filepath.Join(dir, "asked")) // none if it was not
			if len(asked) != tc.asked || tries != tc.tries {
				t.Errorf("asked %d times, tried %d times", len(asked), tries)
			}
			if tc.now == "" && keys.known(t.Context(), a) != tc.remembered {
				t.Error("the refusal is not known again")
			}
		})
	}
}

// TestNoCoreIsDumped with passwords and mail in it.
func TestNoCoreIsDumped(t *testing.T) {
	t.Parallel()
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	limits := filepath.Join(n.home, "limits")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_command = [\"sh\", \"-c\", %q]\n",
		"grep core /proc/$PPID/limits > "+limits+"; echo secret"))
	n.does(exitBroken, "check")
	if got := strings.Join(strings.Fields(n.read("limits")), " "); !strings.HasPrefix(got, "Max core file size 1 ") {
		t.Error(got)
	}
}
