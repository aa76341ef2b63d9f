package pipeline

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// What tags order: that a mail goes to another mailbox, or that it is deleted.
// Only the server is told. The look that follows finds the mail where it went,
// links its file there and takes it away here, as if another program had moved
// it: so the server's own moves and deletions win, and there is nothing to put
// right after a crash.

// verbTo says what moving mail there is called.
func verbTo(mailbox string) string {
	if strings.Contains(strings.ToLower(mailbox), "archive") {
		return "archive"
	}
	return "move"
}

// pushTagged moves messages on the server as their tags order. What the server
// refuses costs nothing else.
func (w *worker) pushTagged(ctx context.Context, b *box, moves map[string][]ledger.Message, boxes map[string]*box) error {
	var left error
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		to := boxes[name]
		if to == nil {
			to = &box{Mailbox: mail.Mailbox{Name: name}} // it need not be synchronised
		}
		rows, err := w.sameMessages(ctx, b, moves[name])
		if err != nil {
			return err
		}
		w.doing(b, len(rows), verbTo(name)+" %s: %s -> %s", b.Name, name)
		_, err = w.transfer(ctx, b, rows, to, nil)
		n := done(err, len(rows))
		w.tally(func(r *report.Report) { r.Moved += n })
		if w.isRefusal(err) {
			left = errors.Join(left, leftf("%s not moved to %s, as the tags want it: %v", mail.Number(len(rows)-n, "message was", "messages were"), name, err))
			continue
		}
		if err != nil {
			return err
		}
		delete(moves, name) // done, should the push be repeated
	}
	return left
}

// comes remembers where new messages of the mailbox were before.
func (b *box) comes(rows []ledger.Message, pairs map[imap.UID]imap.UID) {
	if b.came == nil {
		b.came = make(map[imap.UID]ledger.Message)
	}
	for _, m := range rows {
		if uid, ok := pairs[m.UID]; ok {
			b.came[uid] = m
		}
	}
}

// trashName is the mailbox that is the account's Trash, "" if there is none.
func (r *run) trashName() string {
	if r.trash == nil {
		return ""
	}
	return r.trash.Name
}

// arriving gives the tags of a mail that comes to a mailbox.
func (r *run) arriving(b *box, flags []string, by plan.Arrival) (add, remove []string) {
	return r.Arriving(b.Name, r.trashName(), flags, b.add, b.remove, by)
}

// untag takes the tag off messages that are not deleted after all.
func (w *worker) untag(ctx context.Context, b *box, rows []ledger.Message) error {
	if w.DeletedTag == "" || len(rows) == 0 {
		return nil
	}
	changes := make([]mail.Change, len(rows))
	for i, m := range rows {
		name, _, err := b.find(m.Key, m.Name)
		if err != nil {
			return err
		}
		if name == "" {
			name = m.Name
		}
		changes[i] = mail.Change{Op: mail.OpFlag, Path: b.path(name), ID: m.ID, Remove: []string{w.DeletedTag}}
	}
	if err := w.line.Tell(ctx, changes); err != nil {
		return err
	}
	w.step("tags taken off")
	return nil
}
