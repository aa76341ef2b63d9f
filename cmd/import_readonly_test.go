package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNothingIsAdvisedThatReadOnlyRefuses to do, of mail that is here alone.
func TestNothingIsAdvisedThatReadOnlyRefuses(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	m, _, _ := settle(t, s)
	m.write("config.toml", m.read("config.toml")+"read_only = true\n")
	for _, d := range []string{"INBOX/cur", "INBOX/new", "INBOX/tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, n := range map[string]int{"a": 0, "mine": 30} {
		m.write("mail/work/INBOX/cur/"+name+":2,S", strings.ReplaceAll(rawDovecot(n), "\r\n", "\n"))
	}
	m.must("notmuch", "new")
	const line = "work/INBOX: 1 message paired; 1 is only here, and stays here (read_only); 1 is only there: a sync fetches it"
	says(t, m.must(name, "import", "maildir", "-n"), line)
	says(t, m.must(name, "sync", "-n"), line)
	says(t, m.must(name, "import", "maildir"), line)
	m.must(name, "sync")
	if out, _ := m.run(name, "verify"); strings.Contains(out, "upload") {
		t.Errorf("%s", out)
	}
}
