package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// restore makes the server right: what is missing here is forgotten, so that it
// comes again, and flags are compared anew with those that the files have.
func (w *worker) restore(ctx context.Context, b *box, o *plan.Outgoing, boxes map[string]*box) error {
	// A folder that was gone is another one when it is there again.
	if err := b.dir.Create(); err != nil {
		return err
	}
	if err := w.back(ctx, b, o.Moves, boxes); err != nil {
		return err
	}
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, slices.Collect(maps.Keys(b.local.Flags)))
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].Flags = b.local.Flags[rows[i].UID].Merged(rows[i].Flags)
	}
	if err := w.incomplete(ctx, b); err != nil {
		return err
	}
	if err := w.toldIsOver(ctx, b); err != nil {
		return err
	}
	if len(rows) > 0 {
		if err := w.Ledger.Save(ctx, rows...); err != nil {
			return err
		}
		w.step("flags of the files recorded")
	}
	if err := w.fetchAgain(ctx, b, o.Restore); err != nil {
		return err
	}
	return w.here.Believe(ctx, b.place())
}

// back puts files that were moved to other folders back to where the server has
// their mail.
func (w *worker) back(ctx context.Context, b *box, moves map[string][]plan.Move, boxes map[string]*box) error {
	var files []journal.MovedBack
	for _, to := range slices.Sorted(maps.Keys(moves)) {
		for _, m := range moves[to] {
			name, ok, err := boxes[to].find(m.Key, "")
			if err != nil {
				return err
			}
			if !ok {
				continue // taken away this moment: the next run sees it
			}
			_, letters := maildir.ParseName(name)
			// In cur also without letters, since that says that it has none.
			files = append(files, journal.MovedBack{From: boxes[to].path(name), To: b.path("cur/" + m.Row.Key + ":2," + letters), ID: m.Row.ID})
			b.settle([]imap.UID{m.Row.UID})
		}
	}
	if len(files) == 0 {
		return nil
	}
	if err := w.notes().Back.Set(ctx, files); err != nil {
		return err
	}
	w.step("moves back intended")
	return w.resumeBack(ctx)
}

// resumeBack moves the files back that were about to be, and tells notmuch, which
// would else know them where they were.
func (r *run) resumeBack(ctx context.Context) error {
	files, ok, err := r.notes().Back.Get(ctx)
	if err != nil || !ok {
		return err
	}
	var changes []mail.Change
	for _, f := range files {
		err := maildir.Move(f.From, f.To)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r.step("file moved back")
		if _, err := os.Lstat(f.To); err == nil {
			// It is added before it is removed, or notmuch would forget its tags.
			changes = append(changes, mail.Change{Op: mail.OpAdd, Path: f.To, New: r.NewTags}, mail.Change{Op: mail.OpRemove, Path: f.From, ID: f.ID})
		}
	}
	if len(changes) > 0 {
		if err := r.line.Tell(ctx, changes); err != nil {
			return err
		}
		r.step("files moved back in notmuch")
	}
	if err := r.notes().Back.Drop(ctx); err != nil {
		return err
	}
	r.step("moves back done")
	return nil
}
