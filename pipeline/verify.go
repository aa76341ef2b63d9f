package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// stillWanted takes those out of what was deleted here that somebody changed on
// the server meanwhile: they are kept, and come again.
func (w *worker) stillWanted(ctx context.Context, b *box, rows []ledger.Message) ([]ledger.Message, error) {
	rows, kept, err := w.changedThere(ctx, b, rows)
	if err != nil || len(kept) == 0 {
		return rows, err
	}
	return rows, w.fetchAgain(ctx, b, kept)
}

// changedThere tells what was deleted here, and is still on the server, from what
// somebody changed there meanwhile, as who marks it unread. That it was read is no such
// change, nor that it was marked for deletion.
func (w *worker) changedThere(ctx context.Context, b *box, rows []ledger.Message) (wanted, kept []ledger.Message, err error) {
	rows, err = w.sameMessages(ctx, b, rows)
	if err != nil || len(rows) == 0 {
		return nil, nil, err
	}
	now, err := w.conn.Session().Flags(ctx, mail.UIDSet(ledger.UIDs(rows)), 0)
	if err != nil {
		return nil, nil, err
	}
	flags := make(map[imap.UID][]string, len(now))
	for _, m := range now {
		if m.Flags != nil {
			flags[m.UID] = m.Flags
		}
	}
	moot := func(f string) bool { return strings.EqualFold(f, `\Seen`) || strings.EqualFold(f, `\Deleted`) }
	for _, m := range rows {
		is, there := flags[m.UID]
		was := w.stored[b.Name][m.UID].Merged(plan.AsTold(m.Flags, is, w.told.Before()[b.Name][m.UID]))
		unread := plan.HasFlag(was, `\Seen`) && !plan.HasFlag(is, `\Seen`)
		switch {
		case !there: // gone from the server, too
		case unread:
			kept = append(kept, m)
		case plan.SameFlags(slices.DeleteFunc(slices.Clone(is), moot), slices.DeleteFunc(was, moot)):
			wanted = append(wanted, m)
		default:
			kept = append(kept, m)
		}
	}
	if len(kept) > 0 {
		w.note(b, "%s deleted here and changed on the server meanwhile: kept", mail.Number(len(kept), "message was", "messages were"))
	}
	return wanted, kept, nil
}

// foresee takes out of what a dry run would tell the server what a run would not do
// after a look at it. Nothing is changed by that.
func (w *worker) foresee(ctx context.Context, b *box, o *plan.Outgoing) error {
	if w.Restore || o.Moved()+len(o.Deleted)+len(o.Uploads) == 0 || !w.listed[b.Name] {
		return nil
	}
	if err := w.conn.Connect(ctx); err != nil {
		return err
	}
	sel, err := w.conn.Examine(ctx, b.Name, nil)
	if err != nil {
		return err
	}
	for to, ms := range o.Moves {
		rows := make([]ledger.Message, len(ms))
		for i, m := range ms {
			rows[i] = m.Row
		}
		if rows, err = w.sameMessages(ctx, b, rows); err != nil {
			return err
		}
		o.Moves[to] = slices.DeleteFunc(ms, func(m plan.Move) bool {
			return !slices.ContainsFunc(rows, func(r ledger.Message) bool { return r.UID == m.Row.UID })
		})
	}
	for to, rows := range o.Tagged {
		if o.Tagged[to], err = w.sameMessages(ctx, b, rows); err != nil {
			return err
		}
	}
	if o.Deleted, _, err = w.changedThere(ctx, b, o.Deleted); err != nil {
		return err
	}
	there, err := w.arrived(ctx, b, sel, o.Uploads)
	for _, f := range there {
		o.Uploads = slices.DeleteFunc(o.Uploads, func(s plan.Untracked) bool { return s.Key == f.Key })
	}
	return err
}

// sameMessages keeps those messages out of what is to be moved or deleted that are
// others on the server than they were: there are servers that give a UID to another
// message (Proton Bridge#220). Message-ID and size tell.
func (w *worker) sameMessages(ctx context.Context, b *box, rows []ledger.Message) ([]ledger.Message, error) {
	if len(rows) == 0 {
		return rows, nil
	}
	listed, err := w.conn.Session().Identify(ctx, mail.UIDSet(ledger.UIDs(rows)))
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
		there, err := w.conn.Session().Search(ctx, mail.UIDSet(ledger.UIDs(rows)))
		if err != nil {
			return nil, err
		}
		rows = slices.DeleteFunc(rows, func(r ledger.Message) bool { return !there.Contains(r.UID) })
	}
	same := slices.DeleteFunc(slices.Clone(rows), func(r ledger.Message) bool { return plan.Another(r, told[r.UID]) })
	if n := len(rows) - len(same); n > 0 {
		b.contradicted = true
		w.mailboxFault(b, fmt.Errorf("%s not changed, moved or deleted on the server: under that UID it has another one now, as after a restored backup; "+
			"the mailbox is matched anew, and the next run tells the server", mail.Number(n, "message was", "messages were")))
	}
	return same, nil
}

// sameFlagged tells whether the messages whose flags the server is to change are still
// those that were agreed on, at the price of a round trip.
func (w *worker) sameFlagged(ctx context.Context, b *box) (bool, error) {
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, slices.Collect(maps.Keys(b.local.Flags)))
	if err != nil {
		return false, err
	}
	_, err = w.sameMessages(ctx, b, rows)
	return !b.contradicted, err
}

// witnesses are the newest messages that are here. If UIDs were dealt a second time,
// as after a restored backup, then theirs, also where the server's counters are ahead
// of the known ones again.
func witnesses(rows []ledger.Row, full bool) (uids []imap.UID) {
	most := 3
	if full {
		most = 100
	}
	for _, r := range slices.Backward(rows) {
		if r.State == ledger.Present && r.Key != "" && len(uids) < most {
			uids = append(uids, r.UID)
		}
	}
	return uids
}

// hear asks the witnesses whether the UIDs of a mailbox in which something changed
// still mean what they meant.
func (w *worker) hear(ctx context.Context, b *box) error {
	if b.contradicted || !b.goesOn() || len(b.witnesses) == 0 || b.now.Messages == 0 {
		return nil
	}
	told := b.identified
	if told == nil {
		if !w.Full && b.now.UIDNext == b.known.UIDNext && b.now.Messages == b.known.Messages {
			return nil
		}
		var err error
		if told, err = w.conn.Session().Identify(ctx, mail.UIDSet(b.witnesses)); err != nil {
			return err
		}
	}
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, b.witnesses)
	if err != nil {
		return err
	}
	for _, m := range told {
		if slices.ContainsFunc(rows, func(r ledger.Message) bool { return r.UID == m.UID && plan.Another(r, m) }) {
			b.contradicted = true
		}
	}
	return nil
}
