package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// The deletion guard: so many, and such a share of a mailbox, deleted in one run want
// a person's word.
const (
	GuardCount = 50
	guardShare = 10 // one in ten
)

// Handful is how many messages may go though their folder is empty then, and where a
// server says no next UID but that after its newest message, which goes back when that
// is deleted.
const Handful = 5

// guarded tells whether so many deletions out of so many messages are held back.
func guarded(gone, have int) bool { return gone > GuardCount && gone*guardShare > have }

// DailyOf gives the mailboxes that are emptied in daily life: the Trash, and those for
// junk and drafts, by what the server marks (RFC 6154) or by their usual names.
func DailyOf(list []mail.Mailbox, trash string) map[string]bool {
	daily := map[string]bool{trash: true}
	for _, m := range list {
		daily[m.Name] = daily[m.Name] || m.For(`\Trash`, "Trash") || m.For(`\Junk`, "Junk", "Spam") || m.For(`\Drafts`, "Drafts")
	}
	return daily
}

// Why a folder is not believed when it lacks something.
const (
	DoubtGone     = "its folder is gone"
	DoubtEmpty    = "its folder is empty"
	DoubtReplaced = "its folder is another one than before, as after a restored backup"
	DoubtPart     = "a part of its folder is gone"
)

// heldBefore is why what is left of deletions that were held back before is held back, however
// little that is.
const heldBefore = "deletions in it were held back before, without an answer yet"

// guard holds back what may be a mistake: what a folder that is not believed would do
// to the server, and deletions beyond the guard. That the last messages of a folder
// are deleted, the only draft is sent, or the Trash is emptied, is daily life where
// nothing else in the account is in doubt. Where deletions were held back before, all wait for the
// answer: what looked like a mistake is none for being less now, since some of it is elsewhere.
func guard(locals map[string]*Local, out map[string]*Outgoing, p Policy) {
	held := make(map[string]string) // why, by mailbox
	excusable, j := make(map[string]bool), Judgement{}
	for name, l := range locals {
		o := out[name]
		if l.Closed || p.Yes(name) {
			continue
		}
		switch {
		case l.Doubt == DoubtEmpty && o.Unexplained > 0:
			held[name], excusable[name] = l.Doubt, true
			j.emptied(o.Unexplained, p.Daily[name])
		case l.Doubt == DoubtReplaced, l.Doubt != "" && o.Unexplained > 0:
			held[name] = l.Doubt
			j.doubted()
		case p.Deletions != DeletionsKeep && guarded(len(o.Deleted), l.Have):
			held[name], excusable[name] = fmt.Sprintf("they are many of %d", l.Have), p.Daily[name]
			j.many(p.Daily[name])
		}
		if p.Held[name] && len(o.Deleted) > 0 {
			held[name] = cmp.Or(held[name], heldBefore)
			j.doubted()
		}
	}
	inOrder := !j.Mistake()
	names := slices.Sorted(maps.Keys(locals))
	// A folder of another day has files where they were then: it moves nothing. What it
	// says of flags is judged behind that: what is not moved has none from elsewhere.
	for _, name := range names {
		o := out[name]
		for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
			for _, n := range []string{name, to} {
				if d := locals[n].Doubt; d == DoubtReplaced && !p.Yes(n) {
					o.Held, o.Why = o.Held+len(o.Moves[to]), d
					out[to].Later = true
					delete(o.Moves, to)
				}
			}
		}
	}
	for _, name := range names {
		l, o := locals[name], out[name]
		if l.Closed || p.Yes(name) {
			continue
		}
		if l.Doubt != "" && (!inOrder || !excusable[name]) {
			o.distrust(l, locals)
		}
		if why := held[name]; why != "" && !inOrder && p.Deletions != DeletionsKeep {
			o.hold(why)
		}
	}
}

// distrust holds back what a folder that was restored from a backup would undo on
// the server: mail that was deleted comes back, mail that was read is unread. What
// was moved has its flags from the folder where it is now.
func (o *Outgoing) distrust(l *Local, locals map[string]*Local) {
	o.Doubted, o.Why = len(o.Uploads), l.Doubt
	o.Uploads = nil
	sure := make(map[imap.UID]bool)
	for to, moves := range o.Moves {
		for _, m := range moves {
			sure[m.Row.UID] = locals[to].Doubt == ""
		}
	}
	for u, d := range l.Flags {
		if len(d.Remove) > 0 && !sure[u] {
			o.Doubted++
			if l.Flags[u] = (Delta{Add: d.Add}); len(d.Add) == 0 {
				delete(l.Flags, u)
			}
		}
	}
}

// hold keeps all deletions of a mailbox from being done.
func (o *Outgoing) hold(why string) {
	o.Held, o.Why = o.Held+len(o.Deleted), why
	o.Deleted = nil
}

// Suspicion is why messages that the server lists no more may still be there.
type Suspicion struct {
	Doubt string // what contradicts that they are gone; "" if nothing does
	Gone  int
	Have  int
	All   bool // nothing is left of what the mailbox held
	Held  bool // some were held back before, without an answer yet: then all that is gone is
}

// Why says what of that is to be told beside the numbers; "" if they say it.
func (s *Suspicion) Why(unexplained int) string {
	if s.Doubt == "" && s.Held && !s.All && !guarded(unexplained, s.Have) {
		return heldBefore
	}
	return s.Doubt
}

// Holds tells whether so many deletions that nothing explains may be a mistake.
func (s *Suspicion) Holds(unexplained int) bool {
	return unexplained > 0 && (s.Doubt != "" || s.All || s.Held || guarded(unexplained, s.Have))
}

// Fresh tells whether nothing is said against it but how much it is.
func (s *Suspicion) Fresh() bool { return s.Doubt == "" && !s.Held }

// Weigh adds what nothing explains to a judgement of the whole account. daily is that the mailbox
// is emptied in daily life.
func (s *Suspicion) Weigh(j *Judgement, unexplained int, daily bool) {
	switch {
	case !s.Holds(unexplained):
	case s.Doubt != "", s.Held:
		j.doubted()
	case guarded(unexplained, s.Have):
		j.many(daily)
	default:
		j.emptied(unexplained, daily)
	}
}

// Judgement is whether what an account lost, on either side, is daily life: a handful in all of
// what is left with nothing, and whatever goes out of mailboxes that are emptied in daily life.
// If anything of it is not, all that is held back stays so.
type Judgement struct {
	gone    int // of what is left with nothing
	mistake bool
}

func (j *Judgement) emptied(n int, daily bool) {
	if !daily {
		j.gone += n
	}
}

func (j *Judgement) many(daily bool) { j.mistake = j.mistake || !daily }

func (j *Judgement) doubted() { j.mistake = true }

// Mistake tells whether it may be a mistake.
func (j *Judgement) Mistake() bool { return j.mistake || j.gone > Handful }
