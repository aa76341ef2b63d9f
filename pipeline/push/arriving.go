package push

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

// Begun tells whether an interrupted run has left something for EndInterrupted.
func (p *Pusher) Begun(ctx context.Context) (bool, error) {
	moves, err := p.Journal.Moving.All(ctx)
	if err != nil {
		return false, err
	}
	arrivals, err := p.Journal.Arriving.All(ctx)
	return len(moves)+len(arrivals) > 0, err
}

// EndInterrupted ends what an interrupted run has begun to move, and finds the mail
// that it has put into mailboxes, before anything here is compared with the rows: the
// user may have moved the files since. Where that cannot be found out today, nothing
// is to be done in a mailbox: unsettled has these, with what that run may have put there.
// boxes are all that the ledger knows.
func (p *Pusher) EndInterrupted(ctx context.Context, c Connection, boxes map[string]*Mailbox) (unsettled map[string][]ledger.Message, err error) {
	p.conn, p.boxes = c, boxes
	unsettled = make(map[string][]ledger.Message)
	moves, err := p.Journal.Moving.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		b := boxes[name]
		if b == nil && !p.DryRun { // of a mailbox that was forgotten by an earlier version
			if err := p.commit(ctx, p.moveOver(name), "move done"); err != nil {
				return nil, err
			}
		}
		if b == nil || b.Aside || p.ReadOnly || p.Restore {
			continue
		}
		m := moves[name]
		err := p.finishMove(ctx, b, &m)
		if err == nil {
			continue
		}
		if m.Verb == "MOVE" {
			unsettled[b.Name] = nil
		}
		if !m.Copied {
			unsettled[m.To] = nil
		}
		if err := p.Report.Unended(ctx, b.Name, err, "a move out of it is not done", b.Leave); err != nil {
			return nil, err
		}
	}
	return unsettled, p.settleArrivals(ctx, unsettled)
}

// settleArrivals gives mail its row that an earlier run has put into mailboxes, and adds
// those to the unsettled ones in which it cannot look for it.
func (p *Pusher) settleArrivals(ctx context.Context, unsettled map[string][]ledger.Message) error {
	arrivals, err := p.Journal.Arriving.All(ctx)
	if err != nil {
		return err
	}
	byBox := make(map[*Mailbox][]journal.Arrival)
	var done journal.Change
	for key, a := range arrivals {
		switch b := p.boxes[a.Row.Mailbox]; {
		case b == nil || b.Known.UIDValidity != a.Row.UIDValidity:
			p.Journal.Arriving.Forget(&done, key)
			sent(&done, mail.IsUndone, otherBox, a.Row.Mailbox, key)
		case !b.Aside:
			byBox[b] = append(byBox[b], a)
		}
	}
	if !done.Empty() && !p.DryRun {
		if err := p.commit(ctx, done, "arrivals forgotten"); err != nil {
			return err
		}
	}
	for b, as := range byBox {
		err := p.settleIn(ctx, b, as)
		if err == nil {
			continue
		}
		for _, a := range as {
			unsettled[b.Name] = append(unsettled[b.Name], a.Row)
		}
		if err := p.Report.Unended(ctx, b.Name, err, "what was put into it cannot be looked for", b.Leave); err != nil {
			return err
		}
	}
	return nil
}

// otherBox says why it is not known what became of mail that was put into a mailbox.
const otherBox = "the mailbox is another one by now, or gone: it is not known whether it was stored"

// settleIn does that for one mailbox. A message of which the server told the UID, and one
// that is in another mailbox by now, gets its row all the same: where others have moved it, the
// look finds it, and its file goes there. One that is nowhere, and of which nothing is known
// but that the server said OK, may never have been stored: its file is a new one.
func (p *Pusher) settleIn(ctx context.Context, b *Mailbox, as []journal.Arrival) error {
	if p.DryRun {
		return report.ErrLater
	}
	rows, err := p.Ledger.Rows(ctx, b.Name, b.Known.UIDValidity)
	if err != nil {
		return err
	}
	var c journal.Change
	var here []plan.Untracked
	byKey := make(map[string]journal.Arrival)
	from := as[0].Next
	for _, a := range as {
		p.Journal.Arriving.Forget(&c, a.Row.Key)
		if a.Row.UID < a.Next {
			a.Row.UID = 0 // that cannot be
		}
		if plan.Taken(rows, a.Row.UID) || slices.ContainsFunc(rows, func(r ledger.Row) bool { return r.Key == a.Row.Key }) {
			sent(&c, mail.IsDone, "", b.Name, a.Row.Key)
			continue // the run that was interrupted came as far as that
		}
		here, byKey[a.Row.Key] = append(here, plan.Untracked{Message: a.Row}), a
		from = min(from, a.Next)
	}
	if len(here) == 0 {
		return p.commit(ctx, c, "arrivals forgotten")
	}
	if err := p.conn.Connect(ctx); err != nil {
		return err
	}
	unheard := func(a journal.Arrival) bool { return a.Row.UID == 0 && a.From.UID == 0 }
	want, may := 0, false // of these the server may still be at storing
	for _, s := range here {
		if a := byKey[s.Key]; unheard(a) {
			want, may = want+1, may || p.mayLinger(a.At)
		}
	}
	if !may {
		want = 0
	}
	e := plan.Evidence{Told: make(map[imap.UID]string)}
	for _, s := range here {
		if s.UID != 0 {
			e.Told[s.UID] = s.Key
		}
	}
	var at arrivals
	err = p.linger(ctx, b.Name, want, func() (done int, err error) {
		at, err = p.lookForArrivals(ctx, b, rows, max(from, 1), here, e)
		for _, s := range at.pairs {
			if unheard(byKey[s.Key]) {
				done++
			}
		}
		if at.over {
			done = want
		}
		return done, err
	})
	if err != nil {
		return err
	}
	if at.over {
		for _, s := range here {
			sent(&c, mail.IsUndone, otherBox, b.Name, s.Key)
		}
		return p.commit(ctx, c, "arrivals forgotten")
	}
	listed, gone := at.listed, at.gone
	found := make(map[string]ledger.Message)
	becomes := func(m mail.Message, key string) {
		row := byKey[key].Row
		row.State, row.UID, row.Size, row.Date = ledger.Present, m.UID, m.Size, m.InternalDate.UTC()
		found[key] = row
	}
	for uid, s := range at.pairs {
		becomes(listed[slices.IndexFunc(listed, func(m mail.Message) bool { return m.UID == uid })], s.Key)
	}
	here = slices.DeleteFunc(here, func(s plan.Untracked) bool { _, ok := found[s.Key]; return ok })
	moved, left := make(map[string]mail.Message), uint32(0)
	if gone.Any() {
		unplaced := slices.DeleteFunc(slices.Clone(here), func(s plan.Untracked) bool { return s.UID != 0 })
		if moved, err = p.cameBy(ctx, unplaced, byKey); err != nil {
			return err
		}
		unplaced = slices.DeleteFunc(unplaced, func(s plan.Untracked) bool { return moved[s.Key].UID != 0 })
		elsewhere, err := p.whereabouts(ctx, b, unplaced)
		if err != nil {
			return err
		}
		maps.Copy(moved, elsewhere)
	}
	for _, s := range here {
		row, m := byKey[s.Key].Row, moved[s.Key]
		if s.UID == 0 && m.UID == 0 {
			continue
		}
		if row.UID, row.Reason = gone.Take(s.UID); row.UID == 0 {
			continue
		}
		if row.State = ledger.Present; m.UID != 0 {
			row.Size, row.Date = m.Size, m.InternalDate.UTC()
		}
		found[s.Key] = row
		left++
	}
	for key := range byKey {
		if _, is := found[key]; is {
			sent(&c, mail.IsDone, "", b.Name, key)
		} else {
			sent(&c, mail.IsUndone, "that was interrupted, and the server does not have it", b.Name, key)
		}
	}
	if left > 0 && b.Known.Complete {
		// They are of what was agreed on now, and not there: the list of mailboxes says
		// that the mailbox is to be looked into, whatever it said before.
		b.Known.Messages += left
		if err := p.commit(ctx, journal.Change{Mailbox: &b.Known}, "mailbox recorded"); err != nil {
			return err
		}
	}
	var items []*deliver.Item
	for _, key := range slices.Sorted(maps.Keys(found)) {
		row, a := found[key], byKey[key]
		name, ok, err := b.Dir.Locate(key, "")
		if err != nil {
			return err
		}
		if !ok { // it was moved on, or deleted, since; notmuch may know the name
			c.Save = append(c.Save, row)
			continue
		}
		row.Name = name
		it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpAdd, Row: row, Known: true, Beside: deliver.BesideRecorded}
		if a.From.UID != 0 {
			it.Beside = deliver.BesideNone
		}
		flags := p.Tags.AsNamed(row.Flags, name)
		it.Add, it.Remove = p.arriving(b, flags)
		if a.Here {
			it.IfKnown = deliver.TagsOfFlags(p.Tags, flags, nil)
			p.Journal.Sent(&c, key)
		}
		items = append(items, it)
		if at := p.boxes[a.From.Mailbox]; at != nil {
			items = append(items, at.Forgetting(a.From))
		}
	}
	for part := range slices.Chunk(items, deliver.BatchSize) {
		if err := p.Line.Record(ctx, part); err != nil {
			return err
		}
	}
	return p.commit(ctx, c, "arrivals found")
}

// arrivals is what a look into a mailbox tells of files that were given to the server.
type arrivals struct {
	over   bool                        // it is another mailbox, or none
	listed []mail.Message              // what came since, and has no row
	gone   *plan.Passed                // what came since, and is there no more
	pairs  map[imap.UID]plan.Untracked // which of the files are which of listed
}

// lookForArrivals looks for files that the server may have taken as messages from that UID on.
func (p *Pusher) lookForArrivals(ctx context.Context, b *Mailbox, rows []ledger.Row, from imap.UID, files []plan.Untracked, e plan.Evidence) (at arrivals, err error) {
	sel, err := p.conn.Examine(ctx, b.Name, nil)
	switch {
	case err != nil && p.conn.Alive() && probe.DeletedSince(ctx, p.conn.Session(), b.Name), err == nil && sel.UIDValidity != b.Known.UIDValidity:
		return arrivals{over: true}, nil
	case err != nil:
		return at, err
	}
	if sel.Messages > 0 {
		if at.listed, err = p.conn.Session().Identify(ctx, mail.UIDsFrom(from)); err != nil {
			return at, err
		}
	}
	at.gone = plan.PassedOf(rows, at.listed, from, sel.UIDNext, files)
	at.listed = slices.DeleteFunc(at.listed, func(m mail.Message) bool { return plan.Taken(rows, m.UID) })
	if at.pairs, err = p.Match.Pair(ctx, p.conn.Session(), at.listed, files, e); err != nil {
		return at, err
	}
	return at, p.Match.Compare(ctx, p.conn.Session(), b.Dir, at.listed, at.pairs, p.Match.Unproven(e.Told))
}

// cameBy finds files of messages that were moved, and that are recorded in another mailbox
// already: the run that was interrupted has looked into that one.
func (p *Pusher) cameBy(ctx context.Context, files []plan.Untracked, as map[string]journal.Arrival) (map[string]mail.Message, error) {
	found := make(map[string]mail.Message)
	for _, f := range files {
		from := as[f.Key].From
		if from.UID == 0 || f.ID == "" {
			continue
		}
		copies, err := p.Ledger.Like(ctx, f.Message)
		if err != nil {
			return nil, err
		}
		for _, c := range copies {
			left := c.Mailbox == from.Mailbox && c.UID <= from.UID
			if !left && c.Mailbox != f.Mailbox && c.State == ledger.Present && c.Key != "" && plan.Weigh(plan.Agreed(&c), plan.Agreed(&from)).Exact() {
				found[f.Key] = mail.Message{UID: c.UID, Size: c.Size, InternalDate: c.Date}
			}
		}
	}
	return found, nil
}

// whereabouts looks for files that are no more where the server may have put them, in
// the mailboxes into which something has come since these were agreed upon.
func (p *Pusher) whereabouts(ctx context.Context, b *Mailbox, files []plan.Untracked) (map[string]mail.Message, error) {
	found := make(map[string]mail.Message)
	if len(files) == 0 {
		return found, nil
	}
	list, err := p.conn.Session().List(ctx, mail.Listing{Skip: func(m mail.Mailbox) bool { return p.LeftOut(m.Name) }})
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if m.Status == nil || m.Status.Messages == 0 || m.Name == b.Name {
			continue
		}
		var rows []ledger.Row
		from := imap.UID(1)
		if k := p.boxes[m.Name]; k != nil && plan.Current(k.Known, *m.Status) {
			if from = max(k.Known.UIDNext, 1); from == m.Status.UIDNext {
				continue
			}
			if rows, err = p.Ledger.Rows(ctx, m.Name, m.Status.UIDValidity); err != nil {
				return nil, err
			}
		} else if m.Status.UIDNext > 2*storeAtOnce {
			from = m.Status.UIDNext - 2*storeAtOnce // what came last is among its newest
		}
		if _, err := p.conn.Examine(ctx, m.Name, nil); err != nil {
			if ctx.Err() == nil && p.conn.Alive() {
				continue // it is not to be had
			}
			return nil, err
		}
		listed, err := p.conn.Session().Identify(ctx, mail.UIDsFrom(from))
		if err != nil {
			return nil, err
		}
		listed = slices.DeleteFunc(listed, func(m mail.Message) bool { return plan.Taken(rows, m.UID) })
		pairs, err := p.Match.Pair(ctx, p.conn.Session(), listed, files, plan.Evidence{Doubtful: true})
		if err != nil {
			return nil, err
		}
		for _, l := range listed {
			if s, ok := pairs[l.UID]; ok {
				found[s.Key] = l
				files = slices.DeleteFunc(files, func(f plan.Untracked) bool { return f.Key == s.Key })
			}
		}
		if len(files) == 0 {
			break
		}
	}
	return found, nil
}
