package cmd

import (
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// TestAFolderOfTooLongANameIsNamed by import, by a sync and by verify, and the rest is taken over:
// notmuch takes no such folder, and OfflineIMAP makes it all the same.
func TestAFolderOfTooLongANameIsNamed(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	long, deep := strings.Repeat("long-", 42), strings.Repeat("deep-", 20)+"/"+strings.Repeat("deep-", 28)
	odd := []string{"x~t", "a/~t", "x y", "R&D", "#news", "%41", "Grüße", long, deep}
	for i, box := range odd {
		appendAll(t, s, mail.EncodeName(box), rawDovecot(10*i), rawDovecot(10*i+1))
	}
	m, host, port := settle(t, s)
	program := others(t)["OfflineIMAP /"](m, host, port)
	program.run()
	m.maildir(long + "here")
	m.must("cp", "-r", m.root+"/x y/new", m.root+"/"+long+"here/")
	out, status := m.run(program.words...)
	const rename = ": rename the mailbox on the server, or exclude it with `mailboxes` in the configuration"
	says(t, out, "work/x~t: 2 messages are paired", "work/a/~t: 2 messages are paired", "work/R&D: 2 messages are paired", "work/%41: 2 messages are paired", "work/Grüße: 2 messages are paired",
		"work/"+long+": not taken over: the folder's name has 210 bytes, and notmuch takes 200 at most"+rename,
		"work/"+deep+": not taken over: the folder's name has 241 bytes, and notmuch takes 200 at most"+rename,
		"work/"+long+"here: not taken over: the folder's name has 214 bytes, and notmuch takes 200 at most: give it a shorter one")
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
	if out, _ := m.run(name, "sync"); strings.Count(out, "is too long for a folder that notmuch takes") != 2 {
		t.Errorf("the sync says %s", out)
	}
	out, status = m.run(name, "verify")
	says(t, out, "work: not there: "+long+": the folder's name has 210 bytes, and notmuch takes 200 at most: no sync takes what is in it; give it a shorter one")
	if strings.Count(out, "mailbox: the mailbox name ") != 2 {
		t.Errorf("not both mailboxes are named:\n%s", out)
	}
	if status != exitPartly || strings.Contains(out, "a sync fetches") {
		t.Errorf("status %d: %s", status, out)
	}
}
