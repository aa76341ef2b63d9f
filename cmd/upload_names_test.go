package cmd

import (
	"fmt"
	"strings"
	"testing"
)

// TestAnotherServerGetsTheMailboxesOfBefore whatever their folders are called here: by the ledger
// of the account that had them, or where there is none by their names, as other programs write
// them.
func TestAnotherServerGetsTheMailboxesOfBefore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		near  string
		known bool
	}{
		{"Path ~/mail/work/\nInbox ~/mail/work/INBOX\nSubFolders Verbatim", true},
		{"Path ~/mail/work/\nInbox ~/mail/work/INBOX\nSubFolders Verbatim", false},
		{"Path ~/mail/work/\nInbox ~/mail/work/in\nFlatten _", true},
		{"Inbox ~/mail/work\nSubFolders Maildir++", true},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			s, other := dovecot(t), dovecot(t)
			want := map[string]int{"INBOX": 2, "Entw&APw-rfe": 1, "A &- B": 1, "Archiv&AOk-/2023": 2}
			n := 0
			for box, mails := range want {
				for range mails {
					n++
					appendAll(t, s, box, rawDovecot(n))
				}
			}
			m, host, port := settle(t, s)
			program := mbsyncOf(c.near)(m, host, port)
			program.run()
			m.must("notmuch", "new")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			if c.known {
				m.must(program.words...)
				m.must(name, "sync")
			}
			m.switchesTo(other, "neu")
			foreseen := m.must(name, "upload", "-n", "neu")
			out := m.must(name, "upload", "neu")
			if want := "neu: 6 uploaded"; !strings.Contains(out, want) || !strings.Contains(foreseen, "neu: would be: 6 uploaded") {
				t.Errorf("foreseen was\n%s\nand done\n%s", foreseen, out)
			}
			if out := m.must(name, "upload", "neu"); strings.Contains(out, "uploaded") {
				t.Errorf("again: %s", out)
			}
			says(t, m.must(name, "verify", "--deep"), "neu: all 6 messages are here, equal in every word")
			m.dovecot = other
			m.holds(want)
			m.hasTags(before)
		})
	}
}
