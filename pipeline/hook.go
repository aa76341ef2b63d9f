package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// apart keeps hooks and our own writing of notmuch's database apart, so that a
// hook can call `notmuch tag`.
type apart struct {
	Index
	hooks *hooks.Runner
}

func (a apart) Apply(ctx context.Context, changes []mail.Change) (results []mail.Result, err error) {
	a.hooks.Apart(func() { results, err = a.Index.Apply(ctx, changes) })
	return results, err
}

// retryableStates are those of messages that a run asks for though the server told
// nothing new of them.
func (r Request) retryableStates() []ledger.State {
	if r.Full {
		return []ledger.State{ledger.Stub, ledger.Deferred, ledger.Skipped}
	}
	return []ledger.State{ledger.Stub, ledger.Deferred}
}

// preSync asks whether the account is to be synchronised now.
func (r *run) preSync(ctx context.Context) (bool, error) {
	if r.DryRun {
		return true, nil
	}
	if r.Hooks.At(hooks.PreSync) {
		out, err := r.ask.Judge(ctx, hooks.Event{Point: hooks.PreSync}, time.Time{})
		switch {
		case err != nil:
			return false, err
		case out.Action == hooks.Defer && !out.Forced:
			text := fmt.Sprintf("hook %s puts this account off", out.By)
			if out.Reason != "" {
				text += ": " + out.Reason
			}
			r.rep.Fault(report.Failure{Scope: report.ScopeAccount, Text: text + "; nothing was done"})
			return false, nil
		case out.Action != hooks.Pass:
			return false, nil
		}
	}
	r.hooksBegan = true
	return true, nil
}

// postSync tells the hooks that the account's run is over.
func (r *run) postSync(ctx context.Context) error {
	if !r.hooksBegan || !r.Hooks.At(hooks.PostSync) {
		return nil
	}
	rep := r.rep.Report()
	_, err := r.ask.Judge(ctx, hooks.Event{
		Point: hooks.PostSync, New: rep.New, News: rep.News, Stubs: rep.NewStubs, Healed: rep.Healed, Flagged: rep.Flagged, Pushed: rep.Pushed, Moved: rep.Moved, Deleted: rep.Deleted, Uploaded: rep.Uploaded,
		Removed: rep.Removed, Faults: len(rep.Faults),
	}, time.Time{})
	return err
}

// shelf has what came of messages that hooks put off.
func (o *Options) shelf() pull.Shelf { return pull.NewShelf(o.Ledger.Dir()) }

// sweepShelf removes what is no more put off.
func (r *run) sweepShelf(ctx context.Context) {
	r.shelf().Sweep(func(p pull.Parcel) bool {
		row, ok, err := r.Ledger.Get(ctx, p.Mailbox, p.UIDValidity, p.UID)
		return err != nil || ok && row.State == ledger.Deferred
	})
}
