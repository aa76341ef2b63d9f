package cmd

import (
	"strings"
	"testing"
)

// TestMailboxesThatDifferByCaseAreTakenOver each in the folder of its name, where the file
// system has one for each; likewise with no import, when the first sync pairs.
func TestMailboxesThatDifferByCaseAreTakenOver(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"mbsync", "sync"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0))
			appendAll(t, s, "ARCH", rawDovecot(100))
			appendAll(t, s, "Arch", rawDovecot(200), rawDovecot(201))
			appendAll(t, s, "arch", rawDovecot(300))
			m := newMover(t, s, "Verbatim", "*")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			if by == "mbsync" {
				says(t, m.must(name, "import", "mbsync"), "work/ARCH: 1 message is paired", "work/Arch: 2 messages are paired", "work/arch: 1 message is paired")
			} else {
				m.must(name, "sync")
			}
			says(t, m.must(name, "sync"), "work: nothing new")
			if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "5" {
				t.Errorf("%s files", n)
			}
			m.hasTags(before)
			says(t, m.must(name, "verify"), "work: all 5 messages are here")
		})
	}
}
