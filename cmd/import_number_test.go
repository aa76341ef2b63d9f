package cmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestTwoFilesOfOneNumber of mbsync's, since a mail reader moved or copied one under its name: the
// Message-ID tells which is the message, and the other is what it seems. Without one it is said
// what is to be done.
func TestTwoFilesOfOneNumber(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	anonymous := func(n int) string { return fmt.Sprintf("From: a@example.org\r\nSubject: number %d\r\n\r\nx\r\n", n) }
	appendAll(t, s, "INBOX", rawDovecot(0), rawDovecot(1), rawDovecot(2), rawDovecot(3))
	appendAll(t, s, "Archive", rawDovecot(10), rawDovecot(11), rawDovecot(12))
	appendAll(t, s, "None", anonymous(0), anonymous(1), anonymous(2), anonymous(4))
	m := newMover(t, s, "Verbatim", "*")
	numbered := func(from, n string) string {
		return strings.TrimSpace(m.must("sh", "-c", "ls "+m.root+"/"+from+"/*/*,U="+n+":2,*"))
	}
	move := func(verb, from, n, to string) (file string) {
		file = numbered(from, n)
		m.must(verb, file, m.root+"/"+to+"/cur/0"+filepath.Base(file))
		return file
	}
	move("mv", "INBOX", "2", "Archive")
	move("cp", "INBOX", "1", "Archive")
	there := strings.TrimSuffix(filepath.Base(numbered("None", "4")), ":2,")
	came := strings.TrimSuffix(filepath.Base(move("mv", "INBOX", "4", "None")), ":2,")
	m.must("notmuch", "new")
	out, status := m.run(name, "import", "mbsync")
	says(t, out, "work/INBOX: 2 messages are paired; 2 were removed here since: a sync deletes them there", "work/Archive: 3 messages are paired; 2 are only here: a sync uploads or moves them",
		"work/None: not taken over, the first sync pairs it by what the mail is: 0"+came+" and "+there+" have one number (,U= in their names), and no Message-ID tells which is UID 4: "+
			"take it out of the name of what came from elsewhere")
	if status != exitPartly {
		t.Errorf("status %d", status)
	}
	m.must("sh", "-c", "cd "+m.root+"/None/cur && mv 0*,U=4:2, other:2,")
	m.must("notmuch", "new")
	says(t, m.must(name, "import", "mbsync"), "work/None: 4 messages are paired; 1 is only here: a sync uploads or moves it")
	says(t, m.must(name, "sync"), "work/INBOX: move 1 message on the server: INBOX -> Archive", "work/INBOX: move 1 message on the server: INBOX -> None", "work: 2 moved on the server, 1 uploaded")
	m.sync()
	says(t, m.must(name, "verify", "--deep"), "work: all 12 messages are here, equal in every word")
	m.holds(map[string]int{"INBOX": 2, "Archive": 5, "None": 5})
}
