package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Deletions says what becomes on the server of a message whose file the user
// deleted, or marked with T.
type Deletions string

// The kinds.
const (
	DeletionsTrash   Deletions = "trash"   // moved to the Trash; in the Trash itself, expunged
	DeletionsExpunge Deletions = "expunge" // expunged
	DeletionsKeep    Deletions = "keep"    // it stays there
)

// Outgoing is what the server is to be told of one mailbox.
type Outgoing struct {
	Moves   map[string][]Move           // by the mailbox that they go to
	Waiting map[string][]Move           // those that are not for this run
	Tagged  map[string][]ledger.Message // the same, for their tags
	Deleted []ledger.Message
	Uploads []Untracked
	Renamed []ledger.Message // present, with the key and name that the file has now
	Held    int              // deletions and moves that the guard held back
	Doubted int              // uploads, and flags taken off, in a folder that is not believed
	Why     string           // they were
	Restore []ledger.Message // missing here, and wanted back
	// Unexplained is how many messages are missing that are in no other folder.
	Unexplained int
	Later       bool        // something waits until all mailboxes are known
	Twins       []Untracked // files of messages that have another one, or are about to
}

// Move is a message whose file the user put into another folder.
type Move struct {
	Row ledger.Message // as it was
	Key string         // of its file where it is now
}

// UIDsOf gives the messages of moves.
func UIDsOf(moves []Move) []imap.UID {
	uids := make([]imap.UID, len(moves))
	for i, m := range moves {
		uids[i] = m.Row.UID
	}
	return uids
}

// Unmade is a move that the server was not told of.
type Unmade struct {
	Move
	To string // the mailbox in whose folder the file is
}

// Nothing tells whether there is nothing to do, and nothing waits or is held.
func (o *Outgoing) Nothing() bool {
	return !o.Later && len(o.Moves)+len(o.Tagged)+len(o.Deleted)+len(o.Uploads)+len(o.Renamed)+len(o.Restore)+o.Held+o.Doubted == 0
}

// Without takes messages out of what is to be told of a mailbox.
func (o *Outgoing) Without(uids map[imap.UID]bool) {
	if len(uids) == 0 {
		return
	}
	for to, ms := range o.Moves {
		if ms = slices.DeleteFunc(ms, func(m Move) bool { return uids[m.Row.UID] }); len(ms) > 0 {
			o.Moves[to] = ms
		} else {
			delete(o.Moves, to)
		}
	}
	for to, ms := range o.Tagged {
		if ms = slices.DeleteFunc(slices.Clone(ms), func(m ledger.Message) bool { return uids[m.UID] }); len(ms) > 0 {
			o.Tagged[to] = ms
		} else {
			delete(o.Tagged, to)
		}
	}
	o.Deleted = slices.DeleteFunc(o.Deleted, func(m ledger.Message) bool { return uids[m.UID] })
}

// Moved is how many messages are to be moved.
func (o *Outgoing) Moved() (n int) {
	for _, ms := range o.Moves {
		n += len(ms)
	}
	for _, ms := range o.Tagged {
		n += len(ms)
	}
	return n
}

// Wait leaves moves to a later run.
func (o *Outgoing) Wait(is func(m Move, to string) bool) {
	for to, moves := range o.Moves {
		var stay []Move
		for _, m := range moves {
			if is(m, to) {
				o.Waiting[to] = append(o.Waiting[to], m)
			} else {
				stay = append(stay, m)
			}
		}
		if o.Moves[to] = stay; len(stay) == 0 {
			delete(o.Moves, to)
		}
	}
}

// Policy is what the user wants of deletions.
type Policy struct {
	Deletions Deletions
	Yes       func(mailbox string) bool // past the guard
	Held      map[string]bool           // mailboxes in which deletions were held back before, without an answer yet
	Daily     map[string]bool           // mailboxes that are emptied in daily life
	Some      bool                      // only some mailboxes are asked for: what tags move waits
	Restore   bool                      // what is missing comes again
	Whole     bool                      // all mailboxes were scanned, in one moment
	Unread    bool                      // but for some whose folder cannot be read: what is missing may be there
	Tags      *Tags                     // what goes to the server; nil if nothing does
	// Told are the flags of messages, by mailbox, that the server was told and nobody has seen.
	Told map[string]map[imap.UID][]string
}

// tagged gives what the tags of a message's file say of its flags, where it is now.
func (p *Policy) tagged(m *ledger.Message, s *Untracked) Delta {
	if p.Tags == nil || s.Tags == nil {
		return Delta{}
	}
	return p.Tags.DeltaAgain(p.Tags.TagDelta(m.Flags, s.Tags), p.Told[m.Mailbox][m.UID], s.Tags)
}

// lettered gives what the letters of a message's file say of its flags, where it is now.
func (p *Policy) lettered(m *ledger.Message, letters string) Delta {
	return p.Tags.LetterDelta(m.Flags, letters, p.Told[m.Mailbox][m.UID])
}

// OfFolders decides what the server is told of the local changes, by mailbox. It
// adds the flags of moved files to the mailbox that they come from. A file that
// is missing in one folder and new in another was moved, if Message-ID or key tell that
// it is one mail, and the content is the same: a draft that was finished is another.
func OfFolders(locals map[string]*Local, p Policy) map[string]*Outgoing {
	out := make(map[string]*Outgoing, len(locals))
	names := slices.Sorted(maps.Keys(locals))
	// Those that are closed come last: what may have gone there or come from there
	// does so only if nothing else explains it.
	slices.SortStableFunc(names, func(a, b string) int { return rankClosed(locals[a]) - rankClosed(locals[b]) })
	for _, name := range names {
		out[name] = &Outgoing{Moves: make(map[string][]Move), Waiting: make(map[string][]Move)}
	}
	taken := make(map[*ledger.Message]bool)
	byID, byKey, byText := make(map[string][]*ledger.Message), make(map[string][]*ledger.Message), make(map[mail.Digest][]*ledger.Message)
	index := func(rows []ledger.Message) {
		for i := range rows {
			m := &rows[i]
			byKey[m.Key] = append(byKey[m.Key], m)
			if m.ID != "" {
				byID[mail.NotmuchID(m.ID)] = append(byID[mail.NotmuchID(m.ID)], m)
			}
			if !m.Digest.IsZero() {
				byText[m.Digest] = append(byText[m.Digest], m)
			}
		}
	}
	for _, name := range names {
		index(locals[name].Missing)
	}
	left := make(map[*ledger.Message]bool)
	for _, name := range names { // behind those that are missing, which are surer
		index(locals[name].Left)
		for i := range locals[name].Left {
			left[&locals[name].Left[i]] = true
		}
	}
	first := func(candidates []*ledger.Message, good func(*ledger.Message) bool) *ledger.Message {
		for _, m := range candidates {
			if !taken[m] && good(m) {
				taken[m] = true
				return m
			}
		}
		return nil
	}
	// What notmuch calls a mail without Message-ID is of the bytes of one file, line ends and all, and what
	// it does not take for a mail it calls nothing: such a mail is known by its text.
	of := func(s *Untracked) []*ledger.Message {
		out := slices.Clone(byID[mail.NotmuchID(s.ID)])
		for _, m := range byText[s.Digest] {
			if RealID(s.ID) == "" || RealID(m.ID) == "" {
				out = append(out, m)
			}
		}
		return out
	}
	found := make(map[*Untracked]*ledger.Message)
	match := func(find func(name string, s *Untracked) *ledger.Message) {
		for _, name := range names {
			for i := range locals[name].Untracked {
				s := &locals[name].Untracked[i]
				if found[s] == nil {
					if m := find(name, s); m != nil {
						found[s] = m
					}
				}
			}
		}
	}
	// What the server was given already has not come from elsewhere, nor has what was here.
	elsewhere := func(name string, s *Untracked) func(*ledger.Message) bool {
		return func(m *ledger.Message) bool { return !s.RuledOut && !s.Stayed && m.Mailbox != name && s.SameContent(m) }
	}
	// The surest come first, so that of several copies of a mail each file finds its
	// own message.
	match(func(name string, s *Untracked) *ledger.Message { return first(byKey[s.Key], elsewhere(name, s)) })
	match(func(name string, s *Untracked) *ledger.Message {
		if locals[name].Closed {
			return nil
		}
		// The same mail under another name; one that its owner edited is a new one.
		return first(of(s), func(m *ledger.Message) bool { return m.Mailbox == name && s.SameContent(m) })
	})
	match(func(name string, s *Untracked) *ledger.Message { return first(of(s), elsewhere(name, s)) })
	have := make(map[string]contents, len(names))
	for _, name := range names {
		have[name] = make(contents)
		for i := range locals[name].Untracked {
			if s := &locals[name].Untracked[i]; found[s] != nil {
				have[name].add(s)
			}
		}
	}
	for _, name := range names {
		for i := range locals[name].Untracked {
			s := &locals[name].Untracked[i]
			m := found[s]
			switch {
			case m == nil && s.Twin && !locals[name].Closed && p.Whole:
				out[name].Twins = append(out[name].Twins, *s)
			case m == nil && (!s.New() || locals[name].Closed):
			case m != nil && (locals[name].Closed || locals[m.Mailbox].Closed || left[m]):
				out[name].Later, out[m.Mailbox].Later = true, true
				out[m.Mailbox].Waiting[name] = append(out[m.Mailbox].Waiting[name], Move{*m, s.Key})
			case m == nil && p.Whole && !s.Own && have[name].has(s):
				// Both files are of one message, which has no row yet.
				s.Twin, out[name].Later = true, true
				out[name].Twins = append(out[name].Twins, *s)
			case m == nil:
				have[name].add(s)
				out[name].Uploads = append(out[name].Uploads, *s)
			case m.Mailbox == name:
				row := *m
				row.Key, row.Name, row.Digest = s.Key, s.Name, s.Digest
				out[name].Renamed = append(out[name].Renamed, row)
				if _, letters := maildir.ParseName(s.Name); HasInfo(s.Name) {
					locals[name].AddFlags(m.UID, p.lettered(m, letters))
					if MarkedDeleted(&row) {
						locals[name].Marked = append(locals[name].Marked, row)
					}
				}
				locals[name].AddFlags(m.UID, p.tagged(m, s))
			default:
				s.Twin = false // it is a message of its own, which is about to come
				from := out[m.Mailbox]
				from.Moves[name] = append(from.Moves[name], Move{*m, s.Key})
				if _, letters := maildir.ParseName(s.Name); HasInfo(s.Name) {
					for j := range locals[name].Untracked {
						// Of several files of a message any one has its flags.
						if other := &locals[name].Untracked[j]; found[other] == nil && other.Digest == s.Digest && !s.Digest.IsZero() && other.Key != s.Key {
							_, more := maildir.ParseName(other.Name)
							letters += strings.ReplaceAll(more, "T", "")
						}
					}
					locals[m.Mailbox].AddFlags(m.UID, p.lettered(m, letters))
				}
				locals[m.Mailbox].AddFlags(m.UID, p.tagged(m, s))
			}
		}
	}
	for _, name := range names {
		l, o := locals[name], out[name]
		if l.Closed {
			o.Later = false
			continue
		}
		if !p.Whole {
			o.Wait(func(Move, string) bool { return true }) // what seems new or gone here may be elsewhere
			o.Uploads = nil
			o.Later = len(l.Missing)+len(l.Marked)+len(l.Tagged) > 0 || slices.ContainsFunc(l.Untracked, Untracked.New)
			continue
		}
		for i := range l.Missing {
			switch m := &l.Missing[i]; {
			case taken[m]:
			case p.Unread && !p.Restore:
				o.Later = true
			default:
				o.Deleted = append(o.Deleted, *m)
				o.Unexplained++
			}
		}
		if p.Restore {
			o.Restore, o.Deleted, o.Uploads = append(o.Deleted, l.Marked...), nil, nil
			continue
		}
		if o.Tagged = l.Tagged; p.Some && len(l.Tagged) > 0 {
			o.Tagged, o.Later = nil, true
		}
		o.Deleted = append(o.Deleted, l.Marked...)
		if p.Deletions == DeletionsKeep {
			o.Deleted = nil
		}
	}
	if p.Whole && !p.Restore {
		guard(locals, out, p)
	}
	return out
}

// MarkedDeleted tells whether the name of a message's file marks it as deleted, and that was not
// agreed on.
func MarkedDeleted(row *ledger.Message) bool {
	_, letters := maildir.ParseName(row.Name)
	return strings.Contains(letters, "T") && !HasFlag(row.Flags, `\Deleted`)
}

// contents are mails that a mailbox has, or is about to have.
type contents map[mail.Digest]bool

func (c contents) add(s *Untracked) { c[s.Digest] = true }

func (c contents) has(s *Untracked) bool { return !s.Digest.IsZero() && c[s.Digest] }

// rankClosed puts mailboxes that are closed behind the others.
func rankClosed(l *Local) int {
	if l.Closed {
		return 1
	}
	return 0
}

// SameContent tells whether a file holds the mail that a row's file held.
func (s *Untracked) SameContent(m *ledger.Message) bool { return Judge(s.Traits(), Came(m)) == Same }

// Held says why an upload does not send a file that was here before the first sync.
type Held int

// The reasons.
const (
	NotHeld Held = iota
	// HeldElsewhere: the server has the mail in another mailbox, of whose folder it was not. It was
	// moved on one of the two sides before anything was agreed on, and one more of it is not what
	// an upload is asked for. A copy that was in both folders is paired in the other one.
	HeldElsewhere
	// HeldUnsure: the mailbox has a mail with its Message-ID and another text, of which no file was
	// here. This one may be its beginning alone, as after a full disk.
	HeldUnsure
)

// HeldBack judges a file that was here before the first sync, by the ledger's rows with its
// Message-ID, of which it gives the one that holds it back. What was not here a sync wrote.
func (s *Untracked) HeldBack(mailbox string, rows []ledger.Message) (Held, ledger.Message) {
	if s.Own || s.ID == "" {
		return NotHeld, ledger.Message{}
	}
	for _, m := range rows {
		here, same := m.Mailbox == mailbox, s.SameContent(&m)
		switch {
		case m.State != ledger.Present || !maildir.Ours(m.Key) || here == same:
		case same:
			return HeldElsewhere, m
		case RealID(s.ID) != "":
			return HeldUnsure, m
		}
	}
	return NotHeld, ledger.Message{}
}

// When is the INTERNALDATE of a mail that has none: the Date of its header, unless that
// cannot be, or else the other one.
func When(sent, other, now time.Time) time.Time {
	if sent.Year() >= 1980 && sent.Before(now.Add(24*time.Hour)) {
		return sent
	}
	return other
}
