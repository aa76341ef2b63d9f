package pipeline

import (
	"context"
	"errors"
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
	for part := range slices.Chunk(rows, storeAtOnce) {
		uids := uidsOf(part)
		m := w.newMove(b, verb, part, to, keys)
		if err := w.intendMove(ctx, m, to); err != nil {
			return out, err
		}
		ex, err := probe.Into(ctx, w.session, verb, uids, to.Name, w.step)
		if err == nil {
			err = ex.Refused("UID "+verb, b.Name, 0)
		}
		if f, ok := errors.AsType[*mail.Fault](err); ok && (f.Kind == mail.KindNo || f.Kind == mail.KindBad) && w.session.Alive() {
			err = errors.Join(err, w.moveRefused(ctx, m))
		}
		if err != nil {
			return out, err
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
		if err := w.moveAnswered(ctx, b, m, part, pairs); err != nil {
			return out, err
		}
		if m.Copied {
			expunged, err := w.expunge(ctx, b, uids)
			if err != nil {
				return out, err
			}
			if err := w.copiesExpunged(ctx, b, m, part, expunged); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

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
	if err := w.storeFlag(ctx, b, uids, "+", `\Deleted`); err != nil {
		return false, err
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
		return false, err
	}
	w.step("messages expunged")
	return true, nil
}
