package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// metaMoving is where the ledger keeps the move under way out of a mailbox, on a
// server without MOVE.
const metaMoving = "moving/"

// moving is that. Between COPY and EXPUNGE the mail is in both places, where the
// next run would take it for two: its file is that of the copy, and the original
// looks as if it had been deleted here.
type moving struct {
	Mailbox     string     `json:"mailbox"`
	UIDValidity uint64     `json:"uidvalidity"`
	UIDs        []imap.UID `json:"uids"`
	To          string     `json:"to"`
	ToValidity  uint64     `json:"to_validity"`
	ToNext      imap.UID   `json:"to_next"` // the copies have this UID or a higher one
	Copied      bool       `json:"copied"`  // the server said so
}

// moving records how far a move has come.
func (w *worker) moving(ctx context.Context, m *moving) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := w.Ledger.SetMeta(ctx, metaMoving+m.Mailbox, string(text)); err != nil {
		return err
	}
	w.step("move recorded")
	return nil
}

// moveDone forgets it.
func (w *worker) moveDone(ctx context.Context, b *box) error {
	if w.DryRun {
		return nil
	}
	if err := w.Ledger.SetMeta(ctx, metaMoving+b.Name, ""); err != nil {
		return err
	}
	w.step("move done")
	return nil
}

// finishMoves brings the moves to their end that were interrupted, or refused half
// way. Where it cannot, nothing else is done with these messages either.
func (w *worker) finishMoves(ctx context.Context, boxes map[string]*box) error {
	if w.ReadOnly || w.Restore || w.session.Has("MOVE") {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(boxes)) {
		b := boxes[name]
		err := w.finishMove(ctx, b)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case scopeOf(err, atMailbox) > ScopeMailbox:
			return err
		}
		w.mailboxFault(b, fmt.Errorf("a move out of it is not done: the mail is in the other mailbox, and here still: %w", err))
	}
	return nil
}

// finishMove does that for one mailbox.
func (w *worker) finishMove(ctx context.Context, b *box) error {
	text, err := w.Ledger.Meta(ctx, metaMoving+b.Name)
	if err != nil || text == "" || b.Status == nil { // it cannot be had now
		return err
	}
	var m moving
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return fmt.Errorf("the ledger's note of an interrupted move cannot be read: %w", err)
	}
	if m.UIDValidity != b.known.UIDValidity || b.Status.UIDValidity != m.UIDValidity {
		return w.moveDone(ctx, b) // these numbers are of other messages by now
	}
	if b.finished == nil {
		b.finished = make(map[imap.UID]bool)
	}
	copied := m.UIDs
	if !m.Copied {
		if copied, err = w.copied(ctx, b, &m); err != nil {
			for _, u := range m.UIDs {
				b.finished[u] = true
			}
			return err
		}
	}
	for _, u := range copied {
		b.finished[u] = true
	}
	if len(copied) > 0 && !w.DryRun {
		if _, err := w.openFor(ctx, b); err != nil {
			return err
		}
		b.need = needChanges
		if err := w.expunge(ctx, b, slices.Clone(copied)); err != nil {
			return err
		}
	}
	w.tally(func(r *Report) {
		if trash := w.trashFor(b); trash != nil && trash.Name == m.To {
			r.Deleted += len(copied)
		} else {
			r.Moved += len(copied)
		}
	})
	return w.moveDone(ctx, b)
}

// copied gives those of the messages that have a copy in the other mailbox, the
// same in every respect: what is found is expunged.
func (w *worker) copied(ctx context.Context, b *box, m *moving) ([]imap.UID, error) {
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	w.selected = nil
	sel, err := w.session.Examine(ctx, m.To, nil)
	if err != nil {
		if w.session.Alive() && deletedSince(ctx, w.session, m.To) {
			return nil, nil // there is no such mailbox yet
		}
		return nil, err
	}
	if sel.Messages == 0 || m.ToValidity != 0 && sel.UIDValidity != m.ToValidity {
		return nil, nil
	}
	from := m.ToNext
	if m.ToValidity == 0 && sel.UIDNext > 2*storeAtOnce {
		// A mailbox that is not synchronised, as the Trash may be: what was left
		// behind is among its newest.
		from = sel.UIDNext - 2*storeAtOnce
	}
	listed, err := w.session.Identify(ctx, uidsFrom(max(from, 1)))
	if err != nil {
		return nil, err
	}
	rows, err := w.Ledger.GetMany(ctx, b.Name, m.UIDValidity, m.UIDs)
	if err != nil {
		return nil, err
	}
	var here []stranger
	for _, row := range rows {
		here = append(here, stranger{Message: row})
	}
	var uids []imap.UID
	for _, h := range pair(listed, here, true) {
		uids = append(uids, h.UID)
	}
	slices.Sort(uids)
	return uids, nil
}

// without takes messages out of what is to be told of a mailbox.
func (o *outgoing) without(uids map[imap.UID]bool) {
	if len(uids) == 0 {
		return
	}
	for to, ms := range o.moves {
		if ms = slices.DeleteFunc(ms, func(m move) bool { return uids[m.row.UID] }); len(ms) > 0 {
			o.moves[to] = ms
		} else {
			delete(o.moves, to)
		}
	}
	for to, ms := range o.tagged {
		if ms = slices.DeleteFunc(slices.Clone(ms), func(m ledger.Message) bool { return uids[m.UID] }); len(ms) > 0 {
			o.tagged[to] = ms
		} else {
			delete(o.tagged, to)
		}
	}
	o.deleted = slices.DeleteFunc(o.deleted, func(m ledger.Message) bool { return uids[m.UID] })
}

// settle lets the look record what is known of messages that were deleted here:
// the server was told as far as it lets us.
func (b *box) settle(uids []imap.UID) {
	is := func(m ledger.Message) bool { return slices.Contains(uids, m.UID) }
	b.local.missing = slices.DeleteFunc(b.local.missing, is)
	b.local.marked = slices.DeleteFunc(b.local.marked, is)
}
