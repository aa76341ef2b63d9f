package pipeline

import (
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// A mail that reads like the substitute of Exchange, and has no line of a way that it came, is
// one where the server is an Exchange, or says that the mail has another size: anybody can write
// the words, and the size is the server's. Else the mail comes, and what it reads like is said.
func TestASubstituteIsToldByItsServer(t *testing.T) {
	const exchange = "The Microsoft Exchange IMAP4 service is ready."
	for name, c := range map[string]struct {
		greeting string
		other    bool // the server says another size
		stub     bool
	}{
		"the size of what came":           {"fake", false, false},
		"another size":                    {"fake", true, true},
		"Exchange, the size of what came": {exchange, false, true},
		"Exchange, another size":          {exchange, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("UIDPLUS"), newHome(t)
			s.greeting = c.greeting
			if c.other {
				s.box("INBOX").add(plainMail(1))
				s.box("INBOX").msgs[1].fault = &serverFault{plain: exchangeSubstitute}
			} else {
				s.box("INBOX").add(exchangeSubstitute)
			}
			stubs, said := 0, 1
			if c.stub {
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
