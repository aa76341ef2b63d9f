package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// accountFault reports a fault that costs the account, or gives back an error
// that costs the run.
func (r *run) accountFault(ctx context.Context, err error, at report.Place) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, report.ErrUnhealthy) {
		// Two connections may find that at once.
		r.mu.Lock()
		said := r.reportedUnhealthy
		r.reportedUnhealthy = true
		r.mu.Unlock()
		if said {
			return nil
		}
		r.fault(report.Failure{Scope: report.ScopeAccount, Text: err.Error(), Err: err})
		return nil
	}
	if report.ScopeOf(err, at) == report.ScopeRun {
		return err
	}
	text := err.Error()
	if wait, ok := report.Throttled(err); ok {
		until := r.Now().Add(wait)
		text = fmt.Sprintf("%s; left alone until %s", text, moment(until, r.Now()))
		if !r.DryRun {
			way, _ := r.triedWith(ctx)
			if err := errors.Join(r.notes().NotBefore.Set(ctx, journal.Moment{Time: until}), r.notes().LeftBy.Set(ctx, journal.Text(way))); err != nil {
				return err
			}
		}
	} else if h := report.Hint(err); h != "" {
		text += "; " + h
	}
	if f, ok := errors.AsType[*mail.Fault](err); ok && f.Kind == mail.KindAuth {
		next, err := r.signInRefused(ctx, text)
		if err != nil {
			return err
		}
		text += next
	}
	r.fault(report.Failure{Scope: report.ScopeAccount, Text: text, Err: err})
	return nil
}

// mailboxFault reports a mailbox that is left for now and keeps its ledger row
// from moving on.
func (r *run) mailboxFault(b *box, err error) {
	if b.barred && report.Own(err) {
		return // that was said, and is why it failed
	}
	kind, f := faultMailbox, report.Failure{Text: err.Error(), Err: err, Bars: true}
	if op, reason := unavailableOp(err); op != "" {
		r.unanswered.Meet(op, b.Name, reason)
		kind, f.Text = faultUnavailable, (&leftOut{op, reason}).Error()
	} else if h := report.Hint(err); h != "" {
		f.Text += "; " + h
	}
	_, refused := mail.Refused(err)
	r.meet(b.Name, kind, f, refused && !r.Full && !r.asksFor(b.Name))
	r.keepMarks(b)
}

// keepMarks keeps a mailbox's marks where they are.
func (r *run) keepMarks(b *box) {
	b.line.KeepMarks()
}
