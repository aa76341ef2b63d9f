package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestWatchIsSeenAtOnce: mail that a watch brings is shown by Mutt and NeoMutt with the settings that
// the README has for them, while no key is pressed, and hooks and the desktop are told of it,
// without a `notmuch new`. What a hook keeps away comes by `retry`, beside the watch.
func TestWatchIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	settings := regexp.MustCompile("with `(set timeout=[0-9]+ mail_check=[0-9]+)`").FindSubmatch(readme)
	if settings == nil {
		t.Fatal("the README does not say how Mutt looks again")
	}
	w := newWatching(t, `
[[hook]]
builtin = "notify"
show = "subjects"
[[hook]]
name = "tell"
points = ["post-index"]
command = ["sh", "-c", 'echo "$NOTMUCH_IMAP_ID" >>"$HOME/hooked"']
[[hook]]
builtin = "limit"
size = "1M"`)
	write := func(file, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.dir, file), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/notify-send", "#!/bin/sh\nfor a; do printf '%s ' \"$a\"; done >>\"$HOME/told\"\n", 0o700)
	write("rc", "set folder="+w.dir+"/mail\nset sleep_time=0\nset sort=date\n"+string(settings[1])+"\n", 0o600)
	has := func(file, part string) func() bool {
		return func() bool {
			text, err := os.ReadFile(filepath.Join(w.dir, file))
			return err == nil && strings.Contains(string(text), part)
		}
	}
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	w.rests()
	inbox := filepath.Join(w.dir, "mail/work/INBOX")
	var readers []*reader
	for _, program := range []string{"mutt", "neomutt"} {
		r := startReader(t, append(os.Environ(), "HOME="+w.dir, "LC_ALL=C.UTF-8"), program, "-n", "-F", filepath.Join(w.dir, "rc"), "-f", inbox)
		r.shows("first$", "^-.-"+statusLine)
		readers = append(readers, r)
	}
	readers[0].rested(inbox)
	appendAll(t, w.server, "INBOX", watchMail("second"))
	for _, r := range readers {
		r.shows("first$", "second$")
	}
	w.until("notmuch finds it", w.here("id:second@example.org", 1))
	w.until("a hook is told", has("hooked", "second@example.org\n"))
	w.until("the desktop is told", has("told", "1 new mail in work a@example.org: second "))

	appendAll(t, w.server, "INBOX", watchMail("large")+strings.Repeat(strings.Repeat("a", 76)+"\r\n", 2<<20/78))
	w.until("a hook keeps it away", w.here("tag:fetch-skipped", 1))
	w.until("retry brings it beside the watch", func() bool {
		out, status := w.run(name, "retry", "tag:fetch-skipped")
		if status != exitDone && status != exitLater { // a sync may be at work
			t.Fatalf("%d %s", status, out)
		}
		return status == exitDone
	})
	if !w.here("id:large@example.org and not tag:fetch-skipped", 1)() {
		t.Error("it is not here")
	}
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "mail/.notmuch/hooks")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there are hooks of notmuch's: %v", err)
	}
}
