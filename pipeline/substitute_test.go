package pipeline

import (
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// A mail that reads like the substitute of Exchange is one where the server says that the mail
// has another size: anybody can write the words, and the size is the server's. Where it is
// right the mail comes, and what it reads like is said.
func TestASubstituteIsToldByItsSize(t *testing.T) {
	for name, other := range map[string]bool{"the size of what came": false, "another size": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("UIDPLUS"), newHome(t)
			if other {
				s.box("INBOX").add(plainMail(1))
				s.box("INBOX").msgs[1].fault = &serverFault{plain: exchangeSubstitute}
			} else {
				s.box("INBOX").add(exchangeSubstitute)
			}
			stubs, said := 0, 1
			if other {
				stubs, said = 1, 0
			}
			rep := h.sync(s)
			notes := strings.Join(h.of(report.EventNote), "; ")
			if rep.NewStubs != stubs || rep.New != 1-stubs || strings.Count(notes, "Exchange") != said {
				t.Errorf("%d stubs, %d new, said %q", rep.NewStubs, rep.New, notes)
			}
			if again := h.sync(s); !again.Clean() || again.New != 0 || again.NewStubs != 0 {
				t.Errorf("again: %+v", again)
			}
		})
	}
}
