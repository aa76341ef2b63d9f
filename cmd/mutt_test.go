package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/contrib"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// reader is a mail reader in a terminal of 80x24.
type reader struct {
	t      *testing.T
	socket string
}

// startReader starts a program in a terminal of its own. Its server is a child of the test:
// one that leaves for the background would outlive a test that is killed, and needs of the
// machine that its /dev/null is a device.
func startReader(t *testing.T, env []string, command ...string) *reader {
	t.Helper()
	otherPrograms(t)
	dir, err := os.MkdirTemp("", "mux") // short: the name of a socket has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t, filepath.Join(dir, "s")}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	settings := filepath.Join(dir, "none")
	if err := os.WriteFile(settings, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	server := exec.Command("tmux", "-D", "-S", r.socket, "-f", settings)
	server.Env, server.Stdout, server.Stderr = env, &said, &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		_ = server.Process.Kill() // it has ended already, unless the test failed
		if err := <-ended; t.Failed() {
			t.Logf("the terminal: %v %s", err, &said)
		}
	})
	r.within("the terminal listens", func() bool {
		conn, err := net.Dial("unix", r.socket)
		return err == nil && conn.Close() == nil
	})
	cmd := exec.Command("tmux", "-S", r.socket, "-N", "new-session", "-d", "-x", "80", "-y", "24", quote(command))
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v: %s", err, out)
	}
	t.Cleanup(r.end)
	return r
}

// end ends the reader, and returns when it writes no more.
func (r *reader) end() {
	if r.t.Failed() {
		r.t.Logf("at the end the screen is\n%s", r.screen())
	}
	pid := strings.TrimSpace(r.tmux("display-message", "-p", "#{pane_pid}"))
	r.tmux("kill-server")
	r.within("the reader ends", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// tmux runs a command of the terminal.
func (r *reader) tmux(args ...string) string {
	out, err := exec.Command("tmux", append([]string{"-S", r.socket}, args...)...).CombinedOutput()
	if err != nil {
		r.t.Errorf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

// screen is what is to be seen, wrapped lines as one.
func (r *reader) screen() string {
	return regexp.MustCompile(` +\n`).ReplaceAllString(r.tmux("capture-pane", "-p", "-J"), "\n")
}

// within waits until something is so.
func (r *reader) within(what string, so func() bool) {
	r.t.Helper()
	deadline := time.After(tooLong)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for !so() {
		select {
		case <-deadline:
			r.t.Fatalf("never: %s", what)
		case <-poll.C:
		}
	}
}

// shows waits until the screen matches all patterns; one with a ! before it must
// not match.
func (r *reader) shows(patterns ...string) {
	r.t.Helper()
	r.within(fmt.Sprintf("the screen shows %q", patterns), func() bool {
		screen := r.screen()
		for _, p := range patterns {
			p, not := strings.CutPrefix(p, "!")
			if regexp.MustCompile("(?m)"+p).MatchString(screen) == not {
				return false
			}
		}
		return true
	})
}

// rested waits until a folder's next change falls into another second than its
// last one: NeoMutt does not see it else.
func (r *reader) rested(folder string) {
	r.t.Helper()
	r.within(folder+" rests", func() bool {
		for _, sub := range []string{"cur", "new"} {
			fi, err := os.Stat(filepath.Join(folder, sub))
			if err != nil {
				r.t.Fatal(err)
			}
			if time.Now().Unix() == fi.ModTime().Unix() {
				return false
			}
		}
		return true
	})
}

// press types text, then waits for the screen.
func (r *reader) press(text string, patterns ...string) {
	r.t.Helper()
	r.tmux("send-keys", "-l", text)
	r.shows(patterns...)
}

// settings waits until the reader says that its settings are these.
func (r *reader) settings(want map[string]bool) {
	r.t.Helper()
	for name, on := range want {
		value := name + `(="no"| is unset)`
		if on {
			value = name + `(="yes"| is set)`
		}
		r.press(":set ?"+name+"\r", value)
	}
}

// readers are the programs, with the text of their keys.
func readers() map[string]string {
	return map[string]string{"mutt": contrib.Mutt(), "neomutt": contrib.NeoMutt()}
}

// standIn is a notmuch-imap that writes down how it was called.
const standIn = `#!/bin/sh
echo "called: $*" >>"$LOG"
case $1 in inspect|retry|drop) cat >>"$LOG";; esac
case "$*" in
inspect*) echo 'the session';;
stubs*) ;;
drop*--remote*)
	printf 'delete it? [y/N] ' >/dev/tty
	read -r answer </dev/tty
	echo "answer: $answer" >>"$LOG"
	;;
esac
case $1 in retry|drop) echo "did $*";; esac
`

// hostile is a Message-ID with which a shell would do harm.
const hostile = "<a b\"'; touch PWNED; `touch PWNED` $(touch PWNED) | touch PWNED @example.org>"

// desk is where a reader and the stand-in work.
type desk struct {
	*reader
	dir string
	log string
}

// newDesk opens the first of three mails, or a virtual folder of them.
func newDesk(t *testing.T, program, keys string, virtual bool) *desk {
	t.Helper()
	d := &desk{dir: t.TempDir()}
	d.log = filepath.Join(d.dir, "log")
	box := filepath.Join(d.dir, "Mail", "box")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(d.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/stand-in", standIn, 0o700)
	for i := 1; i <= 3; i++ {
		write(fmt.Sprintf("Mail/box/cur/%d.host:2,S", i), fmt.Sprintf("From: Ann <ann@example.org>\nTo: me@example.org\nSubject: number %d\n"+
			"Message-ID: %s\nX-Notmuch-Imap-Stub: v=1; key=%d\nDate: Sun, 01 Nov 2026 10:00:0%d +0000\n\nThe text of %d.\n",
			i, strings.Replace(hostile, "<", fmt.Sprintf("<%d", i), 1), i, i, i), 0o600)
	}
	for _, sub := range []string{"box/new", "box/tmp", "empty/cur", "empty/new", "empty/tmp"} {
		if err := os.MkdirAll(filepath.Join(d.dir, "Mail", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// All the settings that the keys change are the other way round.
	write("rc", "set folder="+d.dir+"/Mail\nset sleep_time=0\nset sort=date\nset pipe_decode=yes\nset pipe_split=no\nset auto_tag=no\nset wait_key=yes\n"+
		"set my_notmuch_imap="+d.dir+"/bin/stand-in\n"+keys+"\n", 0o600)
	env := append(os.Environ(), "HOME="+d.dir, "LOG="+d.log, "LC_ALL=C.UTF-8", "PAGER=", "LESS=-FRX", "XDG_CACHE_HOME=", "NOTMUCH_CONFIG="+filepath.Join(d.dir, "notmuch"))
	open := box
	if virtual {
		write("notmuch", "[database]\npath="+d.dir+"/Mail\n[user]\nname=Me\nprimary_email=me@example.org\n", 0o600)
		cmd := exec.Command("notmuch", "new", "--quiet")
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("notmuch new: %v: %s", err, out)
		}
		open = "notmuch://" + d.dir + "/Mail?query=*"
	}
	d.reader = startReader(t, env, program, "-n", "-F", filepath.Join(d.dir, "rc"), "-f", open)
	d.shows("number 1$", "number 2$", "number 3$", "^-.-"+statusLine)
	return d
}

// statusLine is the beginning of the status line of a reader's list of mails.
const statusLine = "(Neo)?Mutt: "

// took gives what the stand-in was called with since the last time.
func (d *desk) took() string {
	d.t.Helper()
	text, err := os.ReadFile(d.log)
	if err := errors.Join(err, os.Remove(d.log)); err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

// calls asserts what the stand-in was called with, and which mails came to it,
// as they are on disk.
func (d *desk) calls(args string, mails ...int) {
	d.t.Helper()
	got := d.took()
	for _, i := range mails {
		raw, err := os.ReadFile(filepath.Join(d.dir, fmt.Sprintf("Mail/box/cur/%d.host:2,S", i)))
		if err != nil {
			d.t.Fatal(err)
		}
		call := "called: " + args + "\n" + string(raw)
		got = strings.ReplaceAll(got, "Tags: inbox\n", "") // NeoMutt's, in a virtual folder
		if !strings.Contains(got, call) {
			d.t.Fatalf("no call %q in:\n%s", call, got)
		}
		got = strings.Replace(got, call, "", 1)
	}
	got = strings.Replace(got, "called: stubs --maildir "+d.dir+"/.cache/notmuch-imap/failed\n", "", 1)
	if strings.TrimSpace(got) != "" { // an empty line follows the tagged ones
		d.t.Fatalf("beside %s of %v there was %q", args, mails, got)
	}
}

func TestMuttKeysPipeTheMailAndLeaveNoTrace(t *testing.T) {
	t.Parallel()
	for program, keys := range readers() {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, program, keys, false)
			asTheyWere := map[string]bool{"pipe_decode": true, "pipe_split": false, "auto_tag": false, "wait_key": true}
			list := []string{"number 1$", "^-.-" + statusLine, "![Pp]ress any key"}

			d.press("1\r")
			d.press(",i", "^the session$", "!"+statusLine) // though LESS says to end at once
			d.press("q", list...)
			d.calls("inspect -", 1)
			d.settings(asTheyWere)

			d.press(",r", "^did retry -", "Press any key")
			d.press(" ", list...)
			d.settings(asTheyWere)
			d.calls("retry -", 1)

			d.press(",d", list...)
			d.settings(asTheyWere)
			d.calls("drop -", 1)

			d.press(",D", `delete it\? \[y/N\]$`)
			d.press("y\r", "^did drop --remote -", "Press any key")
			d.press(" ", list...)
			d.settings(asTheyWere)
			if log := d.took(); !strings.Contains(log, "called: drop --remote -\n") || !strings.Contains(log, "answer: y\n") {
				t.Errorf("%s", log)
			}

			// From the pager.
			d.press("2\r\r", "^The text of 2")
			d.press(",r", "^did retry -", "Press any key")
			d.press(" ", "^The text of 2", "!any key")
			d.press("q", list...)
			d.settings(asTheyWere)
			d.calls("retry -", 2)

			// The tagged ones, each by itself.
			d.press("T~s [13]\r", "number 1$", "Tag:2")
			d.press(",r", "(?s)did retry -.*did retry -", "Press any key")
			d.press(" ", list...)
			d.settings(asTheyWere)
			d.calls("retry -", 1, 3)

			// Where there is no mail.
			d.press("c=empty\r", "empty.*Msgs:0", "!number")
			d.press(",r", "There are no messages")
			d.settings(asTheyWere)
			if _, err := os.Stat(d.log); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the command was called for no mail: %v", err)
			}

			err := filepath.WalkDir(d.dir, func(path string, _ fs.DirEntry, err error) error {
				if filepath.Base(path) == "PWNED" {
					t.Errorf("a Message-ID was executed: %s", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNeoMuttKeysWorkInAVirtualFolder(t *testing.T) {
	t.Parallel()
	d := newDesk(t, "neomutt", contrib.NeoMutt(), true)
	d.press("T~s [12]\r", `\* .*number 1$`, `\* .*number 2$`)
	d.press(",d", "^-.-"+statusLine)
	d.settings(map[string]bool{"pipe_decode": true, "pipe_split": false, "auto_tag": false, "wait_key": true})
	d.calls("drop -", 1, 2)
}

func TestSetupPrintsTheFilesOfContrib(t *testing.T) {
	t.Parallel()
	for program, keys := range readers() {
		if status, out, errs := runHere(t.Context(), nil, "setup", program); status != exitDone || out != keys || errs != "" {
			t.Errorf("%s: %d, %q, %q", program, status, out, errs)
		}
	}
	if status, _, errs := runHere(t.Context(), nil, "setup"); status != exitUsage || !strings.Contains(errs, "there is: account, hooks, systemd, mutt, neomutt") {
		t.Errorf("%d, %q", status, errs)
	}
}

func TestTheListIsMadeAnewWhereItMayBe(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := newWorld(t, "127.0.0.1:1", "u", "p")
	inbox := maildir.Dir(filepath.Join(w.index.MailRoot(), "work", "INBOX"))
	write := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var all []failedIn
	note := func(n int) string {
		key := stub.NewKey("work", "INBOX", 1, imap.UID(n))
		all = append(all, failedIn{Failed: pipeline.Failed{ID: key.MessageID()}})
		return fmt.Sprintf("From: a@example.org\nSubject: note\nMessage-ID: <%s>\n%s: v=1; key=%s\n\ntext\n", key.MessageID(), stub.Field, key)
	}
	one, two := note(1), note(2)
	write(filepath.Join(string(inbox), "new/1.x"), one)
	write(filepath.Join(string(inbox), "cur/2.x:2,S"), two)
	if err := inbox.Create(); err != nil {
		t.Fatal(err)
	}
	w.notmuch("new")
	dir := filepath.Join(w.dir, "list")
	holds := func(want ...string) {
		t.Helper()
		if err := listInMaildir(ctx, w.index, dir, all); err != nil {
			t.Fatal(err)
		}
		l, err := maildir.Dir(dir).Scan()
		if err != nil {
			t.Fatal(err)
		}
		files, err := l.Files()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range files {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the list holds %q, want %q", got, want)
		}
	}
	holds("cur/2.x:2,S", "new/1.x")
	for _, path := range []string{"", "cur", "new", "tmp", listMark} {
		fi, err := os.Stat(filepath.Join(dir, path))
		if err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}

	// The names in the list are the mail reader's, also where it renamed the
	// stub and notmuch does not know yet.
	rename := func(d maildir.Dir, from, to string) {
		t.Helper()
		if err := d.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	rename(inbox, "new/1.x", "cur/1.x:2,S")
	rename(maildir.Dir(dir), "new/1.x", "cur/1.x:2,F")
	holds("cur/1.x:2,F", "cur/2.x:2,S")

	// A stub that was written anew, one that is gone, and what the user put
	// there.
	write(filepath.Join(string(inbox), "more"), two+"more\n")
	if err := os.Rename(filepath.Join(string(inbox), "more"), filepath.Join(string(inbox), "cur/2.x:2,S")); err != nil {
		t.Fatal(err)
	}
	if err := inbox.Remove("cur/1.x:2,S"); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "cur/own:2,"), "From: me@example.org\n\nmine\n")
	holds("cur/2.x:2,S", "cur/own:2,")
	if raw, err := os.ReadFile(filepath.Join(dir, "cur/2.x:2,S")); err != nil || string(raw) != two+"more\n" {
		t.Errorf("%q, %v", raw, err)
	}
	all = nil
	holds("cur/own:2,")

	// Not where other things are.
	taken := t.TempDir()
	write(filepath.Join(taken, "cur/1.x"), "From: a@example.org\n\n")
	file := filepath.Join(taken, "cur/1.x")
	for _, d := range []string{taken, file, w.index.MailRoot(), string(inbox), filepath.Join(w.index.MailRoot(), "failed")} {
		if err := listInMaildir(ctx, w.index, d, nil); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: %v", d, err)
		}
	}
	for _, args := range [][]string{{"--json", "--maildir", dir}, {"--maildir", ""}} {
		if status, _, errs := runHere(ctx, nil, append([]string{"stubs"}, args...)...); status != exitUsage || !strings.Contains(errs, "--maildir") {
			t.Errorf("%v: %d, %q", args, status, errs)
		}
	}
}
