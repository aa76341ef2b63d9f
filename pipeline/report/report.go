package report

import (
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Event is one thing that happened in a run, for progress, logs and --json.
type Event struct {
	Time    time.Time `json:"time"`
	Type    EventType `json:"type"`
	Account string    `json:"account"`
	Mailbox string    `json:"mailbox,omitempty"`
	UID     imap.UID  `json:"uid,omitempty"`
	Done    int       `json:"done,omitempty"`
	Total   int       `json:"total,omitempty"`
	// DoneBytes and TotalBytes are those of Done and Total, as far as they are known.
	DoneBytes  int64 `json:"done_bytes,omitempty"`
	TotalBytes int64 `json:"total_bytes,omitempty"`

	Text   string       `json:"text,omitempty"`   // one plain line for a person
	Action *mail.Action `json:"action,omitempty"` // of EventAction
	Report *Report      `json:"report,omitempty"`
}

// EventType names what an Event is about.
type EventType string

// The events. Progress comes often and carries no text.
const (
	EventMailbox  EventType = "mailbox"  // a changed mailbox: what will be done in it
	EventProgress EventType = "progress" // Done of Total messages are in notmuch
	EventStub     EventType = "stub"     // a message that could not be fetched, told once
	EventHealed   EventType = "healed"   // the real mail took a stub's place
	EventGone     EventType = "gone"     // a stub went away with its message
	EventNote     EventType = "note"     // worth knowing, no fault
	EventHook     EventType = "hook"     // a hook failed; told once, at the end
	EventFault    EventType = "fault"    // a mailbox or account that was left for now
	EventAction   EventType = "action"   // what a run would do, of a dry run that was asked for its plan
	EventDone     EventType = "done"     // the account's run is over; Report is set
)

// Report sums one account's run up.
type Report struct {
	Account   string    `json:"account"`
	Mailboxes int       `json:"mailboxes"`         // selected
	Changed   int       `json:"changed"`           // mailboxes that were looked into
	New       int       `json:"new"`               // mails that came
	Linked    int       `json:"linked"`            // of these, already here and not downloaded
	Ours      int       `json:"ours"`              // of these, moved there by this run
	News      int       `json:"news"`              // of these, unread, and not here before nor in a mailbox for what its owner sent, drafted, or threw away
	Salvaged  int       `json:"salvaged"`          // of these, by another road than a plain fetch
	Flagged   int       `json:"flagged"`           // mails whose flags changed
	Pushed    int       `json:"pushed"`            // mails whose flags the server was told
	Moved     int       `json:"moved"`             // mails moved on the server, as their files were here
	Deleted   int       `json:"deleted"`           // mails deleted on the server, as their files were here
	Uploaded  int       `json:"uploaded"`          // mails that are new here, and that the server was given
	Removed   int       `json:"removed"`           // mails that are gone from the server
	Held      int       `json:"held"`              // deletions and moves that the guard held back
	HeldIn    []Held    `json:"held_in,omitempty"` // and all else that waits for the same word
	NewStubs  int       `json:"new_stubs"`
	Stubs     int       `json:"known_stubs"` // known before this run and still failing
	Unsent    int       `json:"unsent"`      // new mails here that the server refused in an earlier run
	Healed    int       `json:"healed"`
	Skipped   int       `json:"skipped"`  // messages that a hook did not want
	Deferred  int       `json:"deferred"` // messages that a hook put off
	NotMail   int       `json:"not_mail"` // stored, but notmuch does not take them for mail
	DryRun    bool      `json:"dry_run,omitempty"`
	Faults    []Failure `json:"faults,omitempty"`
	GaveWay   bool      `json:"-"` // large messages wait for the next run
}

// Held is what the guard held back in a mailbox, until a person says what is right.
type Held struct {
	Mailbox  string `json:"mailbox"`
	Messages int    `json:"messages"`
	There    bool   `json:"there"` // they are gone on the server; else here
}

// Failure is a mailbox or an account that was left for now.
type Failure struct {
	Scope   Scope  `json:"scope"`
	Mailbox string `json:"mailbox,omitempty"`
	Text    string `json:"text"`
	Known   bool   `json:"known,omitempty"` // it was told by an earlier run and waits for a person
	Err     error  `json:"-"`
	Again   bool   `json:"-"` // the next sync tries again, which the report says in Text
	Bars    bool   `json:"-"` // it kept from the mailbox's other faults whether they are over
}

// Nothing tells whether the run ended before it could do anything.
func (r *Report) Nothing() bool { return r.Mailboxes == 0 && len(r.Faults) > 0 }

// Broken tells whether this machine failed, though the run went on without what that
// cost.
func (r *Report) Broken() bool {
	return slices.ContainsFunc(r.Faults, func(f Failure) bool { return Own(f.Err) })
}

// Clean tells whether there was no fault that is news, and no new stub.
func (r *Report) Clean() bool {
	return r.NewStubs == 0 && !slices.ContainsFunc(r.Faults, func(f Failure) bool { return !f.Known })
}

// AnswerFor is what --yes-delete takes for a mailbox, as the shell wants it.
func AnswerFor(account, mailbox string) string {
	name := account + "/" + mailbox
	if strings.ContainsFunc(name, func(c rune) bool { return strings.ContainsRune(" \t'\"$&;<>|()*?[]{}~#!`\\", c) }) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}
