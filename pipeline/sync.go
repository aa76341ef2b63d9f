// Package pipeline keeps an account and a mail store the same, both ways. What a run does is
// the sentence in this file; its stages are packages below this one, as far as they are cut
// out, and files beside it.
//
// The stages of what comes run at once, joined by bounded channels. Record is their last and
// the acknowledgement: a crash before it repeats the work, and every stage is idempotent for
// that.
//
// The two ends are reached through Session and Index, so that the package builds and tests
// without a network and without cgo.
package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Sync brings an account's mailboxes and the store here to the same state. The error is one of
// this machine or of the context; what the server did wrong is in the report.
func Sync(ctx context.Context, o Options) (*report.Report, error) {
	o, err := o.withDefaults().pairFirst(ctx)
	r := newRun(o)
	defer r.first.Close()
	if err == nil {
		err = r.sync(ctx)
	}
	if err == nil {
		err = r.pushPaired(ctx)
	}
	if err == nil && !r.DryRun {
		err = r.shower.Show(ctx)
	}
	return r.finish(ctx, err)
}

// sync is what a run does, in order. What comes goes down the line (deliver) while the rest
// goes on: parse -> write -> index -> record.
func (r *run) sync(ctx context.Context) error {
	if err := r.recover(ctx); err != nil {
		return err
	}
	if ok, err := r.mayBegin(ctx); err != nil || !ok {
		return err
	}
	r.prescan = r.here.Prescan(ctx, r.selectsKnown) // while the server is connected to
	defer r.prescan.Discard()
	first, err := r.firstConnection(ctx)
	if err != nil {
		return r.faults.account(ctx, err, report.AtConnect)
	}
	there, err := first.viewThere(ctx)
	if err != nil {
		return first.leaveAccount(ctx, err, report.AtList)
	}
	all, err := r.viewHere(ctx, first.conn.Session(), there)
	if err != nil {
		return first.leaveAccount(ctx, err, report.AtList)
	}
	r.listed = all.boxes
	if err := r.ownNow(ctx, all.boxes); err != nil {
		return err
	}
	err = r.line.Run(ctx, func(ctx context.Context) error {
		if r.PairOnly {
			return r.pull(ctx, first, all, neverComplete(all.boxes))
		}
		if err := first.makeMailboxes(ctx, all); err != nil {
			return first.leaveAccount(ctx, err, report.AtConnect)
		}
		plans, err := r.reconcile(ctx, all)
		if err != nil {
			return first.leaveAccount(ctx, err, report.AtConnect)
		}
		if err := first.push(ctx, all, plans); err != nil {
			return first.leaveAccount(ctx, err, report.AtConnect)
		}
		changed := r.changed(all)
		if err := r.pull(ctx, first, all, changed); err != nil {
			return err
		}
		if err := r.pusher.Seen(ctx, r.looking.NotKept); err != nil {
			return err
		}
		if err := r.foreseeHeld(ctx, all); err != nil {
			return err
		}
		if err := r.keepDeleted(ctx, all); err != nil {
			return err
		}
		if err := first.foreseePaired(ctx, all, plans); err != nil {
			return first.leaveAccount(ctx, err, report.AtConnect)
		}
		r.endHolds(all.boxes)
		return r.removeGone(ctx, changed)
	})
	if err != nil {
		return err
	}
	if err := r.removeUnseen(ctx); err != nil {
		return err
	}
	if err := r.leaveBehind(ctx, all); err != nil {
		return err
	}
	if err := r.tellPlaces(ctx, all); err != nil {
		return err
	}
	if err := r.linksAreCopies(ctx, all); err != nil {
		return err
	}
	if err := r.noteWithout(ctx); err != nil {
		return err
	}
	return r.undoTold(ctx)
}
