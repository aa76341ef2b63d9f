package look

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// foresee says what a run would do of what is new in a mailbox. Where the guard holds deletions
// back until all is known that came, gone are the messages.
func (l *Looker) foresee(ctx context.Context, b *Mailbox, news plan.Actions, held bool, gone []imap.UID) (err error) {
	if held {
		rows, err := l.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, gone)
		if err != nil {
			return err
		}
		for _, row := range rows {
			l.Line.Hold(&deliver.Item{Box: b.Mailbox, Op: deliver.OpGone, Row: row})
		}
	}
	if news.Fetch, err = l.foresees(ctx, b, news.Fetch); err != nil {
		return err
	}
	if text := does(news); text != "" {
		l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(news.Fetch), Text: "would: " + text})
	}
	l.Report.Tally(func(r *report.Report) {
		r.New += len(news.Fetch)
		r.Flagged += len(news.Flags)
		r.Removed += len(news.Gone)
	})
	return nil
}

// foresees takes out of the messages that are new in a mailbox those whose file is here already.
// Which are left is noted, where some may have come from another mailbox.
func (l *Looker) foresees(ctx context.Context, b *Mailbox, uids []imap.UID) ([]imap.UID, error) {
	if len(uids) > 0 && len(b.Local.Untracked) > 0 {
		_, pairs, err := l.pairNew(ctx, b, uids)
		if err != nil {
			return nil, err
		}
		uids = slices.DeleteFunc(slices.Clone(uids), func(u imap.UID) bool { _, here := pairs[u]; return here })
	}
	if !l.MayHaveMoved || len(uids) == 0 {
		return uids, nil
	}
	listed, err := l.conn.Session().Identify(ctx, mail.UIDSet(uids))
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range listed {
		l.foreseen[placeless(m.MessageID, m.Size, m.InternalDate)] = true
	}
	return uids, nil
}

// placeless is what a message is known by wherever it is.
func placeless(id string, size int64, date time.Time) string {
	return fmt.Sprint(id, " ", size, " ", date.Unix())
}

// Foreseen tells whether a dry run has found a message that is new in another mailbox, and
// that may be this one.
func (l *Looking) Foreseen(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.foreseen[placeless(plan.RealID(row.ID), row.Size, row.Date)]
}
