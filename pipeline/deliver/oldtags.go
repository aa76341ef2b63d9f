package deliver

import (
	"context"
	"maps"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Orders is what tags order of the account's mail, and what of that was said before a file
// was there.
type Orders interface {
	// Ordering gives what of a message's tags orders something of its mail in a mailbox.
	Ordering(mailbox string, tags []string) plan.OldTags
	// Moving gives those by which a mail would be moved.
	Moving(old plan.OldTags) plan.OldTags
	// IsOrder tells whether a tag orders something, in any account.
	IsOrder(tag string) bool
	// Messages gives those of the messages with these ids, or of the files with these paths, that
	// notmuch knows: the paths of what is in the account's folder, and of what is not.
	Messages(ctx context.Context, ids []string) (map[string]mail.Tagged, error)
	// Of gives what is noted of a file, and Put lets a change note it.
	Of(ctx context.Context, mailbox, key string) (map[string]bool, bool, error)
	Put(c *journal.Change, mailbox, key string, tags map[string]bool)
}

// coming is a file that notmuch is about to hear of, as an item's.
type coming struct {
	it *Item
	at int // of its change
}

// messageID gives the id of the message that notmuch will find in an item's file; "" if that
// cannot be read, which notmuch will say.
func (it *Item) messageID(path string) string {
	switch {
	case it.ID != "":
		return it.ID
	case it.Row.ID != "" && it.Op != OpReplace: // else it is the stub's
		return it.Row.ID
	}
	head, err := maildir.ReadHeader(path, "Message-ID")
	if err != nil {
		return ""
	}
	id := head.MessageID()
	if id == "" {
		id, _ = maildir.MadeUpID(path)
	}
	return id
}

// noteOldTags notes, before notmuch hears of files, which tags order nothing of them: those that
// the files' messages have already, of other files. So it does of the files that are here, for
// tags that change with what comes. Where a message has files in other accounts, what comes here
// changes no tag by which something is ordered: nobody could note it there.
//
// Mail that was here before its mailbox, and that notmuch knows, its owner has tagged and put where it
// is: its tags change by its flags alone, and move it nowhere. What is deleted by them is so.
func (l *Line) noteOldTags(ctx context.Context, files []coming, changes []mail.Change) error {
	stands := func(f coming) bool { return f.it.IfKnown != nil }
	if l.Orders == nil || len(files) == 0 || !l.Ordered && !slices.ContainsFunc(files, stands) {
		return nil
	}
	ids, paths := make([]string, len(files)), make([]string, len(files))
	for i, f := range files {
		paths[i] = changes[f.at].Path
		ids[i] = f.it.messageID(paths[i])
	}
	known, err := l.Orders.Messages(ctx, mail.Asking(ids, paths))
	if err != nil {
		return err
	}
	var c journal.Change
	for i, f := range files {
		id := ids[i]
		if id == "" {
			continue
		}
		t, is := mail.Answer(known, id, paths[i])
		change := &changes[f.at]
		stood := is && stands(f) && (f.it.Known || f.it.Op == OpPreindex || f.it.isCopy(t))
		if stood {
			change.Add, change.Remove = f.it.IfKnown.Add, f.it.IfKnown.Remove
		}
		rows, err := l.Ledger.ByMessageID(ctx, id)
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(m ledger.Message) bool { return m.Key == "" || f.it.has(m) })
		if len(t.Others) > 0 {
			change.Add = slices.DeleteFunc(slices.Clone(change.Add), l.ordersElsewhere)
			change.Remove = slices.DeleteFunc(slices.Clone(change.Remove), l.ordersElsewhere)
		}
		after := slices.Concat(t.Tags, change.Add)
		if !is {
			after = append(after, change.New...)
		}
		after = slices.DeleteFunc(after, func(tag string) bool { return slices.Contains(change.Remove, tag) })
		old, noted, err := l.Orders.Of(ctx, f.it.Row.Mailbox, f.it.Row.Key)
		if err != nil {
			return err
		}
		was := maps.Clone(old)
		// A file that was here is judged once: what its owner says after a stop is said of it, too.
		follows := f.it.follows(t, rows)
		judged := (stood || follows) && (!noted || !f.it.Known && f.it.Op != OpPreindex)
		if judged {
			old = l.Orders.Ordering(f.it.Row.Mailbox, after)
			if !follows {
				old = l.Orders.Moving(old)
			}
			maps.Copy(old, was)
		}
		for _, tag := range slices.Concat(change.Add, change.Remove) {
			delete(old, tag) // it is said of this one
		}
		if judged || len(old) < len(was) {
			l.Orders.Put(&c, f.it.Row.Mailbox, f.it.Row.Key, old)
		}
		for _, m := range rows {
			changed := l.Orders.Ordering(m.Mailbox, after)
			maps.DeleteFunc(changed, func(tag string, on bool) bool { return slices.Contains(t.Tags, tag) == on })
			if len(changed) == 0 {
				continue
			}
			old, _, err := l.Orders.Of(ctx, m.Mailbox, m.Key)
			if err != nil {
				return err
			}
			for tag, on := range old {
				if _, again := changed[tag]; !again {
					changed[tag] = on
				}
			}
			l.Orders.Put(&c, m.Mailbox, m.Key, changed)
		}
		// The next one of this message finds it so.
		t.Tags, t.Paths = after, append(t.Paths, change.Path)
		known[id] = t
	}
	if c.Empty() {
		return nil
	}
	return l.commit(ctx, c, "old tags noted")
}

// ordersElsewhere tells whether a tag may order something of another account's mail. Those of
// flags are as the files' names have them.
func (l *Line) ordersElsewhere(tag string) bool {
	return l.Orders.IsOrder(tag) && !plan.OfFlag(tag)
}

// has tells whether a row's file is the item's.
func (it *Item) has(m ledger.Message) bool {
	return m.Mailbox == it.Row.Mailbox && (m.Key == it.Row.Key || m.UID == it.Row.UID && m.UIDValidity == it.Row.UIDValidity)
}

// follows tells whether an item's file comes to a message that was tagged before.
func (it *Item) follows(t mail.Tagged, rows []ledger.Message) bool {
	if len(t.Others) > 0 {
		return true
	}
	switch it.Beside {
	case BesideAny:
		return it.isCopy(t)
	case BesideRecorded:
		return slices.ContainsFunc(rows, func(m ledger.Message) bool { return m.State == ledger.Present })
	default:
		return false
	}
}

// isCopy tells whether notmuch knows a message by other files than the item's own, of which it may
// have heard by an earlier part of the run.
func (it *Item) isCopy(t mail.Tagged) bool {
	return len(t.Others) > 0 || slices.ContainsFunc(t.Paths, func(path string) bool {
		key, _ := maildir.ParseName(path)
		return key != it.Row.Key && key != it.Row.StubKey
	})
}
