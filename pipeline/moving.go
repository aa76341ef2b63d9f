package pipeline

import (
	"context"
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

// What a move has changed is recorded when the server's answer is read. From then on
// the row of the mailbox that the mail came from is no evidence any more: whatever
// becomes of the file, it is that of the new message.

// newMove is a move of messages of b. keys are the files that were moved here.
func (w *worker) newMove(b *box, verb string, rows []ledger.Message, to *box, keys map[imap.UID]string) *journal.Moving {
	m := &journal.Moving{
		Mailbox: b.Name, UIDValidity: b.known.UIDValidity, UIDs: ledger.UIDs(rows), To: to.Name, ToValidity: to.known.UIDValidity, ToNext: to.known.UIDNext,
		Verb: verb, Deleted: w.trashFor(b) == to, Files: make(map[imap.UID]journal.Arrival),
	}
	m.ByTags = keys == nil && !m.Deleted
	for _, row := range rows {
		if b.missingHere(row.UID) {
			m.Absent = append(m.Absent, row.UID)
		}
		if key := keys[row.UID]; key != "" {
			a := journal.Arrival{Row: row, From: row, Next: m.ToNext}
			a.Row.Mailbox, a.Row.UIDValidity, a.Row.UID, a.Row.Key, a.Row.Name = to.Name, m.ToValidity, 0, key, ""
			a.Row.Flags = w.stored[b.Name][row.UID].Merged(row.Flags)
			m.Files[row.UID] = a
		}
	}
	return m
}

func (b *box) missingHere(uid imap.UID) bool {
	return slices.ContainsFunc(b.local.Missing, func(m ledger.Message) bool { return m.UID == uid })
}

// intendMove records a move that is about to be asked for, unless it leaves nothing
// that could be mistaken.
func (w *worker) intendMove(ctx context.Context, m *journal.Moving, rows []ledger.Message, to *box) error {
	var c journal.Change
	if to.known.UIDValidity != 0 { // else it is not synchronised
		w.notes().Uploading.Put(&c, to.Name, to.since())
	}
	if m.Verb == "COPY" || len(m.Files) > 0 {
		w.notes().Moving.Put(&c, m.Mailbox, *m)
	}
	if m.ByTags {
		w.ruled.Note(&c, rows, to.Name)
	}
	return w.commit(ctx, c, "move recorded")
}

// moveRefused takes the intent back, if nothing was moved, and tells whether it did: of
// several messages MOVE may have moved some (RFC 6851 3.3).
func (w *worker) moveRefused(ctx context.Context, m *journal.Moving) (back bool, err error) {
	if m.Verb == "MOVE" {
		left, err := w.conn.Session().Search(ctx, mail.UIDSet(m.UIDs))
		if err != nil || slices.ContainsFunc(m.UIDs, func(u imap.UID) bool { return !left.Contains(u) }) {
			return false, nil //nolint:nilerr // the next run finds out
		}
	}
	c := w.moveOver(m.Mailbox)
	for _, u := range m.UIDs {
		w.ruled.Forget(&c, ledger.Message{Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: u})
	}
	return true, w.commit(ctx, c, "move done")
}

// moveOver is a change that forgets the move under way out of a mailbox.
func (r *run) moveOver(mailbox string) (c journal.Change) {
	r.notes().Moving.Forget(&c, mailbox)
	return c
}

// moveAnswered records what the server has moved, or copied if it is to be expunged
// yet. to has the new UIDs, as far as they are known.
func (w *worker) moveAnswered(ctx context.Context, b *box, m *journal.Moving, rows []ledger.Message, to map[imap.UID]imap.UID) error {
	c := w.moveOver(m.Mailbox)
	for _, row := range rows {
		a, moved := m.Files[row.UID]
		if moved {
			a.Row.UID = to[row.UID]
			w.arrivals.Note(&c, a)
		}
		switch {
		case m.Copied && moved:
			row.Key, row.Flags = "", a.Row.Flags // the file is that of the copy
			c.Save = append(c.Save, row)
		case !m.Copied && slices.Contains(m.Absent, row.UID):
			w.line.Forget(&c, b.line, row)
		}
	}
	if m.Copied {
		w.notes().Moving.Put(&c, m.Mailbox, *m)
	}
	return w.commit(ctx, c, "move answered")
}

// copiesExpunged ends a move by COPY. That the originals could not be expunged, since
// others are marked there, is an end, too.
func (w *worker) copiesExpunged(ctx context.Context, b *box, m *journal.Moving, rows []ledger.Message, expunged bool) error {
	c := w.moveOver(m.Mailbox)
	for _, row := range rows {
		if expunged && slices.Contains(m.Absent, row.UID) {
			w.line.Forget(&c, b.line, row)
		}
	}
	return w.commit(ctx, c, "move done")
}

// goneThere records that messages whose files are not here were expunged.
func (w *worker) goneThere(ctx context.Context, b *box, rows []ledger.Message) error {
	var c journal.Change
	for _, row := range rows {
		if b.missingHere(row.UID) {
			w.line.Forget(&c, b.line, row)
		}
	}
	if len(c.Forget) == 0 {
		return nil
	}
	return w.commit(ctx, c, "deletions recorded")
}

// tellForgotten tells notmuch what an earlier run did not come to tell. Where mail
// went has been found by then, or waits, and this with it.
func (w *worker) tellForgotten(ctx context.Context, boxes map[string]*box) error {
	rows, err := w.notes().Forgotten.All(ctx)
	if err != nil || len(rows) == 0 || len(w.unsettled) > 0 || w.DryRun {
		return err
	}
	var items []*deliver.Item
	var back journal.Change
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		row := rows[key]
		if b := boxes[row.Mailbox]; b != nil && !b.exists(row.Name) {
			items = append(items, b.line.Forgetting(row))
		} else {
			w.notes().Forgotten.Forget(&back, key) // the file was put back, or its mailbox is forgotten
		}
	}
	for part := range slices.Chunk(items, deliver.BatchSize) {
		if err := w.line.Record(ctx, part); err != nil {
			return err
		}
	}
	if back.Empty() {
		return nil
	}
	return w.commit(ctx, back, "forgotten files found")
}

// finishMove brings a move to its end that was interrupted, or refused half way.
// Where it cannot, nothing else is to be done with these messages. boxes are those of
// this run, if they are known yet.
func (w *worker) finishMove(ctx context.Context, b *box, m *journal.Moving, boxes map[string]*box) error {
	w.leaveAlone(m)
	if w.DryRun {
		return errLater
	}
	none := w.moveOver(b.Name)
	if m.UIDValidity != b.known.UIDValidity {
		return w.commit(ctx, none, "move done") // these numbers are of other messages by now
	}
	if err := w.conn.Connect(ctx); err != nil {
		return err
	}
	sel, err := w.conn.Select(ctx, b.Name)
	switch {
	case err != nil && w.conn.Alive() && probe.DeletedSince(ctx, w.conn.Session(), b.Name), err == nil && sel.UIDValidity != m.UIDValidity:
		return w.commit(ctx, none, "move done")
	case err != nil:
		return err
	}
	left, err := w.conn.Session().Search(ctx, mail.UIDSet(m.UIDs))
	if err != nil {
		return err
	}
	if m.Verb == "MOVE" {
		m.UIDs = slices.DeleteFunc(m.UIDs, left.Contains) // what is there still was not moved
	}
	rows, err := w.Ledger.GetMany(ctx, b.Name, m.UIDValidity, m.UIDs)
	if err != nil {
		return err
	}
	if !m.Copied {
		to, err := w.copied(ctx, m, rows)
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(row ledger.Message) bool { return to[row.UID] == 0 })
		m.UIDs, m.Copied = ledger.UIDs(rows), m.Verb != "MOVE"
		w.leaveAlone(m)
		if err := w.moveAnswered(ctx, b, m, rows, to); err != nil {
			return err
		}
		for from, uid := range to {
			if box := boxes[m.To]; box != nil && m.Files[from].Row.Key != "" {
				box.expect(uid, m.Files[from].Row.Key)
			}
		}
	}
	b.need = plan.NeedChanges
	if m.Copied {
		if len(m.UIDs) > 0 {
			if _, err := w.openFor(ctx, b); err != nil {
				return err
			}
		}
		expunged, err := w.expunge(ctx, b, slices.Clone(m.UIDs))
		if err != nil {
			return err
		}
		if err := w.copiesExpunged(ctx, b, m, rows, expunged); err != nil {
			return err
		}
	}
	w.tally(func(r *report.Report) {
		if m.Deleted {
			r.Deleted += len(m.UIDs)
		} else {
			r.Moved += len(m.UIDs)
		}
	})
	return nil
}

// leaveAlone lets nothing else be done with the messages of a move.
func (r *run) leaveAlone(m *journal.Moving) {
	r.finished[m.Mailbox] = make(map[imap.UID]bool)
	for _, u := range m.UIDs {
		r.finished[m.Mailbox][u] = true
	}
}

// copied gives the new UIDs of those of the messages that the other mailbox has, the
// same in every respect: what is found is expunged.
func (w *worker) copied(ctx context.Context, m *journal.Moving, rows []ledger.Message) (map[imap.UID]imap.UID, error) {
	out := make(map[imap.UID]imap.UID)
	if len(rows) == 0 {
		return out, nil
	}
	sel, err := w.conn.Examine(ctx, m.To, nil)
	if err != nil {
		if w.conn.Alive() && probe.DeletedSince(ctx, w.conn.Session(), m.To) {
			return out, nil // there is no such mailbox yet
		}
		return nil, err
	}
	if sel.Messages == 0 || m.ToValidity != 0 && sel.UIDValidity != m.ToValidity {
		return out, nil
	}
	from := m.ToNext
	if m.ToValidity == 0 && sel.UIDNext > 2*storeAtOnce {
		// A mailbox that is not synchronised, as the Trash may be: what was left
		// behind is among its newest.
		from = sel.UIDNext - 2*storeAtOnce
	}
	listed, err := w.conn.Session().Identify(ctx, mail.UIDsFrom(max(from, 1)))
	if err != nil {
		return nil, err
	}
	var here []plan.Untracked
	for _, row := range rows {
		here = append(here, plan.Untracked{Message: row})
	}
	pairs, err := w.match.Pair(ctx, w.conn.Session(), listed, here, plan.Evidence{Exact: true})
	if err != nil {
		return nil, err
	}
	for uid, h := range pairs {
		out[h.UID] = uid
	}
	return out, nil
}

// settle lets the look record what is known of messages that were deleted here:
// the server was told as far as it lets us.
func (b *box) settle(uids []imap.UID) {
	is := func(m ledger.Message) bool { return slices.Contains(uids, m.UID) }
	b.local.Missing = slices.DeleteFunc(b.local.Missing, is)
	b.local.Marked = slices.DeleteFunc(b.local.Marked, is)
}
