package pipeline

import (
	"cmp"
	"maps"
	"slices"
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

// outgoing is what the server is to be told of one mailbox.
type outgoing struct {
	moves   map[string][]move           // by the mailbox that they go to
	waiting map[string][]move           // those that are not for this run
	tagged  map[string][]ledger.Message // the same, for their tags
	deleted []ledger.Message
	uploads []stranger
	renamed []ledger.Message // present, with the key and name that the file has now
	held    int              // deletions and moves that the guard held back
	doubted int              // uploads, and flags taken off, in a folder that is not believed
	why     string           // they were
	restore []ledger.Message // missing here, and wanted back
	// unexplained is how many messages are missing that are in no other folder.
	unexplained int
	later       bool // something waits until all mailboxes are known
}

// move is a message whose file the user put into another folder.
type move struct {
	row ledger.Message // as it was
	key string         // of its file where it is now
}

func (o *outgoing) nothing() bool {
	return !o.later && len(o.moves)+len(o.tagged)+len(o.deleted)+len(o.uploads)+len(o.renamed)+len(o.restore)+o.held+o.doubted == 0
}

// wait leaves moves to a later run.
func (o *outgoing) wait(is func(move) bool) {
	for to, moves := range o.moves {
		stay := slices.DeleteFunc(slices.Clone(moves), is)
		for _, m := range moves {
			if is(m) {
				o.waiting[to] = append(o.waiting[to], m)
			}
		}
		if o.moves[to] = stay; len(stay) == 0 {
			delete(o.moves, to)
		}
	}
}

// policy is what the user wants of deletions.
type policy struct {
	deletions Deletions
	yes       func(mailbox string) bool // past the guard
	daily     map[string]bool           // mailboxes that are emptied in daily life
	some      bool                      // only some mailboxes are asked for: what tags move waits
	restore   bool                      // what is missing comes again
	whole     bool                      // all mailboxes were scanned, in one moment
	unread    bool                      // but for some whose folder cannot be read: what is missing may be there
}

// planOut decides what the server is told of the local changes, by mailbox. It
// adds the flags of moved files to the mailbox that they come from. A file that
// is missing in one folder and new in another was moved, if Message-ID or key tell that
// it is one mail, and the content is the same: a draft that was finished is another.
func planOut(locals map[string]*local, p policy) map[string]*outgoing {
	out := make(map[string]*outgoing, len(locals))
	names := slices.Sorted(maps.Keys(locals))
	// Those that are closed come last: what may have gone there or come from there
	// does so only if nothing else explains it.
	slices.SortStableFunc(names, func(a, b string) int { return rankClosed(locals[a]) - rankClosed(locals[b]) })
	for _, name := range names {
		out[name] = &outgoing{moves: make(map[string][]move), waiting: make(map[string][]move)}
	}
	taken := make(map[*ledger.Message]bool)
	byID, byKey := make(map[string][]*ledger.Message), make(map[string][]*ledger.Message)
	for _, name := range names {
		for i := range locals[name].missing {
			m := &locals[name].missing[i]
			byKey[m.Key] = append(byKey[m.Key], m)
			if m.ID != "" {
				byID[mail.NotmuchID(m.ID)] = append(byID[mail.NotmuchID(m.ID)], m)
			}
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
	found := make(map[*stranger]*ledger.Message)
	match := func(find func(name string, s *stranger) *ledger.Message) {
		for _, name := range names {
			for i := range locals[name].strangers {
				s := &locals[name].strangers[i]
				if found[s] == nil {
					if m := find(name, s); m != nil {
						found[s] = m
					}
				}
			}
		}
	}
	// What the server was given already has not come from elsewhere.
	elsewhere := func(name string, s *stranger) func(*ledger.Message) bool {
		return func(m *ledger.Message) bool { return !s.ruledOut && m.Mailbox != name && s.sameContent(m) }
	}
	// The surest come first, so that of several copies of a mail each file finds its
	// own message.
	match(func(name string, s *stranger) *ledger.Message { return first(byKey[s.Key], elsewhere(name, s)) })
	match(func(name string, s *stranger) *ledger.Message {
		if locals[name].closed {
			return nil
		}
		// The same mail under another name; one that its owner edited is a new one.
		return first(byID[s.ID], func(m *ledger.Message) bool { return m.Mailbox == name && s.sameContent(m) })
	})
	match(func(name string, s *stranger) *ledger.Message { return first(byID[s.ID], elsewhere(name, s)) })
	for _, name := range names {
		for i := range locals[name].strangers {
			s := &locals[name].strangers[i]
			m := found[s]
			switch {
			case m == nil && (!s.new() || locals[name].closed):
			case m != nil && (locals[name].closed || locals[m.Mailbox].closed):
				out[name].later, out[m.Mailbox].later = true, true
				out[m.Mailbox].waiting[name] = append(out[m.Mailbox].waiting[name], move{*m, s.Key})
			case m == nil:
				out[name].uploads = append(out[name].uploads, *s)
			case m.Mailbox == name:
				row := *m
				row.Key, row.Name, row.Digest = s.Key, s.Name, s.Digest
				out[name].renamed = append(out[name].renamed, row)
			default:
				s.twin = false // it is a message of its own, which is about to come
				from := out[m.Mailbox]
				from.moves[name] = append(from.moves[name], move{*m, s.Key})
				if _, letters := maildir.ParseName(s.Name); hasInfo(s.Name) {
					if d := deltaOf(m.Flags, letters); len(d.add)+len(d.remove) > 0 {
						locals[m.Mailbox].flags[m.UID] = d
					}
				}
			}
		}
	}
	for _, name := range names {
		l, o := locals[name], out[name]
		if l.closed {
			o.later = false
			continue
		}
		if !p.whole {
			o.wait(func(move) bool { return true }) // what seems new or gone here may be elsewhere
			o.uploads = nil
			o.later = len(l.missing)+len(l.marked)+len(l.tagged) > 0 || slices.ContainsFunc(l.strangers, stranger.new)
			continue
		}
		for i := range l.missing {
			switch m := &l.missing[i]; {
			case taken[m]:
			case p.unread && !p.restore:
				o.later = true
			default:
				o.deleted = append(o.deleted, *m)
				o.unexplained++
			}
		}
		if p.restore {
			o.restore, o.deleted, o.uploads = append(o.deleted, l.marked...), nil, nil
			continue
		}
		if o.tagged = l.tagged; p.some && len(l.tagged) > 0 {
			o.tagged, o.later = nil, true
		}
		o.deleted = append(o.deleted, l.marked...)
		if p.deletions == DeletionsKeep {
			o.deleted = nil
		}
	}
	if p.whole && !p.restore {
		guard(locals, out, p)
	}
	return out
}

func rankClosed(l *local) int {
	if l.closed {
		return 1
	}
	return 0
}

// nearly is by how many bytes a mail reader may change a mail that it copies
// from one folder to another: Mutt writes Content-Length and Lines.
const nearly = 512

func near(a, b int64) bool { return max(a-b, b-a) <= nearly }

// sameContent tells whether a file holds the mail that a row's file held. Of a row
// without Digest only sizes are known, the server's, which may be wrong (Exchange),
// and that which came: they must be those of the file with or without what Digest
// leaves out. Who edits a mail gives it a new key, so that under the same one
// something else may have been added.
func (s *stranger) sameContent(m *ledger.Message) bool {
	switch {
	case !m.Digest.IsZero() && !s.Digest.IsZero():
		return m.Digest == s.Digest
	case m.Key == s.Key:
		return near(m.Size, s.Size) || near(m.WireSize, s.Size)
	}
	is := func(size int64) bool { return size == m.Size || size == m.WireSize }
	return is(s.Size) || is(s.Size-s.added)
}

// pair finds those of the server's messages that are files of ours, or rows. An
// equal Message-ID is not enough, since one mail may come in several copies: size
// or date must agree, too. Where one of the two has none, both must: there are
// servers that tell none of a header that they cannot read, that add one, and mails
// that notmuch has under a made-up one. exact wants all three, as a copy on the
// server has them, and missing on both sides if at all.
func pair(server []mail.Message, here []stranger, exact bool) map[imap.UID]stranger {
	used := make([]bool, len(here))
	byID, bySize := make(map[string][]int), make(map[int64][]int)
	for i, h := range here {
		id := mail.NotmuchID(h.ID)
		byID[id] = append(byID[id], i)
		bySize[h.Size] = append(bySize[h.Size], i)
	}
	out := make(map[imap.UID]stranger)
	sorted := slices.Clone(server)
	slices.SortFunc(sorted, func(a, b mail.Message) int { return cmp.Compare(a.UID, b.UID) })
	among := func(candidates func(mail.Message) []int, good func(mail.Message, stranger) bool) {
		for _, m := range sorted {
			if _, done := out[m.UID]; done || m.UID == 0 {
				continue
			}
			for _, i := range candidates(m) {
				if !used[i] && good(m, here[i]) {
					used[i], out[m.UID] = true, here[i]
					break
				}
			}
		}
	}
	try := func(good func(mail.Message, stranger) bool) {
		among(func(m mail.Message) []int { return byID[m.MessageID] }, good)
	}
	try(func(m mail.Message, h stranger) bool { return m.Size == h.Size && h.dated(m) })
	among(func(m mail.Message) []int { return bySize[m.Size] }, func(m mail.Message, h stranger) bool {
		here, there := realID(h.ID) != "", m.MessageID != ""
		neither, both := !here && !there, here && there
		return h.dated(m) && (neither || !both && !exact)
	})
	if exact {
		return out
	}
	try(func(m mail.Message, h stranger) bool { return m.MessageID != "" && m.Size == h.Size })
	// A twin is another message's file as well as this one's: it wants sure evidence.
	try(func(m mail.Message, h stranger) bool {
		return h.ID != "" && !h.twin && (near(m.Size, h.Size) || h.dated(m))
	})
	// A mail that was just sent, saved here by Mutt and there by the server with
	// headers of its own.
	try(func(m mail.Message, h stranger) bool {
		return h.ID != "" && !h.twin && !m.InternalDate.IsZero() && (m.InternalDate.Sub(h.Date).Abs() < soon || m.InternalDate.Sub(h.sent).Abs() < soon)
	})
	return out
}

// dated tells whether the server has a message from when the file is, or its mail.
func (s stranger) dated(m mail.Message) bool {
	at := m.InternalDate.UTC().Truncate(time.Second)
	return !m.InternalDate.IsZero() && (at.Equal(s.Date) || at.Equal(s.sent))
}

// soon is within what time a mail that was sent is saved.
const soon = 10 * time.Minute

// when is the INTERNALDATE of an upload: what its header says, unless that
// cannot be, or else its file.
func (s stranger) when(now time.Time) time.Time {
	if s.sent.Year() >= 1980 && s.sent.Before(now.Add(24*time.Hour)) {
		return s.sent
	}
	return s.Date
}
