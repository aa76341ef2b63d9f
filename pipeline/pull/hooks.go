package pull

import (
	"context"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// heldByHook tells whether a message without a file is asked for again all the same:
// it was a hook that kept it away, not its user.
func heldByHook(row ledger.Message) bool {
	return row.State == ledger.Deferred || row.State == ledger.Skipped
}

// preFetch gives those of the messages that the hooks let be downloaded. A
// message that has a stub, or that its user asked for, is not put to them.
func (w *Worker) preFetch(ctx context.Context, b *Mailbox, uids []imap.UID) ([]imap.UID, error) {
	if !w.Hooks.At(hooks.PreFetch) {
		return uids, nil
	}
	var pass, doubtful []imap.UID
	for _, u := range uids {
		if old, ok := b.Stubs[u]; ok && (!heldByHook(old) || w.Wanted(old)) {
			pass = append(pass, u)
		} else {
			doubtful = append(doubtful, u)
		}
	}
	told, err := w.describe(ctx, b, doubtful)
	if err != nil {
		return nil, err
	}
	var kept []ledger.Message
	var left []skippedMessage
	for _, u := range doubtful {
		m := told[u]
		row := ledger.Message{Mailbox: b.Name, UIDValidity: b.UIDValidity, UID: u, Size: m.Size, Flags: plan.StoredFlags(m.Flags)}
		if !m.InternalDate.IsZero() {
			row.Date = m.InternalDate.UTC().Truncate(time.Second)
		}
		e := ask.EventOf(hooks.PreFetch, row)
		e.MessageID = mail.OneLine(m.MessageID, ask.MaxField)
		add, remove := w.Tags.InitialTags(row.Flags, b.Add, b.Remove)
		e.Tags = deliver.TagsToBe(w.Tags.NewTags, add, remove)
		old := b.Stubs[u]
		out, err := w.Hooks.Judge(ctx, e, old.Since)
		if err != nil {
			return nil, err
		}
		row = deliver.KeptAway(row, old, out, w.Now())
		switch {
		case out.Action == hooks.Pass:
			pass = append(pass, u)
			w.verdicts[u] = out.Verdict
		case old.StubKey != "":
			if err := w.keepPlaceholder(ctx, b, old, m.Flags); err != nil {
				return nil, err
			}
		case out.Placeholder:
			left = append(left, skippedMessage{failure{b, stub.Salvaged{UID: u, Told: m}}, row, out.Verdict})
		default:
			kept = append(kept, row)
			w.Report.Came(b.Sizes[u], 0)
		}
	}
	if err := w.Line.RecordKept(ctx, kept); err != nil {
		return nil, err
	}
	return pass, w.sendPlaceholders(ctx, b, left)
}

// describe asks the server for what a hook may want to know of messages before
// they are fetched. A server that does not tell is no reason not to fetch.
func (w *Worker) describe(ctx context.Context, b *Mailbox, uids []imap.UID) (map[imap.UID]mail.Message, error) {
	w.mu.Lock()
	mute := w.undescribed[b.Name]
	w.mu.Unlock()
	if len(uids) == 0 || mute {
		return nil, nil //nolint:nilnil // nothing is known of any of them
	}
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return nil, err
	}
	listed, err := s.Identify(ctx, mail.UIDSet(uids))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		w.Report.Note(b.Name, "the server does not describe messages, so hooks know little of them: %v", err)
		w.mu.Lock()
		w.undescribed[b.Name] = true
		w.mu.Unlock()
	}
	told := make(map[imap.UID]mail.Message, len(listed))
	for _, m := range listed {
		told[m.UID] = m
	}
	return told, nil
}

// tagPreFetched gives an item the tags that hooks gave its message before it was fetched.
func (w *Worker) tagPreFetched(it *deliver.Item) {
	if v, ok := w.verdicts[it.Row.UID]; ok {
		it.Tag(v)
	}
}
