package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// pushPaired tells the server what a first look has left for it: flags that only the files have
// with which this run has paired its messages, and, if that is asked for, those files that are
// nobody's. Both are known when the pairs are recorded.
func (r *run) pushPaired(ctx context.Context) error {
	if r.DryRun || r.PairOnly || r.ReadOnly || r.Restore || len(r.paired) == 0 {
		return nil
	}
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	o := r.Options
	o.Request = Request{UploadHere: r.UploadHere, Attended: r.Attended, Remind: r.Remind}
	for _, k := range known {
		if r.paired[k.Name] && k.Complete {
			o.Only = append(o.Only, k.Name)
		}
	}
	if len(o.Only) == 0 {
		return nil
	}
	before := r.rep.Report()
	next := reportingRun(o, r.rep)
	err = next.sync(ctx)
	next.ask.End()
	next.ask.Clear()
	r.tally(func(rep *report.Report) { rep.Mailboxes, rep.Changed = before.Mailboxes, before.Changed })
	return err
}
