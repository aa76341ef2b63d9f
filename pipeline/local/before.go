package local

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// NoteBefore remembers what folders are here before the first sync. What lies in them
// nobody has asked us to upload, and it may have been deleted on the server since. Where
// that is asked for now, it is forgotten, of the mailboxes only if there are any.
func (r *Reader) NoteBefore(ctx context.Context, first bool, only []string) error {
	var c journal.Change
	if first {
		folders, err := maildir.Folders(r.Root)
		if err != nil {
			return err
		}
		if maildir.Dir(r.Root).Exists() {
			folders = append(folders, ".")
		}
		r.before = make(map[string]bool, len(folders))
		for _, f := range folders {
			r.before[f] = true
			r.Journal.Before.Put(&c, f, journal.SaidOnce)
		}
	}
	if r.DryRun {
		return nil
	}
	if r.UploadHere {
		if err := r.TagsAreOlder(ctx); err != nil {
			return err
		}
		err := r.Journal.HereBefore.DropWhere(ctx, func(_ string, in journal.Text) bool { return len(only) == 0 || slices.Contains(only, string(in)) })
		if err != nil {
			return err
		}
		if len(only) == 0 {
			return r.Journal.Before.DropWhere(ctx, func(string, journal.Text) bool { return true })
		}
	}
	if c.Empty() {
		return nil
	}
	return r.record(ctx, c, "folders noted")
}

// WasHere tells whether a folder was here before the first sync, and nothing was made of
// it since.
func (r *Reader) WasHere(ctx context.Context, folder string) (bool, error) {
	if r.before[folder] {
		return true, nil
	}
	_, before, err := r.Journal.Before.Get(ctx, folder)
	return before, err
}
