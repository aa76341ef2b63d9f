package local

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Unrecorded are the files of all folders that no row has. Among them is the file of a
// message that its owner moved on before its row was recorded.
type Unrecorded struct{ files []UnrecordedFile }

// UnrecordedFile is one of them, and the folder that it is in.
type UnrecordedFile struct {
	plan.Untracked
	Dir maildir.Dir
}

// Unrecorded finds them, without those that are on their way to a mailbox. A folder that
// cannot be read has none.
func (r *Reader) Unrecorded(ctx context.Context) (*Unrecorded, error) {
	arriving, err := r.Journal.Arriving.All(ctx)
	if err != nil {
		return nil, err
	}
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	out := new(Unrecorded)
	return out, r.eachFolder(nil, func(folder string) error {
		m := r.of(ledger.Mailbox{Name: folder, Folder: folder})
		if i := slices.IndexFunc(known, func(k ledger.Mailbox) bool { return k.Folder == folder }); i >= 0 {
			m = r.of(known[i])
		}
		files, err := r.untrackedOf(ctx, &m)
		if _, unreadable := errors.AsType[*fs.PathError](err); err != nil && !unreadable {
			return err
		}
		for _, f := range files {
			if _, comes := arriving[f.Key]; !comes {
				out.files = append(out.files, UnrecordedFile{f, m.Dir})
			}
		}
		return nil
	})
}

// Take gives the file that was a row's, by its key or else by its content, and to no other
// row.
func (u *Unrecorded) Take(row ledger.Message) (f UnrecordedFile, ok bool) {
	if row.Key == "" {
		return f, false
	}
	i := slices.IndexFunc(u.files, func(f UnrecordedFile) bool { return f.Key == row.Key && f.SameContent(&row) })
	if i < 0 {
		i = slices.IndexFunc(u.files, func(f UnrecordedFile) bool { return !row.Digest.IsZero() && f.Digest == row.Digest })
	}
	if i < 0 {
		return f, false
	}
	f = u.files[i]
	u.files = slices.Delete(u.files, i, i+1)
	return f, true
}
