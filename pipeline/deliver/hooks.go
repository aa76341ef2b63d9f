package deliver

import (
	"context"
	"slices"
	"time"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// preWrite asks the hooks about mails that came, and gives the items that go
// on. A mail that was here already, and one that its user asked for, can get
// tags only; where a stub stands, it stays if the mail is deferred.
func (l *Line) preWrite(ctx context.Context, items []*Item) ([]*Item, error) {
	if !l.Hooks.At(hooks.PreWrite) {
		return items, nil
	}
	var on, off []*Item
	var kept []ledger.Message
	for _, it := range items {
		if it.Known || it.Op != OpAdd && it.Op != OpReplace {
			on = append(on, it)
			continue
		}
		path := it.Box.Dir.Path(it.Row.Name)
		if it.Spool != nil {
			path = it.Spool.Path()
		}
		out, err := l.judge(ctx, hooks.PreWrite, it, path, it.Before.Since)
		if err != nil {
			return nil, err
		}
		it.Tag(out.Verdict)
		switch {
		case out.Action == hooks.Pass, it.Spool == nil, it.Wanted, it.Op == OpReplace && out.Action == hooks.Skip && it.Before.State == ledger.Stub:
			on = append(on, it)
			continue
		case it.Op == OpAdd:
			kept = append(kept, KeptAway(it.Row, it.Before, out, l.Now()))
			if out.Action == hooks.Defer && l.PutOff != nil {
				l.PutOff(it.Row, path)
			}
		}
		off = append(off, it)
	}
	if err := l.RecordKept(ctx, kept); err != nil {
		return nil, err
	}
	for _, it := range off {
		l.Report.Came(it.Box.Sizes[it.Row.UID], 0)
		it.discard()
		it.Spool = nil
		if err := it.Box.End(ctx); err != nil {
			return nil, err
		}
	}
	return on, nil
}

// judge asks the hooks about a mail whose file is at path.
func (l *Line) judge(ctx context.Context, p hooks.Point, it *Item, path string, since time.Time) (hooks.Outcome, error) {
	e := ask.EventOf(p, it.Row)
	e.Tags = TagsToBe(l.NewTags, it.Add, it.Remove)
	return l.Hooks.JudgeFile(ctx, e, path, since)
}

// TagsToBe are the tags that a new mail would get: notmuch's new.tags, and what is added
// to these and taken from them.
func TagsToBe(newTags, add, remove []string) []string {
	out := slices.DeleteFunc(slices.Concat(newTags, add), func(t string) bool { return slices.Contains(remove, t) })
	slices.Sort(out)
	return slices.Compact(out)
}

// KeptAway is the row of a message that a hook does not let in. It is there, so
// that the message is neither forgotten nor taken for deleted. before is the row that
// the message has already, if it has one.
func KeptAway(row, before ledger.Message, out hooks.Outcome, now time.Time) ledger.Message {
	row.Key, row.Name, row.ID = "", "", ""
	row.State, row.Since = ledger.Skipped, now.UTC().Truncate(time.Second)
	if out.Action == hooks.Defer {
		row.State, row.Attempts = ledger.Deferred, 1
		if before.State == ledger.Deferred {
			row.Since, row.Attempts = before.Since, before.Attempts+1
		}
	}
	row.Reason = "hook " + out.By
	if out.Reason != "" {
		row.Reason += ": " + out.Reason
	}
	return row
}

// RecordKept records what the hooks kept away.
func (l *Line) RecordKept(ctx context.Context, rows []ledger.Message) error {
	if len(rows) == 0 {
		return nil
	}
	c := journal.Change{Save: rows}
	for _, row := range rows {
		if row.Attempts > 1 {
			continue // it was put off before
		}
		a := journal.ActionOf(mail.ActSkip, row)
		a.Why = row.Reason
		c.Did(a)
	}
	if err := l.Journal.Record(ctx, c); err != nil {
		return err
	}
	l.Report.Step("verdicts recorded")
	l.Report.Tally(func(rep *report.Report) {
		for _, row := range rows {
			if row.State == ledger.Deferred {
				rep.Deferred++
			} else {
				rep.Skipped++
			}
		}
	})
	return nil
}

// TagAgain asks the hooks again about mails that an interrupted run left, for
// their tags: these are nowhere but in notmuch.
func (l *Line) TagAgain(ctx context.Context, items []*Item) error {
	for _, p := range []hooks.Point{hooks.PreFetch, hooks.PreWrite} {
		if !l.Hooks.At(p) {
			continue
		}
		for _, it := range items {
			if it.Op == OpStub || it.Op == OpPlaceholder && p == hooks.PreWrite {
				continue
			}
			out, err := l.judge(ctx, p, it, it.Box.Dir.Path(it.Row.Name), time.Time{})
			if err != nil {
				return err
			}
			it.Tag(out.Verdict)
		}
	}
	return nil
}

// postIndex tells the hooks of what is in notmuch now. It comes before the
// record: they hear of it twice rather than never.
func (l *Line) postIndex(ctx context.Context, items []*Item, results []mail.Result) error {
	for i, it := range items {
		point := hooks.PostIndex
		switch it.Op {
		case OpAdd, OpReplace:
		case OpStub:
			point = hooks.PostStub
		default:
			continue
		}
		if !l.Hooks.At(point) || results[i].Err != nil || results[i].ID == "" || it.Known && !it.Resumed {
			continue
		}
		e := ask.EventOf(point, it.Row)
		e.ID = results[i].ID
		if it.news() {
			e.News = 1
		}
		if it.Op == OpStub {
			e.Reason = it.Row.Reason
		}
		path := results[i].Path
		if path == "" {
			path = it.Box.Dir.Path(it.name())
		}
		if _, err := l.Hooks.JudgeFile(ctx, e, path, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}
