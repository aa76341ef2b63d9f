package cmd

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestTheFirstSyncPairs what is here already with what is on the server, by what it is:
// mbsync left it, and nothing tells of mbsync. Nothing is doubled, and nothing uploaded
// that nobody asked to upload; and a dry run says just that.
func TestTheFirstSyncPairs(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	raws := rawsDovecot(12)
	const anonymous = "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n"
	raws = append(raws, anonymous+"one\r\n", anonymous+"two\r\n", anonymous+"three\r\n", rawDovecot(3), // a second copy
		"Message-ID: <big@example.org>\r\nSubject: big\r\n\r\n"+strings.Repeat("xxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 1500))
	appendAll(t, s, "INBOX", raws...)
	appendAll(t, s, "Archiv", rawDovecot(100), rawDovecot(101))
	m := newMover(t, s, "Verbatim", "*")
	m.must("notmuch", "tag", "+mine", "-inbox", "--", "id:d1@example.org", "or", "id:d100@example.org")

	// Since then: new on the server, deleted there, deleted here, saved here alone; one
	// that is another text under the Message-ID of a mail of the server.
	command(t, s, "SELECT INBOX", `UID STORE 5 +FLAGS (\Deleted)`, "UID EXPUNGE 5")
	appendAll(t, s, "INBOX", rawDovecot(20), rawDovecot(21))
	if err := os.Remove(m.file("d6@example.org")); err != nil {
		t.Fatal(err)
	}
	inbox := func(name, raw string) {
		m.write(filepath.Join("mail", "work", "INBOX", "cur", name), strings.ReplaceAll(raw, "\r\n", "\n"))
	}
	inbox("mine:2,S", rawDovecot(30))
	appendAll(t, s, "INBOX", "Message-ID: <odd@example.org>\r\nSubject: odd\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\nthere\r\n")
	inbox("odd:2,S", "Message-ID: <odd@example.org>\r\nSubject: odd\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\nhere it is\r\n"+strings.Repeat("another text\r\n", 99))
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, "Alt", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.write("mail/work/Alt/cur/old:2,S", strings.ReplaceAll(rawDovecot(40), "\r\n", "\n"))
	m.must("notmuch", "new")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")

	const found = "work/INBOX: 14 messages paired; 2 are only here: they stay here; `notmuch imap upload work/INBOX` sends what the server has nowhere; 4 are only there: a sync fetches them; " +
		"1 is unsure: another text here has its Message-ID; a sync fetches that, too, and uploads none"
	lines := []string{found, "work/Archiv: 2 messages paired", "work/Alt: the folder Alt does not go to the server: it was here before the first sync, and the server has no such mailbox; " +
		"`notmuch imap folder create work/Alt` lets the next sync make it"}
	says(t, m.must(name, "sync", "-n"), append(lines, "work/INBOX: would: 5 new messages", "work: would be: 5 new")...)
	says(t, m.must(name, "sync"), append(lines, "work: 5 new")...)
	says(t, m.must(name, "sync"), "work: nothing new")
	m.holds(map[string]int{"INBOX": 19, "Archiv": 2})
	inbox("empty:2,S", "")
	inbox("copy:2,S", rawDovecot(1))
	out, _ := m.run(name, "verify")
	says(t, out, "work/INBOX: not there: INBOX/cur/mine:2,S: no message on the server is this file, which was here before the first sync; `notmuch imap upload work/INBOX` sends it",
		"work/INBOX: not there: INBOX/cur/empty:2,S: the file is empty, and no mail: nothing sends it; remove it",
		"work/INBOX: copy: INBOX/cur/copy:2,S: one more of the mail of UID 2, which nothing sends; remove it, if one is enough",
		"work: not there: Alt: the folder is of no mailbox of the server; 1 mail is in it; `notmuch imap upload work` makes it one, and sends all that was here before the first sync")
	for _, f := range []string{"empty", "copy"} {
		if err := os.Remove(filepath.Join(m.root, "INBOX", "cur", f+":2,S")); err != nil {
			t.Fatal(err)
		}
	}
	m.hasTags(before, "id:d6@example.org", "id:d20@example.org", "id:d21@example.org")
	if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "26" { // 21 of the server; alone, deleted there, the odd one, the placeholder, and in Alt
		t.Errorf("%s files", n)
	}
	for _, want := range []string{"upload 2 messages", "upload 1 message"} {
		if out := m.must(name, "upload", "-n", "work"); !strings.Contains(out, "would: ") || !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	m.holds(map[string]int{"INBOX": 19, "Archiv": 2})

	// What is asked for goes there, of one mailbox, and of all, but for what is unsure. That goes
	// when its owner puts it there anew.
	const unsure = "work/INBOX: 1 file has the Message-ID of a mail of the server, and another text or its beginning alone: no upload sends that; `notmuch imap verify` says which"
	says(t, m.must(name, "upload", "work/INBOX"), unsure, "work: 2 uploaded")
	m.holds(map[string]int{"INBOX": 21, "Archiv": 2})
	says(t, m.must(name, "sync"), "work: nothing new")
	m.holds(map[string]int{"INBOX": 21, "Archiv": 2})
	if err := os.Rename(filepath.Join(m.root, "INBOX", "cur", "odd:2,S"), filepath.Join(m.root, "INBOX", "cur", "anew:2,S")); err != nil {
		t.Fatal(err)
	}
	says(t, m.must(name, "sync"), "work: 1 uploaded")
	says(t, m.must(name, "upload", "work"), "work/Alt: new folder: Alt (1 message)", "work: 1 uploaded")
	says(t, m.must(name, "upload", "work"), "work: nothing new")
	m.holds(map[string]int{"INBOX": 22, "Archiv": 2, "Alt": 1})
	m.hasTags(before, "id:d6@example.org", "id:d20@example.org", "id:d21@example.org")
}

// TestMailGoesToANewServer with its flags, dates and keywords, though the first run is
// ended; nothing is sent twice, no tag changes, and what was agreed with the old server is
// kept.
func TestMailGoesToANewServer(t *testing.T) {
	t.Parallel()
	old, new := dovecot(t), dovecot(t)
	var raws []string
	for i := range 12 {
		raws = append(raws, strings.Replace(rawDovecot(i), "Subject", fmt.Sprintf("Date: Mon, %02d Mar 2021 04:05:06 +0000\r\nSubject", i+1), 1))
	}
	raws = append(raws, "From: a@example.org\r\nSubject: no id\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\none\r\n", raws[3])
	appendAll(t, old, "INBOX", raws...)
	appendAll(t, old, "Archiv/2024", rawDovecot(100), rawDovecot(101))
	command(t, old, "SELECT INBOX", `UID STORE 1 +FLAGS (\Flagged \Seen)`, `UID STORE 2 +FLAGS (\Answered todo)`)
	m := newMover(t, old, "Verbatim", "*")
	m.write("config.toml", m.read("config.toml")+"keywords = [\"todo\", \"mine\"]\n")
	m.must(name, "sync")
	m.must("notmuch", "tag", "+mine", "--", "id:d5@example.org", "or", "id:d100@example.org")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	ledger := m.must("sh", "-c", "sha256sum state/notmuch-imap/work/*")

	host, port, err := net.SplitHostPort(new.Addr())
	if err != nil {
		t.Fatal(err)
	}
	m.write("new", new.Password+"\n")
	m.write("config.toml", fmt.Sprintf("[account.fresh]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = %q\npassword_file = \"new\"\nfolder = \"work\"\nkeywords = [\"todo\", \"mine\"]\n", host, port, new.User))
	m.must(name, "upload", "fresh")
	says(t, m.must(name, "sync"), "fresh: nothing new")
	says(t, m.must(name, "upload", "fresh"), "fresh: nothing new")
	m.dovecot = new
	m.holds(map[string]int{"INBOX": 14, "Archiv/2024": 2}) // as the old one, which has two with the same words
	says(t, m.must(name, "verify", "--deep"), "fresh: all 16 messages are here, equal in every word")
	m.hasTags(before)
	if now := m.must("sh", "-c", "sha256sum state/notmuch-imap/work/*"); now != ledger {
		t.Errorf("the old ledger was\n%s\nand is\n%s", ledger, now)
	}
	for id, want := range map[string][]string{"d0": {`\Flagged`, `\Seen`, `"01-Mar-2021 04:05:06 +0000"`}, "d1": {`\Answered`, "todo"}, "d5": {"mine"}} {
		lines, err := new.Command("SELECT INBOX", "UID SEARCH HEADER Message-ID <"+id+"@example.org>")
		if err != nil {
			t.Fatal(err)
		}
		uid := regexp.MustCompile(`SEARCH (\d+)`).FindStringSubmatch(strings.Join(lines, "\n"))
		if uid == nil {
			t.Errorf("no %s", id)
			continue
		}
		lines, err = new.Command("SELECT INBOX", "UID FETCH "+uid[1]+" (FLAGS INTERNALDATE)")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if all := strings.Join(lines[len(lines)-2:], "\n"); !strings.Contains(all, w) {
				t.Errorf("%s: no %s in %s", id, w, all)
			}
		}
	}
}

// holds wants exactly these mailboxes of the server, with so many messages.
func (m *mover) holds(want map[string]int) {
	m.t.Helper()
	lines, err := m.dovecot.Command(`LIST "" * RETURN (STATUS (MESSAGES))`)
	if err != nil {
		m.t.Fatal(err)
	}
	got := make(map[string]int)
	for _, l := range lines {
		if f := regexp.MustCompile(`STATUS "?([^"]*?)"? \(MESSAGES (\d+)\)`).FindStringSubmatch(l); f != nil {
			n, _ := strconv.Atoi(f[2])
			if n > 0 {
				got[f[1]] = n
			}
		}
	}
	if !maps.Equal(got, want) {
		m.t.Errorf("the server has %v, want %v", got, want)
	}
}

// hasTags wants the tags of a dump, and no mail but that and what is named.
func (m *mover) hasTags(dump string, and ...string) {
	m.t.Helper()
	var got []string
	for l := range strings.Lines(m.must("notmuch", "dump", "--include=properties", "--include=tags")) {
		if !slices.ContainsFunc(and, func(id string) bool { return strings.HasSuffix(strings.TrimSpace(l), id) }) {
			got = append(got, l)
		}
	}
	want := slices.Sorted(strings.Lines(dump))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		m.t.Errorf("tags were\n%s\nand are\n%s", strings.Join(want, ""), strings.Join(got, ""))
	}
}
