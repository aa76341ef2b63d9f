package pull

import (
	"context"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// skippedMessage is a message that a hook leaves on the server, and for which a stub
// is to stand.
type skippedMessage struct {
	failure
	row     ledger.Message
	verdict hooks.Verdict
}

// keepPlaceholder leaves a placeholder as it is, but for flags that changed meanwhile.
func (w *Worker) keepPlaceholder(ctx context.Context, b *Mailbox, old ledger.Message, flags []string) error {
	w.Report.Tally(func(rep *report.Report) { rep.Skipped++ })
	w.Report.Came(b.Sizes[old.UID], 0)
	if flags == nil || plan.SameFlags(old.Flags, flags) {
		return nil
	}
	return w.SendFlags(ctx, b, old, plan.StoredFlags(flags))
}

// sendPlaceholders puts stubs on the line for messages that hooks leave on the
// server. What is not known of a message is no reason not to have one.
func (w *Worker) sendPlaceholders(ctx context.Context, b *Mailbox, left []skippedMessage) error {
	for part := range slices.Chunk(left, headersAtOnce) {
		headers, err := w.headers(ctx, b, part)
		if err != nil {
			return err
		}
		for _, l := range part {
			l.Header = headers[l.UID]
			if err := w.sendPlaceholder(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Worker) sendPlaceholder(ctx context.Context, l skippedMessage) error {
	now := w.Now()
	s, err := l.box.Dir.Spool(w.Keys.New(now))
	if err != nil {
		return err
	}
	if _, err := s.Write(stub.Skipped(w.origin(l.box), l.Salvaged, l.row.Reason, now)); err != nil {
		s.Discard()
		return err
	}
	it := &deliver.Item{Box: l.box.Mailbox, Op: deliver.OpPlaceholder, Spool: s, Row: l.row}
	it.Row.StubKey, it.Row.Date = s.Key(), l.Date(now)
	it.Add, it.Remove = w.Tags.InitialTags(it.Row.Flags, l.box.Add, l.box.Remove)
	it.Tag(l.verdict)
	it.Add = append(it.Add, stub.LabelSkipped)
	// What waits on the line shall hold no buffers.
	if err := s.Finish(); err != nil {
		s.Discard()
		return err
	}
	return w.Line.Send(ctx, it)
}

// headersAtOnce is of how many messages the headers are asked for at once.
const headersAtOnce = 50

// headers asks for those fields of messages that a placeholder shows.
func (w *Worker) headers(ctx context.Context, b *Mailbox, left []skippedMessage) (map[imap.UID][]byte, error) {
	uids := make([]imap.UID, len(left))
	for i, l := range left {
		uids[i] = l.UID
	}
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return nil, err
	}
	out, err := s.Headers(ctx, mail.UIDSet(uids), "DATE", "FROM", "SUBJECT", "MESSAGE-ID", "REFERENCES")
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		w.Report.Note(b.Name, "the server does not send headers of what is left there: %v", err)
	}
	return out, nil
}

// placeholderBecomesStub makes a stub like any other of the placeholder of a message that the
// server does not hand over now that it is asked for it. The file keeps its name.
func (w *Worker) placeholderBecomesStub(ctx context.Context, f failure, old ledger.Message, now time.Time) error {
	name, ok, err := f.box.Dir.Locate(old.StubKey, old.StubName)
	if err != nil {
		return err
	}
	if !ok {
		return w.sendStub(ctx, f, now) // its user removed it, and asked all the same
	}
	if err := w.rewrite(f, old, name, now); err != nil {
		return err
	}
	path := f.box.Dir.Path(name)
	results, err := w.Index.Apply(ctx, []mail.Change{
		{Op: mail.OpReindex, Path: path, ID: old.ID},
		{Op: mail.OpFlag, Path: path, ID: old.ID, Add: []string{stub.LabelFailed}, Remove: []string{stub.LabelSkipped}},
	})
	if err != nil {
		return err
	}
	w.Report.Step("stub read anew")
	for _, res := range results {
		if res.Err != nil {
			w.Report.Note(f.box.Name, "UID %d: %v", f.UID, res.Err)
		}
	}
	old.State, old.Attempts, old.Since, old.NextTry = ledger.Stub, 1, now, report.RetryAt(now, 1)
	old.Reason, old.WireSize = f.Reason(), int64(f.Size())
	if err := w.Ledger.Save(ctx, old); err != nil {
		return err
	}
	w.Report.Step("attempt recorded")
	w.Report.Tally(func(r *report.Report) { r.NewStubs++ })
	w.Report.Emit(report.Event{Type: report.EventStub, Mailbox: f.box.Name, UID: f.UID, Text: old.Reason + "; its stub says more (notmuch search tag:" + stub.LabelFailed + ")"})
	return nil
}
