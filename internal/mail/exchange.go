package mail

import (
	"time"

	"github.com/emersion/go-imap/v2"
)

// Exchange is one command spoken by hand, with everything that came back.
type Exchange struct {
	Command string // as sent, without tag, secrets replaced
	// Status is the tagged answer: "OK", "NO" or "BAD". It is "BYE" if the
	// server hung up in words, and empty if the connection ended or the
	// deadline passed first; the error returned beside it says which.
	Status string
	Code   string // response code of the tagged answer, upper case, without brackets
	Text   string
	// Fetched are the FETCH responses in the order they came, whoever they
	// are about.
	Fetched []Fetched
	// Untagged are the other untagged responses, one line each, bounded.
	Untagged []string
	// Lines is the transcript, bounded; literals are shown up to a limit.
	Lines []Line
}

// Fetched is one untagged FETCH response, read leniently.
type Fetched struct {
	Message
	// Items are by upper-case name as the server sent it, partial suffix
	// included: "BODY[HEADER]", "BODY[]<0>", "BODYSTRUCTURE".
	Items map[string]Value
}

// Value is one FETCH data item's value.
type Value struct {
	Nil bool
	// Text is the value: a string's or literal's bytes (at most the session's
	// bound), or the raw text of an atom or parenthesised list.
	Text []byte
	// Size is the whole size in bytes, larger than len(Text) if it was cut
	// or spooled.
	Size int64
}

// Part is a leaf of a message's MIME structure, as the server tells it. What
// the server leaves out, or says in a way that cannot be read, is empty.
type Part struct {
	Path        string            // by which the server is asked for it: "1", "2.1"; that of a message in one part is "1"
	Type        string            // lower case
	Subtype     string            // lower case
	Params      map[string]string // names in lower case
	Encoding    string            // lower case
	Size        int64             // bytes, as encoded
	Disposition string            // lower case
	Filename    string
}

// Line is one line of a transcript.
type Line struct {
	At     time.Time
	Client bool
	Text   string // without line end and without secrets; unprintable bytes escaped
}

// Refused gives the fault of an exchange that was not answered by OK; nil if it was.
func (e *Exchange) Refused(op, mailbox string, uid imap.UID) error {
	if e.Status == "OK" {
		return nil
	}
	f := &Fault{Kind: KindBad, Op: op, Mailbox: mailbox, UID: uid, Code: e.Code, Text: e.Text}
	if e.Status == "NO" {
		f.Kind = KindNo
	}
	return f
}
