package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// How much goes into one commit of the notmuch database. A program that reads
// meanwhile survives about one commit, so they come no faster than every second
// or so once the first mails are in, and what waits for the write lock waits no
// longer than one takes (NOTMUCH.md, Index speed).
const (
	indexBatch = 300
	indexDelay = time.Second
	// The first mails are searchable at once, but not each in a commit of its own.
	indexFirst = 20 * time.Millisecond
)

// index tells notmuch what was written, and records it. The write lock is held
// only while a batch that lies ready is applied. With nil, nothing more comes for a
// while, and with the channel's end, which gives nil, too, at all.
func (r *run) index(ctx context.Context) error {
	most, delay := r.Batch, time.Duration(0)
	if most <= 0 {
		most, delay = indexBatch, indexDelay
	}
	first := true
	for it := range r.written {
		if it == nil {
			continue
		}
		batch := []*item{it}
		wait := delay
		if first {
			wait = min(delay, indexFirst)
		}
		first = false
		late := time.NewTimer(wait)
	gather:
		for len(batch) < most {
			// What lies ready is taken before the clock is looked at.
			select {
			case it := <-r.written:
				if it == nil {
					break gather
				}
				batch = append(batch, it)
				continue
			default:
			}
			select {
			case it := <-r.written:
				if it == nil {
					break gather
				}
				batch = append(batch, it)
			case <-late.C:
				break gather
			case <-ctx.Done():
				late.Stop()
				return ctx.Err()
			}
		}
		late.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.indexItems(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// indexItems applies one batch and records it.
func (r *run) indexItems(ctx context.Context, items []*item) error {
	results := make([]mail.Result, len(items))
	var changes []mail.Change
	var into []*mail.Result // what they give
	known := make(map[int]*telling)
	if err := r.untagGone(ctx, items); err != nil {
		return err
	}
	for i, it := range items {
		c, err := it.change(r.NewTags)
		if err != nil {
			return err
		}
		to := &results[i]
		switch t := r.ahead[c.Path]; {
		case it.op == opAhead:
			t = &telling{change: c}
			r.ahead[c.Path], known[i], to = t, t, &t.result
		case it.op == opAdd && t != nil && slices.Equal(t.change.Add, c.Add) && slices.Equal(t.change.Remove, c.Remove):
			known[i] = t
			continue
		}
		changes, into = append(changes, c), append(into, to)
	}
	if err := r.intendFlags(ctx, items); err != nil {
		return err
	}
	if len(changes) > 0 {
		applied, err := r.Index.Apply(ctx, changes)
		if err != nil {
			return err
		}
		if len(applied) != len(changes) {
			return fmt.Errorf("notmuch was told %d changes and answered %d", len(changes), len(applied))
		}
		r.step("batch indexed")
		for i, to := range into {
			*to = applied[i]
		}
	}
	for i, t := range known {
		results[i] = t.result
	}
	if err := r.postIndex(ctx, items, results); err != nil {
		return err
	}
	if err := r.record(ctx, items, results); err != nil {
		return err
	}
	return r.flagsDone(ctx, items)
}

// tell tells notmuch of changes that are no items on the line. What this machine
// could not do for one of them is an error, too: nothing else would do it later. That
// a file is gone by now is none, nor that notmuch never takes it.
func (r *run) tell(ctx context.Context, changes []mail.Change) error {
	results, err := r.Index.Apply(ctx, changes)
	for _, res := range results {
		if res.Err != nil && !res.NotMail && !errors.Is(res.Err, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("notmuch could not be told of %s: %w", res.Path, res.Err))
		}
	}
	return err
}

// intendFlags records which flags are about to change here.
func (r *run) intendFlags(ctx context.Context, items []*item) error {
	var intents []journal.Flagging
	for _, it := range items {
		if it.op == opFlag {
			intents = append(intents, journal.Flagging{Mailbox: it.row.Mailbox, UIDValidity: it.row.UIDValidity, UID: it.row.UID, Flags: it.row.Flags})
		}
	}
	if len(intents) == 0 {
		return nil
	}
	if err := r.notes().Flags.Set(ctx, intents); err != nil {
		return err
	}
	r.step("flags intended")
	return nil
}

// flagsDone closes what intendFlags opened.
func (r *run) flagsDone(ctx context.Context, items []*item) error {
	if !slices.ContainsFunc(items, func(it *item) bool { return it.op == opFlag }) {
		return nil
	}
	if err := r.notes().Flags.Drop(ctx); err != nil {
		return err
	}
	r.step("flags done")
	return nil
}

// telling is what notmuch was told of an uploaded file, and what became of it.
type telling struct {
	change mail.Change
	result mail.Result
}

// record is the acknowledgement: from here on nothing of these messages is done
// again.
func (r *run) record(ctx context.Context, items []*item, results []mail.Result) error {
	var rows []ledger.Message
	type place struct {
		mailbox  string
		validity uint64
	}
	gone := make(map[place][]imap.UID)
	left := make(map[int]bool) // for the next run
	var told journal.Change
	for i, it := range items {
		if it.op == opAhead {
			continue // it gets its row when it is found on the server
		}
		res := results[i]
		row := it.row
		switch {
		case res.Err == nil:
		case errors.Is(res.Err, fs.ErrNotExist):
			// The user took the file away since; what was agreed is agreed all
			// the same.
		case res.NotMail:
			// It is stored; that notmuch cannot have this one file must not
			// keep it from the others.
			r.note(it.box, "UID %d: %v", it.row.UID, res.Err)
		default:
			// What this machine could not do now is no fact about the mail. It
			// is not recorded, so that the next run does it, and stays pending,
			// so that the mailbox's marks stay, too. Flags that were recorded
			// would look as if the user had changed the file's letters.
			r.mailboxFault(it.box, &report.OwnError{Err: fmt.Errorf("UID %d: notmuch could not be told, and is told by the next run: %w", it.row.UID, res.Err)})
			r.mu.Lock()
			it.box.pending++
			r.mu.Unlock()
			left[i] = true
			continue
		}
		if res.ID != "" {
			row.ID = res.ID
		}
		if res.Path != "" && it.op != opGone {
			if name, err := filepath.Rel(string(it.box.dir), res.Path); err == nil && !strings.HasPrefix(name, "..") {
				it.row = row
				it.setName(name)
				row = it.row
			}
		}
		switch it.op {
		case opAdd:
			row.State = ledger.Present
		case opReplace:
			if name, ok, err := it.box.find(it.row.StubKey, it.row.StubName); err != nil {
				return err
			} else if ok {
				if err := it.box.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				r.step("stub removed")
			}
			row.State, row.StubKey, row.StubName = ledger.Present, "", ""
			row.Attempts, row.Since, row.NextTry = 0, time.Time{}, time.Time{}
			if !it.salvaged {
				row.Reason = ""
			}
		case opStub:
			row.State = ledger.Stub
		case opPlaceholder:
			row.State = ledger.Skipped
		case opGone:
			if it.forgotten() {
				r.notes().Forgotten.Forget(&told, journal.About(row))
				continue
			}
			r.forgetRuled(&told, row)
			r.forgetTold(&told, row)
			if !it.known {
				if err := r.noteRemoved(ctx, &told, row, res.Tags); err != nil {
					return err
				}
			}
			at := place{row.Mailbox, row.UIDValidity}
			gone[at] = append(gone[at], row.UID)
			continue
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		var c journal.Change
		r.haveArrived(&c, rows)
		r.forgetTold(&c, rows...)
		if err := r.commit(ctx, c, "messages recorded"); err != nil {
			return err
		}
	}
	if !told.Empty() {
		if err := r.commit(ctx, told, "forgotten files told"); err != nil {
			return err
		}
	}
	for at, uids := range gone {
		if err := r.Ledger.Delete(ctx, at.mailbox, at.validity, uids...); err != nil {
			return err
		}
		r.step("deletions recorded")
	}
	for i, it := range items {
		if it.op != opAhead && !left[i] {
			r.told(it, results[i])
		}
		if err := r.release(ctx, it.box); err != nil {
			return err
		}
	}
	r.rep.Progress()
	return nil
}

// told counts a recorded item and says what a person wants to know of it.
func (r *run) told(it *item, res mail.Result) {
	r.tally(func(rep *report.Report) {
		switch it.op {
		case opAdd, opReplace:
			if !it.known {
				rep.New++
			}
			if it.op == opReplace {
				rep.Healed++
			}
			if it.salvaged {
				rep.Salvaged++
			}
			if res.NotMail {
				rep.NotMail++
			}
		case opFlag:
			if res.Err == nil && !it.known {
				rep.Flagged++
			}
		case opGone:
			if !it.known {
				rep.Removed++
			}
		case opStub:
			rep.NewStubs++
		case opPlaceholder:
			rep.Skipped++
		}
	})
	switch it.op {
	case opAdd, opReplace:
		if !it.known {
			r.rep.Came()
		}
	case opStub, opPlaceholder:
		r.rep.Came()
	}
	switch {
	case it.op == opReplace:
		r.emit(report.Event{Type: report.EventHealed, Mailbox: it.box.Name, UID: it.row.UID, Text: "the mail came at last and took the place of its stub"})
	case it.op == opStub:
		r.emit(report.Event{Type: report.EventStub, Mailbox: it.box.Name, UID: it.row.UID,
			Text: it.row.Reason + "; a note with the details stands in its place (notmuch search tag:" + TagFailed + ")"})
	case it.op == opGone && (it.row.State == ledger.Stub || it.row.State == ledger.Skipped):
		r.emit(report.Event{Type: report.EventGone, Mailbox: it.box.Name, UID: it.row.UID, Text: "the server lists this message no more; its stub was removed"})
	case res.NotMail:
		r.note(it.box, "UID %d is stored as %s, but notmuch does not take it for a mail", it.row.UID, it.row.Name)
	}
}

// release takes one pending thing off the mailbox's books. The last one moves
// the mailbox's marks on: all that the server told is dealt with.
func (r *run) release(ctx context.Context, b *box) error {
	r.mu.Lock()
	b.pending--
	whole := b.looked && b.pending == 0 && len(b.batches) == 0 && !b.failed
	r.mu.Unlock()
	if !whole || r.DryRun {
		return nil
	}
	if err := r.toldIsOver(ctx, b); err != nil || b.unchanged() {
		return err
	}
	return r.saveMailbox(ctx, b, true)
}

// unchanged tells whether the ledger's row says already what it would say now.
func (b *box) unchanged() bool {
	return b.goesOn() && b.known.UIDNext == b.now.UIDNext && b.known.HighestModSeq == b.now.HighestModSeq && b.known.Messages == b.now.Messages
}
