package plan

import (
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Why the row of a message says that it was in a mailbox in which no look has found it: the
// server said so, and of its UID (Unseen), or not of that (Unplaced). With such a row what
// others have moved on is found where it is now. Where it is nowhere, it is no ground to
// remove the file: it may never have been there.
const (
	Unseen   = "the server said that it has stored it, and no look has found it"
	Unplaced = "the server said that it has stored it, not as which message, and no look has found it"
)

// NotSeen tells whether a row is of a message that no look has found.
func NotSeen(row ledger.Message) bool { return row.Reason == Unseen || row.Reason == Unplaced }

// Passed are UIDs that a mailbox has dealt, and whose messages left it before they
// were looked at: what other clients do with a mail between the moment when we gave it to
// the server, or moved it there, and that when we look for it.
type Passed struct {
	told   map[imap.UID]bool // those that it told us, with what it took
	untold []imap.UID        // others, as many as may be needed
}

// PassedOf finds them among the UIDs from first on. listed are all messages from there
// on, and files are those that are not among them, with the UIDs that the server told of
// them.
func PassedOf(rows []ledger.Row, listed []mail.Message, first, next imap.UID, files []Untracked) *Passed {
	p := &Passed{told: make(map[imap.UID]bool)}
	there := make(map[imap.UID]bool, len(listed))
	for _, m := range listed {
		there[m.UID] = true
	}
	gone := func(u imap.UID) bool { return u >= first && u < next && !there[u] && !Taken(rows, u) }
	for _, f := range files {
		if gone(f.UID) {
			p.told[f.UID] = true
		}
	}
	for u := first; u < next && len(p.untold) < len(files); u++ {
		if gone(u) && !p.told[u] {
			p.untold = append(p.untold, u)
		}
	}
	return p
}

// Any tells whether something has left at all.
func (p *Passed) Any() bool { return len(p.told)+len(p.untold) > 0 }

// Take gives a UID for the row of a file, and why the row is there: the one of which the
// server told, or, if it told none (0), one of those of which none was told. It is 0 if there
// is none.
func (p *Passed) Take(told imap.UID) (uid imap.UID, why string) {
	switch {
	case p.told[told]:
		delete(p.told, told)
		return told, Unseen
	case told == 0 && len(p.untold) > 0:
		uid, p.untold = p.untold[0], p.untold[1:]
		return uid, Unplaced
	}
	return 0, ""
}

// Taken tells whether a message has its row already. Rows are ascending.
func Taken(rows []ledger.Row, uid imap.UID) bool {
	_, ok := slices.BinarySearchFunc(rows, uid, func(r ledger.Row, u imap.UID) int { return int(int64(r.UID) - int64(u)) })
	return ok
}
