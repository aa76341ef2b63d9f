package pipeline

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// recallTold finds what interrupted runs have told the server of flags.
func (r *run) recallTold(ctx context.Context) error {
	err := r.told.Recall(ctx, !r.DryRun)
	r.here.Told = r.told.Before()
	return err
}

// intendFlagsThere notes which flags of a mailbox's messages are about to be told.
func (w *worker) intendFlagsThere(ctx context.Context, b *box) error {
	if len(b.local.Flags) == 0 {
		return nil
	}
	flags := make(map[imap.UID][]string, len(b.local.Flags))
	for u, d := range b.local.Flags {
		flags[u] = slices.Concat(d.Add, d.Remove)
	}
	var c journal.Change
	w.told.Intend(&c, b.Name, b.known.UIDValidity, flags)
	return w.commit(ctx, c, "flags about to be told")
}

// toldIsOver forgets what was told of a mailbox that was looked at.
func (r *run) toldIsOver(ctx context.Context, b *box) error {
	if r.DryRun {
		return nil
	}
	return r.told.Over(ctx, b.Name)
}
