package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestAccountsOneInTheOther are not proposed: what the inner one has would be uploaded to the
// server of the outer one.
func TestAccountsOneInTheOther(t *testing.T) {
	t.Parallel()
	m, host, port := settle(t, dovecot(t))
	if err := os.Remove(filepath.Join(m.dir, "config.toml")); err != nil {
		t.Fatal(err)
	}
	text := "[general]\naccounts = A, B, C\n"
	for _, a := range [][2]string{{"A", ""}, {"B", "/bee"}, {"C", "x/sea"}} {
		text += fmt.Sprintf("[Account %[1]s]\nlocalrepository = L%[1]s\nremoterepository = R%[1]s\n[Repository L%[1]s]\ntype = Maildir\nlocalfolders = ~/mail/work%[2]s\n[Repository R%[1]s]\ntype = IMAP\nremotehost = %[3]s\nremoteport = %[4]s\nremoteuser = %[1]s\nremotepass = x\nssl = no\nstarttls = no\n", a[0], a[1], host, port)
	}
	m.write(".offlineimaprc", text)
	out, status := m.run(name, "import", "offlineimap", "--write")
	says(t, out, "OfflineIMAP has the mail of A in "+m.root+", and that of B in "+m.root+"/bee: one lies in the other, and neither is taken over; give each a directory of its own first",
		"OfflineIMAP has the mail of B in "+m.root+"/bee, and that of A in "+m.root+": one lies in the other, and neither is taken over; give each a directory of its own first",
		m.dir+"/config.toml: C added; next: notmuch imap check C, then notmuch imap import offlineimap -n C")
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
}
