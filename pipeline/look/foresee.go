package look

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// foresee says what a run would do of what is new in a mailbox. gone are the messages that are
// deleted there, which are judged when all is known that came.
func (l *Looker) foresee(ctx context.Context, b *Mailbox, news plan.Actions, gone []ledger.Message) (err error) {
	for _, row := range gone {
		if !row.Fileless() {
			l.Line.Hold(&deliver.Item{Box: b.Mailbox, Op: deliver.OpGone, Row: row, Marked: b.markedHere(row.UID)})
		}
	}
	if news.Fetch, err = l.foresees(ctx, b, news.Fetch); err != nil {
		return err
	}
	if l.Plan {
		if err := l.plan(ctx, b, news); err != nil {
			return err
		}
	}
	if text := does(news); text != "" {
		l.Report.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(news.Fetch), Text: "would: " + text})
	}
	l.Report.Tally(func(r *report.Report) {
		r.New += len(news.Fetch)
		r.Flagged += len(news.Flags)
	})
	return nil
}

// foresees takes out of the messages that are new in a mailbox those whose file is here already.
// Which are left is noted, where some may have come from another mailbox.
func (l *Looker) foresees(ctx context.Context, b *Mailbox, uids []imap.UID) ([]imap.UID, error) {
	listed, came, err := l.straysIn(ctx, b, uids)
	if err != nil {
		return nil, err
	}
	known := make(map[imap.UID]bool)
	for _, m := range listed {
		if s, ok := came[m.UID]; ok {
			known[m.UID] = true
			l.foreseeFlags(b, s.in.Dir, s.Key, m)
			if l.Plan {
				l.planFollowing(b, s)
			}
		}
	}
	if len(uids) > 0 && len(b.Local.Untracked) > 0 {
		listed, pairs, err := l.pairNew(ctx, b, uids)
		if err != nil {
			return nil, err
		}
		for _, m := range listed {
			if s, ok := pairs[m.UID]; ok {
				known[m.UID] = true
				l.foreseeFlags(b, b.Dir, s.Key, m)
				if _, followed := l.wasOf(s.Key); l.Plan && !followed {
					l.Report.Plan(pairing(b, s.Message, m))
				}
			}
		}
	}
	uids = slices.DeleteFunc(slices.Clone(uids), func(u imap.UID) bool { return known[u] })
	if !l.MayHaveMoved && !l.UploadHere || len(uids) == 0 {
		return uids, nil
	}
	if listed, err = l.conn.Session().Identify(ctx, mail.UIDSet(uids)); err != nil {
		return nil, err
	}
	copies, err := l.copies(ctx, b, listed)
	if err != nil {
		return nil, err
	}
	for _, m := range listed {
		if from, ok := copies.of[m.UID]; ok {
			if l.Plan {
				l.planLink(b, m, from, copies.files[from.Key])
			}
			b.found.Left.AddFlags(m.UID, plan.Changed(plan.StoredFlags(m.Flags), plan.StoredFlags(l.flagsHere(from, copies.files[from.Key], m))))
		}
	}
	l.Report.Tally(func(r *report.Report) { r.Linked += len(copies.of) })
	for _, from := range copies.of {
		l.noteLinked(from)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range listed {
		l.foreseen[placeless(m.MessageID, m.Size, m.InternalDate)] = true
		if l.UploadHere {
			l.coming[m.MessageID] = append(l.coming[m.MessageID], ledger.Message{
				Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: m.UID, State: ledger.Present, Key: l.Keys.New(l.Now()), ID: m.MessageID, Size: m.Size, WireSize: m.Size, Date: m.InternalDate,
			})
		}
	}
	return uids, nil
}

// Coming gives those of the messages that the dry run of an upload finds new which may be the mail of a file, as
// the run would record them: of the file's own mailbox they are other mail, since they are not
// paired with it.
func (l *Looking) Coming(mailbox string, f *plan.Untracked) []ledger.Message {
	id := plan.RealID(f.ID)
	l.mu.Lock()
	rows := slices.Clone(l.coming[id])
	l.mu.Unlock()
	for i := range rows {
		if rows[i].Mailbox == mailbox {
			rows[i].Size, rows[i].WireSize = 0, 0
		}
	}
	return slices.DeleteFunc(rows, func(m ledger.Message) bool {
		return id == "" && plan.Weigh(plan.Agreed(&m), f.Traits()).Date != plan.Equal
	})
}

// foreseeFlags notes what the server is to be told of a message whose file is here, when it is
// recorded as that.
func (l *Looker) foreseeFlags(b *Mailbox, dir maildir.Dir, key string, m mail.Message) {
	from, _ := l.wasOf(key)
	if name, ok, err := dir.Locate(key, ""); ok && err == nil { // else it goes this moment
		b.found.Left.AddFlags(m.UID, plan.Changed(plan.StoredFlags(m.Flags), plan.StoredFlags(l.flagsHere(from, name, m))))
	}
}

// placeless is what a message is known by wherever it is.
func placeless(id string, size int64, date time.Time) string {
	return fmt.Sprint(id, " ", size, " ", date.Unix())
}

func (l *Looking) noteLinked(from ledger.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.linked[from.Key] = from
}

// Linked tells whether another file of a message's mail would be made, where that is now.
func (l *Looking) Linked(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, from := range l.linked {
		if from.Key == row.Key || plan.Weigh(plan.Agreed(&from), plan.Agreed(&row)).Text == plan.Equal {
			return true
		}
	}
	return false
}

// LinkedFrom gives the messages of whose files others would be made.
func (l *Looking) LinkedFrom() []ledger.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.linked))
}

// Foreseen tells whether a dry run has found a message that is new in another mailbox, and
// that may be this one.
func (l *Looking) Foreseen(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.foreseen[placeless(plan.RealID(row.ID), row.Size, row.Date)]
}
