package local

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Unrecorded finds them, without those that are on their way to a mailbox, or are the other
// file of a message of theirs. A folder that cannot be read has none.
func (r *Reader) Unrecorded(ctx context.Context) (*plan.Unrecorded, error) {
	arriving, err := r.Journal.Arriving.All(ctx)
	if err != nil {
		return nil, err
	}
	twins, err := r.Journal.TwinSaid.All(ctx)
	if err != nil {
		return nil, err
	}
	all := func(context.Context, *Mailbox) (bool, error) { return true, nil }
	return r.unrecorded(ctx, all, func(f plan.Untracked, mailbox string) bool {
		_, comes := arriving[f.Key]
		in, _ := twins[f.Key].Said()
		return !comes && string(in) != mailbox
	})
}

// unrecorded gives the files that no row has of the folders that are to be read, as far as they
// count. A folder that cannot be read has none.
func (r *Reader) unrecorded(ctx context.Context, reads func(context.Context, *Mailbox) (bool, error), counts func(f plan.Untracked, mailbox string) bool) (*plan.Unrecorded, error) {
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	out := new(plan.Unrecorded)
	return out, r.eachFolder(nil, func(folder string) error {
		m := r.of(ledger.Mailbox{Name: folder, Folder: folder})
		if i := slices.IndexFunc(known, func(k ledger.Mailbox) bool { return k.Folder == folder }); i >= 0 {
			m = r.of(known[i])
		}
		var files []plan.Untracked
		is, err := reads(ctx, &m)
		if err == nil && is {
			files, err = r.untrackedOf(ctx, &m)
		}
		if _, unreadable := errors.AsType[*fs.PathError](err); err != nil && !unreadable {
			return err
		}
		for _, f := range files {
			if counts(f, m.Name) {
				out.Add(plan.UnrecordedFile{Untracked: f, Dir: m.Dir})
			}
		}
		return nil
	})
}
