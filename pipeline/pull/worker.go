package pull

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Session fetches messages of the mailbox that is open on it. Its methods are called
// from one goroutine at a time. Errors are *mail.Fault, the context's, or the sink's own.
type Session interface {
	probe.Searcher
	// Fetch streams the messages of one batch. A nil error does not mean that
	// all of them came.
	Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error
	// FetchOne fetches one message with the tolerant reader. The exchange is
	// there beside an error, too.
	FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error)
	// Identify gives flags, date, size and Message-ID.
	Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
	// Headers gives some fields of the headers of messages. What came is there
	// beside an error, too.
	Headers(ctx context.Context, uids imap.UIDSet, fields ...string) (map[imap.UID][]byte, error)
}

// Connection is one that a worker has for itself. Both methods make sure that the mailbox
// is open on a live session, and that its UIDs still mean what they meant.
type Connection interface {
	Enter(ctx context.Context, m *Mailbox) (Session, error)
	// EnterByHand is for what is asked for item by item.
	EnterByHand(ctx context.Context, m *Mailbox) (probe.Speaker, error)
}

// Ledger has the rows of messages.
type Ledger interface {
	Rows(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Row, error)
	Save(ctx context.Context, rows ...ledger.Message) error
}

// Hooks are asked about messages before they are fetched.
type Hooks interface {
	At(points ...hooks.Point) bool
	// Judge puts an event to the hooks; since is when one of them deferred it first.
	Judge(ctx context.Context, e hooks.Event, since time.Time) (hooks.Outcome, error)
}

// Mailbox is one that is fetched from.
type Mailbox struct {
	*deliver.Mailbox                             // its name, its folder, and what of it is under way
	UIDValidity      uint64                      // of its messages, as they are fetched
	Stubs            map[imap.UID]ledger.Message // those that stand for messages of it
	Add, Remove      []string                    // tags by rule
}

func (b *Mailbox) parcel(uid imap.UID) Parcel { return Parcel{b.Name, b.UIDValidity, uid} }

// Options is what fetching needs of a run.
type Options struct {
	Line   *deliver.Line
	Index  deliver.Index
	Ledger Ledger
	Hooks  Hooks
	Report *report.Reporter
	Keys   *maildir.Keys // of files to come
	Now    func() time.Time
	Pause  func(ctx context.Context, d time.Duration) error // waits, or gives the context's error

	Timeout time.Duration // longest silence of the server; bounds the salvage of one message
	Tags    *plan.Tags
	Trash   string      // the mailbox that is the Trash, "" if there is none
	Origin  stub.Origin // what all stubs of the account say of it
	Carrier *Carrier    // of large messages; nil: they are waited for
	Shelf   Shelf       // of messages that hooks have put off

	// Known gives all mailboxes that the ledger knows, by name.
	Known func(context.Context) ([]*Mailbox, error)
	// Wanted tells whether the user asks for a message, whatever the schedule says.
	Wanted func(ledger.Message) bool
	// RestoreTags gives a mail that comes, and that was removed here before, the tags that it
	// had.
	RestoreTags func(ctx context.Context, m *Mailbox, it *deliver.Item) error
	// SendFlags sends the changed flags of a file down the line.
	SendFlags func(ctx context.Context, m *Mailbox, row ledger.Message, after []string) error
}

// Fetching is what the workers of a run have in common.
type Fetching struct {
	Options
	mu          sync.Mutex
	undescribed map[string]bool // mailboxes whose messages the server does not describe
}

// New gives the fetching of one run.
func New(o Options) *Fetching { return &Fetching{Options: o, undescribed: make(map[string]bool)} }

// Worker fetches over one connection. It belongs to one goroutine.
type Worker struct {
	*Fetching
	conn   Connection
	streak int  // messages that failed in a row
	broke  bool // the last command for a batch ended with an error

	// Of the batch under way: failures that are no stubs yet, messages that are dealt with,
	// and what hooks said of them before they were fetched.
	held     []failure
	dealt    map[imap.UID]bool
	verdicts map[imap.UID]hooks.Verdict
}

// Worker gives one that has this connection for itself.
func (f *Fetching) Worker(c Connection) *Worker { return &Worker{Fetching: f, conn: c} }

// Fetch brings the messages of a batch onto the line, or stubs in their place. rest are
// those that it did not deal with before an error.
func (w *Worker) Fetch(ctx context.Context, b *Mailbox, batch []imap.UID) (rest []imap.UID, err error) {
	w.held, w.dealt, w.verdicts = nil, make(map[imap.UID]bool), make(map[imap.UID]hooks.Verdict)
	if err = w.fetchAllowed(ctx, b, batch); err == nil {
		err = w.flushHeld(ctx, b)
	}
	if err == nil {
		return nil, nil
	}
	// A failure that is held still is no finding: the next run asks again.
	return slices.DeleteFunc(slices.Clone(batch), func(uid imap.UID) bool { return w.dealt[uid] }), err
}

// fetchAllowed fetches those that hooks do not keep away.
func (w *Worker) fetchAllowed(ctx context.Context, b *Mailbox, batch []imap.UID) error {
	if _, err := w.conn.Enter(ctx, b); err != nil {
		return err
	}
	batch = slices.DeleteFunc(slices.Clone(batch), func(uid imap.UID) bool {
		waits := w.Carrier.underWay(b.parcel(uid))
		if waits {
			if w.Carrier.takes { // the carrier's own runs have said so when they ordered it
				w.Report.Note(b.Name, "UID %d is large, and on its way by a watch", uid)
			}
			w.await(b, uid)
		}
		return waits
	})
	uids, err := w.preFetch(ctx, b, batch)
	if err != nil {
		return err
	}
	for _, uid := range batch {
		w.dealt[uid] = !slices.Contains(uids, uid)
	}
	if uids, err = w.unshelve(ctx, b, uids); err != nil {
		return err
	}
	if uids, err = w.carried(ctx, b, uids); err != nil || len(uids) == 0 {
		return err
	}
	return w.fetch(ctx, b, uids)
}

// Doubt says that nothing comes of a mailbox, while nothing is known by which to tell its
// fault from the server's: nothing more of it is to be asked for now. When others have come,
// the next run can tell.
type Doubt struct{ *mail.Fault }

// Unwrap gives the fault.
func (d *Doubt) Unwrap() error { return d.Fault }
