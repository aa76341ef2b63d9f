package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// record is the acknowledgement: from here on nothing of these messages is done
// again.
func (l *Line) record(ctx context.Context, items []*Item, results []mail.Result) error {
	var rows []ledger.Message
	left := make(map[int]bool) // for the next run
	var over, done journal.Change
	for i, it := range items {
		if it.Op == OpPreindex {
			continue // it gets its row when it is found on the server
		}
		res := results[i]
		row := it.Row
		switch {
		case res.Err == nil:
		case it.Op == OpFlag && errors.Is(res.Err, fs.ErrNotExist) && !it.Absent && it.Row.Key != "":
			// The user moved the file since, with the letters that it had: were the new
			// flags agreed, it would look as if he had taken them off.
			left[i] = true
			continue
		case errors.Is(res.Err, fs.ErrNotExist):
			// The user took the file away since; what was agreed is agreed all
			// the same.
		case res.NotMail:
			// It is stored; that notmuch cannot have this one file must not
			// keep it from the others.
			l.Report.Note(it.Box.Name, "UID %d: %v", it.Row.UID, res.Err)
		default:
			// What this machine could not do now is no fact about the mail. It
			// is not recorded, so that the next run does it, and stays under way,
			// so that the mailbox's marks stay, too. Flags that were recorded
			// would look as if the user had changed the file's letters.
			it.Box.Leave(&report.OwnError{Err: fmt.Errorf("UID %d: notmuch could not be told, and is told by the next sync: %w", it.Row.UID, res.Err)})
			left[i] = true
			continue
		}
		if res.ID != "" || res.NotMail {
			row.ID = res.ID
		}
		if res.Path != "" && it.Op != OpGone {
			if name, err := filepath.Rel(string(it.Box.Dir), res.Path); err == nil && !strings.HasPrefix(name, "..") {
				it.Row = row
				it.setName(name)
				row = it.Row
			}
		}
		switch it.Op {
		case OpAdd:
			row.State = ledger.Present
		case OpReplace:
			if name, ok, err := it.Box.Dir.Locate(it.Row.StubKey, it.Row.StubName); err != nil {
				return err
			} else if ok {
				if err := it.Box.Dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				l.Report.Step("stub removed")
			}
			row.State, row.StubKey, row.StubName = ledger.Present, "", ""
			row.Attempts, row.Since, row.NextTry = 0, time.Time{}, time.Time{}
			if !it.Salvaged {
				row.Reason = ""
			}
		case OpStub:
			row.State = ledger.Stub
		case OpPlaceholder:
			row.State = ledger.Skipped
		case OpGone:
			tags := res.Tags
			if it.Known && !it.Resumed { // it was moved or deleted from here, and is known where it went
				tags = nil
			}
			if it.Resumed && len(tags) == 0 {
				tags = it.Had
			}
			l.did(&over, it, row, tags)
			if it.Forgotten() {
				if err := l.Journal.ToldGone(ctx, &over, row, tags); err != nil {
					return err
				}
				continue
			}
			if err := l.Journal.Deleted(ctx, &over, row, tags); err != nil {
				return err
			}
			over.Forget = append(over.Forget, row)
			continue
		}
		if (it.Op == OpAdd || it.Op == OpReplace) && strings.HasPrefix(row.Reason, NotMail) {
			row.Reason, row.Since = "", time.Time{} // it was none before
		}
		if res.NotMail && (it.Op == OpAdd || it.Op == OpReplace) {
			row.Reason, row.Since = notMail(res), l.Now().UTC().Truncate(time.Second)
		}
		if it.Op == OpFlag {
			it.Who, it.What = mail.Brief(res.From, res.Subject)
		}
		l.did(&done, it, row, nil)
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		if err := l.Journal.Recorded(ctx, &done, rows); err != nil {
			return err
		}
		if err := l.commit(ctx, done, "messages recorded"); err != nil {
			return err
		}
	}
	if !over.Empty() {
		if err := l.commit(ctx, over, "deletions recorded"); err != nil {
			return err
		}
	}
	for i, it := range items {
		if left[i] {
			continue
		}
		if it.Op != OpPreindex {
			l.countAndReport(it, results[i])
		}
		if err := it.Box.End(ctx); err != nil {
			return err
		}
	}
	l.Report.Progress()
	return nil
}

// NotMail begins the reason in the row of a mail that is here, and that notmuch does not take
// for one.
const NotMail = "the mail is here, but notmuch does not take its file for a mail, so that no search finds it"

func notMail(res mail.Result) string {
	if res.Err != nil {
		return NotMail + ": " + res.Err.Error()
	}
	return NotMail
}

// commit records a change, also when the run is told to end in this moment.
func (l *Line) commit(ctx context.Context, c journal.Change, step string) error {
	if err := l.Journal.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	l.Report.Step(step)
	return nil
}

// countAndReport counts a recorded item and says what a person wants to know of it.
func (l *Line) countAndReport(it *Item, res mail.Result) {
	l.Report.Tally(func(rep *report.Report) {
		switch it.Op {
		case OpAdd, OpReplace:
			if !it.Known {
				rep.New++
			}
			if !it.Known && it.Box.Ours[it.Row.UID] {
				rep.Ours++
			}
			if it.news() {
				rep.News++
			}
			if it.Op == OpReplace {
				rep.Healed++
			}
			if it.Salvaged {
				rep.Salvaged++
			}
			if res.NotMail {
				rep.NotMail++
			}
		case OpFlag:
			if res.Err == nil && !it.Known {
				rep.Flagged++
			}
		case OpGone:
			if !it.Known {
				rep.Removed++
			}
		case OpStub:
			rep.NewStubs++
		case OpPlaceholder:
			rep.Skipped++
		}
	})
	switch it.Op {
	case OpAdd, OpReplace:
		if !it.Known && !it.Linked {
			l.Report.Came(it.Box.Sizes[it.Row.UID], it.Row.WireSize)
		}
	case OpStub, OpPlaceholder:
		l.Report.Came(it.Box.Sizes[it.Row.UID], 0)
	}
	tell := func(t report.EventType, text string) {
		l.Report.Emit(report.Event{Type: t, Mailbox: it.Box.Name, UID: it.Row.UID, Text: text})
	}
	switch {
	case it.Op == OpReplace:
		tell(report.EventHealed, "the mail came at last and took the place of its stub")
	case it.Op == OpStub:
		tell(report.EventStub, it.Row.Reason+"; a note with the details stands in its place (notmuch search tag:"+stub.LabelFailed+")")
	case it.Op == OpGone && (it.Row.State == ledger.Stub || it.Row.State == ledger.Skipped):
		tell(report.EventGone, "the server lists this message no more; its stub was removed")
	case res.NotMail:
		l.Report.Note(it.Box.Name, "UID %d is stored as %s, but notmuch does not take it for a mail", it.Row.UID, it.Row.Name)
	}
}
