package pipeline

import (
	"slices"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/look"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// The kinds of standing faults that the ledger remembers; those of one kind are one fault
// of a mailbox.
const (
	faultUnavailable = "silent"  // a command that the mailbox lacks the answer to: the ledger has more of it
	faultMailbox     = "mailbox" // any other that ended the work in it
)

// stays reports a fault of a mailbox that stays until a person does something, if
// that is news.
func (f *faults) stays(mailbox, kind string, err error) {
	f.meet(mailbox, kind, report.Failure{Text: err.Error(), Err: err}, true)
}

// meet reports a fault of a mailbox, which is remembered until it is over. If it stays by
// itself, it is no news where it was told not long ago.
func (f *faults) meet(mailbox, kind string, failure report.Failure, stays bool) {
	failure.Scope, failure.Mailbox = report.ScopeMailbox, mailbox
	if failure.Known = f.standing.Meet(kind, mailbox, failure.Text) && stays; failure.Known {
		f.rep.Known(failure)
		return
	}
	if f.rep.Fault(failure) {
		f.standing.Told(kind, mailbox)
	}
}

// note lets a change remember the faults of mailboxes that this run has met, and forget those
// that it would have met, were they not over. What is held back is not over for that: it waits for
// an answer, or until the run has seen that nothing of it is left (endHolds).
func (f *faults) note(c *journal.Change) {
	met := f.rep.Report().Faults
	f.standing.Note(c, func(kind, mailbox string) bool {
		if slices.ContainsFunc(met, func(m report.Failure) bool { return m.Mailbox == "" || m.Mailbox == mailbox && m.Bars }) {
			return false
		}
		asked := len(f.Only) == 0 || slices.Contains(f.Only, mailbox)
		if kind == push.Held || kind == look.Held {
			return asked && f.yes(mailbox)
		}
		return len(f.Only) == 0 || slices.Contains(f.Only, mailbox) && (kind == "push" || kind == push.Refused || kind == push.Unsent || kind == faultMailbox)
	})
	f.unanswered.Note(c)
}

// nothingLacks ends what the guard holds back of deletions here in mailboxes of which nothing is missing
// and nothing is marked any more. plans are made of whole folders.
func (r *run) nothingLacks(boxes []*box, plans map[string]*plan.Outgoing) {
	for _, b := range boxes {
		place := b.place()
		if o := plans[b.Name]; place.Agreed() && len(b.local.Marked) == 0 && (o == nil || o.Unexplained == 0) {
			r.standing.Over(push.Held, b.Name)
		}
	}
}

// endHolds ends what it holds back of deletions on the server, or of mail that was brought back here,
// where nothing was left undone: a run that meets it all the same has seen that something is left.
func (r *run) endHolds(boxes []*box) {
	for _, b := range boxes {
		if r.pool.Ended() || b.line.MarksKept() {
			continue
		}
		r.standing.Over(look.Held, b.Name)
		if r.Restore {
			r.standing.Over(push.Held, b.Name)
		}
	}
}
