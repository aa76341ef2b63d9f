package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// faults is how a run tells of what goes wrong, and remembers what of that is over when a later
// run does not meet it. Several goroutines use it.
type faults struct {
	Options
	rep        *report.Reporter
	signIn     *signIn
	standing   *journal.StandingFaults
	unanswered *journal.UnansweredCommands

	unhealthy atomic.Bool // it was said that the server is not well
}

// account reports a fault that costs the account, or gives back an error
// that costs the run.
func (f *faults) account(ctx context.Context, err error, at report.Place) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, report.ErrUnhealthy) {
		if f.unhealthy.Swap(true) {
			return nil // two connections may find that at once
		}
		f.rep.Fault(report.Failure{Scope: report.ScopeAccount, Text: err.Error(), Err: err})
		return nil
	}
	if report.ScopeOf(err, at) == report.ScopeRun {
		return err
	}
	text, again := err.Error(), false
	if wait, ok := report.Throttled(err); ok {
		until := f.Now().Add(wait)
		text = fmt.Sprintf("%s; left alone until %s", text, moment(until, f.Now()))
		if !f.DryRun {
			way, _ := f.signIn.triedWith(ctx)
			if err := errors.Join(f.notes().NotBefore.Set(ctx, journal.Moment{Time: until}), f.notes().LeftBy.Set(ctx, journal.Text(way))); err != nil {
				return err
			}
		}
	} else {
		text, again = advised(err)
	}
	if fault, ok := errors.AsType[*mail.Fault](err); ok && fault.Kind == mail.KindAuth {
		next, err := f.signIn.refused(ctx, text)
		if err != nil {
			return err
		}
		text += next
	}
	f.rep.Fault(report.Failure{Scope: report.ScopeAccount, Text: text, Again: again, Err: err})
	return nil
}

// advised is what is said of a fault, with what to do about it, and whether the next sync tries
// again.
func advised(err error) (text string, again bool) {
	text, a := err.Error(), report.Hint(err)
	if a.Do != "" {
		text += "; " + a.Do
	}
	return text, a.Again
}

// mailbox reports a mailbox that is left for now and keeps its ledger row
// from moving on.
func (f *faults) mailbox(b *box, err error) {
	if b.barred && report.Own(err) {
		return // that was said, and is why it failed
	}
	kind, failure := faultMailbox, report.Failure{Text: err.Error(), Err: err, Bars: true}
	if op, reason := unavailableOp(err); op != "" {
		f.unanswered.Meet(op, b.Name, reason)
		kind, failure.Text = faultUnavailable, (&leftOut{op, reason}).Error()
	} else {
		failure.Text, failure.Again = advised(err)
	}
	_, refused := mail.Refused(err)
	f.meet(b.Name, kind, failure, refused && !f.Full && !f.asksFor(b.Name))
	b.line.KeepMarks()
}
