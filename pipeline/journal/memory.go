package journal

import (
	"slices"
	"strings"
	"time"
)

// Unsent is mail that is new here and that the server refused. It is sent again by the
// schedule of messages that failed to come, or with --full.
type Unsent struct {
	Mailbox  string    `json:"mailbox"`
	Name     string    `json:"name"` // of its file below the mailbox's folder
	ID       string    `json:"id"`   // in notmuch
	Size     int64     `json:"size"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	Since    time.Time `json:"since"`
	NextTry  time.Time `json:"next_try"`
}

// Removed is what is kept of mail that was removed here, since the server has it no more:
// if it comes again, it has the tags that it had.
type Removed struct {
	Tags []string  `json:"tags"`
	At   time.Time `json:"at"`
}

// Silence is a command that was not answered, though others were. LIST is of no mailbox.
type Silence struct {
	Attempts int       `json:"attempts"`
	NextTry  time.Time `json:"next_try"`
}

// Refusal is what is remembered of refused sign-ins until one succeeds: servers lock
// accounts for which too many are tried.
type Refusal struct {
	Attempts int       `json:"attempts"` // with the same configuration and secret
	NextTry  time.Time `json:"next_try"`
	Text     string    `json:"text"`             // the refusal, as it was told
	Way      string    `json:"way"`              // fingerprint of the configuration
	Secret   string    `json:"secret,omitempty"` // fingerprint of the secret; "": not known
}

// LastRun is what is remembered of runs.
type LastRun struct {
	Contact time.Time `json:"contact,omitzero"` // the server told its mailboxes
	Change  time.Time `json:"change,omitzero"`  // mail or flags came, or went there
	At      time.Time `json:"at,omitzero"`      // of the run that met the faults
	Faults  []string  `json:"faults,omitempty"` // of mailboxes and of the account
}

// Standing is a fault that stays until a person answers: when it was told last, and in
// which words.
type Standing struct {
	Told time.Time
	Text string
}

// MarshalText gives the time as in RFC 3339, and the words.
func (s Standing) MarshalText() ([]byte, error) {
	return []byte(s.Told.UTC().Format(time.RFC3339) + " " + s.Text), nil
}

// UnmarshalText reads that.
func (s *Standing) UnmarshalText(text []byte) (err error) {
	told, words, _ := strings.Cut(string(text), " ")
	s.Told, err = time.Parse(time.RFC3339, told)
	s.Text = words
	return err
}

// Moment is a time, in whole seconds.
type Moment struct{ time.Time }

// MarshalText gives it as in RFC 3339.
func (m Moment) MarshalText() ([]byte, error) {
	return []byte(m.UTC().Format(time.RFC3339)), nil
}

// UnmarshalText reads that.
func (m *Moment) UnmarshalText(text []byte) (err error) {
	m.Time, err = time.Parse(time.RFC3339, string(text))
	return err
}

// Text is a text as it is. Of what was said once it is the mailbox of which it was said,
// or, as by earlier versions, SaidOnce.
type Text string

// SaidOnce is all that is to be known of what was said where it has no mailbox.
const SaidOnce Text = "said"

// MarshalText gives it.
func (t Text) MarshalText() ([]byte, error) { return []byte(t), nil }

// UnmarshalText takes it.
func (t *Text) UnmarshalText(text []byte) error { *t = Text(text); return nil }

// Same tells whether both say the same.
func (l LastRun) Same(o LastRun) bool {
	return l.Contact.Equal(o.Contact) && l.Change.Equal(o.Change) && l.At.Equal(o.At) && slices.Equal(l.Faults, o.Faults)
}
