package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// The kinds of standing faults that the ledger remembers; those of one kind are one fault
// of a mailbox.
const (
	faultUnavailable = "silent"  // a command that the mailbox lacks the answer to: the ledger has more of it
	faultMailbox     = "mailbox" // any other that ended the work in it
)

// standingFault reports a fault of a mailbox that stays until a person does something, if
// that is news.
func (r *run) standingFault(mailbox, kind string, err error) {
	r.meet(mailbox, kind, report.Failure{Text: err.Error(), Err: err}, true)
}

// meet reports a fault of a mailbox, which is remembered until it is over. If it stays by
// itself, it is no news where it was told not long ago.
func (r *run) meet(mailbox, kind string, f report.Failure, stays bool) {
	f.Scope, f.Mailbox = report.ScopeMailbox, mailbox
	if f.Known = r.standing.Meet(kind, mailbox, f.Text) && stays; f.Known {
		r.tally(func(rep *report.Report) { rep.Faults = append(rep.Faults, f) })
		return
	}
	if r.fault(f) {
		r.standing.Told(kind, mailbox)
	}
}

// noteFaults remembers the faults of mailboxes that this run has met, and forgets those that
// it would have met, were they not over.
func (r *run) noteFaults(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	var c journal.Change
	faults := r.rep.Report().Faults
	r.standing.Note(&c, func(kind, mailbox string) bool {
		if slices.ContainsFunc(faults, func(f report.Failure) bool { return f.Mailbox == "" || f.Mailbox == mailbox && f.Bars }) {
			return false
		}
		return len(r.Only) == 0 || slices.Contains(r.Only, mailbox) && (kind == "push" || kind == push.Refused || kind == faultMailbox)
	})
	r.unanswered.Note(&c)
	if c.Empty() {
		return nil
	}
	return r.commit(ctx, c, "faults remembered")
}
