package push

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// What a move has changed is recorded when the server's answer is read. From then on
// the row of the mailbox that the mail came from is no evidence any more: whatever
// becomes of the file, it is that of the new message.

// newMove is a move of messages of b. keys are the files that were moved here.
func (p *Pusher) newMove(b *Mailbox, verb string, rows []ledger.Message, to *Mailbox, keys map[imap.UID]string) *journal.Moving {
	m := &journal.Moving{
		Mailbox: b.Name, UIDValidity: b.Known.UIDValidity, UIDs: ledger.UIDs(rows), To: to.Name, ToValidity: to.Known.UIDValidity, ToNext: to.Known.UIDNext,
		Verb: verb, Deleted: p.trashFor(b) == to.Name, Files: make(map[imap.UID]journal.Arrival), At: p.Now().UTC(),
	}
	m.ByTags = keys == nil && !m.Deleted
	stood := make(map[string]bool) // files of the target that were here before the first sync
	for _, f := range to.Local.Untracked {
		stood[f.Key] = p.stood(f)
	}
	for _, row := range rows {
		if b.missingHere(row.UID) {
			m.Absent = append(m.Absent, row.UID)
		}
		if key := keys[row.UID]; key != "" {
			a := journal.Arrival{Row: row, From: row, Next: m.ToNext}
			a.Here = stood[key]
			a.Row.Mailbox, a.Row.UIDValidity, a.Row.UID, a.Row.Key, a.Row.Name = to.Name, m.ToValidity, 0, key, ""
			a.Row.Flags = p.did.Stored[b.Name][row.UID].Merged(row.Flags)
			m.Files[row.UID] = a
		}
	}
	return m
}

// intendMove records a move that is about to be asked for.
func (p *Pusher) intendMove(ctx context.Context, m *journal.Moving, rows []ledger.Message, to *Mailbox) error {
	var c journal.Change
	if to.Known.UIDValidity != 0 { // else it is not synchronised
		p.Journal.Uploading.Put(&c, to.Name, to.since())
	}
	if m.Deleted {
		m.Tags = p.tagsOf(ctx, m, rows)
	}
	p.Journal.Moving.Put(&c, m.Mailbox, *m)
	begin(&c, p.moving(ctx, m, rows, to))
	if m.ByTags {
		p.Ruled.Note(&c, rows, to.Name)
	}
	return p.commit(ctx, c, "move recorded")
}

// tagsOf gives the tags of those messages of a move that have no file any more. That they cannot be
// read keeps none from going.
func (p *Pusher) tagsOf(ctx context.Context, m *journal.Moving, rows []ledger.Message) map[imap.UID]journal.Tagged {
	var ids []string
	for _, row := range rows {
		if slices.Contains(m.Absent, row.UID) && row.ID != "" {
			ids = append(ids, row.ID)
		}
	}
	known, err := p.InNotmuch(ctx, ids)
	if err != nil {
		return nil
	}
	out := make(map[imap.UID]journal.Tagged)
	for _, row := range rows {
		if t, ok := known[row.ID]; ok && slices.Contains(m.Absent, row.UID) {
			out[row.UID] = t.Tags
		}
	}
	return out
}

// moveRefused takes the intent back, if nothing was moved, and tells whether it did: of
// several messages MOVE may have moved some (RFC 6851 3.3).
func (p *Pusher) moveRefused(ctx context.Context, m *journal.Moving) (back bool, err error) {
	if m.Verb == "MOVE" {
		left, err := p.conn.Session().Search(ctx, mail.UIDSet(m.UIDs))
		if err != nil || slices.ContainsFunc(m.UIDs, func(u imap.UID) bool { return !left.Contains(u) }) {
			return false, nil //nolint:nilerr // the next run finds out
		}
	}
	c := p.moveOver(m.Mailbox)
	for _, u := range m.UIDs {
		p.Ruled.Forget(&c, ledger.Message{Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: u})
	}
	return true, p.commit(ctx, c, "move done")
}

// moveOver is a change that forgets the move under way out of a mailbox.
func (p *Pusher) moveOver(mailbox string) (c journal.Change) {
	p.Journal.Moving.Forget(&c, mailbox)
	return c
}

// moveAnswered records what the server has moved, or copied if it is to be expunged
// yet. to has the new UIDs, as far as they are known. unmoved are messages that a move was to move
// which was interrupted, and that it has not.
func (p *Pusher) moveAnswered(ctx context.Context, b *Mailbox, m *journal.Moving, rows []ledger.Message, to map[imap.UID]imap.UID, unmoved ...imap.UID) error {
	c := p.moveOver(m.Mailbox)
	for _, row := range rows {
		a, moved := m.Files[row.UID]
		if moved {
			a.Row.UID = to[row.UID]
			p.Arrivals.Note(&c, a)
			if err := p.Old.Follow(ctx, &c, a.From, a.Row); err != nil {
				return err
			}
		}
		switch {
		case m.Copied && moved:
			row.Key, row.Flags = "", a.Row.Flags // the file is that of the copy
			c.Save = append(c.Save, row)
		case !m.Copied && slices.Contains(m.Absent, row.UID):
			p.Line.Forget(&c, b.Mailbox, row, m.Tags[row.UID])
		}
	}
	if m.Copied {
		p.Journal.Moving.Put(&c, m.Mailbox, *m)
	} else {
		became(&c, mail.IsDone, "", kindOf(m), m.Mailbox, m.UIDValidity, ledger.UIDs(rows)...)
	}
	became(&c, mail.IsUndone, "that was interrupted before the server did it", kindOf(m), m.Mailbox, m.UIDValidity, unmoved...)
	return p.commit(ctx, c, "move answered")
}

// copiesExpunged ends a move by COPY. That the originals could not be expunged, since
// others are marked there, is an end, too.
func (p *Pusher) copiesExpunged(ctx context.Context, b *Mailbox, m *journal.Moving, rows []ledger.Message, expunged func(imap.UID) bool) error {
	c := p.moveOver(m.Mailbox)
	for _, row := range rows {
		said := ""
		if !expunged(row.UID) {
			said = "it was copied there, and could not be deleted where it was"
		}
		became(&c, mail.IsDone, said, kindOf(m), m.Mailbox, m.UIDValidity, row.UID)
		if expunged(row.UID) && slices.Contains(m.Absent, row.UID) {
			p.Line.Forget(&c, b.Mailbox, row, m.Tags[row.UID])
		}
	}
	return p.commit(ctx, c, "move done")
}
