package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMbsyncsAccountsAreProposed from its configuration, added to ours, and taken over, wherever
// mbsync has its Maildirs and what it remembers: a sync after that finds nothing to do.
func TestMbsyncsAccountsAreProposed(t *testing.T) {
	t.Parallel()
	const star = "SyncState *\n"
	const path, usual, all = "Path ~/mail/work/\nInbox ~/mail/work/INBOX\n", "SubFolders Verbatim\n", "Channel c\nFar :far:\nNear :near:\nPatterns *\n"
	for _, c := range []struct {
		name                     string
		top, far, near, channels string   // of the .mbsyncrc
		lines                    []string // of the account
		folder                   string   // below the mail root, with Archivé/2024
	}{
		{"a Path", "", "", path + usual, all + star, nil, "work/Archiv&AOk-/2024"},
		{"a link", "", "", "Path ~/linked/\nInbox ~/linked/Inbox\n" + usual, all + star, nil, "work/Archiv&AOk-/2024"},
		{"a folder of its own in a shared Path", "", "", "Path ~/mail/\nInbox ~/mail/work/INBOX\n" + usual,
			"Channel in\nFar :far:\nNear :near:\nSyncState *\n\nChannel c\nFar :far:\nNear :near:work/\nPatterns * !INBOX\nSyncState *\n", []string{`mailboxes = ["*", "INBOX"]`}, "work/Archiv&AOk-/2024"},
		{"channels of one mailbox", "", "", path, "Channel in\nFar :far:\nNear :near:\n\nChannel old\nFar \":far:Archiv&AOk-/2024\"\nNear :near:old\n\nGroup g\nChannel in\nChannel old\n",
			[]string{`mailboxes = ["INBOX", "Archivé/2024"]`}, "work/old"},
		{"Flatten", "", "", path + "Flatten _\n", all + star, nil, "work/Archiv&AOk-_2024"},
		{"MapInbox", "", "MapInbox in\n", "Path ~/mail/work/\nSubFolders Legacy\n", all + star, nil, "work/Archiv&AOk-/.2024"},
		{"Maildir++", "", "", "Inbox ~/mail/work\nSubFolders Maildir++\n", all + star, []string{`layout = "maildir++"`}, "work/.Archiv&AOk-.2024"},
		{"a SyncState of all", "SyncState ~/states/\n", "", path + usual, all, nil, "work/Archiv&AOk-/2024"},
		{"a SyncState with a prefix", "", "", path + usual, all + "SyncState ~/states/pre-\n", nil, "work/Archiv&AOk-/2024"},
		{"a relative SyncState", "", "", path + usual, all + "SyncState states/\n", nil, "work/Archiv&AOk-/2024"},
		{"patterns as on the wire", "", "", path + usual, "Channel c\nFar :far:\nNear :near:\nPattern \"Archiv&AOk-*\" INBOX !Trash\nSyncState *\n",
			[]string{`mailboxes = ["Archivé*", "INBOX", "!Trash"]`}, "work/Archiv&AOk-/2024"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
			appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100), rawDovecot(101))
			m, host, port := settle(t, s)
			if err := os.Remove(filepath.Join(m.dir, "config.toml")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(m.dir, "states"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(m.root, filepath.Join(m.dir, "linked")); err != nil {
				t.Fatal(err)
			}
			m.write(".mbsyncrc", c.top+fmt.Sprintf("# mine\nExpunge Both\nCreate Near\n\nIMAPAccount work\nHost %s\nPort %s\nUser %s\nPassCmd \"+cat %s/secret\"\nTimeout 30\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount work\n",
				host, port, s.User, m.dir)+c.far+"\nMaildirStore near\n"+c.near+"\n"+c.channels)
			m.must("mbsync", "-aq")
			m.must("notmuch", "new")
			if n := strings.TrimSpace(m.must("notmuch", "count", "folder:"+`"`+c.folder+`"`)); n != "2" {
				t.Fatalf("mbsync has %s mails in %s", n, c.folder)
			}
			before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
			lines := append([]string{"[account.work]", `host = "` + host + `"`, "port = " + port, `tls = "none"`, "allow_plaintext = true", `user = "` + s.User + `"`, `auth = "login"`,
				`password_command = ["sh", "-c", "cat ` + m.dir + `/secret"]`, `timeout = "30s"`, `deletions = "expunge"`}, c.lines...)
			says(t, m.must(name, "import", "mbsync"), lines...)
			says(t, m.must(name, "import", "mbsync", "--write", "-n"), lines...)
			if _, err := os.Stat(filepath.Join(m.dir, "config.toml")); err == nil {
				t.Error("a look made a configuration")
			}
			says(t, m.must(name, "import", "mbsync", "--write"), append(lines, m.dir+"/config.toml: work added; next: notmuch imap check work, then notmuch imap import mbsync -n work")...)
			out := m.must(name, "import", "mbsync")
			says(t, out, "work/INBOX: 3 messages are paired", "work/Archivé/2024: 2 messages are paired", "work: paired 5 messages in 2 mailboxes; next: notmuch imap sync -n work")
			says(t, m.must(name, "sync"), "work: nothing new")
			says(t, m.must(name, "sync"), "work: nothing new")
			says(t, m.must(name, "verify"), "work: all 5 messages are here")
			m.hasTags(before)
			m.must("mbsync", "-aq")
			m.holds(map[string]int{"INBOX": 3, "Archiv&AOk-/2024": 2})
		})
	}
}

// TestOfflineIMAPsAccountsAreProposed likewise.
func TestOfflineIMAPsAccountsAreProposed(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
	appendAll(t, s, "Archiv/2024", rawDovecot(100), rawDovecot(101))
	m, host, port := settle(t, s)
	if err := os.Remove(filepath.Join(m.dir, "config.toml")); err != nil {
		t.Fatal(err)
	}
	m.write(".offlineimaprc", fmt.Sprintf("[general]\naccounts = My Mail\n[DEFAULT]\nbase = ~/mail\n[Account My Mail]\nlocalrepository = here\nremoterepository = there\nmaxsize = 10000000\n"+
		"[Repository here]\ntype = Maildir\nlocalfolders = %%(base)s/work\nsep = /\n\n[Repository there]\ntype = IMAP\nremotehost = %s\nremoteport = %s\nremoteuser = %s\nremotepassfile = ~/secret\nssl = no\nstarttls = no\nauth_mechanisms = LOGIN\n", host, port, s.User))
	m.must("offlineimap", "-o", "-u", "quiet")
	m.must("notmuch", "new")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	lines := []string{"# OfflineIMAP's account My Mail, of " + m.dir + "/.offlineimaprc", "# not carried over: maxsize: all mail comes; the built-in hook `limit` keeps large mail away",
		"[account.My-Mail]", `host = "` + host + `"`, "port = " + port, `tls = "none"`, "allow_plaintext = true", `user = "` + s.User + `"`, `auth = "login"`,
		`password_file = "` + m.dir + `/secret"`, `folder = "work"`}
	says(t, m.must(name, "import", "offlineimap", "-n", "My-Mail"), lines...)
	says(t, m.must(name, "import", "offlineimap", "--write"), lines...)
	says(t, m.must(name, "import", "offlineimap"), "My-Mail: paired 5 messages in 2 mailboxes; next: notmuch imap sync -n My-Mail")
	says(t, m.must(name, "sync"), "My-Mail: nothing new")
	m.hasTags(before)
	m.must("offlineimap", "-o", "-u", "quiet")
	m.holds(map[string]int{"INBOX": 3, "Archiv/2024": 2})
	if out, status := m.run(name, "import", "offlineimap", "other"); status != exitUsage || !strings.Contains(out, `no account "other", neither in `) {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestWhatCannotBeTakenOverIsSaid of mbsync's accounts: an INBOX that is not below the others,
// the mail of two accounts in one directory, and mail that notmuch does not have.
func TestWhatCannotBeTakenOverIsSaid(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	appendAll(t, s, "Other", rawDovecot(100))
	m, host, port := settle(t, s)
	if err := os.Remove(filepath.Join(m.dir, "config.toml")); err != nil {
		t.Fatal(err)
	}
	account := func(name, near string) string {
		return fmt.Sprintf("IMAPStore far%s\nHost %s\nPort %s\nUser %s\nPassCmd \"cat %s/secret\"\nSSLType None\nAuthMechs LOGIN\n\nMaildirStore near%[1]s\n%[6]sSubFolders Verbatim\n\n"+
			"Channel c%[1]s\nFar :far%[1]s:\nNear :near%[1]s:\nPatterns *\nCreate Near\nSyncState *\n\n", name, host, port, s.User, m.dir, near)
	}
	m.write(".mbsyncrc", account("a", "Path ~/mail/work/\nInbox ~/mail/inbox\n")+account("b", "Path ~/mail/work/\nInbox ~/mail/b\n")+account("c", "Path ~/elsewhere/\nInbox ~/elsewhere/INBOX\n"))
	if err := os.Mkdir(filepath.Join(m.dir, "elsewhere"), 0o700); err != nil {
		t.Fatal(err)
	}
	m.must("mbsync", "-q", "ca", "cc")
	m.must("notmuch", "new")
	out, status := m.run(name, "import", "mbsync", "--write")
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
	says(t, out, "mbsync has the mail of farb in "+m.dir+"/mail/work, where that of fara is: which is whose is not known from that. Only fara is taken over; give each a directory of its own first, neither in the other's",
		"mbsync has the mail of farc in "+m.dir+"/elsewhere, which is not below notmuch's mail root "+m.dir+"/mail: move it there first",
		"# not carried over: Inbox "+m.dir+"/mail/inbox: it is not below "+m.dir+"/mail/work; move it there (and set mbsync's Inbox so), or INBOX is fetched anew",
		"[account.fara]", `folder = "work"`)
	out, _ = m.run(name, "import", "mbsync", "fara")
	says(t, out, "fara/Other: 1 message is paired",
		"fara/INBOX: mbsync has it in "+m.dir+"/mail/inbox, which is not below the account's folder "+m.dir+"/mail/work: move it there, and set mbsync so, or the first sync fetches it")
}

// TestWhatIsNotThereIsNamed with what to do, where nothing is configured.
func TestWhatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	m := settleAt(t, "127.0.0.1", "1", "me", "secret")
	if err := os.Remove(filepath.Join(m.dir, "config.toml")); err != nil {
		t.Fatal(err)
	}
	m.must("notmuch", "new")
	m.write("e", "")
	m.must("mkdir", "d")
	m.write("local", "\ufeffMaildirStore a\nPath ~/a/\n\nMaildirStore b\nPath ~/b/\n\nChannel c\nFar :a:\nNear :b:\n")
	m.write("two", "[general]\naccounts = W\n[Account W]\nlocalrepository = L\nremoterepository = R\n[Repository L]\ntype = Maildir\nlocalfolders = ~/mail/w\n[Repository R]\ntype = Maildir\nlocalfolders = ~/r\n")
	for words, want := range map[string]string{
		"mbsync":                 "there is neither " + m.dir + "/.mbsyncrc nor a configuration of ours: name the one with --from, or make an account by notmuch imap setup account",
		"mbsync --from /nix/x":   "--from: /nix/x is neither an .mbsyncrc nor where a SyncState can be: stat /nix: no such file or directory",
		"mbsync --from local":    "there is neither a channel in local whose Far is an IMAPStore and whose Near is a MaildirStore nor a configuration of ours",
		"mbsync --from /nix":     "there is neither /nix nor a configuration of ours: name the one with --from",
		"offlineimap --from two": "two: it has no account with Maildirs, as an .offlineimaprc has",
		"offlineimap --from e":   ": e: it has no account with Maildirs, as an .offlineimaprc has",
		"offlineimap":            m.dir + "/.offlineimaprc is not there: name the .offlineimaprc with --from",
		"lieer":                  "there is neither a directory of lieer's nor a configuration of ours: name the one with --from",
		"lieer --from /nix":      "--from: /nix: there is no .gmailieer.json, as where gmi runs",
		"offlineimap --from d":   "d is a directory, and not an .offlineimaprc: name the file with --from",
		"mutt":                   `there is no import "mutt"; there is: mbsync, offlineimap, lieer, maildir`,
	} {
		if out, status := m.run(append([]string{name, "import"}, strings.Fields(words)...)...); status != exitUsage || !strings.Contains(out, want) {
			t.Errorf("%s: status %d: %s", words, status, out)
		}
	}
	m.must("mkdir", ".mbsyncrc")
	if out, status := m.run(name, "import", "mbsync"); status != exitUsage || !strings.Contains(out, m.dir+"/.mbsyncrc is a directory, and not an .mbsyncrc: name the file with --from") {
		t.Errorf("status %d: %s", status, out)
	}
}
