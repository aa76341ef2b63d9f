package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// endInterrupted ends what an interrupted run has begun to move, and finds the mail
// that it has put into mailboxes, before anything here is compared with the rows: the
// user may have moved the files since. Where that cannot be found out today, nothing
// is done in these mailboxes.
func (w *worker) endInterrupted(ctx context.Context) error {
	moves, err := w.notes().Moving.All(ctx)
	if err != nil {
		return err
	}
	arrivals, err := w.notes().Arriving.All(ctx)
	if err != nil {
		return err
	}
	links, err := w.notes().Linked.All(ctx)
	if err != nil {
		return err
	}
	forgotten, err := w.notes().Forgotten.All(ctx)
	if err != nil || len(moves)+len(arrivals)+len(links)+len(forgotten) == 0 {
		return err
	}
	w.prescan.Discard() // it compares with the rows of before
	w.unsettled = make(map[string][]ledger.Message)
	boxes, err := w.knownBoxes(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		b := boxes[name]
		if b == nil && !w.DryRun { // of a mailbox that was forgotten by an earlier version
			if err := w.commit(ctx, w.moveOver(name), "move done"); err != nil {
				return err
			}
		}
		if b == nil || !w.selects(b.Mailbox) || w.ReadOnly || w.Restore {
			continue
		}
		m := moves[name]
		err := w.finishMove(ctx, b, &m, nil)
		if err == nil {
			continue
		}
		if m.Verb == "MOVE" {
			w.unsettled[b.Name] = nil
		}
		if !m.Copied {
			w.unsettled[m.To] = nil
		}
		if err := w.notSettled(ctx, b, err, "a move out of it is not done"); err != nil {
			return err
		}
	}
	if err := w.settleArrivals(ctx, boxes); err != nil {
		return err
	}
	if err := w.finishLinks(ctx, boxes); err != nil {
		return err
	}
	return w.tellForgotten(ctx, boxes)
}

// errLater is why a dry run ends nothing.
var errLater = errors.New("a run ends first what an earlier one had begun, and what that leaves to do cannot be foreseen")

// notSettled tells why something is not ended now, unless it is more than a mailbox's
// matter.
func (w *worker) notSettled(ctx context.Context, b *box, err error, what string) error {
	_, connecting := errors.AsType[*report.ConnectError](err)
	switch {
	case errors.Is(err, errLater):
		w.note(b, "%v", err)
	case ctx.Err() != nil:
		return ctx.Err()
	case connecting || report.ScopeOf(err, report.AtMailbox) > report.ScopeMailbox:
		return err
	default:
		w.mailboxFault(b, fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// settleArrivals gives mail its row that an earlier run has put into mailboxes.
func (w *worker) settleArrivals(ctx context.Context, boxes map[string]*box) error {
	arrivals, err := w.notes().Arriving.All(ctx)
	if err != nil {
		return err
	}
	byBox := make(map[*box][]journal.Arrival)
	var done journal.Change
	for key, a := range arrivals {
		switch b := boxes[a.Row.Mailbox]; {
		case b == nil || b.known.UIDValidity != a.Row.UIDValidity:
			w.notes().Arriving.Forget(&done, key)
		case w.selects(b.Mailbox):
			byBox[b] = append(byBox[b], a)
		}
	}
	if !done.Empty() && !w.DryRun {
		if err := w.commit(ctx, done, "arrivals forgotten"); err != nil {
			return err
		}
	}
	for b, as := range byBox {
		err := w.settleIn(ctx, b, as, boxes)
		if err == nil {
			continue
		}
		for _, a := range as {
			w.unsettled[b.Name] = append(w.unsettled[b.Name], a.Row)
		}
		if err := w.notSettled(ctx, b, err, "what was put into it cannot be looked for"); err != nil {
			return err
		}
	}
	return nil
}

// settleIn does that for one mailbox. A message that was in it, and is no more, gets its
// row all the same: that it is gone is for the look to find, and where others have moved
// it, its file goes there, or is deleted with it.
func (w *worker) settleIn(ctx context.Context, b *box, as []journal.Arrival, boxes map[string]*box) error {
	if w.DryRun {
		return errLater
	}
	rows, err := w.rows(ctx, b)
	if err != nil {
		return err
	}
	var c journal.Change
	var here []plan.Untracked
	byKey := make(map[string]journal.Arrival)
	from := as[0].Next
	for _, a := range as {
		w.notes().Arriving.Forget(&c, a.Row.Key)
		if a.Row.UID < a.Next {
			a.Row.UID = 0 // that cannot be
		}
		if plan.Taken(rows, a.Row.UID) || slices.ContainsFunc(rows, func(r ledger.Row) bool { return r.Key == a.Row.Key }) {
			continue // the run that was interrupted came as far as that
		}
		here, byKey[a.Row.Key] = append(here, plan.Untracked{Message: a.Row}), a
		from = min(from, a.Next)
	}
	if len(here) == 0 {
		return w.commit(ctx, c, "arrivals forgotten")
	}
	if err := w.conn.Connect(ctx); err != nil {
		return err
	}
	sel, err := w.conn.Examine(ctx, b.Name, nil)
	switch {
	case err != nil && w.conn.Alive() && probe.DeletedSince(ctx, w.conn.Session(), b.Name), err == nil && sel.UIDValidity != b.known.UIDValidity:
		return w.commit(ctx, c, "arrivals forgotten")
	case err != nil:
		return err
	}
	var listed []mail.Message
	if sel.Messages > 0 {
		if listed, err = w.conn.Session().Identify(ctx, mail.UIDsFrom(max(from, 1))); err != nil {
			return err
		}
	}
	gone := plan.PassedOf(rows, listed, max(from, 1), sel.UIDNext, here)
	listed = slices.DeleteFunc(listed, func(m mail.Message) bool { return plan.Taken(rows, m.UID) })
	found := make(map[string]ledger.Message)
	becomes := func(m mail.Message, key string) {
		row := byKey[key].Row
		row.State, row.UID, row.Size, row.Date = ledger.Present, m.UID, m.Size, m.InternalDate.UTC()
		found[key] = row
	}
	e := plan.Evidence{Told: make(map[imap.UID]string)}
	for _, s := range here {
		if s.UID != 0 {
			e.Told[s.UID] = s.Key
		}
	}
	pairs, err := w.match.Pair(ctx, w.conn.Session(), listed, here, e)
	if err != nil {
		return err
	}
	for uid, s := range pairs {
		becomes(listed[slices.IndexFunc(listed, func(m mail.Message) bool { return m.UID == uid })], s.Key)
	}
	here = slices.DeleteFunc(here, func(s plan.Untracked) bool { _, ok := found[s.Key]; return ok })
	moved := make(map[string]mail.Message)
	if gone.Any() {
		if moved, err = w.whereabouts(ctx, b, slices.DeleteFunc(slices.Clone(here), func(s plan.Untracked) bool { return s.UID != 0 }), boxes); err != nil {
			return err
		}
	}
	for _, s := range here {
		row, m := byKey[s.Key].Row, moved[s.Key]
		if s.UID == 0 && m.UID == 0 && !byKey[s.Key].Was() {
			continue // it was never there, as far as can be known
		}
		if row.UID = gone.Take(s.UID); row.UID == 0 {
			continue
		}
		if row.State = ledger.Present; m.UID != 0 {
			row.Size, row.Date = m.Size, m.InternalDate.UTC()
		}
		found[s.Key] = row
	}
	var items []*deliver.Item
	for _, key := range slices.Sorted(maps.Keys(found)) {
		row, a := found[key], byKey[key]
		name, ok, err := b.find(key, "")
		if err != nil {
			return err
		}
		if !ok { // it was moved on, or deleted, since; notmuch may know the name
			c.Save = append(c.Save, row)
			continue
		}
		row.Name = name
		it := &deliver.Item{Box: b.line, Op: deliver.OpAdd, Row: row, Known: true}
		it.Add, it.Remove = w.arriving(b, row.Flags, plan.ByHand)
		items = append(items, it)
		if at := boxes[a.From.Mailbox]; at != nil && !at.exists(a.From.Name) {
			items = append(items, at.line.Forgetting(a.From))
		}
	}
	for part := range slices.Chunk(items, deliver.BatchSize) {
		if err := w.line.Record(ctx, part); err != nil {
			return err
		}
	}
	return w.commit(ctx, c, "arrivals found")
}

// isUnsettled tells whether nothing is to be done in the mailbox now.
func (r *run) isUnsettled(b *box) bool {
	_, ok := r.unsettled[b.Name]
	return ok
}
