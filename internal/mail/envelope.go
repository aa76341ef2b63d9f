package mail

import (
	"slices"
	"time"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // header words in any charset that servers send
	gomail "github.com/emersion/go-message/mail"
)

// Envelope is what a person is shown of a mail's header, decoded (RFC 2047). What
// cannot be read is empty: parsing may fail, storing may not.
type Envelope struct {
	From, To  string // as they stand, decoded
	Subject   string
	Date      time.Time
	MessageID string // in the form of the function MessageID
	Fields    Header // the fields that it was read from
}

// ParseEnvelope reads as much of a header as can be read.
func ParseEnvelope(head []byte) Envelope { return EnvelopeOf(ParseHeader(head)) }

// EnvelopeOf decodes what there is of the fields that an Envelope shows.
func EnvelopeOf(fields Header) Envelope {
	h := gomail.Header{Header: fields.Entity()}
	out := Envelope{Fields: fields, MessageID: fields.MessageID()}
	out.Subject, _ = h.Text("Subject")
	out.From, _ = h.Text("From")
	out.To, _ = h.Text("To")
	out.Date, _ = h.Date()
	return out
}

// Entity gives a header to the library that decodes.
func (h Header) Entity() (out message.Header) {
	for _, f := range slices.Backward(h) {
		out.Add(f.Name, f.Value) // above those that it has
	}
	return out
}
