package pipeline

import (
	"context"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/look"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
)

// lookedOver lets a look work over a connection.
type lookedOver struct{ *conn.Conn[Session] }

// Session gives what a look needs of the session.
func (c lookedOver) Session() look.Session {
	s := c.Conn.Session()
	return look.Session{Describer: s, HeaderReader: s, Counter: s}
}

// StillThere tells which messages a mailbox still has: none if the server refuses to open it, and
// does not list it.
func (c lookedOver) StillThere(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) (imap.UIDSet, error) {
	there, err := conn.StillThere(ctx, c.Conn, mailbox, uidValidity, uids)
	if err != nil && c.Alive() && probe.DeletedSince(ctx, c.Conn.Session(), mailbox) {
		return nil, nil
	}
	return there, err
}

// newLooking is what looking needs of a run, when its mailboxes are known. stored are the
// flags that the server was told.
func (r *run) newLooking(o *overview, did push.Result) *look.Looking {
	stays := maps.Clone(o.stays)
	maps.DeleteFunc(stays, func(name string, _ bool) bool { return did.Left[name] })
	missing, validity := make(map[string]bool), make(map[string]uint64)
	for _, b := range slices.Concat(o.boxes, o.unselected, o.detached) {
		for _, m := range slices.Concat(b.local.Missing, b.local.MissingUnconfirmed, b.local.Left) {
			missing[journal.About(m)] = true
		}
		validity[b.Name] = b.known.UIDValidity
	}
	return look.New(look.Options{
		Account: r.Name, Line: r.line, Ledger: r.Ledger, Here: r.here, Match: r.match, Report: r.rep, Keys: &r.keys, Now: r.Now,
		Journal: r.notes(), Told: r.told, Ruled: r.ruled, Links: r.links, Old: r.old, MovedHere: r.arrivals.Moved,
		Tags: &r.Tags, Deletions: r.Deletions, Believed: r.yes, Held: r.standing.Before(look.Held), Standing: r.faults.stays, CameSince: r.cameSince,
		Full: r.Full, DryRun: r.DryRun, Plan: r.DryRun && r.Plan, ReadOnly: r.ReadOnly, PairOnly: r.PairOnly, UploadHere: r.UploadHere, UploadNext: r.then != nil, Some: len(r.Only) > 0,
		Exchange: o.exchange, SizeAll: r.Carrier != nil || r.GiveWay != nil,
		Tagged: func(ctx context.Context, dir string) ([]mail.Tagged, error) {
			_, tagged, _, err := r.Index.Changes(ctx, mail.Revision{}, dir)
			return tagged, err
		},
		Overview: look.Overview{
			Trash: o.trash, Daily: o.daily, Listed: o.listed, MayHaveMoved: o.mayHaveMoved || len(did.Left) > 0, Stays: stays, UIDValidity: validity, Stored: did.Stored,
			WasMissing: func(row ledger.Message) bool { return missing[journal.About(row)] },
		},
	})
}

// toLook is the mailbox as it is looked into.
func (b *box) toLook() *look.Mailbox {
	return &look.Mailbox{
		Mailbox: b.line, Listed: b.Mailbox, Known: b.known, Local: b.local.Local,
		Due: b.due, Stubs: b.stubs, Add: b.add, Remove: b.remove, Pushed: b.pushed,
	}
}

// look finds out what changed in a mailbox, and puts the work out that is left of it.
func (w *worker) look(ctx context.Context, b *box) error {
	m := b.toLook()
	f, err := w.looking.Over(lookedOver{w.conn}).Look(ctx, m)
	// What it has done counts also when another connection must look again.
	b.known, b.local.Local, b.pushed = m.Known, m.Local, m.Pushed
	b.looked = looked{f.UIDValidity, f.Marks, f.Left, f.Matched, f.Unmatched}
	if f.Paired || f.Matched != nil {
		w.mu.Lock()
		w.paired[b.Name] = w.paired[b.Name] || f.Paired
		w.matched = w.matched || f.Matched != nil
		w.mu.Unlock()
	}
	if err != nil || w.DryRun || w.PairOnly {
		return err
	}
	due, err := w.fetcher.Due(ctx, b.toFetch(), b.due, f.Gone)
	if err != nil {
		return err
	}
	small, large, huge := plan.BySize(f.Fetch, b.line.Sizes)
	rank := pull.Usual
	if mail.InboxName(b.Name) == "INBOX" {
		rank = pull.Awaited
	}
	w.give(b, rank, plan.Batches(small))
	w.give(b, pull.Large, large)
	for _, uid := range huge {
		w.give(b, pull.RankOfHuge(b.line.Sizes[uid]), [][]imap.UID{{uid}})
	}
	// Stubs come last: a message that hangs must not keep new mail waiting.
	w.give(b, pull.Last, slices.Collect(slices.Chunk(due, 200)))
	return nil
}

// cameSince tells whether mail has come to a mailbox since that was looked into, or was listed and
// not looked into: what is gone elsewhere, or was moved here, may be that, and the next run knows. Where
// that cannot be found out, none has. It is asked once, when all was looked into.
func (r *run) cameSince(ctx context.Context) (bool, error) {
	if r.since == nil {
		came, err := r.askCameSince(ctx)
		if err != nil {
			return false, err
		}
		r.since = &came
	}
	return *r.since, nil
}

func (r *run) askCameSince(ctx context.Context) (bool, error) {
	takesPart := func(m mail.Mailbox) bool { return r.selects(m) && r.unanswered.LeavesOut(m.Name) == "" }
	err := r.first.Connect(ctx)
	var list []mail.Mailbox
	if err == nil {
		list, err = r.first.Session().List(ctx, mail.Listing{Singly: r.unanswered.Waits("LIST", ""), Skip: func(m mail.Mailbox) bool { return !takesPart(m) }})
	}
	if err != nil {
		return false, ctx.Err()
	}
	return slices.ContainsFunc(list, func(m mail.Mailbox) bool {
		if m.Status == nil || !takesPart(m) {
			return false
		}
		i := slices.IndexFunc(r.listed, func(b *box) bool { return b.Name == m.Name })
		if i < 0 {
			return m.Status.Messages > 0
		}
		next := r.listed[i].Status.UIDNext
		if marks := r.listed[i].marks; marks != nil {
			next = max(next, marks.UIDNext)
		}
		return m.Status.UIDNext > next
	}), nil
}

// removeGone lets the deletions onto the line, when all that came is known.
func (r *run) removeGone(ctx context.Context, boxes []*box) error {
	all := make([]*deliver.Mailbox, len(boxes))
	for i, b := range boxes {
		all[i] = b.line
	}
	goes, err := r.looking.Judge(ctx, all, r.pool.Ended())
	if err != nil {
		return err
	}
	if !r.DryRun {
		going := slices.DeleteFunc(slices.Clone(r.line.Held()), func(it *deliver.Item) bool { return !goes(it) })
		if err := r.twins.remove(ctx, going...); err != nil {
			return err
		}
	}
	return r.line.Finish(ctx, goes)
}

// removeUnseen removes the files of mail that others moved on before it was seen where we had
// put it, when it is recorded where it is.
func (r *run) removeUnseen(ctx context.Context) error {
	if r.DryRun || r.looking == nil {
		return nil
	}
	moved, err := r.looking.JudgeUnseen(ctx)
	if err != nil || len(moved) == 0 {
		return err
	}
	gone, err := r.removeFiles(ctx, moved)
	if err != nil {
		return err
	}
	for _, it := range gone { // they were held, too
		if err := it.Box.End(ctx); err != nil {
			return err
		}
	}
	return nil
}

// removeFiles removes files of messages, and records that. It gives those that are gone then: another
// one is in a folder that does not let it go now.
func (r *run) removeFiles(ctx context.Context, items []*deliver.Item) (gone []*deliver.Item, err error) {
	if err := r.twins.remove(ctx, items...); err != nil {
		return nil, err
	}
	if err := r.line.Removing(ctx, items...); err != nil {
		return nil, err
	}
	for _, it := range items {
		name, ok, err := it.Box.Dir.Locate(it.Row.Key, it.Row.Name)
		if err == nil && ok {
			if err = it.Box.Dir.Remove(name); err == nil {
				it.Row.Name = name
				r.rep.Step("file removed")
			}
		}
		switch {
		case err == nil:
			gone = append(gone, it)
		case !it.Box.Bears(err):
			return nil, err
		default:
			if err := r.line.Stays(ctx, it, err); err != nil {
				return nil, err
			}
		}
	}
	for part := range slices.Chunk(gone, deliver.BatchSize) {
		if err := r.line.Record(ctx, part); err != nil {
			return nil, err
		}
	}
	return gone, nil
}
