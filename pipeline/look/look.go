// Package look finds out what the server has of a mailbox and what changed there (See), and
// finds of what is new what is here already: mail that was matched, moved, uploaded or saved
// before is not downloaded. Deletions and flags go down the line; what is left to be fetched it
// gives back. It is given the mailbox as values, and a connection; it knows no run.
package look

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"

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

// Session tells what is in the mailbox that is selected on it. Its methods are called from
// one goroutine at a time. Errors are *mail.Fault, the context's, or the sink's own.
type Session struct {
	Describer
	HeaderReader
	Counter
}

// HeaderReader reads headers, of which a dry run says whose mail would come.
type HeaderReader interface {
	// Headers gives some fields of the headers of messages.
	Headers(ctx context.Context, uids imap.UIDSet, fields ...string) (map[imap.UID][]byte, error)
}

// Counter tells how many messages a mailbox has.
type Counter interface {
	// Recount gives its status anew. It may close the mailbox that is open.
	Recount(ctx context.Context, mailbox string) (mail.Status, error)
}

// Describer tells of messages.
type Describer interface {
	probe.Searcher
	match.Session
	// Has tells whether a capability may be used.
	Has(capability string) bool
	// Flags gives UID and flags of those of uids that exist and that changed
	// after the mod-sequence changedSince (0: all).
	Flags(ctx context.Context, uids imap.UIDSet, changedSince uint64) ([]mail.Message, error)
	// Identify gives flags, date, size and Message-ID.
	Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
	// Sizes gives their sizes alone.
	Sizes(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error)
}

// Connection is one that a looker has for itself.
type Connection interface {
	// Connect makes sure that there is a live session. Its error is a
	// *report.ConnectError, or the context's.
	Connect(ctx context.Context) error
	// Examine opens a mailbox on a session that is alive.
	Examine(ctx context.Context, mailbox string, known *mail.Known) (*mail.Selected, error)
	// Enter makes sure that a mailbox can be fetched from, and that its UIDs still mean
	// what they meant.
	Enter(ctx context.Context, mailbox string, uidValidity uint64) error
	Session() Session
	// StillThere tells which messages a mailbox still has. It opens the mailbox.
	StillThere(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) (imap.UIDSet, error)
	Alive() bool
	Lost() bool // there is a session that is dead
}

// Ledger has the rows of what was agreed on. What becomes of that is recorded by the journal.
type Ledger interface {
	Mailboxes(ctx context.Context) ([]ledger.Mailbox, error)
	// Rows gives a mailbox's messages, by UID, and OtherValidity those of all other
	// UIDVALIDITYs, or of all of them.
	Rows(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Row, error)
	GetMany(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) ([]ledger.Message, error)
	OtherValidity(ctx context.Context, mailbox string, uidValidity uint64) ([]ledger.Message, error)
	// Like gives the messages that may be the mail of a row, or of a file.
	Like(ctx context.Context, m ledger.Message) ([]ledger.Message, error)
	EveryValidity(ctx context.Context, mailbox string) ([]ledger.Message, error)
	WithoutMessageID(ctx context.Context, size int64) ([]ledger.Message, error)
}

// Here tells what is here.
type Here interface {
	match.Files
	// Untracked gives those files of a mailbox's folder that have no row.
	Untracked(ctx context.Context, mailbox string, dir maildir.Dir, rows []ledger.Row, files *maildir.Listing) ([]plan.Untracked, error)
	// Unrecorded finds the files of all folders that no row has.
	Unrecorded(ctx context.Context) (*plan.Unrecorded, error)
	// WasHere tells whether a folder was here before the first sync.
	WasHere(ctx context.Context, folder string) (bool, error)
	// MovedHere gives those of a mailbox's files, by key, that were moved there from other folders.
	MovedHere(ctx context.Context, mailbox string, files []plan.Untracked) (map[string]bool, error)
	// TagsAreOlder has tags compared once more by the next run: mail that was here is a mailbox's now.
	TagsAreOlder(ctx context.Context) error
	// DeletedByTag tells whether tags want mail deleted that was here before its mailbox.
	DeletedByTag(mailbox, trash string, t mail.Tagged) bool
}

// Options is what looking needs of a run.
type Options struct {
	Account string
	Line    *deliver.Line
	Ledger  Ledger
	Here    Here
	Match   *match.Matcher
	Report  *report.Reporter
	Keys    *maildir.Keys // of files to come
	Now     func() time.Time

	Journal *journal.Journal
	Told    *journal.ToldFlags
	Ruled   *journal.RuledMoves
	Links   *journal.Links
	Old     *journal.OldTags
	// MovedHere gives the message, as it was, that this run has moved to where a file arrives.
	MovedHere func(key string) (ledger.Message, bool)

	Tags       *plan.Tags
	Deletions  plan.Deletions
	Full       bool // every mailbox is compared as a whole
	DryRun     bool // what would be done is said, and nothing is changed
	Plan       bool // and of each message
	ReadOnly   bool // nothing is sent
	PairOnly   bool // what is here is paired with what is there, and nothing else is done
	UploadHere bool // what was here before the first sync is new mail as any other
	UploadNext bool // the run after this one has UploadHere
	Exchange   bool // the server's sizes are not exact
	SizeAll    bool // the size of each new message is asked for
	// Tagged gives what notmuch has below a directory.
	Tagged func(ctx context.Context, dir string) ([]mail.Tagged, error)
	Some   bool // not all mailboxes are asked for
	// Standing reports a fault of a mailbox that stays until a person does something.
	Standing func(mailbox, kind string, err error)
	// CameSince tells whether mail has come to a mailbox since that was looked into, or was found
	// unchanged.
	CameSince func(ctx context.Context) (bool, error)
	// Believed tells whether a person has let a mailbox's deletions past the guard.
	Believed func(mailbox string) bool
	// Held are the mailboxes in which deletions on the server were held back before, without an
	// answer yet.
	Held map[string]bool

	Overview
}

// Overview is what the list of mailboxes and the push tell of the account as a whole.
type Overview struct {
	Trash        string                             // the mailbox that is the Trash, "" if there is none
	Daily        map[string]bool                    // mailboxes that are emptied in daily life
	Listed       map[string]bool                    // names that the server has
	MayHaveMoved bool                               // mail may have moved between mailboxes: it is looked for here before it is downloaded
	Stays        map[string]bool                    // mailboxes that no message has left, as far as is known
	UIDValidity  map[string]uint64                  // under which the messages of mailboxes were agreed on
	Stored       map[string]map[imap.UID]plan.Delta // flags that the server was just told, by mailbox, of these
	WasMissing   func(row ledger.Message) bool      // its file was gone when the folders were read
}

// Mailbox is one that is looked into.
type Mailbox struct {
	*deliver.Mailbox                             // its name, its folder, and what of it is under way
	Listed           mail.Mailbox                // as the server lists it
	Known            ledger.Mailbox              // what both sides agreed upon
	Local            plan.Local                  // what is here, less what the push has dealt with
	Due              []ledger.Message            // stubs to ask for again
	Stubs            map[imap.UID]ledger.Message // all its stubs
	Add, Remove      []string                    // tags by rule
	plan.Pushed                                  // what the push has done

	now        mail.Status    // as EXAMINE had it
	identified []mail.Message // messages that EXAMINE told more of
	vanished   imap.UIDSet    // messages of which it said that they were there, and are gone
	found      Found
	linked     map[imap.UID]bool // of a dry run: messages that are here already
	// unsettled: flags on the server differ from the rows', and are to be told again.
	unsettled bool
}

// Found is what came of a look.
type Found struct {
	UIDValidity uint64     // of the mailbox
	Fetch       []imap.UID // messages that are to come
	Gone        []imap.UID // messages that the server has no more
	// Paired: mail that was here is the mailbox's, and what of its flags the server is to be
	// told is known when that is recorded.
	Paired bool
	// Matched are messages that rows of other UIDs were found to be, by these: what changed here of them,
	// and of mail that came from them or to them, is known when that is recorded.
	Matched map[imap.UID]mail.Message
	// Unmatched are messages of UIDs that are over, which none of the mailbox were found to be.
	Unmatched []ledger.Message
	// Left is what a dry run finds of that.
	Left plan.Local
	// Marks is what the ledger is to have of the mailbox when all that the server told is
	// dealt with; nil if that is what it has.
	Marks *ledger.Mailbox
}

// Looking is what the lookers of a run have in common.
type Looking struct {
	Options
	mu       sync.Mutex
	strays   []stray
	taken    map[string]bool                      // files, by key, that were followed to other folders
	suspects map[*deliver.Mailbox]*plan.Suspicion // where so much is gone that it is to be judged when all that came is known
	foreseen map[string]bool                      // messages that a dry run finds new, by placeless
	coming   map[string][]ledger.Message          // these, by Message-ID, as the run would record them; of an upload
	notKept  map[string][]imap.UID                // of mailboxes that were looked into: messages whose flags are not as the server said
	linked   map[string]ledger.Message            // messages, by the keys of their files, of which others were made, or would be, in the mailboxes where their mail is now
	passed   map[string]bool                      // files, by key, of which this run found that they are not where the server said

	judged   bool        // what was held was judged, in a run that did not leave the account
	sizeless atomic.Bool // the server does not say how large messages are
}

// New gives the looking of one run.
func New(o Options) *Looking {
	return &Looking{Options: o, suspects: make(map[*deliver.Mailbox]*plan.Suspicion), foreseen: make(map[string]bool), coming: make(map[string][]ledger.Message), notKept: make(map[string][]imap.UID), taken: make(map[string]bool), linked: make(map[string]ledger.Message), passed: make(map[string]bool)}
}

// Looker looks over one connection. It belongs to one goroutine.
type Looker struct {
	*Looking
	conn Connection
}

// Over gives one that has this connection for itself.
func (l *Looking) Over(c Connection) *Looker { return &Looker{Looking: l, conn: c} }

// Look finds out what changed in a mailbox, and does the part of it that needs no batch:
// deletions and flags, and mail that is here already, go down the line.
func (l *Looker) Look(ctx context.Context, b *Mailbox) (Found, error) {
	err := l.look(ctx, b)
	// A connection that dies here is tried once more on a fresh one; a mailbox
	// on which two die is left alone.
	if err != nil && ctx.Err() == nil && l.conn.Lost() && report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox {
		err = l.look(ctx, b)
	}
	b.found.UIDValidity = b.now.UIDValidity
	if err == nil {
		b.found.Marks = b.marks()
	}
	return b.found, err
}

// marks are the marks from which the next look starts. Only these say that the mailbox is
// complete: state never moves past what was not dealt with.
func (b *Mailbox) marks() *ledger.Mailbox {
	if b.current() && b.Known.UIDNext == b.now.UIDNext && b.Known.HighestModSeq == b.now.HighestModSeq && b.Known.Messages == b.now.Messages {
		return nil
	}
	m := &ledger.Mailbox{
		Name: b.Name, Folder: b.Known.Folder, Delim: b.Listed.Delim, UIDValidity: b.now.UIDValidity, Complete: true,
		UIDNext: b.now.UIDNext, HighestModSeq: b.now.HighestModSeq, Messages: b.now.Messages,
	}
	if b.unsettled {
		m.HighestModSeq = 0
	}
	return m
}

func (l *Looker) look(ctx context.Context, b *Mailbox) error {
	a := Agreed{Name: b.Name, Known: b.Known, Listed: b.Listed.Status, Taken: b.Taken, Contradicted: b.Contradicted}
	if b.allExpected() {
		a.Ask = slices.Collect(maps.Keys(b.Expected))
	}
	s, err := l.See(ctx, a)
	if err != nil {
		return err
	}
	b.now, b.identified, b.Contradicted = s.Status, s.Identified, s.Contradicted
	v, rows := s.View, s.Rows
	b.vanished = slices.Clone(v.Vanished)
	matched := make(map[imap.UID]bool)
	here, err := l.waiting(b, rows)
	if err != nil {
		return err
	}
	if !l.DryRun {
		if rows, err = l.prepare(ctx, b, rows); err != nil {
			return err
		}
	}
	if !b.current() {
		if err := l.rematch(ctx, b, &v, rows, matched); err != nil {
			return err
		}
		if rows, err = l.rows(ctx, b); err != nil {
			return err
		}
	}
	if l.PairOnly {
		b.KeepMarks()
		return nil
	}
	if !l.DryRun {
		if rows, err = l.leftAgain(ctx, b, &v, rows); err != nil {
			return err
		}
	}
	changes := plan.OfServer(rows, v)
	if told := l.Stored[b.Name]; len(told) > 0 && !l.DryRun && b.now.UIDValidity == b.Known.UIDValidity {
		if changes, err = l.seeFlags(ctx, b, told, rows, v, changes); err != nil {
			return err
		}
	}
	changes.Fetch = slices.DeleteFunc(changes.Fetch, func(u imap.UID) bool { return matched[u] || here[u] })
	status := b.Listed.Status
	if status != nil && len(changes.Gone) > 0 && v.Complete && plan.Fewer(*status, b.now, len(b.Taken)) {
		switch fresh, err := l.conn.Session().Recount(ctx, b.Name); {
		case err == nil && !plan.Fewer(fresh, b.now, 0):
			status = nil // others took them out since
		case err != nil && (ctx.Err() != nil || !l.conn.Alive()):
			return err
		}
	}
	return l.put(ctx, b, changes, rows, plan.DoubtOf(b.Known, status, b.now, v, len(changes.Gone), len(b.Taken), plan.Oldest(rows, changes.Gone)))
}

// waiting gives the messages whose file is here already, and of which notmuch cannot be told for now, as of a
// file that cannot be read: the run has tried before it looked. Fetched again they would be here twice.
func (l *Looker) waiting(b *Mailbox, rows []ledger.Row) (map[imap.UID]bool, error) {
	here := make(map[imap.UID]bool)
	if !b.current() {
		return here, nil
	}
	for _, r := range rows {
		if r.State != ledger.Intended {
			continue
		}
		key, name := r.Key, r.Name
		if key == "" {
			key, name = r.StubKey, ""
		}
		_, is, err := b.Dir.Locate(key, name)
		if err != nil {
			return nil, err
		}
		if here[r.UID] = is; is && !l.DryRun {
			b.KeepMarks() // what changes of it meanwhile is news when it is recorded
		}
	}
	return here, nil
}

// seeFlags finds out of which messages the flags are not as the server said that it made them. It
// gives what changed in the mailbox by what it hears of that.
func (l *Looker) seeFlags(ctx context.Context, b *Mailbox, told map[imap.UID]plan.Delta, rows []ledger.Row, v plan.View, a plan.Actions) (plan.Actions, error) {
	not := plan.NotKept(told, rows, a)
	if len(not) > 0 { // there are servers whose mod-sequences do not move with flags
		if err := l.conn.Enter(ctx, b.Name, b.now.UIDValidity); err != nil {
			return a, err
		}
		flags, err := l.conn.Session().Flags(ctx, mail.UIDSet(not), 0)
		if err != nil {
			return a, err
		}
		v.Messages = slices.Concat(v.Messages, flags)
		a = plan.OfServer(rows, v)
		not = plan.NotKept(told, rows, a)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notKept[b.Name] = not
	return a, nil
}

// NotKept gives the messages of a mailbox whose flags are not as the server said that it made
// them; looked is false if nobody has seen whether they are.
func (l *Looking) NotKept(mailbox string) (uids []imap.UID, looked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	uids, looked = l.notKept[mailbox]
	return uids, looked
}

// prepare makes the folder ready for what comes, and takes back what of the agreement does not
// hold. It gives the rows that are left of it.
func (l *Looker) prepare(ctx context.Context, b *Mailbox, rows []ledger.Row) ([]ledger.Row, error) {
	back := b.current() && plan.WentBack(b.Known, b.now)
	if err := b.Dir.Create(); err != nil {
		return nil, err
	}
	if err := b.Dir.CleanTmp(); err != nil {
		return nil, err
	}
	// A mailbox that was complete keeps its row, and with it the marks to
	// start from again, until all that changed since is recorded.
	if !b.current() {
		if err := l.incomplete(ctx, b); err != nil {
			return nil, err
		}
	}
	rows, err := l.revive(ctx, b, rows)
	if err != nil {
		return nil, err
	}
	if (b.now.UIDValidity != 0 && (!back && !b.Contradicted || b.now.Messages == 0)) || len(rows) == 0 {
		return rows, nil
	}
	if err := l.distrust(ctx, b, rows); err != nil {
		return nil, err
	}
	return l.rows(ctx, b)
}

// incomplete records that not all is here of what the server has of the mailbox. Its marks
// stay where they were.
func (l *Looker) incomplete(ctx context.Context, b *Mailbox) error {
	row := ledger.Mailbox{Name: b.Name, Folder: b.Known.Folder, Delim: b.Listed.Delim, UIDValidity: b.now.UIDValidity}
	c := journal.Change{Mailbox: &row}
	c.Became(mail.IsDone, "", mail.Action{Kind: mail.ActCreate, Mailbox: b.Name}) // by a run that was interrupted
	return l.commit(ctx, c, "mailbox recorded")
}

// current tells whether the ledger's rows are all there was of the mailbox when it
// was looked at last.
func (b *Mailbox) current() bool { return plan.Current(b.Known, b.now) }

// rows gives the ledger's rows of the mailbox as it is now.
func (l *Looker) rows(ctx context.Context, b *Mailbox) ([]ledger.Row, error) {
	return l.Ledger.Rows(ctx, b.Name, b.now.UIDValidity)
}

// put does the planned changes, or says them. doubt is why deletions are not to be
// believed, "" if they are.
func (l *Looker) put(ctx context.Context, b *Mailbox, a plan.Actions, rows []ledger.Row, doubt string) error {
	gone, err := l.gone(ctx, b, a.Gone)
	if err != nil {
		return err
	}
	ours := b.wentFromHere(a.Gone)
	theirs := slices.DeleteFunc(slices.Clone(gone), func(row ledger.Message) bool {
		return ours.Contains(row.UID) || plan.NotSeen(row) // that it was there is not known either
	})
	// What the server was just told is no news.
	news := plan.Actions{Fetch: a.Fetch, Flags: a.Flags, Gone: ledger.UIDs(theirs)}
	suspect := &plan.Suspicion{Doubt: doubt, Gone: len(theirs), Have: len(rows), All: len(a.Gone) == len(rows), Held: l.Held[b.Name]}
	held := !l.Believed(b.Name) && suspect.Holds(len(theirs))
	if held {
		l.mu.Lock()
		l.suspects[b.Mailbox] = suspect
		l.mu.Unlock()
		news.Gone = nil // the guard says the rest
	}
	news.Flags = slices.DeleteFunc(slices.Clone(a.Flags), func(c plan.FlagChange) bool {
		return l.own(b.Name, c) || filelessIn(rows, c.UID) || l.waitsForDeletion(b, c)
	})
	if l.DryRun {
		return l.foresee(ctx, b, news, theirs)
	}
	if len(a.Fetch) > 0 || len(b.Due) > 0 {
		if err := l.conn.Enter(ctx, b.Name, b.now.UIDValidity); err != nil {
			return err
		}
	}
	if err := l.follow(ctx, b, a.Fetch); err != nil {
		return err
	}
	fetch, err := l.adopt(ctx, b, a.Fetch, rows)
	if err != nil {
		return err
	}
	b.Ours = make(map[imap.UID]bool)
	news.Fetch = slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { _, b.Ours[u] = b.MovedFrom[u]; return b.Ours[u] })
	if text := does(news); text != "" {
		l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(fetch), Text: text})
	}
	// From here on no connection that dies lets the look be repeated, which
	// would put all this on the line twice.
	if err := l.putGone(ctx, b, gone, ours); err != nil {
		return err
	}
	if err := l.putFlags(ctx, b, a.Flags); err != nil {
		return err
	}
	if b.found.Fetch, err = l.link(ctx, b, fetch); err != nil {
		return err
	}
	b.found.Gone = a.Gone
	return l.askSizes(ctx, b, b.found.Fetch)
}

// filelessIn tells whether a message has no file here that could show its flags.
func filelessIn(rows []ledger.Row, uid imap.UID) bool {
	i, known := slices.BinarySearchFunc(rows, uid, func(r ledger.Row, u imap.UID) int { return cmp.Compare(r.UID, u) })
	return known && rows[i].Key == "" && rows[i].StubKey == ""
}

// wentFromHere gives those of messages that are gone from the server which went from here, before or
// by this run; others took the rest away.
func (b *Mailbox) wentFromHere(gone []imap.UID) imap.UIDSet {
	missing := make(map[imap.UID]bool, len(b.Local.Missing))
	for _, m := range b.Local.Missing {
		missing[m.UID] = true
	}
	return mail.UIDSet(slices.DeleteFunc(slices.Clone(gone), func(u imap.UID) bool { return !b.Taken[u] && !missing[u] }))
}

// does says in words what will be done.
func does(a plan.Actions) string {
	var parts []string
	add := func(n int, one, many string) {
		if n > 0 {
			parts = append(parts, mail.Number(n, one, many))
		}
	}
	add(len(a.Fetch), "new message", "new messages")
	add(len(a.Flags), "change of flags", "changes of flags")
	add(len(a.Gone), "deletion", "deletions")
	return strings.Join(parts, ", ")
}

// gone gives the rows of messages that the server has no more.
func (l *Looker) gone(ctx context.Context, b *Mailbox, uids []imap.UID) ([]ledger.Message, error) {
	rows, err := l.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, uids)
	for i := range rows {
		if b.vanished.Contains(rows[i].UID) && rows[i].Reason == plan.Unseen {
			rows[i].Reason = "" // the server says of itself that it was there
		}
	}
	return rows, err
}

// putGone holds the messages that the server has no more for the end of the run.
// Ours went from here.
func (l *Looker) putGone(ctx context.Context, b *Mailbox, rows []ledger.Message, ours imap.UIDSet) error {
	var both []ledger.Message
	var files *plan.Unrecorded
	for _, row := range rows {
		if row.Fileless() {
			if err := l.commit(ctx, journal.Change{Forget: []ledger.Message{row}}, "deletions recorded"); err != nil {
				return err
			}
			continue
		}
		if b.missingHere(row.UID) && !l.Strayed(row) {
			// Gone on both sides: both agree, whatever else may fail.
			both = append(both, row)
			continue
		}
		absent, err := l.absent(ctx, b, row, &files)
		if err != nil {
			return err
		}
		l.Line.Hold(&deliver.Item{Box: b.Mailbox, Op: deliver.OpGone, Row: row, Known: ours.Contains(row.UID), Marked: b.markedHere(row.UID), Absent: absent})
	}
	if len(both) == 0 {
		return nil
	}
	var c journal.Change
	for _, row := range both {
		l.Line.Forget(&c, b.Mailbox, row, nil)
	}
	return l.commit(ctx, c, "deletions recorded")
}

// putFlags sends changed flags down the line.
func (l *Looker) putFlags(ctx context.Context, b *Mailbox, changes []plan.FlagChange) error {
	uids := make([]imap.UID, len(changes))
	after := make(map[imap.UID][]string, len(changes))
	for i, c := range changes {
		uids[i], after[c.UID] = c.UID, c.After
	}
	// A stub that is about to be asked for again gets its flags with the mail,
	// or at the next run: two items for one row would overtake each other.
	uids = slices.DeleteFunc(uids, func(u imap.UID) bool {
		return slices.ContainsFunc(b.Due, func(m ledger.Message) bool { return m.UID == u })
	})
	rows, err := l.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, uids)
	if err != nil {
		return err
	}
	var files *plan.Unrecorded
	for _, row := range rows {
		if row.Fileless() {
			row.Flags = after[row.UID]
			if err := l.commit(ctx, journal.Change{Save: []ledger.Message{row}}, "flags recorded"); err != nil {
				return err
			}
			continue
		}
		if l.waitsForDeletion(b, plan.FlagChange{UID: row.UID, Before: row.Flags, After: after[row.UID]}) {
			if b.Known.Complete {
				b.Begin()
			} else {
				b.unsettled = true
			}
			continue
		}
		it := l.flagging(b.Mailbox, row, after[row.UID])
		if it.Absent, err = l.absent(ctx, b, row, &files); err != nil {
			return err
		}
		if err := l.Line.Send(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// waitsForDeletion tells of a change of a message of whose file the server could not be told what
// became of it. That it was changed there is then a reason to keep it, so that the row stays as it
// was, and with it the mailbox's marks.
func (l *Looker) waitsForDeletion(b *Mailbox, c plan.FlagChange) bool {
	return l.Deletions != plan.DeletionsKeep && b.deletedHere(c.UID) && !l.own(b.Name, c)
}

// deletedHere tells whether a message's file was gone or marked for deletion when
// its folder was scanned, and the server could not be told what became of it.
func (b *Mailbox) deletedHere(uid imap.UID) bool {
	return b.missingHere(uid) || b.markedHere(uid)
}

// absent tells of a message whose file was gone before this run: only one that was there when the
// folders were read may have been moved since, which the next run judges. What was gone already is
// not always among what is missing: a deletion that the server is not to be told of, or was told
// of before, is none. So a file that is nowhere counts as gone before.
func (l *Looker) absent(ctx context.Context, b *Mailbox, row ledger.Message, files **plan.Unrecorded) (bool, error) {
	if l.ReadOnly || row.Key == "" || b.missingHere(row.UID) {
		return true, nil
	}
	_, here, err := l.source(ctx, row, files)
	return !here, err
}

func (b *Mailbox) markedHere(uid imap.UID) bool {
	return slices.ContainsFunc(b.Local.Marked, func(m ledger.Message) bool { return m.UID == uid })
}

func (b *Mailbox) missingHere(uid imap.UID) bool {
	return slices.ContainsFunc(b.Local.Missing, func(m ledger.Message) bool { return m.UID == uid })
}

// SendFlags sends the changed flags of one file down the line.
func (l *Looking) SendFlags(ctx context.Context, m *deliver.Mailbox, row ledger.Message, after []string) error {
	return l.Line.Send(ctx, l.flagging(m, row, after))
}

func (l *Looking) flagging(m *deliver.Mailbox, row ledger.Message, after []string) *deliver.Item {
	it := m.Flagging(row, after, l.Tags)
	it.Was = l.Stored[m.Name][row.UID].Merged(row.Flags) // what the server was just told is said already
	it.Known = l.own(m.Name, plan.FlagChange{UID: row.UID, Before: row.Flags, After: after})
	return it
}

// own tells whether a change of flags is what the server was just told.
func (l *Looking) own(mailbox string, c plan.FlagChange) bool {
	d, ok := l.Stored[mailbox][c.UID]
	told := l.Told.Before()[mailbox][c.UID]
	return (ok || len(told) > 0) && plan.SameFlags(d.Merged(plan.AsTold(c.Before, c.After, told)), c.After)
}

// arriving gives the tags of a mail that comes to a mailbox.
func (l *Looking) arriving(b *Mailbox, flags []string, by plan.Arrival) (add, remove []string) {
	return l.Tags.Arriving(b.Name, l.Trash, flags, b.Add, b.Remove, by)
}

// commit records a change. What the server has answered is recorded also when the run
// is told to end in this moment.
func (l *Looking) commit(ctx context.Context, c journal.Change, step string) error {
	if err := l.Journal.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	l.Report.Step(step)
	return nil
}
