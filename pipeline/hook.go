package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// apart keeps hooks and our own writing of notmuch's database apart, so that a
// hook can call `notmuch tag`.
type apart struct {
	Index
	hooks *hooks.Runner
}

func (a apart) Apply(ctx context.Context, changes []mail.Change) (results []mail.Result, err error) {
	a.hooks.Apart(func() { results, err = a.Index.Apply(ctx, changes) })
	return results, err
}

// asked are the states of messages that a run asks for though the server told
// nothing new of them.
func (r *run) asked() []ledger.State {
	if r.Full {
		return []ledger.State{ledger.Stub, ledger.Deferred, ledger.Skipped}
	}
	return []ledger.State{ledger.Stub, ledger.Deferred}
}

// waits tells whether a message without a file is asked for again all the same:
// it was a hook that kept it away, not its user.
func waits(row ledger.Message) bool {
	return row.State == ledger.Deferred || row.State == ledger.Skipped
}

// preSync asks whether the account is to be synchronised now.
func (r *run) preSync(ctx context.Context) (bool, error) {
	if r.DryRun {
		return true, nil
	}
	if r.Hooks.At(hooks.PreSync) {
		out, err := r.ask.Judge(ctx, hooks.Event{Point: hooks.PreSync}, time.Time{})
		switch {
		case err != nil:
			return false, err
		case out.Action == hooks.Defer && !out.Forced:
			text := fmt.Sprintf("hook %s puts this account off", out.By)
			if out.Reason != "" {
				text += ": " + out.Reason
			}
			r.fault(report.Failure{Scope: report.ScopeAccount, Text: text + "; nothing was done"})
			return false, nil
		case out.Action != hooks.Pass:
			return false, nil
		}
	}
	r.hooksBegan = true
	return true, nil
}

// postSync tells the hooks that the account's run is over.
func (r *run) postSync(ctx context.Context) error {
	if !r.hooksBegan || !r.Hooks.At(hooks.PostSync) {
		return nil
	}
	rep := r.rep.Report()
	_, err := r.ask.Judge(ctx, hooks.Event{
		Point: hooks.PostSync, New: rep.New, News: rep.News, Stubs: rep.NewStubs, Healed: rep.Healed, Flagged: rep.Flagged, Pushed: rep.Pushed, Moved: rep.Moved, Deleted: rep.Deleted, Uploaded: rep.Uploaded,
		Removed: rep.Removed, Faults: len(rep.Faults),
	}, time.Time{})
	return err
}

// preFetch gives those of the messages that the hooks let be downloaded. A
// message that has a stub, or that its user asked for, is not put to them.
func (w *worker) preFetch(ctx context.Context, b *box, uids []imap.UID) ([]imap.UID, error) {
	if !w.Hooks.At(hooks.PreFetch) {
		return uids, nil
	}
	var pass, doubtful []imap.UID
	for _, u := range uids {
		if old, ok := b.stubs[u]; ok && (!waits(old) || w.wants(old)) {
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
	var left []leftThere
	for _, u := range doubtful {
		m := told[u]
		row := ledger.Message{Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: u, Size: m.Size, Flags: storedFlags(m.Flags)}
		if !m.InternalDate.IsZero() {
			row.Date = m.InternalDate.UTC().Truncate(time.Second)
		}
		e := ask.EventOf(hooks.PreFetch, row)
		e.MessageID = mail.OneLine(m.MessageID, ask.MaxField)
		add, remove := w.InitialTags(row.Flags, b.add, b.remove)
		e.Tags = deliver.TagsToBe(w.NewTags, add, remove)
		old := b.stubs[u]
		out, err := w.ask.Judge(ctx, e, old.Since)
		if err != nil {
			return nil, err
		}
		row = deliver.KeptAway(row, old, out, w.Now())
		switch {
		case out.Action == hooks.Pass:
			pass = append(pass, u)
			w.verdicts[u] = out.Verdict
		case old.StubKey != "":
			if err := w.stands(ctx, b, old, m.Flags); err != nil {
				return nil, err
			}
		case out.Placeholder:
			left = append(left, leftThere{failure{b, stub.Salvaged{UID: u, Told: m}}, row, out.Verdict})
		default:
			kept = append(kept, row)
		}
	}
	if err := w.line.RecordKept(ctx, kept); err != nil {
		return nil, err
	}
	return pass, w.sendPlaceholders(ctx, b, left)
}

// describe asks the server for what a hook may want to know of messages before
// they are fetched. A server that does not tell is no reason not to fetch.
func (w *worker) describe(ctx context.Context, b *box, uids []imap.UID) (map[imap.UID]mail.Message, error) {
	w.mu.Lock()
	mute := b.mute
	w.mu.Unlock()
	if len(uids) == 0 || mute {
		return nil, nil //nolint:nilnil // nothing is known of any of them
	}
	listed, err := w.conn.Session().Identify(ctx, mail.UIDSet(uids))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		w.note(b, "the server does not describe messages, so hooks know little of them: %v", err)
		w.mu.Lock()
		b.mute = true
		w.mu.Unlock()
	}
	told := make(map[imap.UID]mail.Message, len(listed))
	for _, m := range listed {
		told[m.UID] = m
	}
	return told, nil
}

// tagPreFetched gives an item the tags that hooks gave its message before it was fetched.
func (w *worker) tagPreFetched(it *deliver.Item) {
	if v, ok := w.verdicts[it.Row.UID]; ok {
		it.Tag(v)
	}
}
