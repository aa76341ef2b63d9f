// Package mail has the words that the two ends and the pipeline between them
// share: what a server says of a mailbox and of a message in it, how it can
// fail, and what notmuch is told. It does no I/O, so that pipeline builds and
// tests without a network and without cgo.
package mail

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Mailbox is one mailbox as LIST and STATUS describe it.
type Mailbox struct {
	// Name is the mailbox's name in UTF-8. It is what every Session method
	// takes; a name that is not valid on the wire is kept apart by the session.
	Name string
	// Delim separates levels of hierarchy in Name; 0 if there are none.
	Delim rune
	// Attrs are the LIST attributes as sent (\Noselect, \Sent, ...).
	Attrs []string
	// Status is nil for a mailbox that cannot be selected, or whose STATUS the
	// server refused; Err then says how.
	Status *Status
	Err    error
	// Unasked: its status was not asked for (Listing.Skip), and is nil.
	Unasked bool
	// Odd: no command can have its name, which holds CR, LF or NUL, or is too long.
	// Name is a quoted form of it then, for a person.
	Odd bool
}

// Selectable tells whether it can be selected, by its attributes (RFC 9051 7.3.1).
func (m Mailbox) Selectable() bool {
	return !slices.ContainsFunc(m.Attrs, func(a string) bool {
		return strings.EqualFold(a, `\Noselect`) || strings.EqualFold(a, `\NonExistent`)
	})
}

// For tells whether it is for this use, such as \Drafts: the server marks it so (RFC 6154 2),
// or it has one of the names that are usual for it.
func (m Mailbox) For(use string, names ...string) bool {
	return slices.ContainsFunc(m.Attrs, func(a string) bool { return strings.EqualFold(a, use) }) ||
		slices.ContainsFunc(names, func(name string) bool {
			return m.Name == name || m.Delim != 0 && m.Name == "INBOX"+string(m.Delim)+name
		})
}

// InboxName gives a mailbox's name with INBOX, the same in any case (RFC 9051 5.1), in its
// one spelling.
func InboxName(name string) string {
	if strings.EqualFold(name, "INBOX") {
		return "INBOX"
	}
	return name
}

// IsCalled tells whether a name that a person wrote is that of the mailbox: INBOX is the same in
// any case, as to many servers are the mailboxes below it.
func (m Mailbox) IsCalled(name string) bool {
	below := func(s string) (string, bool) {
		top, rest, ok := strings.Cut(s, string(m.Delim))
		return rest, ok && m.Delim != 0 && InboxName(top) == "INBOX"
	}
	if m.Name == InboxName(name) {
		return true
	}
	a, is := below(m.Name)
	b, too := below(name)
	return is && too && a == b
}

// TrashOf gives the mailbox that is an account's Trash: the one that the configuration names, as
// the server spells it, or else Trash.
func TrashOf(configured string, list []Mailbox) string {
	if configured == "" {
		return Trash(list)
	}
	if slices.ContainsFunc(list, func(m Mailbox) bool { return m.Name == configured }) {
		return configured
	}
	if i := slices.IndexFunc(list, func(m Mailbox) bool { return m.IsCalled(configured) }); i >= 0 {
		return list[i].Name
	}
	return configured
}

// Trash gives the mailbox that is an account's Trash: the one that the server marks
// (RFC 6154 2), or one that is called as it usually is; "" if there is none.
func Trash(list []Mailbox) string {
	for _, m := range list {
		if !m.Odd && m.For(`\Trash`) {
			return m.Name
		}
	}
	for _, name := range []string{"Trash", "Deleted Items", "Deleted Messages"} {
		for _, m := range list {
			if m.For("", name) {
				return m.Name
			}
		}
	}
	return ""
}

// Listing is how mailboxes are listed. The zero Listing wants the status of all.
type Listing struct {
	// Skip tells of which mailboxes the status is not wanted. A server that has
	// LIST-STATUS may tell it all the same.
	Skip func(Mailbox) bool
	// Singly asks with a STATUS for each mailbox also where the server has LIST-STATUS
	// (RFC 5819), of which one mailbox can keep all answers back.
	Singly bool
}

// Status is what tells whether a mailbox changed (RFC 3501 7.2.4, RFC 7162).
type Status struct {
	Messages    uint32
	UIDNext     imap.UID // 0: not told
	UIDValidity uint64   // 64 bit: servers send more than 32 (neomutt#3830); 0: not told
	// HighestModSeq is 0 where the server has no CONDSTORE for the mailbox.
	HighestModSeq uint64
}

// Known is what the client remembers of a mailbox, offered to the server with
// QRESYNC (RFC 7162 3.2.5).
type Known struct {
	UIDValidity   uint64
	HighestModSeq uint64
	UIDs          imap.UIDSet // optional; bounds VANISHED to these
	// Identify are messages to be identified in the same round trip, if there is a
	// way to do that.
	Identify imap.UIDSet
}

// Selected is what EXAMINE or SELECT answered.
type Selected struct {
	Status
	ReadOnly       bool // the server says so; always after EXAMINE
	PermanentFlags []string
	// Resynced is true if Known was offered and the server answered with
	// Changed and Vanished: then both are complete since Known.HighestModSeq.
	Resynced bool
	Vanished imap.UIDSet
	Changed  []Message
	// Identified is what the server said of Known.Identify; nil if it was not asked,
	// or did not answer.
	Identified []Message
}

// Message is what a server says of one message, its bytes apart.
type Message struct {
	UID imap.UID
	Seq uint32
	// Flags are system flags and keywords as sent, \Recent left out (it is
	// session state, RFC 3501 2.3.2). Nil means that they were not told, an
	// empty slice that there are none.
	Flags        []string
	InternalDate time.Time // zero: not told
	Size         int64     // RFC822.SIZE; Exchange's is not exact; 0: not told
	ModSeq       uint64    // 0: not told
	BodySize     int64     // bytes of the body literal, CRLF line ends
	MessageID    string    // in the form of the function MessageID; only from Session.Identify
	GmailID      uint64    // X-GM-MSGID; only from Session.Identify of Gmail; 0: not told
}

// Spool takes the bytes of one message while they come.
type Spool interface {
	io.Writer
	// Discard throws away what was written. It is called at most once, and
	// never after the spool was handed to Sink.Done.
	Discard()
}

// Sink takes fetched messages. Both functions are called from the goroutine
// that called Fetch, never two at a time.
type Sink struct {
	// Open is called when a body begins; size is the announced size in bytes.
	Open func(size int64) (Spool, error)
	// Done is called when the whole response has been read: the body has
	// exactly the announced size and the UID is one that was asked for.
	// An error ends the fetch and is returned by it as it is.
	Done func(Message, Spool) error
}

// Delim is the server's hierarchy delimiter; 0 if it has no hierarchy.
func Delim(list []Mailbox) rune {
	for _, m := range list {
		if m.Delim != 0 {
			return m.Delim
		}
	}
	return 0
}

// Prefix tells from the mailboxes alone whether all are below INBOX.
func Prefix(list []Mailbox) (prefix string) {
	for _, m := range list {
		if m.Name == "INBOX" {
			continue
		}
		if m.Delim == 0 || !strings.HasPrefix(m.Name, "INBOX"+string(m.Delim)) {
			return ""
		}
		prefix = "INBOX" + string(m.Delim)
	}
	return prefix
}
