package cmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// TestADryRunCountsWhatASyncDoes of messages that both sides changed, each in every way. One sync
// is enough for that: then both sides are the same. So it is with what both changed before the
// mail was taken over.
func TestADryRunCountsWhatASyncDoes(t *testing.T) {
	t.Parallel()
	tag := func(words ...string) func(m *mover, id string) {
		return func(m *mover, id string) {
			m.must(append(append([]string{"notmuch", "tag"}, words...), "--", "id:"+id)...)
		}
	}
	remove := func(m *mover, id string) { m.must("rm", m.file(id)) }
	move := func(m *mover, id string) { m.must("mv", m.file(id), m.root+"/Other/cur/") }
	mark := func(m *mover, id string) {
		key, _, _ := strings.Cut(filepath.Base(m.file(id)), ":")
		m.must("mv", m.file(id), m.root+"/INBOX/cur/"+key+":2,RT")
	}
	rename := func(letters string) func(m *mover, id string) {
		return func(m *mover, id string) { m.must("mv", m.file(id), m.root+"/INBOX/cur/new"+id+":2,"+letters) }
	}
	theres := []string{"NOOP", `UID STORE %d +FLAGS (\Flagged)`, `UID STORE %d +FLAGS (\Seen)`, `UID STORE %d -FLAGS (\Answered)`, "UID MOVE %d Other",
		`UID STORE %[1]d +FLAGS (\Deleted)` + "\n" + `UID EXPUNGE %[1]d`}
	for what, here := range map[string][]func(m *mover, id string){
		"nothing": nil, "flagged": {tag("+flagged")}, "read": {tag("-unread")}, "a flag taken off": {tag("-replied")}, "removed": {remove}, "moved": {move}, "marked": {mark},
		"renamed": {rename("R")}, "renamed and flagged": {rename("FR")}, "renamed and marked": {rename("RT")},
		"flagged and moved": {tag("+flagged"), move}, "flagged and removed": {tag("+flagged"), remove},
	} {
		for _, c := range []struct{ trash, since bool }{{false, false}, {true, false}, {true, true}} {
			trash := c.trash
			if c.since && strings.HasPrefix(what, "renamed") {
				continue // without its number a file is new mail, as it is to mbsync
			}
			if share.Spares(what, c) {
				continue
			}
			t.Run(fmt.Sprint(what, " ", c), func(t *testing.T) {
				t.Parallel()
				s := dovecot(t)
				for i := range len(theres) + 2 {
					appendAll(t, s, "INBOX", rawDovecot(i))
				}
				appendAll(t, s, "Other", rawDovecot(100))
				if trash {
					appendAll(t, s, "Trash", rawDovecot(200))
				}
				command(t, s, "SELECT INBOX", `UID STORE 1:* +FLAGS (\Answered)`)
				m := newMover(t, s, "Verbatim", "*")
				if !c.since {
					m.must(name, "import", "mbsync")
					m.must(name, "sync")
				}
				for i, there := range theres {
					for _, change := range here {
						change(m, fmt.Sprintf("d%d@example.org", i))
					}
					words := []string{"SELECT INBOX"}
					for l := range strings.Lines(there) {
						if l = strings.TrimSpace(l); strings.Contains(l, "%") {
							l = fmt.Sprintf(l, i+1)
						}
						words = append(words, l)
					}
					command(t, s, words...)
				}
				if c.since {
					m.must("notmuch", "new")
					m.must(name, "import", "mbsync")
				}
				foreseen, _ := m.run(name, "sync", "-n")
				done, _ := m.run(name, "sync")
				if f, d := strings.Replace(lastLine(foreseen), "would be: ", "", 1), lastLine(done); f != d {
					t.Errorf("%q foreseen, and %q done:\n%s\n%s", f, d, foreseen, done)
				}
				if strings.HasSuffix(what, "marked") && !trash {
					return // what is deleted waits for a person
				}
				if trash || !strings.Contains(what, "removed") { // else so do these
					m.must(name, "verify")
				}
				for query, n := range map[string]string{"id:d1@example.org and tag:flagged": "1", "id:d3@example.org and tag:replied": "0"} {
					if got := strings.TrimSpace(m.must("notmuch", "count", query)); got != n {
						t.Errorf("%s messages are %s: of what was changed there, too, both changes hold", got, query)
					}
				}
				if again, status := m.run(name, "sync"); status != 0 || !strings.Contains(again, nothingNew) {
					t.Errorf("after\n%s\nthe second sync ends with %d and says\n%s", done, status, again)
				}
			})
		}
	}
}
