// Package push tells the server of what changed here, without a run: flags, moves, deletions
// and uploads, as plan has decided them. It is given what is here of the mailboxes as values,
// and a connection; what it has done on the server, and what is left of what is here, it gives
// back as values. What an interrupted push has left the next run ends by it, before anything is
// compared.
package push

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/match"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Session changes messages of the mailbox that is selected on it. Its methods are called
// from one goroutine at a time. Errors are *mail.Fault, the context's, or the sink's own.
type Session struct {
	Describer
	Writer
	probe.Expunger
}

// Describer tells of the messages that are to be changed, and where they are.
type Describer interface {
	probe.Lister
	probe.Searcher
	match.Session
	// Flags gives UID and flags of those of uids that exist and that changed
	// after the mod-sequence changedSince (0: all).
	Flags(ctx context.Context, uids imap.UIDSet, changedSince uint64) ([]mail.Message, error)
	// Identify gives flags, date, size and Message-ID.
	Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
}

// Writer changes messages, and puts them into mailboxes.
type Writer interface {
	probe.Transferrer
	probe.Marker
	// Append gives the server mails, many in one flight where it allows that
	// (RFC 9051 6.3.12). The results stand at the places of the uploads; the
	// error is of the connection, and those that were not answered then have it,
	// too. stored is called for each mail as soon as it is known to be stored. then
	// is what Examine will be asked of the mailbox next, so that it can be asked in
	// the same flight; it may be nil.
	Append(ctx context.Context, mailbox string, uploads []mail.Upload, stored func(i int, as mail.Appended), then *mail.Known) ([]mail.Appended, error)
}

// Connection is the one that a push has for itself.
type Connection interface {
	// Connect makes sure that there is a live session. Its error is a
	// *report.ConnectError, or the context's.
	Connect(ctx context.Context) error
	// Examine and Select open a mailbox on a session that is alive.
	Examine(ctx context.Context, mailbox string, known *mail.Known) (*mail.Selected, error)
	Select(ctx context.Context, mailbox string) (*mail.Selected, error)
	Session() Session
	Alive() bool
	Lost() bool // there is a session that is dead
}

// Ledger has the rows of what was agreed on. What becomes of that is recorded by the journal.
type Ledger interface {
	Rows(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Row, error)
	GetMany(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) ([]ledger.Message, error)
	// Like gives the messages that may be the mail of a row, or of a file.
	Like(ctx context.Context, m ledger.Message) ([]ledger.Message, error)
}

// Hooks are asked about flags before the server is told of them.
type Hooks interface {
	At(points ...hooks.Point) bool
	// JudgeFile puts an event to the hooks with the mail at path; since is when one of
	// them deferred it first.
	JudgeFile(ctx context.Context, e hooks.Event, path string, since time.Time) (hooks.Outcome, error)
}

// Here notes up to where what is here was told.
type Here interface {
	// MarkScanned notes that nothing is left to tell of what a scan of a folder saw, and
	// MarkTags the same of the tags in notmuch's database.
	MarkScanned(ctx context.Context, mailbox string, scanned journal.Scan) error
	MarkTags(ctx context.Context, at mail.Revision) error
	// Believe notes that a mailbox's folder is the right one, to be scanned again.
	Believe(ctx context.Context, mailbox string, dir maildir.Dir) error
	// DeletedByTag tells whether tags want mail deleted that was here before its mailbox.
	DeletedByTag(mailbox, trash string, t mail.Tagged) bool
}

// Options is what a push needs of a run.
type Options struct {
	Account string
	Line    *deliver.Line
	Ledger  Ledger
	Here    Here
	Hooks   Hooks
	Match   *match.Matcher
	Report  *report.Reporter
	Now     func() time.Time
	Pause   func(ctx context.Context, d time.Duration) error // waits, or gives the context's error

	Journal  *journal.Journal
	Told     *journal.ToldFlags
	Arrivals *journal.Arrivals
	Ruled    *journal.RuledMoves
	Old      *journal.OldTags

	Tags      *plan.Tags
	Deletions plan.Deletions
	ReadOnly  bool // the server is told nothing
	DryRun    bool // what would be done is said, and nothing is changed
	Plan      bool // and of each message
	Full      bool // what the server refused is tried again, whatever the schedule says
	Restore   bool // where the folders differ from what was agreed, the server is right
	Some      bool // not all mailboxes are asked for
	// UploadHere: what was here before the first sync is new mail as any other.
	UploadHere bool

	// Standing reports a fault of a mailbox that stays until a person does something.
	Standing func(mailbox, kind string, err error)
	// Again tells whether the upload of a file of a mailbox, by its key, is asked for whatever
	// its schedule says.
	Again func(mailbox, key string) bool
	// InNotmuch gives those of the messages with these ids, or of the files with these paths, that
	// notmuch knows.
	InNotmuch func(ctx context.Context, ids []string) (map[string]mail.Tagged, error)
	// LeftOut tells whether a mailbox is not asked now, since it does not answer.
	LeftOut func(mailbox string) bool
}

// Pusher tells the server of what changed here, in one run. It belongs to one goroutine.
type Pusher struct {
	Options
	conn     Connection
	boxes    map[string]*Mailbox
	trash    string        // the mailbox that is the Trash, "" if there is none
	tags     mail.Revision // the database whose tags are told; zero if some are to be looked at again
	listedAt time.Time     // when the server told the status of the mailboxes
	refusals int           // commands that change something and were refused
	// finished are messages, by mailbox, of moves that were interrupted: nothing else is
	// to be done with them.
	finished map[string]map[imap.UID]bool
	declined declined // what the server refused
	did      Result
	all      bool // nothing that was to be told is left
}

// New gives the one of a run.
func New(o Options) *Pusher {
	return &Pusher{Options: o, declined: declined{journal: o.Journal}, finished: make(map[string]map[imap.UID]bool), did: Result{
		Stored: make(map[string]map[imap.UID]plan.Delta), Left: make(map[string]bool),
	}}
}

// Orders are what a push is to do.
type Orders struct {
	Mailboxes []*Mailbox                // whose state is theirs afterwards
	Plans     map[string]*plan.Outgoing // by mailbox, what it is told
	Trash     string                    // the mailbox that is the Trash, "" if there is none
	Tags      mail.Revision             // the notmuch database of which this is told; zero if it is not all
	ListedAt  time.Time                 // when the server told the status of the mailboxes
}

// Result is what a push has done to the account; what it has done in a mailbox is the
// mailbox's.
type Result struct {
	// Stored are the flags that the server was told, by mailbox, and those of messages that
	// it has there no more: of a message that somebody moved they are not with it.
	Stored map[string]map[imap.UID]plan.Delta
	// Left are mailboxes that mail may have left.
	Left map[string]bool
	// Unmade are moves that were not made, for whatever reason, of mail whose file is
	// where it was put: others may have moved or deleted it on the server.
	Unmade []plan.Unmade
}

// told adds to what the server was told of flags.
func (r *Result) told(mailbox string, flags map[imap.UID]plan.Delta) {
	if r.Stored[mailbox] == nil {
		r.Stored[mailbox] = make(map[imap.UID]plan.Delta)
	}
	maps.Copy(r.Stored[mailbox], flags)
}

// Push tells the server what the user changed here, mailbox by mailbox. That mail was
// moved or deleted is recorded with the server's answer. The look that follows finds what
// came into the others and pairs it with its files, whoever brought it there and whenever.
// An error is one of the account or the run.
func (p *Pusher) Push(ctx context.Context, c Connection, o Orders) (Result, error) {
	p.conn, p.trash, p.tags, p.listedAt = c, o.Trash, o.Tags, o.ListedAt
	p.boxes = make(map[string]*Mailbox, len(o.Mailboxes))
	for _, b := range o.Mailboxes {
		p.boxes[b.Name] = b
	}
	plans, err := p.withDeclined(ctx, o.Plans)
	if err != nil {
		return p.did, err
	}
	whole := true
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		b, out := p.boxes[name], plans[name]
		if b == nil || b.Aside {
			continue // of no mailbox, or of none that is asked for
		}
		b.only = len(plans) == 1
		b.next = b.only && !slices.ContainsFunc(o.Mailboxes, func(o *Mailbox) bool { return o != b && !o.Aside && (o.Due || o.Look) })
		all, err := p.pushMailbox(ctx, b, out)
		if err != nil {
			return p.did, err
		}
		whole = whole && all
	}
	if !p.Restore {
		p.did.Unmade = p.unmade(o.Plans)
	}
	if p.all = whole && !p.Some; !p.all || p.awaits() {
		return p.did, nil
	}
	return p.did, p.Here.MarkTags(ctx, p.tags)
}

// pushMailbox tells the server of one mailbox. all tells whether nothing of that is left.
func (p *Pusher) pushMailbox(ctx context.Context, b *Mailbox, o *plan.Outgoing) (all bool, err error) {
	o.Without(p.finished[b.Name])
	if o.Held > 0 && b.Listed.Status.Messages == 0 {
		o.Held = 0 // the server has none of them either
	}
	if err := p.postpone(ctx, b, o); err != nil {
		return false, err
	}
	if err := p.putOff(ctx, b, o); err != nil {
		return false, err
	}
	defer b.putBack()
	if p.DryRun {
		b.know(o.Renamed)
		if err := p.foresee(ctx, b, o); err != nil {
			if ctx.Err() != nil || report.ScopeOf(err, report.AtMailbox) > report.ScopeMailbox {
				return false, err
			}
			b.Leave(err)
		}
		if !p.Restore {
			p.did.told(b.Name, b.Local.Flags)
		}
	}
	if err := p.say(ctx, b, o); err != nil {
		return false, err
	}
	// Tags of a mail that is about to get another row are looked at again then,
	// and those by which something is still to be done.
	all = o.Nothing() && len(b.Local.Tagged) == 0
	if p.DryRun {
		return all, nil
	}
	if o.Nothing() && len(b.Local.Flags)+len(b.copied) == 0 {
		return all, p.forgetDone(ctx, b)
	}
	err = p.tell(ctx, b, o)
	// There is no session after a failed attempt at a fresh one.
	if err != nil && ctx.Err() == nil && p.conn.Lost() && report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox {
		// As in a look. What was done already is seen, and not done again.
		err = p.tell(ctx, b, o)
	}
	not, said := errors.AsType[*notPushed](err)
	if err == nil || said {
		if err := p.forgetDone(ctx, b); err != nil {
			return false, err
		}
		if len(b.awaited) == 0 { // else it is told when the look has been
			if err := p.tellRefused(ctx, b); err != nil {
				return false, err
			}
		}
	}
	switch {
	case err == nil:
		return all && len(b.refused) == 0 && (p.Restore || len(b.Local.Flags) == 0 && !b.Contradicted), nil // else they wait for a mailbox that can be written
	case ctx.Err() != nil:
		return false, ctx.Err()
	case said:
		b.KeepMarks()
		p.Standing(b.Name, not.kind, err)
		return false, nil
	case report.ScopeOf(err, report.AtMailbox) > report.ScopeMailbox:
		return false, err
	}
	b.Leave(err)
	return false, nil
}

// unmade gives the moves of mail that is not where it was put, for whatever reason.
func (p *Pusher) unmade(plans map[string]*plan.Outgoing) (out []plan.Unmade) {
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		b := p.boxes[name]
		if b == nil || b.Aside {
			continue
		}
		ways := []map[string][]plan.Move{plans[name].Waiting}
		if !p.DryRun { // else they would be made
			ways = append(ways, plans[name].Moves)
		}
		for _, moves := range ways {
			for to, ms := range moves {
				for _, m := range ms {
					if in := p.boxes[to]; in != nil && !in.Aside && m.Row.UIDValidity == b.Known.UIDValidity && b.missingHere(m.Row.UID) && !b.Taken[m.Row.UID] {
						out = append(out, plan.Unmade{Move: m, To: to})
					}
				}
			}
		}
	}
	return out
}

// notPushed says why something cannot go to the server.
type notPushed struct {
	kind string // of the standing fault that tells of it
	text string
}

func (e *notPushed) Error() string { return e.text }

func notPushedf(kind, format string, args ...any) error {
	return &notPushed{kind, fmt.Sprintf(format, args...)}
}

// Unsent is the kind of the standing fault that tells of mail which the server refused: there
// is more of it in the journal.
const Unsent = "unsent"

// tell tells the server what of one mailbox is to be told, when that was said.
func (p *Pusher) tell(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	if len(o.Renamed) > 0 {
		if err := p.rename(ctx, b, o.Renamed); err != nil {
			return err
		}
		b.know(o.Renamed)
	}
	if p.Restore {
		return p.restore(ctx, b, o)
	}
	if len(b.Local.Flags)+o.Moved()+len(o.Deleted)+len(o.Uploads)+len(b.copied) == 0 {
		return nil
	}
	if err := p.prePush(ctx, b, o); err != nil {
		return err
	}
	if o.Moved()+len(o.Deleted)+len(o.Uploads)+len(b.Local.Flags)+len(b.copied) == 0 {
		if b.nothingPending(o) {
			return p.markScanned(ctx, b)
		}
		return nil
	}
	unvisited, err := p.unvisited(ctx, b, o)
	if err != nil {
		return err
	}
	var sel *mail.Selected
	if unvisited {
		err = p.conn.Connect(ctx)
	} else {
		sel, err = p.openFor(ctx, b)
	}
	if p.isRefusal(err) {
		return p.refusedAll(ctx, b, o, err)
	}
	if err != nil {
		return err
	}
	if sel != nil && sel.ReadOnly {
		p.staysReadOnly(b)
		return nil // the scan is not recorded: it may be so for today only
	}
	b.Look = true
	// The push may be repeated.
	if m, ok, err := p.Journal.Moving.Get(ctx, b.Name); err != nil {
		return err
	} else if ok {
		if err := p.finishMove(ctx, b, &m); err != nil {
			return err
		}
		o.Without(p.finished[b.Name])
		if sel, err = p.openFor(ctx, b); err != nil {
			return err
		}
	}
	flagged, same, err := p.sameFlagged(ctx, b)
	if err != nil || !same {
		return err
	}
	p.doing(b, len(b.Local.Flags), changesFlags)
	// What is refused of it keeps nothing else from being tried.
	if err := p.refused(ctx, b, p.expungeCopied(ctx, b), ledger.UIDs(b.copied), always(changeExpunge)); err != nil {
		return err
	}
	if err := p.pushFlags(ctx, b, sel, flagged); err != nil {
		return err
	}
	for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
		if err := p.refused(ctx, b, p.pushMoves(ctx, b, o.Moves[to], p.boxes[to]), plan.UIDsOf(o.Moves[to]), always(changeMove(to))); err != nil {
			return err
		}
	}
	var unable error
	err = p.refused(ctx, b, p.pushDeleted(ctx, b, o.Deleted), ledger.UIDs(o.Deleted), always(changeDelete))
	if _, ok := errors.AsType[*notPushed](err); err != nil && !ok {
		return err
	}
	unable = err
	if err := p.pushTagged(ctx, b, o.Tagged); err != nil {
		return err
	}
	if err := p.pushUploads(ctx, b, sel, o.Uploads); err != nil {
		return err
	}
	if unable == nil && len(b.refused) == 0 && b.nothingPending(o) {
		return p.markScanned(ctx, b)
	}
	return unable
}

// rename records the names that files of a mailbox have now.
func (p *Pusher) rename(ctx context.Context, b *Mailbox, renamed []ledger.Message) error {
	c := journal.Change{Save: renamed}
	for _, m := range renamed {
		for _, was := range b.Local.Missing {
			if was.UID != m.UID {
				continue
			}
			if err := p.Old.Follow(ctx, &c, was, m); err != nil {
				return err
			}
			p.Old.Forget(&c, was)
		}
	}
	return p.commit(ctx, c, "new names recorded")
}

func (p *Pusher) staysReadOnly(b *Mailbox) {
	p.Report.Note(b.Name, "the server opens this mailbox for reading only; what changed here stays here")
}

// openFor opens a mailbox for changes, on a fresh connection if the one before
// has died.
func (p *Pusher) openFor(ctx context.Context, b *Mailbox) (*mail.Selected, error) {
	if err := p.conn.Connect(ctx); err != nil {
		return nil, err
	}
	sel, err := p.conn.Select(ctx, b.Name)
	if err != nil {
		return nil, err
	}
	if sel.UIDValidity != b.Known.UIDValidity {
		return nil, &mail.Fault{Kind: mail.KindMalformed, Op: "SELECT", Mailbox: b.Name, Text: "UIDVALIDITY changed during the run"}
	}
	return sel, nil
}

// arriving gives the tags of a mail that comes to a mailbox by its owner's hand.
func (p *Pusher) arriving(b *Mailbox, flags []string) (add, remove []string) {
	return p.Tags.Arriving(b.Name, p.trash, flags, b.Add, b.Remove, plan.ByHand)
}

// commit records a change. What the server has answered is recorded also when the run
// is told to end in this moment.
func (p *Pusher) commit(ctx context.Context, c journal.Change, step string) error {
	if err := p.Journal.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	p.Report.Step(step)
	return nil
}
