package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

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
	files := make(map[*box]*listing)
	var items []*item
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
		it := &item{box: b, row: row, known: true, resumed: true}
		it.add, it.remove = r.initialTags(row.Flags, b.add, b.remove)
		name, here := find(files[b], row.Key)
		stub, stubHere := find(files[b], row.StubKey)
		switch {
		case here && row.StubKey != "":
			it.op, it.row.Name, it.row.StubName, it.orders = opReplace, name, stub, r.Orders
		case here:
			it.op, it.row.Name = opAdd, name
			if err := r.rememberRemoved(ctx, it); err != nil {
				return err
			}
		case stubHere && row.Key == "":
			it.op, it.row.StubName = opStub, stub
			tag := TagFailed
			if stoodBy(row) == ledger.Skipped {
				it.op, tag = opPlaceholder, TagSkipped
			}
			it.add = append(it.add, tag)
		case stubHere:
			// The real mail did not get there: the stub stands as before.
			row.State, row.Key, row.Name, row.StubName = stoodBy(row), "", "", stub
			if err := r.Ledger.Save(ctx, row); err != nil {
				return err
			}
			r.step("stub stands again")
			continue
		default:
			withdrawn[b] = append(withdrawn[b], row)
			continue
		}
		b.pending++
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
	if err := r.tagAgain(ctx, items); err != nil {
		return err
	}
	for len(items) > 0 {
		n := min(len(items), indexBatch)
		if err := r.indexItems(ctx, items[:n]); err != nil {
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
	var items []*item
	for _, f := range intents {
		row, ok, err := r.Ledger.Get(ctx, f.Mailbox, f.UIDValidity, f.UID)
		if err != nil {
			return err
		}
		if b := boxes[f.Mailbox]; b != nil && ok && !fileless(row) && !plan.SameFlags(row.Flags, f.Flags) {
			b.pending++
			items = append(items, r.flagItem(b, row, f.Flags))
		}
	}
	if len(items) == 0 {
		return r.notes().Flags.Drop(ctx)
	}
	return r.indexItems(ctx, items)
}

func find(l *listing, key string) (string, bool) {
	if l == nil || key == "" {
		return "", false
	}
	return l.Find(key)
}

// knownBox is a mailbox of the ledger that no connection has seen.
func (r *run) knownBox(k ledger.Mailbox) *box {
	return &box{Mailbox: mail.Mailbox{Name: k.Name, Delim: k.Delim}, known: k, dir: maildir.Dir(filepath.Join(r.Root, k.Folder))}
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
		b.now.UIDValidity = k.UIDValidity
		if r.TagRules != nil {
			b.add, b.remove = r.TagRules(k.Name, k.Delim)
		}
		boxes[k.Name] = b
	}
	return boxes, nil
}
