package push

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
func (p *Pusher) restore(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	// A folder that was gone is another one when it is there again.
	if err := b.Dir.Create(); err != nil {
		return err
	}
	if err := p.back(ctx, b, o.Moves); err != nil {
		return err
	}
	rows, err := p.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(b.Local.Flags)))
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].Flags = b.Local.Flags[rows[i].UID].Merged(rows[i].Flags)
	}
	if err := p.incomplete(ctx, b); err != nil {
		return err
	}
	if err := p.Told.Over(ctx, b.Name); err != nil {
		return err
	}
	if len(rows) > 0 {
		if err := p.commit(ctx, journal.Change{Save: rows}, "flags of the files recorded"); err != nil {
			return err
		}
	}
	if err := p.fetchAgain(ctx, b, o.Restore); err != nil {
		return err
	}
	return p.Here.Believe(ctx, b.Name, b.Dir)
}

// back puts files that were moved to other folders back to where the server has
// their mail.
func (p *Pusher) back(ctx context.Context, b *Mailbox, moves map[string][]plan.Move) error {
	var files []journal.MovedBack
	var c journal.Change
	for _, to := range slices.Sorted(maps.Keys(moves)) {
		for _, m := range moves[to] {
			name, ok, err := p.boxes[to].Dir.Locate(m.Key, "")
			if err != nil {
				return err
			}
			if !ok {
				continue // taken away this moment: the next run sees it
			}
			_, letters := maildir.ParseName(name)
			// In cur also without letters, since that says that it has none.
			files = append(files, journal.MovedBack{From: p.boxes[to].Dir.Path(name), To: b.Dir.Path("cur/" + m.Row.Key + ":2," + letters), ID: m.Row.ID})
			b.markDeletionHandled([]imap.UID{m.Row.UID})
			c.Did(p.backFrom(p.boxes[to], b, m))
		}
	}
	if len(files) == 0 {
		return nil
	}
	p.Journal.Back.Put(&c, files)
	if err := p.commit(ctx, c, "moves back intended"); err != nil {
		return err
	}
	return p.ResumeBack(ctx)
}

// ResumeBack moves the files back that were about to be, and tells notmuch, which
// would else know them where they were.
func (p *Pusher) ResumeBack(ctx context.Context) error {
	files, ok, err := p.Journal.Back.Get(ctx)
	if err != nil || !ok {
		return err
	}
	var changes []mail.Change
	for _, f := range files {
		err := maildir.Move(f.From, f.To)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.Report.Step("file moved back")
		if _, err := os.Lstat(f.To); err == nil {
			// It is added before it is removed, or notmuch would forget its tags.
			changes = append(changes, mail.Change{Op: mail.OpAdd, Path: f.To, New: p.Tags.NewTags}, mail.Change{Op: mail.OpRemove, Path: f.From, ID: f.ID})
		}
	}
	if len(changes) > 0 {
		if err := p.Line.Tell(ctx, changes); err != nil {
			return err
		}
		p.Report.Step("files moved back in notmuch")
	}
	if err := p.Journal.Back.Drop(ctx); err != nil {
		return err
	}
	p.Report.Step("moves back done")
	return nil
}
