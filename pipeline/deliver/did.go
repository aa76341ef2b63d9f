package deliver

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Brief says who wrote the mail of an item's file, and what about; "" where that is not there.
func (it *Item) Brief() (who, what string) {
	if name, ok, err := it.Box.Dir.Locate(it.key(), it.name()); err == nil && ok {
		return maildir.Brief(it.Box.Dir.Path(name))
	}
	return "", ""
}

// Removal is what would be done to the file of a message that is gone.
func Removal(it *Item) mail.Action {
	it.Who, it.What = it.Brief()
	return removal(it)
}

// removal is what is done to the file of a message that is gone.
func removal(it *Item) mail.Action {
	a := journal.ActionOf(mail.ActRemove, it.Row)
	a.From, a.Subject, a.Before, a.Why = it.Who, it.What, it.Row.Flags, "the server lists it no more"
	a.Attic = it.kept
	switch {
	case it.Row.State == ledger.Stub || it.Row.State == ledger.Skipped:
		a.Why += "; it was a stub"
	case it.Known && !it.Resumed:
		a.Why = "it left the mailbox on the server as was wanted here"
	}
	return a
}

// Removing says in the log that the files of messages that are gone are about to be removed: when they
// are, nothing tells any more who did it, nor, of what goes to the attic, which tags it had.
func (l *Line) Removing(ctx context.Context, items ...*Item) error {
	var c journal.Change
	var ids []string
	for _, it := range items {
		if it.kept && it.Row.ID != "" {
			ids = append(ids, it.Row.ID)
		}
	}
	var known map[string]mail.Tagged
	if len(ids) > 0 && l.Orders != nil {
		var err error
		if known, err = l.Orders.Messages(ctx, ids); err != nil {
			return err
		}
	}
	for _, it := range items {
		if it.Op != OpGone || it.Forgotten() {
			continue
		}
		name, ok, err := it.Box.Dir.Locate(it.key(), it.name())
		if err != nil {
			return err
		}
		if ok {
			it.began = true
			it.Who, it.What = maildir.Brief(it.Box.Dir.Path(name))
			it.tags = known[it.Row.ID].Tags
			a := removal(it)
			a.Tags = it.tags
			c.Begin(a)
		}
	}
	if c.Empty() {
		return nil
	}
	return l.commit(ctx, c, "removal about to be done")
}

// stays lets a change say that the file of a message stays that was about to be removed.
func (it *Item) stays(c *journal.Change, why string) {
	if it.kept = false; it.began {
		c.Became(mail.IsUndone, why, removal(it))
	}
}

// Stays says in the log that such a file stays, and why.
func (l *Line) Stays(ctx context.Context, it *Item, why error) error {
	var c journal.Change
	if it.stays(&c, why.Error()); c.Empty() {
		return nil
	}
	return l.commit(ctx, c, "file left noted")
}

// did lets the change that records an item say what was done here. row is as it is recorded, or was,
// and tags are those that go with a mail. What this run, or an interrupted one, has told the server
// was said before.
func (l *Line) did(c *journal.Change, it *Item, row ledger.Message, tags []string) {
	a := journal.ActionOf("", row)
	a.From, a.Subject = it.Who, it.What
	ours := it.Known && !it.Resumed
	switch it.Op {
	case OpAdd:
		switch {
		case it.Paired:
			a.Kind, a.Why = mail.ActPair, "its mail is the same"
		case ours || it.Ours:
			return
		case it.Linked:
			a.Kind, a.Other, a.Why = mail.ActLink, it.Source, "it was moved or copied on the server, and is here already"
			if !it.Resumed {
				a.Before, a.After = it.Was, row.Flags
			}
		default:
			a.Kind, a.Why, a.Digest = mail.ActFetch, "it is new on the server", ""
		}
		if !it.Paired && it.Box.Ours[row.UID] { // what is paired may come before these are known
			a.Why = "it was moved there as was wanted here"
		}
	case OpReplace:
		if ours {
			return
		}
		a.Kind, a.Why = mail.ActHeal, "it came at last"
	case OpStub:
		a.Kind, a.Why = mail.ActStub, row.Reason
	case OpPlaceholder:
		a.Kind, a.Why = mail.ActSkip, row.Reason
	case OpFlag:
		if it.Known {
			return
		}
		a.Kind, a.Before, a.After, a.Why = mail.ActFlag, it.Was, row.Flags, "they were changed on the server"
	case OpGone:
		if it.Forgotten() || ours && !it.began {
			return
		}
		if a = removal(it); tags == nil {
			tags = it.tags
		}
		a.Tags = tags
	default:
		return
	}
	if a.From+a.Subject == "" && (it.Linked || it.Op == OpFlag || it.Op == OpStub || it.Resumed) {
		a.From, a.Subject = it.Brief()
	}
	c.Did(a)
}
