package pipeline

import (
	"context"
	"fmt"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// yes tells whether a person has let a mailbox's deletions past the guard.
func (r *run) yes(mailbox string) bool {
	return r.YesDelete || slices.Contains(r.YesDeleteIn, mailbox)
}

// removeGone lets the deletions onto the line, when all that came is known. After a fault of the mailbox or the account
// they stay for the next run.
func (r *run) removeGone(ctx context.Context, boxes []*box) error {
	stay, err := r.guardGone(ctx, boxes)
	if err != nil {
		return err
	}
	all := make([]*deliver.Mailbox, len(boxes))
	for i, b := range boxes {
		all[i] = b.line
	}
	goes := func(it *deliver.Item) bool {
		if stay[it] {
			return false
		}
		if r.DryRun {
			r.tally(func(rep *report.Report) { rep.Removed++ })
			return false
		}
		// What left a mailbox by our doing needs only that the mail is known where it
		// went, which may be any other one.
		needs := []*deliver.Mailbox{it.Box}
		switch {
		case r.looking.Strayed(it.Row):
			needs = all
		case it.Forgotten():
			needs = slices.DeleteFunc(slices.Clone(all), func(m *deliver.Mailbox) bool { return m == it.Box })
		}
		return !r.pool.Ended() && !slices.ContainsFunc(needs, (*deliver.Mailbox).MarksKept)
	}
	if err := r.removeTwins(ctx, goes); err != nil {
		return err
	}
	return r.line.Finish(ctx, goes)
}

// guardGone judges the deletions that the server asks for, when all that came is
// known: a message that is in another mailbox now was moved, and only what nothing
// explains counts. It tells which of the held items stay.
func (r *run) guardGone(ctx context.Context, boxes []*box) (map[*deliver.Item]bool, error) {
	boxOf := make(map[*deliver.Mailbox]*box, len(boxes))
	for _, b := range boxes {
		boxOf[b.line] = b
	}
	stay := make(map[*deliver.Item]bool)
	unexplained := make(map[*box][]*deliver.Item)
	for _, it := range r.line.Held() {
		b := boxOf[it.Box]
		if b == nil || b.suspect == nil || it.Known {
			continue
		}
		ok, err := r.elsewhere(ctx, it.Row)
		if err != nil {
			return nil, err
		}
		if !ok {
			unexplained[b] = append(unexplained[b], it)
		}
	}
	inOrder := true
	for b, items := range unexplained {
		inOrder = inOrder && (!b.suspect.Holds(len(items)) || b.suspect.Doubt == "" && r.daily[b.Name])
	}
	for _, b := range boxes {
		items := unexplained[b]
		switch {
		case b.suspect == nil:
		case inOrder || !b.suspect.Holds(len(items)):
			r.sayGone(b)
		default:
			for _, it := range items {
				stay[it] = true
			}
			doubt := ""
			if b.suspect.Doubt != "" {
				doubt = " (" + b.suspect.Doubt + ")"
			}
			next := "look at the mailbox, then run sync"
			if len(r.Only) > 0 {
				next = "run sync without -m, which finds what was moved to other mailboxes; if they are in none,"
			}
			r.standingFault(b.Name, "gone", fmt.Errorf("the server lists %d of %d messages no more%s; none was removed here, since that may be a mistake: "+
				"%s with --yes-delete=%s", len(items), b.suspect.Have, doubt, next, report.AnswerFor(r.Name, b.Name)))
			r.tally(func(rep *report.Report) {
				rep.Held += len(items)
				rep.HeldIn = append(rep.HeldIn, report.Held{Mailbox: b.Name, Messages: len(items), There: true})
			})
		}
	}
	return stay, nil
}

// sayGone says how many messages left a mailbox, once that is believed.
func (r *run) sayGone(b *box) {
	text := mail.Number(b.suspect.Gone, "deletion", "deletions")
	if r.DryRun {
		text = "would: " + text
	}
	r.emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Text: text})
}

// elsewhere tells whether a message that left its mailbox is in another one: it was
// moved there, or was there before.
func (r *run) elsewhere(ctx context.Context, row ledger.Message) (bool, error) {
	if r.looking.Foreseen(row) {
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
