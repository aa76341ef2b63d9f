package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// What a look into a mailbox has done counts when its connection is lost, and another
// connection looks again: UIDs that were given to other messages are believed by neither,
// and mail that is here is not downloaded a second time.
func TestALookThatAnotherConnectionEnds(t *testing.T) {
	share.Sweep(t)
	for connections := 1; connections <= 3; connections++ {
		for _, away := range []int{-1, 1, 0} {
			t.Run(fmt.Sprintf("%d connections, away %d", connections, away), func(t *testing.T) {
				t.Parallel()
				for at, struck := 1, true; struck; at += pace() {
					struck = looksAgain(t, connections, away, at)
				}
			})
		}
	}
}

// looksAgain plays one case of that. struck tells whether so many commands were said.
func looksAgain(t *testing.T, connections, away, at int) (struck bool) {
	t.Helper()
	s, h := newServer("UIDPLUS", "MOVE", "CONDSTORE", "QRESYNC"), newHome(t)
	in := s.box("INBOX")
	for _, name := range []string{"Archive", "Sent", "Work"} {
		s.box(name)
	}
	for i := range 8 {
		in.add(plainMail(i), `\Seen`)
	}
	h.sync(s)
	for u := imap.UID(5); u <= 8; u++ {
		delete(in.msgs, u)
	}
	in.next = 5
	for i := range 6 {
		in.add(strings.Replace(plainMail(100+i), "body", "another body", 1))
	}
	for i, name := range []string{"Archive", "Sent", "Work"} {
		s.box(name).add(plainMail(200 + i))
	}
	use := func(o *Options) { o.Connections = connections }
	f := &frail{server: s, at: at, away: away}
	h.within(t, f, use)
	for range 2 {
		h.within(t, &frail{server: s}, use)
	}
	for u := imap.UID(2); u <= 4; u++ {
		if s.fetched[u] != 1 {
			t.Errorf("UID %d was downloaded %d times", u, s.fetched[u])
		}
	}
	if n := len(h.files("INBOX")); n != 4+6+4 { // those that the backup had not are kept
		t.Errorf("%d files", n)
	}
	h.quiet(s, use)
	if t.Failed() {
		t.Fatalf("lost at command %d", at)
	}
	return f.lost
}
