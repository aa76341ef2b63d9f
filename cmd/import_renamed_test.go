package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestARenamedMailboxIsTakenOver where the other program had it under the name of before.
func TestARenamedMailboxIsTakenOver(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	appendAll(t, s, "Old", rawDovecot(100), rawDovecot(101))
	appendAll(t, s, "Other", rawDovecot(200))
	m := newMover(t, s, "Verbatim", "*")
	command(t, s, "RENAME Old New")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	says(t, m.must(name, "import", "mbsync"), "work/New: 2 messages are paired", "work/INBOX: 2 messages are paired", "work/Other: 1 message is paired")
	says(t, m.must(name, "sync"), "work: nothing new")
	m.hasTags(before)
	m.holds(map[string]int{"INBOX": 2, "New": 2, "Other": 1})
	if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", `folder:work/Old`)); n != "2" {
		t.Errorf("%s files", n)
	}
}

// TestOfflineIMAPsOwnNamesAreTakenOver where nametrans, which is Python, made them; and
// OfflineIMAP still finds nothing to do.
func TestOfflineIMAPsOwnNamesAreTakenOver(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	appendAll(t, s, "Archiv/2024", rawDovecot(100), rawDovecot(101))
	appendAll(t, s, "Lists", rawDovecot(200), rawDovecot(201))
	m, host, port := settle(t, s)
	m.write("offlineimaprc", fmt.Sprintf("[general]\naccounts = a\nmetadata = %[1]s/meta\n\n[Account a]\nlocalrepository = here\nremoterepository = there\n\n"+
		"[Repository here]\ntype = Maildir\nlocalfolders = %[2]s\nsep = .\nnametrans = lambda f: {'in': 'INBOX', 'old': 'Archiv/2024', 'talk': 'Lists'}.get(f, f)\n\n"+
		"[Repository there]\ntype = IMAP\nremotehost = %[3]s\nremoteport = %[4]s\nremoteuser = %[5]s\nremotepass = %[6]s\nssl = no\nstarttls = no\nauth_mechanisms = LOGIN\n"+
		"nametrans = lambda f: {'INBOX': 'in', 'Archiv/2024': 'old', 'Lists': 'talk'}.get(f, f)\n", m.dir, m.root, host, port, s.User, s.Password))
	m.offline()
	if _, err := os.Stat(filepath.Join(m.root, "talk", "cur")); err != nil {
		t.Fatal(err)
	}
	m.must("notmuch", "new")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	says(t, m.must(name, "import", "offlineimap", "--from", filepath.Join(m.dir, "offlineimaprc")),
		"work/INBOX: 2 messages are paired", "work/Archiv/2024: 2 messages are paired", "work/Lists: 2 messages are paired")
	says(t, m.must(name, "sync"), "work: nothing new")
	m.hasTags(before)
	m.offline()
	m.holds(map[string]int{"INBOX": 2, "Archiv/2024": 2, "Lists": 2})
}
