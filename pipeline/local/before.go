package local

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
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
		held, err := r.heldHere(ctx)
		if err != nil {
			return err
		}
		err = r.Journal.HereBefore.DropWhere(ctx, func(key string, in journal.Text) bool {
			return !held[key] && (len(only) == 0 || slices.Contains(only, string(in)))
		})
		if err != nil {
			return err
		}
		if len(only) == 0 { // of the others see Release
			known, err := r.Ledger.Mailboxes(ctx)
			if err != nil {
				return err
			}
			return r.Journal.Before.DropWhere(ctx, func(folder string, _ journal.Text) bool {
				return slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Complete && k.Folder == folder })
			})
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

// Release gives the change by which a folder becomes that of a mailbox which is made of it, as any other:
// it notes which of its files were here before the first sync and stay, so that nothing sends them, also
// where the run ends before it comes to them. In an upload these are those that are held back, else all
// but what was moved there since. Where nothing of it was here before it is empty. files are those of the
// folder.
func (r *Reader) Release(ctx context.Context, m ledger.Mailbox, files *maildir.Listing) (c journal.Change, err error) {
	before, err := r.WasHere(ctx, m.Folder)
	if err != nil || !before {
		return c, err
	}
	if r.DryRun {
		r.released = append(r.released, m.Folder)
		return c, nil
	}
	dir := r.of(m).Dir
	all, err := r.Untracked(ctx, m.Name, dir, nil, files)
	if err != nil {
		return c, err
	}
	moved, err := r.MovedHere(ctx, m.Name, all)
	if err != nil {
		return c, err
	}
	for _, f := range all {
		stays := !moved[f.Key]
		if stays && r.UploadHere {
			why, _, err := r.HeldBack(ctx, m.Name, dir, &f, nil)
			if err != nil {
				return c, err
			}
			stays = why != plan.NotHeld
		}
		if stays {
			r.Journal.HereBefore.Put(&c, f.Key, journal.Text(m.Name))
		}
	}
	r.Journal.Before.Forget(&c, m.Folder)
	return c, nil
}

// MovedHere gives those of a mailbox's files, by key, that are of messages of other mailboxes of which
// the file is gone: they were moved from there, and a sync does the same on the server.
func (r *Reader) MovedHere(ctx context.Context, mailbox string, files []plan.Untracked) (map[string]bool, error) {
	moved, taken := make(map[string]bool), make(map[string]bool)
	for _, f := range files {
		rows, err := r.Ledger.Like(ctx, f.Message)
		if err != nil {
			return nil, err
		}
		for _, m := range rows {
			message := journal.About(m)
			if m.Mailbox == mailbox || m.State != ledger.Present || taken[message] || !f.SameContent(&m) {
				continue
			}
			_, here, err := r.FileOf(ctx, m)
			if err != nil {
				return nil, err
			}
			if !here {
				moved[f.Key], taken[message] = true, true
				break
			}
		}
	}
	return moved, nil
}

// heldHere gives those of the files, by key, that were here before the first sync and that no
// upload sends.
func (r *Reader) heldHere(ctx context.Context) (map[string]bool, error) {
	before, err := r.Journal.HereBefore.All(ctx)
	if err != nil || len(before) == 0 {
		return nil, err
	}
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	held, of := make(map[string]bool), make(map[string]bool)
	for key, in := range before {
		of[string(in)] = true
		held[key] = !slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Name == string(in) }) // not made yet
	}
	for _, k := range known {
		if !of[k.Name] {
			continue
		}
		files, err := r.untrackedOf(ctx, &Mailbox{Name: k.Name, Known: k, Dir: maildir.Dir(filepath.Join(r.Root, k.Folder))})
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if string(before[f.Key]) != k.Name {
				continue
			}
			why, _, err := r.HeldBack(ctx, k.Name, r.of(k).Dir, &f, nil)
			if err != nil {
				return nil, err
			}
			held[f.Key] = why != plan.NotHeld
		}
	}
	return held, nil
}

// HeldBack judges a file of a mailbox's folder that was here before the first sync
// (plan.Untracked.HeldBack), and gives the message that holds it back. coming are messages that the
// ledger would have of its mail.
func (r *Reader) HeldBack(ctx context.Context, mailbox string, dir maildir.Dir, f *plan.Untracked, coming []ledger.Message) (plan.Held, ledger.Message, error) {
	if f.Own || f.ID == "" {
		return plan.NotHeld, ledger.Message{}, nil
	}
	all, err := r.Ledger.Like(ctx, f.Message)
	if err != nil {
		return plan.NotHeld, ledger.Message{}, err
	}
	var rows []ledger.Message // but for those of which the file alone is gone: this one may have been moved
	for _, m := range all {
		alone, err := r.fileAloneGone(ctx, m)
		if err != nil {
			return plan.NotHeld, ledger.Message{}, err
		}
		if !alone {
			rows = append(rows, m)
		}
	}
	if why, as := f.HeldBack(mailbox, slices.Concat(rows, coming)); why != plan.NotHeld {
		return why, as, nil
	}
	whole, err := r.cutOf(ctx, dir.Path(f.Name), f, rows)
	if whole.UID != 0 {
		return plan.HeldUnsure, whole, err
	}
	return plan.NotHeld, ledger.Message{}, err
}

// fileAloneGone tells whether the file of a message is gone, and its mailbox's folder is there.
func (r *Reader) fileAloneGone(ctx context.Context, m ledger.Message) (bool, error) {
	if _, here, err := r.FileOf(ctx, m); err != nil || here {
		return false, err
	}
	known, err := r.Ledger.Mailboxes(ctx)
	return slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Name == m.Mailbox && r.of(k).Dir.Exists() }), err
}

// cutOf gives the message of rows, which are those with a file's Message-ID, of whose file this one is
// the beginning alone, as after a full disk; of no UID if it is of none. at is where it lies.
func (r *Reader) cutOf(ctx context.Context, at string, f *plan.Untracked, rows []ledger.Message) (ledger.Message, error) {
	for _, m := range rows {
		if plan.RealID(f.ID) == "" || m.State != ledger.Present || m.Key == f.Key || m.Key == "" || m.WireSize != 0 && m.WireSize <= f.WireSize-f.Added {
			continue
		}
		path, here, err := r.FileOf(ctx, m)
		if err != nil {
			return ledger.Message{}, err
		}
		if !here {
			continue
		}
		if cut, err := maildir.IsCut(at, path); err != nil || cut {
			return m, err
		}
	}
	return ledger.Message{}, nil
}
