package push

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// finishMove brings a move to its end that was interrupted, or refused half way.
// Where it cannot, nothing else is to be done with these messages.
func (p *Pusher) finishMove(ctx context.Context, b *Mailbox, m *journal.Moving) error {
	p.leaveAlone(m)
	if p.DryRun {
		return report.ErrLater
	}
	none := p.moveOver(b.Name)
	became(&none, mail.IsUndone, "the mailbox is another one by now, or gone: it is not known where it went", kindOf(m), m.Mailbox, m.UIDValidity, m.UIDs...)
	if m.UIDValidity != b.Known.UIDValidity {
		return p.commit(ctx, none, "move done") // these numbers are of other messages by now
	}
	if err := p.conn.Connect(ctx); err != nil {
		return err
	}
	sel, err := p.conn.Select(ctx, b.Name)
	switch {
	case err != nil && p.conn.Alive() && probe.DeletedSince(ctx, p.conn.Session(), b.Name), err == nil && sel.UIDValidity != m.UIDValidity:
		return p.commit(ctx, none, "move done")
	case err != nil:
		return err
	}
	var left imap.UIDSet
	leave := 0 // of these the server may still be at moving
	if m.Verb == "MOVE" && p.mayLinger(m.At) {
		leave = len(m.UIDs)
	}
	if err := p.linger(ctx, b.Name, leave, func() (done int, err error) {
		left, err = p.conn.Session().Search(ctx, mail.UIDSet(m.UIDs))
		for _, u := range m.UIDs {
			if !left.Contains(u) {
				done++
			}
		}
		return done, err
	}); err != nil {
		return err
	}
	asked := slices.Clone(m.UIDs)
	if m.Verb == "MOVE" {
		m.UIDs = slices.DeleteFunc(m.UIDs, left.Contains) // what is there still was not moved
	}
	rows, err := p.Ledger.GetMany(ctx, b.Name, m.UIDValidity, m.UIDs)
	if err != nil {
		return err
	}
	if !m.Copied {
		var to map[imap.UID]imap.UID
		come := 0 // of these the server may still be at copying
		if m.Verb != "MOVE" && p.mayLinger(m.At) {
			come = len(rows)
		}
		if err := p.linger(ctx, m.To, come, func() (done int, err error) {
			to, err = p.copied(ctx, m, rows, nil)
			return len(to), err
		}); err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(row ledger.Message) bool { return to[row.UID] == 0 })
		m.UIDs, m.Copied = ledger.UIDs(rows), m.Verb != "MOVE"
		p.leaveAlone(m)
		unmoved := slices.DeleteFunc(asked, func(u imap.UID) bool { return slices.Contains(m.UIDs, u) })
		if err := p.moveAnswered(ctx, b, m, rows, to, unmoved...); err != nil {
			return err
		}
		for from, uid := range to {
			if box := p.boxes[m.To]; box != nil && m.Files[from].Row.Key != "" {
				box.expect(uid, m.Files[from].Row.Key)
			}
		}
	}
	b.Look = true
	if m.Copied {
		if len(m.UIDs) > 0 {
			if _, err := p.openFor(ctx, b); err != nil {
				return err
			}
		}
		expunged, err := p.expunge(ctx, b, slices.Clone(m.UIDs))
		if err := p.refused(ctx, b, err, m.UIDs, always(changeExpunge)); err != nil {
			return err
		}
		// Where the answer to that did not come, they were gone before.
		over := func(u imap.UID) bool { return expunged || !left.Contains(u) }
		if err := p.copiesExpunged(ctx, b, m, rows, over); err != nil {
			return err
		}
	}
	p.Report.Tally(func(r *report.Report) {
		if m.Deleted {
			r.Deleted += len(m.UIDs)
		} else {
			r.Moved += len(m.UIDs)
		}
	})
	return nil
}

// leaveAlone lets nothing else be done with the messages of a move.
func (p *Pusher) leaveAlone(m *journal.Moving) {
	p.finished[m.Mailbox] = make(map[imap.UID]bool)
	for _, u := range m.UIDs {
		p.finished[m.Mailbox][u] = true
	}
}

// copied gives the new UIDs of those of the messages that the other mailbox has, the
// same in every respect, or as the server told of them: what is found is expunged.
func (p *Pusher) copied(ctx context.Context, m *journal.Moving, rows []ledger.Message, told map[imap.UID]imap.UID) (map[imap.UID]imap.UID, error) {
	out := make(map[imap.UID]imap.UID)
	if len(rows) == 0 {
		return out, nil
	}
	sel, err := p.conn.Examine(ctx, m.To, nil)
	if err != nil {
		if p.conn.Alive() && probe.DeletedSince(ctx, p.conn.Session(), m.To) {
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
	listed, err := p.conn.Session().Identify(ctx, mail.UIDsFrom(max(from, 1)))
	if err != nil {
		return nil, err
	}
	var here []plan.Untracked
	for _, row := range rows {
		here = append(here, plan.Untracked{Message: row})
	}
	pairs, err := p.Match.Pair(ctx, p.conn.Session(), listed, here, plan.Evidence{Exact: true})
	if err != nil {
		return nil, err
	}
	for uid, h := range pairs {
		out[h.UID] = uid
	}
	for _, row := range rows {
		i := slices.IndexFunc(listed, func(m mail.Message) bool { return m.UID == told[row.UID] })
		if i >= 0 && out[row.UID] == 0 && !plan.Another(row, listed[i]) {
			out[row.UID] = listed[i].UID
		}
	}
	return out, nil
}
