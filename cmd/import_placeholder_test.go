package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMbsyncsPlaceholderIsReplaced when it is asked for: the mail comes in its place, with its
// tags, and notmuch finds what is in it.
func TestMbsyncsPlaceholderIsReplaced(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	const big = "Message-ID: <big@example.org>\r\nFrom: ann@example.org\r\nTo: me@example.org\r\nDate: Mon, 01 Mar 2021 04:05:06 +0000\r\nSubject: holidays\r\n\r\nsandcastle\r\n"
	appendAll(t, s, "INBOX", rawDovecot(0), big+strings.Repeat("xxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 1500))
	m := newMover(t, s, "Verbatim", "*")
	m.must("notmuch", "tag", "+mine", "+flagged", "-unread", "--", "id:big@example.org")
	placeholder := m.file("big@example.org")
	m.must(name, "import", "mbsync")
	says(t, m.must(name, "sync"), "work: nothing new")
	if out := m.must(name, "stubs", "--all"); !strings.Contains(out, "work/INBOX/2") || !strings.Contains(out, "    notmuch show id:big@example.org\n") {
		t.Errorf("%s", out)
	}
	says(t, m.must(name, "retry", "work/INBOX/2"), "work/INBOX/2: the mail came and took its stub's place")
	if _, err := os.Stat(placeholder); err == nil {
		t.Errorf("%s is there", filepath.Base(placeholder))
	}
	for query, want := range map[string]string{"subject:placeholder": "0", "subject:holidays": "1", "sandcastle": "1", "id:big@example.org and tag:mine and not tag:unread": "1", "from:ann": "1"} {
		if got := strings.TrimSpace(m.must("notmuch", "count", query)); got != want {
			t.Errorf("%s messages are %s, want %s", got, query, want)
		}
	}
	if out := m.must("notmuch", "search", "id:big@example.org"); !strings.Contains(out, "holidays") || strings.Contains(out, "placeholder") {
		t.Errorf("%s", out)
	}
	if !strings.Contains(filepath.Base(m.file("big@example.org")), ":2,FS") {
		t.Errorf("it is not flagged: %s", m.file("big@example.org"))
	}
	if out, status := m.run(name, "verify"); status != exitPartly || !strings.Contains(out, `work/INBOX/2: flags: \Flagged \Seen here alone; a sync sends that`) {
		t.Errorf("status %d: %s", status, out)
	}
	says(t, m.must(name, "sync"), "work: 1 change of flags sent")
	if out, err := s.Command("SELECT INBOX", "UID FETCH 2 (FLAGS)"); err != nil || !strings.Contains(strings.Join(out, ""), `(\Flagged \Seen)`) {
		t.Errorf("%q, %v", out, err)
	}
	m.sync()
	says(t, m.must(name, "verify", "--deep"), "work: all 2 messages are here, equal in every word")
	m.holds(map[string]int{"INBOX": 2})
}

// TestWhereMbsyncsPlaceholderIsNowSaysNothingOfItsMail: one that was moved, or removed, is a note that
// is not there, and no mail that its owner deletes.
func TestWhereMbsyncsPlaceholderIsNowSaysNothingOfItsMail(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	large := func(i int) string { return rawDovecot(i) + strings.Repeat("xxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 1500) }
	appendAll(t, s, "INBOX", rawDovecot(0), large(1), large(2), large(3), rawDovecot(4))
	appendAll(t, s, "Archiv", rawDovecot(100))
	appendAll(t, s, "Trash", rawDovecot(200))
	m := newMover(t, s, "Verbatim", "*")
	m.write("config.toml", m.read("config.toml")+"trash = \"Trash\"\n")
	moved := m.file("d1@example.org")
	m.must("mv", moved, filepath.Join(m.root, "Archiv", "cur", filepath.Base(moved)))
	m.must("rm", m.file("d2@example.org"))
	m.must("rm", m.file("d4@example.org"))
	m.must("notmuch", "new")
	says(t, m.must(name, "import", "mbsync"), "work/INBOX: 1 message is paired; 1 was removed here since: a sync deletes it there; 3 were left there by mbsync, and stay there")
	says(t, m.must(name, "sync"), "work: 1 deleted on the server")
	m.holds(map[string]int{"INBOX": 4, "Archiv": 1, "Trash": 2})
	m.sync()
	says(t, m.must(name, "sync"), "work: nothing new")
	m.holds(map[string]int{"INBOX": 4, "Archiv": 1, "Trash": 2})
}
