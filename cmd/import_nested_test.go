package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

	// Only what is asked for is told of.
	text = strings.Replace(text, "A, B, C\n", "A, B, C, D\n[Account D]\nlocalrepository = LD\nremoterepository = RC\n[Repository LD]\ntype = Maildir\nlocalfolders = ~/mail/workx/sea\n", 1)
	m.write(".offlineimaprc", text)
	for asked, want := range map[string]string{
		"A": "OfflineIMAP has the mail of A in " + m.root + ", and that of B in ", "B": "OfflineIMAP has the mail of B in " + m.root + "/bee, and that of A in ",
		"D": "OfflineIMAP has the mail of D in " + m.root + "x/sea, where that of C is: ", "C -n": "C/: "} {
		out, _ := m.run(append([]string{name, "import", "offlineimap"}, strings.Fields(asked)...)...)
		if n := strings.Count(out, "OfflineIMAP has the mail of "); asked != "C -n" && (n != 1 || !strings.Contains(strings.Join(strings.Fields(out), " "), want)) || asked == "C -n" && n > 0 {
			t.Errorf("%s: %s", asked, out)
		}
	}
	// Nor is it where the outer one, or the inner one, is in our configuration, by any name.
	conf := m.read("config.toml")
	for folder, lines := range map[string][]string{
		"work":     {"OfflineIMAP has the mail of A in " + m.root + ", and that of B in " + m.root + "/bee: one lies in the other, and neither is taken over; give each a directory of its own first"},
		"work/bee": {"OfflineIMAP has the mail of B in " + m.root + "/bee, and that of A in " + m.root + ": one lies in the other, and neither is taken over; give each a directory of its own first"},
	} {
		m.write("config.toml", conf+fmt.Sprintf("[account.mine]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = \"x\"\npassword_file = \"secret\"\nfolder = %q\n", host, port, folder))
		out, status := m.run(name, "import", "offlineimap", "mine")
		says(t, out, lines...)
		if status != exitPartly || strings.Contains(out, "paired") {
			t.Errorf("status %d: %s", status, out)
		}
	}
	m.write(".offlineimaprc", strings.Replace(text, "A, B, C, D", "B", 1))
	m.write("config.toml", conf+fmt.Sprintf("[account.mine]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = \"x\"\npassword_file = \"secret\"\nfolder = \"work\"\n", host, port))
	out, status = m.run(name, "import", "offlineimap", "--write")
	if strings.Contains(out, "has all these accounts") {
		t.Errorf("one is refused, and it says %s", out)
	}
	says(t, out, "OfflineIMAP has the mail of B in "+m.root+"/bee, and the configuration has that of mine in "+m.root+": one lies in the other, and it is not taken over; give each a directory of its own first")
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
}
