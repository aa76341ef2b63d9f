package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMaildirPPInTheMailRoot is an account whose INBOX is notmuch's mail root itself, with the
// folders of Maildir++ beside it: what is new on one side is named so on the other one.
func TestMaildirPPInTheMailRoot(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100))
	m, _, _ := settle(t, s)
	m.write("config.toml", m.read("config.toml")+"folder = \".\"\nlayout = \"maildir++\"\n")
	m.must("notmuch", "new")
	m.must(name, "sync")
	at := func(dir string, want int) {
		t.Helper()
		n := 0
		for _, d := range []string{"cur", "new"} {
			files, err := os.ReadDir(filepath.Join(m.dir, "mail", dir, d))
			if err != nil {
				t.Error(err)
			}
			n += len(files)
		}
		if n != want {
			t.Errorf("%d files in %q, want %d", n, dir, want)
		}
	}
	at("", 2)
	at(".Archiv&AOk-.2024", 1)

	// A folder that is new here, a mail in it and one moved to it; new mail, and a mailbox.
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.dir, "mail", ".&AMQ-lter.2020", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.write("mail/.&AMQ-lter.2020/cur/mine:2,S", strings.ReplaceAll(rawDovecot(30), "\r\n", "\n"))
	file := m.file("d0@example.org")
	if err := os.Rename(file, filepath.Join(m.dir, "mail", ".&AMQ-lter.2020", "cur", filepath.Base(file)+":2,F")); err != nil {
		t.Fatal(err)
	}
	m.must("notmuch", "new")
	appendAll(t, s, "INBOX", rawDovecot(2))
	appendAll(t, s, "Neu", rawDovecot(200))
	m.sync()
	at("", 2)
	at(".Neu", 1)
	at(".&AMQ-lter.2020", 2)
	m.holds(map[string]int{"INBOX": 2, "Archiv&AOk-/2024": 1, "Neu": 1, "&AMQ-lter/2020": 2})
	says(t, m.must(name, "verify", "--deep"), "work: all 6 messages are here, equal in every word")
	if out := m.must(name, "check", "--verbose"); !strings.Contains(out, "INBOX (2 messages) -> "+m.dir+"/mail\n") {
		t.Error(out)
	}
	m.must("notmuch", "tag", "+flagged", "--", "id:d1@example.org")
	if out := m.must(name, "sync"); !strings.Contains(out, "1 change of flags sent") {
		t.Error(out)
	}
	says(t, m.must(name, "folder", "delete", "--yes", "--with-mail", "work/Neu"), "work/Neu: deleted")
	m.sync()
	if _, err := os.Stat(filepath.Join(m.dir, "mail", ".Neu")); err == nil {
		t.Error("the folder is there")
	}
}

// TestWhatIsGoneFromAMailRootThatIsAnINBOX since the other program's last run is told to notmuch,
// though no name of it is known.
func TestWhatIsGoneFromAMailRootThatIsAnINBOX(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2), rawDovecot(3))
	appendAll(t, s, "Archive", rawDovecot(100))
	m := moverIn(t, s, ".", "Maildir++", "*")
	m.write("config.toml", m.read("config.toml")+"folder = \".\"\nlayout = \"maildir++\"\ndeletions = \"expunge\"\n")
	m.must("mv", m.file("d1@example.org"), filepath.Join(m.root, ".Archive", "cur", "x1:2,S"))
	m.must("rm", m.file("d2@example.org"))
	m.must("notmuch", "new")
	m.must("notmuch", "tag", "+kept", "id:d1@example.org")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	m.must(name, "import", "mbsync", "--from", "mbsyncrc")
	m.must(name, "sync")
	says(t, m.must(name, "sync"), "work: nothing new")
	m.holds(map[string]int{"INBOX": 2, "Archive": 2})
	m.hasTags(before)
	says(t, m.must(name, "verify", "--deep"), "work: all 4 messages are here, equal in every word")
}
