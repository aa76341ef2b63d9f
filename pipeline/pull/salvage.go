package pull

import (
	"context"
	"errors"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// failure is a message that the server lists and does not hand over, or that a hook
// leaves there, and what is known of it.
type failure struct {
	box *Mailbox
	stub.Salvaged
}

// How much one failing message may cost a sync.
const (
	salvageDeaths = 3 // connections
	salvageTimes  = 2 // timeouts of the session, in all
)

// salvage tries other roads to one message. delivered tells that the whole mail
// came by one of them and is on its way; otherwise f holds what was learnt.
func (w *Worker) salvage(ctx context.Context, b *Mailbox, f *failure) (delivered bool, err error) {
	within, cancel := context.WithTimeout(ctx, salvageTimes*w.Timeout)
	defer cancel()
	s := &probe.Salvager{
		Salvaged: &f.Salvaged, UIDValidity: b.UIDValidity, Each: w.Timeout, Deaths: salvageDeaths,
		Enter: func(ctx context.Context) (probe.Speaker, error) { return w.conn.EnterByHand(ctx, b) },
		Open:  func() (mail.Spool, error) { return w.spool(b) },
		Done: func(method string, m mail.Message, spool mail.Spool) error {
			s, ok := spool.(*maildir.Spool)
			if !ok {
				return errors.New("a spool that is not a maildir's")
			}
			w.lived()
			return w.deliver(ctx, b, m, s, "fetched as "+method)
		},
	}
	_ = s.Run(within, false) // s.Fatal and the context say it, too
	if s.Seen != "" {
		w.Report.Note(b.Name, "UID %d: %s", f.UID, s.Seen)
	}
	if s.Fatal != nil {
		return false, s.Fatal
	}
	// That the ladder could not be climbed to its end changes nothing about the
	// message; the next batch meets the server's trouble itself.
	return s.Method != "", ctx.Err()
}

// flushHeld turns the held failures into stubs, unless the server itself is
// suspect: then a message that came before is asked for, and if that does not
// come either the account is left and no stub is written.
func (w *Worker) flushHeld(ctx context.Context, b *Mailbox) error {
	if len(w.held) == 0 {
		return nil
	}
	if w.streak >= maxFailureStreak {
		well, told, err := w.canary(ctx, b)
		if err != nil {
			return err
		}
		if told && !well {
			return report.ErrUnhealthy
		}
		w.streak = 0
		if !well {
			return &Doubt{&mail.Fault{Kind: mail.KindNoData, Op: "UID FETCH", Mailbox: b.Name, Text: "message after message fails; no stub was written"}}
		}
	}
	held := w.held
	w.held = nil
	for _, f := range held {
		if err := w.recordFailure(ctx, f); err != nil {
			return err
		}
		w.dealt[f.UID] = true
	}
	return nil
}

// canary asks for a message that came in an earlier run: of the mailbox, or, if
// none did, of another one. Where nothing came ever, as in a first sync, the
// mailbox's oldest ones are asked for. told is false if that says nothing of the
// server as a whole.
func (w *Worker) canary(ctx context.Context, b *Mailbox) (well, told bool, err error) {
	known, err := w.Known(ctx)
	if err != nil {
		return false, false, err
	}
	boxes := []*Mailbox{b}
	for _, k := range known {
		if k.Name != b.Name {
			boxes = append(boxes, k)
		}
	}
	tried := 0
	for _, from := range boxes {
		rows, err := w.Ledger.Rows(ctx, from.Name, from.UIDValidity)
		if err != nil {
			return false, false, err
		}
		var uids []imap.UID
		for i := len(rows) - 1; i >= 0 && len(uids) < canaries; i-- {
			if rows[i].State == ledger.Present {
				uids = append(uids, rows[i].UID)
			}
		}
		if len(uids) == 0 {
			continue
		}
		well, err = w.anyComes(ctx, from, uids)
		if tried++; well || err != nil || from == b || tried == canaries {
			return well, true, err
		}
	}
	if tried > 0 {
		return false, true, nil
	}
	s, err := w.conn.Enter(ctx, b)
	if err != nil {
		return false, true, nil //nolint:nilerr // a server that does not even let us in is not well
	}
	set, err := s.Search(ctx, mail.EveryUID())
	if err != nil {
		return false, true, ctx.Err()
	}
	uids, _ := mail.UIDList(set, mail.MaxUIDs)
	well, err = w.anyComes(ctx, b, uids[:min(canaries, len(uids))])
	return well, well, err
}

// canaries is how many messages of a mailbox, and how many mailboxes, are tried
// before the server is suspected.
const canaries = 3

// anyComes tells whether one of these messages comes.
func (w *Worker) anyComes(ctx context.Context, b *Mailbox, uids []imap.UID) (bool, error) {
	for _, u := range uids {
		s, err := w.conn.Enter(ctx, b)
		if err != nil {
			return false, ctx.Err() // a server that does not even let us in is not well
		}
		came := false
		_, err = s.FetchOne(ctx, u, mail.Sink{
			Open: func(int64) (mail.Spool, error) { return void{}, nil },
			Done: func(mail.Message, mail.Spool) error { came = true; return nil },
		})
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if came && err == nil {
			return true, nil
		}
	}
	return false, nil
}

// void takes a body that nobody wants.
type void struct{}

func (void) Write(p []byte) (int, error) { return len(p), nil }
func (void) Discard()                    {}

// recordFailure records one failure: a new stub, or one more attempt at an old one.
func (w *Worker) recordFailure(ctx context.Context, f failure) error {
	now := w.Now().UTC().Truncate(time.Second)
	if old, ok := f.box.Stubs[f.UID]; ok && old.StubKey != "" {
		if old.State == ledger.Skipped {
			return w.placeholderBecomesStub(ctx, f, old, now)
		}
		if err := w.enrich(ctx, f, &old, now); err != nil {
			return err
		}
		old.Attempts++
		old.NextTry = report.RetryAt(now, old.Attempts)
		old.Reason = f.Reason()
		if err := w.Ledger.Save(ctx, old); err != nil {
			return err
		}
		w.Report.Step("attempt recorded")
		w.Report.Tally(func(r *report.Report) { r.Stubs++ })
		return nil
	}
	return w.sendStub(ctx, f, now)
}
