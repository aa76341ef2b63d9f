package pull

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// maxFailureStreak is how many messages in a row may fail before the server, not the
// messages, is suspected.
const maxFailureStreak = 10

// fetch brings the messages of one batch, each of them on its own if the batch
// does not bring them: a batch error is not a message error.
func (w *Worker) fetch(ctx context.Context, b *Mailbox, uids []imap.UID) error {
	missing, err := w.fetchBatch(ctx, b, uids)
	for {
		// An error of this machine counts also when nothing seems to be missing:
		// what came last may be what could not be kept.
		scope := report.ScopeOf(err, report.AtMessage)
		switch {
		case scope == report.ScopeRun, len(missing) > 0 && (scope > report.ScopeMessage || ctx.Err() != nil):
			return err
		case len(missing) == 0:
			return nil
		}
		uid := missing[0]
		missing = missing[1:]
		var failed bool
		if failed, err = w.fetchAlone(ctx, b, uid); err != nil {
			return err
		}
		if w.streak >= maxFailureStreak {
			if err := w.flushHeld(ctx, b); err != nil {
				return err
			}
		}
		// The one that broke the batch is found: the others may come together
		// again. Where the server left messages out of an intact answer, each
		// is asked for alone.
		if failed && len(missing) > 1 && w.broke {
			missing, err = w.fetchBatch(ctx, b, missing)
		}
	}
}

// fetchBatch asks for messages with one command and gives those that did not
// come. The error is nil, or a fault that is no reason by itself to give up.
func (w *Worker) fetchBatch(ctx context.Context, b *Mailbox, uids []imap.UID) (missing []imap.UID, err error) {
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return uids, err
	}
	came := make(map[imap.UID]bool, len(uids))
	err = s.Fetch(ctx, mail.UIDSet(uids), w.sink(ctx, b, came, nil))
	w.broke = err != nil
	if len(came) > 0 {
		w.lived()
	}
	if wait, ok := report.Throttled(err); ok && wait <= report.Patience {
		err = w.Pause(ctx, wait)
	}
	for _, u := range uids {
		if !came[u] {
			missing = append(missing, u)
		}
	}
	slices.Sort(missing)
	return missing, err
}

// fetchAlone asks for one message with the tolerant reader. failed tells that
// the server lists it and does not hand it over; the failure is then held until
// it is sure that the server is well otherwise.
func (w *Worker) fetchAlone(ctx context.Context, b *Mailbox, uid imap.UID) (failed bool, err error) {
	var ex *mail.Exchange
	fail := failure{Salvaged: stub.Salvaged{UID: uid}}
	for range 2 {
		s, err := w.conn.Enter(ctx, b)
		if err != nil {
			return false, err
		}
		came := make(map[imap.UID]bool, 1)
		ex, err = s.FetchOne(ctx, uid, w.sink(ctx, b, came, &fail))
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if came[uid] {
			w.lived()
			return false, nil
		}
		fail.Note(ex, err)
		wait, ok := report.Throttled(err)
		if !ok {
			if report.ScopeOf(err, report.AtMessage) > report.ScopeMessage {
				return false, err
			}
			break
		}
		if wait > report.Patience {
			return false, err
		}
		if err := w.Pause(ctx, wait); err != nil {
			return false, err
		}
	}
	if _, throttled := report.Throttled(fail.Err); throttled {
		return false, fail.Err
	}
	gone, err := w.gone(ctx, b, uid)
	if err != nil || gone {
		return false, err
	}
	delivered, err := w.salvage(ctx, b, &fail)
	if err != nil || delivered {
		return false, err
	}
	fail.box = b
	w.held = append(w.held, fail)
	w.streak++
	return true, nil
}

// gone tells whether the server lists the message no more: then its absence is
// no failure.
func (w *Worker) gone(ctx context.Context, b *Mailbox, uid imap.UID) (bool, error) {
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return false, err
	}
	set, err := s.Search(ctx, mail.UIDSet([]imap.UID{uid}))
	if err != nil {
		if ctx.Err() != nil || report.ScopeOf(err, report.AtMessage) > report.ScopeMessage {
			return false, err
		}
		// Not known to be gone is treated as there: a stub too many is better
		// than a mail forgotten.
		return false, nil
	}
	return !set.Contains(uid), nil
}

// lived notes that a body came: the server can hand out mail.
func (w *Worker) lived() { w.streak = 0 }

// sink spools bodies below the mailbox's tmp and sends them down the line. A
// substitute for the mail is no mail: it is kept in fail, if there is one, and
// does not count as come.
func (w *Worker) sink(ctx context.Context, b *Mailbox, came map[imap.UID]bool, fail *failure) mail.Sink {
	return mail.Sink{
		Open: func(size int64) (mail.Spool, error) {
			if len(b.Sizes) == 0 {
				w.Report.Announced(size)
			}
			s, err := w.spool(b)
			if err != nil {
				return nil, err // not s: a nil *Spool is no nil Spool
			}
			return s, nil
		},
		Done: func(m mail.Message, spool mail.Spool) error {
			s, ok := spool.(*maildir.Spool)
			if !ok {
				return errors.New("a spool that is not a maildir's")
			}
			if came[m.UID] {
				s.Discard()
				return nil
			}
			sub, ok := stub.ParseSubstitute(s.Head())
			if ok && w.madeUp(m, s) {
				s.Discard()
				if fail != nil {
					fail.Substitute = &sub
					fail.Told = m
				}
				return nil
			}
			if ok {
				w.Report.Note(b.Name, "UID %d reads like what Exchange makes up for a mail that it cannot hand over, but has the size that the server says; it is taken for the mail", m.UID)
			}
			if err := w.deliver(ctx, b, m, s, ""); err != nil {
				return err
			}
			came[m.UID] = true
			return nil
		},
	}
}

// madeUp tells whether what reads like a substitute, and came by no way of mail, is one. Exchange
// gives whatever arrives lines of its way, so that only it has written what has none. Elsewhere
// anybody can write such a text: that the server says another size no sender can bring about.
func (w *Worker) madeUp(m mail.Message, came *maildir.Spool) bool {
	return w.Origin.Exchange || m.Size > 0 && m.Size != came.WireSize()
}

// spool begins a mail, of which it is counted how much came.
func (w *Worker) spool(b *Mailbox) (*maildir.Spool, error) {
	s, err := b.Dir.Spool(w.Keys.New(w.Now()))
	if err != nil {
		return nil, err
	}
	s.Wrote = w.Report.Flown
	return s, nil
}

// deliver sends a whole message down the line: into the place of its stub, if
// it has one.
func (w *Worker) deliver(ctx context.Context, b *Mailbox, m mail.Message, s *maildir.Spool, salvagedBy string) error {
	if m.InternalDate.IsZero() {
		m.InternalDate = plan.When(s.Sent(), w.Now(), w.Now())
	}
	it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpAdd, Spool: s, Row: ledger.Message{
		Mailbox: b.Name, UIDValidity: b.UIDValidity, UID: m.UID,
		Key: s.Key(), Size: m.Size, Date: m.InternalDate.UTC().Truncate(time.Second),
		Flags: plan.StoredFlags(m.Flags),
	}}
	it.ID = s.MessageID()
	it.Who, it.What = s.Brief()
	it.Row.ID = it.ID // a run that is stopped leaves it to the next one
	// What waits on the line shall hold no buffers.
	if err := s.Finish(); err != nil {
		s.Discard()
		return err
	}
	it.Row.WireSize, it.Row.Digest = s.WireSize(), s.Digest()
	it.Add, it.Remove = w.Tags.Arriving(b.Name, w.Trash, it.Row.Flags, b.Add, b.Remove, plan.AsNew)
	if stub, ok := b.Stubs[m.UID]; ok && stub.StubKey != "" {
		it.Op, it.Orders = deliver.OpReplace, w.Tags.Orders
		it.Row.StubKey, it.Row.StubName, it.Row.ID = stub.StubKey, stub.StubName, stub.ID
		it.Row.Attempts, it.Row.Since, it.Row.Reason = stub.Attempts, stub.Since, stub.Reason
	}
	if b.TakenOver && it.Op == deliver.OpAdd {
		it.IfKnown = deliver.TagsOfFlags(w.Tags, it.Row.Flags, nil)
	}
	if err := w.RestoreTags(ctx, b, it); err != nil {
		s.Discard()
		return err
	}
	if salvagedBy != "" {
		it.Salvaged = true
		it.Tag(hooks.Verdict{Add: []string{plan.TagSalvaged}})
		it.Row.Reason = salvagedBy
	}
	w.dealt[m.UID] = true
	it.Before, it.Wanted = b.Stubs[m.UID], w.Wanted(it.Row)
	w.tagPreFetched(it)
	return w.Line.Send(ctx, it)
}
