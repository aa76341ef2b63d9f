package plan

import (
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Local is what the user changed in a mailbox's folder since the last agreement.
type Local struct {
	Flags   map[imap.UID]Delta
	Marked  []ledger.Message // present, with the letter T
	Missing []ledger.Message // present by the ledger, without a file in the folder
	// Left are messages by whose UIDs the server can be asked no more, and of which files that are
	// new in other folders may be: it may have their mail anywhere.
	Left      []ledger.Message
	Untracked []Untracked                 // files that the ledger does not know
	Have      int                         // messages that are present by the ledger
	Files     int                         // mails in the folder
	Tagged    map[string][]ledger.Message // present, to be moved by their tags, by the mailbox that they go to
	// Doubt says, if it is not empty, why the folder cannot be believed when it
	// lacks something.
	Doubt string
	// Closed: what goes on here is not known well enough to tell the server. What
	// is missing or new in other folders may have come from here or gone here.
	Closed bool
}

// AddFlags adds a delta to what changed of a message.
func (l *Local) AddFlags(uid imap.UID, d Delta) {
	if len(d.Add)+len(d.Remove) == 0 {
		return
	}
	if l.Flags == nil {
		l.Flags = make(map[imap.UID]Delta)
	}
	have := l.Flags[uid]
	for _, flag := range d.Add {
		if !HasFlag(have.Add, flag) && !HasFlag(have.Remove, flag) {
			have.Add = append(have.Add, flag)
		}
	}
	for _, flag := range d.Remove {
		if !HasFlag(have.Add, flag) && !HasFlag(have.Remove, flag) {
			have.Remove = append(have.Remove, flag)
		}
	}
	l.Flags[uid] = have
}

// Renumbered gives what is here of messages that have other UIDs now: now are these, by the UIDs of
// before. Of flags it is what they have not yet. What the server has no more is left out.
func Renumbered(l Local, now map[imap.UID]mail.Message, uidValidity uint64) Local {
	rows := func(before []ledger.Message) (out []ledger.Message) {
		for _, row := range before {
			if m, ok := now[row.UID]; ok {
				row.UIDValidity, row.UID = uidValidity, m.UID
				out = append(out, row)
			}
		}
		return out
	}
	out := l
	out.Flags, out.Tagged = make(map[imap.UID]Delta), make(map[string][]ledger.Message)
	for uid, d := range l.Flags {
		if m, ok := now[uid]; ok {
			out.AddFlags(m.UID, Changed(StoredFlags(m.Flags), StoredFlags(d.Merged(m.Flags))))
		}
	}
	out.Marked, out.Missing = rows(l.Marked), rows(l.Missing)
	for to, tagged := range l.Tagged {
		if there := rows(tagged); len(there) > 0 {
			out.Tagged[to] = there
		}
	}
	return out
}

// Nothing tells whether there is nothing to tell the server, nor anything that may have
// come from elsewhere.
func (l *Local) Nothing() bool {
	return len(l.Flags)+len(l.Marked)+len(l.Missing)+len(l.Tagged) == 0 && !slices.ContainsFunc(l.Untracked, Untracked.MayHaveCome)
}

// Untracked is a file that the ledger does not know.
type Untracked struct {
	ledger.Message           // Date is the file's
	Sent           time.Time // the Date of its header; zero if there is none
	RuledOut       bool      // the server is not to be given it (again)
	Twin           bool      // another file of the folder is the server's message
	Stayed         bool      // it was one when nothing was missing that it may have been
	Stood          bool      // it was here before its mailbox was taken over: notmuch's tags of it stay
	Own            bool      // it was a message of its own on another server, whatever it is like
	Tags           []string  // of its message, if they have changed; nil if that is not known
	Added          int64     // size of the header fields that Digest leaves out, in bytes
}

// MayHaveCome tells whether the file may be one that is missing elsewhere: a twin may, too,
// since its mail may be there in several copies.
func (s Untracked) MayHaveCome() bool { return !s.RuledOut }

// New tells whether the server may be given the file. What it is not to be given
// may still be the file of a message.
func (s Untracked) New() bool { return !s.RuledOut && !s.Twin }
