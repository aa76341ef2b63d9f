package cmd

import (
	"fmt"
	"testing"
)

// TestChannelsOfOneAccount of which one has a prefix, and one is INBOX beside it: the account's
// folder is where all of it lies. Folders of no mailbox that takes part are nobody's difference.
func TestChannelsOfOneAccount(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	appendAll(t, s, "Archive/2023", rawDovecot(10))
	appendAll(t, s, "Archive/2024", rawDovecot(20), rawDovecot(21))
	m, host, port := settle(t, s)
	m.write(".mbsyncrc", fmt.Sprintf("IMAPStore far\nHost %s\nPort %s\nUser %s\nPassCmd \"cat %s/secret\"\nSSLType None\nAuthMechs LOGIN\n\nMaildirStore near\nPath ~/mail/a/\nInbox ~/mail/a/in\nSubFolders Verbatim\n\n"+
		"Channel inbox\nFar :far:\nNear :near:\nCreate Near\nSyncState *\nExpunge Both\n\nChannel arch\nFar :far:Archive/\nNear :near:arch/\nPatterns *\nCreate Near\nSyncState *\n", host, port, s.User, m.dir))
	m.must("mkdir", "-p", m.dir+"/mail/a/arch")
	m.must("mbsync", "-aq")
	m.write("config.toml", "")
	m.must("mkdir", "-p", m.dir+"/mail/a/own/cur", m.dir+"/mail/a/own/new", m.dir+"/mail/a/own/tmp")
	m.write("mail/a/own/cur/x:2,S", "From: a@example.org\nSubject: own\n\nx\n")
	m.must("notmuch", "new")
	says(t, m.must(name, "import", "mbsync", "--write"), `folder = "a"`, `deletions = "keep"`, "# not carried over: Expunge of channel inbox: another channel of the account has none, and deletions is of all")
	says(t, m.must(name, "import", "mbsync"), "far/INBOX: 2 messages are paired", "far/Archive/2023: 1 message is paired", "far/Archive/2024: 2 messages are paired")
	says(t, m.must(name, "sync"), "far: nothing new")
	says(t, m.must(name, "verify", "--deep"), "far: all 5 messages are here, equal in every word")
	m.holds(map[string]int{"INBOX": 2, "Archive/2023": 1, "Archive/2024": 2})
}
