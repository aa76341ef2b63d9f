package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	wire "github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// leftThere is a message that a hook leaves on the server, and for which a stub
// is to stand.
type leftThere struct {
	failure
	row     ledger.Message
	verdict hooks.Verdict
}

// stoodBy is what a row with a stub was before its mail was asked for: what a
// hook skipped was never asked for.
func stoodBy(row ledger.Message) ledger.State {
	if row.Attempts == 0 {
		return ledger.Skipped
	}
	return ledger.Stub
}

// stands leaves a placeholder as it is, but for flags that changed meanwhile.
func (w *worker) stands(ctx context.Context, b *box, old ledger.Message, flags []string) error {
	w.tally(func(rep *report.Report) { rep.Skipped++ })
	w.rep.Came()
	if flags == nil || plan.SameFlags(old.Flags, flags) {
		return nil
	}
	return w.sendFlags(ctx, b, old, storedFlags(flags))
}

// sendPlaceholders puts stubs on the line for messages that hooks leave on the
// server. What is not known of a message is no reason not to have one.
func (w *worker) sendPlaceholders(ctx context.Context, b *box, left []leftThere) error {
	for part := range slices.Chunk(left, headsAtOnce) {
		heads, err := w.heads(ctx, b, part)
		if err != nil {
			return err
		}
		for _, l := range part {
			l.Header = heads[l.UID]
			if err := w.sendPlaceholder(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *worker) sendPlaceholder(ctx context.Context, l leftThere) error {
	now := w.Now()
	s, err := l.box.dir.Spool(w.keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(stub.Skipped(w.origin(l.box), l.Salvaged, l.row.Reason, now)); err != nil {
		s.Discard()
		return err
	}
	it := &deliver.Item{Box: l.box.line, Op: deliver.OpPlaceholder, Spool: s, Row: l.row}
	it.Row.StubKey, it.Row.Date = s.Key(), l.Date(now)
	it.Add, it.Remove = w.InitialTags(it.Row.Flags, l.box.add, l.box.remove)
	it.Tag(l.verdict)
	it.Add = append(it.Add, TagSkipped)
	// What waits on the line shall hold no buffers.
	if err := s.Finish(); err != nil {
		s.Discard()
		return err
	}
	return w.line.Send(ctx, it)
}

// headsAtOnce is of how many messages the headers are asked for at once.
const headsAtOnce = 50

// heads asks for those fields of messages that a placeholder shows.
func (w *worker) heads(ctx context.Context, b *box, left []leftThere) (map[imap.UID][]byte, error) {
	uids := make([]imap.UID, len(left))
	for i, l := range left {
		uids[i] = l.UID
	}
	if err := w.enter(ctx, b); err != nil {
		return nil, err
	}
	out, err := w.conn.Session().Headers(ctx, wire.UIDSet(uids), "DATE", "FROM", "SUBJECT", "MESSAGE-ID", "REFERENCES")
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		w.note(b, "the server does not send headers of what is left there: %v", err)
	}
	return out, nil
}

// failed makes a stub like any other of the placeholder of a message that the
// server does not hand over now that it is asked for it. The file keeps its name.
func (w *worker) failed(ctx context.Context, f failure, old ledger.Message, now time.Time) error {
	name, ok, err := f.box.find(old.StubKey, old.StubName)
	if err != nil {
		return err
	}
	if !ok {
		return w.sendStub(ctx, f, now) // its user removed it, and asked all the same
	}
	if err := w.rewrite(f, old, name, now); err != nil {
		return err
	}
	path := f.box.path(name)
	results, err := w.Index.Apply(ctx, []wire.Change{
		{Op: wire.OpReindex, Path: path, ID: old.ID},
		{Op: wire.OpFlag, Path: path, ID: old.ID, Add: []string{TagFailed}, Remove: []string{TagSkipped}},
	})
	if err != nil {
		return err
	}
	w.step("stub read anew")
	for _, res := range results {
		if res.Err != nil {
			w.note(f.box, "UID %d: %v", f.UID, res.Err)
		}
	}
	old.State, old.Attempts, old.Since, old.NextTry = ledger.Stub, 1, now, report.RetryAt(now, 1)
	old.Reason, old.WireSize = f.Reason(), int64(f.Size())
	if err := w.Ledger.Save(ctx, old); err != nil {
		return err
	}
	w.step("attempt recorded")
	w.tally(func(r *report.Report) { r.NewStubs++ })
	w.emit(report.Event{Type: report.EventStub, Mailbox: f.box.Name, UID: f.UID, Text: old.Reason + "; its stub says more (notmuch search tag:" + TagFailed + ")"})
	return nil
}
