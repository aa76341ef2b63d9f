package resume

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Links ends moves by others of which an earlier run has linked the mail, before what
// is here is compared with the rows. Where that cannot be found out, it adds the mailboxes to
// those that are not settled.
func (r *Resumer) Links(ctx context.Context, c Connection, unsettled map[string][]ledger.Message) error {
	links, err := r.Journal.Linked.All(ctx)
	if err != nil || len(links) == 0 || r.Restore {
		return err
	}
	boxes, err := r.Boxes(ctx)
	if err != nil {
		return err
	}
	byBox := make(map[string][]string)
	for _, key := range slices.Sorted(maps.Keys(links)) {
		byBox[links[key].Mailbox] = append(byBox[links[key].Mailbox], key)
	}
	var unrecorded *plan.Unrecorded
	for name, keys := range byBox {
		b := boxes[name]
		var uids []imap.UID
		for _, key := range keys {
			if l := links[key]; b != nil && l.UIDValidity == b.Known.UIDValidity && boxes[l.To] != nil {
				uids = append(uids, l.UID)
			}
		}
		var rows []ledger.Message
		if b != nil {
			if rows, err = r.Ledger.GetMany(ctx, name, b.Known.UIDValidity, uids); err != nil {
				return err
			}
		}
		if len(rows) > 0 {
			var there imap.UIDSet
			if err = report.ErrLater; !r.DryRun {
				there, err = c.StillThere(ctx, b.Name, b.Known.UIDValidity, ledger.UIDs(rows))
			}
			if err != nil {
				unsettled[name] = nil
				for _, key := range keys {
					unsettled[links[key].To] = nil
				}
				if err := r.Report.Unended(ctx, b.Name, err, "whether mail was moved out of it cannot be found out", b.Leave); err != nil {
					return err
				}
				continue
			}
			rows = slices.DeleteFunc(rows, func(row ledger.Message) bool { return there.Contains(row.UID) })
		}
		for _, row := range rows {
			i := slices.IndexFunc(keys, func(key string) bool { return links[key].UID == row.UID && links[key].UIDValidity == row.UIDValidity })
			if unrecorded == nil {
				if unrecorded, err = r.Here.Unrecorded(ctx); err != nil {
					return err
				}
			}
			switch err := r.finishLink(ctx, b, row, boxes[links[keys[i]].To], links[keys[i]], keys[i], unrecorded); {
			case errors.Is(err, errStays):
				unsettled[name] = nil
				keys = slices.Delete(keys, i, i+1)
			case err != nil:
				return err
			}
		}
		if !r.DryRun {
			if err := r.Journal.Linked.Drop(ctx, keys...); err != nil {
				return err
			}
		}
	}
	return nil
}

// errStays says that a file cannot be removed from its folder now.
var errStays = errors.New("its file stays")

// finishLink ends one: what its user did to the old file is done to the message where it is
// now.
func (r *Resumer) finishLink(ctx context.Context, from *Mailbox, row ledger.Message, to *Mailbox, l journal.Linking, key string, unrecorded *plan.Unrecorded) error {
	now, ok, err := r.Ledger.Get(ctx, l.To, l.ToValidity, l.ToUID)
	if err != nil || !ok || now.Key != key {
		return err // it was not linked
	}
	old, here, err := from.Dir.Locate(row.Key, row.Name)
	if err != nil {
		return err
	}
	link, linked, err := to.Dir.Locate(now.Key, now.Name)
	if err != nil {
		return err
	}
	var d plan.Delta
	changed := func(name string) {
		if _, letters := maildir.ParseName(name); plan.HasInfo(name) {
			d = plan.DeltaOf(row.Flags, letters)
		}
	}
	letter := func(b *Mailbox, name string) mail.Change {
		add, remove, set, clear := r.Tags.FlagTags(row.Flags, d.Merged(row.Flags))
		return mail.Change{Op: mail.OpFlag, Path: b.Dir.Path(name), ID: now.ID, Add: add, Remove: remove, Set: set, Clear: clear}
	}
	var at plan.UnrecordedFile
	var moved bool
	if !here {
		if at, moved = unrecorded.Take(row); moved && at.Dir == from.Dir { // it got a new name
			old, here = at.Name, true
		}
	}
	if here {
		if changed(old); linked && len(d.Add)+len(d.Remove) > 0 {
			if err := r.Line.Tell(ctx, []mail.Change{letter(to, link)}); err != nil {
				return err
			}
			r.Report.Step("flags followed")
		}
		gone := &deliver.Item{Box: from.Mailbox, Op: deliver.OpGone, Row: row}
		if err := r.RemoveTwins(ctx, gone); err != nil {
			return err
		}
		if err := r.Line.Removing(ctx, gone); err != nil {
			return err
		}
		if err := from.Dir.Remove(old); err != nil {
			if from.Bears(err) {
				return cmp.Or(r.Line.Stays(ctx, gone, err), errStays)
			}
			return err
		}
		r.Report.Step("file removed")
		gone.Row.Name = old
		return r.Line.Record(ctx, []*deliver.Item{gone})
	}
	var c journal.Change
	r.Line.Forget(&c, from.Mailbox, row, nil)
	if !moved {
		return r.commit(ctx, c, "link finished")
	}
	// It was moved on: that is the file of the message now, and there is no other.
	changed(at.Name)
	name := maildir.WithFlags(at.Name, plan.Letters(d.Merged(now.Flags)), "FRSDP")
	if err := at.Dir.Rename(at.Name, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	changes := []mail.Change{{Op: mail.OpAdd, Path: at.Dir.Path(name), ID: now.ID, New: r.Tags.NewTags}}
	if linked {
		if err := to.Dir.Remove(link); err != nil {
			return err
		}
		r.Report.Step("file removed")
		changes = append(changes, mail.Change{Op: mail.OpRemove, Path: to.Dir.Path(link), ID: now.ID})
	}
	if err := r.Line.Tell(ctx, changes); err != nil {
		return err
	}
	was := now
	now.Key, now.Name = at.Key, ""
	if err := r.Old.Follow(ctx, &c, was, now); err != nil {
		return err
	}
	r.Old.Forget(&c, was)
	c.Save = append(c.Save, now)
	return r.commit(ctx, c, "link finished")
}

// Forgotten tells notmuch what an earlier run did not come to tell, when it has been found
// where mail went.
func (r *Resumer) Forgotten(ctx context.Context) error {
	rows, err := r.Journal.Forgotten.All(ctx)
	if err != nil || len(rows) == 0 || r.DryRun {
		return err
	}
	boxes, err := r.Boxes(ctx)
	if err != nil {
		return err
	}
	var items []*deliver.Item
	var over journal.Change
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		row := rows[key]
		if b := boxes[row.Mailbox]; b != nil {
			it := b.Forgetting(row.Message)
			it.Resumed = true // where it went may be seen later only: it gets its tags then
			it.Had = row.Tags
			items = append(items, it)
		} else {
			r.Journal.Forgotten.Forget(&over, key) // its mailbox is forgotten
		}
	}
	for part := range slices.Chunk(items, deliver.BatchSize) {
		if err := r.Line.Record(ctx, part); err != nil {
			return err
		}
	}
	if over.Empty() {
		return nil
	}
	return r.commit(ctx, over, "forgotten files found")
}

// RuledMoves finds what interrupted runs have moved by tags. What is still where it
// was, was not moved.
func (r *Resumer) RuledMoves(ctx context.Context, c Connection) error {
	ruled, err := r.Journal.Ruled.All(ctx)
	if err != nil || len(ruled) == 0 || r.DryRun {
		return err
	}
	boxes, err := r.Boxes(ctx)
	if err != nil {
		return err
	}
	var change journal.Change
	byBox := make(map[*Mailbox]map[imap.UID]journal.Ruled)
	for key, m := range ruled {
		r.Journal.Ruled.Forget(&change, key)
		if b := boxes[m.Mailbox]; b != nil && b.Known.UIDValidity == m.UIDValidity {
			if byBox[b] == nil {
				byBox[b] = make(map[imap.UID]journal.Ruled)
			}
			byBox[b][m.UID] = m
		}
	}
	for b, moves := range byBox {
		rows, err := r.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(moves)))
		if err != nil {
			return err
		}
		there, err := c.StillThere(ctx, b.Name, b.Known.UIDValidity, ledger.UIDs(rows))
		if err != nil {
			// Whether they were moved shows when the mailbox can be asked.
			if err := r.Report.Unended(ctx, b.Name, err, "whether what its tags want moved was moved cannot be found out", b.Leave); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if err != nil || !there.Contains(row.UID) {
				r.Ruled.Note(&change, []ledger.Message{row}, moves[row.UID].To)
			}
		}
	}
	return r.commit(ctx, change, "moves by tags recalled")
}
