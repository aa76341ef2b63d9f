package pipeline

import (
	"context"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// recallRuled finds what interrupted runs have moved by tags. What is still where it
// was, was not moved.
func (w *worker) recallRuled(ctx context.Context) error {
	ruled, err := w.notes().Ruled.All(ctx)
	if err != nil || len(ruled) == 0 || w.DryRun {
		return err
	}
	boxes, err := w.knownBoxes(ctx)
	if err != nil {
		return err
	}
	var c journal.Change
	byBox := make(map[*box]map[imap.UID]journal.Ruled)
	for key, m := range ruled {
		w.notes().Ruled.Forget(&c, key)
		if b := boxes[m.Mailbox]; b != nil && b.known.UIDValidity == m.UIDValidity {
			if byBox[b] == nil {
				byBox[b] = make(map[imap.UID]journal.Ruled)
			}
			byBox[b][m.UID] = m
		}
	}
	for b, moves := range byBox {
		rows, err := w.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, slices.Collect(maps.Keys(moves)))
		if err != nil {
			return err
		}
		there, err := w.stillThere(ctx, b, rows)
		if err != nil {
			// Whether they were moved shows when the mailbox can be asked.
			if err := w.pusher.NotSettled(ctx, b.line, err, "whether what its tags want moved was moved cannot be found out"); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if err != nil || !there.Contains(row.UID) {
				w.ruled.Note(&c, []ledger.Message{row}, moves[row.UID].To)
			}
		}
	}
	return w.commit(ctx, c, "moves by tags recalled")
}

// stillThere tells which messages a mailbox still has.
func (w *worker) stillThere(ctx context.Context, b *box, rows []ledger.Message) (imap.UIDSet, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	if err := w.conn.Connect(ctx); err != nil {
		return nil, err
	}
	sel, err := w.conn.Examine(ctx, b.Name, nil)
	if err != nil {
		return nil, err
	}
	if sel.UIDValidity != b.known.UIDValidity {
		return mail.UIDSet(ledger.UIDs(rows)), nil // these numbers are of other messages by now: nothing tells that they went
	}
	return w.conn.Session().Search(ctx, mail.UIDSet(ledger.UIDs(rows)))
}
