package stub

import (
	"errors"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Salvaged is what could be had of a message that did not come whole, or that was
// left where it is.
type Salvaged struct {
	UID        imap.UID
	Told       mail.Message // flags, date, size, as far as they were told
	Err        error        // the first fault that the message itself met
	Substitute *Substitute  // what was sent in its place; nil: nothing was
	Header     []byte       // of the real mail, whole or some fields
	Structure  []mail.Part
	Parts      []Part
	Text       []byte // TEXT without its header
	Start      []byte // of the mail, up to where it broke off
	Lines      []mail.Line
}

// Part is a MIME part that came although the mail did not.
type Part struct {
	mail.Part
	Data []byte // as it is encoded
	Cut  bool   // the part goes on
}

// transcriptLines bounds what a stub shows of the conversation.
const transcriptLines = 200

// Note keeps what an exchange for the whole mail told.
func (s *Salvaged) Note(ex *mail.Exchange, err error) {
	s.Heard(ex)
	if err == nil && ex != nil && ex.Status == "OK" {
		err = &mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", UID: s.UID}
	}
	if s.Err == nil {
		s.Err = err
	}
}

// Heard keeps the lines of an exchange, and what it told of the message.
func (s *Salvaged) Heard(ex *mail.Exchange) {
	if ex == nil {
		return
	}
	if room := transcriptLines - len(s.Lines); room > 0 {
		s.Lines = append(s.Lines, ex.Lines[:min(room, len(ex.Lines))]...)
	}
	for _, m := range ex.Fetched {
		if m.UID == s.UID || (m.UID == 0 && len(ex.Fetched) == 1) {
			s.learn(m.Message)
		}
	}
}

func (s *Salvaged) learn(m mail.Message) {
	if m.Flags != nil {
		s.Told.Flags = m.Flags
	}
	if !m.InternalDate.IsZero() {
		s.Told.InternalDate = m.InternalDate
	}
	if m.Size > 0 {
		s.Told.Size = m.Size
	}
}

// Size is how much of the mail is known, in bytes.
func (s *Salvaged) Size() int {
	n := len(s.Header) + len(s.Start) + len(s.Text)
	for _, p := range s.Parts {
		n += len(p.Data)
	}
	if s.Substitute != nil {
		n += len(s.Substitute.Subject) + len(s.Substitute.From) + len(s.Substitute.Sent)
	}
	return n
}

// Date is the real mail's as far as it is known.
func (s *Salvaged) Date(now time.Time) time.Time {
	switch {
	case !s.Told.InternalDate.IsZero():
		return s.Told.InternalDate.UTC().Truncate(time.Second)
	case len(s.Header) > 0 && !mail.ParseEnvelope(s.Header).Date.IsZero():
		return mail.ParseEnvelope(s.Header).Date.UTC().Truncate(time.Second)
	case s.Substitute != nil && !s.Substitute.Date.IsZero():
		return s.Substitute.Date
	}
	return now
}

// Reason is one plain line: what the server did, whose fault it is.
func (s *Salvaged) Reason() string {
	if s.Substitute != nil {
		return "the server cannot convert this message and sends a substitute for it"
	}
	fault, ok := errors.AsType[*mail.Fault](s.Err)
	if !ok {
		return "the server lists this message but does not hand it over"
	}
	switch fault.Kind {
	case mail.KindNoData:
		return "the server lists this message and says OK, but sends nothing of it"
	case mail.KindNo, mail.KindBad:
		return fmt.Sprintf("the server lists this message but refuses to send it: %s", mail.Quoted(fault.Text))
	case mail.KindCut, mail.KindBye:
		return "the server hangs up whenever this message is asked for"
	case mail.KindSilent:
		return "the server falls silent whenever this message is asked for"
	case mail.KindShort:
		return "the server breaks this message off before its end"
	default:
		return "the server's answer for this message cannot be read: " + fault.Kind.String()
	}
}
