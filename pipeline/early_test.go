package pipeline

import (
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What was found in a folder before the server was heard of counts while the folder
// and the ledger are as they were, and for the mailbox as it was.
func TestFoundEarlyHoldsWhileNothingChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		change    func(h *home, b *box)
		early     bool
		strangers int
		missing   int
	}{
		{"nothing", func(*home, *box) {}, true, 1, 1},
		{"a mail is delivered", func(h *home, _ *box) { h.put("INBOX", plainMail(8), "S") }, false, 2, 1},
		{"a mail is removed", func(h *home, _ *box) { h.remove("INBOX", 2) }, false, 1, 2},
		{"the ledger has another state", func(_ *home, b *box) { b.known.UIDNext++ }, false, 1, 1},
		// What is missing then is all that counts.
		{"the server has another UIDVALIDITY", func(_ *home, b *box) { b.Status.UIDValidity++ }, true, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
			for i := range 3 {
				s.box("INBOX").add(plainMail(i))
			}
			h.sync(s)
			h.remove("INBOX", 1)
			h.put("INBOX", plainMail(7), "S")
			h.withLedger(s, func(o Options) {
				r := newRun(o)
				rows, err := o.Ledger.Mailboxes(t.Context())
				h.do(err)
				r.early = r.findEarly(t.Context())
				defer r.early.stop()
				<-r.early.done
				b := r.knownBox(rows[0])
				b.Status = &mail.Status{UIDValidity: s.box("INBOX").validity}
				c.change(h, b)
				h.do(r.scan(t.Context(), b))
				if early := r.foundEarly(b) != nil; early != c.early {
					t.Errorf("found early: %v", early)
				}
				if len(b.local.Untracked) != c.strangers || len(b.local.Missing) != c.missing {
					t.Errorf("%d new, %d missing", len(b.local.Untracked), len(b.local.Missing))
				}
			})
		})
	}
}
