package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// How much goes into one commit of the notmuch database. A program that reads
// meanwhile survives about one commit, so they come no faster than every second
// or so once the first mails are in, and what waits for the write lock waits no
// longer than one takes (NOTMUCH.md, Index speed).
const (
	BatchSize  = 300
	indexDelay = time.Second
	// The first mails are searchable at once, but not each in a commit of its own.
	indexFirst = 20 * time.Millisecond
)

// index tells notmuch what was written, and records it. The write lock is held
// only while a batch that lies ready is applied. A batch ends where nothing more comes
// for a while, and where nothing more comes at all.
func (l *Line) index(ctx context.Context) error {
	most, delay := l.Batch, time.Duration(0)
	if most <= 0 {
		most, delay = BatchSize, indexDelay
	}
	first := true
	for e := range l.written {
		if e.item == nil {
			continue
		}
		batch := []*Item{e.item}
		wait := delay
		if first {
			wait = min(delay, indexFirst)
		}
		first = false
		late := time.NewTimer(wait)
	gather:
		for len(batch) < most {
			// What lies ready is taken before the clock is looked at. The channel's end
			// gives no item either.
			select {
			case e := <-l.written:
				if e.item == nil {
					break gather
				}
				batch = append(batch, e.item)
				continue
			default:
			}
			select {
			case e := <-l.written:
				if e.item == nil {
					break gather
				}
				batch = append(batch, e.item)
			case <-late.C:
				break gather
			case <-ctx.Done():
				late.Stop()
				return ctx.Err()
			}
		}
		late.Stop()
		batch, err := l.ahead(ctx, batch)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(batch, most) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := l.indexItems(ctx, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// Record indexes and records a batch whose files are in place already, without Run: it
// is what an earlier run has left.
func (l *Line) Record(ctx context.Context, items []*Item) error {
	for _, it := range items {
		it.Box.Begin()
	}
	return l.indexItems(ctx, items)
}

// preindexed is what notmuch was told of an uploaded file, and what became of it.
type preindexed struct {
	change mail.Change
	result mail.Result
}

// indexItems applies one batch and records it.
func (l *Line) indexItems(ctx context.Context, items []*Item) error {
	results := make([]mail.Result, len(items))
	back, err := putBack(items)
	if err != nil {
		return err
	}
	changes, err := l.elsewhere(ctx, slices.DeleteFunc(slices.Clone(items), func(it *Item) bool { return back[it] }))
	if err != nil {
		return err
	}
	into := make([]*mail.Result, len(changes), len(changes)+len(items)) // what they give
	for i := range into {
		into[i] = new(mail.Result)
	}
	known := make(map[int]*preindexed)
	var files []coming
	if err := l.untagGone(ctx, items); err != nil {
		return err
	}
	for i, it := range items {
		if back[it] {
			continue
		}
		c, err := it.change(l.NewTags)
		if err != nil {
			return err
		}
		to := &results[i]
		switch t := l.preindexed[c.Path]; {
		case it.Op == OpPreindex:
			t = &preindexed{change: c}
			l.preindexed[c.Path], known[i], to = t, t, &t.result
		case it.Op == OpAdd && t != nil && slices.Equal(t.change.Add, c.Add) && slices.Equal(t.change.Remove, c.Remove):
			known[i] = t
			continue
		}
		changes, into = append(changes, c), append(into, to)
		if it.Op == OpAdd || it.Op == OpReplace || it.Op == OpPreindex {
			files = append(files, coming{it, len(changes) - 1})
		}
	}
	if err := l.noteOldTags(ctx, files, changes); err != nil {
		return err
	}
	var flagged []ledger.Message
	var flags []*Item
	for _, it := range items {
		if it.Op == OpFlag {
			flagged, flags = append(flagged, it.Row), append(flags, it)
		}
	}
	twins, err := l.flagTwins(ctx, flags)
	if err != nil {
		return err
	}
	for _, c := range twins {
		changes, into = append(changes, c), append(into, new(mail.Result))
	}
	if len(flagged) > 0 {
		if err := l.Journal.IntendFlags(ctx, flagged); err != nil {
			return err
		}
		l.Report.Step("flags intended")
	}
	if len(changes) > 0 {
		applied, err := l.Index.Apply(ctx, changes)
		if err != nil {
			return err
		}
		if len(applied) != len(changes) {
			return fmt.Errorf("notmuch was told %d changes and answered %d", len(changes), len(applied))
		}
		l.Report.Step("batch indexed")
		for i, to := range into {
			*to = applied[i]
			if changes[i].Op == mail.OpAdd && to.ID != "" && !to.Duplicate {
				l.new++
			}
		}
	}
	for i, t := range known {
		results[i] = t.result
	}
	if err := l.postIndex(ctx, items, results); err != nil {
		return err
	}
	if err := l.record(ctx, items, results); err != nil {
		return err
	}
	if len(flagged) == 0 {
		return nil
	}
	if err := l.Journal.FlagsDone(ctx); err != nil {
		return err
	}
	l.Report.Step("flags done")
	return nil
}

// flagTwins gives the changes by which the other files of messages get the letters that their
// own ones get: one that takes the place of a message's file would undo the flags.
func (l *Line) flagTwins(ctx context.Context, items []*Item) (changes []mail.Change, err error) {
	items = slices.DeleteFunc(items, func(it *Item) bool { return it.Set+it.Clear == "" })
	if l.Twins == nil || len(items) == 0 {
		return nil, nil
	}
	twins, err := l.Twins(ctx, items)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, nil // a file that cannot be read keeps no other one from its flags
	}
	for _, it := range items {
		for _, path := range twins[it] {
			changes = append(changes, mail.Change{Op: mail.OpFlag, Path: path, ID: it.Row.ID, Set: it.Set, Clear: it.Clear})
		}
	}
	return changes, err
}

// putBack gives those of the messages whose rows went before that have a file again where it was:
// notmuch is not to forget it.
func putBack(items []*Item) (map[*Item]bool, error) {
	back := make(map[*Item]bool)
	in := make(map[maildir.Dir]*maildir.Listing)
	for _, it := range items {
		if !it.Forgotten() {
			continue
		}
		files, err := in[it.Box.Dir], error(nil)
		if files == nil {
			if files, err = it.Box.Dir.Scan(); errors.Is(err, fs.ErrNotExist) {
				files, err = new(maildir.Listing), nil
			}
			if in[it.Box.Dir] = files; err != nil {
				return nil, err
			}
		}
		key, _ := maildir.ParseName(it.Row.StubName)
		_, back[it] = files.Find(key)
	}
	return back, nil
}

// elsewhere is Elsewhere of those of the items that are gone.
func (l *Line) elsewhere(ctx context.Context, items []*Item) ([]mail.Change, error) {
	var gone []*Item
	for _, it := range items {
		if it.Op == OpGone && it.Row.State == ledger.Present && it.Row.ID != "" {
			gone = append(gone, it)
		}
	}
	if l.Elsewhere == nil || len(gone) == 0 {
		return nil, nil
	}
	return l.Elsewhere(ctx, gone)
}

// untagGone gives messages that are gone the tags that go with them: those of flags
// that no other message with the same notmuch id has. So a flag that was taken off a
// mail by another program, which moved it, too, goes off here.
func (l *Line) untagGone(ctx context.Context, items []*Item) error {
	type place struct {
		mailbox  string
		validity uint64
		uid      imap.UID
	}
	at := func(m ledger.Message) place { return place{m.Mailbox, m.UIDValidity, m.UID} }
	gone, now := make(map[place]bool), make(map[place]bool)
	for _, it := range items {
		switch {
		case it.Op != OpGone:
			now[at(it.Row)] = true // the ledger gets it with its record
		case !it.Forgotten(): // else its row went before, and another message's may be there
			gone[at(it.Row)] = true
		}
	}
	for _, it := range items {
		if it.Op != OpGone || it.Row.State != ledger.Present || it.Row.ID == "" {
			continue
		}
		copies, err := l.Ledger.ByMessageID(ctx, it.Row.ID)
		if err != nil {
			return err
		}
		var others []string
		left := false
		for _, m := range copies {
			if (m.State == ledger.Present || m.State == ledger.Intended) && !gone[at(m)] && !now[at(m)] {
				left, others = true, append(others, m.Flags...)
			}
		}
		for _, o := range items {
			if o.Op != OpGone && cmp.Or(o.ID, o.Row.ID) == it.Row.ID {
				left, others = true, append(others, o.Row.Flags...)
			}
		}
		if left {
			it.Add, it.Remove, _, _ = l.FlagTags(slices.Concat(others, it.Row.Flags), others)
		}
	}
	return nil
}
