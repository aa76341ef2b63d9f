package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// killAt runs a sync of which nothing is recorded any more from the effect of number at on, as
// if it was killed there. It tells whether it came as far as that.
func (h *home) killAt(s *server, at int) (killed bool) {
	h.t.Helper()
	h.ended = false
	l, err := ledger.Open(h.t.Context(), filepath.Join(h.dir, "state"))
	h.do(err)
	o := h.options(s, l)
	o.Connections = 1
	var n atomic.Int64
	o.Step = func(string) {
		if n.Add(1) == int64(at) {
			h.do(l.Close())
		}
	}
	if _, err := Sync(h.t.Context(), o); n.Load() < int64(at) {
		h.do(err)
		h.do(l.Close())
	}
	return n.Load() >= int64(at)
}

// The server's flags change, and the run that hears of it is stopped behind any of its effects.
// What its user then does to the file is done: if he puts it back as it was, the server hears of
// that, too.
func TestAFlagThatIsPutBackAfterAStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, after []string }{
		"set":       {[]string{`\Seen`}, []string{`\Seen`, `\Flagged`}},
		"taken off": {[]string{`\Seen`, `\Flagged`}, []string{`\Seen`}},
	} {
		for _, user := range []string{"nothing", "back", "another"} {
			for _, how := range []string{"killed", "stopped"} {
				if spared(name + "/" + user + "/" + how) {
					continue
				}
				t.Run(name+"/"+user+"/"+how, func(t *testing.T) {
					t.Parallel()
					back := 0
					for at, stopped := 1, true; stopped && !t.Failed(); at++ {
						s, h := newServer(wires()["MOVE"]...), newHome(t)
						in := s.box("INBOX")
						in.add(plainMail(1), c.before...)
						in.add(plainMail(2))
						h.sync(s)
						in.flag(1, c.after...)
						if how == "killed" {
							stopped = h.killAt(s, at)
						} else {
							stopped = h.stopAt(s, at)
						}
						file := h.mailFile("INBOX", plainMail(1))
						_, letters := maildir.ParseName(file)
						want := slices.Clone(c.after)
						switch {
						case user == "back" && letters == plan.Letters(c.after):
							h.do(os.Rename(h.path("INBOX", file), h.path("INBOX", maildir.WithFlags(file, plan.Letters(c.before), plan.Letters(c.after)))))
							want = c.before
							back++
						case user == "another":
							h.flagFile("INBOX", file, strings.Replace(letters, "S", "RS", 1))
							want = append(want, `\Answered`)
						}
						for range 3 {
							h.sync(s)
						}
						if got := in.msgs[1].flags; !plan.SameFlags(got, want) {
							t.Errorf("stopped at %d: the server has %v, want %v; the file was %s", at, got, want, file)
						}
						h.notmuchNew()
						h.check(s)
						h.quiet(s)
					}
					if user == "back" && back < 2 {
						t.Error(fmt.Sprint(back, " times it was put back"))
					}
				})
			}
		}
	}
}
