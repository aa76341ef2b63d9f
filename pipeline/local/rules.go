package local

import (
	"context"
	"maps"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// applyRules finds what tags order of the messages that changed: that a mail goes to another
// mailbox, or that it is deleted. A database that was made anew, or restored, lacks tags that
// nobody took off. done is false where it is to be looked for again.
func (r *Reader) applyRules(ctx context.Context, all []View, tagged []mail.Tagged, trash string, rebuilt bool) (done bool, err error) {
	if r.Tags.RulesFingerprint() == "" {
		return true, nil
	}
	folders, done := byFolder(all, tagged)
	for v, byKey := range folders {
		if v.Doubt != "" && !r.Believed(v.Name) {
			done = false // once it is believed
			continue
		}
		ordered, err := r.orders(ctx, v, byKey, trash, rebuilt)
		if err != nil {
			return false, err
		}
		done = done && ordered
	}
	return done, nil
}

// ordered is what a message's tags order: to what mailbox it goes, or that it is deleted.
func (r *Reader) ordered(mailbox, trash string, tags []string, rebuilt bool) (to string, deleted bool) {
	t := &r.Tags
	if t.DeletedTag != "" && slices.Contains(tags, t.DeletedTag) {
		// What is in the Trash has the tag since it was put there.
		return "", r.Deletions != plan.DeletionsKeep && (r.Deletions != plan.DeletionsTrash || trash != mailbox)
	}
	i := slices.IndexFunc(t.Moves, func(m plan.MoveRule) bool { return m.Holds(mailbox, tags) && (m.With != "" || !rebuilt) })
	if i < 0 || r.Restore || slices.Contains(tags, plan.TagNew) && slices.Contains(t.NewTags, plan.TagNew) {
		return "", false
	}
	return t.Moves[i].To, false
}

// DeletedByTag tells whether a mail of a mailbox is deleted for its tags.
func (r *Reader) DeletedByTag(mailbox, trash string, t mail.Tagged) (bool, error) {
	if _, deleted := r.ordered(mailbox, trash, t.Tags, false); !deleted {
		return false, nil
	}
	return oneMail(t)
}

// orders finds what is ordered of the messages of one mailbox, by the keys of their files.
func (r *Reader) orders(ctx context.Context, v *View, byKey map[string]mail.Tagged, trash string, rebuilt bool) (done bool, err error) {
	rows, err := r.Ledger.Rows(ctx, v.Name, v.Known.UIDValidity)
	if err != nil {
		return false, err
	}
	done = true
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
		to, deleted := r.ordered(v.Name, trash, t.Tags, rebuilt)
		if !deleted && to == "" {
			continue
		}
		same, err := oneMail(t)
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
	return done, r.take(ctx, v, orders)
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

// oneMail tells whether all files of a message are the same mail. notmuch joins them
// by their Message-ID alone, which any sender can copy from a mail that is here: what
// is said of the one would then be done to the other.
func oneMail(t mail.Tagged) (bool, error) {
	files := slices.Concat(t.Paths, t.Others)
	if len(files) < 2 {
		return true, nil
	}
	var first *mail.Content
	for _, path := range files {
		c, err := maildir.Content(path)
		switch {
		case err != nil:
			return false, err
		case c == nil: // its file is gone
		case first == nil:
			first = c
		case !first.Is(c):
			return false, nil
		}
	}
	return true, nil
}
