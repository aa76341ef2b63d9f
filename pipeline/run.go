package pipeline

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// run is one account's sync while it goes on.
type run struct {
	Options
	rep    *report.Reporter
	keys   maildir.Keys
	secret string // by which stubs are signed

	line *deliver.Line
	ask  *ask.Hooks
	here *local.Reader
	// What was told, met and removed in this run and in earlier ones.
	told     *journal.ToldFlags
	standing *journal.StandingFaults
	removed  *journal.RemovedMail
	// prescan is what the folders held before the server was heard of.
	prescan *local.Prescan
	pool    *pull.Pool[*box] // what is to be looked into and fetched

	mu                sync.Mutex
	reportedUnhealthy bool            // it was said that the server is not well
	unselected        []*box          // not to be synchronised now, but mail may be in their folders
	scansUnstable     bool            // folders changed all the while they were scanned
	moved             bool            // mail may have moved between mailboxes: look before downloading
	stays             map[string]bool // mailboxes that no message has left, as far as is known
	trash             *box            // the account's Trash; nil if it has none
	daily             map[string]bool // mailboxes that are emptied in daily life
	foreseen          map[string]bool // messages that a dry run finds new
	silent            map[string]bool // and this one
	listed            map[string]bool // names that the server has
	listedAt          time.Time       // when it said so
	foldersToCreate   []*box          // folders of which the server is to make mailboxes
	detached          []*box          // folders whose mail the server cannot have now
	exchange          bool            // the server is Exchange, so far as it shows
	tags              mail.Revision   // the notmuch database when its tags were looked at
	// stored are the flags that the server was told, by mailbox: of a message that
	// somebody moved meanwhile they are not with it.
	stored     map[string]map[imap.UID]plan.Delta
	hooksBegan bool // they let the run begin, and are told of its end
	// finished are messages, by mailbox, of moves that were interrupted: nothing else is
	// to be done with them.
	finished map[string]map[imap.UID]bool
	// unsettled are mailboxes of which it is not known what an interrupted run has put
	// there, with what that may be.
	unsettled map[string][]ledger.Message
	comes     map[string]bool // keys of files with an arrival in the ledger
	strays    []stray
	ruledTo   map[string]string          // where messages go by their tags, by journal.About
	silences  map[string]journal.Silence // commands that earlier runs had no answer to, by silentKey
}

// box is one mailbox while it is worked on. Fields below mu are guarded by
// run.mu; the others belong to the worker that looks into it, and are constant
// from then on.
type box struct {
	mail.Mailbox
	line   *deliver.Mailbox
	known  ledger.Mailbox // zero if the ledger does not know it
	dir    maildir.Dir
	need   plan.Need
	now    mail.Status                 // as EXAMINE had it
	due    []ledger.Message            // stubs to ask for again
	stubs  map[imap.UID]ledger.Message // all its stubs
	add    []string                    // tags by rule
	remove []string
	local  local.Folder // what is here
	barred bool         // that its folder could not be read was said
	// expected are files by the UID that their message has got on the server;
	// uploaded are files whose UID was not told.
	expected map[imap.UID]string
	only     bool                  // nothing is pushed to any other mailbox
	next     bool                  // and none of them is looked into before it
	withheld map[string]plan.Delta // by file: flags that a hook keeps from the server
	uploaded []plan.Untracked
	// identified are messages that EXAMINE told more of.
	identified []mail.Message
	came       map[imap.UID]ledger.Message // where this run moved a new message from
	ours       map[imap.UID]bool           // messages that we took out of it on the server
	witnesses  []imap.UID                  // whose identity tells whether UIDs mean what they meant
	// contradicted: a UID is of another message than was agreed on.
	contradicted bool
	unknown      bool // we may have put messages into it since its status was told

	// guarded by run.mu
	mute bool // the server does not describe its messages
	// unsettled: flags on the server differ from the rows', and are to be told again.
	unsettled bool
	// suspect is set where so much is gone from the server that it is to be judged when
	// all that came is known.
	suspect *plan.Suspicion
}

// newRun begins a run: the whole of it, or the part that a verb of its own needs.
func newRun(o Options) *run {
	r := &run{Options: o, rep: report.NewReporter(report.Report{Account: o.Account.Name, DryRun: o.DryRun}, o.Now, o.Emit, o.Step),
		finished: make(map[string]map[imap.UID]bool), foreseen: make(map[string]bool),
		told: journal.NewToldFlags(o.notes()), standing: journal.NewStandingFaults(o.notes(), o.Now, o.Remind), removed: journal.NewRemovedMail(o.notes(), o.Now)}
	r.ask = ask.New(o.Account.Name, o.Hooks, o.Ledger.Dir(), r.rep, o.Now)
	r.here = &local.Reader{
		Account: o.Account.Name, Root: o.Root, Ledger: o.Ledger, Index: o.Index, Journal: o.notes(), Report: r.rep,
		Tags: o.Tags, Deletions: o.Deletions, Believed: r.yes, Selects: o.Selects,
		ReadOnly: o.ReadOnly, Restore: o.Restore, DryRun: o.DryRun,
	}
	r.line = deliver.New(deliver.Options{
		Index: o.Index, Ledger: o.Ledger, Journal: lineNotes{o.notes(), r}, Hooks: r.ask, Report: r.rep, Now: o.Now,
		NewTags: o.NewTags, Batch: o.Batch, FlagTags: plan.FlagTags,
	})
	return r
}

// newBox begins the work in a mailbox of which the ledger knows this, and whose folder
// that says.
func (r *run) newBox(m mail.Mailbox, known ledger.Mailbox) *box {
	b := &box{Mailbox: m, known: known, dir: maildir.Dir(filepath.Join(r.Root, known.Folder)), stubs: make(map[imap.UID]ledger.Message)}
	b.line = deliver.NewMailbox(m.Name, b.dir,
		func(ctx context.Context) error { return r.settled(ctx, b) },
		func(err error) { r.mailboxFault(b, err) })
	b.line.Quiet = m.Name == r.Trash || m.For(`\Trash`, "Trash", "Deleted Items", "Deleted Messages") || m.For(`\Junk`, "Junk", "Spam") || plan.OwnFlags(m) != nil
	return b
}

func (r *run) emit(e report.Event) { r.rep.Emit(e) }

func (r *run) note(b *box, format string, args ...any) { r.rep.Note(b.Name, format, args...) }

func (r *run) fault(f report.Failure) { r.rep.Fault(f) }

func (r *run) step(effect string) { r.rep.Step(effect) }

func (r *run) tally(f func(*report.Report)) { r.rep.Tally(f) }
