package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// expunge deletes a message of INBOX as drop --remote does.
func (w *world) expunge(change func(*probe.ExpungeOptions)) (*probe.Expunged, error) {
	w.t.Helper()
	l, err := ledger.Open(w.t.Context(), w.state())
	if err != nil {
		w.t.Fatal(err)
	}
	o := probe.ExpungeOptions{
		Target: pipeline.Target{Mailbox: "INBOX", UID: 4}, Dial: func(ctx context.Context) (probe.Deleter, error) {
			s, err := w.options(l).Dial(ctx)
			return s.Deleter(), err
		}, Notes: journal.Of(l).Expunge,
		Confirm: func(probe.ExpungePlan) (bool, error) { return true, nil }, Keep: func() error { return nil },
	}
	change(&o)
	done, err := probe.Expunge(w.t.Context(), o)
	return done, errors.Join(err, l.Close())
}

// A real server, with and without the extensions that make it easy: the one
// message goes, and no other, whatever others are marked \Deleted.
func TestDovecotDeletesExactlyOneMessage(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string][]string{"everything": nil, "no MOVE": {"MOVE"}, "no UIDPLUS": {"UIDPLUS", "MOVE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			uidplus := !slices.Contains(hide, "UIDPLUS")
			for _, to := range []string{"", "Quarantäne & Co"} {
				for _, marked := range []bool{false, true} {
					box := fmt.Sprintf("Work%d%t", len(to), marked)
					command(t, s, "CREATE "+box)
					appendAll(t, s, box, rawsDovecot(9)...)
					if marked {
						command(t, s, "SELECT "+box, `UID STORE 2,7 +FLAGS (\Deleted)`)
					}
					w := newWorld(t, s.Addr(), s.User, s.Password)
					kill := func(protect bool) (*probe.Expunged, error) {
						return w.expunge(func(o *probe.ExpungeOptions) { o.Mailbox, o.To, o.Protect = box, to, protect })
					}
					if marked && !uidplus {
						if _, err := kill(false); !errors.Is(err, probe.ErrOthersDeleted) {
							t.Errorf("to %q: others in danger: %v", to, err)
						}
					}
					done, err := kill(true)
					if err != nil {
						t.Fatalf("to %q, marked %v: %v", to, marked, err)
					}
					if !done.Done || done.Left != 8 || len(done.Missing) > 0 || (to != "") != (done.Moved != 0) && uidplus {
						t.Errorf("to %q, marked %v: %+v", to, marked, done)
					}
					out, err := s.Command("EXAMINE "+box, "UID SEARCH ALL", "UID SEARCH DELETED")
					if err != nil {
						t.Fatal(err)
					}
					text := strings.Join(out, "\n") + "\n"
					want := "* SEARCH\n"
					if marked {
						want = "* SEARCH 2 7\n"
					}
					if !strings.Contains(text, "* SEARCH 1 2 3 5 6 7 8 9\n") || !strings.Contains(text, want) {
						t.Errorf("to %q, marked %v: left are\n%s", to, marked, text)
					}
				}
			}
		})
	}
}

// rawsDovecot are the first n of these mails.
func rawsDovecot(n int) (raws []string) {
	for i := range n {
		raws = append(raws, rawDovecot(i))
	}
	return raws
}

func rawDovecot(i int) string {
	return fmt.Sprintf("From: a@example.org\r\nMessage-ID: <d%d@example.org>\r\nSubject: mail %d\r\n\r\nbody\r\n", i, i)
}
