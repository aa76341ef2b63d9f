package push

import (
	"context"
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// foresee takes out of what a dry run would tell the server what a run would not do
// after a look at it. Nothing is changed by that.
func (p *Pusher) foresee(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	if p.Restore || len(b.Local.Flags)+o.Moved()+len(o.Deleted)+len(o.Uploads) == 0 || b.NotThere {
		return nil
	}
	if err := p.conn.Connect(ctx); err != nil {
		return err
	}
	sel, err := p.conn.Examine(ctx, b.Name, nil)
	if err != nil {
		return err
	}
	if _, same, err := p.sameFlagged(ctx, b); err != nil || !same {
		return err
	}
	for to, ms := range o.Moves {
		rows := make([]ledger.Message, len(ms))
		for i, m := range ms {
			rows[i] = m.Row
		}
		if rows, err = p.sameMessages(ctx, b, rows); err != nil {
			return err
		}
		there := mail.UIDSet(ledger.UIDs(rows))
		o.Wait(func(m plan.Move, in string) bool { return in == to && !there.Contains(m.Row.UID) })
	}
	for to, rows := range o.Tagged {
		if o.Tagged[to], err = p.sameMessages(ctx, b, rows); err != nil {
			return err
		}
	}
	var kept []ledger.Message
	if o.Deleted, kept, err = p.changedThere(ctx, b, o.Deleted); err != nil {
		return err
	}
	if err := p.foreseeKept(ctx, b, kept); err != nil {
		return err
	}
	if err := p.trashless(len(o.Deleted)); err != nil {
		b.KeepMarks()
		p.Standing(b.Name, "push", err)
		o.Deleted = nil
	}
	there, err := p.arrived(ctx, b, sel, o.Uploads)
	for _, f := range there {
		o.Uploads = slices.DeleteFunc(o.Uploads, func(s plan.Untracked) bool { return s.Key == f.Key })
	}
	return err
}

// foreseeKept says which of the messages that a run would keep come again, since their files are
// gone; the others lose their marks.
func (p *Pusher) foreseeKept(ctx context.Context, b *Mailbox, kept []ledger.Message) error {
	again := 0
	var come []ledger.Message
	for _, m := range kept {
		_, here, err := b.Dir.Locate(m.Key, "")
		if err != nil {
			return err
		}
		if here {
			b.Local.Marked = slices.DeleteFunc(slices.Clone(b.Local.Marked), func(l ledger.Message) bool { return l.UID == m.UID })
		} else {
			again++
			come = append(come, m)
		}
	}
	p.doing(b, again, "fetch %s again")
	if p.Plan {
		p.Report.Plan(p.comes(ctx, b, come...)...)
	}
	p.Report.Tally(func(r *report.Report) { r.New += again })
	return nil
}

// sameMessages keeps those messages out of what is to be moved or deleted that are
// others on the server than they were: there are servers that give a UID to another
// message (Proton Bridge#220). Message-ID and size tell.
func (p *Pusher) sameMessages(ctx context.Context, b *Mailbox, rows []ledger.Message) ([]ledger.Message, error) {
	if len(rows) == 0 {
		return rows, nil
	}
	listed, err := p.conn.Session().Identify(ctx, mail.UIDSet(ledger.UIDs(rows)))
	if err != nil {
		return nil, err
	}
	told := make(map[imap.UID]mail.Message, len(listed))
	for _, m := range listed {
		told[m.UID] = m
	}
	rows = slices.Clone(rows)
	if len(told) < len(rows) {
		// Gone, or one of those of which the server tells nothing?
		there, err := p.conn.Session().Search(ctx, mail.UIDSet(ledger.UIDs(rows)))
		if err != nil {
			return nil, err
		}
		rows = slices.DeleteFunc(rows, func(r ledger.Message) bool { return !there.Contains(r.UID) })
	}
	same := slices.DeleteFunc(slices.Clone(rows), func(r ledger.Message) bool { return plan.Another(r, told[r.UID]) })
	if n := len(rows) - len(same); n > 0 {
		b.Contradicted = true
		b.Leave(fmt.Errorf("%s not changed, moved or deleted on the server: under that UID it has another one now, as after a restored backup; "+
			"the mailbox is matched anew, and the next sync tells the server", mail.Number(n, "message was", "messages were")))
	}
	return same, nil
}

// arrived finds those of the files that are among what is new in the selected
// mailbox.
func (p *Pusher) arrived(ctx context.Context, b *Mailbox, sel *mail.Selected, here []plan.Untracked) (map[imap.UID]plan.Untracked, error) {
	if sel.UIDValidity != b.Known.UIDValidity || sel.Messages == 0 || sel.UIDNext != 0 && sel.UIDNext == b.Known.UIDNext {
		return nil, nil
	}
	listed, err := p.conn.Session().Identify(ctx, mail.UIDsFrom(max(b.Known.UIDNext, 1)))
	if err != nil {
		return nil, err
	}
	rows, err := p.Ledger.Rows(ctx, b.Name, b.Known.UIDValidity)
	if err != nil {
		return nil, err
	}
	listed = slices.DeleteFunc(listed, func(m mail.Message) bool { return plan.Taken(rows, m.UID) })
	pairs, err := p.Match.Pair(ctx, p.conn.Session(), listed, here, plan.Evidence{Drafts: plan.ForDrafts(b.Listed)})
	if err != nil {
		return nil, err
	}
	return pairs, p.Match.Compare(ctx, p.conn.Session(), b.Dir, listed, pairs, p.Match.Unproven(nil))
}
