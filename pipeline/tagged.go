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
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
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

// obey finds what tags order of the messages that changed. A database that was
// made anew, or restored, lacks tags that nobody took off.
func (r *run) obey(ctx context.Context, boxes []*box, tagged []mail.Tagged, rebuilt bool) error {
	if r.RulesFingerprint() == "" {
		return nil
	}
	order := func(b *box, tags []string) (to string, deleted bool) {
		if r.DeletedTag != "" && slices.Contains(tags, r.DeletedTag) {
			// What is in the Trash has the tag since it was put there.
			return "", r.Deletions != DeletionsKeep && (r.Deletions != DeletionsTrash || r.trashFor(b) != nil || r.trash == nil)
		}
		i := slices.IndexFunc(r.Moves, func(m Move) bool { return m.Holds(b.Name, tags) && (m.With != "" || !rebuilt) })
		if i < 0 || r.Restore || slices.Contains(tags, plan.TagNew) && slices.Contains(r.NewTags, plan.TagNew) {
			return "", false
		}
		return r.Moves[i].To, false
	}
	for b, byKey := range r.byBox(boxes, tagged) {
		if b.local.Doubt != "" && !r.yes(b.Name) {
			r.tags = mail.Revision{} // once it is believed
			continue
		}
		rows, err := r.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
		if err != nil {
			return err
		}
		orders := make(map[imap.UID]string)
		have := 0
		for _, row := range rows {
			if row.State != ledger.Present || row.Key == "" {
				continue
			}
			have++
			t, ok := byKey[row.Key]
			if !ok || plan.HasFlag(row.Flags, `\Deleted`) {
				continue
			}
			to, deleted := order(b, t.Tags)
			if !deleted && to == "" {
				continue
			}
			same, err := oneMail(t)
			if err != nil {
				r.note(b, "UID %d: its tags want it moved or deleted, but it cannot be told whether all its files are one mail: %v; it stays where it is", row.UID, err)
				r.tags = mail.Revision{} // until they can be read
				continue
			}
			if !same {
				r.note(b, "UID %d: its tags want it moved or deleted, but another mail has the same Message-ID (notmuch search --output=files id:%s), "+
					"and notmuch has one set of tags for both; it stays where it is: move or delete its file", row.UID, t.ID)
				continue
			}
			orders[row.UID] = to
		}
		if b.local.Have == 0 {
			b.local.Have = have
		}
		if err := r.take(ctx, b, orders); err != nil {
			return err
		}
	}
	return nil
}

// take notes what is ordered of messages of a mailbox: where they go to, or ""
// that they are deleted. What the user did to their files comes first.
func (r *run) take(ctx context.Context, b *box, orders map[imap.UID]string) error {
	for _, m := range b.local.Marked {
		delete(orders, m.UID)
	}
	rows, err := r.Ledger.GetMany(ctx, b.Name, b.known.UIDValidity, slices.Collect(maps.Keys(orders)))
	if err != nil {
		return err
	}
	for _, m := range rows {
		if _, here, err := b.find(m.Key, m.Name); err != nil {
			return err
		} else if !here {
			continue
		}
		to := orders[m.UID]
		if to == "" {
			b.local.Marked = append(b.local.Marked, m)
			continue
		}
		if b.local.Tagged == nil {
			b.local.Tagged = make(map[string][]ledger.Message)
		}
		b.local.Tagged[to] = append(b.local.Tagged[to], m)
		r.target(to, b.Delim)
	}
	return nil
}

// target sees to it that there is a mailbox to move mail to.
func (r *run) target(name string, delim rune) {
	known := func(b *box) bool { return b.Name == name }
	if r.listed[name] || slices.ContainsFunc(r.fresh, known) || len(r.Only) > 0 || r.Selects != nil && !r.Selects(name, delim) {
		return
	}
	folder, err := maildir.Folder(name, delim)
	if err != nil {
		return // the server is asked all the same
	}
	r.fresh = append(r.fresh, r.newBox(mail.Mailbox{Name: name, Delim: delim}, ledger.Mailbox{Folder: folder}))
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

// arriving gives the tags of a mail that comes to a mailbox.
func (r *run) arriving(b *box, flags []string, by plan.Arrival) (add, remove []string) {
	trash := ""
	if r.trash != nil {
		trash = r.trash.Name
	}
	return r.Arriving(b.Name, trash, flags, b.add, b.remove, by)
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
	if err := w.tell(ctx, changes); err != nil {
		return err
	}
	w.step("tags taken off")
	return nil
}
