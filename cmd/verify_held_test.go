package cmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// TestVerifySaysThatADeletionIsHeld back, and what to type, which does what is said.
func TestVerifySaysThatADeletionIsHeld(t *testing.T) {
	t.Parallel()
	for _, here := range []bool{true, false} {
		for _, back := range []bool{true, false} {
			if !here && back {
				continue // the server has none to bring back
			}
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawDovecot(100), rawDovecot(101))
			for i := range 8 {
				appendAll(t, s, "Lists", rawDovecot(i))
			}
			m, _, _ := settle(t, s)
			m.write("config.toml", m.read("config.toml")+"deletions = \"expunge\"\n")
			m.must("notmuch", "new")
			m.must(name, "sync")
			text := "work/Lists/1: not there: the server has it no more; a sync keeps its file until you say what is right: `notmuch imap sync --yes-delete=work/Lists` deletes it"
			if here {
				files, err := filepath.Glob(filepath.Join(m.root, "Lists", "*", "*"))
				if err != nil || len(files) != 8 {
					t.Fatal(files, err)
				}
				m.must(append([]string{"rm"}, files...)...)
				text = "work/Lists/1: not here: its file is gone from the folder; the server has the message, and a sync keeps it until you say what is right: `notmuch imap sync --yes-delete=work/Lists` deletes it, `notmuch imap sync --restore work` brings it back"
			} else {
				command(t, s, "SELECT Lists", `UID STORE 1:* +FLAGS (\Deleted)`, "UID EXPUNGE 1:*")
			}
			for range 2 { // before a sync has found that, and held it back, and after
				out, status := m.run(name, "verify")
				says(t, out, text)
				if status != exitPartly || strings.Contains(out, "from where a sync removes it") || strings.Contains(out, "a sync deletes it there") {
					t.Errorf("status %d: %s", status, out)
				}
				m.run(name, "sync")
			}
			if back {
				m.run(name, "sync", "--restore", "work")
				says(t, m.must(name, "verify"), "work: all 10 messages are here")
				continue
			}
			m.run(name, "sync", "--yes-delete=work/Lists")
			says(t, m.must(name, "verify"), "work: all 2 messages are here")
		}
	}
}

// TestVerifySaysWhatIsHeldOfAnotherFolder: in the place of a mailbox's folder there is another one, with new mail.
func TestVerifySaysWhatIsHeldOfAnotherFolder(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(100))
	appendAll(t, s, "Lists", rawDovecot(1), rawDovecot(2))
	m, _, _ := settle(t, s)
	m.write("config.toml", m.read("config.toml")+"deletions = \"expunge\"\n")
	m.must("notmuch", "new")
	m.must(name, "sync")
	m.must("mv", filepath.Join(m.root, "Lists"), filepath.Join(m.dir, "away"))
	for _, sub := range []string{"cur", "new", "tmp"} {
		m.must("mkdir", "-p", filepath.Join(m.root, "Lists", sub))
	}
	m.write(filepath.Join("mail", "work", "Lists", "cur", "1700000000.M1.here:2,S"), rawDovecot(50))
	m.must("notmuch", "new")
	for range 2 { // before a sync has found that, and held it back, and after
		out, status := m.run(name, "verify")
		says(t, out, "work/Lists/1: not here: its file is gone from the folder; the server has the message, and a sync keeps it until you say what is right: `notmuch imap sync --yes-delete=work/Lists` deletes it, `notmuch imap sync --restore work` brings it back")
		says(t, out, "work/Lists: not there: Lists/cur/1700000000.M1.here:2,S: no message on the server is this file, and its folder is another one than before, as after a restored backup: a sync keeps it here until you say what is right: `notmuch imap sync --yes-delete=work/Lists`, or with --restore")
		if status != exitPartly || strings.Contains(out, "a sync deletes it there") || strings.Contains(out, "a sync uploads it") {
			t.Errorf("status %d: %s", status, out)
		}
		m.run(name, "sync")
	}
	m.must(name, "sync", "--yes-delete=work/Lists")
	says(t, m.must(name, "verify"), "work: all 2 messages are here")
}

// TestVerifySaysOfMovedMailThatASyncMovesIt however much it is: what is elsewhere was not deleted.
func TestVerifySaysOfMovedMailThatASyncMovesIt(t *testing.T) {
	t.Parallel()
	for _, here := range []bool{true, false} {
		s := dovecot(t)
		appendAll(t, s, "Lists", rawsDovecot(60)...)
		appendAll(t, s, "Other", rawDovecot(100))
		m, _, _ := settle(t, s)
		m.must("notmuch", "new")
		m.must(name, "sync")
		text := "work/Lists/1: not there: the server has it no more; its file is in the folder, from where a sync removes it"
		if here {
			files, err := filepath.Glob(filepath.Join(m.root, "Lists", "*", "*"))
			if err != nil || len(files) != 60 {
				t.Fatal(files, err)
			}
			m.must(append(append([]string{"mv"}, files...), filepath.Join(m.root, "Other", "cur"))...)
			text = "work/Lists/1: not here: its file is gone from the folder; the server has the message, and a sync deletes it there, or moves it where it is here now"
		} else {
			command(t, s, "SELECT Lists", "UID MOVE 1:* Other")
		}
		out, status := m.run(name, "verify")
		says(t, out, text)
		if status != exitPartly || strings.Contains(out, "until you say") {
			t.Errorf("status %d: %s", status, out)
		}
		m.must(name, "sync")
		says(t, m.must(name, "verify"), "work: all 61 messages are here")
	}
}

// TestVerifySaysThatWhatIsKeptStays: mail of a mailbox whose messages have other numbers on the
// server, and of which it has no more.
func TestVerifySaysThatWhatIsKeptStays(t *testing.T) {
	t.Parallel()
	s := newScript(t, "IMAP4rev1 SASL-IR LIST-STATUS", nil, imaptest.Box("INBOX", faultMail(1), faultMail(2), "From: a@example.org\r\nSubject: no Message-ID\r\n\r\nbody\r\n"))
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	n.write("password", "secret\n")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\n", s.Port(), filepath.Join(n.home, "password")))
	n.does(exitDone, "sync")
	s.With(func(boxes []*imaptest.ScriptBox) {
		boxes[0].Expunge(2)
		boxes[0].Expunge(3)
		boxes[0].UIDValidity = "15"
	})
	n.does(exitDone, "sync")
	n.wants(n.does(exitDone, "sync"), "nothing new")
	out := n.does(exitPartly, "verify")
	n.wants(out, "work/INBOX: not there: INBOX/new/", "is this file since the server gave the mailbox's messages other numbers, as after a restored backup: it stays here", "; 2 differences: ")
	if strings.Contains(out, "a sync uploads it") {
		t.Error(out)
	}
}
