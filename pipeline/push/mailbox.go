package push

import (
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Mailbox is one of which the server is told, or in whose folder mail may be that it is told
// of.
type Mailbox struct {
	*deliver.Mailbox                // its name, its folder, and what of it is under way
	Listed           mail.Mailbox   // as the server lists it
	Known            ledger.Mailbox // what both sides agreed upon
	Local            plan.Local     // what is here; what was dealt with is taken out of it
	Scanned          journal.Scan   // what is to be remembered of the scan that found that
	Add, Remove      []string       // tags by rule
	Aside            bool           // nothing is told of it in this run
	Due              bool           // it is looked into after the push in any case
	NotThere         bool           // the server has it not, since a dry run makes none

	plan.Pushed
	Look       bool // it is to be looked into after the push
	Incomplete bool // not all of its mail is here any more: it is to be compared as a whole

	only    bool                         // nothing is pushed to any other mailbox
	next    bool                         // and none of them is looked into before it
	refused map[imap.UID]map[string]bool // changes that the server refused, in this run or in one before; they stay undone
	waiting map[imap.UID]plan.Delta      // flags that wait since they were refused
	awaited map[imap.UID]string          // changes of flags that the server says it has made, until they are seen
	scanned bool                         // nothing is left to tell of the scan, when they are
	copied  []ledger.Message             // to be expunged yet, where they were copied from

	uncertain bool // we may have put messages into it since its status was told
}

// nothingPending tells whether nothing of what the scan saw waits for another mailbox's
// turn: a file that came from there is new here until it is adopted, and to a run
// that does not see it, it would look deleted there.
func (b *Mailbox) nothingPending(o *plan.Outgoing) bool {
	return o.Nothing() && !slices.ContainsFunc(b.Local.Untracked, plan.Untracked.New)
}

// took remembers messages that we took out of the mailbox on the server: the guard
// against a server that loses mail does not count them.
func (b *Mailbox) took(uids []imap.UID) {
	if b.Taken == nil {
		b.Taken = make(map[imap.UID]bool)
	}
	for _, u := range uids {
		b.Taken[u] = true
	}
}

// expect remembers which file a new message is.
func (b *Mailbox) expect(uid imap.UID, key string) {
	if b.Expected == nil {
		b.Expected = make(map[imap.UID]string)
	}
	b.Expected[uid] = key
}

// await lets the look find out whether a change of flags was made.
func (b *Mailbox) await(uid imap.UID, change string) {
	if b.awaited == nil {
		b.awaited = make(map[imap.UID]string)
	}
	b.awaited[uid] = change
}

func (b *Mailbox) missingHere(uid imap.UID) bool {
	return slices.ContainsFunc(b.Local.Missing, func(m ledger.Message) bool { return m.UID == uid })
}

// know takes messages out of what is here whose files have other names now, when that is
// recorded: no other message may get these.
func (b *Mailbox) know(renamed []ledger.Message) {
	for _, m := range renamed {
		is := func(l ledger.Message) bool { return l.UID == m.UID }
		b.Local.Missing = slices.DeleteFunc(b.Local.Missing, is)
		b.Local.Untracked = slices.DeleteFunc(b.Local.Untracked, func(s plan.Untracked) bool { return s.Key == m.Key })
		b.Local.Marked = slices.DeleteFunc(b.Local.Marked, is) // the push may be repeated
		if plan.MarkedDeleted(&m) {
			b.Local.Marked = append(b.Local.Marked, m)
		}
	}
}

// markDeletionHandled lets the look record what is known of messages that were deleted here:
// the server was told as far as it lets us.
func (b *Mailbox) markDeletionHandled(uids []imap.UID) {
	is := func(m ledger.Message) bool { return slices.Contains(uids, m.UID) }
	b.Local.Missing = slices.DeleteFunc(b.Local.Missing, is)
	b.Local.Marked = slices.DeleteFunc(b.Local.Marked, is)
}

// since is the last agreement with the server.
func (b *Mailbox) since() journal.Since {
	return journal.Since{UIDValidity: b.Known.UIDValidity, UIDNext: b.Known.UIDNext}
}

// withhold remembers what of a moved mail's flags the server may not have where it arrives.
func (b *Mailbox) withhold(key string, d plan.Delta) {
	if b.Withheld == nil {
		b.Withheld = make(map[string]plan.Delta)
	}
	b.Withheld[key] = d
}

// noteMovedFrom remembers where new messages of the mailbox were before.
func (b *Mailbox) noteMovedFrom(rows []ledger.Message, pairs map[imap.UID]imap.UID) {
	if b.MovedFrom == nil {
		b.MovedFrom = make(map[imap.UID]ledger.Message)
	}
	for _, m := range rows {
		if uid, ok := pairs[m.UID]; ok {
			b.MovedFrom[uid] = m
		}
	}
}

// putBack lets flags that wait be what is here again.
func (b *Mailbox) putBack() {
	if len(b.waiting) == 0 {
		return
	}
	if b.Local.Flags == nil {
		b.Local.Flags = make(map[imap.UID]plan.Delta)
	}
	maps.Copy(b.Local.Flags, b.waiting)
	b.waiting = nil
}
