package cmd

import (
	"fmt"
	"strings"
	"testing"
)

// TestOneUploadSendsAll that is here alone, whatever was done before it, and a dry run says so.
func TestOneUploadSendsAll(t *testing.T) {
	t.Parallel()
	for _, before := range [][]string{nil, {name, "import", "maildir"}, {name, "sync"}} {
		for _, there := range []int{0, 3} { // mails of INBOX that the server has, of which the last is only there
			t.Run(fmt.Sprint(before, there), func(t *testing.T) {
				t.Parallel()
				s := dovecot(t)
				for i := range there {
					appendAll(t, s, "INBOX", rawDovecot(9-i))
				}
				command(t, s, "CREATE Sent")
				m, _, _ := settle(t, s)
				for b, folder := range []string{"INBOX", "Sent", "A"} {
					m.maildir(folder)
					for i := range 10 - there {
						m.put(fmt.Sprintf("%s/cur/%d.%d:2,S", folder, b, i), rawDovecot(100*b+i+there*b/2))
					}
				}
				if there > 0 {
					m.put("INBOX/cur/there:2,S", rawDovecot(9))
				}
				if there > 0 {
					// Another text with the Message-ID of a mail of the server, which no upload sends.
					m.put("INBOX/cur/draft:2,S", strings.Replace(rawDovecot(8), "\r\n\r\n", "\r\n\r\nanother\r\nnever seen text", 1))
				}
				m.must("notmuch", "new")
				if before != nil {
					m.must(before...)
				}
				n := 10 - there
				if out := m.must(name, "upload", "-n", "work"); !strings.Contains(out, "would be: ") || !strings.Contains(out, fmt.Sprintf(" %d uploaded", 3*n)) || strings.Contains(out, "stay") {
					t.Errorf("%s", out)
				}
				if out := m.must(name, "upload", "work/INBOX"); !strings.Contains(out, fmt.Sprintf(" %d uploaded", n)) || strings.Contains(out, "stay") {
					t.Errorf("%s", out)
				}
				m.holds(map[string]int{"INBOX": n + there})
				if out := m.must(name, "upload", "work"); !strings.Contains(out, fmt.Sprintf(" %d uploaded", 2*n)) {
					t.Errorf("%s", out)
				}
				m.holds(map[string]int{"INBOX": n + there, "Sent": n, "A": n})
				says(t, m.must(name, "upload", "work"), "work: nothing new")
				says(t, m.must(name, "sync"), "work: nothing new")
			})
		}
	}
}

// TestWhatIsDeletedHereIsDeletedByTheFirstSync of mail that was paired, and a dry run says so.
func TestWhatIsDeletedHereIsDeletedByTheFirstSync(t *testing.T) {
	t.Parallel()
	for _, before := range [][]string{nil, {name, "import", "maildir"}} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			t.Parallel()
			s := dovecot(t)
			appendAll(t, s, "INBOX", rawsDovecot(10)...)
			appendAll(t, s, "Trash", rawDovecot(50))
			m, _, _ := settle(t, s)
			m.write("config.toml", m.read("config.toml")+"trash = \"Trash\"\n")
			m.maildir("INBOX")
			for i := range 10 {
				letters := "S"
				if i < 4 {
					letters = "ST"
				}
				m.put(fmt.Sprintf("INBOX/cur/%d:2,%s", i, letters), rawDovecot(i))
			}
			m.must("notmuch", "new")
			if before != nil {
				m.must(before...)
			}
			foreseen := m.must(name, "sync", "-n")
			out := m.must(name, "sync")
			for _, want := range []string{"change the flags of 10 messages on the server\n", "move 4 messages to the Trash on the server: INBOX -> Trash\n", "10 changes of flags sent, 4 deleted on the server\n"} {
				if !strings.Contains(foreseen, want) || !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s or in\n%s", want, foreseen, out)
				}
			}
			m.holds(map[string]int{"INBOX": 6, "Trash": 5})
			if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "folder:work/Trash")); n != "5" {
				t.Errorf("%s files are in the Trash", n)
			}
			says(t, m.must(name, "sync"), "work: nothing new")
		})
	}
}

// TestAnUploadIsForeseen also in what follows it: tags that are keywords, and what becomes of mail
// that is marked as deleted here.
func TestAnUploadIsForeseen(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	command(t, s, "CREATE Trash")
	m, _, _ := settle(t, s)
	m.write("config.toml", m.read("config.toml")+"keywords = [\"todo\"]\ntrash = \"Trash\"\ndeleted_tag = \"deleted\"\n")
	m.maildir("INBOX")
	m.put("INBOX/cur/a:2,ST", rawDovecot(1))
	m.put("INBOX/cur/b:2,S", rawDovecot(2))
	m.put("INBOX/cur/c:2,S", rawDovecot(3))
	m.must("notmuch", "new")
	m.must("notmuch", "tag", "+todo", "--", "id:d2@example.org")
	m.must("notmuch", "tag", "+deleted", "--", "id:d3@example.org")
	const sends = "upload 3 messages; of these 2, marked as deleted here, the next run deletes there"
	says(t, m.must(name, "upload", "-n", "work"), "work/INBOX: would: "+sends, "work: would be: 3 uploaded", "work: would send the tags of that, too, which are keywords")
	says(t, m.must(name, "upload", "work"), "work/INBOX: "+sends, "work: 3 uploaded", "work/INBOX: move 2 messages to the Trash on the server: INBOX -> Trash",
		"work: 1 change of flags sent, 2 deleted on the server")
	m.holds(map[string]int{"INBOX": 1, "Trash": 2})
	if out := m.must(name, "upload", "work"); out != "work: nothing new\n" {
		t.Errorf("%s", out)
	}
}
