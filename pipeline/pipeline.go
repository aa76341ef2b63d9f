package pipeline

import (
	"context"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Session is one signed-in connection to an IMAP server, in parts by what is done over it.
// Its methods are called from one goroutine at a time. Errors are *mail.Fault, the context's,
// or the sink's own. Once Alive is false, only Close may be called. Each stage says itself
// what it needs of it.
type Session struct {
	probe.Opener
	Lister
	Folders
	Describer
	Fetcher
	Writer
	Greeting string // what the server said first
}

// Lister tells which mailboxes there are.
type Lister interface {
	probe.Lister
	// Has tells whether a capability may be used.
	Has(capability string) bool
	// Namespace gives the prefix that the user's own mailboxes have, such as
	// "INBOX."; told is false if the server does not say.
	Namespace(ctx context.Context) (prefix string, told bool, err error)
	// Recount gives the status of one mailbox anew. It may close the one that is open.
	Recount(ctx context.Context, mailbox string) (mail.Status, error)
}

// Folders makes and deletes mailboxes.
type Folders interface {
	Create(ctx context.Context, mailbox string) error
	Delete(ctx context.Context, mailbox string) error
	Subscribe(ctx context.Context, mailbox string) error
	Unsubscribe(ctx context.Context, mailbox string) error
}

// Describer tells of the messages of the mailbox that is open.
type Describer interface {
	probe.Searcher
	// Deleted gives the messages that are marked \Deleted.
	Deleted(ctx context.Context) (imap.UIDSet, error)
	// Flags gives UID and flags of those of uids that exist and that changed
	// after the mod-sequence changedSince (0: all).
	Flags(ctx context.Context, uids imap.UIDSet, changedSince uint64) ([]mail.Message, error)
	// Identify gives flags, date, size and Message-ID.
	Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
	// Sizes gives their sizes alone.
	Sizes(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
	// Headers gives some fields of the headers of messages. What came is there
	// beside an error, too.
	Headers(ctx context.Context, uids imap.UIDSet, fields ...string) (map[imap.UID][]byte, error)
}

// Fetcher fetches messages of the mailbox that is open.
type Fetcher interface {
	// Fetch streams the messages of one batch. A nil error does not mean that
	// all of them came.
	Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error
	// FetchRest streams what a message has behind its first bytes.
	FetchRest(ctx context.Context, uid imap.UID, from int64, sink mail.Sink) error
	// FetchOne fetches one message with the tolerant reader. The exchange is
	// there beside an error, too.
	FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error)
	// Exchange speaks one command by hand. A tagged NO or BAD is no error.
	Exchange(ctx context.Context, command string) (*mail.Exchange, error)
}

// Writer changes messages of the mailbox that is open for that. What is said of each verb
// stands with the stage that uses it.
type Writer interface {
	probe.Marker
	Move(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error)
	Copy(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error)
	Append(ctx context.Context, mailbox string, uploads []mail.Upload, stored func(i int, as mail.Appended), then *mail.Known) ([]mail.Appended, error)
	ExpungeUIDs(ctx context.Context, uids imap.UIDSet) error
	ExpungeMarked(ctx context.Context) error
}

// Deleter is the session as single messages are deleted over it.
func (s Session) Deleter() probe.Deleter {
	return probe.Deleter{Opener: s, Searcher: s, Lister: s, Transferrer: s, Marker: s, Expunger: s}
}

// Index is the notmuch database. Apply does the changes and commits them within
// one short hold of the write lock; the results stand at the places of their
// changes. It may be called again with changes that it did before.
type Index interface {
	Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error)
	local.Index
}

// Options is one account's sync: what the account is, what its owner has configured, and
// what this run is asked for.
type Options struct {
	Account
	Policy
	Request
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	o.Connections = max(o.Connections, 1)
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Deletions == "" {
		o.Deletions = DeletionsTrash
	}
	if o.Pause == nil {
		o.Pause = report.Pause
	}
	if o.Hooks != nil {
		o.Index = apart{o.Index, o.Hooks}
	}
	return o
}

// Account is the two sides of an account, and what a run needs to work on them.
type Account struct {
	Name    string // as the configuration has it
	Address string // the user's name at the server, for stubs whose sender is unknown
	Root    string // absolute path of the account's folder, below notmuch's mail root

	Dial   func(ctx context.Context) (Session, error)
	Index  Index
	Ledger *ledger.Ledger
	// Ahead indexes files that are new, if they are many and worth it, before Index is told of
	// them, and tells progress of how many it has. own is how many messages are in the database by
	// this run. renewed tells that the database is a new one since, with all that it had. nil:
	// nothing is.
	Ahead func(ctx context.Context, changes []mail.Change, own int, progress func(done int)) (renewed bool, err error)
	// SignIn gives fingerprints by key of what Dial signs in with: of the configuration,
	// and of the secret, "" where that is not known without asking a program or a person.
	// After a refusal it tells whether something else would be tried. May be nil.
	SignIn func(ctx context.Context, key string) (way, secret string)
	// Refusals is shared by the sessions that Dial gives; nil if nothing is kept of what the
	// server refuses.
	Refusals Refusals
	// Carrier brings large messages beside the runs; nil: a run waits for them.
	Carrier *pull.Carrier
	// Hooks are asked and told on the way; nil has none. A dry run leaves them
	// alone.
	Hooks *hooks.Runner

	Now func() time.Time
	// Pause waits, or gives the context's error; nil: it waits by the clock.
	Pause func(ctx context.Context, d time.Duration) error
	// Emit is told what happens while it happens, and tells whether somebody could read
	// it: what is told once is told again until then. Calls are serialised. May be nil.
	Emit func(report.Event) (shown bool)
	// Step is called after every durable effect with its name. It is how the
	// tests kill a run at each of them. May be nil.
	Step func(effect string)
}

// Policy is what the configuration wants of an account.
type Policy struct {
	plan.Tags

	// Selects tells whether a mailbox is to be synchronised; nil means all. Several goroutines
	// may ask it.
	Selects func(mailbox string, delim rune) bool
	// TagRules gives the tags that mail of a mailbox gets or loses when it
	// comes; nil means none.
	TagRules func(mailbox string, delim rune) (add, remove []string)

	// Folders gives the folders in which another program may have a mailbox, the likeliest
	// first: one that was here before the first sync becomes its own. nil has none.
	Folders func(mailbox string, delim rune) []string

	// Were are mailboxes of another server, by the folders that were theirs: one that is made of
	// such a folder is called so.
	Were map[string]mail.Mailbox
	// Own are the keys of files each of which was a message of its own there: two of them that
	// are equal are two messages.
	Own map[string]bool

	Layout      maildir.Layout // what the folder of a mailbox is called that the ledger does not know
	Connections int            // at most so many at once; 0 means 1
	Timeout     time.Duration  // longest silence of the server; bounds the salvage of one message
	Batch       int            // mails per commit of the index, without waiting for more; 0 means 300 or what a second brings

	ReadOnly  bool      // change nothing on the server
	Deletions Deletions // of files here; "" means to the Trash
	Trash     string    // the mailbox that is the Trash; "" finds it
	// AtticDays is for how long mail is kept beside the ledger that is removed here since it is gone on
	// the server, and AtticSize how much of it, in bytes; 0 days keep none.
	AtticDays int
	AtticSize int64
	NoAttic   string // why no mail goes there all the same; "": it does
}

// Request is what one run is asked for.
type Request struct {
	Only   []string // mailboxes, instead of all that Selects takes
	Retry  []Target // ask for these now, whatever the schedule says, also if they were given up
	GiveUp []Target // ask for these no more, and remove their stubs

	Full   bool // compare every mailbox as a whole, whatever STATUS says, and ask for every stub again
	DryRun bool // say what would be done, change nothing
	Plan   bool // and say each action of it, as the log would have it of a run
	// UploadHere: the server is given also the mail and the folders that were here before
	// the first sync.
	UploadHere bool
	// uploadIn are the only mailboxes for which a dry run foresees that; nil: it does for all.
	uploadIn []string
	// then is asked for when this is done; nil: nothing.
	then *Request
	// PairOnly: what is here is paired with what is there in mailboxes that were never
	// synchronised, and nothing else is done.
	PairOnly bool
	// Rules: tags move also mail of which they were said before it was where it is.
	Rules     bool
	Restore   bool // where the folders differ from what was agreed, the server is right
	YesDelete bool // let deletions beyond the guard through
	// YesDeleteIn are mailboxes whose deletions are let through.
	YesDeleteIn []string
	// Attended: a person is there, and a sign-in that was refused is tried at once.
	Attended bool
	// Remind is after how long a fault that waits for a person is told again; 0 tells
	// it in every run.
	Remind time.Duration
	// GiveWay tells that something else is to be done: large messages, of which a run brings
	// some, then wait for the next one. nil: they all come. Several goroutines may ask it.
	GiveWay func() bool
}

// What a run tells, by the names that a program which calls Sync knows it by.
type (
	Event     = report.Event
	EventType = report.EventType
	Report    = report.Report
	Held      = report.Held
	Failure   = report.Failure
	Scope     = report.Scope
)

// The events.
const (
	EventMailbox  = report.EventMailbox
	EventProgress = report.EventProgress
	EventStub     = report.EventStub
	EventHealed   = report.EventHealed
	EventGone     = report.EventGone
	EventNote     = report.EventNote
	EventHook     = report.EventHook
	EventFault    = report.EventFault
	EventAction   = report.EventAction
	EventDone     = report.EventDone
)

// The scopes.
const (
	ScopeNone    = report.ScopeNone
	ScopeMessage = report.ScopeMessage
	ScopeMailbox = report.ScopeMailbox
	ScopeAccount = report.ScopeAccount
	ScopeRun     = report.ScopeRun
)

// Remedy says what to do about an error of this machine; "" where that is not known.
func Remedy(err error) string { return report.Remedy(err) }

// Deletions says what becomes on the server of a message whose file the user deleted, or
// marked with T.
type Deletions = plan.Deletions

// Move is a rule by which tags move the mail of a mailbox to another one.
type Move = plan.MoveRule

// The kinds.
const (
	DeletionsTrash   = plan.DeletionsTrash   // moved to the Trash; in the Trash itself, expunged
	DeletionsExpunge = plan.DeletionsExpunge // expunged
	DeletionsKeep    = plan.DeletionsKeep    // it stays there
)
