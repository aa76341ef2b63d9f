package cmd

import (
	"fmt"
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

// TestWhatWasMovedHereBeforeAnImport is moved on the server, too, also mail that has no Message-ID to
// be known by, or another size on the server than here: the server's text says which file it is now.
// What was deleted here is deleted. No rule gives or takes a tag of what was moved, or is only here.
func TestWhatWasMovedHereBeforeAnImport(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprintf("%v", named), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			var all []string
			for i := range 5 {
				all = append(all, fmt.Sprintf("From: a@example.org\r\nSubject: mail %d\r\nDate: Mon, 01 Mar 2021 04:05:%02d +0000\r\n\r\ntext %d\r\n", i%4, i%4, i%4))
			}
			all = append(all, "Message-ID: <sized@example.org>\r\nSubject: mail 1, whose file ends otherwise\r\n\r\ntext\r\n")
			appendAll(t, s, "INBOX", all...)
			appendAll(t, s, "Archiv", rawDovecot(100))
			appendAll(t, s, "Trash", rawDovecot(200))
			m := newMover(t, s, "Verbatim", "*")
			m.write("config.toml", m.read("config.toml")+"trash = \"Trash\"\ndeleted_tag = \"deleted\"\n[[account.work.moves]]\nfrom = \"INBOX\"\nwithout = \"inbox\"\nto = \"Archiv\"\n[[account.work.moves]]\nfrom = \"Archiv\"\nwith = \"inbox\"\nto = \"INBOX\"\n")
			files, err := filepath.Glob(filepath.Join(m.root, "INBOX", "*", "*"))
			if err != nil || len(files) != len(all) {
				t.Fatalf("%q, %v", files, err)
			}
			moved := 0
			for _, f := range files {
				raw, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				base, _, _ := strings.Cut(filepath.Base(f), ":2,")
				if !named {
					base, _, _ = strings.Cut(base, ",U=")
				}
				if strings.Contains(string(raw), "ends otherwise") {
					m.write(f[len(m.dir)+1:], string(raw)+strings.Repeat("\n", 600))
				}
				switch {
				case strings.Contains(string(raw), "Subject: mail 0"), strings.Contains(string(raw), "Subject: mail 1"):
					m.must("mv", f, filepath.Join(m.root, "Archiv", "cur", base+":2,S"))
					moved++
				case strings.Contains(string(raw), "Subject: mail 2"):
					m.must("rm", f)
				}
			}
			if moved != 4 {
				t.Fatalf("%d are moved", moved)
			}
			m.put("INBOX/cur/only:2,S", rawDovecot(1))
			m.put("Archiv/cur/only2:2,S", rawDovecot(2))
			m.must("notmuch", "new")
			m.must("notmuch", "tag", "-inbox", "id:d1@example.org")
			m.must("notmuch", "tag", "+deleted", "id:d100@example.org", "or", "id:d200@example.org") // the one is in the Trash
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			if out := m.must(name, "import", "mbsync", "--from", "mbsyncrc"); strings.Count(out, "marked as deleted here") != 1 || !strings.Contains(out, "; 1 is marked as deleted here: a sync deletes it there") {
				t.Errorf("the import says %s", out)
			}
			for _, words := range [][]string{{name, "sync", "-n"}, {name, "sync"}} {
				if out := m.must(words...); !strings.Contains(out, " 2 deleted on the server,") || !strings.Contains(out, " 4 moved on the server,") || !strings.Contains(out, " 2 uploaded") {
					t.Errorf("%q says %s", words, out)
				}
			}
			says(t, m.must(name, "sync"), "work: nothing new")
			m.holds(map[string]int{"INBOX": 2, "Archiv": 5, "Trash": 3})
			m.hasTags(before, "+inbox +unread -- id:notmuch-sha1-55fa03bec19afbad11b0c1eb7ed1053f0598a238") // it came into the Trash
		})
	}
}
