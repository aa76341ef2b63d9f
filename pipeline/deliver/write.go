package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// writeBatch bounds how many files share one round of fsync and one record in
// the ledger.
const writeBatch = 100

// write makes what came durable: bytes to disk, the intent to the ledger, then
// the file to its name. It takes what has gathered and does not wait for more.
func (l *Line) write(ctx context.Context) error {
	for e := range l.spooled {
		var batch []*Item
		flush := e.item == nil
		if !flush {
			batch = append(batch, e.item)
		}
	gather:
		for !flush && len(batch) < writeBatch {
			select {
			case e, ok := <-l.spooled:
				if !ok {
					break gather
				}
				if flush = e.item == nil; !flush {
					batch = append(batch, e.item)
				}
			default:
				break gather
			}
		}
		if err := ctx.Err(); err != nil {
			discardAll(batch)
			return err
		}
		on, err := l.preWrite(ctx, batch)
		if err == nil {
			err = l.writeItems(ctx, on)
		}
		if err != nil {
			discardAll(batch)
			return err
		}
		next := make([]entry, 0, len(on)+1)
		for _, it := range on {
			if !it.left { // else it stays under way
				next = append(next, entry{it})
			}
		}
		if flush {
			next = append(next, entry{})
		}
		for _, e := range next {
			select {
			case l.written <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func discardAll(items []*Item) {
	for _, it := range items {
		it.discard()
	}
}

func (l *Line) writeItems(ctx context.Context, items []*Item) error {
	var spools []*maildir.Spool
	var intents []ledger.Message
	dirs := make(map[maildir.Dir]bool)
	for _, it := range items {
		if it.Op == OpFlag || it.Op == OpGone || it.Op == OpPreindex {
			continue
		}
		if it.Spool != nil {
			it.Spool.SetTime(it.Row.Date)
			spools = append(spools, it.Spool)
		}
		intent := it.Row
		intent.State = ledger.Intended
		intents = append(intents, intent)
		dirs[it.Box.Dir] = true
	}
	if len(spools) > 0 {
		if err := maildir.SyncAll(spools); err != nil {
			return err
		}
		l.Report.Step("bodies synced")
	}
	if len(intents) > 0 {
		if err := l.Ledger.Save(ctx, intents...); err != nil {
			return err
		}
		l.Report.Step("intents recorded")
	}
	for _, it := range items {
		ours := it.Known && !it.Resumed // it was moved or deleted from here
		if l.Attic == nil || it.Op != OpGone || it.Row.State != ledger.Present || it.Row.Key == "" || ours {
			continue
		}
		var err error
		if it.kept, err = l.Attic.Wants(ctx, it.Row, l.isGoing); err != nil {
			return err
		}
	}
	if err := l.Removing(ctx, items...); err != nil {
		return err
	}
	var left journal.Change
	for _, it := range items {
		why := "its file was moved, or its flags changed, at this moment: the next sync judges"
		if err := l.place(it); err != nil {
			if _, own := errors.AsType[*report.OwnError](err); own {
				it.Box.Leave(err)
				it.left = true
			} else {
				it.left = it.Box.Bears(err)
			}
			if !it.left {
				return report.OfMailbox(it.Box.Name, err)
			}
			why = err.Error()
			it.discard()
		}
		if it.left {
			it.stays(&left, why)
		}
	}
	if !left.Empty() {
		if err := l.commit(ctx, left, "files left noted"); err != nil {
			return err
		}
	}
	for d := range dirs {
		if err := d.Sync(); err != nil {
			return err
		}
		l.Report.Step("folder synced")
	}
	return nil
}

// place gives an item's file its name, or takes a gone message's file away. One that its owner
// has moved, or whose letters he has changed, since the run has seen it is left to the next run:
// that finds where it is, or does the same to the message where that is now.
func (l *Line) place(it *Item) error {
	switch {
	case it.Spool != nil:
		flags := it.Row.Flags
		if it.Op == OpAdd || it.Op == OpReplace {
			flags = plan.WithTags(flags, it.Add, it.Remove) // the next run tells the server
		}
		name, err := it.Spool.Commit(plan.Letters(flags))
		if err != nil {
			return err
		}
		it.Spool = nil
		it.setName(name)
		l.Report.Step("file in place")
	case it.Op == OpGone:
		name, ok, err := it.Box.Dir.Locate(it.key(), it.name())
		judged := it.Row.Key != "" && !it.Absent
		if err != nil || !ok {
			it.left = judged
			return err
		}
		_, letters := maildir.ParseName(name)
		if it.left = judged && l.ChangedSince != nil && l.ChangedSince(it.Row, letters); it.left {
			return nil
		}
		it.setName(name)
		if it.Row.Digest.IsZero() && it.Row.Key != "" { // an older ledger has none
			if it.Row.Digest, err = maildir.Digest(it.Box.Dir.Path(name)); err != nil {
				return err
			}
		}
		if it.kept {
			err = l.Attic.Keep(it.Box.Dir, name)
		} else {
			err = os.Remove(it.Box.Dir.Path(name))
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if it.left = judged; it.left {
				return nil
			}
		case err != nil && it.kept:
			return &report.OwnError{Err: fmt.Errorf("UID %d is gone on the server and stays here, since its file cannot be put into the attic (attic_days = 0 is for none): %w", it.Row.UID, err)}
		case err != nil:
			return err
		}
		l.Report.Step("file removed")
	}
	return nil
}
