package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

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
	o := r.Options
	o.Request = Request{UploadHere: r.UploadHere, Attended: r.Attended, Remind: r.Remind}
	for _, k := range known {
		if k.Complete && (r.paired[k.Name] || k.Name == r.looking.Trash) { // what is deleted is in the Trash then
			o.Only = append(o.Only, k.Name)
		}
	}
	if len(o.Only) == 0 {
		return nil
	}
	before := r.rep.Report()
	next := reportingRun(o, r.rep)
	next.first = r.first // whose sign-in is enough for both
	err = next.sync(ctx)
	next.ask.End()
	next.ask.Clear()
	r.rep.Tally(func(rep *report.Report) { rep.Mailboxes, rep.Changed = before.Mailboxes, before.Changed })
	return err
}

// keepDeleted says of mail that was moved here and deleted on the server meanwhile that it stays,
// and has pushPaired upload it: its owner has just put it somewhere. Where not all mailboxes
// were looked into, it may have been moved there, and the next run judges.
func (r *run) keepDeleted(all *overview, looked []*box) {
	if !r.tellsPaired() || len(r.Only) > 0 || r.pool.Ended() || slices.ContainsFunc(looked, func(b *box) bool { return b.line.MarksKept() }) {
		return
	}
	deleted := r.looking.Deleted()
	for _, b := range all.boxes {
		keys := deleted[b.Name]
		if len(keys) == 0 {
			continue
		}
		r.rep.Note(b.Name, "%s moved here and deleted on the server meanwhile: kept", mail.Number(len(keys), "message was", "messages were"))
		r.mu.Lock()
		r.paired[b.Name] = true
		r.mu.Unlock()
		for _, s := range b.local.Untracked {
			if slices.Contains(keys, s.Key) {
				b.left.Untracked = append(b.left.Untracked, s)
			}
		}
	}
}

// tellsPaired tells whether the server is told of what a first look leaves for it.
func (o *Options) tellsPaired() bool { return !o.PairOnly && !o.ReadOnly && !o.Restore }

// endsPaired tells whether there is something that is left for it, perhaps.
func (r *run) endsPaired() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tellsPaired() && len(r.paired) > 0
}

// foreseePaired says what pushPaired would tell the server, which it does by itself.
func (w *worker) foreseePaired(ctx context.Context, all *overview) error {
	if !w.DryRun || !w.tellsPaired() {
		return nil
	}
	o := push.Orders{Trash: all.trash}
	locals := make(map[string]*plan.Local)
	for _, b := range all.boxes {
		m := b.toPush()
		m.Local = b.left
		if o.Mailboxes = append(o.Mailboxes, m); !b.left.Nothing() {
			locals[b.Name] = &m.Local
		}
	}
	if len(locals) == 0 {
		return nil
	}
	o.Plans = plan.OfFolders(locals, plan.Policy{Deletions: w.Deletions, Yes: w.yes, Daily: all.daily, Whole: true, Some: true})
	_, err := w.newPusher().Push(ctx, pushedOver{w.conn}, o)
	return err
}
