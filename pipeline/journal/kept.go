package journal

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// KeptMail is mail that stays here though the server has it nowhere: of mailboxes that it has no
// more, and of UIDs that it has given up. When it has some of it again, as a message of whatever
// mailbox, the end of the run judges anew what becomes of the file that was kept. That is noted with
// the record of the message, so that a run which ends before leaves it to the next one.
type KeptMail struct {
	journal *Journal

	mu    sync.Mutex
	read  bool
	any   bool              // there is some
	gone  map[string]string // what was said of mailboxes that are gone, by their names: keys of the notes
	again map[string]bool   // those of them of which some mail came
}

// NewKeptMail starts a run's.
func NewKeptMail(j *Journal) *KeptMail {
	return &KeptMail{journal: j, again: make(map[string]bool)}
}

// Any tells whether there is some: what is new on the server may be here already.
func (k *KeptMail) Any(ctx context.Context) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.read {
		return k.any, nil
	}
	kept, err := k.journal.ledger.Any(ctx, ledger.Kept)
	if err != nil {
		return false, err
	}
	said, err := k.journal.GoneSaid.All(ctx)
	if err != nil {
		return false, err
	}
	renumbered, err := k.journal.ledger.Renumbered(ctx)
	if err != nil {
		return false, err
	}
	k.gone = make(map[string]string, len(said))
	for about, text := range said {
		_, name, _ := strings.Cut(about, "/")
		if as, _ := text.Said(); string(as) == name { // else it has another name, perhaps
			k.gone[name] = about
		}
	}
	k.read, k.any = true, kept || len(k.gone)+len(renumbered) > 0
	return k.any, nil
}

// Recorded lets a change record messages. What is kept of their mail is judged anew.
func (k *KeptMail) Recorded(ctx context.Context, c *Change, rows []ledger.Message) error {
	if any, err := k.Any(ctx); err != nil || !any {
		return err
	}
	for _, row := range rows {
		if row.State != ledger.Present || row.ID == "" || row.Digest.IsZero() {
			continue
		}
		copies, err := k.journal.ledger.Like(ctx, row)
		if err != nil {
			return err
		}
		for _, m := range copies {
			switch about, gone := k.gone[m.Mailbox]; {
			case m.Digest != row.Digest || m.Mailbox == row.Mailbox && m.UIDValidity == row.UIDValidity:
			case m.State == ledger.Kept && !slices.ContainsFunc(c.Save, func(s ledger.Message) bool { return About(s) == About(m) }):
				m.State = ledger.Present
				c.Save = append(c.Save, m)
			case m.State == ledger.Present && gone:
				k.journal.GoneSaid.Forget(c, about)
				k.mu.Lock()
				k.again[m.Mailbox] = true
				k.mu.Unlock()
			}
		}
	}
	return nil
}

// Again tells whether some mail came of a mailbox that the server has no more.
func (k *KeptMail) Again(mailbox string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.again[mailbox]
}
