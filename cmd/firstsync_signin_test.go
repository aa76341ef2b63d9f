package cmd

import (
	"strings"
	"testing"
)

// TestARunThatPairsSignsInOnce also where it tells the server, when all is paired, what the files
// alone have, and what was here before.
func TestARunThatPairsSignsInOnce(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{{name, "sync", "-n"}, {name, "sync"}, {name, "upload", "work"}, {name, "import", "maildir"}} {
		t.Run(strings.Join(words[1:], " "), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
			appendAll(t, s, "Other", rawDovecot(100))
			m, _, _ := settle(t, s)
			m.write("config.toml", m.read("config.toml")+"connections = 1\n")
			m.maildir("INBOX")
			m.put("INBOX/cur/a:2,FS", rawDovecot(0))
			m.put("INBOX/cur/mine:2,S", rawDovecot(30))
			m.must("notmuch", "new")
			wire := m.tapped()
			m.must(words...)
			wire.mu.Lock()
			defer wire.mu.Unlock()
			if n := strings.Count(wire.said.String(), "AUTHENTICATE ") + strings.Count(wire.said.String(), " LOGIN "); n != 1 {
				t.Errorf("%d sign-ins:\n%s", n, wire.said.String())
			}
		})
	}
}
