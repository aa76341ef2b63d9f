package mail

import (
	"cmp"
	"mime"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// ActionKind says what is done to a mail or to a mailbox.
type ActionKind string

// The kinds. The first six are of the server.
const (
	ActStore  ActionKind = "store"  // its flags change there
	ActMove   ActionKind = "move"   // it goes to another mailbox there
	ActDelete ActionKind = "delete" // it goes there, to the Trash or for good
	ActUpload ActionKind = "upload" // it is new here
	ActCreate ActionKind = "create" // a mailbox is made there
	ActErase  ActionKind = "erase"  // a mailbox is deleted there, and here

	ActFetch  ActionKind = "fetch"  // it comes
	ActLink   ActionKind = "link"   // it comes, and is here already, in another mailbox
	ActPair   ActionKind = "pair"   // a file that was here is its
	ActHeal   ActionKind = "heal"   // it comes where a stub stands
	ActStub   ActionKind = "stub"   // it does not come, and a stub stands for it
	ActSkip   ActionKind = "skip"   // a hook does not want it
	ActFlag   ActionKind = "flag"   // its flags change here
	ActRemove ActionKind = "remove" // it goes here
	ActFollow ActionKind = "follow" // its file goes to another folder here
	ActRename ActionKind = "rename" // a mailbox has another name there, and here
	ActUndo   ActionKind = "undo"   // what was done to it is turned back here
)

// ActionKinds are all of them.
func ActionKinds() []ActionKind {
	return []ActionKind{
		ActStore, ActMove, ActDelete, ActUpload, ActCreate, ActErase,
		ActFetch, ActLink, ActPair, ActHeal, ActStub, ActSkip, ActFlag, ActRemove, ActFollow, ActRename, ActUndo,
	}
}

// There tells whether it is done on the server.
func (k ActionKind) There() bool { i := slices.Index(ActionKinds(), k); return i >= 0 && i < 6 }

// Begun tells whether what is done is said before it is: the server may not answer, and of a file
// that was removed or put back nothing tells why.
func (k ActionKind) Begun() bool { return k.There() || k == ActRemove || k == ActUndo }

// Action is one thing that is to be done, or was, to a mail or to a mailbox. What a dry run prints,
// what the log keeps, and what could be turned round are made of it.
type Action struct {
	Kind        ActionKind `json:"kind"`
	Mailbox     string     `json:"mailbox"`
	UIDValidity uint64     `json:"uidvalidity,omitempty"`
	UID         imap.UID   `json:"uid,omitempty"`
	Key         string     `json:"key,omitempty"`    // of its file here
	ID          string     `json:"id,omitempty"`     // notmuch's
	Digest      string     `json:"digest,omitempty"` // of its text, in hexadecimal, where it is known; of what comes it is left out
	Other       string     `json:"other,omitempty"`  // the mailbox that it goes to; of ActLink, that it was in
	Before      []string   `json:"before,omitempty"` // its flags
	After       []string   `json:"after,omitempty"`
	Tags        []string   `json:"tags,omitempty"`  // that it had when it went
	Attic       bool       `json:"attic,omitempty"` // its file goes to the attic; of ActUndo, comes from there
	From        string     `json:"from,omitempty"`  // who wrote it, and what: Brief's
	Subject     string     `json:"subject,omitempty"`
	Why         string     `json:"why,omitempty"` // in words
}

// Outcome is what became of an action.
type Outcome string

// The outcomes.
const (
	IsBegun   Outcome = "begun" // whether it is done is not known yet
	IsDone    Outcome = "done"
	IsRefused Outcome = "refused" // by the server
	IsUndone  Outcome = "undone"  // for another reason
)

// Logged is an action as the log has it.
type Logged struct {
	At      time.Time `json:"time"`
	Run     int64     `json:"run"`    // when that began, in milliseconds since 1970
	Number  int64     `json:"number"` // in the account's log
	Outcome Outcome   `json:"outcome"`
	Said    string    `json:"said,omitempty"` // about the outcome, in words
	Action
	// Only an action that was begun gets this outcome; another one is not added.
	Only bool `json:"-"`
}

// About names the action for as long as it is begun: no other of this name is meanwhile.
func (a *Action) About() string {
	what := strconv.FormatUint(a.UIDValidity, 10) + "/" + strconv.FormatUint(uint64(a.UID), 10)
	switch a.Kind {
	case ActUpload, ActUndo:
		what = a.Key
	case ActCreate, ActErase:
		what = ""
	}
	return string(a.Kind) + "/" + a.Mailbox + "/" + what
}

// changed gives the flags that come and go, as a search would have them.
func (a *Action) changed() string {
	var words []string
	for _, f := range a.After {
		if !hasFold(a.Before, f) {
			words = append(words, "+"+f)
		}
	}
	for _, f := range a.Before {
		if !hasFold(a.After, f) {
			words = append(words, "-"+f)
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func hasFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, s) })
}

// Words say what is done, of what the rest of a line names: "moved to Archive on the server".
func (a *Action) Words() string {
	switch a.Kind {
	case ActStore:
		return "flags changed on the server (" + a.changed() + ")"
	case ActMove:
		return "moved to " + a.Other + " on the server"
	case ActDelete:
		if a.Other != "" {
			return "moved to " + a.Other + " on the server"
		}
		return "deleted on the server"
	case ActUpload:
		return "uploaded"
	case ActCreate:
		return "mailbox made on the server"
	case ActErase:
		return "mailbox deleted"
	case ActFetch:
		return "fetched"
	case ActLink:
		if flags := a.changed(); flags != "" {
			return "linked from " + a.Other + " (" + flags + ")"
		}
		return "linked from " + a.Other
	case ActPair:
		return "paired with the file that was here"
	case ActHeal:
		return "fetched, in place of its stub"
	case ActStub:
		return "not fetched, and a stub made"
	case ActSkip:
		return "left on the server"
	case ActFlag:
		return "flags changed here (" + a.changed() + ")"
	case ActRemove:
		if a.Attic {
			return "removed here, and kept in the attic"
		}
		return "removed here"
	case ActFollow:
		return "moved to " + a.Other + " here"
	case ActRename:
		return "mailbox renamed to " + a.Other
	case ActUndo:
		var parts []string
		if a.Attic {
			parts = append(parts, "brought back from the attic")
		}
		if a.Other != "" {
			parts = append(parts, "moved back to "+a.Other+" here")
		}
		if flags := a.changed(); flags != "" && !a.Attic {
			parts = append(parts, "flags changed back here ("+flags+")")
		}
		return cmp.Or(strings.Join(parts, ", "), "tags changed back here")
	}
	return string(a.Kind) // of a later version
}

// Plan is a line for an action that is to be done: what, where, and of which mail.
func (a *Action) Plan() string {
	where := a.Mailbox
	switch {
	case a.Other == "":
	case a.Kind == ActLink:
		where = a.Other + " -> " + a.Mailbox
	default:
		where = a.Mailbox + " -> " + a.Other
	}
	flags := ""
	if a.Kind == ActStore || a.Kind == ActFlag || a.Kind == ActUndo && !a.Attic {
		flags = a.changed()
	}
	parts := []string{string(a.Kind), where, flags, a.From, cmp.Or(a.Subject, a.unnamed())}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "  ")
}

// unnamed is what a mail is called whose subject is not known.
func (a *Action) unnamed() string {
	switch {
	case a.UID != 0:
		return "UID " + strconv.FormatUint(uint64(a.UID), 10)
	default:
		return a.Key
	}
}

// mostBrief is how many bytes of a subject, or of a name, the log keeps.
const mostBrief = 80

// Brief gives who wrote a mail and what it is about, by its From and Subject, as one line each
// of 80 bytes at most, without control characters: the name of the writer, else the address.
func Brief(from, subject string) (who, what string) {
	// A reader whose charset is not known leaves the words as they are.
	if a, err := (&mail.AddressParser{WordDecoder: new(mime.WordDecoder)}).Parse(from); err == nil {
		from = cmp.Or(a.Name, a.Address)
	} else {
		from = decoded(from)
	}
	return brief(from), brief(decoded(subject))
}

func brief(s string) string {
	s = OneLine(s, mostBrief)
	for len(s) > mostBrief {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// Brief is Brief of a header.
func (h Header) Brief() (who, what string) { return Brief(h.Get("From"), h.Get("Subject")) }
