package look

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// A server may say of a mail that it has stored it, and not have it: then the file here is the
// only one. It is not removed for want of a mail that nobody has seen, and is remembered with
// what the server refused.

// mostSent bounds how often a mail is sent that the server then does not show: it may have
// each of them.
const mostSent = 5

// unstored remembers files that the server has not, though it said that it has stored them.
// They are sent again by the schedule.
func (l *Looking) unstored(ctx context.Context, mailbox string, files []plan.Untracked) error {
	if len(files) == 0 {
		return nil
	}
	rows := make([]ledger.Message, len(files))
	for i, f := range files {
		rows[i] = f.Message
	}
	first, err := l.rememberUnstored(ctx, mailbox, rows, journal.Change{})
	if err != nil || len(first) == 0 {
		return err
	}
	l.Standing(mailbox, "unstored", fmt.Errorf("%s in no mailbox; what is here stays, and is sent again after a while, or with --full (notmuch imap stubs --all lists it): %s",
		saidStored(first), named(first)))
	return nil
}

// rememberUnstored records that, and gives those of which it is news. A file of which the
// server told what UID it has given it was deleted there, as likely as not, and is not sent
// again by itself.
func (l *Looking) rememberUnstored(ctx context.Context, mailbox string, files []ledger.Message, c journal.Change) (first []ledger.Message, err error) {
	notes, err := l.Journal.Unsent.All(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		about := journal.AboutFile(mailbox, f.Key)
		reason := "the server said that it has stored it, and has it in no mailbox"
		if f.Reason == plan.Unseen {
			reason = fmt.Sprintf("the server said that it has stored it as UID %d, and has it in no mailbox: it was deleted there meanwhile, or lost", f.UID)
		}
		n := notes[about]
		if n.Attempts == 0 && f.Attempts > 0 { // it was forgotten while the file had a row
			n = journal.Unsent{Mailbox: mailbox, ID: f.ID, Size: f.Size, Tries: journal.Tries{Attempts: f.Attempts, Since: f.Since}}
		}
		if n.Again(mailbox, f, l.Now(), reason, report.RetryAt) {
			first = append(first, f)
		}
		if n.GivenUp = f.Reason == plan.Unseen || n.Attempts >= mostSent; n.GivenUp {
			n.NextTry = time.Time{}
		}
		l.Journal.Unsent.Put(&c, about, n)
		l.Journal.Arriving.Forget(&c, f.Key)
		c.Became(mail.IsUndone, reason, mail.Action{Kind: mail.ActUpload, Mailbox: mailbox, Key: f.Key})
	}
	l.Report.Tally(func(r *report.Report) { r.Unsent += len(files) - len(first) })
	return first, l.commit(ctx, c, "unstored mail remembered")
}

// sent forgets what is remembered of files that were found on the server.
func (l *Looking) sent(ctx context.Context, b *Mailbox, pairs map[imap.UID]plan.Untracked) error {
	if len(pairs) == 0 {
		return nil
	}
	notes, err := l.Journal.Unsent.All(ctx)
	if err != nil || len(notes) == 0 {
		return err
	}
	var c journal.Change
	for _, s := range pairs {
		if about := journal.AboutFile(b.Name, s.Key); notes[about].Attempts > 0 {
			l.Journal.Unsent.Forget(&c, about)
		}
	}
	if c.Empty() {
		return nil
	}
	return l.commit(ctx, c, "refused uploads forgotten")
}

// JudgeUnseen judges, when all that came is recorded, what becomes of files that the server
// said it has stored, and that were gone when they were looked for. It gives those whose mail is
// in another mailbox: it was moved there. The others stay here, and have no row any more; but
// what this run has put there may be in a mailbox of which the list told before that nothing
// came, so that the next run judges.
func (l *Looking) JudgeUnseen(ctx context.Context) (moved []*deliver.Item, err error) {
	lost := make(map[*deliver.Mailbox][]*deliver.Item)
	for _, it := range l.Line.Held() {
		if !l.judged || !plan.NotSeen(it.Row) || it.Box.MarksKept() {
			continue
		}
		ok, err := l.elsewhere(ctx, it.Row)
		switch {
		case err != nil:
			return nil, err
		case ok:
			moved = append(moved, it)
		case !l.passed[it.Row.Key]:
			lost[it.Box] = append(lost[it.Box], it)
		}
	}
	for b, items := range lost {
		if err := l.unseen(ctx, b, items); err != nil {
			return nil, err
		}
	}
	return moved, nil
}

// unseen lets files stay here that are nowhere on the server.
func (l *Looking) unseen(ctx context.Context, b *deliver.Mailbox, items []*deliver.Item) error {
	// They have no row any more: the folder has news, though nothing in it moved.
	var c journal.Change
	if scanned, _, err := l.Journal.Scanned.Get(ctx, b.Name); err != nil {
		return err
	} else if _, doubted := scanned.Doubt(); !doubted {
		l.Journal.Scanned.Put(&c, b.Name, journal.ScanAgain(b.Dir.Identity()))
	}
	var again []plan.Untracked
	var gone []ledger.Message
	for _, it := range items {
		c.Forget = append(c.Forget, it.Row)
		if it.Row.Reason == plan.Unseen {
			gone = append(gone, it.Row)
		} else {
			again = append(again, plan.Untracked{Message: it.Row})
		}
	}
	gone, err := l.rememberUnstored(ctx, b.Name, gone, c)
	if err != nil {
		return err
	}
	if err := l.unstored(ctx, b.Name, again); err != nil {
		return err
	}
	if len(gone) > 0 {
		l.Standing(b.Name, "unseen", fmt.Errorf("%s in no mailbox: deleted there meanwhile, or lost; what is here stays, and is sent again when you ask for it "+
			"(notmuch imap retry), unless you delete it: %s", saidStored(gone), named(gone)))
	}
	for range items {
		if err := b.End(ctx); err != nil {
			return err
		}
	}
	return nil
}

func saidStored(files []ledger.Message) string {
	return mail.Number(len(files), "mail that the server said it has stored is", "mails that the server said it has stored are")
}

// mostNamed bounds how many files are named in one line.
const mostNamed = 5

// named names files.
func named(files []ledger.Message) string {
	var names []string
	for _, f := range files[:min(len(files), mostNamed)] {
		names = append(names, f.Name)
	}
	if more := len(files) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
