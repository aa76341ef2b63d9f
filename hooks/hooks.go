// Package hooks is the contract by which mail can be judged, tagged and told of
// on its way, by Go code and by executables alike. A hook is a value with its
// documentation; the list of them is explicit, and no stage of the pipeline
// knows what hooks there are.
//
// A hook cannot alter a mail's bytes, nor delete anything, nor touch the server.
// One that fails costs no mail: it is reported, and the mail passes, unless the
// hook is required. docs/hooks.md is the contract in full.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Point is a place on the way of a message, or of an account's run.
type Point string

// The points, in the order in which a run comes to them.
const (
	PreSync   Point = "pre-sync"   // before the server is asked anything
	PreFetch  Point = "pre-fetch"  // a message is about to be downloaded
	PreWrite  Point = "pre-write"  // a mail came and is about to get its place
	PostIndex Point = "post-index" // a mail is in notmuch
	PostStub  Point = "post-stub"  // a stub for a message that could not be had is in notmuch
	PrePush   Point = "pre-push"   // what the user changed in a mail is about to be told to the server
	PostSync  Point = "post-sync"  // the account's run is over
)

// Points are all of them.
func Points() []Point {
	return []Point{PreSync, PreFetch, PreWrite, PostIndex, PostStub, PrePush, PostSync}
}

// Pre tells whether a hook may answer there; elsewhere it is only told.
func (p Point) Pre() bool { return strings.HasPrefix(string(p), "pre-") }

// Hook is one plug-in.
type Hook struct {
	Name   string // letters, digits and . _ -
	Doc    string // what it does, for a person; a hook without is refused
	Points []Point
	// Required holds a mail back while the hook fails, instead of letting it
	// pass. At a post- point there is nothing to hold back.
	Required bool
	Timeout  time.Duration // for one event; 0 means DefaultTimeout
	// Run judges an event, or takes note of it. It is called for one event at a
	// time, while nobody here has notmuch's database open, so that it may
	// write to it. It must return soon after ctx is done; one that does not is
	// left behind and not called again in this run. The same event may come
	// twice, if a run was interrupted.
	Run func(ctx context.Context, e *Event) (Verdict, error)
	// Close, if there is one, is called after the last Run.
	Close func() error
}

// Action is what is to become of a message.
type Action string

// The actions. At pre-sync they are about the account's run, at pre-push about
// what is to be told to the server.
const (
	Pass  Action = "pass"  // go on; so does the empty one
	Skip  Action = "skip"  // not wanted: remembered, and never taken for a deletion
	Defer Action = "defer" // not now: asked again at the next run
)

// Verdict is a hook's answer at a pre- point. The zero value lets pass.
type Verdict struct {
	Action Action   `json:"action,omitempty"`
	Add    []string `json:"add,omitempty"`    // tags
	Remove []string `json:"remove,omitempty"` // tags
	Reason string   `json:"reason,omitempty"` // of skip and defer: a few words for a person
	// Placeholder, with skip at pre-fetch: a stub in notmuch says what was left on
	// the server, and can be asked for it.
	Placeholder bool `json:"placeholder,omitempty"`
}

// EventVersion is the version of the contract: it grows when something is taken
// away or changes its meaning, not when something is added.
const EventVersion = 1

// Event is what a hook is told. What is not known at a point is empty.
type Event struct {
	Version int    `json:"version"`
	Point   Point  `json:"point"`
	Hook    string `json:"hook"`
	Account string `json:"account"`

	// Of a message.
	Mailbox     string   `json:"mailbox,omitempty"`
	UIDValidity uint64   `json:"uidvalidity,omitempty"`
	UID         uint32   `json:"uid,omitempty"`
	Size        int64    `json:"size,omitempty"`     // bytes, as the server says
	Received    string   `json:"received,omitempty"` // INTERNALDATE, RFC 3339
	Flags       []string `json:"flags,omitempty"`    // IMAP's
	Tags        []string `json:"tags,omitempty"`     // pre-fetch, pre-write: those that it is to get
	// File is a copy of the mail, with LF line ends, for this call alone. It may
	// be changed or removed: the mail itself stays as it is.
	File      string `json:"file,omitempty"`
	ID        string `json:"id,omitempty"`         // notmuch's, from post-index on; for notmuch, put id: before it
	MessageID string `json:"message_id,omitempty"` // without angle brackets
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Date      string `json:"date,omitempty"`    // of the header, RFC 3339
	ListID    string `json:"list_id,omitempty"` // without angle brackets

	Set    []string `json:"set,omitempty"`    // pre-push: flags that the user set
	Clear  []string `json:"clear,omitempty"`  // pre-push: flags that the user took away
	Reason string   `json:"reason,omitempty"` // post-stub: why the mail could not be had

	// News, at post-sync: mails that came, are unread, were not here before in another
	// mailbox, and are in none for what its owner sent, drafted or threw away. At
	// post-index it is 1 if the mail is one of these.
	News int `json:"news,omitempty"`

	// Of a run, at post-sync.
	New      int `json:"new,omitempty"`       // mails that came
	Stubs    int `json:"new_stubs,omitempty"` // messages that could not be had
	Healed   int `json:"healed,omitempty"`    // stubs that gave way to their mail
	Flagged  int `json:"flagged,omitempty"`   // mails whose flags the server changed
	Pushed   int `json:"pushed,omitempty"`    // mails whose flags the server was told
	Moved    int `json:"moved,omitempty"`     // mails that were moved on the server
	Deleted  int `json:"deleted,omitempty"`   // mails that were deleted on the server
	Uploaded int `json:"uploaded,omitempty"`  // mails that the server was given
	Removed  int `json:"removed,omitempty"`   // mails that are gone from the server
	Faults   int `json:"faults,omitempty"`    // mailboxes that were left for now
}

// Bounds of the contract.
const (
	DefaultTimeout = 30 * time.Second
	maxTag         = 200 // NOTMUCH_TAG_MAX
	maxReason      = 200 // characters
)

// Validate tells everything that is wrong with a list of hooks.
func Validate(list []Hook) error {
	var errs []error
	seen := make(map[string]bool, len(list))
	for i, h := range list {
		wrong := func(format string, args ...any) {
			who := fmt.Sprintf("hook %q", h.Name)
			if h.Name == "" {
				who = fmt.Sprintf("hook number %d", i+1)
			}
			errs = append(errs, fmt.Errorf("%s: %w", who, fmt.Errorf(format, args...)))
		}
		switch why := BadName(h.Name); {
		case why != "":
			wrong("its name %s", why)
		case seen[h.Name]:
			wrong("there is one of this name already")
		}
		seen[h.Name] = true
		if strings.TrimSpace(h.Doc) == "" {
			wrong("it has no documentation; say in Doc what it does")
		}
		if h.Run == nil {
			wrong("there is nothing to run")
		}
		if h.Timeout < 0 {
			wrong("its timeout is negative")
		}
		if len(h.Points) == 0 {
			wrong("it names no point; there is: %s", PointNames())
		}
		for j, p := range h.Points {
			switch {
			case !slices.Contains(Points(), p):
				wrong("there is no point %q; there is: %s", p, PointNames())
			case slices.Contains(h.Points[:j], p):
				wrong("the point %q is named twice", p)
			}
		}
	}
	return errors.Join(errs...)
}

// BadName says why a name cannot be a hook's; "" if it can.
func BadName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > 64:
		return "is longer than 64 bytes"
	case strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-"):
		return fmt.Sprintf("begins with %q", name[:1])
	case strings.ContainsFunc(name, func(c rune) bool {
		return c > '~' || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("._-", c)
	}):
		return "may hold letters, digits and . _ - only"
	}
	return ""
}

// PointNames lists the points for a person.
func PointNames() string {
	names := make([]string, len(Points()))
	for i, p := range Points() {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

// check says what is wrong with a verdict at a point.
func (v *Verdict) check(p Point) error {
	if !p.Pre() {
		if v.Action == Skip || v.Action == Defer || v.Placeholder || len(v.Add)+len(v.Remove) > 0 {
			return fmt.Errorf("it answered at %s, where a hook is only told", p)
		}
		return nil
	}
	switch v.Action {
	case "", Pass, Skip, Defer:
	default:
		return fmt.Errorf("it answered %q; an action is pass, skip or defer", bound(string(v.Action), 40))
	}
	for _, t := range slices.Concat(v.Add, v.Remove) {
		if why := badTag(t); why != "" {
			return fmt.Errorf("the tag %q %s", bound(t, 40), why)
		}
	}
	if v.Placeholder && (v.Action != Skip || p != PreFetch) {
		return fmt.Errorf("it answered placeholder, which goes with skip at %s only", PreFetch)
	}
	v.Reason = bound(v.Reason, maxReason)
	return nil
}

func badTag(tag string) string {
	switch {
	case tag == "":
		return "is empty"
	case len(tag) > maxTag:
		return fmt.Sprintf("is longer than notmuch's limit of %d bytes", maxTag)
	case strings.HasPrefix(tag, "-") || strings.HasPrefix(tag, "+"):
		return fmt.Sprintf("begins with %q", tag[:1])
	case !utf8.ValidString(tag) || strings.ContainsFunc(tag, unicode.IsControl):
		return "holds a control character, or is no UTF-8"
	}
	return ""
}

// bound makes one line of at most so many characters.
func bound(s string, most int) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool { return unicode.IsControl(r) }), "; ")
	s = strings.TrimSpace(s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return s
}
