package cmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhatIsNextCanBeTyped after accounts are proposed: those that our configuration cannot have
// as they are, are told with why, and keep no other from being added; names are those that are
// shown; and a configuration that was named is named again.
func TestWhatIsNextCanBeTyped(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0))
	m, host, port := settle(t, s)
	account := func(n, server, path string) string {
		return fmt.Sprintf("IMAPStore far%[1]s\n%[2]sSSLType None\nAuthMechs LOGIN\n\nMaildirStore near%[1]s\nPath ~/mail/%[3]s/\nInbox ~/mail/%[3]s/INBOX\nSubFolders Verbatim\n\n"+
			"Channel c%[1]s\nFar :far%[1]s:\nNear :near%[1]s:\nPatterns *\nCreate Near\nSyncState *\n\n", n, server, path)
	}
	usual := fmt.Sprintf("Host %s\nPort %s\nUser %s\nPassCmd \"cat %s/secret\"\n", host, port, s.User, m.dir)
	// Channels of one account whose mail is in several directories.
	same := func(path string) string {
		return strings.ReplaceAll(account(path, "Account tun\n", path), "SSLType None\nAuthMechs LOGIN\n", "")
	}
	m.write(".mbsyncrc", account("a", usual, "a")+account("cmd", strings.ReplaceAll(usual, "User ", "UserCmd "), "cmd")+account("tunnel", "Tunnel \"true\"\n", "tunnel")+account("out", usual, "o")+account("in", usual, "o/in")+
		"IMAPAccount tun\n"+usual+"SSLType None\nAuthMechs LOGIN\n\n"+same("x")+same("y")+same("z"))
	for _, d := range []string{"a", "o/in", "cmd", "tunnel", "x", "y", "z"} {
		m.must("mkdir", "-p", filepath.Join(m.dir, "mail", d))
	}
	m.must("notmuch", "new")
	m.must("rm", "config.toml")
	file := filepath.Join(m.dir, "my own", "c.toml")
	typed := []string{name, "--config", file, "import", "mbsync"}
	out, status := m.run(append(typed, "--write", "tun3")...)
	if status != 0 || !strings.Contains(out, "[account.tun3]\n") || !strings.Contains(out, "folder = \"z\"\n") || strings.Contains(out, "[account.tun2]") {
		t.Errorf("status %d: %s", status, out)
	}
	out, status = m.run(append(typed, "--write")...)
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"farcmd cannot be added as it is (account.farcmd.user: ", "fartunnel cannot be added as it is (account.fartunnel.user: ", "/mail/o, and that of farin in " + m.dir + "/mail/o/in: one lies in the other, and neither is taken over", ": fara, tun, tun2 added; next: "} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	m.must("mbsync", "-q", "ca")
	m.must("notmuch", "new")
	says(t, m.must(append(typed, "fara")...), "fara: paired 1 message in 1 mailbox; next: notmuch imap --config '"+file+"' sync -n fara")
	says(t, m.must(append(typed, "fara")...), "fara: nothing more was taken over")
}

// TestAPasswordThatCannotBeHad is that of one account, which is named; the others are taken over.
func TestAPasswordThatCannotBeHad(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0))
	m := newMover(t, s, "Verbatim", "*")
	mine := m.read("config.toml")
	m.write("config.toml", strings.ReplaceAll(strings.ReplaceAll(mine, "account.work", "account.other"), "password_file = \"secret\"", "password_command = [\"false\"]")+mine)
	for _, words := range [][]string{{"import", "mbsync"}, {"verify"}} {
		out, status := m.run(append([]string{name}, words...)...)
		if status != exitPartly || !strings.Contains(out, "other: ") || !strings.Contains(out, "work: ") {
			t.Errorf("%q: status %d: %s", words, status, out)
		}
	}
}

// TestAnImportSaysWhatTheAccountLets the next sync do with what was removed here; and adding
// accounts takes none over.
func TestAnImportSaysWhatTheAccountLets(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	m := newMover(t, s, "Verbatim", "*")
	mine := m.read("config.toml")
	if out := m.must(name, "import", "mbsync", "--from", filepath.Join(m.dir, "mbsyncrc"), "--write"); !strings.Contains(out, "has all these accounts; next: ") || strings.Contains(out, "paired") {
		t.Errorf("%s", out)
	}
	m.must("rm", m.file("d0@example.org"))
	m.put("INBOX/cur/mine:2,S", rawDovecot(9))
	m.must("notmuch", "new")
	for key, want := range map[string]string{
		`deletions = "keep"`: `1 is only here: a sync uploads or moves it; 1 was removed here since, and stays there (deletions = "keep")`,
		`read_only = true`:   `1 is only here, and stays here (read_only); 1 was removed here since, and stays there (read_only)`,
	} {
		m.write("config.toml", mine+key+"\n")
		says(t, m.must(name, "import", "mbsync", "-n"), "work/INBOX: 1 message is paired; "+want)
	}
	m.write("config.toml", mine+"read_only = true\n")
	says(t, m.must(name, "import", "mbsync"), "work: paired 1 message in 1 mailbox; next: notmuch imap sync -n work")
}
