package cmd

import (
	"os"
	"path/filepath"
	"testing"
)

// TestADeletionIsNoNewMail, though the mail comes back from the Trash; a dry run says the same.
func TestADeletionIsNoNewMail(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	command(t, w.server, "CREATE Trash")
	appendAll(t, w.server, "INBOX", watchMail("first"), watchMail("second"))
	sync := func(want string, more ...string) {
		t.Helper()
		if out, status := w.run(append([]string{name, "sync"}, more...)...); status != 0 || lastLine(out) != want {
			t.Errorf("status %d, %q, want the last line %q", status, out, want)
		}
	}
	sync("work: 2 new")
	files, err := filepath.Glob(filepath.Join(w.dir, "mail/work/INBOX/new/*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	appendAll(t, w.server, "INBOX", watchMail("third"))
	sync("work: would be: 1 new, 1 deleted on the server", "-n")
	sync("work: 1 new, 1 deleted on the server")
	if !w.here("path:work/Trash/**", 1)() {
		t.Error("the mail is not in the Trash here")
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	sync("work: would be: 1 deleted on the server", "-n")
	sync("work: 1 deleted on the server")
	sync("work: nothing new")
}
