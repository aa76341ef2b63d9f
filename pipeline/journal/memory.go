package journal

import (
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// Tries is the memory of anything that failed: how often it was tried, and when it is tried
// again.
type Tries struct {
	Attempts int       `json:"attempts"`
	NextTry  time.Time `json:"next_try"`
	Since    time.Time `json:"since,omitzero"`     // zero: an earlier version did not note it
	Reason   string    `json:"reason,omitempty"`   // the refusal; "": there was no answer
	GivenUp  bool      `json:"given_up,omitempty"` // by the account's owner: until he asks for it
}

// Failed counts one try more. pause gives the time of the next one by how many there were.
func (t *Tries) Failed(now time.Time, reason string, pause func(now time.Time, attempts int) time.Time) {
	now = now.UTC().Truncate(time.Second)
	if t.Attempts == 0 {
		t.Since = now
	}
	t.Attempts, t.Reason, t.GivenUp = t.Attempts+1, reason, false
	t.NextTry = pause(now, t.Attempts)
}

// Waits tells whether it is not to be tried yet. all is that everything is tried, whatever its
// schedule says, but what was given up.
func (t Tries) Waits(now time.Time, all bool) bool { return t.GivenUp || !all && t.NextTry.After(now) }

// Unsent is mail that is new here and that the server refused. It is sent again by the
// schedule of messages that failed to come, or with --full; or, if its owner gave it up,
// when he asks for that.
type Unsent struct {
	Mailbox string `json:"mailbox"`
	Name    string `json:"name"` // of its file below the mailbox's folder
	ID      string `json:"id"`   // in notmuch
	Size    int64  `json:"size"`
	Tries
}

// Again counts one time more that a file failed to go to a mailbox, and tells whether it is the
// first. One that was edited since is another mail.
func (u *Unsent) Again(mailbox string, file ledger.Message, now time.Time, reason string, pause func(now time.Time, attempts int) time.Time) (first bool) {
	if first = u.Attempts == 0 || u.Size != file.Size; first {
		*u = Unsent{Mailbox: mailbox, ID: file.ID, Size: file.Size}
	}
	u.Name = file.Name
	u.Failed(now, reason, pause)
	return first
}

// Removed is what is kept of mail that was removed here, since the server has it no more:
// if it comes again, it has the tags that it had.
type Removed struct {
	Tags []string  `json:"tags"`
	At   time.Time `json:"at"`
}

// Unavailable is a command without which a mailbox cannot take part, and that was not
// answered, or refused, though others were not. LIST is of no mailbox.
type Unavailable struct{ Tries }

// Beside is the note that stands, beside its file, for a mail that notmuch does not take.
type Beside struct {
	Mailbox string `json:"mailbox"`
	ID      string `json:"id,omitempty"`       // of the note
	Key     string `json:"key,omitempty"`      // of the note's file in the mailbox's folder
	Name    string `json:"name,omitempty"`     // of it, when it was written
	Placed  bool   `json:"placed,omitempty"`   // it stood there: if it does no more, its owner removed it
	GivenUp bool   `json:"given_up,omitempty"` // there is none until its owner asks for the mail
}

// TaggedUnsent is new mail that notmuch shows as refused.
type TaggedUnsent struct {
	ID   string `json:"id"`
	Path string `json:"path"`
}

// Declined is, of one message, what the server was to change of it and refused, by what that is:
// a Change.
type Declined struct {
	Mailbox     string           `json:"mailbox"`
	UIDValidity uint64           `json:"uidvalidity"`
	UID         imap.UID         `json:"uid"`
	Changes     map[string]Tries `json:"changes"`
}

// Refusal is what is remembered of refused sign-ins until one succeeds: servers lock
// accounts for which too many are tried.
type Refusal struct {
	Attempts int       `json:"attempts"` // with the same configuration and secret
	NextTry  time.Time `json:"next_try"`
	Text     string    `json:"text"`             // the refusal, as it was told
	Way      string    `json:"way"`              // fingerprint of the configuration
	Secret   string    `json:"secret,omitempty"` // fingerprint of the secret; "": not known
	Since    time.Time `json:"since,omitzero"`   // zero: an earlier version did not note it
}

// Without is what commands are spoken without, since the server has refused it, and when it
// did.
type Without struct {
	Server    string               `json:"server"` // what tells it from another one
	Arguments map[string]time.Time `json:"arguments"`
}

// LastRun is what is remembered of runs.
type LastRun struct {
	Contact time.Time `json:"contact,omitzero"` // the server told its mailboxes
	Change  time.Time `json:"change,omitzero"`  // mail or flags came, or went there
	At      time.Time `json:"at,omitzero"`      // of the run that met the faults
	Faults  []string  `json:"faults,omitempty"` // of mailboxes and of the account
}

// Standing is a fault that stays until a person answers, or until it is over.
type Standing struct {
	Told  time.Time // when it was told last, so that somebody could read it; zero: not yet
	Since time.Time // when it was met first; zero: an earlier version did not note it
	Text  string
}

// untold stands where the time of telling would.
const untold = "-"

// MarshalText gives the times as in RFC 3339, parted by a slash, and the words.
func (s Standing) MarshalText() ([]byte, error) {
	times := untold
	if !s.Told.IsZero() {
		times = s.Told.UTC().Format(time.RFC3339)
	}
	if !s.Since.IsZero() {
		times += "/" + s.Since.UTC().Format(time.RFC3339)
	}
	return []byte(times + " " + s.Text), nil
}

// UnmarshalText reads that. Earlier versions wrote the first time alone.
func (s *Standing) UnmarshalText(text []byte) (err error) {
	times, words, _ := strings.Cut(string(text), " ")
	told, since, noted := strings.Cut(times, "/")
	if told != untold {
		s.Told, err = time.Parse(time.RFC3339, told)
	}
	if noted && err == nil {
		s.Since, err = time.Parse(time.RFC3339, since)
	}
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

// Text is a text as it is. Of what is said once it is what there is to know of it, such as
// its mailbox; SaidOnce, as by earlier versions, where that is nothing.
type Text string

// SaidOnce is all that is to be known of what was said.
const SaidOnce Text = "said"

// notSaid begins the text of what is to be said once, and nobody could read yet.
const notSaid = "not said: "

// Said tells whether it was said, and gives what else there is to know of it.
func (t Text) Said() (what Text, said bool) {
	rest, not := strings.CutPrefix(string(t), notSaid)
	return Text(rest), !not
}

// MarshalText gives it.
func (t Text) MarshalText() ([]byte, error) { return []byte(t), nil }

// UnmarshalText takes it.
func (t *Text) UnmarshalText(text []byte) error { *t = Text(text); return nil }

// Same tells whether both say the same.
func (l LastRun) Same(o LastRun) bool {
	return l.Contact.Equal(o.Contact) && l.Change.Equal(o.Change) && l.At.Equal(o.At) && slices.Equal(l.Faults, o.Faults)
}

// Imported is what was taken over of a mailbox, and from which program.
type Imported struct {
	Program string `json:"program"` // as the command that takes it over calls it
	File    string `json:"file"`    // in which that remembers it; absolute
	Digest  string `json:"digest"`  // of the file as it was read
}
