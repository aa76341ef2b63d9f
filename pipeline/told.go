package pipeline

import (
	"context"
)

// recallTold finds what interrupted runs have told the server of flags.
func (r *run) recallTold(ctx context.Context) error {
	err := r.told.Recall(ctx, !r.DryRun)
	r.here.Told = r.told.Before()
	return err
}

// toldIsOver forgets what was told of a mailbox that was looked at.
func (r *run) toldIsOver(ctx context.Context, b *box) error {
	if r.DryRun {
		return nil
	}
	return r.told.Over(ctx, b.Name)
}
