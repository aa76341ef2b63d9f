package pipeline

import (
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
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// linksAreCopies forgets the links of messages that are still where they were, in a run
// that has recorded all that it was told, and those of mailboxes that the server has no
// more: nobody can ask it whether their messages were moved.
func (r *run) linksAreCopies(ctx context.Context, boxes []*box) error {
	if r.DryRun {
		return nil
	}
	held := make(map[string]bool)
	for _, it := range r.line.Held() {
		held[journal.About(it.Row)] = true
	}
	return r.notes().Linked.DropWhere(ctx, func(_ string, l journal.Linking) bool {
		if !r.listed[l.Mailbox] {
			return true
		}
		i := slices.IndexFunc(boxes, func(b *box) bool { return b.Name == l.Mailbox })
		return i >= 0 && !boxes[i].line.MarksKept() && !r.isUnsettled(boxes[i]) &&
			!held[journal.About(ledger.Message{Mailbox: l.Mailbox, UIDValidity: l.UIDValidity, UID: l.UID})]
	})
}

// finishLinks ends moves by others of which an earlier run has linked the mail, before what
// is here is compared with the rows.
func (w *worker) finishLinks(ctx context.Context, boxes map[string]*box) error {
	links, err := w.notes().Linked.All(ctx)
	if err != nil || len(links) == 0 || w.Restore {
		return err
	}
	byBox := make(map[string][]string)
	for _, key := range slices.Sorted(maps.Keys(links)) {
		byBox[links[key].Mailbox] = append(byBox[links[key].Mailbox], key)
	}
	var unrecorded *local.Unrecorded
	for name, keys := range byBox {
		b := boxes[name]
		var uids []imap.UID
		for _, key := range keys {
			if l := links[key]; b != nil && l.UIDValidity == b.known.UIDValidity && boxes[l.To] != nil {
				uids = append(uids, l.UID)
			}
		}
		var rows []ledger.Message
		if b != nil {
			if rows, err = w.Ledger.GetMany(ctx, name, b.known.UIDValidity, uids); err != nil {
				return err
			}
		}
		if len(rows) > 0 {
			var there imap.UIDSet
			if err = report.ErrLater; !w.DryRun {
				there, err = w.stillThere(ctx, b, rows)
			}
			if err != nil {
				w.unsettled[name] = nil
				for _, key := range keys {
					w.unsettled[links[key].To] = nil
				}
				if err := w.rep.Unended(ctx, b.Name, err, "whether mail was moved out of it cannot be found out", b.line.Leave); err != nil {
					return err
				}
				continue
			}
			rows = slices.DeleteFunc(rows, func(row ledger.Message) bool { return there.Contains(row.UID) })
		}
		for _, row := range rows {
			i := slices.IndexFunc(keys, func(key string) bool { return links[key].UID == row.UID && links[key].UIDValidity == row.UIDValidity })
			if unrecorded == nil {
				if unrecorded, err = w.here.Unrecorded(ctx); err != nil {
					return err
				}
			}
			if err := w.finishLink(ctx, b, row, boxes[links[keys[i]].To], links[keys[i]], keys[i], unrecorded); err != nil {
				return err
			}
		}
		if !w.DryRun {
			if err := w.notes().Linked.Drop(ctx, keys...); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishLink ends one: what its user did to the old file is done to the message where it is
// now.
func (w *worker) finishLink(ctx context.Context, from *box, row ledger.Message, to *box, l journal.Linking, key string, unrecorded *local.Unrecorded) error {
	now, ok, err := w.Ledger.Get(ctx, l.To, l.ToValidity, l.ToUID)
	if err != nil || !ok || now.Key != key {
		return err // it was not linked
	}
	old, here, err := from.find(row.Key, row.Name)
	if err != nil {
		return err
	}
	link, linked, err := to.find(now.Key, now.Name)
	if err != nil {
		return err
	}
	var d plan.Delta
	changed := func(name string) {
		if _, letters := maildir.ParseName(name); plan.HasInfo(name) {
			d = plan.DeltaOf(row.Flags, letters)
		}
	}
	letter := func(b *box, name string) mail.Change {
		add, remove, set, clear := plan.FlagTags(row.Flags, d.Merged(row.Flags))
		return mail.Change{Op: mail.OpFlag, Path: b.path(name), ID: now.ID, Add: add, Remove: remove, Set: set, Clear: clear}
	}
	if here {
		if changed(old); linked && len(d.Add)+len(d.Remove) > 0 {
			if err := w.line.Tell(ctx, []mail.Change{letter(to, link)}); err != nil {
				return err
			}
			w.step("flags followed")
		}
		if err := from.dir.Remove(old); err != nil {
			return err
		}
		w.step("file removed")
		row.Name = old
		return w.line.Record(ctx, []*deliver.Item{{Box: from.line, Op: deliver.OpGone, Row: row}})
	}
	at, moved := unrecorded.Take(row)
	var c journal.Change
	w.line.Forget(&c, from.line, row)
	if !moved {
		return w.commit(ctx, c, "link finished")
	}
	// It was moved on: that is the file of the message now, and there is no other.
	changed(at.Name)
	name := maildir.WithFlags(at.Name, plan.Letters(d.Merged(now.Flags)), "FRSDP")
	if err := at.Dir.Rename(at.Name, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	changes := []mail.Change{{Op: mail.OpAdd, Path: at.Dir.Path(name), ID: now.ID, New: w.NewTags}}
	if linked {
		if err := to.dir.Remove(link); err != nil {
			return err
		}
		w.step("file removed")
		changes = append(changes, mail.Change{Op: mail.OpRemove, Path: to.path(link), ID: now.ID})
	}
	if err := w.line.Tell(ctx, changes); err != nil {
		return err
	}
	now.Key, now.Name = at.Key, ""
	c.Save = append(c.Save, now)
	return w.commit(ctx, c, "link finished")
}

// tellForgotten tells notmuch what an earlier run did not come to tell. Where mail
// went has been found by then, or waits, and this with it.
func (w *worker) tellForgotten(ctx context.Context, boxes map[string]*box) error {
	rows, err := w.notes().Forgotten.All(ctx)
	if err != nil || len(rows) == 0 || len(w.unsettled) > 0 || w.DryRun {
		return err
	}
	var items []*deliver.Item
	var back journal.Change
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		row := rows[key]
		if b := boxes[row.Mailbox]; b != nil && !b.exists(row.Name) {
			items = append(items, b.line.Forgetting(row))
		} else {
			w.notes().Forgotten.Forget(&back, key) // the file was put back, or its mailbox is forgotten
		}
	}
	for part := range slices.Chunk(items, deliver.BatchSize) {
		if err := w.line.Record(ctx, part); err != nil {
			return err
		}
	}
	if back.Empty() {
		return nil
	}
	return w.commit(ctx, back, "forgotten files found")
}
