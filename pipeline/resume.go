package pipeline

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
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// recover ends what an interrupted run left on this machine, and carries out what is asked
// here, before anything is looked at.
func (r *run) recover(ctx context.Context) error {
	if err := r.here.CheckRoot(ctx); err != nil {
		return err
	}
	if err := r.readSecret(ctx); err != nil {
		return err
	}
	r.here.Secret = r.secret
	if r.DryRun {
		return r.recallTold(ctx)
	}
	r.ask.Clear()
	if err := r.resume(ctx); err != nil {
		return err
	}
	_, err := r.giveUp(ctx)
	return err
}

// recallTold finds what interrupted runs have told the server of flags.
func (r *run) recallTold(ctx context.Context) error {
	err := r.told.Recall(ctx, !r.DryRun)
	r.here.Told = r.told.Before()
	return err
}

// resume finishes what an interrupted run intended: a file that reached its
// name is indexed and recorded, an intent without a file is withdrawn, so that
// the message is asked for again.
func (r *run) resume(ctx context.Context) error {
	if err := r.retire(ctx); err != nil {
		return err
	}
	if err := recoverAll(ctx, r.recoverHere()); err != nil {
		return err
	}
	intended, err := r.Ledger.InState(ctx, ledger.Intended)
	if err != nil || len(intended) == 0 {
		return err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	links, err := r.notes().Linked.All(ctx)
	if err != nil {
		return err
	}
	var list []mail.Mailbox
	for _, name := range slices.Sorted(maps.Keys(boxes)) {
		list = append(list, boxes[name].Mailbox)
	}
	r.trash = trashOf(r.Trash, list) // as far as it is known without the server
	defer func() { r.trash = "" }()
	var unrecorded *local.Unrecorded
	var moved []ledger.Message
	files := make(map[*box]*maildir.Listing)
	var items []*deliver.Item
	withdrawn := make(map[*box][]ledger.Message)
	for _, row := range intended {
		b := boxes[row.Mailbox]
		if b == nil {
			continue
		}
		if files[b] == nil {
			if files[b], err = b.dir.Scan(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		it := &deliver.Item{Box: b.line, Row: row, Known: true, Resumed: true}
		by := plan.AsNew
		if l, linked := links[row.Key]; linked && l.ByTags {
			by = plan.ByTags
		} else if linked {
			by = plan.ByOther
		}
		it.Add, it.Remove = r.Arriving(b.Name, r.trash, row.Flags, b.add, b.remove, by)
		name, here := find(files[b], row.Key)
		stub, stubHere := find(files[b], row.StubKey)
		switch {
		case here && row.StubKey != "":
			it.Op, it.Row.Name, it.Row.StubName, it.Orders = deliver.OpReplace, name, stub, r.Orders
		case here:
			it.Op, it.Row.Name = deliver.OpAdd, name
			if err := r.rememberRemoved(ctx, b.toFetch(), it); err != nil {
				return err
			}
		case stubHere && row.Key == "":
			it.Add, it.Remove = r.InitialTags(row.Flags, b.add, b.remove)
			it.Op, it.Row.StubName = deliver.OpStub, stub
			tag := TagFailed
			if stoodBy(row) == ledger.Skipped {
				it.Op, tag = deliver.OpPlaceholder, TagSkipped
			}
			it.Add = append(it.Add, tag)
		case stubHere:
			// The real mail did not get there: the stub stands as before.
			row.State, row.Key, row.Name, row.StubName = stoodBy(row), "", "", stub
			if err := r.Ledger.Save(ctx, row); err != nil {
				return err
			}
			r.step("stub stands again")
			continue
		default:
			// Its user may have moved it on.
			if unrecorded == nil {
				if unrecorded, err = r.here.Unrecorded(ctx); err != nil {
					return err
				}
			}
			if at, ok := unrecorded.Take(row); ok {
				row.State, row.ID = ledger.Present, cmp.Or(row.ID, at.ID)
				moved = append(moved, row)
				continue
			}
			withdrawn[b] = append(withdrawn[b], row)
			continue
		}
		items = append(items, it)
	}
	for b, rows := range withdrawn {
		byValidity := make(map[uint64][]imap.UID)
		for _, row := range rows {
			byValidity[row.UIDValidity] = append(byValidity[row.UIDValidity], row.UID)
		}
		for v, uids := range byValidity {
			if err := r.Ledger.Delete(ctx, b.Name, v, uids...); err != nil {
				return err
			}
			r.step("intents withdrawn")
		}
	}
	if len(moved) > 0 {
		if err := r.commit(ctx, journal.Change{Save: moved}, "moved files found"); err != nil {
			return err
		}
	}
	if err := r.line.TagAgain(ctx, items); err != nil {
		return err
	}
	for len(items) > 0 {
		n := min(len(items), deliver.BatchSize)
		if err := r.line.Record(ctx, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// resumeFlags makes the changes of flags again that were under way: of those that
// were made, only the record is new.
func (r *run) resumeFlags(ctx context.Context) error {
	intents, ok, err := r.notes().Flags.Get(ctx)
	if err != nil || !ok {
		return err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	var items []*deliver.Item
	for _, f := range intents {
		row, ok, err := r.Ledger.Get(ctx, f.Mailbox, f.UIDValidity, f.UID)
		if err != nil {
			return err
		}
		if b := boxes[f.Mailbox]; b != nil && ok && !row.Fileless() && !plan.SameFlags(row.Flags, f.Flags) {
			items = append(items, b.line.Flagging(row, f.Flags, &r.Tags))
		}
	}
	if len(items) == 0 {
		return r.notes().Flags.Drop(ctx)
	}
	return r.line.Record(ctx, items)
}

func find(l *maildir.Listing, key string) (string, bool) {
	if l == nil || key == "" {
		return "", false
	}
	return l.Find(key)
}

// knownBox is a mailbox of the ledger that no connection has seen.
func (r *run) knownBox(k ledger.Mailbox) *box {
	return r.newBox(mail.Mailbox{Name: k.Name, Delim: k.Delim}, k)
}

// knownBoxes gives all of them, with the tags that they have by rule.
func (r *run) knownBoxes(ctx context.Context) (map[string]*box, error) {
	rows, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	boxes := make(map[string]*box, len(rows))
	for _, k := range rows {
		b := r.knownBox(k)
		b.uidValidity = k.UIDValidity
		if r.TagRules != nil {
			b.add, b.remove = r.TagRules(k.Name, k.Delim)
		}
		boxes[k.Name] = b
	}
	return boxes, nil
}

// stoodBy is what a row with a stub was before its mail was asked for: what a
// hook skipped was never asked for.
func stoodBy(row ledger.Message) ledger.State {
	if row.Attempts == 0 {
		return ledger.Skipped
	}
	return ledger.Stub
}
