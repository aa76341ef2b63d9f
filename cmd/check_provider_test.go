package cmd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

// Gmail's settings that keep mail from IMAP are seen in what it answers, and
// nobody else's server is suspected of them.
func TestCheckSeesGmailsSettings(t *testing.T) {
	t.Parallel()
	const (
		limited = "holds exactly 1000 messages, which is a limit that Gmail can be set to"
		hidden  = "All Mail is hidden from IMAP"
		left    = "Gmail]/Alle Nachrichten is left out: mail that was archived"
	)
	for _, c := range []struct {
		name, caps string
		messages   int
		attr       string // of All Mail
		mailboxes  string
		wants, not []string
	}{
		{"limited", "X-GM-EXT-1", 1000, `\All`, "", []string{`warn  work: gmail: [Gmail]/Alle Nachrichten ` + limited, `-> see "Folder size limits"`}, []string{hidden, left}},
		{"hidden", "X-GM-EXT-1", 999, "", "", []string{"warn  work: gmail: " + hidden, `-> tick "Show in IMAP"`}, []string{"exactly", left}},
		{"left out", "X-GM-EXT-1", 1001, `\all`, `mailboxes = ["*", "![Gmail]/Alle Nachrichten"]`, []string{"ok    work: gmail: [" + left}, []string{"exactly", hidden}},
		{"another server", "", 1000, "", "", nil, []string{"exactly", hidden, "gmail"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			all := imaptest.Box("[Gmail]/Alle Nachrichten")
			all.Attrs = c.attr
			for i := range c.messages {
				all.Add(fmt.Sprintf("Message-ID: <%d@example.org>\r\n\r\n", i), "")
			}
			n := &member{newcomer: newNewcomer(t)}
			n.hasNotmuch()
			server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS LIST-STATUS "+c.caps, nil, imaptest.Box("INBOX"), all)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			n.write("password", "secret\n")
			n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\n%s\n",
				server.Port(), filepath.Join(n.home, "password"), c.mailboxes))
			out := n.does(exitDone, "check")
			n.wants(out, c.wants...)
			for _, not := range c.not {
				if strings.Contains(out, not) {
					t.Errorf("%q is in: %s", not, out)
				}
			}
		})
	}
}

// What check says of tags that are to be keywords: those that cannot be are named.
func TestCheckNamesTagsThatCannotBeKeywords(t *testing.T) {
	t.Parallel()
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS LIST-STATUS", nil, imaptest.Box("INBOX"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	n.write("password", "secret\n")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\nkeywords = [\"to*\", \"für*\"]\n",
		server.Port(), filepath.Join(n.home, "password")))
	n.run(0, "From: a@example.org\nMessage-ID: <1@example.org>\n\nText.\n", "notmuch", "insert", "--create-folder", "--folder=other", "+to do", "+todo", "+für später", "+tom(1)", "+no way")
	out := n.does(exitDone, "check")
	n.wants(out, `keywords: the tag "to do" stays here`, `keywords: the tag "für später" stays here`, `keywords: the tag "tom(1)" stays here`, `notmuch tag +NEW -- tag:"to do"`)
	if strings.Contains(out, `the tag "todo"`) || strings.Contains(out, `the tag "no way"`) {
		t.Error(out)
	}
}

// TestGmailsLimitsAreExact: the numbers that its setting offers are suspected, and no
// other is.
func TestGmailsLimitsAreExact(t *testing.T) {
	t.Parallel()
	for _, n := range []uint32{1000, 2000, 5000, 10000} {
		for messages, limited := range map[uint32]bool{n - 1: false, n: true, n + 1: false} {
			var out bytes.Buffer
			c := &checker{p: &program{stdout: &out}, account: "work"}
			c.gmail(&config.Account{}, []mail.Mailbox{{Name: "INBOX", Status: &mail.Status{Messages: messages}}})
			if got := strings.Contains(out.String(), fmt.Sprintf("INBOX holds exactly %d messages", n)); got != limited || strings.Contains(out.String(), "exactly") != limited {
				t.Errorf("%d messages: %s", messages, out.String())
			}
		}
	}
}

// A password that is refused has the provider's own way named.
func TestCheckKnowsWhatAProviderTakes(t *testing.T) {
	t.Parallel()
	refused := &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Do: "is user right?"}
	for _, c := range []struct {
		account config.Account
		err     error
		want    string
	}{
		{config.Account{Host: "imap.gmail.com"}, refused, "Gmail takes no ordinary password: an app password is the two-minute way (it wants 2-step verification), OAuth the other." +
			" One is made at https://myaccount.google.com/apppasswords. Else: is user right?"},
		{config.Account{Host: "outlook.office365.com"}, refused, "Microsoft takes no passwords here, only OAuth. notmuch imap login --help says how. Else: is user right?"},
		{config.Account{Host: "outlook.office365.com", OAuth: &config.OAuth{}}, refused, "is user right?"},
		{config.Account{Host: "imap.gmail.com"}, &mail.Fault{Kind: mail.KindDial, Do: "is the network there?"}, "is the network there?"},
		{config.Account{Host: "imap.example.org"}, refused, "is user right?"},
	} {
		if got := signInAdvice(&c.account, c.err); got != c.want {
			t.Errorf("%s: %q, want %q", c.account.Host, got, c.want)
		}
	}
}

// What is done here must be possible there: check says where it is not, and opens INBOX
// as a sync would.
func TestCheckSeesWhatChangesMeet(t *testing.T) {
	t.Parallel()
	const trash = `warn  work: trash: no mailbox is the Trash`
	for _, c := range []struct {
		name, lines string // of the account
		fault       *imaptest.Fault
		boxes       []*imaptest.ScriptBox
		status      int
		wants, not  []string
	}{
		{"no Trash", "", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone, []string{trash, `-> trash = "..." names it`}, nil},
		{"a Trash", "", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX"), imaptest.Box("Trash")}, exitDone, []string{"ok    work: trash: what is deleted here goes to Trash"}, []string{"warn  work: trash"}},
		{"another Trash", "trash = \"Bin\"\n", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX"), imaptest.Box("Trash")}, exitDone, []string{`warn  work: trash: there is no mailbox "Bin"`}, nil},
		{"none is needed", "deletions = \"keep\"\n", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone, nil, []string{"trash"}},
		{"nor to read", "read_only = true\n", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone, nil, []string{"trash", "no MOVE"}},
		{"UIDPLUS is off", "disable_extensions = [\"UIDPLUS\"]\n", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone,
			[]string{"warn  work: server: UIDPLUS is switched off by disable_extensions: a message can be removed from the server only while no other one is marked"}, []string{"costs nothing"}},
		{"INBOX is shut", "", imaptest.Refused("EXAMINE", "INBOX", "NO [SERVERBUG] it is broken"), []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitBroken, []string{"fail  work: mailbox: INBOX cannot be opened: ", "it is broken"}, nil},
		{"no keywords", "keywords = [\"todo\"]\n", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone,
			[]string{"warn  work: keywords: the server keeps no keywords in INBOX: tags do not go there"}, nil},
		{"none are wanted", "", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone, nil, []string{"keywords"}},
		{"ignored", "folder = \"jobs/work\"\n", nil, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, exitDone, []string{`warn  work: folder: new.ignore has "jobs"`}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := &member{newcomer: newNewcomer(t)}
			n.hasNotmuch()
			n.run(0, "", "notmuch", "config", "set", "new.ignore", "jobs", "/other/")
			server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS LIST-STATUS", c.fault, c.boxes...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			n.write("password", "secret\n")
			n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\n%s",
				server.Port(), filepath.Join(n.home, "password"), c.lines))
			out := n.does(c.status, "check")
			n.wants(out, c.wants...)
			for _, not := range c.not {
				if strings.Contains(out, not) {
					t.Errorf("%q is in: %s", not, out)
				}
			}
		})
	}
}

// A watch asks a provider no more often than that suffers.
func TestWatchKnowsAProvidersPause(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "notmuch")
	if err := os.WriteFile(file, []byte("[database]\npath="+dir+"\n[user]\nprimary_email=me@example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	idx, err := index.Open(t.Context(), index.Options{Config: file, Existing: true})
	if err != nil {
		t.Fatal(err)
	}
	v := &vigil{program: &program{}, idx: idx, reached: make(map[string]*remote.Names)}
	for host, want := range map[string]time.Duration{"imap.mail.yahoo.com": 5 * time.Minute, "imap.example.org": 0} {
		if got := v.account(t.Context(), &config.Account{Host: host}, dir).Pause; got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}
