package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// What a move has changed is recorded when the server's answer is read. From then on
// the row of the mailbox that the mail came from is no evidence any more: whatever
// becomes of the file, it is that of the new message.

// metaMoving is where the ledger keeps the move under way out of a mailbox.
const metaMoving = "moving/"

// moving is that. While its answer has not come, and between COPY and EXPUNGE, the
// next run would take the mail for two: its file is that of the new message, and the
// original looks as if it had been deleted here.
type moving struct {
	Mailbox     string               `json:"mailbox"`
	UIDValidity uint64               `json:"uidvalidity"`
	UIDs        []imap.UID           `json:"uids"`
	To          string               `json:"to"`
	ToValidity  uint64               `json:"to_validity"`
	ToNext      imap.UID             `json:"to_next"` // the new messages have this UID or a higher one
	Copied      bool                 `json:"copied"`  // by COPY, and the server said so
	Verb        string               `json:"verb"`    // MOVE or COPY; "", from an older version, is COPY
	Deleted     bool                 `json:"deleted"` // to the Trash, since they were deleted here
	Absent      []imap.UID           `json:"absent"`  // those that have no file in the mailbox's folder
	Files       map[imap.UID]arrival `json:"files"`   // the files of those that were moved here
	byTags      bool
}

// newMove is a move of messages of b. keys are the files that were moved here.
func (w *worker) newMove(b *box, verb string, rows []ledger.Message, to *box, keys map[imap.UID]string) *moving {
	m := &moving{
		Mailbox: b.Name, UIDValidity: b.known.UIDValidity, UIDs: uidsOf(rows), To: to.Name, ToValidity: to.known.UIDValidity, ToNext: to.known.UIDNext,
		Verb: verb, Deleted: w.trashFor(b) == to, Files: make(map[imap.UID]arrival),
	}
	m.byTags = keys == nil && !m.Deleted
	for _, row := range rows {
		if b.missingHere(row.UID) {
			m.Absent = append(m.Absent, row.UID)
		}
		if key := keys[row.UID]; key != "" {
			a := arrival{Row: row, From: row, Next: m.ToNext}
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
func (w *worker) intendMove(ctx context.Context, m *moving, rows []ledger.Message, to *box) error {
	c := ledger.Change{Metas: make(map[string]string)}
	if to.known.UIDValidity != 0 { // else it is not synchronised
		c.Metas[metaUploading+to.Name] = to.since()
	}
	if m.Verb == "COPY" || len(m.Files) > 0 {
		if err := set(c, metaMoving+m.Mailbox, m); err != nil {
			return err
		}
	}
	if m.byTags {
		if err := w.noteRuled(c, rows, to.Name); err != nil {
			return err
		}
	}
	return w.commit(ctx, c, "move recorded")
}

// moveRefused takes the intent back, if nothing was moved, and tells whether it did: of
// several messages MOVE may have moved some (RFC 6851 3.3).
func (w *worker) moveRefused(ctx context.Context, m *moving) (back bool, err error) {
	if m.Verb == "MOVE" {
		left, err := w.session.Search(ctx, mail.UIDSet(m.UIDs))
		if err != nil || slices.ContainsFunc(m.UIDs, func(u imap.UID) bool { return !left.Contains(u) }) {
			return false, nil //nolint:nilerr // the next run finds out
		}
	}
	c := ledger.Change{Metas: map[string]string{metaMoving + m.Mailbox: ""}}
	for _, u := range m.UIDs {
		w.forgetRuled(c, ledger.Message{Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: u})
	}
	return true, w.commit(ctx, c, "move done")
}

// moveAnswered records what the server has moved, or copied if it is to be expunged
// yet. to has the new UIDs, as far as they are known.
func (w *worker) moveAnswered(ctx context.Context, b *box, m *moving, rows []ledger.Message, to map[imap.UID]imap.UID) error {
	c := ledger.Change{Metas: map[string]string{metaMoving + m.Mailbox: ""}}
	for _, row := range rows {
		a, moved := m.Files[row.UID]
		if moved {
			a.Row.UID = to[row.UID]
			if err := w.arrives(c, a); err != nil {
				return err
			}
		}
		switch {
		case m.Copied && moved:
			row.Key, row.Flags = "", a.Row.Flags // the file is that of the copy
			c.Save = append(c.Save, row)
		case !m.Copied && slices.Contains(m.Absent, row.UID):
			if err := w.forget(&c, b, row); err != nil {
				return err
			}
		}
	}
	if m.Copied {
		if err := set(c, metaMoving+m.Mailbox, m); err != nil {
			return err
		}
	}
	return w.commit(ctx, c, "move answered")
}

// copiesExpunged ends a move by COPY. That the originals could not be expunged, since
// others are marked there, is an end, too.
func (w *worker) copiesExpunged(ctx context.Context, b *box, m *moving, rows []ledger.Message, expunged bool) error {
	c := ledger.Change{Metas: map[string]string{metaMoving + m.Mailbox: ""}}
	for _, row := range rows {
		if expunged && slices.Contains(m.Absent, row.UID) {
			if err := w.forget(&c, b, row); err != nil {
				return err
			}
		}
	}
	return w.commit(ctx, c, "move done")
}

// goneThere records that messages whose files are not here were expunged.
func (w *worker) goneThere(ctx context.Context, b *box, rows []ledger.Message) error {
	c := ledger.Change{Metas: make(map[string]string)}
	for _, row := range rows {
		if b.missingHere(row.UID) {
			if err := w.forget(&c, b, row); err != nil {
				return err
			}
		}
	}
	if len(c.Forget) == 0 {
		return nil
	}
	return w.commit(ctx, c, "deletions recorded")
}

// metaForgotten is where the ledger keeps that notmuch is yet to hear of a file that
// is where it was no more, and whose row went with the server's answer.
const metaForgotten = "forgotten/"

func forgottenKey(row ledger.Message) string {
	return fmt.Sprintf("%s%s/%d/%d", metaForgotten, row.Mailbox, row.UIDValidity, row.UID)
}

// forget puts into a change that a message is gone, and lets notmuch hear at the end
// that its file is where it was no more: not before the mail is known where it went,
// or its tags would go. A later run tells what this one does not come to.
func (r *run) forget(c *ledger.Change, b *box, row ledger.Message) error {
	c.Forget = append(c.Forget, row)
	r.hold(b.forgetting(row))
	return set(*c, forgottenKey(row), row)
}

// tellForgotten tells notmuch what an earlier run did not come to tell. Where mail
// went has been found by then, or waits, and this with it.
func (w *worker) tellForgotten(ctx context.Context, boxes map[string]*box) error {
	texts, err := w.Ledger.Metas(ctx, metaForgotten)
	if err != nil || len(texts) == 0 || len(w.unsettled) > 0 || w.DryRun {
		return err
	}
	var items []*item
	back := ledger.Change{Metas: make(map[string]string)}
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		var row ledger.Message
		if err := json.Unmarshal([]byte(texts[key]), &row); err != nil {
			return fmt.Errorf("the ledger's note of a mail that is gone cannot be read: %w", err)
		}
		if b := boxes[row.Mailbox]; b != nil && !b.exists(row.Name) {
			b.pending++
			items = append(items, b.forgetting(row))
		} else {
			back.Metas[key] = "" // the file was put back, or its mailbox is forgotten
		}
	}
	for part := range slices.Chunk(items, indexBatch) {
		if err := w.indexItems(ctx, part); err != nil {
			return err
		}
	}
	if len(back.Metas) == 0 {
		return nil
	}
	return w.commit(ctx, back, "forgotten files found")
}

// forgetting is a message that is not here any more, and whose row is gone.
func (b *box) forgetting(row ledger.Message) *item {
	row.Key, row.StubKey, row.StubName = "", "", row.Name
	return &item{box: b, op: opGone, row: row, known: true}
}

// forgotten tells whether an item is forgetting's.
func (it *item) forgotten() bool { return it.op == opGone && fileless(it.row) }

// commit records a change. What the server has answered is recorded also when the run
// is told to end in this moment.
func (r *run) commit(ctx context.Context, c ledger.Change, step string) error {
	if err := r.Ledger.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	r.step(step)
	return nil
}

// set puts a value of the account into a change.
func set(c ledger.Change, key string, value any) error {
	text, err := json.Marshal(value)
	c.Metas[key] = string(text)
	return err
}

// interrupted gives the move out of a mailbox that was interrupted; nil if there is none.
func (w *worker) interrupted(ctx context.Context, b *box) (*moving, error) {
	text, err := w.Ledger.Meta(ctx, metaMoving+b.Name)
	if err != nil || text == "" {
		return nil, err
	}
	m := new(moving)
	if err := json.Unmarshal([]byte(text), m); err != nil {
		return nil, fmt.Errorf("the ledger's note of an interrupted move cannot be read: %w", err)
	}
	return m, nil
}

// finishMove brings a move to its end that was interrupted, or refused half way.
// Where it cannot, nothing else is to be done with these messages. boxes are those of
// this run, if they are known yet.
func (w *worker) finishMove(ctx context.Context, b *box, m *moving, boxes map[string]*box) error {
	w.leaveAlone(m)
	if w.DryRun {
		return errLater
	}
	none := ledger.Change{Metas: map[string]string{metaMoving + b.Name: ""}}
	if m.UIDValidity != b.known.UIDValidity {
		return w.commit(ctx, none, "move done") // these numbers are of other messages by now
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	w.selected = nil
	sel, err := w.session.Select(ctx, b.Name)
	switch {
	case err != nil && w.session.Alive() && probe.DeletedSince(ctx, w.session, b.Name), err == nil && sel.UIDValidity != m.UIDValidity:
		return w.commit(ctx, none, "move done")
	case err != nil:
		return err
	}
	left, err := w.session.Search(ctx, mail.UIDSet(m.UIDs))
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
		m.UIDs, m.Copied = uidsOf(rows), m.Verb != "MOVE"
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
	w.tally(func(r *Report) {
		if m.Deleted {
			r.Deleted += len(m.UIDs)
		} else {
			r.Moved += len(m.UIDs)
		}
	})
	return nil
}

// leaveAlone lets nothing else be done with the messages of a move.
func (r *run) leaveAlone(m *moving) {
	r.finished[m.Mailbox] = make(map[imap.UID]bool)
	for _, u := range m.UIDs {
		r.finished[m.Mailbox][u] = true
	}
}

// copied gives the new UIDs of those of the messages that the other mailbox has, the
// same in every respect: what is found is expunged.
func (w *worker) copied(ctx context.Context, m *moving, rows []ledger.Message) (map[imap.UID]imap.UID, error) {
	out := make(map[imap.UID]imap.UID)
	if len(rows) == 0 {
		return out, nil
	}
	w.selected = nil
	sel, err := w.session.Examine(ctx, m.To, nil)
	if err != nil {
		if w.session.Alive() && probe.DeletedSince(ctx, w.session, m.To) {
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
	listed, err := w.session.Identify(ctx, uidsFrom(max(from, 1)))
	if err != nil {
		return nil, err
	}
	var here []plan.Untracked
	for _, row := range rows {
		here = append(here, plan.Untracked{Message: row})
	}
	pairs, err := w.pair(ctx, nil, listed, here, plan.Evidence{Exact: true})
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
