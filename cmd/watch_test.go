package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
)

// watching is a user's machine with a watch that runs as a process of its own, and its
// server.
type watching struct {
	*machine
	server  *imaptest.DovecotServer
	runtime string   // XDG_RUNTIME_DIR, short enough for a socket
	before  []string // what runs the command
	args    []string
	cmd     *exec.Cmd
	exited  chan struct{}
	ended   error

	mu    sync.Mutex
	lines []string // that it printed
}

// newWatching makes the machine; start starts the watch. more are lines of the account.
func newWatching(t *testing.T, more string, hide ...string) *watching {
	t.Helper()
	return newWatchingOf(t, more, imaptest.DovecotOptions{Hide: hide})
}

// newWatchingOf makes the machine beside such a server.
func newWatchingOf(t *testing.T, more string, o imaptest.DovecotOptions) *watching {
	t.Helper()
	srv := dovecotOf(t, o)
	m := &machine{t: t, dir: ledgertest.Dir(t)}
	w := &watching{machine: m, server: srv, args: []string{"watch", "-v"}}
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"bin", "mail", "tmp"} {
		if err := os.Mkdir(filepath.Join(m.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if w.runtime, err = os.MkdirTemp("", "run"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(w.runtime) }) // nothing hangs on it
	if err := os.Symlink(me, filepath.Join(m.dir, "bin", name)); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"secret":  srv.Password + "\n",
		"notmuch": "[database]\npath=" + m.dir + "/mail\n[user]\nname=Me\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\n",
		"config.toml": fmt.Sprintf("[account.work]\nhost = %q\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = \"secret\"\n%s\n",
			srv.Host, srv.Port, srv.User, more),
	} {
		if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.env = []string{"HOME=" + m.dir, "PATH=" + m.dir + "/bin:" + os.Getenv("PATH"), "TMPDIR=" + m.dir + "/tmp", "NOTMUCH_CONFIG=" + m.dir + "/notmuch",
		"NOTMUCH_IMAP_CONFIG=" + m.dir + "/config.toml", "XDG_STATE_HOME=" + m.dir + "/state", "XDG_RUNTIME_DIR=" + w.runtime, "GORACE=atexit_sleep_ms=0"}
	return w
}

func (w *watching) start() {
	w.t.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	argv := slices.Concat(w.before, []string{filepath.Join(w.dir, "bin", name)}, w.args)
	w.cmd = exec.Command(argv[0], argv[1:]...)
	w.cmd.Env, w.cmd.Dir, w.cmd.Stdout, w.cmd.Stderr = w.env, w.dir, out, out
	if err := errors.Join(w.cmd.Start(), out.Close()); err != nil {
		w.t.Fatal(err)
	}
	w.exited = make(chan struct{})
	go func() {
		defer close(w.exited)
		for s := bufio.NewScanner(r); s.Scan(); {
			w.mu.Lock()
			w.lines = append(w.lines, s.Text())
			w.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, r)
		w.ended = w.cmd.Wait()
		_ = r.Close()
	}()
	w.t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // it may have ended
		<-w.exited
		if w.t.Failed() {
			w.t.Logf("the watch said\n%s", strings.Join(w.lines, "\n"))
		}
	})
}

// stop ends the watch by a signal and gives its exit status.
func (w *watching) stop(sig os.Signal) int {
	w.t.Helper()
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
	return w.ends()
}

// ends waits until the watch has ended, and gives its exit status.
func (w *watching) ends() int {
	w.t.Helper()
	select {
	case <-w.exited:
	case <-time.After(tooLong):
		w.t.Fatal("it does not end")
	}
	exit, ok := errors.AsType[*exec.ExitError](w.ended)
	if !ok {
		return 0
	}
	return exit.ExitCode()
}

// freeze stops the watch between two syncs: one that is stopped in the midst of a sync keeps
// everybody from the account. thaw has it go on.
func (w *watching) freeze() (thaw func()) {
	w.t.Helper()
	to := func(sig syscall.Signal) {
		w.t.Helper()
		if err := w.cmd.Process.Signal(sig); err != nil {
			w.t.Fatal(err)
		}
	}
	thaw = func() { w.t.Helper(); to(syscall.SIGCONT) }
	w.until("it is between two syncs", func() bool {
		to(syscall.SIGSTOP)
		// It is told when all its threads have stopped.
		if err := unix.Waitid(unix.P_PID, w.cmd.Process.Pid, nil, unix.WSTOPPED, nil); err != nil {
			w.t.Fatal(err)
		}
		l, err := ledger.Open(w.t.Context(), filepath.Join(w.dir, "state", name, "work"))
		if errors.Is(err, ledger.ErrBusy) {
			thaw()
			return false
		}
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		return true
	})
	return thaw
}

// rests waits until a sync finds nothing to do.
func (w *watching) rests() {
	w.t.Helper()
	w.until("nothing is left to do", func() bool {
		out, status := w.run(name, "sync")
		return status == 0 && strings.Contains(out, nothingNew)
	})
}

// toReader opens a pipe of the machine for writing as soon as somebody reads it.
func (w *watching) toReader(file string) (pipe *os.File) {
	w.t.Helper()
	w.until("somebody reads "+file, func() bool {
		var err error
		pipe, err = os.OpenFile(filepath.Join(w.dir, file), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	return pipe
}

// session gives the line of Dovecot's about the one session that the watch keeps. A sync has one
// of its own for a moment.
func (w *watching) session() (line string) {
	w.t.Helper()
	w.until("there is the watch's session alone", func() bool {
		out, err := w.server.Doveadm("who", "-1")
		if err != nil {
			w.t.Fatalf("%v: %s", err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		line = strings.Join(strings.Fields(lines[len(lines)-1]), " ")
		return len(lines) == 2
	})
	return line
}

// until waits for something to become true.
func (w *watching) until(what string, f func() bool) {
	w.t.Helper()
	if !w.within(tooLong, f) {
		w.t.Fatalf("never: %s", what)
	}
}

// within tells whether something becomes true before so much time is over.
func (w *watching) within(d time.Duration, f func() bool) bool {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			return false
		case <-w.exited:
			w.t.Fatal("the watch has ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
	return true
}

func (w *watching) said(part string) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(strings.Join(w.lines, "\n"), part)
	}
}

// times is how many lines have a part.
func (w *watching) times(part string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// here tells whether notmuch finds so many.
func (w *watching) here(query string, n int) func() bool {
	return func() bool {
		out, _ := w.run("notmuch", "count", query)
		return strings.TrimSpace(out) == fmt.Sprint(n)
	}
}

// there tells whether the server's answer to the commands has a part.
func (w *watching) there(part string, commands ...string) func() bool {
	return func() bool {
		out, err := w.server.Command(commands...)
		return err == nil && strings.Contains(strings.Join(out, "\n"), part)
	}
}

func watchMail(id string) string {
	return "From: a@example.org\r\nSubject: " + id + "\r\nDate: Sat, 1 May 2021 12:00:00 +0000\r\nMessage-ID: <" + id + "@example.org>\r\n\r\n" + id + "\r\n"
}

func TestWatchBringsAndTakesWhatChanges(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string][]string{"NOTIFY": nil, "IDLE": {"NOTIFY"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatching(t, `watch = ["INBOX", "Lists"]`, hide...)
			appendAll(t, w.server, "Lists", watchMail("first"))
			w.start()
			w.until("what was there is here", w.here("id:first@example.org", 1))
			appendAll(t, w.server, "INBOX", watchMail("second"))
			w.until("new mail of INBOX is here", w.here("id:second@example.org and path:work/INBOX/**", 1))
			appendAll(t, w.server, "Lists", watchMail("third"))
			w.until("new mail of Lists is here", w.here("id:third@example.org and path:work/Lists/**", 1))

			// What is done here goes there: a tag, a file, a deletion.
			w.run("notmuch", "tag", "-unread", "id:second@example.org")
			w.until("the tag is a flag there", w.there(`\Seen`, "EXAMINE INBOX", "FETCH 1 (FLAGS)"))
			draft := filepath.Join(w.dir, "mail/work/INBOX/cur/1.me:2,S")
			if err := os.WriteFile(draft, []byte(strings.ReplaceAll(watchMail("mine"), "\r\n", "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			w.until("a file is mail there", w.there("* 2 EXISTS", "EXAMINE INBOX"))

			// An expunge there.
			command(t, w.server, "SELECT Lists", `STORE 1:* +FLAGS (\Deleted)`, "EXPUNGE")
			w.until("what went there goes here", w.here("path:work/Lists/**", 0))

			// Other commands work beside it.
			w.until("sync works beside it", func() bool { _, status := w.run("notmuch-imap", "sync"); return status == 0 })
			if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
				t.Errorf("exit status %d", status)
			}
			if out, status := w.run("notmuch-imap", "sync"); status != 0 || !strings.Contains(out, nothingNew) {
				t.Errorf("a sync afterwards: %d %s", status, out)
			}
			if n := strings.Count(strings.Join(w.lines, "\n"), "interrupted"); n != 1 {
				t.Errorf("%d lines say that it was interrupted", n)
			}
		})
	}
}

func TestWatchOutlivesItsServerAndAStop(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	w.start()
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.until("mail is here", w.here("id:first@example.org", 1))
	w.until("it watches", w.said("work: connected, by NOTIFY"))
	// Dovecot ends every session, as a server that is restarted.
	if out, err := w.server.Doveadm("kick", w.server.User); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	appendAll(t, w.server, "INBOX", watchMail("second"))
	w.until("mail is here after the connection was cut", w.here("id:second@example.org", 1))
	for _, sig := range []os.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := w.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGSTOP {
			appendAll(t, w.server, "INBOX", watchMail("third"))
		}
	}
	w.until("mail is here after a stop", w.here("id:third@example.org", 1))
	if status := w.stop(os.Interrupt); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}

func TestWatchReadsTheConfigurationAgain(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `mailboxes = ["INBOX"]`)
	appendAll(t, w.server, "Lists", watchMail("list"))
	appendAll(t, w.server, "INBOX", watchMail("inbox"))
	w.start()
	w.until("INBOX is here", w.here("id:inbox@example.org", 1))
	file := filepath.Join(w.dir, "config.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	hangUp := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), w.cmd.Process.Signal(syscall.SIGHUP)); err != nil {
			t.Fatal(err)
		}
	}
	w.until("it watches", w.said("work: connected, by NOTIFY"))
	before := w.session()
	for text, wrong := range map[string]string{"nonsense": "config.toml:1: ", strings.Replace(string(text), "[account.work]", "[account.work]\ntls_ca_file = \"nowhere\"", 1): "tls_ca_file"} {
		hangUp(text)
		w.until("it says what is wrong", w.said("the configuration is not read again: "))
		w.until("it says what is wrong with it", w.said(wrong))
	}
	if now := w.session(); now != before {
		t.Errorf("it has connected again: %s\nthen: %s", before, now)
	}
	appendAll(t, w.server, "INBOX", watchMail("more"))
	w.until("the configuration of before holds", w.here("id:more@example.org", 1))
	hangUp(strings.Replace(string(text), `mailboxes = ["INBOX"]`, "", 1))
	w.until("the new configuration holds", w.here("id:list@example.org", 1))
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}

// TestHangUpsEndNoWatch, whenever they come: while it begins, and while it begins anew.
func TestHangUpsEndNoWatch(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	w.start()
	w.until("it has begun", func() bool {
		locks, err := filepath.Glob(filepath.Join(w.dir, "state", name, ".watch-*"))
		return err == nil && len(locks) == 1
	})
	const words = "the configuration is read again"
	for range 5 {
		before := w.times(words)
		w.until("it reads the configuration again", func() bool {
			for range 20 {
				if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatalf("it has ended: %v", err)
				}
				<-time.After(2 * time.Millisecond)
			}
			return w.times(words) > before
		})
	}
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.until("mail is here", w.here("id:first@example.org", 1))
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}

// TestWatchEndsWithoutItsDatabase: one that is gone is not made anew, since it may only be
// away; the watch says so, and ends.
func TestWatchEndsWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	database := filepath.Join(w.dir, "mail", ".notmuch")
	thaw := w.freeze()
	if err := os.Rename(database, database+".away"); err != nil {
		t.Fatal(err)
	}
	thaw()
	if w.ends() != exitBroken || !w.said("the notmuch database is gone: put it back")() {
		t.Errorf("it ended with %v", w.ended)
	}
	if _, err := os.Stat(database); err == nil {
		t.Error("there is a new one")
	}
	if out, status := w.run(name, "status"); status != exitPartly || !strings.Contains(out, "the notmuch database is gone: put it back") {
		t.Errorf("status: %d %s", status, out)
	}
	if out, status := w.run(name, "status", "--line"); status != exitPartly || out != "work: the notmuch database is gone\n" {
		t.Errorf("status: %d %s", status, out)
	}
	if err := os.Rename(database+".away", database); err != nil {
		t.Fatal(err)
	}
	w.start()
	appendAll(t, w.server, "INBOX", watchMail("second"))
	w.until("mail is here with the database of before", w.here("*", 2))
}

// TestWatchSaysThatAServerIsAway once, and when it is back.
func TestWatchSaysThatAServerIsAway(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	p := w.through(0)
	w.args = []string{"watch"} // what all are told
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("it watches, and mail is here", func() bool { return w.said("work: connected, by NOTIFY")() && w.said("1 new")() })
	p.Away(true)
	w.until("it is said that it is away", w.said("the connection was cut"))
	w.until("status knows it", func() bool { out, _ := w.run(name, "status", "--line"); return strings.Contains(out, "not connected") })
	if out, status := w.run("notmuch", "tag", "+flagged", "--", "*"); status != 0 {
		t.Fatal(out)
	}
	w.until("a sync meets it, too", func() bool { out, _ := w.run(name, "status", "--line"); return strings.Contains(out, "1 undone") })
	out, status := w.run(name, "status")
	if status != exitPartly || strings.Count(out, "the connection was cut") != 1 || strings.Contains(out, "due with the next sync") {
		t.Errorf("status tells the fault twice: %d %s", status, out)
	}
	w.until("a hook is told what is known", func() bool {
		out, status := w.run(name, "hook", "pre-new", "--timeout", "0")
		return status == 0 && strings.Contains(out, "work: not connected since ")
	})
	if out, status := w.run("env", "-u", "XDG_RUNTIME_DIR", name, "status"); status != exitPartly || !strings.Contains(out, "it cannot be asked: XDG_RUNTIME_DIR is not") {
		t.Errorf("without XDG_RUNTIME_DIR: %d %s", status, out)
	}
	p.Away(false)
	w.until("it is said that it is back, and what went", func() bool {
		return w.said("work: connected again")() && w.said("work: 1 change of flags sent")()
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) != 5 { // that it is there, what came, that it is away, what went, that it is back
		t.Errorf("it said %q", w.lines)
	}
}

// TestWatchThatIsInterruptedSaysNothingOfItsConfiguration, which it was about to read again.
func TestWatchThatIsInterruptedSaysNothingOfItsConfiguration(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	w.start()
	w.until("it watches", w.said("work: connected, by NOTIFY"))
	file := filepath.Join(w.dir, "config.toml")
	text, err := os.ReadFile(file)
	if err == nil {
		err = errors.Join(os.Remove(file), syscall.Mkfifo(file, 0o600), w.cmd.Process.Signal(syscall.SIGHUP))
	}
	if err != nil {
		t.Fatal(err)
	}
	pipe := w.toReader("config.toml")
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	w.until("it ends", func() bool {
		sockets, err := filepath.Glob(filepath.Join(w.runtime, name, "*"))
		return err == nil && len(sockets) == 0
	})
	_, err = pipe.Write(text)
	if err := errors.Join(err, pipe.Close()); err != nil {
		t.Fatal(err)
	}
	w.ends()
	if !w.said("interrupted")() || w.said("not read again")() {
		t.Error("it said something else than that it was interrupted")
	}
}
