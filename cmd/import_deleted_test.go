package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMailboxesThatAreNoMoreAreKnown wherever mbsync keeps what it remembers: one that was renamed
// on the server since mbsync's last run is that still, of one that was deleted the mail stays
// here. Neither comes again, nor does an upload send it.
func TestMailboxesThatAreNoMoreAreKnown(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"*", "dir/", "pre-", ""} {
		for _, rc := range []bool{false, true} {
			for _, style := range []string{"Verbatim", "Maildir++", "Legacy"} {
				t.Run(fmt.Sprint(style, " ", state, rc), func(t *testing.T) {
					t.Parallel()
					s := dovecot(t)
					appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
					appendAll(t, s, "Old/&AOk-", rawDovecot(100), rawDovecot(101))
					appendAll(t, s, "Gone/a", rawDovecot(300), rawDovecot(301), rawDovecot(302))
					words := []string{name, "import", "mbsync"}
					at := state
					if state != "*" && state != "" {
						at = t.TempDir() + "/" + state
						if err := os.MkdirAll(filepath.Dir(at+"x"), 0o700); err != nil {
							t.Fatal(err)
						}
						if !rc {
							words = append(words, "--from", at)
						}
					}
					m := newMover(t, s, style, at)
					if style == "Maildir++" {
						m.write("config.toml", m.read("config.toml")+"layout = \"maildir++\"\n")
					}
					if rc {
						m.write(".mbsyncrc", m.read("mbsyncrc"))
					}
					m.must("notmuch", "tag", "+mine", "--", "id:d100@example.org", "or", "id:d300@example.org")
					// The third mail is elsewhere by now.
					command(t, s, "RENAME Old/&AOk- New", "SELECT Gone/a", "UID MOVE 3 INBOX", "CLOSE", "DELETE Gone/a")
					before, there := m.must("notmuch", "dump", "--include=properties", "--include=tags"), m.there()
					wire := m.tapped()
					gone := map[string]string{"Verbatim": "Gone/a", "Maildir++": ".Gone.a", "Legacy": "Gone/.a"}[style]
					said := m.must(words...)
					says(t, said, "work/New: 2 messages are paired", "work/INBOX: 2 messages are paired; 1 is only there: a sync fetches it")
					if !strings.Contains(said, ": the server has it no more: 3 messages stay here, in "+gone+"\n") {
						t.Errorf("%s", said)
					}
					m.must(name, "sync")
					says(t, m.must(name, "sync"), "work: nothing new")
					says(t, m.must(name, "upload", "work"), "work: nothing new")
					m.untouched(wire, before, there)
				})
			}
		}
	}
}

// TestMailboxesOfOfflineIMAPThatAreNoMoreAreKnown likewise.
func TestMailboxesOfOfflineIMAPThatAreNoMoreAreKnown(t *testing.T) {
	t.Parallel()
	for _, sep := range []string{"/", "."} {
		t.Run(sep, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
			appendAll(t, s, "Old/&AOk-", rawDovecot(100), rawDovecot(101))
			appendAll(t, s, "Gone/a", rawDovecot(300), rawDovecot(301))
			m, host, port := settle(t, s)
			program := others(t)["OfflineIMAP "+sep](m, host, port)
			program.run()
			m.must("notmuch", "new")
			command(t, s, "RENAME Old/&AOk- New", "DELETE Gone/a")
			before, there := m.must("notmuch", "dump", "--include=properties", "--include=tags"), m.there()
			wire := m.tapped()
			says(t, m.must(program.words...), "work/New: 2 messages are paired", "work/Gone"+sep+"a: the server has it no more: 2 messages stay here, in Gone"+sep+"a")
			m.must(name, "sync")
			says(t, m.must(name, "upload", "work"), "work: nothing new")
			m.untouched(wire, before, there)
		})
	}
}

// untouched asserts that nothing was fetched or sent since, that notmuch has the tags that it had
// before, and the server its mail.
func (m *mover) untouched(wire *tap, before string, there []string) {
	m.t.Helper()
	if bodies, uploads := wire.asked(); bodies+uploads != 0 {
		m.t.Errorf("%d were fetched, and %d sent", bodies, uploads)
	}
	m.hasTags(before)
	if now := m.there(); !slices.Equal(now, there) {
		m.t.Errorf("the server has %q, and had %q", now, there)
	}
}
