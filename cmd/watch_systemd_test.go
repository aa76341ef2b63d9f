package cmd

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWatchTellsItsServiceManager(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	p := w.through(0)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(w.runtime, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w.env = append(w.env, "NOTIFY_SOCKET="+filepath.Join(w.runtime, "notify"), "WATCHDOG_USEC=100000")
	w.start()
	heard := func(part string) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%s was not told: %v", part, err)
			}
			if strings.Contains(string(buf[:n])+"\n", part) {
				return
			}
		}
	}
	heard("READY=1\nSTATUS=1 account")
	heard("STATUS=1 account\n")
	heard("WATCHDOG=1")
	for _, away := range []bool{true, false} {
		p.Silence(away)
		p.Cut()
		if away {
			heard("STATUS=1 account, not connected: work")
		}
	}
	heard("STATUS=1 account\n")
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	heard("RELOADING=1")
	heard("READY=1")
	heard("WATCHDOG=1")
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
	heard("STOPPING=1")
}
