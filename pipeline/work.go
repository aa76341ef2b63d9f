package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// worker owns one connection and works through mailboxes and batches with it.
type worker struct {
	*run
	session  Session
	spare    bool // not the account's first: may go without harm
	selected *box // what the session has selected, nil if nothing or dead
	streak   int  // messages that failed in a row
	held     []failure
	broke    bool // the last batch ended with an error
	refusals int  // commands that change something and were refused
	// dealt are the messages of the unit under way that are on the line, and verdicts
	// what hooks said of them before they were fetched.
	dealt    map[imap.UID]bool
	verdicts map[imap.UID]hooks.Verdict
}

// unit is one piece of work: a mailbox to look into, or a batch of it to fetch.
type unit struct {
	box   *box
	batch []imap.UID // nil: look into the mailbox
}

// loop works until there is nothing more to do.
func (w *worker) loop(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			w.end() // nobody is to wait for what this one had in hand
		}
		if w.session != nil {
			err = errors.Join(err, ignore(w.session.Close()))
		}
	}()
	for {
		u, ok := w.next()
		if !ok {
			return ctx.Err()
		}
		if w.spare && (w.session == nil || !w.session.Alive()) {
			if err := w.connect(ctx); err != nil && ctx.Err() == nil {
				// Servers limit connections (Gmail: 15, wildduck#35). The others go on.
				w.giveBack(u)
				w.note(u.box, "no further connection: %v; going on with fewer", err)
				return nil
			}
		}
		w.dealt, w.verdicts = make(map[imap.UID]bool), make(map[imap.UID]hooks.Verdict)
		var err error
		if w.isSilent(u.box) {
			w.leave(u) // each further try costs the timeout
		} else {
			err = w.do(ctx, u)
			if err == nil && u.batch == nil {
				err = w.answered(ctx, silentKey("EXAMINE", u.box.Name))
			}
		}
		if err == nil {
			err = w.settle(ctx, u.box)
		}
		err = report.OfMailbox(u.box.Name, err)
		if err != nil && ctx.Err() == nil && w.mayGo(err) {
			// If it is the account's fault, the first connection meets it, too.
			w.note(u.box, "a connection is lost: %v; going on with fewer", err)
			if rest := w.rest(u); u.batch == nil || len(rest.batch) > 0 {
				w.giveBack(rest)
				return nil
			}
			return w.finish(ctx, u)
		}
		if err != nil {
			w.leave(u)
		}
		if err := w.finish(ctx, u); err != nil {
			return err
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox:
			w.mailboxFault(u.box, err)
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

// next gives out work: the rest of the mailbox that is selected, else a mailbox
// nobody has looked into, else a share of somebody else's. A spare worker without
// a connection takes part only if there is more than one piece: a sign-in costs
// more than a small batch. The first worker waits for nothing but work that another
// one has in hand, and of which more may come, or come back: so what is left over
// is always somebody's.
func (w *worker) next() (unit, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.ended {
		if w.selected != nil {
			if u, ok := w.batchOf(w.selected); ok {
				return u, true
			}
		}
		left := len(w.todo)
		for _, b := range w.open {
			left += len(b.batches)
		}
		if left > 1 || left == 1 && (w.session != nil || !w.spare) {
			if len(w.todo) > 0 {
				b := w.todo[0]
				w.todo = w.todo[1:]
				w.busy++
				return unit{box: b}, true
			}
			most := w.open[0]
			for _, b := range w.open {
				if len(b.batches) > len(most.batches) {
					most = b
				}
			}
			return w.batchOf(most)
		}
		if left == 0 && w.busy == 0 {
			w.cond.Broadcast()
			return unit{}, false
		}
		w.cond.Wait()
	}
	return unit{}, false
}

// batchOf takes a batch; the caller holds mu.
func (w *worker) batchOf(b *box) (unit, bool) {
	if len(b.batches) == 0 {
		return unit{}, false
	}
	u := unit{b, b.batches[0]}
	b.batches = b.batches[1:]
	w.busy++
	if len(b.batches) == 0 {
		w.open = slices.DeleteFunc(w.open, func(o *box) bool { return o == b })
	}
	return u, true
}

// rest is what of a unit is not on the line yet. Of a look that failed nothing is.
func (w *worker) rest(u unit) unit {
	if u.batch != nil {
		u.batch = slices.DeleteFunc(slices.Clone(u.batch), func(uid imap.UID) bool { return w.dealt[uid] })
	}
	return u
}

// giveBack leaves a unit to the others.
func (w *worker) giveBack(u unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	if u.batch == nil {
		w.todo = append([]*box{u.box}, w.todo...)
	} else {
		u.box.batches = append([][]imap.UID{u.batch}, u.box.batches...)
		if !slices.Contains(w.open, u.box) {
			w.open = append(w.open, u.box)
		}
	}
	w.cond.Broadcast()
}

// give puts a mailbox's batches where all workers find them.
func (w *worker) give(b *box, bs [][]imap.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.batches = append(b.batches, bs...)
	for _, x := range bs {
		w.rep.Expect(len(x))
		b.line.Begin()
	}
	if len(b.batches) > 0 && !slices.Contains(w.open, b) {
		w.open = append(w.open, b)
	}
	w.cond.Broadcast()
}

// finish takes a unit off the books: a look, or a batch that give has counted.
func (w *worker) finish(ctx context.Context, u unit) error {
	w.mu.Lock()
	w.busy--
	if u.batch == nil {
		u.box.looked = true
	}
	w.cond.Broadcast()
	w.mu.Unlock()
	return u.box.line.End(ctx)
}

// leave marks what a failed unit did not do.
func (w *worker) leave(u unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u.box.line.KeepMarks()
	u.box.left += len(w.rest(u).batch)
	w.held = nil // an unsettled failure is no finding; the next run asks again
	if w.session != nil && !w.session.Alive() {
		w.selected = nil
	}
}

// end stops giving out work: the account is left for now.
func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for _, b := range w.todo {
		b.line.KeepMarks()
	}
	for _, b := range w.open {
		b.line.KeepMarks()
	}
	w.cond.Broadcast()
}

func (w *worker) do(ctx context.Context, u unit) error {
	if u.batch == nil {
		return w.look(ctx, u.box)
	}
	if err := w.enter(ctx, u.box); err != nil {
		return err
	}
	uids, err := w.preFetch(ctx, u.box, u.batch)
	if err != nil {
		return err
	}
	for _, uid := range u.batch {
		w.dealt[uid] = !slices.Contains(uids, uid) // a hook keeps it away
	}
	if len(uids) == 0 {
		return nil
	}
	return w.fetch(ctx, u.box, uids)
}

// connect makes sure that there is a live connection. It waits where the
// server asks for a short time.
func (w *worker) connect(ctx context.Context) error {
	if w.session != nil && w.session.Alive() {
		return nil
	}
	if w.session != nil {
		_ = ignore(w.session.Close())
		w.session, w.selected = nil, nil
	}
	s, err := w.Dial(ctx)
	if wait, ok := report.Throttled(err); ok && wait <= report.Patience {
		if err := report.Pause(ctx, wait); err != nil {
			return err
		}
		s, err = w.Dial(ctx)
	}
	if err != nil {
		return &report.ConnectError{Err: err}
	}
	w.session, w.selected = s, nil
	return nil
}

// enter makes b the selected mailbox of a live connection, and makes sure that
// its UIDs still mean what they meant.
func (w *worker) enter(ctx context.Context, b *box) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	if w.selected == b && w.session.Mailbox() == b.Name {
		return nil
	}
	w.selected = nil
	sel, err := w.session.Examine(ctx, b.Name, nil)
	if err != nil {
		return err
	}
	if sel.UIDValidity != b.now.UIDValidity {
		return &mail.Fault{Kind: mail.KindMalformed, Op: "EXAMINE", Mailbox: b.Name,
			Text: fmt.Sprintf("UIDVALIDITY changed from %d to %d during the run", b.now.UIDValidity, sel.UIDValidity)}
	}
	w.selected = b
	return nil
}
