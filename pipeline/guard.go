package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// The deletion guard: so many, and such a share of a mailbox, deleted in one run want
// a person's word.
const (
	guardCount = 50
	guardShare = 10 // one in ten
)

// handful is how many messages may go though their folder is empty then, and where a
// server says no next UID but that after its newest message, which goes back when that
// is deleted.
const handful = 5

// guarded tells whether so many deletions out of so many messages are held back.
func guarded(gone, have int) bool { return gone > guardCount && gone*guardShare > have }

// yes tells whether a person has let a mailbox's deletions past the guard.
func (r *run) yes(mailbox string) bool {
	return r.YesDelete || slices.Contains(r.YesDeleteIn, mailbox)
}

// dailyOf gives the mailboxes that are emptied in daily life: the Trash, and those for
// junk and drafts, by what the server marks (RFC 6154) or by their usual names.
func dailyOf(list []mail.Mailbox, trash string) map[string]bool {
	daily := map[string]bool{trash: true}
	for _, m := range list {
		daily[m.Name] = daily[m.Name] || slices.ContainsFunc(m.Attrs, func(a string) bool {
			return slices.ContainsFunc([]string{`\Trash`, `\Junk`, `\Drafts`}, func(d string) bool { return strings.EqualFold(a, d) })
		}) || slices.Contains([]string{"Trash", "Junk", "Spam", "Drafts"}, strings.TrimPrefix(m.Name, "INBOX"+string(m.Delim)))
	}
	return daily
}

// Why a folder is not believed when it lacks something.
const (
	doubtGone     = "its folder is gone"
	doubtEmpty    = "its folder is empty"
	doubtReplaced = "its folder is another one than before, as after a restored backup"
	doubtPart     = "a part of its folder is gone"
	// doubted stands in the ledger before the doubt that waits for an answer: the mail
	// that comes meanwhile makes the folder look well again.
	doubted = "doubted "
)

// guard holds back what may be a mistake: what a folder that is not believed would do
// to the server, and deletions beyond the guard. That the last messages of a folder
// are deleted, the only draft is sent, or the Trash is emptied, is daily life where
// nothing else in the account is in doubt.
func guard(locals map[string]*local, out map[string]*outgoing, p policy) {
	held := make(map[string]string) // why, by mailbox
	excusable, sum := make(map[string]bool), 0
	for name, l := range locals {
		o := out[name]
		if l.closed || p.yes(name) {
			continue
		}
		switch {
		case l.doubt == doubtEmpty && o.unexplained > 0:
			held[name], excusable[name] = l.doubt, true
			if !p.daily[name] {
				sum += o.unexplained
			}
		case l.doubt == doubtReplaced, l.doubt != "" && o.unexplained > 0:
			held[name] = l.doubt
		case p.deletions != DeletionsKeep && guarded(len(o.deleted), l.have):
			held[name], excusable[name] = fmt.Sprintf("they are many of %d", l.have), p.daily[name]
		}
	}
	inOrder := sum <= handful
	for name := range held {
		inOrder = inOrder && excusable[name]
	}
	for _, name := range slices.Sorted(maps.Keys(locals)) {
		l, o := locals[name], out[name]
		if !l.closed && !p.yes(name) {
			if l.doubt != "" && (!inOrder || !excusable[name]) {
				o.doubt(l, locals)
			}
			if why := held[name]; why != "" && !inOrder && p.deletions != DeletionsKeep {
				o.hold(why)
			}
		}
		// A folder of another day has files where they were then: it moves nothing.
		for _, to := range slices.Sorted(maps.Keys(o.moves)) {
			for _, n := range []string{name, to} {
				if d := locals[n].doubt; d == doubtReplaced && !p.yes(n) {
					o.held, o.why = o.held+len(o.moves[to]), d
					out[to].later = true
					delete(o.moves, to)
				}
			}
		}
	}
}

// doubt holds back what a folder that was restored from a backup would undo on
// the server: mail that was deleted comes back, mail that was read is unread. What
// was moved has its flags from the folder where it is now.
func (o *outgoing) doubt(l *local, locals map[string]*local) {
	o.doubted, o.why = len(o.uploads), l.doubt
	o.uploads = nil
	sure := make(map[imap.UID]bool)
	for to, moves := range o.moves {
		for _, m := range moves {
			sure[m.row.UID] = locals[to].doubt == ""
		}
	}
	for u, d := range l.flags {
		if len(d.remove) > 0 && !sure[u] {
			o.doubted++
			if l.flags[u] = (delta{add: d.add}); len(d.add) == 0 {
				delete(l.flags, u)
			}
		}
	}
}

func (o *outgoing) hold(why string) {
	o.held, o.why = len(o.deleted), why
	o.deleted = nil
}

// suspicion is why messages that the server lists no more may still be there.
type suspicion struct {
	doubt string // what contradicts that they are gone; "" if they are only many
	gone  int
	have  int
}

// guardGone judges the deletions that the server asks for, when all that came is
// known: a message that is in another mailbox now was moved, and only what nothing
// explains counts. It tells which of the held items stay.
func (r *run) guardGone(ctx context.Context, boxes []*box) (map[*item]bool, error) {
	stay := make(map[*item]bool)
	unexplained := make(map[*box][]*item)
	for _, it := range r.gone {
		if it.box.suspect == nil || it.known {
			continue
		}
		ok, err := r.elsewhere(ctx, it.row)
		if err != nil {
			return nil, err
		}
		if !ok {
			unexplained[it.box] = append(unexplained[it.box], it)
		}
	}
	inOrder := true
	for b, items := range unexplained {
		inOrder = inOrder && (!b.suspect.holds(len(items)) || b.suspect.doubt == "" && r.daily[b.Name])
	}
	for _, b := range boxes {
		items := unexplained[b]
		switch {
		case b.suspect == nil:
		case inOrder || !b.suspect.holds(len(items)):
			r.sayGone(b)
		default:
			for _, it := range items {
				stay[it] = true
			}
			doubt := ""
			if b.suspect.doubt != "" {
				doubt = " (" + b.suspect.doubt + ")"
			}
			if err := r.standingFault(ctx, b, "gone", fmt.Errorf("the server lists %d of %d messages no more%s; none was removed here, since that may be a mistake: "+
				"look at the mailbox, then run sync with --yes-delete=%s", len(items), b.suspect.have, doubt, r.answerFor(b))); err != nil {
				return nil, err
			}
			r.tally(func(rep *Report) {
				rep.Held += len(items)
				rep.HeldIn = append(rep.HeldIn, Held{Mailbox: b.Name, Messages: len(items), There: true})
			})
		}
	}
	return stay, nil
}

func (s *suspicion) holds(unexplained int) bool {
	return unexplained > 0 && (s.doubt != "" || guarded(unexplained, s.have))
}

// answerFor is what --yes-delete takes for a mailbox, as the shell wants it.
func (r *run) answerFor(b *box) string {
	name := r.Account + "/" + b.Name
	if strings.ContainsFunc(name, func(c rune) bool { return strings.ContainsRune(" \t'\"$&;<>|()*?[]{}~#!`\\", c) }) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// sayGone says how many messages left a mailbox, once that is believed.
func (r *run) sayGone(b *box) {
	text := number(b.suspect.gone, "deletion", "deletions")
	if r.DryRun {
		text = "would: " + text
	}
	r.emit(Event{Type: EventMailbox, Mailbox: b.Name, Text: text})
}

// elsewhere tells whether a message that left its mailbox is in another one: it was
// moved there, or was there before.
func (r *run) elsewhere(ctx context.Context, row ledger.Message) (bool, error) {
	if r.foreseen[placeless(realID(row.ID), row.Size, row.Date)] {
		return true, nil
	}
	if row.ID == "" {
		return false, nil
	}
	copies, err := r.Ledger.ByMessageID(ctx, row.ID)
	return slices.ContainsFunc(copies, func(c ledger.Message) bool {
		return c.Mailbox != row.Mailbox && c.Size == row.Size && c.Date.Equal(row.Date) &&
			(c.State == ledger.Present && c.Key != "" || c.State == ledger.Intended)
	}), err
}

// foresees notes which messages a dry run finds new in a mailbox, where some may have
// come from another one.
func (w *worker) foresees(ctx context.Context, uids []imap.UID) error {
	if !w.moved || len(uids) == 0 {
		return nil
	}
	listed, err := w.session.Identify(ctx, mail.UIDSet(uids))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range listed {
		w.foreseen[placeless(m.MessageID, m.Size, m.InternalDate)] = true
	}
	return nil
}

// placeless is what a message is known by wherever it is.
func placeless(id string, size int64, date time.Time) string {
	return fmt.Sprint(id, " ", size, " ", date.Unix())
}
