// Package deliver is the way of a message from a connection to the ledger:
//
//	write -> index -> record
//
// It alone has the channels between them, and counts what of a mailbox is under way.
// Record comes last and is the acknowledgement: a crash before it repeats the work, and
// every stage is idempotent for that.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Index is told what became of files, in one short hold of notmuch's write lock. The
// results stand at the places of their changes.
type Index interface {
	Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error)
}

// Ledger has the rows of messages.
type Ledger interface {
	Save(ctx context.Context, rows ...ledger.Message) error
	ByMessageID(ctx context.Context, id string) ([]ledger.Message, error)
}

// Journal has the notes of what is begun, which the line opens and closes.
type Journal interface {
	// Record records a change, all or nothing.
	Record(ctx context.Context, c journal.Change) error
	// IntendFlags notes which flags are about to change here: rows have them as the
	// server does. FlagsDone closes that.
	IntendFlags(ctx context.Context, rows []ledger.Message) error
	FlagsDone(ctx context.Context) error
	// Recorded lets a change record rows, and forget what was noted until then.
	Recorded(ctx context.Context, c *journal.Change, rows []ledger.Message) error
	// Deleted lets a change forget what was noted of a message that is gone. tags are
	// those that its mail had, if it is to get them when it comes again; else nil.
	Deleted(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error
	// ToTellGone lets a change forget a message, and note that notmuch is yet to hear of
	// its file. ToldGone lets one forget that note, by the row that went before.
	ToTellGone(c *journal.Change, row ledger.Message, tags []string)
	ToldGone(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error
}

// Hooks are asked about mails on the line and told of them.
type Hooks interface {
	At(points ...hooks.Point) bool
	// JudgeFile puts an event to the hooks with the mail at path; since is when one of
	// them deferred it first.
	JudgeFile(ctx context.Context, e hooks.Event, path string, since time.Time) (hooks.Outcome, error)
}

// Attic keeps mail for a while that is removed here.
type Attic interface {
	// Wants tells whether the mail of a message that is gone would be nowhere any more without its
	// file. going tells of other messages whether they are gone, too, or may be.
	Wants(ctx context.Context, row ledger.Message, going func(ledger.Message) bool) (bool, error)
	// Keep moves the file of this name in a folder into the attic.
	Keep(dir maildir.Dir, name string) error
}

// Options is what a line needs.
type Options struct {
	Index   Index
	Ledger  Ledger
	Journal Journal
	Hooks   Hooks
	Report  *report.Reporter
	Now     func() time.Time
	NewTags []string // notmuch's new.tags
	Batch   int      // mails per commit of the index, without waiting for more; 0 means BatchSize or what a second brings
	// FlagTags gives the tags that a change of flags adds and removes, and the maildir
	// letters.
	FlagTags func(before, after []string) (add, remove []string, set, clear string)
	// Twins gives the paths of the other files that messages have in their folders; nil: they
	// have none.
	Twins func(ctx context.Context, items []*Item) (map[*Item][]string, error)
	// Elsewhere gives what notmuch is to hear before it hears that messages are gone: where their
	// mail is now, of which it would have no other name; nil: it is nowhere.
	Elsewhere func(ctx context.Context, gone []*Item) ([]mail.Change, error)
	// ChangedSince tells whether a file that is to be removed has other letters than it had
	// when its mail was linked to where it is now; nil: it has not.
	ChangedSince func(row ledger.Message, letters string) bool
	// Attic keeps files that are removed since their mail is gone on the server; nil: nothing does.
	Attic Attic
	// PutOff keeps what came of a message that a hook puts off; nil: it comes again.
	PutOff func(row ledger.Message, file string)
	// Orders is what tags order, Ordered whether they do.
	Orders  Orders
	Ordered bool
	// Ahead has much mail that comes at once indexed before Index is told of it, and tells how
	// many of it are so far. own is how many messages are in notmuch by this run. An error
	// costs nothing but time. nil: nothing is.
	Ahead func(ctx context.Context, changes []mail.Change, own int, progress func(done int)) error
}

// Line is the way of one account's messages in one run.
type Line struct {
	Options
	spooled chan entry // to write; Run's from is its sender
	written chan entry // to index; write is its sender

	mu    sync.Mutex
	held  []*Item
	going map[string]bool // what these are about

	// preindexed is what notmuch was told of uploaded files before they were found on
	// the server, by path. It is the index stage's.
	preindexed map[string]*preindexed
	// new is how many messages notmuch had not before it was told of them; likewise.
	new int
	// after and from are aheadAfter and aheadFrom, for tests.
	after, from int
}

// entry is what the channels carry: an item, or, without one, that nothing more comes
// for a while.
type entry struct{ item *Item }

// New gives a line with nothing on it.
func New(o Options) *Line {
	return &Line{
		Options: o, preindexed: make(map[string]*preindexed), after: aheadAfter, from: aheadFrom,
		spooled: make(chan entry, 256),
		// Fetching must not wait for the index, which is the slower by far; what
		// waits here is names of files on disk.
		written: make(chan entry, 8192),
	}
}

// Run runs the stages beside from, which alone puts onto the line, until everything is
// recorded that from put there.
func (l *Line) Run(ctx context.Context, from func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(l.spooled)
		return from(ctx)
	})
	g.Go(func() error {
		defer close(l.written)
		return l.write(ctx)
	})
	g.Go(func() error { return l.index(ctx) })
	err := g.Wait()
	// What an interrupted run leaves in the channels is in the ledger as
	// intended, or only a file in tmp.
	for e := range l.spooled {
		if e.item != nil {
			e.item.discard()
		}
	}
	return err
}

// Send puts an item on the line. It counts as under way in its mailbox until it is
// recorded.
func (l *Line) Send(ctx context.Context, it *Item) error {
	it.Box.Begin()
	return l.put(ctx, entry{it})
}

// put puts what is counted already on the line.
func (l *Line) put(ctx context.Context, e entry) error {
	select {
	case l.spooled <- e:
		return nil
	case <-ctx.Done():
		if e.item != nil {
			e.item.discard()
		}
		return ctx.Err()
	}
}

// Announce lets notmuch hear of a file that the server has taken and that nothing is to
// be written for: of OpPreindex. That fails only when the run ends, and then so does what
// called it.
func (l *Line) Announce(ctx context.Context, it *Item) {
	_ = l.Send(ctx, it)
}

// Flush lets notmuch hear of what was announced and waits for more, since the next ones
// take a while.
func (l *Line) Flush(ctx context.Context) {
	_ = l.put(ctx, entry{})
}

// Hold keeps a deletion until Finish. It counts as under way.
func (l *Line) Hold(it *Item) {
	it.Box.Begin()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(l.held, it)
	if l.going == nil {
		l.going = make(map[string]bool)
	}
	l.going[journal.About(it.Row)] = true
}

// Forget puts into a change that a message is gone, and lets notmuch hear at the end
// that its file is where it was no more: not before the mail is known where it went,
// or its tags would go. A later run tells what this one does not come to; tags are for that, since
// notmuch may have seen by then that the file is gone.
func (l *Line) Forget(c *journal.Change, m *Mailbox, row ledger.Message, tags []string) {
	l.Journal.ToTellGone(c, row, tags)
	l.Hold(m.Forgetting(row))
}

// Tell tells notmuch of changes that are no items on the line. What this machine
// could not do for one of them is an error, too: nothing else would do it later. That
// a file is gone by now is none, nor that notmuch never takes it.
func (l *Line) Tell(ctx context.Context, changes []mail.Change) error {
	results, err := l.Index.Apply(ctx, changes)
	for _, res := range results {
		if why := res.Undone(); why != nil {
			err = errors.Join(err, fmt.Errorf("notmuch could not be told of %s: %w", res.Path, why))
		}
	}
	return err
}

// isGoing tells whether a message is gone, or may be.
func (l *Line) isGoing(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.going[journal.About(row)]
}

// Held are the deletions that wait for Finish.
func (l *Line) Held() []*Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// Finish lets those of the held deletions onto the line, behind everything that came, of
// which goes says so: mail that moved is linked from where it was, and nothing goes
// before its successor is here. What does not go stays under way, so that the mailbox's
// marks stay.
func (l *Line) Finish(ctx context.Context, goes func(*Item) bool) error {
	for _, it := range l.Held() {
		if !goes(it) {
			continue
		}
		if err := l.put(ctx, entry{it}); err != nil {
			return err
		}
	}
	return nil
}
