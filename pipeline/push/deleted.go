package push

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// trashFor gives the mailbox that deleted messages of b go to; "" if they are
// expunged, or if there is none.
func (p *Pusher) trashFor(b *Mailbox) string {
	if p.Deletions != plan.DeletionsTrash || p.trash == b.Name {
		return ""
	}
	return p.trash
}

// mailbox gives the one that mail goes to, which need not be synchronised.
func (p *Pusher) mailbox(name string) *Mailbox {
	if b := p.boxes[name]; b != nil {
		return b
	}
	return &Mailbox{Mailbox: deliver.NewMailbox(name, "", nil, nil)}
}

// pushDeleted deletes messages on the server whose files were deleted here.
func (p *Pusher) pushDeleted(ctx context.Context, b *Mailbox, rows []ledger.Message) error {
	rows, err := p.stillWanted(ctx, b, rows)
	if err != nil || len(rows) == 0 {
		return err
	}
	if err := p.trashless(len(rows)); err != nil {
		return err
	}
	p.sayDeleted(b, len(rows))
	if trash := p.trashFor(b); trash != "" {
		_, err = p.transfer(ctx, b, rows, p.mailbox(trash), nil)
	} else {
		err = p.expungeParts(ctx, b, rows)
	}
	p.Report.Tally(func(r *report.Report) { r.Deleted += done(err, len(rows)) })
	return err
}

// trashless is why so many messages that were deleted here cannot be, where there is no Trash.
func (p *Pusher) trashless(n int) error {
	if n == 0 || p.Deletions != plan.DeletionsTrash || p.trash != "" {
		return nil
	}
	return notPushedf("push", "%s deleted here, and the account has no Trash to move them to: name it in the configuration (trash = \"...\"), "+
		"or say there deletions = \"expunge\" or \"keep\"; nothing was deleted on the server", mail.Number(n, "message was", "messages were"))
}

// stillWanted takes those out of what was deleted here that somebody changed on
// the server meanwhile: they are kept, and come again.
func (p *Pusher) stillWanted(ctx context.Context, b *Mailbox, rows []ledger.Message) ([]ledger.Message, error) {
	rows, kept, err := p.changedThere(ctx, b, rows)
	if err != nil || len(kept) == 0 {
		return rows, err
	}
	return rows, p.fetchAgain(ctx, b, kept)
}

// changedThere tells what was deleted here, and is still on the server, from what
// somebody changed there meanwhile, as who marks it unread. That it was read is no such
// change, nor that it was marked for deletion.
func (p *Pusher) changedThere(ctx context.Context, b *Mailbox, rows []ledger.Message) (wanted, kept []ledger.Message, err error) {
	rows, err = p.sameMessages(ctx, b, rows)
	if err != nil || len(rows) == 0 {
		return nil, nil, err
	}
	now, err := p.conn.Session().Flags(ctx, mail.UIDSet(ledger.UIDs(rows)), 0)
	if err != nil {
		return nil, nil, err
	}
	flags := make(map[imap.UID][]string, len(now))
	for _, m := range now {
		if m.Flags != nil {
			flags[m.UID] = m.Flags
		}
	}
	moot := func(f string) bool { return strings.EqualFold(f, `\Seen`) || strings.EqualFold(f, `\Deleted`) }
	for _, m := range rows {
		is, there := flags[m.UID]
		was := p.did.Stored[b.Name][m.UID].Merged(plan.AsTold(m.Flags, is, p.Told.Before()[b.Name][m.UID]))
		unread := plan.HasFlag(was, `\Seen`) && !plan.HasFlag(is, `\Seen`)
		switch {
		case !there: // gone from the server, too
		case unread:
			kept = append(kept, m)
		case plan.SameFlags(slices.DeleteFunc(slices.Clone(is), moot), slices.DeleteFunc(was, moot)):
			wanted = append(wanted, m)
		default:
			kept = append(kept, m)
		}
	}
	if len(kept) > 0 {
		p.Report.Note(b.Name, "%s deleted here and changed on the server meanwhile: kept", mail.Number(len(kept), "message was", "messages were"))
	}
	return wanted, kept, nil
}

// fetchAgain lets messages come again that are not here any more. One that is
// here, marked with T or by its tag, loses the mark.
func (p *Pusher) fetchAgain(ctx context.Context, b *Mailbox, rows []ledger.Message) error {
	if err := p.untag(ctx, b, rows); err != nil {
		return err
	}
	var gone []imap.UID
	var c journal.Change // the files that notmuch knows of them are gone
	for _, m := range rows {
		name, ok, err := b.Dir.Locate(m.Key, "")
		if err != nil {
			return err
		}
		if !ok {
			gone = append(gone, m.UID)
			p.Line.Forget(&c, b.Mailbox, m, nil)
			continue
		}
		if err := b.Dir.Rename(name, maildir.WithFlags(name, "", "T")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		b.Local.Marked = slices.DeleteFunc(b.Local.Marked, func(l ledger.Message) bool { return l.UID == m.UID })
		p.Report.Step("mark taken off")
	}
	if len(gone) == 0 {
		return nil
	}
	if err := p.commit(ctx, c, "forgotten files noted"); err != nil {
		return err
	}
	return p.incomplete(ctx, b, gone...)
}

// incomplete lets the look compare the mailbox as a whole, and these messages come
// again: at once, since of what is not here the look would take the changes that
// kept it for agreed.
func (p *Pusher) incomplete(ctx context.Context, b *Mailbox, again ...imap.UID) error {
	b.Look, b.Incomplete, b.Known.Complete = true, true, false
	b.Local.Missing = slices.DeleteFunc(b.Local.Missing, func(m ledger.Message) bool { return slices.Contains(again, m.UID) })
	row := ledger.Mailbox{Name: b.Name, Folder: b.Known.Folder, Delim: b.Listed.Delim, UIDValidity: b.Known.UIDValidity}
	c := journal.Change{Mailbox: &row}
	for _, uid := range again {
		c.Forget = append(c.Forget, ledger.Message{Mailbox: b.Name, UIDValidity: b.Known.UIDValidity, UID: uid})
	}
	return p.commit(ctx, c, "mailbox recorded")
}

// untag takes the tag off messages that are not deleted after all.
func (p *Pusher) untag(ctx context.Context, b *Mailbox, rows []ledger.Message) error {
	if p.Tags.DeletedTag == "" || len(rows) == 0 {
		return nil
	}
	changes := make([]mail.Change, len(rows))
	for i, m := range rows {
		name, _, err := b.Dir.Locate(m.Key, m.Name)
		if err != nil {
			return err
		}
		if name == "" {
			name = m.Name
		}
		changes[i] = mail.Change{Op: mail.OpFlag, Path: b.Dir.Path(name), ID: m.ID, Remove: []string{p.Tags.DeletedTag}}
	}
	if err := p.Line.Tell(ctx, changes); err != nil {
		return err
	}
	p.Report.Step("tags taken off")
	return nil
}

// expungeParts deletes messages for good, and records what became of that: those whose files are
// not here have no row any more, or, where they could not be expunged, one without a file.
func (p *Pusher) expungeParts(ctx context.Context, b *Mailbox, rows []ledger.Message) error {
	return inParts(p, rows, uidOf, func(part []ledger.Message) error {
		missing := make(map[imap.UID]bool) // an end without an EXPUNGE takes them out of what is missing
		for _, row := range part {
			missing[row.UID] = b.missingHere(row.UID)
		}
		var c journal.Change
		begin(&c, p.deleting(ctx, b, part))
		if err := p.commit(ctx, c, "deletions about to be told"); err != nil {
			return err
		}
		gone, err := p.expunge(ctx, b, ledger.UIDs(part))
		if err != nil {
			return err
		}
		c = journal.Change{}
		for _, row := range part {
			switch {
			case !missing[row.UID]:
			case gone:
				p.Line.Forget(&c, b.Mailbox, row, nil)
			case row.Key != "":
				row.Key, row.Name = "", ""
				row.Flags = plan.Delta{Add: []string{`\Deleted`}}.Merged(row.Flags)
				c.Save = append(c.Save, row)
			}
		}
		said := ""
		if !gone {
			said = "it is marked \\Deleted there, and not expunged, since others are marked, too"
		}
		became(&c, mail.IsDone, said, mail.ActDelete, b.Name, b.Known.UIDValidity, ledger.UIDs(part)...)
		return p.commit(ctx, c, "deletions recorded")
	})
}
