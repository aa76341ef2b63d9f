package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// itemOp is what an item on the line is for.
type itemOp int

const (
	opAdd         itemOp = iota + 1 // a mail that came
	opReplace                       // a mail that came where a stub stands
	opStub                          // a stub that was made
	opPlaceholder                   // a stub for what a hook left on the server
	opFlag                          // flags that changed
	opGone                          // a message that the server has no more
	opAhead                         // a file that the server has taken: for notmuch alone
)

// item is one message on its way from a connection to the ledger.
type item struct {
	box      *box
	op       itemOp
	row      ledger.Message // as it will be recorded
	spool    *maildir.Spool // of what gets a file; nil if that is in place
	add      []string
	remove   []string
	id       string   // Message-ID of a mail that came
	orders   []string // tags by which the stub's owner asked for something
	tags     []string // in place of notmuch's new.tags, if not nil
	set      string   // opFlag: maildir letters
	clear    string
	salvaged bool
	resumed  bool // an interrupted run had it in place
	known    bool // no news: a file that was there before, or a change that came from here
}

func (it *item) discard() {
	if it.spool != nil {
		it.spool.Discard()
	}
}

// key is the maildir key of the file that the item is about.
func (it *item) key() string {
	if it.op == opStub || it.row.Key == "" {
		return it.row.StubKey
	}
	return it.row.Key
}

// send puts an item on the line. It counts as pending in its mailbox until it
// is recorded.
func (r *run) send(ctx context.Context, it *item) error {
	r.mu.Lock()
	it.box.pending++
	r.mu.Unlock()
	select {
	case r.spooled <- it:
		return nil
	case <-ctx.Done():
		it.discard()
		return ctx.Err()
	}
}

// writeBatch bounds how many files share one round of fsync and one record in
// the ledger.
const writeBatch = 100

// write makes what came durable: bytes to disk, the intent to the ledger, then
// the file to its name. It takes what has gathered and does not wait for more.
func (r *run) write(ctx context.Context) error {
	for it := range r.spooled {
		batch := []*item{it}
	gather:
		for len(batch) < writeBatch {
			select {
			case it, ok := <-r.spooled:
				if !ok {
					break gather
				}
				batch = append(batch, it)
			default:
				break gather
			}
		}
		if err := ctx.Err(); err != nil {
			discardAll(batch)
			return err
		}
		on, err := r.preWrite(ctx, batch)
		if err == nil {
			err = r.writeItems(ctx, on)
		}
		if err != nil {
			discardAll(batch)
			return err
		}
		for _, it := range on {
			select {
			case r.written <- it:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func discardAll(items []*item) {
	for _, it := range items {
		it.discard()
	}
}

func (r *run) writeItems(ctx context.Context, items []*item) error {
	var spools []*maildir.Spool
	var intents []ledger.Message
	dirs := make(map[maildir.Dir]bool)
	for _, it := range items {
		if it.op == opFlag || it.op == opGone || it.op == opAhead {
			continue
		}
		if it.spool != nil {
			it.spool.SetTime(it.row.Date)
			spools = append(spools, it.spool)
		}
		intent := it.row
		intent.State = ledger.Intended
		intents = append(intents, intent)
		dirs[it.box.dir] = true
	}
	if len(spools) > 0 {
		if err := maildir.SyncAll(spools); err != nil {
			return err
		}
		r.step("bodies synced")
	}
	if len(intents) > 0 {
		if err := r.Ledger.Save(ctx, intents...); err != nil {
			return err
		}
		r.step("intents recorded")
	}
	for _, it := range items {
		if err := r.place(it); err != nil {
			return report.OfMailbox(it.box.Name, err)
		}
	}
	for d := range dirs {
		if err := d.Sync(); err != nil {
			return err
		}
		r.step("folder synced")
	}
	return nil
}

// place gives an item's file its name, or takes a gone message's file away.
func (r *run) place(it *item) error {
	switch {
	case it.spool != nil:
		name, err := it.spool.Commit(plan.Letters(it.row.Flags))
		if err != nil {
			return err
		}
		it.spool = nil
		it.setName(name)
		r.step("file in place")
	case it.op == opGone:
		name, ok, err := it.box.find(it.key(), it.name())
		if err != nil || !ok {
			return err
		}
		it.setName(name)
		if it.row.Digest.IsZero() && it.row.Key != "" { // an older ledger has none
			if it.row.Digest, err = digestOfFile(it.box.path(name)); err != nil {
				return err
			}
		}
		if err := it.box.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r.step("file removed")
	}
	return nil
}

// name is the last known name of the file that the item is about.
func (it *item) name() string {
	if it.op == opStub || it.row.Key == "" {
		return it.row.StubName
	}
	return it.row.Name
}

func (it *item) setName(name string) {
	if it.op == opStub || it.row.Key == "" {
		it.row.StubName = name
	} else {
		it.row.Name = name
	}
}

// listing is what a maildir held when it was read; a file that was renamed
// since shows by its absence, and the maildir is read anew.
type listing = maildir.Listing

// find tells where the file with this key is now. The name where it was last
// is tried first. Used by the write and index stages, each with its own item.
func (b *box) find(key, name string) (string, bool, error) {
	if key == "" {
		return "", false, nil
	}
	if b.exists(name) {
		return name, true, nil
	}
	return b.dir.Find(key)
}

// change is the item as notmuch is told of it.
func (it *item) change(newTags []string) (mail.Change, error) {
	c := mail.Change{Path: it.box.path(it.name()), Add: it.add, Remove: it.remove, ID: it.row.ID}
	switch it.op {
	case opAdd, opStub, opPlaceholder, opAhead:
		c.Op, c.New, c.ID = mail.OpAdd, newTags, it.id
		if it.tags != nil {
			c.New = it.tags
		}
	case opReplace:
		c.Op, c.New, c.ID = mail.OpReplace, newTags, it.id
		name, ok, err := it.box.find(it.row.StubKey, it.row.StubName)
		if err != nil {
			return c, err
		}
		if ok {
			it.row.StubName = name
		}
		c.OldPath = it.box.path(it.row.StubName)
		c.Remove = slices.Concat(it.remove, []string{TagFailed, TagSkipped}, it.orders)
	case opFlag:
		c.Op, c.Set, c.Clear = mail.OpFlag, it.set, it.clear
		name, ok, err := it.box.find(it.key(), it.name())
		if err != nil {
			return c, err
		}
		if ok {
			it.setName(name)
			c.Path = it.box.path(name)
		}
	case opGone:
		c.Op = mail.OpRemove
	}
	return c, nil
}
