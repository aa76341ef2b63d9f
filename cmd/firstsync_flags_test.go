package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maildir makes a Maildir below the account's folder.
func (m *mover) maildir(folder string) {
	m.t.Helper()
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.root, folder, d), 0o700); err != nil {
			m.t.Fatal(err)
		}
	}
}

// put writes a mail into a folder of the account, with LF as line ends.
func (m *mover) put(file, raw string) {
	m.t.Helper()
	m.write(filepath.Join("mail", "work", file), strings.ReplaceAll(raw, "\r\n", "\n"))
}

// TestTheFirstSyncLeavesNothing of the flags of what it pairs: those that one side alone has
// are on both afterwards, and a second sync has nothing to do. A dry run says of both.
func TestTheFirstSyncLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, first := range [][]string{nil, {name, "import", "maildir"}} {
		s := dovecot(t)
		appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2), rawDovecot(3), rawDovecot(4))
		command(t, s, "SELECT INBOX", `UID STORE 1 +FLAGS (\Answered)`, `UID STORE 2 +FLAGS (\Seen)`, `UID STORE 5 +FLAGS (\Flagged todo)`)
		m, _, _ := settle(t, s)
		m.write("config.toml", m.read("config.toml")+"keywords = [\"todo\", \"mine\"]\n")
		m.maildir("INBOX")
		m.put("INBOX/cur/a:2,FS", rawDovecot(0))
		m.put("INBOX/new/b", rawDovecot(1))
		m.put("INBOX/cur/c:2,S", rawDovecot(2))
		m.put("INBOX/cur/d:2,RS", rawDovecot(3))
		m.put("INBOX/new/e", rawDovecot(4))
		m.must("notmuch", "new")
		m.must("notmuch", "tag", "+mine", "--", "id:d2@example.org")
		const found = "work/INBOX: 5 messages paired; 3 of the paired change here: the server alone has some of their flags"
		if first == nil {
			says(t, m.must(name, "sync", "-n"), found)
		} else {
			says(t, m.must(append(first, "-n")...), found)
			says(t, m.must(first...), found)
		}
		says(t, m.must(name, "sync", "-n"), "work/INBOX: would: change the flags of 3 messages on the server", "work: would be: 3 changes of flags sent")
		out := m.must(name, "sync")
		if first == nil {
			says(t, out, found)
		}
		says(t, out, "work/INBOX: change the flags of 3 messages on the server", "work: 3 changes of flags sent")
		if again := m.must(name, "sync"); !strings.Contains(again, nothingNew) {
			t.Errorf("after %s\nthe second sync says %s", out, again)
		}
		says(t, m.must(name, "verify"), "work: all 5 messages are here")
		got, err := s.Command("SELECT INBOX", "UID FETCH 1:* (FLAGS)")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`UID 1 FLAGS (\Answered \Flagged \Seen)`, `UID 2 FLAGS (\Seen)`, `UID 3 FLAGS (\Seen mine)`, `UID 4 FLAGS (\Answered \Seen)`, `UID 5 FLAGS (\Flagged todo)`} {
			if !strings.Contains(strings.Join(got, "\n"), want) {
				t.Errorf("no %s in\n%s", want, strings.Join(got, "\n"))
			}
		}
		for id, tags := range map[string]string{"d0": "flagged inbox replied", "d1": "inbox", "d2": "inbox mine", "d3": "inbox replied", "d4": "flagged inbox todo unread"} {
			if got := strings.Join(strings.Fields(m.must("notmuch", "search", "--output=tags", "id:"+id+"@example.org")), " "); got != tags {
				t.Errorf("%s has %q, want %q", id, got, tags)
			}
		}
	}
}

// TestTheFirstSyncIsForeseen in what it deletes of what it pairs, by letters and by tags, and in
// what the guard holds back of that: a dry run says what the run does, and ends as it does.
func TestTheFirstSyncIsForeseen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		many, some, tagged int
		trash              string
	}{{60, 0, 0, "Trash"}, {40, 3, 30, "Trash"}, {10, 2, 3, "Trash"}, {10, 0, 0, ""}} {
		s := dovecot(t)
		m, _, _ := settle(t, s)
		m.write("config.toml", m.read("config.toml")+"deleted_tag = \"deleted\"\n")
		if c.trash != "" {
			appendAll(t, s, c.trash, rawDovecot(9))
			m.write("config.toml", m.read("config.toml")+fmt.Sprintf("trash = %q\n", c.trash))
		}
		for box, n := range map[string]int{"INBOX": 100, "Some": 10} {
			var raws []string
			m.maildir(box)
			for i := range n {
				raws = append(raws, rawDovecot(1000*len(box)+i))
				letters := "S"
				if box == "INBOX" && i < c.many || box == "Some" && i < c.some {
					letters = "ST"
				}
				m.put(fmt.Sprintf("%s/cur/%s%d:2,%s", box, box, i, letters), raws[i])
			}
			appendAll(t, s, box, raws...)
		}
		m.must("notmuch", "new")
		for i := range c.tagged {
			m.must("notmuch", "tag", "+deleted", "--", fmt.Sprintf("id:d%d@example.org", 5000+c.many+i))
		}
		lines := func(out string) (some []string) {
			for l := range strings.Lines(strings.NewReplacer("would be: ", "", "would: ", "").Replace(out)) {
				if !strings.Contains(l, "paired") {
					some = append(some, l)
				}
			}
			return slices.Sorted(slices.Values(some))
		}
		foreseen, status := m.run(name, "sync", "-n")
		out, ended := m.run(name, "sync")
		if a, b := lines(foreseen), lines(out); status != ended || !slices.Equal(a, b) {
			t.Errorf("%v: foreseen was, with status %d,\n%s\nand done, with status %d,\n%s", c, status, strings.Join(a, ""), ended, strings.Join(b, ""))
		}
		says := fmt.Sprintf("; %d are marked as deleted here: a sync deletes them there", c.many+c.tagged)
		if said := c.trash != ""; said != strings.Contains(foreseen, says) || said != strings.Contains(out, says) {
			t.Errorf("%v: %s\n%s", c, foreseen, out)
		}
		if held := c.many+c.tagged > 50; held != strings.Contains(foreseen, "they are many of 100") {
			t.Errorf("%v: %s", c, foreseen)
		}
		// What was deleted is in the Trash, here, too; and what is held back was told.
		then := nothingNew
		if held := c.many + c.tagged; held > 50 {
			then = fmt.Sprintf("%d deletions held back, 1 known fault", held)
		}
		if out, status := m.run(name, "sync"); !strings.Contains(out, then) || status != exitDone {
			t.Errorf("%v: then, with status %d, %s", c, status, out)
		}
	}
}

// TestATagThatIsNotOfItsNameIsNoChange: what says something else than the letters of a file, as
// while notmuch did not rename files, an import leaves alone, and does not count.
func TestATagThatIsNotOfItsNameIsNoChange(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2))
	command(t, s, "SELECT INBOX", `UID STORE 1:2 +FLAGS (\Seen)`)
	m, _, _ := settle(t, s)
	m.maildir("INBOX")
	m.put("INBOX/cur/a:2,S", rawDovecot(0))
	m.put("INBOX/cur/b:2,", rawDovecot(1))
	m.put("INBOX/cur/c:2,S", rawDovecot(2))
	m.must("notmuch", "new")
	m.must("notmuch", "config", "set", "maildir.synchronize_flags", "false")
	m.must("notmuch", "tag", "+unread", "--", "id:d0@example.org", "or", "id:d2@example.org")
	m.must("notmuch", "config", "set", "maildir.synchronize_flags", "true")
	const found = "work/INBOX: 3 messages paired; 1 of the paired changes here: the server alone has some of its flags"
	says(t, m.must(name, "import", "maildir", "-n"), found)
	before := m.must("notmuch", "dump", "--include=tags", "id:d0@example.org", "or", "id:d2@example.org")
	says(t, m.must(name, "import", "maildir"), found)
	if after := m.must("notmuch", "dump", "--include=tags", "id:d0@example.org", "or", "id:d2@example.org"); after != before {
		t.Errorf("tags were\n%s\nand are\n%s", before, after)
	}
}
