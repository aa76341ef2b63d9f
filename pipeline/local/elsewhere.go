package local

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Elsewhere gives the paths at which the mail of messages is now whose files are gone from their
// places, "" where it is nowhere: as the file of another message that is the same mail, or as one
// that no row has. Folders that are as they were when they were scanned last have none of these.
func (r *Reader) Elsewhere(ctx context.Context, gone []ledger.Message) ([]string, error) {
	out := make([]string, len(gone))
	var files *plan.Unrecorded
	for i, row := range gone {
		others, err := r.Ledger.Like(ctx, row)
		if err != nil {
			return nil, err
		}
		for _, m := range others {
			if m.State != ledger.Present || m.Key == "" || m.Mailbox == row.Mailbox && m.Key == row.Key {
				continue
			}
			path, here, err := r.FileOf(ctx, m)
			if err != nil {
				return nil, err
			}
			if here {
				out[i] = path
			}
		}
		if out[i] != "" {
			continue
		}
		if files == nil {
			if files, err = r.unrecorded(ctx, r.changedSinceScan, func(plan.Untracked, string) bool { return true }); err != nil {
				return nil, err
			}
		}
		if f, ok := files.Take(row); ok {
			out[i] = f.Dir.Path(f.Name)
		}
	}
	return out, nil
}

// changedSinceScan tells whether a folder is another than it was when it was scanned last.
func (r *Reader) changedSinceScan(ctx context.Context, m *Mailbox) (bool, error) {
	last, _, err := r.Journal.Scanned.Get(ctx, m.Name)
	if err != nil {
		return false, err
	}
	now, err := m.Dir.Changed()
	return err == nil && last != r.scanOf(m, now), err
}
