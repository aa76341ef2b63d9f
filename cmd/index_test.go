package cmd

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// A watch goes on with the database that a rebuild has put in the place of the one that it
// watched, and nothing comes or goes a second time.
func TestWatchGoesOnWithARebuiltDatabase(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `watch = ["INBOX"]`)
	appendAll(t, w.server, "INBOX", watchMail("first"), watchMail("second"))
	w.start()
	w.until("what was there is here", w.here("path:work/INBOX/**", 2))
	w.run("notmuch", "tag", "+mine", "-unread", "id:first@example.org")
	w.until("the tag is a flag there", w.there(`\Seen`, "EXAMINE INBOX", "FETCH 1 (FLAGS)"))
	w.until("the database is made anew", func() bool {
		out, status := w.run(name, "index", "--rebuild")
		if status != 0 && status != exitLater { // the watch was at work
			t.Fatalf("exit status %d: %s", status, out)
		}
		return status == 0
	})
	w.run("notmuch", "tag", "-unread", "id:second@example.org")
	w.until("a tag in the new database is a flag there", w.there(`\Seen`, "EXAMINE INBOX", "FETCH 2 (FLAGS)"))
	appendAll(t, w.server, "INBOX", watchMail("third"))
	w.until("new mail is in the new database", w.here("id:third@example.org", 1))
	if !w.here("tag:mine", 1)() {
		t.Error("a tag was lost")
	}
	w.rests()
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
	if out, status := w.run(name, "sync"); status != 0 || !strings.Contains(out, nothingNew) {
		t.Errorf("a sync afterwards: %d %s", status, out)
	}
	if out, status := w.run(name, "verify", "--deep"); status != 0 {
		t.Errorf("verify: %d %s", status, out)
	}
	if entries, err := os.ReadDir(w.dir + "/mail/work/INBOX/cur"); err != nil || len(entries) > 3 {
		t.Errorf("there are %d files, %v", len(entries), err)
	}
}
