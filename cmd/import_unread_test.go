package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhatIsNotTakenOverIsPaired by the first sync in the folder where the other program has it,
// whatever that is called: what it remembers cannot be read, and mail here is not fetched again.
func TestWhatIsNotTakenOverIsPaired(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, near string
		spoil      func(m *mover)
		text       string
	}{
		{"AltMap", "AltMap yes\nSubFolders Verbatim\n", nil, "as with AltMap"},
		{"AltMap and Flatten", "AltMap yes\nFlatten _\n", nil, "as with AltMap"},
		{"a run that was interrupted", "SubFolders Verbatim\n", func(m *mover) {
			for _, dir := range []string{"in", "Archiv/2024"} {
				m.write("mail/work/"+dir+"/.mbsyncstate.journal", "5\n")
			}
		}, "run mbsync once more first"},
		{"no state", "Flatten _\n", func(m *mover) {
			m.must("find", m.root, "-name", ".mbsyncstate", "-delete")
		}, "mbsync does not have it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
			appendAll(t, s, "Archiv/2024", rawDovecot(100), rawDovecot(101))
			m, host, port := settle(t, s)
			m.write(".mbsyncrc", fmt.Sprintf("IMAPStore far\nHost %s\nPort %s\nUser %s\nPassCmd \"cat %s/secret\"\nSSLType None\nAuthMechs LOGIN\n\nMaildirStore near\nPath ~/mail/work/\nInbox ~/mail/work/in\n%s\n"+
				"Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSyncState *\n", host, port, s.User, m.dir, c.near))
			m.must("mbsync", "-aq")
			m.must("notmuch", "new")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			if c.spoil != nil {
				c.spoil(m)
			}
			for range 2 { // it can be tried again
				out, status := m.run(name, "import", "mbsync")
				// Where nothing can be mended only a sync is left.
				if never := strings.HasPrefix(c.name, "AltMap"); status != exitPartly || strings.Count(out, c.text) != 2 || never != strings.Contains(out, "; next: notmuch imap sync -n work; of what is not taken over a sync brings back") {
					t.Errorf("status %d: %s", status, out)
				}
			}
			if out, _ := m.run(name, "status"); strings.Contains(out, "error") {
				t.Errorf("status says %s", out)
			}
			says(t, m.must(name, "sync", "-n"), "work/INBOX: 3 messages paired", "work/Archiv/2024: 2 messages paired", "work: would be: nothing new")
			says(t, m.must(name, "sync"), "work/INBOX: 3 messages paired", "work/Archiv/2024: 2 messages paired")
			says(t, m.must(name, "sync"), "work: nothing new")
			says(t, m.must(name, "verify"), "work: all 5 messages are here")
			m.hasTags(before)
			m.holds(map[string]int{"INBOX": 3, "Archiv/2024": 2})
			if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "5" {
				t.Errorf("%s files", n)
			}
		})
	}
}

// TestAnImportGoesOnWhenTheOtherProgramHasEnded and takes over what it was at work on.
func TestAnImportGoesOnWhenTheOtherProgramHasEnded(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
	m := newMover(t, s, "Verbatim", "*")
	if err := os.Remove(m.file("d1@example.org")); err != nil {
		t.Fatal(err)
	}
	m.must("notmuch", "new")
	// A lock of this process, as that of an mbsync.
	lock, err := os.Create(filepath.Join(m.root, "INBOX", ".mbsyncstate.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if out, status := m.run(name, "import", "mbsync"); status != exitPartly || !strings.Contains(out, "the other program is at work on it") || !strings.Contains(out, "next: notmuch imap import mbsync work, when") {
		t.Errorf("status %d: %s", status, out)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	says(t, m.must(name, "import", "mbsync"), "work/INBOX: 2 messages are paired; 1 was removed here since: a sync deletes it there")
}

// TestOfflineIMAPsNamesInUTF7 are those of mailboxes, in its files and ours.
func TestOfflineIMAPsNamesInUTF7(t *testing.T) {
	t.Parallel()
	for _, sep := range []string{".", "/"} {
		s := dovecot(t)
		boxes := []string{"Entw&APw-rfe", "A &- B", "&ANw-ber/&AMQ-"}
		for i, b := range boxes {
			appendAll(t, s, b, rawDovecot(10*i), rawDovecot(10*i+1))
		}
		m := fromOfflineIMAP(t, s, sep)
		for i := range boxes {
			if err := os.Remove(m.file(fmt.Sprintf("d%d@example.org", 10*i))); err != nil {
				t.Fatal(err)
			}
		}
		m.must("notmuch", "new")
		out := m.must(name, "import", "offlineimap", "--from", filepath.Join(m.dir, "offlineimaprc"))
		for _, b := range []string{"Entwürfe", "A & B", "Über/Ä"} {
			says(t, out, "work/"+b+": 1 message is paired; 1 was removed here since: a sync deletes it there")
		}
	}
}

// TestAFolderOfNoKnownMailboxIsSaid where some mailbox has no folder: a sync would fetch its mail
// again.
func TestAFolderOfNoKnownMailboxIsSaid(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0))
	appendAll(t, s, "Old", rawDovecot(100), rawDovecot(101))
	m := newMover(t, s, "Verbatim", "*")
	command(t, s, "RENAME Old New")
	m.must("rm", m.root+"/Old/.mbsyncstate")
	out, status := m.run(name, "import", "mbsync")
	if status != exitPartly || !strings.Contains(out, "next: notmuch imap import mbsync work, when") {
		t.Errorf("status %d: %s", status, out)
	}
	says(t, out, "work/New: mbsync does not have it; the first sync fetches what is not here",
		"work/Old: not taken over: it is not known of which mailbox its mail is, which a sync would fetch again; move it where the mailbox's folder is, or away, before a sync")
	m.must("mv", m.root+"/Old", m.root+"/New")
	m.must("notmuch", "new")
	says(t, m.must(name, "sync"), "work: nothing new")
	says(t, m.must(name, "verify"), "work: all 3 messages are here")
	m.holds(map[string]int{"INBOX": 1, "New": 2})
}
