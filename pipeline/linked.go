package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// linksAreCopies forgets the links of messages that are still where they were, in a run
// that has recorded all that it was told, and those of mailboxes that the server has no
// more: nobody can ask it whether their messages were moved. Of one that was gone when it was linked,
// the mailbox was looked into before: the next run finds that, and what its owner did meanwhile.
func (r *run) linksAreCopies(ctx context.Context, o *overview) error {
	if r.DryRun {
		return nil
	}
	held := make(map[string]bool)
	for _, it := range r.line.Held() {
		held[journal.About(it.Row)] = true
	}
	return r.notes().Linked.DropWhere(ctx, func(_ string, l journal.Linking) bool {
		if !o.listed[l.Mailbox] {
			return true
		}
		i := slices.IndexFunc(o.boxes, func(b *box) bool { return b.Name == l.Mailbox })
		return i >= 0 && !l.Gone && !o.boxes[i].line.MarksKept() && !o.isUnsettled(o.boxes[i]) &&
			!held[journal.About(ledger.Message{Mailbox: l.Mailbox, UIDValidity: l.UIDValidity, UID: l.UID})]
	})
}
