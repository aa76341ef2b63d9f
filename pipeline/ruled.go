package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// A mail that this program moves because of its tags keeps them when it arrives; one
// that others moved gets those by which no rule moves it back. A run may end between
// the server's answer and the arrival. So that the next one tells the two apart, and
// tags that were set meanwhile hold, the ledger has what was about to be moved.

// metaRuled is where the ledger keeps, by message, where it goes by its tags.
const metaRuled = "ruled/"

// ruledMove is that. It is forgotten with the row of the message.
type ruledMove struct {
	Mailbox     string   `json:"mailbox"`
	UIDValidity uint64   `json:"uidvalidity"`
	UID         imap.UID `json:"uid"`
	To          string   `json:"to"`
}

func ruledKey(m ledger.Message) string {
	return fmt.Sprintf("%s%s/%d/%d", metaRuled, m.Mailbox, m.UIDValidity, m.UID)
}

// noteRuled lets a change record moves by tags.
func (r *run) noteRuled(c ledger.Change, rows []ledger.Message, to string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ruledTo == nil {
		r.ruledTo = make(map[string]string)
	}
	for _, row := range rows {
		r.ruledTo[ruledKey(row)] = to
		if err := set(c, ruledKey(row), ruledMove{row.Mailbox, row.UIDValidity, row.UID, to}); err != nil {
			return err
		}
	}
	return nil
}

// forgetRuled lets a change forget them.
func (r *run) forgetRuled(c ledger.Change, rows ...ledger.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		if key := ruledKey(row); r.ruledTo[key] != "" {
			c.Metas[key] = ""
			delete(r.ruledTo, key)
		}
	}
}

// ruledInto tells whether this run, or one that was interrupted, has moved the message
// into the mailbox by its tags.
func (r *run) ruledInto(b *box, from ledger.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ruledTo[ruledKey(from)] == b.Name
}

// recallRuled finds what interrupted runs have moved by tags. What is still where it
// was, was not moved.
func (w *worker) recallRuled(ctx context.Context) error {
	texts, err := w.Ledger.Metas(ctx, metaRuled)
	if err != nil || len(texts) == 0 || w.DryRun {
		return err
	}
	boxes, err := w.knownBoxes(ctx)
	if err != nil {
		return err
	}
	c := ledger.Change{Metas: make(map[string]string)}
	byBox := make(map[*box]map[imap.UID]ruledMove)
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		var m ruledMove
		if err := json.Unmarshal([]byte(texts[key]), &m); err != nil {
			return fmt.Errorf("the ledger's note of a move by tags cannot be read: %w", err)
		}
		c.Metas[key] = ""
		if b := boxes[m.Mailbox]; b != nil && b.known.UIDValidity == m.UIDValidity {
			if byBox[b] == nil {
				byBox[b] = make(map[imap.UID]ruledMove)
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
			if err := w.notSettled(ctx, b, err, "whether what its tags want moved was moved cannot be found out"); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if err != nil || !there.Contains(row.UID) {
				if err := w.noteRuled(c, []ledger.Message{row}, moves[row.UID].To); err != nil {
					return err
				}
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
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	w.selected = nil
	sel, err := w.session.Examine(ctx, b.Name, nil)
	if err != nil {
		return nil, err
	}
	if sel.UIDValidity != b.known.UIDValidity {
		return mail.UIDSet(uidsOf(rows)), nil // these numbers are of other messages by now: nothing tells that they went
	}
	return w.session.Search(ctx, mail.UIDSet(uidsOf(rows)))
}
