package cmd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// longText is a mail of text that keeps libnotmuch at it for long: no word comes twice.
func longText(id string, megabytes int) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(watchMail(id))
	for b.Len() < megabytes<<20 {
		for range 6 {
			fmt.Fprintf(&b, "%x ", r.Uint64()>>20)
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

// TestWatchIsAtALongText: while libnotmuch is at one mail, which nothing interrupts, status says
// so, mail of another account comes to its folder, and a signal ends the watch; nothing is lost by
// that, nor left locked.
func TestWatchIsAtALongText(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `mailboxes = ["INBOX"]`)
	config := filepath.Join(w.dir, "config.toml")
	one, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.NewReplacer("[account.work]", "[account.other]", `["INBOX"]`, `["Lists"]`).Replace(string(one))
	if err := os.WriteFile(config, []byte(string(one)+other), 0o600); err != nil {
		t.Fatal(err)
	}
	appendAll(t, w.server, "INBOX", watchMail("first"))
	appendAll(t, w.server, "Lists", watchMail("second"))
	w.start()
	w.until("all is here", w.here("id:first@example.org or id:second@example.org", 2))
	appendAll(t, w.server, "INBOX", longText("long", 8))
	w.until("status says what notmuch is at", func() bool {
		out, _ := w.run("notmuch-imap", "status", "work")
		return strings.Contains(strings.Join(strings.Fields(out), " "), "notmuch is indexing")
	})
	appendAll(t, w.server, "Lists", watchMail("third"))
	w.until("other mail is in its folder", func() bool {
		files, err := filepath.Glob(filepath.Join(w.dir, "mail/other/Lists/new/*"))
		return err == nil && len(files) == 2
	})
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted || !w.said("interrupted; notmuch is ")() { // indexing it, or at the commit of it
		t.Errorf("exit status %d", status)
	}
	if out, status := w.run("notmuch", "tag", "+seen-by-me", "id:first@example.org"); status != 0 {
		t.Errorf("the database is locked: %s", out)
	}
	if out, status := w.run("notmuch-imap", "sync"); status != 0 {
		t.Errorf("a sync afterwards: %d %s", status, out)
	}
	for _, id := range []string{"first", "second", "third", "long"} {
		if !w.here("id:"+id+"@example.org", 1)() {
			t.Errorf("%s is not here", id)
		}
	}
}

// TestWatchWaitsForNotmuch: status tells that another program keeps notmuch's database, and with
// what of the mail that is on disk; the mail is there when that program has ended.
func TestWatchWaitsForNotmuch(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	w.until("it watches", w.said("work: connected, by NOTIFY"))
	f, err := os.OpenFile(filepath.Join(w.dir, "mail/.notmuch/xapian/flintlock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.until("the lock is free", func() bool {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1}) == nil
	})
	appendAll(t, w.server, "INBOX", watchMail("second"))
	w.until("status tells of it", func() bool {
		out, _ := w.run(name, "status")
		text := strings.Join(strings.Fields(out), " ")
		return strings.Contains(text, "another program is writing to notmuch's database, and is waited for since ") && strings.Contains(text, "1 message in 1 mailbox, and 1 more that notmuch is yet to be told of")
	})
	w.until("it tells a program", func() bool {
		out, _ := w.run(name, "status", "--json")
		return strings.Contains(out, `"beside":[{"what":"locked","since":"`) && strings.Contains(out, `"not_in_notmuch":1`)
	})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.until("mail is here afterwards", w.here("id:second@example.org", 1))
	if status := w.stop(os.Interrupt); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}
