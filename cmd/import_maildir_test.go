package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// TestMaildirsArePaired by what the mail is, without a byte of it on the wire, and no more is
// done: the sync after it fetches and uploads what it would have without.
func TestMaildirsArePaired(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
	appendAll(t, s, "Archiv", rawDovecot(100))
	m, _, _ := settle(t, s)
	for _, d := range []string{"INBOX/cur", "INBOX/new", "INBOX/tmp", ".Archiv/cur", ".Archiv/new", ".Archiv/tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put := func(file string, n int) {
		m.write(filepath.Join("mail", "work", file), strings.ReplaceAll(rawDovecot(n), "\r\n", "\n"))
	}
	put("INBOX/cur/a:2,FS", 0)
	put("INBOX/new/b", 1)
	put("INBOX/cur/mine:2,S", 30)
	put(".Archiv/cur/c:2,S", 100)
	m.must("notmuch", "new")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	lines := []string{
		"work/INBOX: 2 messages paired; 1 is only here: it stays here; `notmuch imap upload work/INBOX` sends what the server has nowhere; 1 is only there: a sync fetches it",
		"work/Archiv: 1 message paired",
	}
	says(t, m.must(name, "import", "maildir", "-n"), append(lines, "work: would pair 3 messages in 2 mailboxes; flags that the server alone has would come to their files and tags")...)
	says(t, m.must(name, "import", "maildir", "work"), append(lines, "work: paired 3 messages in 2 mailboxes; next: notmuch imap sync -n work",
		"work: where Message-ID and size are the same, the texts were not compared; notmuch imap verify --deep work does, after the sync")...)
	m.hasTags(before)
	m.holds(map[string]int{"INBOX": 3, "Archiv": 1})
	if out := m.must("notmuch", "count", "--output=files", "*"); strings.TrimSpace(out) != "4" {
		t.Errorf("%s files", out)
	}
	says(t, m.must(name, "sync", "-n"), "work/INBOX: would: 1 new message")
	if out := m.must(name, "sync"); !strings.Contains(out, "work: 1 new") {
		t.Error(out)
	}
	says(t, m.must(name, "import", "maildir"), "work: there was nothing to pair: all is synchronised already, or the Maildirs are not where `folder` in the configuration is")
	m.sync()
	m.holds(map[string]int{"INBOX": 3, "Archiv": 1})
	m.hasTags(before, "id:d2@example.org")
	says(t, m.must(name, "upload", "work"), "work: 1 uploaded")
	says(t, m.must(name, "verify", "--deep"), "work: all 5 messages are here, equal in every word")
}

// TestLieerIsTakenOver by Gmail's numbers of messages: no mail is fetched but what lieer had
// not, flags that one side alone has go to the other, no tag changes, and what All Mail does not
// show stays here.
func TestLieerIsTakenOver(t *testing.T) {
	t.Parallel()
	all := imaptest.Box("[Gmail]/All Mail")
	all.Attrs = `\All`
	const first = 0x15a2b3c4d5e6f708
	for i := range 6 {
		flags := ""
		switch i {
		case 1:
			flags = `\Seen`
		case 2:
			flags = `\Seen \Flagged`
		}
		all.Add(rawDovecot(i), flags).GmailID = first + uint64(i)
	}
	trash := imaptest.Box("[Gmail]/Trash")
	trash.Attrs = `\Trash`
	trash.Add(rawDovecot(99), `\Seen`)
	s, err := imaptest.NewScript("IMAP4rev1 UIDPLUS LIST-STATUS CONDSTORE ENABLE X-GM-EXT-1", nil, imaptest.Box("INBOX"), all, trash)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	m := settleAt(t, "127.0.0.1", strconv.Itoa(s.Port()), imaptest.User, imaptest.Password)
	m.write("config.toml", m.read("config.toml")+"mailboxes = [\"[Gmail]/All Mail\"]\n")
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, "mail", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.write("mail/work/.gmailieer.json", `{"account": "me@example.org", "file_extension": "", "replace_slash_with_dot": false}`)
	m.write("mail/work/.state.gmailieer.json", `{"last_historyId": 1234, "lastmod": 12}`)
	m.write("notmuch", strings.ReplaceAll(m.read("notmuch"), "ignore=", "ignore=/.*[.]json$/;"))
	put := func(id uint64, letters string, n int) {
		m.write(fmt.Sprintf("mail/work/mail/cur/%x:2,%s", id, letters), strings.ReplaceAll(rawDovecot(n), "\r\n", "\n"))
	}
	for i := range 5 {
		put(first+uint64(i), map[int]string{2: "S", 3: "S"}[i], i)
	}
	put(first+99, "S", 99) // in the Trash
	m.must("notmuch", "new")
	m.must("notmuch", "tag", "+label", "--", "id:d4@example.org")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags", "id:d0@example.org", "or", "id:d4@example.org", "or", "id:d99@example.org")

	lines := []string{"work/[Gmail]/All Mail: 5 messages are paired; 1 is only here, and stays here: `upload` sends it; 1 is only there: a sync fetches it"}
	says(t, m.must(name, "import", "lieer", "-n"), append(lines, "work: would pair 5 messages in 1 mailbox")...)
	says(t, m.must(name, "import", "lieer"), append(lines, "work: paired 5 messages in 1 mailbox; next: notmuch imap sync -n work")...)
	m.write("mail/work/.state.gmailieer.json", `{"last_historyId": 1235, "lastmod": 13}`)
	if out, status := m.run(name, "sync"); status != exitLater || !strings.Contains(out, "work: lieer has gone on with [Gmail]/All Mail since that was taken over, ") {
		t.Errorf("status %d: %s", status, out)
	}
	says(t, m.must(name, "import", "lieer"), lines...)
	s.Log() // what came before
	out := m.must(name, "sync")
	for _, want := range []string{"1 new message", "2 changes of flags", "1 change of flags sent"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	for _, command := range s.Log() {
		if strings.HasPrefix(command, "UID FETCH") && strings.Contains(command, "BODY.PEEK[]") && !strings.HasPrefix(command, "UID FETCH 6 ") {
			t.Errorf("a body that is here is fetched: %s", command)
		}
		if strings.HasPrefix(command, "APPEND") {
			t.Errorf("what is here is sent: %s", command)
		}
	}
	m.sync()
	if now := m.must("notmuch", "dump", "--include=properties", "--include=tags", "id:d0@example.org", "or", "id:d4@example.org", "or", "id:d99@example.org"); now != before {
		t.Errorf("tags were\n%s\nand are\n%s", before, now)
	}
	for id, tags := range map[string]string{"d1": "inbox", "d2": "flagged inbox", "d3": "inbox"} {
		if got := strings.Join(strings.Fields(m.must("notmuch", "search", "--output=tags", "id:"+id+"@example.org")), " "); got != tags {
			t.Errorf("%s has %q, want %q", id, got, tags)
		}
	}
	// What lies in the Trash there is not offered for an upload.
	m.write("config.toml", strings.Replace(m.read("config.toml"), "All Mail\"]", "All Mail\", \"[Gmail]/Trash\"]", 1))
	m.must(name, "sync")
	if out, _ := m.run(name, "verify"); !strings.Contains(out, ": the server has its mail elsewhere, as UID 1 of [Gmail]/Trash; the file was here before the first sync, and stays") || strings.Contains(out, "upload") {
		t.Errorf("%s", out)
	}
	s.With(func(boxes []*imaptest.ScriptBox) {
		if got := boxes[1].Mails[3].Flags; got != `\Seen` || len(boxes[1].Mails) != 6 {
			t.Errorf("the server has %d mails, the fourth with %q", len(boxes[1].Mails), got)
		}
	})
}

// TestLieerIsNotBelieved where it is at work, or the server does not tell the numbers.
func TestLieerIsNotBelieved(t *testing.T) {
	t.Parallel()
	all := imaptest.Box("Alles", rawDovecot(0))
	s, err := imaptest.NewScript("IMAP4rev1 LIST-STATUS", nil, imaptest.Box("INBOX"), all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	m := settleAt(t, "127.0.0.1", strconv.Itoa(s.Port()), imaptest.User, imaptest.Password)
	m.write("config.toml", m.read("config.toml")+"mailboxes = [\"Alles\"]\n")
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, "mail", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m.must("notmuch", "new")
	refused := func(words string) {
		t.Helper()
		if out, status := m.run(name, "import", "lieer"); status != exitPartly || !strings.Contains(out, words) {
			t.Errorf("status %d, no %q in %s", status, words, out)
		}
	}
	s.With(func(boxes []*imaptest.ScriptBox) { boxes[1].Attrs = "" })
	refused("no mailbox of the server is marked as All Mail")
	s.With(func(boxes []*imaptest.ScriptBox) { boxes[1].Attrs = `\All` })
	refused("lieer does not have it")
	refused("work: nothing was taken over; is `folder` in the configuration where lieer's directory is?")
	m.write("mail/work/.gmailieer.json", "{")
	refused("is none of lieer's")
	m.write("mail/work/.gmailieer.json", "{}")
	refused("X-GM-MSGID")
	m.write("mail/work/.resume-pull.gmailieer.json", "{}")
	refused("run `gmi pull` once more first")
}

// TestAnotherTextOfOneSizeIsFound by a comparison of the texts, which no import makes.
func TestAnotherTextOfOneSizeIsFound(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1))
	m, _, _ := settle(t, s)
	m.maildir("INBOX")
	m.put("INBOX/cur/a:2,", rawDovecot(0))
	m.put("INBOX/cur/b:2,", strings.Replace(rawDovecot(1), "body", "beef", 1))
	m.must("notmuch", "new")
	says(t, m.must(name, "import", "maildir"), "work/INBOX: 2 messages paired")
	m.must(name, "sync")
	out, status := m.run(name, "verify", "--deep", "work")
	if status != exitPartly || !strings.Contains(out, "work/INBOX/2: content: ") || !strings.Contains(out, "1 with another text") {
		t.Errorf("status %d: %s", status, out)
	}
}
