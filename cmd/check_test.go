package cmd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// A check looks at an account and takes no lock: another program at work keeps nothing from
// it, and it keeps no sync from beginning. What a sync says of the database it says, too.
func TestACheckIsInNobodysWay(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.deliver("INBOX", 1)
	m.sync()
	state := filepath.Join(m.dir, "state", name, "work")
	l, err := ledger.Open(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	const held = "until it is done a second sync is refused"
	if out, status := m.run(name, "check"); status != exitDone || !strings.Contains(out, held) || !strings.Contains(out, "1 mailbox") {
		t.Errorf("with a sync at work: status %d\n%s", status, out)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	const elsewhere = "NOTMUCH_DATABASE is "
	if out, status := m.run(name, "check"); status != exitDone || strings.Contains(out, held) || strings.Contains(out, elsewhere) {
		t.Errorf("status %d\n%s", status, out)
	}
	m.env = append(m.env, "NOTMUCH_DATABASE="+m.dir+"/elsewhere")
	if out, _ := m.run(name, "check"); !strings.Contains(out, elsewhere) {
		t.Errorf("with a database elsewhere\n%s", out)
	}
}
