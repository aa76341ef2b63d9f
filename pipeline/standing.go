package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// standingFault reports a fault of a mailbox that stays until a person does something, if
// that is news.
func (r *run) standingFault(ctx context.Context, mailbox, kind string, err error) error {
	known, e := r.standing.Meet(ctx, kind, mailbox, err.Error())
	if e != nil {
		return e
	}
	f := report.Failure{Scope: report.ScopeMailbox, Mailbox: mailbox, Text: err.Error(), Err: err, Known: known}
	if known {
		r.tally(func(rep *report.Report) { rep.Faults = append(rep.Faults, f) })
		return nil
	}
	r.fault(f)
	if r.DryRun {
		return nil
	}
	var c journal.Change
	r.standing.Told(&c, kind, mailbox, err.Error())
	return r.notes().Record(ctx, c)
}

// forgetStanding forgets the faults that a whole run did not meet again.
func (r *run) forgetStanding(ctx context.Context) error {
	if r.DryRun || len(r.Only) > 0 || len(r.rep.Report().Faults) > r.standing.Met() {
		return nil
	}
	return r.standing.ForgetOthers(ctx)
}
