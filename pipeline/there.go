package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// firstConnection signs in at the server. What was refused before is forgotten then.
func (r *run) firstConnection(ctx context.Context) (*worker, error) {
	if err := r.recallWithout(ctx); err != nil {
		return nil, err
	}
	w := &worker{run: r, conn: r.first.OnWait(r.sayWait)}
	if err := w.conn.Connect(ctx); err != nil {
		if failed, ok := errors.AsType[*report.ConnectError](err); ok {
			err = failed.Err // there is no other place that it could be of
		}
		return nil, err
	}
	if !r.DryRun {
		if err := ForgetRefusal(ctx, r.Ledger); err != nil {
			w.conn.Close()
			return nil, err
		}
	}
	return w, nil
}

// sayWait tells a person why nothing happens.
func (r *run) sayWait(why error, wait time.Duration) {
	r.rep.Note("", "%v; trying again in %v", why, wait.Round(time.Second))
}

// viewThere lists the server's mailboxes with their status, when what an interrupted run left
// there is ended. Where mailboxes have other names since, that is done by these.
func (w *worker) viewThere(ctx context.Context) (*listing, error) {
	if interrupted, err := w.notes().Interrupted(ctx); err != nil {
		return nil, err
	} else if interrupted && !w.DryRun {
		// What it put into a mailbox is where that is now, and not nowhere.
		there, err := w.listThere(ctx, nil)
		if err != nil {
			return nil, err
		}
		if _, err := w.goOnRenamed(ctx, there); err != nil {
			return nil, err
		}
	}
	there, err := w.listThere(ctx, w.recoverThere)
	if err != nil {
		return nil, err
	}
	if renamed, err := w.goOnRenamed(ctx, there); err != nil || !renamed {
		return there, err
	}
	return w.listThere(ctx, w.recoverThere)
}

// goOnRenamed follows mailboxes that have other names, and ends what is here of that. It tells whether
// there were some.
func (w *worker) goOnRenamed(ctx context.Context, there *listing) (bool, error) {
	renamed, err := w.followRenamed(ctx, there)
	if err != nil || !renamed {
		return false, err
	}
	w.prescan.Discard() // it has them by the names of before
	return true, w.resume(ctx)
}

// listThere lists them by the names that the ledger has, behind what is ended before.
func (w *worker) listThere(ctx context.Context, before func(*listing) []recovery) (*listing, error) {
	if err := w.unanswered.Recall(ctx); err != nil {
		return nil, err
	}
	if err := w.standing.Recall(ctx); err != nil {
		return nil, err
	}
	out := &listing{exchange: stub.IsExchange(w.conn.Session().Greeting)}
	if before != nil {
		if err := recoverAll(ctx, before(out)); err != nil {
			return nil, err
		}
	}
	if err := w.conn.Connect(ctx); err != nil {
		return nil, err
	}
	var err error
	if out.mailboxes, out.at, err = w.list(ctx); err != nil || before == nil {
		return out, err
	}
	return out, recoverAll(ctx, w.recoverListed(out.mailboxes))
}

// leaveAccount ends the work on an account for now.
func (w *worker) leaveAccount(ctx context.Context, err error, at report.Place) error {
	w.conn.Close()
	return w.faults.account(ctx, err, at)
}
