package pipeline

import (
	"context"
	"errors"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// finish notes how a run went, tells the hooks, and gives the report. err is what ended it;
// nil if it came to its end.
func (r *run) finish(ctx context.Context, err error) (*report.Report, error) {
	if err == nil {
		err = errors.Join(r.noteFaults(ctx), r.noteRun(ctx, nil))
	} else if ctx.Err() == nil {
		_ = r.noteRun(ctx, report.OfMailbox("", err)) // what is broken may be the ledger itself
	}
	if e := r.Ledger.EndRun(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	if err == nil {
		err = r.postSync(ctx)
	}
	r.ask.End()
	if !r.DryRun {
		r.ask.Clear()
		r.sweepShelf(ctx)
		r.pruneAttic(err)
	}
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
		err = cause
	} else if err != nil {
		err = report.OfMailbox("", err)
	}
	r.rep.Tally(func(rep *report.Report) { rep.GaveWay = r.gaveWay.Load() })
	rep := r.rep.Report()
	if err == nil {
		r.rep.Emit(report.Event{Type: report.EventDone, Report: &rep})
	}
	return &rep, err
}

// noteFaults remembers the faults of mailboxes that this run has met.
func (r *run) noteFaults(ctx context.Context) error {
	var c journal.Change
	if r.DryRun {
		return nil
	}
	if r.faults.note(&c); c.Empty() {
		return nil
	}
	return r.commit(ctx, c, "faults remembered")
}
