package cmd

import (
	"strings"
	"testing"
)

// TestWhatIsMovedThereSinceKeepsItsTags, those that were changed here as well, when the first sync
// after a take-over finds it.
func TestWhatIsMovedThereSinceKeepsItsTags(t *testing.T) {
	t.Parallel()
	for what, words := range map[string][]string{"import mbsync": {name, "import", "mbsync"}, "import maildir": {name, "import", "maildir"}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n" // mbsync adds X-TUID, and notmuch makes an id of the bytes
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2), rawDovecot(3), anonymous+"one\r\n", anonymous+"two\r\n")
			command(t, s, "SELECT INBOX", `UID STORE 3 +FLAGS (\Seen)`, "CREATE Archive")
			m := newMover(t, s, "Verbatim", "*")
			move := func() { command(t, s, "SELECT INBOX", "UID MOVE 1,2,3,5,6 Archive") }
			change := func() {
				m.must("notmuch", "tag", "+flagged", "--", "id:d0@example.org")
				m.must("notmuch", "tag", "+replied", "-unread", "--", "id:d1@example.org")
				m.must("notmuch", "tag", "+unread", "--", "id:d2@example.org")
				m.must("notmuch", "tag", "+mine", "+flagged", "--", "one")
			}
			if what == "import mbsync" {
				change()
				move()
				m.must(words...)
			} else {
				m.must(words...)
				change()
				move()
			}
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			m.sync()
			m.sync()
			m.hasTags(before)
			says(t, m.must(name, "verify"), "work: all 6 messages are here")
			for _, want := range []string{`d0@example.org \Flagged`, `d1@example.org \Answered \Seen`, `d2@example.org`} {
				id, flags, _ := strings.Cut(want, " ")
				found := false
				for _, l := range m.there() {
					if strings.HasPrefix(l, "Archive "+id+" ") {
						found = strings.HasSuffix(l, " "+flags)
					}
				}
				if !found {
					t.Errorf("no %s in\n%s", want, strings.Join(m.there(), "\n"))
				}
			}
			// And whenever it is moved, or copied, there.
			command(t, s, "SELECT Archive", "UID MOVE 1:* INBOX", "SELECT INBOX", "UID COPY 1:* Archive")
			m.sync()
			m.sync()
			m.hasTags(before)
			says(t, m.must(name, "verify"), "work: all 12 messages are here")
		})
	}
}
