package pipeline

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Which flags the server is told of is noted before it is told, and until the look has
// recorded what became of it. A run may end between the two. The next one knows by it that
// a difference in such a flag is nobody else's doing, and tells the server again what is
// here, whether its owner has changed that back or not. It is no agreement: there are
// servers that say OK to a STORE without effect.

// intendFlagsThere notes which flags of a mailbox's messages are about to be told.
func (w *worker) intendFlagsThere(ctx context.Context, b *box) error {
	if len(b.local.Flags) == 0 {
		return nil
	}
	var c journal.Change
	w.mu.Lock()
	for u, d := range b.local.Flags {
		m := ledger.Message{Mailbox: b.Name, UIDValidity: b.known.UIDValidity, UID: u}
		flags := slices.Concat(w.toldBefore[b.Name][u], d.Add, d.Remove)
		slices.Sort(flags)
		w.notes().Told.Put(&c, journal.About(m), journal.Told{Mailbox: b.Name, UIDValidity: m.UIDValidity, UID: u, Flags: slices.Compact(flags)})
		w.toldNoted(m)
	}
	w.mu.Unlock()
	return w.commit(ctx, c, "flags about to be told")
}

// recallTold finds what interrupted runs have told, or were about to.
func (r *run) recallTold(ctx context.Context) error {
	all, err := r.notes().Told.All(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	r.toldBefore = make(map[string]map[imap.UID][]string)
	var over []string
	for about, t := range all {
		row, ok, err := r.Ledger.Get(ctx, t.Mailbox, t.UIDValidity, t.UID)
		if err != nil {
			return err
		}
		if b := boxes[t.Mailbox]; b == nil || b.known.UIDValidity != t.UIDValidity || !ok || row.State != ledger.Present {
			over = append(over, about)
			continue
		}
		if r.toldBefore[t.Mailbox] == nil {
			r.toldBefore[t.Mailbox] = make(map[imap.UID][]string)
		}
		r.toldBefore[t.Mailbox][t.UID] = t.Flags
		r.mu.Lock()
		r.toldNoted(row)
		r.mu.Unlock()
	}
	r.here.Told = r.toldBefore
	if len(over) == 0 || r.DryRun {
		return nil
	}
	return r.notes().Told.Drop(ctx, over...)
}

// toldNoted remembers that there is such a note. It is called under mu.
func (r *run) toldNoted(m ledger.Message) {
	if r.toldNotes == nil {
		r.toldNotes = make(map[string]map[string]bool)
	}
	if r.toldNotes[m.Mailbox] == nil {
		r.toldNotes[m.Mailbox] = make(map[string]bool)
	}
	r.toldNotes[m.Mailbox][journal.About(m)] = true
}

// forgetTold lets a change forget what was told of messages: their flags are recorded with
// it, or they are gone.
func (r *run) forgetTold(c *journal.Change, rows ...ledger.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if about := journal.About(row); r.toldNotes[row.Mailbox][about] {
			r.notes().Told.Forget(c, about)
			delete(r.toldNotes[row.Mailbox], about)
		}
	}
}

// toldIsOver forgets all that was told of a mailbox that was looked at: what of it shows on
// the server is recorded.
func (r *run) toldIsOver(ctx context.Context, b *box) error {
	r.mu.Lock()
	var over []string
	for about := range r.toldNotes[b.Name] {
		over = append(over, about)
	}
	delete(r.toldNotes, b.Name)
	r.mu.Unlock()
	if len(over) == 0 || r.DryRun {
		return nil
	}
	return r.notes().Told.Drop(ctx, over...)
}
