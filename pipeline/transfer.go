package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// transfer moves messages on the server: with MOVE, or with COPY and an expunge
// of exactly these. It gives their new UIDs as far as they were told. keys are the
// files of those that were moved here.
func (w *worker) transfer(ctx context.Context, b *box, rows []ledger.Message, to *box, keys map[imap.UID]string) (map[imap.UID]imap.UID, error) {
	w.moved, to.need, to.unknown = true, needChanges, true
	out := make(map[imap.UID]imap.UID)
	verb := "MOVE"
	if !w.session.Has("MOVE") {
		verb = "COPY"
	}
	err := inParts(w, rows, uidOf, func(part []ledger.Message) error { return w.transferPart(ctx, b, verb, part, to, keys, out) })
	return out, err
}

// transferPart moves messages with one command, and one more to expunge copies.
func (w *worker) transferPart(ctx context.Context, b *box, verb string, part []ledger.Message, to *box, keys map[imap.UID]string, out map[imap.UID]imap.UID) error {
	uids := uidsOf(part)
	m := w.newMove(b, verb, part, to, keys)
	if err := w.intendMove(ctx, m, to); err != nil {
		return err
	}
	ex, err := probe.Into(ctx, w.session, verb, uids, to.Name, w.step)
	if err == nil {
		err = ex.Refused("UID "+verb, b.Name, 0)
	}
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
	validity, pairs := probe.CopyUIDs(ex)
	if validity == to.known.UIDValidity {
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

func uidsOf(rows []ledger.Message) []imap.UID {
	uids := make([]imap.UID, len(rows))
	for i, m := range rows {
		uids[i] = m.UID
	}
	return uids
}

// expunge deletes exactly these messages. It tells whether they are gone.
func (w *worker) expunge(ctx context.Context, b *box, uids []imap.UID) (bool, error) {
	if len(uids) == 0 {
		return false, nil
	}
	uids = slices.Sorted(slices.Values(uids))
	for part := range slices.Chunk(uids, storeAtOnce) {
		if err := w.storePart(ctx, b, part, "+", `\Deleted`); err != nil {
			return false, w.bare(err)
		}
	}
	b.took(uids)
	if w.session.Has("UIDPLUS") {
		for part := range slices.Chunk(uids, storeAtOnce) {
			if _, err := w.command(ctx, b, "UID EXPUNGE %s", mail.UIDSet(part).String()); err != nil {
				return false, err
			}
			w.step("messages expunged")
		}
		return true, nil
	}
	// A bare EXPUNGE takes everything along that is marked.
	set, err := w.session.Deleted(ctx)
	if err != nil {
		return false, err
	}
	marked, ok := mail.UIDList(set, mail.MaxUIDs)
	if !ok {
		return false, &mail.Fault{Kind: mail.KindMalformed, Op: "UID SEARCH", Mailbox: b.Name, Text: "a list of deleted messages that cannot be true"}
	}
	if len(marked) == 0 {
		// Not even ours: they are gone, or the answer is wrong and others may be
		// marked, too.
		return false, nil
	}
	for _, u := range marked {
		if _, ours := slices.BinarySearch(uids, u); !ours {
			b.settle(uids)
			w.note(b, "%s marked \\Deleted on the server, not expunged: others are marked there, too, and the server cannot tell them apart",
				number(len(uids), "message is", "messages are"))
			return false, nil
		}
	}
	if _, err := w.command(ctx, b, "EXPUNGE"); err != nil {
		return false, w.bare(err)
	}
	w.step("messages expunged")
	return true, nil
}

// bare says of a refusal that nothing of it can be asked again in parts where EXPUNGE
// takes all that are marked: the other parts may be.
func (w *worker) bare(err error) error {
	if w.isRefusal(err) && !w.session.Has("UIDPLUS") {
		return fmt.Errorf("%w; %w", err, errHalfWay)
	}
	return err
}
