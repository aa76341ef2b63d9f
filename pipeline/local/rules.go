package local

import (
	"context"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// applyRules finds what tags order of the messages that changed: that a mail goes to another
// mailbox, or that it is deleted. done is false where it is to be looked for again.
func (r *Reader) applyRules(ctx context.Context, d *database, all []View, tagged []mail.Tagged, trash string) (done bool, err error) {
	if !r.Tags.HasRules() {
		return true, nil
	}
	folders, done := byFolder(all, tagged)
	for v, byKey := range folders {
		if v.Doubt != "" && !r.Believed(v.Name) {
			done = false // once it is believed
			continue
		}
		ordered, err := r.orders(ctx, d, v, byKey, trash)
		if err != nil {
			return false, err
		}
		done = done && ordered
	}
	return done, nil
}

// ordered is what a message's tags order of a file: to what mailbox it goes, or that it is
// deleted. old are those of its tags that were said of other files.
func (r *Reader) ordered(mailbox, trash string, tags []string, old plan.OldTags) (to string, deleted bool) {
	to, deleted = r.Tags.Ordered(mailbox, trash, r.Deletions, tags, old)
	if r.Restore {
		to = ""
	}
	return to, deleted
}

// DeletedByTag tells whether a mail that was here before its mailbox is deleted for its tags: of
// several files nobody knows which was meant.
func (r *Reader) DeletedByTag(mailbox, trash string, t mail.Tagged) bool {
	_, deleted := r.ordered(mailbox, trash, t.Tags, nil)
	return deleted && len(t.Paths)+len(t.Others) == 1
}

// orders finds what is ordered of the messages of one mailbox, by the keys of their files.
func (r *Reader) orders(ctx context.Context, d *database, v *View, byKey map[string]mail.Tagged, trash string) (done bool, err error) {
	rows, err := r.Ledger.Rows(ctx, v.Name, v.Known.UIDValidity)
	if err != nil {
		return false, err
	}
	done = true
	orders := make(map[imap.UID]string)
	var over journal.Change
	have := 0
	for _, row := range rows {
		if row.State != ledger.Present || row.Key == "" {
			continue
		}
		have++
		t, ok := byKey[row.Key]
		if !ok || d.unseen(v, row.UID) {
			continue
		}
		old, err := r.oldTags(ctx, &over, v.Name, row.Key, t.Tags)
		if err != nil {
			return false, err
		}
		to, deleted := r.ordered(v.Name, trash, t.Tags, old)
		if !deleted && to == "" || deleted && plan.HasFlag(row.Flags, `\Deleted`) {
			continue
		}
		same, err := maildir.OneMail(slices.Concat(t.Paths, t.Others))
		if err != nil {
			r.Report.Note(v.Name, "UID %d: its tags want it moved or deleted, but it cannot be told whether all its files are one mail: %v; it stays where it is", row.UID, err)
			done = false // until they can be read
			continue
		}
		if !same {
			r.Report.Note(v.Name, "UID %d: its tags want it moved or deleted, but another mail has the same Message-ID (notmuch search --output=files id:%s), "+
				"and notmuch has one set of tags for both; it stays where it is: move or delete its file", row.UID, t.ID)
			continue
		}
		orders[row.UID] = to
	}
	if v.Have == 0 {
		v.Have = have
	}
	if !over.Empty() && !r.DryRun {
		if err := r.record(ctx, over, "old tags that changed forgotten"); err != nil {
			return false, err
		}
	}
	return done, r.take(ctx, v, orders)
}

// oldTags gives those tags that order nothing of a file, since they were said of others before
// it was there. One that was changed since may be given again, and counts then: that is put
// into over.
func (r *Reader) oldTags(ctx context.Context, over *journal.Change, mailbox, key string, tags []string) (plan.OldTags, error) {
	old, noted, err := r.Old.Of(ctx, mailbox, key)
	if err != nil || !noted {
		return old, err
	}
	still := plan.OldTags(old).Still(tags)
	if r.Rules {
		still = r.Tags.Deleting(still)
	}
	if len(still) < len(old) && !r.DryRun {
		if r.Old.Put(over, mailbox, key, still); len(still) == 0 {
			r.Old.Recorded(over, []ledger.Message{{Mailbox: mailbox, Key: key}})
		}
	}
	return still, nil
}

// take notes what is ordered of messages of a mailbox: where they go to, or ""
// that they are deleted. What the user did to their files comes first.
func (r *Reader) take(ctx context.Context, b *View, orders map[imap.UID]string) error {
	for _, m := range b.Marked {
		delete(orders, m.UID)
	}
	rows, err := r.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(orders)))
	if err != nil {
		return err
	}
	for _, m := range rows {
		if _, here, err := b.Dir.Locate(m.Key, m.Name); err != nil {
			return err
		} else if !here {
			continue
		}
		to := orders[m.UID]
		if to == "" {
			b.Marked = append(b.Marked, m)
			continue
		}
		if b.Tagged == nil {
			b.Tagged = make(map[string][]ledger.Message)
		}
		b.Tagged[to] = append(b.Tagged[to], m)
	}
	return nil
}
