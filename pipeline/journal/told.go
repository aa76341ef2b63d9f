package journal

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// ToldFlags is which flags of messages the server is told of. That is noted before it is told,
// and until the look has recorded what became of it. A run may end between the two. The next
// one knows by it that a difference in such a flag is nobody else's doing, and tells the server
// again what is here, whether its owner has changed that back or not. It is no agreement: there
// are servers that say OK to a STORE without effect.
type ToldFlags struct {
	journal *Journal
	before  map[string]map[imap.UID][]string

	mu    sync.Mutex
	noted map[string]map[string]bool // by mailbox, what there are notes about
}

// NewToldFlags starts a run's.
func NewToldFlags(j *Journal) *ToldFlags {
	return &ToldFlags{journal: j, before: make(map[string]map[imap.UID][]string), noted: make(map[string]map[string]bool)}
}

// Recall finds what earlier runs have told, or were about to. Notes of messages that are not
// there any more are forgotten, if forget is set.
func (t *ToldFlags) Recall(ctx context.Context, forget bool) error {
	all, err := t.journal.Told.All(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	boxes, err := t.journal.ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	validity := make(map[string]uint64, len(boxes))
	for _, b := range boxes {
		validity[b.Name] = b.UIDValidity
	}
	var over []string
	for about, n := range all {
		row, ok, err := t.journal.ledger.Get(ctx, n.Mailbox, n.UIDValidity, n.UID)
		if err != nil {
			return err
		}
		if v, known := validity[n.Mailbox]; !known || v != n.UIDValidity || !ok || row.State != ledger.Present {
			over = append(over, about)
			continue
		}
		if t.before[n.Mailbox] == nil {
			t.before[n.Mailbox] = make(map[imap.UID][]string)
		}
		t.before[n.Mailbox][n.UID] = n.Flags
		t.note(n.Mailbox, about)
	}
	if len(over) == 0 || !forget {
		return nil
	}
	var c Change
	for _, about := range over {
		t.journal.Told.Forget(&c, about)
		n := all[about]
		c.Became(mail.IsUndone, "it is not known: the message is gone", mail.Action{Kind: mail.ActStore, Mailbox: n.Mailbox, UIDValidity: n.UIDValidity, UID: n.UID})
	}
	return t.journal.Record(ctx, c)
}

// Before gives the flags that earlier runs have told the server of, and that were not seen there
// since, by mailbox. It is complete before anything is compared.
func (t *ToldFlags) Before() map[string]map[imap.UID][]string { return t.before }

// Intend lets a change note which flags of a mailbox's messages are about to be told.
func (t *ToldFlags) Intend(c *Change, mailbox string, uidValidity uint64, flags map[imap.UID][]string) {
	for uid, told := range flags {
		all := slices.Concat(t.before[mailbox][uid], told)
		slices.Sort(all)
		about := About(ledger.Message{Mailbox: mailbox, UIDValidity: uidValidity, UID: uid})
		t.journal.Told.Put(c, about, Told{Mailbox: mailbox, UIDValidity: uidValidity, UID: uid, Flags: slices.Compact(all)})
		t.note(mailbox, about)
	}
}

func (t *ToldFlags) note(mailbox, about string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.noted[mailbox] == nil {
		t.noted[mailbox] = make(map[string]bool)
	}
	t.noted[mailbox][about] = true
}

// Forget lets a change forget what was told of messages: their flags are recorded with
// it, or they are gone.
func (t *ToldFlags) Forget(c *Change, rows ...ledger.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, row := range rows {
		if about := About(row); t.noted[row.Mailbox][about] {
			t.journal.Told.Forget(c, about)
			c.Became(mail.IsDone, "", mail.Action{Kind: mail.ActStore, Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, UID: row.UID})
			delete(t.noted[row.Mailbox], about)
		}
	}
}

// Over forgets at once all that was told of a mailbox that was looked at: what of it shows on
// the server is recorded.
func (t *ToldFlags) Over(ctx context.Context, mailbox string) error {
	t.mu.Lock()
	over := slices.Collect(maps.Keys(t.noted[mailbox]))
	delete(t.noted, mailbox)
	t.mu.Unlock()
	if len(over) == 0 {
		return nil
	}
	var c Change
	for _, about := range over {
		t.journal.Told.Forget(&c, about)
		if n, ok, err := t.journal.Told.Get(ctx, about); err != nil {
			return err
		} else if ok {
			c.Became(mail.IsUndone, "the server said that it has changed them, and has not, or somebody changed them again",
				mail.Action{Kind: mail.ActStore, Mailbox: n.Mailbox, UIDValidity: n.UIDValidity, UID: n.UID})
		}
	}
	return t.journal.Record(ctx, c)
}
