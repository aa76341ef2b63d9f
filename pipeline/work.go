package pipeline

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// worker owns one connection and works through mailboxes and batches with it.
type worker struct {
	*run
	conn     *conn.Conn[Session]
	spare    bool // not the account's first: may go without harm
	last     *box // of which it had its last unit; nil if it lost its connection with that
	streak   int  // messages that failed in a row
	held     []failure
	broke    bool // the last batch ended with an error
	refusals int  // commands that change something and were refused
	// dealt are the messages of the unit under way that are on the line, and verdicts
	// what hooks said of them before they were fetched.
	dealt    map[imap.UID]bool
	verdicts map[imap.UID]hooks.Verdict
}

// unit is one piece of work.
type unit = pull.Unit[*box]

// loop works until there is nothing more to do.
func (w *worker) loop(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			w.end() // nobody is to wait for what this one had in hand
		}
		w.conn.Close()
	}()
	for {
		u, ok := w.pool.Next(w.selected(), w.spare && !w.conn.Open())
		if !ok {
			return ctx.Err()
		}
		if w.spare && (!w.conn.Alive()) {
			if err := w.conn.Connect(ctx); err != nil && ctx.Err() == nil {
				// Servers limit connections (Gmail: 15, wildduck#35). The others go on.
				w.pool.GiveBack(u)
				w.note(u.Mailbox, "no further connection: %v; going on with fewer", err)
				return nil
			}
		}
		w.last = u.Mailbox
		w.dealt, w.verdicts = make(map[imap.UID]bool), make(map[imap.UID]hooks.Verdict)
		var err error
		left := 0
		if w.isSilent(u.Mailbox) {
			left = w.leave(u) // each further try costs the timeout
		} else {
			err = w.do(ctx, u)
			if err == nil && u.Batch == nil {
				err = w.answered(ctx, silentKey("EXAMINE", u.Mailbox.Name))
			}
		}
		if err == nil {
			err = w.settle(ctx, u.Mailbox)
		}
		err = report.OfMailbox(u.Mailbox.Name, err)
		if err != nil && ctx.Err() == nil && w.mayGo(err) {
			// If it is the account's fault, the first connection meets it, too.
			w.note(u.Mailbox, "a connection is lost: %v; going on with fewer", err)
			if rest := w.rest(u); u.Batch == nil || len(rest.Batch) > 0 {
				w.pool.GiveBack(rest)
				return nil
			}
			return w.finish(ctx, u, left)
		}
		if err != nil {
			left = w.leave(u)
		}
		if err := w.finish(ctx, u, left); err != nil {
			return err
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox:
			w.mailboxFault(u.Mailbox, err)
		default:
			w.end()
			return w.accountFault(ctx, err, report.AtConnect)
		}
	}
}

// mayGo tells whether the account goes on without this connection, which err ended.
func (w *worker) mayGo(err error) bool {
	_, throttled := report.Throttled(err)
	return w.spare && !throttled && report.ScopeOf(err, report.AtMailbox) == report.ScopeAccount
}

// rest is what of a unit is not on the line yet. Of a look that failed nothing is.
func (w *worker) rest(u unit) unit {
	if u.Batch != nil {
		u.Batch = slices.DeleteFunc(slices.Clone(u.Batch), func(uid imap.UID) bool { return w.dealt[uid] })
	}
	return u
}

// give puts a mailbox's batches where all workers find them.
func (w *worker) give(b *box, bs [][]imap.UID) {
	for _, x := range bs {
		w.rep.Expect(len(x))
		b.line.Begin()
	}
	w.pool.Give(b, bs)
}

// finish takes a unit off the books: a look, or a batch that give has counted. left is how
// many of its messages this run does not bring.
func (w *worker) finish(ctx context.Context, u unit, left int) error {
	w.pool.Finish(u, left)
	return u.Mailbox.line.End(ctx)
}

// leave gives a failed unit up, and tells how many of its messages this run does not bring.
func (w *worker) leave(u unit) int {
	u.Mailbox.line.KeepMarks()
	w.held = nil // an unsettled failure is no finding; the next run asks again
	if w.conn.Lost() {
		w.last = nil
	}
	return len(w.rest(u).Batch)
}

// end stops giving out work: the account is left for now.
func (w *worker) end() {
	for _, b := range w.pool.End() {
		b.line.KeepMarks()
	}
}

func (w *worker) do(ctx context.Context, u unit) error {
	if u.Batch == nil {
		return w.look(ctx, u.Mailbox)
	}
	if err := w.enter(ctx, u.Mailbox); err != nil {
		return err
	}
	uids, err := w.preFetch(ctx, u.Mailbox, u.Batch)
	if err != nil {
		return err
	}
	for _, uid := range u.Batch {
		w.dealt[uid] = !slices.Contains(uids, uid) // a hook keeps it away
	}
	if len(uids) == 0 {
		return nil
	}
	return w.fetch(ctx, u.Mailbox, uids)
}

// selected is the mailbox that can be fetched from at once; nil if there is none.
func (w *worker) selected() *box {
	if w.last == nil || w.last.Name != w.conn.Examined() {
		return nil
	}
	return w.last
}

// enter makes sure that b can be fetched from.
func (w *worker) enter(ctx context.Context, b *box) error {
	return w.conn.Enter(ctx, b.Name, b.now.UIDValidity)
}
