package cmd

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// TestTwoAccountsInOneMaildir of mbsync: each with a folder of its own in a shared Path is taken
// over with that; where the folders of both lie side by side the first one is, and what is the
// other's stays as it is, until each has a directory of its own, as it is said.
func TestTwoAccountsInOneMaildir(t *testing.T) {
	t.Parallel()
	type server struct {
		*mover
		channel string
	}
	setup := func(t *testing.T, channels func(n string) (path, inbox, near, patterns string)) (a, b server) {
		t.Helper()
		one, two := dovecot(t), dovecot(t)
		m, _, _ := settle(t, one)
		other := *m
		other.dovecot = two
		rc := ""
		for i, s := range []*imaptest.DovecotServer{one, two} {
			n := []string{"a", "b"}[i]
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(100*i+1), rawDovecot(100*i+2)) // the first is in both
			appendAll(t, s, "Of"+n, rawDovecot(100*i+50), rawDovecot(100*i+51))
			host, port, err := net.SplitHostPort(s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			m.write("secret"+n, s.Password+"\n")
			path, inbox, near, patterns := channels(n)
			rc += fmt.Sprintf("IMAPStore far%[1]s\nHost %[2]s\nPort %[3]s\nUser %[4]s\nPassCmd \"cat %[5]s/secret%[1]s\"\nSSLType None\nAuthMechs LOGIN\n\nMaildirStore near%[1]s\nPath %[6]s\nInbox %[7]s\nSubFolders Verbatim\n\n"+
				"Channel c%[1]s\nFar :far%[1]s:\nNear :near%[1]s:%[8]s\nPatterns %[9]s\nCreate Near\nSyncState *\n\n", n, host, port, s.User, m.dir, path, inbox, near, patterns)
		}
		m.write(".mbsyncrc", rc)
		m.must("rm", "config.toml")
		m.must("rm", "-r", "mail/work")
		m.must("mkdir", "mail/a", "mail/b")
		m.must("mbsync", "-aq")
		m.must("notmuch", "new")
		m.must("notmuch", "tag", "+mine", "--", "id:d0@example.org", "or", "id:d150@example.org")
		return server{m, "ca"}, server{&other, "cb"}
	}
	clean := func(t *testing.T, a, b server, before string, there [2][]string, messages int) {
		t.Helper()
		a.hasTags(before)
		says(t, a.must(name, "sync", "-n"), "fara: would be: nothing new", "farb: would be: nothing new")
		says(t, a.must(name, "sync"), "fara: nothing new", "farb: nothing new")
		says(t, a.must(name, "verify", "--deep"), "fara: all 5 messages are here, equal in every word", "farb: all 5 messages are here, equal in every word")
		a.must("mbsync", "-aq")
		a.must("notmuch", "new")
		a.hasTags(before)
		for i, s := range []server{a, b} {
			if now := s.there(); !slices.Equal(now, there[i]) {
				t.Errorf("the server has %q, and had %q", now, there[i])
			}
		}
		if n := strings.TrimSpace(a.must("notmuch", "count", "--output=files", "*")); n != fmt.Sprint(messages) {
			t.Errorf("%s files", n)
		}
	}
	t.Run("with a folder each", func(t *testing.T) {
		t.Parallel()
		a, b := setup(t, func(n string) (string, string, string, string) {
			return "~/mail/", "~/mail/" + n + "/INBOX", n + "/", "* !INBOX\nCreate Near\nSyncState *\n\nChannel in" + n + "\nFar :far" + n + ":\nNear :near" + n + ":"
		})
		before, there := a.must("notmuch", "dump", "--include=properties", "--include=tags"), [2][]string{a.there(), b.there()}
		a.must(name, "import", "mbsync", "--write")
		says(t, a.must(name, "import", "mbsync"), "fara: paired 5 messages in 2 mailboxes; next: notmuch imap sync -n fara", "farb: paired 5 messages in 2 mailboxes; next: notmuch imap sync -n farb")
		clean(t, a, b, before, there, 10)
	})
	t.Run("side by side", func(t *testing.T) {
		t.Parallel()
		a, b := setup(t, func(n string) (string, string, string, string) {
			return "~/mail/", "~/mail/in" + n, "", "INBOX Of" + n
		})
		before, there := a.must("notmuch", "dump", "--include=properties", "--include=tags"), [2][]string{a.there(), b.there()}
		out, status := a.run(name, "import", "mbsync", "--write")
		if status != exitPartly || !strings.Contains(strings.Join(strings.Fields(out), " "), "mbsync has the mail of farb in "+a.dir+"/mail, where that of fara is: which is whose is not known from that. Only fara is taken over; give each a directory of its own first, neither in the other's") {
			t.Errorf("status %d: %s", status, out)
		}
		if out, status := a.run(name, "import", "mbsync"); status != exitPartly || !strings.Contains(out, "fara: paired 5 messages in 2 mailboxes") {
			t.Errorf("status %d: %s", status, out)
		}
		a.run(name, "sync") // it says of the folders that are the other's that they do not go to the server
		says(t, a.must(name, "sync"), "fara: nothing new")
		a.hasTags(before)
		for i, s := range []server{a, b} {
			if now := s.there(); !slices.Equal(now, there[i]) {
				t.Errorf("the server has %q, and had %q", now, there[i])
			}
		}
		// As it is said.
		a.must("rm", "-r", "config.toml", "state")
		for _, n := range []string{"a", "b"} {
			a.must("mv", "mail/in"+n, "mail/Of"+n, "mail/"+n)
			a.write(".mbsyncrc", strings.ReplaceAll(a.read(".mbsyncrc"), "MaildirStore near"+n+"\nPath ~/mail/\nInbox ~/mail/in", "MaildirStore near"+n+"\nPath ~/mail/"+n+"/\nInbox ~/mail/"+n+"/in"))
		}
		a.must("notmuch", "new")
		a.must(name, "import", "mbsync", "--write")
		says(t, a.must(name, "import", "mbsync"), "fara: paired 5 messages in 2 mailboxes; next: notmuch imap sync -n fara", "farb: paired 5 messages in 2 mailboxes; next: notmuch imap sync -n farb")
		clean(t, a, b, before, there, 10)
	})
}

// TestFlagsBehindAnotherDelimiter of mbsync (InfoDelimiter) are not read: that is said, and the
// first sync pairs the files; no mail comes and none goes.
func TestFlagsBehindAnotherDelimiter(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
	appendAll(t, s, "Archiv", rawDovecot(100))
	command(t, s, "SELECT INBOX", `UID STORE 1 +FLAGS (\Seen)`, `UID STORE 2 +FLAGS (\Seen \Flagged)`)
	m, host, port := settle(t, s)
	program := mbsyncOf("Path ~/mail/work/\nInbox ~/mail/work/INBOX\nSubFolders Verbatim\nInfoDelimiter ;")(m, host, port)
	program.run()
	m.must("notmuch", "new")
	there := m.there()
	wire := m.tapped()
	if out, status := m.run(program.words...); status != exitPartly || !strings.Contains(out, `not taken over, the first sync pairs it by what the mail is: its files have their flags behind ";" (InfoDelimiter), and not behind a colon`) {
		t.Errorf("status %d: %s", status, out)
	}
	m.must(name, "sync")
	if bodies, uploads := wire.asked(); bodies+uploads != 0 {
		t.Errorf("%d were fetched, and %d sent", bodies, uploads)
	}
	says(t, m.must(name, "sync"), "work: nothing new")
	says(t, m.must(name, "verify", "--deep"), "work: all 4 messages are here, equal in every word")
	if now := m.there(); !slices.Equal(now, there) {
		t.Errorf("the server has %q, and had %q", now, there)
	}
	for query, want := range map[string]string{"*": "4", "tag:unread": "2", "tag:flagged": "1"} {
		if n := strings.TrimSpace(m.must("notmuch", "count", query)); n != want {
			t.Errorf("%s are %s, want %s", query, n, want)
		}
	}
}
