package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatWasMovedIntoAFolderThatIsNotTakenOver since the other program's last run is moved on the
// server, too: the mailbox that it left is taken over, and knows it as a message whose file is gone.
func TestWhatWasMovedIntoAFolderThatIsNotTakenOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(m *mover, folder string)
	}{
		{"its state is lost", func(m *mover, folder string) { m.must("rm", folder+"/.mbsyncstate") }},
		{"a run was interrupted", func(m *mover, folder string) {
			if err := os.WriteFile(folder+"/.mbsyncstate.journal", []byte("5\n"), 0o600); err != nil {
				m.t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2), rawDovecot(3))
			appendAll(t, s, "Archiv", rawDovecot(100), rawDovecot(101))
			m := newMover(t, s, "Verbatim", "*")
			archive := filepath.Join(m.root, "Archiv")
			for _, id := range []string{"d1@example.org", "d2@example.org"} {
				m.must("notmuch", "tag", "+kept", "id:"+id)
				from := m.file(id)
				base, _, _ := strings.Cut(filepath.Base(from), ",U=")
				m.must("mv", from, filepath.Join(archive, "cur", base+":2,S"))
			}
			m.must("notmuch", "new")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			c.spoil(m, archive)
			m.run(name, "import", "mbsync", "--from", "mbsyncrc")
			const found = "work/Archiv: 2 messages paired; 2 were moved here: the next sync moves them there, too"
			says(t, m.must(name, "sync", "-n"), found)
			says(t, m.must(name, "sync"), found)
			if out := m.must(name, "sync"); !strings.Contains(out, "2 moved") {
				t.Errorf("the sync after says %s", out)
			}
			says(t, m.must(name, "sync"), "work: nothing new")
			m.holds(map[string]int{"INBOX": 2, "Archiv": 4})
			m.hasTags(before)
			says(t, m.must(name, "verify", "--deep"), "work: all 6 messages are here, equal in every word")
		})
	}
}
