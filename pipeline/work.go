package pipeline

import (
	"context"
	"errors"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// worker owns one connection and works through mailboxes and batches with it.
type worker struct {
	*run
	conn    *conn.Conn[Session]
	spare   bool // not the account's first: may go without harm
	last    *box // of which it had its last unit; nil if it lost its connection with that
	fetcher *pull.Worker
}

// unit is one piece of work.
type unit = pull.Unit[*box]

// loop works until there is nothing more to do.
func (w *worker) loop(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			w.end() // nobody is to wait for what this one had in hand
		}
		if err != nil || w.spare || !w.endsPaired() {
			w.conn.Close()
		}
	}()
	for {
		u, ok := w.pool.Next(w.selected(), w.spare && !w.conn.Open())
		if !ok {
			return ctx.Err()
		}
		if w.givesWay(u) {
			w.pool.GiveBack(u)
			w.end()
			continue
		}
		if w.spare && !w.conn.Alive() {
			if err := w.conn.Try(ctx); err != nil && ctx.Err() == nil {
				// Servers limit connections (Gmail: 15, wildduck#35). The others go on.
				w.pool.GiveBack(u)
				w.rep.Note(u.Mailbox.Name, "no further connection: %v; going on with fewer", err)
				return nil
			}
		}
		w.last = u.Mailbox
		var err error
		rest, left := u.Batch, 0 // what is not on the line yet; of a look that failed nothing is
		switch {
		case w.unanswered.Silent("EXAMINE", u.Mailbox.Name):
			left = w.leave(u.Mailbox, rest) // each further try costs the timeout
		case u.Batch == nil:
			if err = w.look(ctx, u.Mailbox); err == nil {
				err = w.unanswered.Answered(ctx, "EXAMINE", u.Mailbox.Name)
			}
		default:
			rest, err = w.fetcher.Fetch(ctx, u.Mailbox.toFetch(), u.Batch)
			if _, ok := errors.AsType[*pull.Doubt](err); ok {
				w.pool.Drop(u.Mailbox)
			}
		}
		err = report.OfMailbox(u.Mailbox.Name, err)
		if err != nil && ctx.Err() == nil && w.mayGo(err) {
			// If it is the account's fault, the first connection meets it, too.
			w.rep.Note(u.Mailbox.Name, "a connection is lost: %v; going on with fewer", err)
			if u.Batch == nil || len(rest) > 0 {
				u.Batch = rest
				w.pool.GiveBack(u)
				return nil
			}
			return w.finish(ctx, u, left)
		}
		if err != nil {
			left = w.leave(u.Mailbox, rest)
		}
		if err := w.finish(ctx, u, left); err != nil {
			return err
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox:
			w.faults.mailbox(u.Mailbox, err)
		default:
			w.end()
			return w.faults.account(ctx, err, report.AtConnect)
		}
	}
}

// givesWay tells whether a unit waits for the next run, since something else is to be done. Some
// large messages each run brings, so that they all come in the end.
func (w *worker) givesWay(u unit) bool {
	if u.Batch == nil || u.Rank < pull.Large || w.GiveWay == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.largeBegun && w.GiveWay() {
		w.gaveWay.Store(true)
		return true
	}
	w.largeBegun = true
	return false
}

// mayGo tells whether the account goes on without this connection, which err ended.
func (w *worker) mayGo(err error) bool {
	_, throttled := report.Throttled(err)
	return w.spare && !throttled && report.ScopeOf(err, report.AtMailbox) == report.ScopeAccount
}

// give puts batches of a mailbox where all workers find them.
func (w *worker) give(b *box, r pull.Rank, bs [][]imap.UID) {
	var a report.Amount
	for _, x := range bs {
		a.Messages += len(x)
		for _, uid := range x {
			a.Bytes += b.line.Sizes[uid]
		}
		b.line.Begin()
	}
	if a.Messages > 0 {
		w.rep.Expect(a)
	}
	w.pool.Give(b, r, bs)
}

// finish takes a unit off the books: a look, or a batch that give has counted. left is how
// many of its messages this run does not bring.
func (w *worker) finish(ctx context.Context, u unit, left int) error {
	w.pool.Finish(u, left)
	return u.Mailbox.line.End(ctx)
}

// leave gives up what is left of a failed unit, and tells how many messages that are.
func (w *worker) leave(b *box, rest []imap.UID) int {
	b.line.KeepMarks()
	if w.conn.Lost() {
		w.last = nil
	}
	return len(rest)
}

// end stops giving out work: the account is left for now.
func (w *worker) end() {
	for _, b := range w.pool.End() {
		b.line.KeepMarks()
	}
}

// selected is the mailbox that can be fetched from at once; nil if there is none.
func (w *worker) selected() *box {
	if w.last == nil || w.last.Name != w.conn.Examined() {
		return nil
	}
	return w.last
}
