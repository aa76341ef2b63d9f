package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A first sync of much mail indexes it in several processes. It is in notmuch as ever, with its
// tags, and what its owner changes after it goes to the server: flags that are in no file's name,
// too, though the database is another one than when the sync began.
func TestAFirstSyncOfMuchMail(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `keywords = ["todo", "later"]`)
	const n = 2900 // so that 2,000 are left when 500, or a batch more, are in notmuch
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("From: a@example.org\r\nSubject: %[1]d\r\nDate: Sat, 1 May 2021 12:00:00 +0000\r\nMessage-ID: <m%[1]d@example.org>\r\nIn-Reply-To: <m%[2]d@example.org>\r\n\r\n%[1]d\r\n", i, i-i%7))
	}
	appendAll(t, w.server, "INBOX", all...)
	command(t, w.server, "SELECT INBOX", `STORE 1,101,2601 +FLAGS.SILENT (\Flagged \Seen)`, "STORE 2,102,2602 +FLAGS.SILENT (todo)")
	sync := func(want string) {
		t.Helper()
		if out, exit := w.run(name, "sync"); exit != 0 || !strings.Contains(out, want) {
			t.Fatalf("exit %d, not %q: %s", exit, want, out)
		}
	}
	count := func(query string, want int) {
		t.Helper()
		if out, _ := w.run("notmuch", "count", query); strings.TrimSpace(out) != fmt.Sprint(want) {
			t.Errorf("notmuch count %s: %s, want %d", query, out, want)
		}
	}
	// So that all of it waits for notmuch, that is in use until it is here.
	if out, exit := w.run("notmuch", "new"); exit != 0 {
		t.Fatal(out)
	}
	lock, err := os.OpenFile(filepath.Join(w.dir, "mail/.notmuch/xapian/flintlock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	w.args = []string{"sync"}
	w.start()
	w.until("all of it is here", func() bool {
		files, err := filepath.Glob(filepath.Join(w.dir, "mail/work/INBOX/*/*"))
		return err == nil && len(files) == n
	})
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.exited:
	case <-time.After(tooLong):
		t.Fatal("it does not end")
	}
	if !w.said(fmt.Sprintf("work: %d new", n))() {
		t.Fatal(w.lines)
	}
	if out, _ := w.run("notmuch", "search", "--output=threads", "id:m0@example.org"); !strings.HasPrefix(out, "thread:00000") || strings.HasPrefix(out, "thread:0000000000") {
		t.Errorf("it was not indexed by several processes: %s", out)
	}
	count("*", n)
	count("tag:flagged", 3)
	count("tag:todo and tag:unread and tag:inbox", 3)
	count("tag:unread", n-3)
	if out, _ := w.run("notmuch", "new"); !strings.Contains(out, "No new mail") {
		t.Errorf("notmuch new has something to do: %s", out)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "mail/.notmuch/*")); err != nil || strings.Contains(strings.Join(left, " "), "rebuild") || strings.Contains(strings.Join(left, " "), "before") {
		t.Errorf("beside the database there is %v, %v", left, err)
	}

	// The oldest and the newest of them, of the processes and of the sync's own.
	for _, id := range []string{"m1@example.org", "m2601@example.org"} {
		if out, exit := w.run("notmuch", "tag", "-todo", "+later", "--", "id:"+id); exit != 0 {
			t.Fatal(out)
		}
	}
	for _, id := range []string{"m0@example.org", "m2600@example.org"} {
		if out, exit := w.run("notmuch", "tag", "-flagged", "--", "id:"+id); exit != 0 {
			t.Fatal(out)
		}
	}
	sync("work: 4 changes of flags sent")
	out, err := w.server.Command("EXAMINE INBOX", "SEARCH KEYWORD todo", "SEARCH KEYWORD later", "SEARCH FLAGGED")
	if want := "* SEARCH 102\n* SEARCH 2 2602\n* SEARCH 101"; err != nil || !strings.Contains(strings.Join(slices.DeleteFunc(out, func(l string) bool { return !strings.HasPrefix(l, "* SEARCH") }), "\n"), want) {
		t.Errorf("the server has %s, %v", strings.Join(out, "\n"), err)
	}
	count("tag:todo", 1)
	sync("nothing new")
}
