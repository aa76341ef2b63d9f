package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// transfer moves messages on the server: with MOVE, or with COPY and an expunge
// of exactly these. It gives their new UIDs as far as they were told. keys are the
// files of those that were moved here.
func (w *worker) transfer(ctx context.Context, b *box, rows []ledger.Message, to *box, keys map[imap.UID]string) (map[imap.UID]imap.UID, error) {
	w.mayHaveMoved, to.need, to.unknown = true, plan.NeedChanges, true
	delete(w.stays, b.Name)
	out := make(map[imap.UID]imap.UID)
	verb := "MOVE"
	if !w.conn.Session().Has("MOVE") {
		verb = "COPY"
	}
	err := inParts(w, rows, uidOf, func(part []ledger.Message) error { return w.transferPart(ctx, b, verb, part, to, keys, out) })
	return out, err
}

// transferPart moves messages with one command, and one more to expunge copies.
func (w *worker) transferPart(ctx context.Context, b *box, verb string, part []ledger.Message, to *box, keys map[imap.UID]string, out map[imap.UID]imap.UID) error {
	uids := ledger.UIDs(part)
	m := w.newMove(b, verb, part, to, keys)
	if err := w.intendMove(ctx, m, part, to); err != nil {
		return err
	}
	there, err := probe.Transfer(ctx, w.conn.Session(), verb == "MOVE", uids, to.Name, w.step)
	if w.isRefusal(err) {
		back, e := w.moveRefused(ctx, m)
		if e != nil {
			return errors.Join(err, e)
		}
		if !back {
			return fmt.Errorf("%w; %w", err, errHalfWay)
		}
	}
	if err != nil {
		return err
	}
	b.took(uids)
	pairs := there.UIDs
	if there.UIDValidity == to.known.UIDValidity {
		maps.Copy(out, pairs)
		to.comes(part, pairs)
	} else {
		pairs = nil
	}
	m.Copied = verb == "COPY"
	if err := w.moveAnswered(ctx, b, m, part, pairs); err != nil || !m.Copied {
		return err
	}
	expunged, err := w.expunge(ctx, b, uids)
	if w.isRefusal(err) {
		return fmt.Errorf("%w; %w", err, errHalfWay)
	}
	if err != nil {
		return err
	}
	return w.copiesExpunged(ctx, b, m, part, expunged)
}

func uidOf(row ledger.Message) imap.UID { return row.UID }

// expunge deletes exactly these messages. It tells whether they are gone.
func (w *worker) expunge(ctx context.Context, b *box, uids []imap.UID) (bool, error) {
	if len(uids) == 0 {
		return false, nil
	}
	if err := probe.Store(ctx, w.conn.Session(), uids, true, `\Deleted`, w.step); err != nil {
		return false, w.bare(err)
	}
	b.took(uids)
	marked, done, err := probe.ExpungeOnly(ctx, w.conn.Session(), b.Name, uids, w.step)
	if err == nil && !done && len(marked) > 0 {
		b.settle(uids)
		w.note(b, "%s marked \\Deleted on the server, not expunged: others are marked there, too, and the server cannot tell them apart",
			mail.Number(len(uids), "message is", "messages are"))
	}
	return done, w.bare(err)
}

// bare says of a refusal that nothing of it can be asked again in parts where EXPUNGE
// takes all that are marked: the other parts may be.
func (w *worker) bare(err error) error {
	if w.isRefusal(err) && !w.conn.Session().Has("UIDPLUS") {
		return fmt.Errorf("%w; %w", err, errHalfWay)
	}
	return err
}
