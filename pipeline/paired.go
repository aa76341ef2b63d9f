package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// pairFirst has an upload do first what a sync does, where there are mailboxes of which none came to
// its end: only when all are looked into it is known what the server has elsewhere.
func (o Options) pairFirst(ctx context.Context) (Options, error) {
	if !o.UploadHere || !o.tellsPaired() {
		return o, nil
	}
	known, err := o.Ledger.Mailboxes(ctx)
	if err != nil {
		return o, err
	}
	first := o
	first.UploadHere, first.Only = false, nil
	first.then = &Request{UploadHere: true, Only: o.Only, YesDelete: o.YesDelete, YesDeleteIn: o.YesDeleteIn, Attended: o.Attended, Remind: o.Remind}
	all := len(known) > 0 && !slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return !k.Complete && first.selectsKnown(k) })
	switch {
	case all:
		return o, nil
	case o.DryRun: // foresees both at once
		o.Only, o.uploadIn = nil, o.Only
		return o, nil
	}
	return first, nil
}

// pushPaired tells the server what a first look has left for it: flags that only the files have
// with which this run has paired its messages, and, if that is asked for, those files that are
// nobody's. Both are known when the pairs are recorded.
func (r *run) pushPaired(ctx context.Context) error {
	if r.DryRun || !r.endsPaired() {
		return nil
	}
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	if r.then != nil {
		return r.uploadPaired(ctx, known)
	}
	o := r.Options
	o.Request = Request{UploadHere: r.UploadHere, Attended: r.Attended, Remind: r.Remind}
	if r.matched { // what went from there may be anywhere, and what came there may be of anywhere
		o.Only, o.YesDelete, o.YesDeleteIn = r.Only, r.YesDelete, r.YesDeleteIn
		return r.lookedAnew(func() error { return r.goOn(o, func(next *run) error { return next.sync(ctx) }) })
	}
	for _, k := range known {
		if k.Complete && (r.paired[k.Name] || k.Name == r.looking.Trash) { // what is deleted is in the Trash then
			o.Only = append(o.Only, k.Name)
		}
	}
	if len(o.Only) == 0 {
		return nil
	}
	before := r.rep.Report()
	err = r.goOn(o, func(next *run) error { return next.sync(ctx) })
	r.rep.Tally(func(rep *report.Report) { rep.Mailboxes, rep.Changed = before.Mailboxes, before.Changed })
	return err
}

// lookedAnew does what counts the mailboxes, and what is held back in them, once more.
func (r *run) lookedAnew(do func() error) error {
	before := r.rep.Report()
	r.rep.Tally(func(rep *report.Report) { rep.Mailboxes, rep.Held, rep.HeldIn = 0, 0, nil })
	err := do()
	r.rep.Tally(func(rep *report.Report) { rep.Changed, rep.Stubs = max(rep.Changed, before.Changed), before.Stubs })
	return err
}

// uploadPaired uploads what is here alone, when what is here is paired with what is in all mailboxes.
// A mailbox that could not be looked into may have it.
func (r *run) uploadPaired(ctx context.Context, known []ledger.Mailbox) error {
	if r.looking == nil {
		return nil // the account was left, which is said
	}
	for _, b := range r.listed {
		if slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Name == b.Name && k.Complete }) {
			continue
		}
		r.rep.Fault(report.Failure{Mailbox: b.Name, Scope: report.ScopeMailbox, Text: "not all of this mailbox could be looked into, and it may have what is here: nothing that was here before is uploaded yet; " +
			"run the upload again, or leave the mailbox out by `mailboxes` in the configuration"})
		return nil
	}
	o := r.Options
	o.Request = *r.then
	return r.lookedAnew(func() error {
		return r.goOn(o, func(next *run) error {
			if err := next.sync(ctx); err != nil {
				return err
			}
			return next.pushPaired(ctx)
		})
	})
}

// goOn does a run with this one's report and connection, whose sign-in is enough for both. What it
// meets of faults this one remembers.
func (r *run) goOn(o Options, do func(next *run) error) error {
	next := reportingRun(o, r.rep)
	next.first, next.standing, next.faults.standing = r.first, r.standing, r.standing
	next.here.Placed = r.here.Placed
	defer next.ask.Clear()
	defer next.ask.End()
	return do(next)
}

// keepDeleted says of mail that was moved here and deleted on the server meanwhile that it stays,
// and has pushPaired upload it: its owner has just put it somewhere. Where not all mailboxes
// were looked into, or mail has come to one since, it may have been moved there, and the next run judges.
func (r *run) keepDeleted(ctx context.Context, all *overview) error {
	deleted := r.looking.Deleted()
	if len(deleted) == 0 || !r.tellsPaired() || !r.knowsAll(all) {
		return nil
	}
	if came, err := r.cameSince(ctx); err != nil || came {
		return err
	}
	r.here.Placed = make(map[string]bool)
	for _, b := range all.boxes {
		keys := deleted[b.Name]
		if len(keys) == 0 {
			continue
		}
		r.rep.Note(b.Name, "%s moved here and deleted on the server meanwhile: kept", mail.Number(len(keys), "message was", "messages were"))
		r.mu.Lock()
		r.paired[b.Name] = true
		r.mu.Unlock()
		for _, key := range keys {
			r.here.Placed[key] = true
		}
		for _, s := range b.local.Untracked {
			if slices.Contains(keys, s.Key) {
				b.left.Untracked = append(b.left.Untracked, s)
			}
		}
	}
	return nil
}

// knowsAll tells whether all that is in the account's mailboxes is known: what was moved anywhere in it
// was found.
func (r *run) knowsAll(o *overview) bool {
	return len(r.Only) == 0 && r.pool != nil && !r.pool.Ended() && !slices.ContainsFunc(o.boxes, func(b *box) bool { return b.line.MarksKept() })
}

// tellsPaired tells whether the server is told of what a first look leaves for it.
func (o *Options) tellsPaired() bool { return !o.PairOnly && !o.ReadOnly && !o.Restore }

// endsPaired tells whether there is something that is left for it, perhaps.
func (r *run) endsPaired() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tellsPaired() && (r.then != nil || r.matched || len(r.paired) > 0)
}

// foreseePaired says what pushPaired would tell the server, which it does by itself. plans are what
// the server is told before.
func (w *worker) foreseePaired(ctx context.Context, all *overview, plans map[string]*plan.Outgoing) error {
	if !w.DryRun || !w.tellsPaired() {
		return nil
	}
	if err := w.foreseeMatched(ctx, all, plans); err != nil {
		return err
	}
	o := push.Orders{Trash: all.trash}
	locals := make(map[string]*plan.Local)
	for _, b := range all.boxes {
		m := b.toPush()
		m.Local = b.left
		if b.matched != nil {
			m.Known.UIDValidity, m.Known.UIDNext = b.uidValidity, b.Status.UIDNext
		}
		if o.Mailboxes = append(o.Mailboxes, m); !b.left.Nothing() {
			locals[b.Name] = &m.Local
		}
	}
	if len(locals) == 0 {
		return nil
	}
	o.Plans = plan.OfFolders(locals, plan.Policy{Deletions: w.Deletions, Yes: w.yes, Held: w.standing.Before(push.Held), Daily: all.daily, Whole: true, Some: !w.matched || len(w.Only) > 0, Tags: &w.Tags})
	_, err := w.newPusher().Push(ctx, pushedOver{w.conn}, o)
	return err
}

// foreseeMatched adds to what is left what changed here of messages that a dry run has found under
// other UIDs, with what was moved from there to elsewhere, and from elsewhere there.
func (w *worker) foreseeMatched(ctx context.Context, all *overview, plans map[string]*plan.Outgoing) error {
	boxes := make(map[string]*box)
	folders := make(map[string]*local.Folder)
	var views []local.View
	for _, b := range all.boxes {
		boxes[b.Name] = b
		if b.matched == nil || !b.known.Complete {
			continue
		}
		place := b.place()
		place.Status = &mail.Status{UIDValidity: b.known.UIDValidity, UIDNext: b.known.UIDNext, HighestModSeq: b.known.HighestModSeq, Messages: b.known.Messages}
		f, err := w.here.Scan(ctx, place, nil)
		if err != nil {
			return err
		}
		folders[b.Name] = &f
		views = append(views, local.View{Mailbox: place, Folder: &f})
	}
	if len(views) == 0 {
		return nil
	}
	if _, err := w.here.ScanTags(ctx, views, all.trash); err != nil {
		return err
	}
	for name, f := range folders {
		boxes[name].left = plan.Renumbered(f.Local, boxes[name].matched, boxes[name].uidValidity)
	}
	for name, p := range plans {
		from := boxes[name]
		for to, moves := range p.Waiting {
			in := boxes[to]
			if from == nil || in == nil || folders[name] == nil == (folders[to] == nil) {
				continue
			}
			for _, m := range moves {
				if w.looking.Strayed(m.Row) {
					continue // it follows its mail, or is new
				}
				if folders[name] == nil {
					from.left.Missing = append(from.left.Missing, m.Row)
				}
				if i := slices.IndexFunc(in.local.Untracked, func(s plan.Untracked) bool { return s.Key == m.Key }); i >= 0 && folders[to] == nil {
					in.left.Untracked = append(in.left.Untracked, in.local.Untracked[i])
				}
			}
		}
	}
	return nil
}

// foreseeHeld takes out of what a dry run would upload what is held back once all is paired.
func (r *run) foreseeHeld(ctx context.Context, all *overview) error {
	if !r.DryRun || !r.UploadHere {
		return nil
	}
	for _, b := range all.boxes {
		held := make(map[plan.Held]int)
		var sent []plan.Untracked
		if len(r.uploadIn) > 0 && !slices.Contains(r.uploadIn, b.Name) {
			b.left.Untracked = nil
		}
		for _, f := range b.left.Untracked {
			why, _, err := r.here.HeldBack(ctx, b.Name, b.dir, &f, r.looking.Coming(b.Name, &f))
			if err != nil {
				return err
			}
			if held[why]++; why == plan.NotHeld {
				sent = append(sent, f)
			}
		}
		b.left.Untracked = sent
		r.here.SayHeld(b.Name, held)
	}
	return nil
}
