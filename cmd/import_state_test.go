package cmd

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// TestTheStateIsTheChannels where two accounts have folders of one name, which mbsync made in the
// same second, and servers with one UIDVALIDITY: the other's would make of new mail what was
// deleted here.
func TestTheStateIsTheChannels(t *testing.T) {
	t.Parallel()
	one, two := dovecot(t), dovecot(t)
	m, _, _ := settle(t, one)
	rc := "CopyArrivalDate yes\n\n"
	for i, s := range []*imaptest.DovecotServer{one, two} {
		n := []string{"a", "b"}[i]
		raws := []string{rawDovecot(1000 * i), rawDovecot(1000*i + 1), rawDovecot(1000*i + 2)}
		appendAll(t, s, "Archive/2024", raws[:3-i]...)
		if out, err := s.Doveadm("mailbox", "update", "-u", s.User, "--uid-validity", "1700000000", "Archive/2024"); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		host, port, err := net.SplitHostPort(s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		m.write("secret"+n, s.Password+"\n")
		m.must("mkdir", "mail/"+n)
		rc += fmt.Sprintf("IMAPStore %[1]sfar\nHost %[2]s\nPort %[3]s\nUser %[4]s\nPassCmd \"cat %[5]s/secret%[1]s\"\nSSLType None\nAuthMechs LOGIN\n\nMaildirStore %[1]snear\nPath ~/mail/%[1]s/\nInbox ~/mail/%[1]s/INBOX\nFlatten .\n\n"+
			"Channel %[1]s\nFar :%[1]sfar:\nNear :%[1]snear:\nPatterns *\nCreate Near\nExpunge Both\n\n", n, host, port, s.User, m.dir)
	}
	m.write(".mbsyncrc", rc)
	m.must("rm", "config.toml")
	m.must("mkdir", ".mbsync")
	m.must("mbsync", "-aq")
	m.must("notmuch", "new")
	for _, n := range []string{"a", "b"} { // as if of one second
		file := "mail/" + n + "/Archive.2024/.uidvalidity"
		_, last, _ := strings.Cut(m.read(file), "\n")
		m.write(file, "1600000000\n"+last)
		state := fmt.Sprintf(".mbsync/:%sfar:Archive!2024_:%[1]snear:Archive.2024", n)
		lines := strings.Split(m.read(state), "\n")
		for i, l := range lines {
			if strings.HasPrefix(l, "NearUidValidity ") || strings.HasPrefix(l, "SlaveUidValidity ") {
				lines[i], _, _ = strings.Cut(l, " ")
				lines[i] += " 1600000000"
			}
		}
		m.write(state, strings.Join(lines, "\n"))
	}
	appendAll(t, two, "Archive/2024", rawDovecot(1002))
	m.must(name, "import", "mbsync", "--write")
	says(t, m.must(name, "import", "mbsync"), "afar/Archive/2024: 3 messages are paired", "bfar/Archive/2024: 2 messages are paired; 1 is only there: a sync fetches it")
	says(t, m.must(name, "sync"), "afar: nothing new", "bfar: 1 new")
	says(t, m.must(name, "sync"), "afar: nothing new", "bfar: nothing new")
	says(t, m.must(name, "verify"), "afar: all 3 messages are here", "bfar: all 3 messages are here")

	// Without its configuration it is not known which one is whose.
	m.must("rm", "-r", ".mbsyncrc", "state")
	if out, status := m.run(name, "import", "mbsync"); status != exitPartly || strings.Count(out, "Archive.2024 is its state") != 2 {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestWhatMbsyncLetExpire (MaxMessages) stays on the server, also what mbsync forgot of it. Files that
// mbsync itself marked as deleted for that, and did not remove, nobody has deleted.
func TestWhatMbsyncLetExpire(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expunge, found string
		here           int
	}{
		{"Both", "5 messages are paired; 1 has", 6},
		{"None", "7 messages are paired; 1 has", 8},
	} {
		t.Run("Expunge "+c.expunge, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawsDovecot(12)...)
			command(t, s, "SELECT INBOX", `UID STORE 1:12 +FLAGS (\Seen)`)
			m, host, port := settle(t, s)
			program := mbsyncOf("Path ~/mail/work/\nInbox ~/mail/work/INBOX\nSubFolders Verbatim")(m, host, port)
			m.write(".mbsyncrc", strings.Replace(m.read(".mbsyncrc"), "Expunge Both", "Expunge "+c.expunge, 1)+"MaxMessages 5\nExpireUnread yes\n")
			program.run()
			program.run()
			appendAll(t, s, "INBOX", rawDovecot(12), rawDovecot(13))
			program.run()
			program.run()
			m.must("notmuch", "new")
			m.write("config.toml", m.read("config.toml")+"[[account.work.moves]]\nfrom = \"INBOX\"\nwith = \"filed\"\nto = \"Filed\"\n")
			m.must("notmuch", "tag", "+filed", "--", "id:d13@example.org")
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			appendAll(t, s, "INBOX", rawDovecot(14))
			wire := m.tapped()
			says(t, m.must(program.words...), fmt.Sprintf("work/INBOX: %s tags by which `moves` takes it elsewhere: it stays; `notmuch imap sync --rules work` moves what its tags say; 1 is only there: a sync fetches it; %d were left there by mbsync, and stay there", c.found, 15-c.here))
			m.sync()
			if bodies, uploads := wire.asked(); bodies != 1 || uploads != 0 {
				t.Errorf("fetched %d times, and sent %d", bodies, uploads)
			}
			says(t, m.must(name, "sync"), "work: nothing new")
			m.hasTags(before, "id:d14@example.org")
			if marked, err := filepath.Glob(filepath.Join(m.root, "INBOX", "cur", "*:2,*T*")); err != nil || len(marked) > 0 {
				t.Errorf("deleted are %q, %v", marked, err)
			}
			m.store("1,14", `+FLAGS (\Flagged)`) // one that is not here, and one that is
			says(t, m.must(name, "sync", "-n"), "work/INBOX: would: 1 change of flags", "work: would be: 1 change of flags")
			says(t, m.must(name, "sync"), "work/INBOX: 1 change of flags", "work: 1 change of flags")
			m.must("notmuch", "tag", "-flagged", "--", "id:d13@example.org")
			m.sync()
			says(t, m.must(name, "verify"), fmt.Sprintf("work: all %d messages are here; %d stay on the server, see: notmuch-imap stubs --all", c.here, 15-c.here))
			m.holds(map[string]int{"INBOX": 15})
		})
	}
}

// TestAFirstRunOfMbsyncThatDidNotEnd is no agreement: mbsync would go on, and have the mail twice.
func TestAFirstRunOfMbsyncThatDidNotEnd(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	m := newMover(t, s, "Verbatim", "*")
	m.must("mv", m.root+"/INBOX/.mbsyncstate", m.root+"/INBOX/.mbsyncstate.journal")
	if out, status := m.run(name, "import", "mbsync"); status != exitPartly || !strings.Contains(out, "work/INBOX: not taken over, the first sync pairs it by what the mail is: a run of mbsync was interrupted (.mbsyncstate.journal): run mbsync once more first") {
		t.Errorf("status %d: %s", status, out)
	}
}
