package pipeline

import (
	"context"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
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
			if err := w.rep.Unended(ctx, b.Name, err, "whether what its tags want moved was moved cannot be found out", b.line.Leave); err != nil {
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
