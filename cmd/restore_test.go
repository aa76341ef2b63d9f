package cmd

import (
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// With --restore a folder gets back from a real server what it lacks, and a file that
// was moved goes back with its tags, and nothing is written on the server.
func TestRestoreFromADovecot(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			for i := range 5 {
				appendAll(t, s, "INBOX", rawDovecot(i))
			}
			appendAll(t, s, "Archive", rawDovecot(100))
			appendAll(t, s, "Trash", rawDovecot(200))
			w := newWorld(t, s.Addr(), s.User, s.Password)
			w.sync()
			w.notmuch("tag", "+mine", "--", "id:d1@example.org")
			w.mv("d1@example.org", "Archive", true)
			w.rm("d3@example.org")
			w.notmuch("new")
			if rep := w.sync(func(o *pipeline.Options) { o.Restore, o.Only = true, []string{"INBOX"} }); !rep.Clean() || rep.New != 1 {
				t.Errorf("%+v", rep)
			}
			for query, n := range map[string]string{"folder:work/INBOX": "5", "folder:work/Archive": "1", "folder:work/INBOX and tag:mine": "1", "*": "7"} {
				if got := w.notmuch("count", query); got != n {
					t.Errorf("%s: %s, want %s", query, got, n)
				}
			}
			w.notmuch("new")
			for range 2 {
				if rep := w.sync(); rep.New+rep.Moved+rep.Deleted+rep.Uploaded+rep.Pushed+rep.Removed != 0 || !rep.Clean() {
					t.Errorf("then: %+v", rep)
				}
			}
		})
	}
}
