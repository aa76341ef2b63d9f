package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnotherTextIsNotPaired though size, date or Message-ID are those of a mail of the server, nor
// one that was cut off, as by a full disk. A footer, the name of a list before the subject, and what
// other programs add to a header, make no other mail.
func TestAnotherTextIsNotPaired(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	date := time.Date(2021, 3, 1, 4, 5, 6, 0, time.UTC)
	raw := func(id, subject, text string) string {
		if id != "" {
			id = "Message-ID: <" + id + "@example.org>\r\n"
		}
		return id + "From: a@example.org\r\nSubject: " + subject + "\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n" + text + "\r\n"
	}
	there := []string{
		raw("", "none", "one two three"),   // another text of its size and date is here
		raw("near", "near", "one"),         // another text that is a little longer
		raw("same", "same", "same"),        // the same
		raw("list", "[list] list", "text"), // the same, with the list's name
		raw("", "mine", "the same text"),   // the same
		raw("foot", "foot", "text\r\n-- \r\na list"),
		raw("less", "less", "text"),           // it has more here
		raw("cut", "cut", "text, to the end"), // cut off here
		raw("cut2", "cut2", strings.Repeat("text\r\n", 200)),
		raw("head", "head", "text"), // a header alone is here
		raw("mutt", "mutt", "text"),
	}
	const added = "X-TUID: 123456789012\r\nStatus: RO\r\nContent-Length: 6\r\nLines: 1\r\n"
	if err := s.AppendAll("INBOX", func(yield func(time.Time, []byte) bool) {
		for i, r := range there {
			if !yield(date.Add(time.Duration(i)*time.Hour), []byte(r)) {
				return
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	m, _, _ := settle(t, s)
	m.maildir("INBOX")
	for i, r := range []string{raw("", "none", "een twee drie"), raw("near", "near", "another text, as of a draft"), there[2], raw("list", "list", "text"), there[4], raw("foot", "foot", "text"),
		raw("less", "less", "text\r\n-- \r\na list"), added + strings.TrimSuffix(there[7], " end\r\n"), there[8][:len(there[8])-700], strings.TrimSuffix(there[9], "text\r\n"), added + there[10]} {
		file := fmt.Sprintf("INBOX/cur/%d:2,S", i)
		m.put(file, r)
		if err := os.Chtimes(filepath.Join(m.root, file), date, date.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	m.must("notmuch", "new")
	const found = "work/INBOX: 6 messages paired; 1 is only here: it stays here; `notmuch imap upload work/INBOX` sends what the server has nowhere; 1 is only there: a sync fetches it; " +
		"4 are unsure: other texts here have their Message-IDs; a sync fetches that, too, and uploads none"
	says(t, m.must(name, "sync", "-n"), found)
	says(t, m.must(name, "sync"), found)
	m.sync()
	if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "16" {
		t.Errorf("%s files", n)
	}
	m.holds(map[string]int{"INBOX": 11})
}

// TestWhatWasMovedBeforeAFirstSyncIsNotDoubled by an upload, whatever was done before it: the server
// has it elsewhere, and it was not here in that folder. Nor is a file sent that has the Message-ID of
// a mail of its mailbox and another text, as one that was cut off. What was here in both folders is
// sent, as what is here alone, and a dry run says so.
func TestWhatWasMovedBeforeAFirstSyncIsNotDoubled(t *testing.T) {
	t.Parallel()
	raw := func(n int, named bool) string {
		id := ""
		if named {
			id = fmt.Sprintf("Message-ID: <m%d@example.org>\r\n", n)
		}
		return id + fmt.Sprintf("From: a@example.org\r\nSubject: mail %d\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\ntext %d\r\n", n, n)
	}
	for _, before := range [][]string{nil, {name, "import", "maildir"}, {name, "sync"}} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			for box, mails := range map[string][]string{"INBOX": {raw(1, true), raw(2, false), raw(3, true), raw(5, true)}, "Archiv": {raw(100, true)}} {
				if err := s.AppendAll(box, func(yield func(time.Time, []byte) bool) {
					for _, r := range mails {
						if !yield(time.Date(2021, 3, 1, 4, 5, 6, 0, time.UTC), []byte(r)) {
							return
						}
					}
				}); err != nil {
					t.Fatal(err)
				}
			}
			m, _, _ := settle(t, s)
			m.maildir("INBOX")
			m.maildir("Archiv")
			m.maildir("Sent") // of which the server has no mailbox
			m.put("Archiv/cur/1:2,S", raw(1, true))
			m.put("Archiv/cur/2:2,S", "X-TUID: 123456789012\r\n"+raw(2, false))
			m.put("Archiv/cur/3:2,S", raw(3, true))
			m.put("INBOX/cur/3:2,S", raw(3, true))
			m.put("INBOX/cur/5:2,S", strings.TrimSuffix(raw(5, true), "ext 5\r\n"))
			m.put("Archiv/cur/4:2,S", raw(4, true))
			m.put("Sent/cur/6:2,S", raw(6, true))
			m.must("notmuch", "new")
			if before != nil {
				m.must(before...)
			}
			told := func(out string, texts ...string) {
				t.Helper()
				for _, want := range append(texts,
					"work/Archiv: 2 files are here of mail that the server has in another mailbox alone: no upload sends one more of it; `notmuch imap verify` says where it is\n",
					"work/INBOX: 1 file has the Message-ID of a mail of the server, and another text or its beginning alone: no upload sends that; `notmuch imap verify` says which\n") {
					if strings.Count(out, want) != 1 {
						t.Errorf("not once %q in %s", want, out)
					}
				}
				for _, not := range []string{"stay here", "does not go to the server", "`notmuch imap upload"} {
					if strings.Contains(out, not) {
						t.Errorf("%q in %s", not, out)
					}
				}
			}
			// Of one mailbox, too, what the server has elsewhere counts.
			out := m.must(name, "upload", "-n", "work/Archiv")
			if !strings.Contains(out, " 2 uploaded") || strings.Count(out, "2 files are here of mail that the server has in another mailbox alone") != 1 || strings.Contains(out, "Sent") {
				t.Errorf("of Archiv is foreseen %s", out)
			}
			told(m.must(name, "upload", "-n", "work"), " 3 uploaded")
			told(m.must(name, "upload", "work"), " 3 uploaded")
			m.holds(map[string]int{"INBOX": 4, "Archiv": 3, "Sent": 1})
			told(m.must(name, "upload", "work"), "work: nothing new\n")
			if out := m.must(name, "sync"); out != "work: nothing new\n" {
				t.Errorf("%s", out)
			}
			m.holds(map[string]int{"INBOX": 4, "Archiv": 3, "Sent": 1})
			if out, _ := m.run(name, "verify"); strings.Count(out, "the server has its mail elsewhere, as UID ") != 2 || strings.Count(out, "it has the Message-ID of UID ") != 1 {
				t.Errorf("verify says %s", out)
			}
		})
	}
}

// TestWhatAnUploadHoldsBack: also what is in a folder of no mailbox the server may have elsewhere, and
// a file that was cut off may lie beside the whole mail, or in another folder. No later sync sends it.
func TestWhatAnUploadHoldsBack(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	raw := func(n int) string {
		return fmt.Sprintf("Message-ID: <m%d@example.org>\r\nFrom: a@example.org\r\nSubject: mail %d\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\n\r\n", n, n) + strings.Repeat("text\r\n", 900)
	}
	cut := func(n int) string { return raw(n)[:2000] }
	appendAll(t, s, "INBOX", raw(1), raw(2), raw(3))
	appendAll(t, s, "Archiv", raw(100))
	m, _, _ := settle(t, s)
	for _, f := range []string{"INBOX", "Archiv", "Filed"} { // of the last the server has no mailbox
		m.maildir(f)
	}
	m.put("INBOX/cur/1:2,S", raw(1))
	m.put("INBOX/cur/1cut:2,S", cut(1))
	m.put("Archiv/cur/2cut:2,S", cut(2))
	m.put("Filed/cur/3:2,S", raw(3))
	m.put("Filed/cur/4:2,S", raw(4))
	m.must("notmuch", "new")
	m.must(name, "sync")
	if out := m.must(name, "upload", "-n", "work"); !strings.Contains(out, " would be: 1 uploaded") || !strings.Contains(out, "new folder: Filed (1 message)") {
		t.Errorf("foreseen is %s", out)
	}
	if out := m.must(name, "upload", "work"); !strings.Contains(out, ": 1 uploaded") || strings.Count(out, "no upload sends") != 3 {
		t.Errorf("the upload says %s", out)
	}
	m.put("Filed/cur/5:2,S", raw(5)) // so that the folder is read
	if out := m.must(name, "sync"); !strings.Contains(out, ": 1 uploaded") {
		t.Errorf("the sync says %s", out)
	}
	m.holds(map[string]int{"INBOX": 3, "Archiv": 1, "Filed": 2})
	if out, _ := m.run(name, "verify"); strings.Count(out, "or its beginning alone") != 2 || strings.Count(out, "the server has its mail elsewhere") != 1 {
		t.Errorf("verify says %s", out)
	}
}
