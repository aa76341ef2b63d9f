package cmd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asUnit has the watch started as the unit says that `setup systemd` installs: by its
// ExecStart, and with no more in its environment than a user's manager gives to services. It
// gives what reloads it.
func (w *watching) asUnit() (reload string) {
	w.t.Helper()
	unit, status := w.run(name, "setup", "systemd", "--print")
	if status != 0 {
		w.t.Fatal(unit)
	}
	w.env = slices.DeleteFunc(w.env, func(e string) bool { return strings.HasPrefix(e, "NOTMUCH") || strings.HasPrefix(e, "XDG_STATE") })
	for line := range strings.Lines(unit) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "Environment":
			w.env = append(w.env, strings.Trim(value, `"`))
		case "ExecStart":
			_, args, _ := strings.Cut(strings.TrimPrefix(value, `"`), `" `) // behind the program, which is this test
			w.args = strings.Fields(args)
		case "ExecReload":
			reload = value
		}
	}
	return reload
}

// asManager listens as a service manager does to the watch that is started then. heard waits
// until something is told, and gives all that came until then.
func (w *watching) asManager() (heard func(part string) string) {
	w.t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(w.runtime, "notify"), Net: "unixgram"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.env = append(w.env, "NOTIFY_SOCKET="+filepath.Join(w.runtime, "notify"), "WATCHDOG_USEC=100000")
	// It reads whatever the test does: the kernel keeps a few words alone, and whoever has one more
	// to say waits.
	var mu sync.Mutex
	var told []string // and not heard yet
	read := make(chan struct{})
	go func() {
		defer close(read)
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			mu.Lock()
			told = append(told, string(buf[:n])+"\n")
			mu.Unlock()
		}
	}()
	w.t.Cleanup(func() { _ = conn.Close(); <-read }) // nothing hangs on it
	return func(part string) (all string) {
		w.t.Helper()
		for end := time.Now().Add(tooLong); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			for len(told) > 0 && !strings.Contains(all, part) {
				all, told = all+told[0], told[1:]
			}
			mu.Unlock()
			if strings.Contains(all, part) {
				return all
			}
		}
		w.t.Fatalf("%s was not told:\n%s", part, all)
		return ""
	}
}

// TestAManagerThatDoesNotReadHoldsNothingUp, though the kernel keeps no more words for it.
func TestAManagerThatDoesNotReadHoldsNothingUp(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	addr := &net.UnixAddr{Name: filepath.Join(w.runtime, "notify"), Net: "unixgram"}
	deaf, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	full := func() bool {
		conn, err := net.DialUnix("unixgram", nil, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for err = conn.SetWriteDeadline(time.Now().Add(time.Second)); err == nil; {
			_, err = conn.Write([]byte("x"))
		}
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	w.until("it keeps no more", full)
	w.env = append(w.env, "NOTIFY_SOCKET="+addr.Name, "WATCHDOG_USEC=100000")
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}

func TestWatchTellsItsServiceManager(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	p := w.through(0)
	reload := w.asUnit()
	heard := w.asManager()
	w.start()
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
	cmd := exec.Command("sh", "-c", reload)
	cmd.Env = append(w.env, fmt.Sprintf("MAINPID=%d", w.cmd.Process.Pid))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	heard("RELOADING=1")
	heard("READY=1")
	heard("WATCHDOG=1")
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
	heard("STOPPING=1")
}

// TestAReloadBehindOneMailIsHeardOf: while what is under way when the configuration is to be
// read again is not done, the manager goes on to hear from the watch, and that it stops.
func TestAReloadBehindOneMailIsHeardOf(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `mailboxes = ["INBOX"]`)
	heard := w.asManager()
	text, release := w.heldText("long")
	w.start()
	heard("READY=1")
	appendAll(t, w.server, "INBOX", text)
	w.untilHeld()
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	heard("RELOADING=1")
	for range 3 {
		if all := heard("WATCHDOG=1"); strings.Contains(all, "READY=1") {
			t.Fatalf("nothing came until it was done:\n%s", all)
		}
	}
	w.stop(syscall.SIGTERM)
	heard("STOPPING=1")
	release()
}
