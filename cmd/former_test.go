package cmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnotherServerGetsTheMailboxesOfTheFirst whatever their folders are called here, and as
// many mails as it had.
func TestAnotherServerGetsTheMailboxesOfTheFirst(t *testing.T) {
	t.Parallel()
	s, other := dovecot(t), dovecot(t)
	const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\none\r\n"
	appendAll(t, s, "INBOX", rawDovecot(1), anonymous, anonymous, rawDovecot(2), rawDovecot(2))
	command(t, s, "CREATE Archive/2023", "CREATE Entw&APw-rfe", `CREATE "A &- B"`)
	appendAll(t, s, "Archive/2023", rawDovecot(3))
	appendAll(t, s, "Entw&APw-rfe", rawDovecot(4), rawDovecot(5))
	appendAll(t, s, "A &- B", rawDovecot(6))
	m, host, port := settle(t, s)
	m.write("mbsyncrc", fmt.Sprintf("IMAPStore far\nHost %s\nPort %s\nUser %s\nPass %q\nSSLType None\nAuthMechs LOGIN\n\n"+
		"MaildirStore near\nPath %[5]s/\nInbox %[5]s/in\nFlatten _\n\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSyncState *\n", host, port, s.User, s.Password, m.root))
	m.mbsync()
	m.must("notmuch", "new")
	m.must(name, "import", "mbsync", "--from", filepath.Join(m.dir, "mbsyncrc"))
	m.must(name, "sync")
	old := m.must(name, "verify", "--deep")

	m.switchesTo(other, "next")
	foreseen := m.must(name, "upload", "-n", "next")
	out := m.must(name, "upload", "next")
	for _, text := range []string{foreseen, out} {
		if !strings.Contains(text, "new folder: Archive_2023 (1 message)") || !strings.Contains(text, "9 uploaded") {
			t.Errorf("%s", text)
		}
	}
	m.dovecot = other
	m.holds(map[string]int{"INBOX": 5, "Archive/2023": 1, "Entw&APw-rfe": 2, "A &- B": 1})
	if got := m.must(name, "verify", "--deep"); got != strings.ReplaceAll(old, "work", "next") {
		t.Errorf("%s, where there was %s", got, old)
	}
	says(t, m.must(name, "upload", "next"), "next: nothing new")
}
