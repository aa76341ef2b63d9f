package look

import (
	"context"
	"fmt"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Held is the kind of a standing fault: deletions on the server that are not believed.
const Held = "gone"

// undecided is the kind of one where not all mailboxes were looked into: what is gone may be in the
// others, as the next whole run finds.
const undecided = "missed"

// Judge tells which of the deletions that the line holds are done, when all that came is known.
// After a fault of the mailbox they stay for the next run, and all of them if the account was
// left (ended). boxes are those that were looked into.
func (l *Looking) Judge(ctx context.Context, boxes []*deliver.Mailbox, ended bool) (goes func(*deliver.Item) bool, err error) {
	stay, err := l.guardGone(ctx, boxes)
	l.judged = !ended && err == nil
	return func(it *deliver.Item) bool {
		if stay[it] {
			return false
		}
		// What left a mailbox by our doing needs only that the mail is known where it
		// went, which may be any other one.
		needs := []*deliver.Mailbox{it.Box}
		switch {
		case l.Strayed(it.Row):
			needs = boxes
		case it.Forgotten(), it.Marked: // or both sides say that it is deleted
			needs = slices.DeleteFunc(slices.Clone(boxes), func(m *deliver.Mailbox) bool { return m == it.Box })
		}
		goes := !ended && !slices.ContainsFunc(needs, (*deliver.Mailbox).MarksKept)
		if goes && l.DryRun {
			l.Report.Tally(func(r *report.Report) { r.Removed++ })
			if l.Plan {
				l.Report.Plan(deliver.Removal(it))
			}
		}
		return goes && !l.DryRun
	}, err
}

// guardGone judges the deletions that the server asks for, when all that came is
// known: a message that is in another mailbox now was moved, and only what nothing
// explains counts. It tells which of the held items stay.
func (l *Looking) guardGone(ctx context.Context, boxes []*deliver.Mailbox) (map[*deliver.Item]bool, error) {
	stay := make(map[*deliver.Item]bool)
	unexplained := make(map[*deliver.Mailbox][]*deliver.Item)
	for _, it := range l.Line.Held() {
		if plan.NotSeen(it.Row) {
			stay[it] = true // see JudgeUnseen
			continue
		}
		if l.Strayed(it.Row) && !l.Came(it.Row) {
			var err error
			if stay[it], err = l.CameSince(ctx); err != nil {
				return nil, err
			}
			if stay[it] {
				continue // it may have been moved there
			}
		}
		if l.suspect(it.Box) == nil || it.Known {
			continue
		}
		ok, err := l.elsewhere(ctx, it.Row)
		if err != nil {
			return nil, err
		}
		if !ok {
			unexplained[it.Box] = append(unexplained[it.Box], it)
		}
	}
	var j plan.Judgement
	for b, items := range unexplained {
		l.suspect(b).Weigh(&j, len(items), l.Daily[b.Name])
	}
	holds := func(b *deliver.Mailbox) bool {
		s := l.suspect(b)
		return s != nil && j.Mistake() && s.Holds(len(unexplained[b]))
	}
	// It may be in a mailbox into which it was moved when that had been looked into.
	came := false
	if slices.ContainsFunc(boxes, func(b *deliver.Mailbox) bool { return holds(b) && l.suspect(b).Fresh() }) {
		var err error
		if came, err = l.CameSince(ctx); err != nil {
			return nil, err
		}
	}
	for _, b := range boxes {
		items, s := unexplained[b], l.suspect(b)
		switch {
		case s == nil:
		case !holds(b):
			l.sayGone(b, s.Gone)
		case came && s.Fresh():
			for _, it := range items {
				stay[it] = true
			}
			l.Report.Note(b.Name, "%s for the next sync: mail has come to other mailboxes since they were looked into, and it may be that", mail.Number(len(items), "deletion waits", "deletions wait"))
		default:
			for _, it := range items {
				stay[it] = true
			}
			doubt := s.Why(len(items))
			if doubt != "" {
				doubt = " (" + doubt + ")"
			}
			next := "look at the mailbox, then run sync"
			if l.Some {
				next = "run sync without -m, which finds what was moved to other mailboxes; if they are in none,"
			}
			kind := Held
			if l.Some && !s.Held {
				kind = undecided
			}
			l.Standing(b.Name, kind, fmt.Errorf("the server lists %d of %d messages no more%s; none was removed here, since that may be a mistake: "+
				"%s with --yes-delete=%s", len(items), s.Have, doubt, next, report.AnswerFor(l.Account, b.Name)))
			l.Report.Tally(func(r *report.Report) {
				r.Held += len(items)
				r.HeldIn = append(r.HeldIn, report.Held{Mailbox: b.Name, Messages: len(items), There: true})
			})
		}
	}
	return stay, nil
}

// sayGone says how many messages left a mailbox, once that is believed.
func (l *Looking) sayGone(b *deliver.Mailbox, n int) {
	text := mail.Number(n, "deletion", "deletions")
	if l.DryRun {
		text = "would: " + text
	}
	l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Text: text})
}

// elsewhere tells whether a message that left its mailbox is in another one: it was
// moved there, or was there before.
func (l *Looking) elsewhere(ctx context.Context, row ledger.Message) (bool, error) {
	if l.Foreseen(row) {
		return true, nil
	}
	if row.ID == "" {
		return false, nil
	}
	copies, err := l.Ledger.Like(ctx, row)
	return slices.ContainsFunc(copies, func(c ledger.Message) bool {
		return c.Mailbox != row.Mailbox && c.Size == row.Size && c.Date.Equal(row.Date) &&
			(c.State == ledger.Present && c.Key != "" || c.State == ledger.Intended)
	}), err
}

// suspect is why so much is gone from a mailbox that it is to be judged when all that came is
// known; nil if it is not so much.
func (l *Looking) suspect(b *deliver.Mailbox) *plan.Suspicion {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.suspects[b]
}
