package push

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

// What the server is told is an action of each message. The log has it with the note of what is
// about to be told, and what became of it with the record of that: in the same transaction each,
// so that whatever stops a run, the log says what was done, and of what nobody knows whether it was.

// mostRead is of how many mails at once the headers are read, which may have to come from the disk.
// Of more, notmuch is asked, which has just had them at hand.
const mostRead = 50

// written is an action, and the file of its mail, if that is here.
type written struct {
	mail.Action
	in        *Mailbox
	key, name string // "": there is none
}

// brief says of an action whose mail it is about, by its file.
func (w *written) brief() {
	if w.key == "" || w.in == nil {
		return
	}
	if name, ok, err := w.in.Dir.Locate(w.key, w.name); err == nil && ok {
		w.From, w.Subject = maildir.Brief(w.in.Dir.Path(name))
	}
}

// about says of actions whose mails they are about: by their files, else by what notmuch has yet.
func (p *Pusher) about(ctx context.Context, ws ...written) []mail.Action {
	if len(ws) > mostRead {
		p.remembered(ctx, ws)
	}
	for i := range ws {
		if w := &ws[i]; w.From+w.Subject == "" {
			w.brief()
		}
	}
	p.remembered(ctx, ws)
	out := make([]mail.Action, len(ws))
	for i, w := range ws {
		out[i] = w.Action
	}
	return out
}

// storing is what is done to the flags of the messages of a mailbox.
func (p *Pusher) storing(ctx context.Context, b *Mailbox, rows []ledger.Message) []mail.Action {
	var out []written
	known := make(map[imap.UID]bool)
	for _, row := range rows {
		known[row.UID] = true
	}
	for _, uid := range slices.Sorted(maps.Keys(b.Local.Flags)) {
		if d := b.Local.Flags[uid]; !known[uid] { // a dry run may know some of no row yet
			out = append(out, written{Action: mail.Action{
				Kind: mail.ActStore, Mailbox: b.Name, UIDValidity: b.Known.UIDValidity, UID: uid, Before: d.Remove, After: d.Add, Why: "they were changed here",
			}})
		}
	}
	for _, row := range rows {
		if d, ok := b.Local.Flags[row.UID]; ok {
			w := b.written(mail.ActStore, row)
			w.Before, w.After, w.Why = row.Flags, d.Merged(row.Flags), "they were changed here"
			out = append(out, w)
		}
	}
	return p.about(ctx, out...)
}

// moving is what is done to messages of a move.
func (p *Pusher) moving(ctx context.Context, m *journal.Moving, rows []ledger.Message, to *Mailbox) []mail.Action {
	b, why := p.mailbox(m.Mailbox), "its tags want it there"
	if !m.ByTags {
		why = "its file was moved to that folder here"
	}
	names := make(map[string]string)
	for _, f := range to.Local.Untracked {
		names[f.Key] = f.Name
	}
	var out []written
	for _, row := range rows {
		w := b.written(kindOf(m), row)
		w.Before, w.Other, w.Why = row.Flags, to.Name, why
		if key := m.Files[row.UID].Row.Key; m.Deleted {
			w.Why = b.deletedHow(row)
		} else if key != "" {
			w.Key = key
			w.in, w.key, w.name = to, key, names[key]
		}
		out = append(out, w)
	}
	return p.about(ctx, out...)
}

// deleting is what is done to messages that are deleted for good.
func (p *Pusher) deleting(ctx context.Context, b *Mailbox, rows []ledger.Message) []mail.Action {
	var out []written
	for _, row := range rows {
		w := b.written(mail.ActDelete, row)
		w.Before, w.Why = row.Flags, b.deletedHow(row)
		out = append(out, w)
	}
	return p.about(ctx, out...)
}

// sending is what is done with new files.
func (p *Pusher) sending(ctx context.Context, b *Mailbox, files []plan.Untracked) []mail.Action {
	var out []written
	for _, f := range files {
		w := written{journal.ActionOf(mail.ActUpload, f.Message), b, f.Key, f.Name}
		w.Mailbox, w.UIDValidity, w.UID, w.Why = b.Name, b.Known.UIDValidity, 0, "it is new here"
		if p.stood(f) {
			w.Why = "it was here before the first sync"
		}
		out = append(out, w)
	}
	return p.about(ctx, out...)
}

// written is what is done to a message of the mailbox, with its file, if that is in its folder.
func (b *Mailbox) written(kind mail.ActionKind, row ledger.Message) written {
	w := written{Action: journal.ActionOf(kind, row), in: b}
	if !b.missingHere(row.UID) {
		w.key, w.name = row.Key, row.Name
	}
	return w
}

// deletedHow says how a message was deleted here.
func (b *Mailbox) deletedHow(row ledger.Message) string {
	switch {
	case row.Key == "":
		return "it was copied to where it goes"
	case b.missingHere(row.UID):
		return "its file was deleted here"
	}
	return "it is marked as deleted here"
}

// remembered says of actions of which that is not known whose mail they are about, as far as notmuch
// knows it yet, and which tags it has.
func (p *Pusher) remembered(ctx context.Context, ws []written) {
	var ids []string
	unknown := func(w written) bool { return w.From+w.Subject == "" && w.ID != "" }
	for _, w := range ws {
		if unknown(w) {
			ids = append(ids, w.ID)
		}
	}
	if len(ids) == 0 || p.InNotmuch == nil {
		return
	}
	known, err := p.InNotmuch(ctx, ids)
	if err != nil {
		return // it keeps nothing from being done
	}
	for i, w := range ws {
		if t, ok := known[w.ID]; ok && unknown(w) {
			ws[i].From, ws[i].Subject = mail.Brief(t.From, t.Subject)
			if w.Kind == mail.ActDelete {
				ws[i].Tags = slices.Clone(t.Tags)
			}
		}
	}
}

// begin lets a change say of what is about to be done.
func begin(c *journal.Change, as []mail.Action) {
	for _, a := range as {
		c.Begin(a)
	}
}

// became lets a change say what became of what was begun with messages of a mailbox.
func became(c *journal.Change, o mail.Outcome, said string, kind mail.ActionKind, mailbox string, uidValidity uint64, uids ...imap.UID) {
	for _, u := range uids {
		c.Became(o, said, mail.Action{Kind: kind, Mailbox: mailbox, UIDValidity: uidValidity, UID: u})
	}
}

// kindOf is what is done to the messages of a move.
func kindOf(m *journal.Moving) mail.ActionKind {
	if m.Deleted {
		return mail.ActDelete
	}
	return mail.ActMove
}

// sent lets a change say what became of a file that was given to the server.
func sent(c *journal.Change, o mail.Outcome, said, mailbox, key string) {
	c.Became(o, said, mail.Action{Kind: mail.ActUpload, Mailbox: mailbox, Key: key})
}

// plan says what a run would do with the messages of a mailbox, as the log would have it then.
func (p *Pusher) plan(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	rows, err := p.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(b.Local.Flags)))
	if err != nil {
		return err
	}
	if p.Restore {
		for _, row := range o.Restore {
			if _, here, err := b.Dir.Locate(row.Key, ""); err != nil || !here { // else it loses its mark
				p.Report.Plan(p.comes(ctx, b, row)...)
			}
		}
		for _, row := range rows {
			w := b.written(mail.ActFlag, row)
			w.Before, w.After, w.Why = b.Local.Flags[row.UID].Merged(row.Flags), row.Flags, "the server has them, and is right"
			p.Report.Plan(p.about(ctx, w)...)
		}
		for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
			for _, m := range o.Moves[to] {
				p.Report.Plan(p.backFrom(p.boxes[to], b, m))
			}
		}
		return nil
	}
	p.Report.Plan(p.storing(ctx, b, rows)...)
	for _, to := range slices.Sorted(maps.Keys(o.Moves)) {
		rows, keys := make([]ledger.Message, len(o.Moves[to])), make(map[imap.UID]string)
		for i, m := range o.Moves[to] {
			rows[i], keys[m.Row.UID] = m.Row, m.Key
		}
		p.Report.Plan(p.moving(ctx, p.newMove(b, "", rows, p.boxes[to], keys), rows, p.boxes[to])...)
	}
	leave := func(rows []ledger.Message, to *Mailbox) {
		if len(rows) > 0 {
			as := p.moving(ctx, p.newMove(b, "", rows, to, nil), rows, to)
			p.Report.Plan(as...)
			p.planArriving(b, as, to)
		}
	}
	if trash := p.trashFor(b); trash != "" {
		leave(o.Deleted, p.mailbox(trash))
	} else {
		as := p.deleting(ctx, b, o.Deleted)
		p.Report.Plan(as...)
		p.planArriving(b, as, nil)
	}
	for _, to := range slices.Sorted(maps.Keys(o.Tagged)) {
		leave(o.Tagged[to], p.mailbox(to))
	}
	p.Report.Plan(p.sending(ctx, b, o.Uploads)...)
	return nil
}

// planArriving says what a run would do here with messages that it has moved or deleted on the
// server: those whose file is here are linked to where they went (nil: nowhere), and the others
// fetched, unless they are here in another mailbox, too, which shows when the server has moved them.
func (p *Pusher) planArriving(b *Mailbox, as []mail.Action, to *Mailbox) {
	known := to != nil && p.boxes[to.Name] != nil && !to.Aside
	for _, a := range as {
		here := !b.missingHere(a.UID)
		if known {
			came := a
			came.Kind, came.Mailbox, came.Other = mail.ActFetch, to.Name, ""
			if here {
				came.Kind, came.Other = mail.ActLink, b.Name
			}
			p.Report.Plan(came)
		}
		if here {
			a.Kind, a.Other = mail.ActRemove, ""
			p.Report.Plan(a)
		}
	}
}

// comes is that messages are fetched whose files are gone here.
func (p *Pusher) comes(ctx context.Context, b *Mailbox, rows ...ledger.Message) []mail.Action {
	var out []written
	for _, row := range rows {
		w := written{Action: journal.ActionOf(mail.ActFetch, row)}
		w.Key, w.Why = "", "it is gone here"
		out = append(out, w)
	}
	return p.about(ctx, out...)
}

// backFrom is that a file goes back to the folder of its mailbox.
func (p *Pusher) backFrom(in, b *Mailbox, m plan.Move) mail.Action {
	w := written{journal.ActionOf(mail.ActFollow, m.Row), in, m.Key, ""}
	w.Mailbox, w.Other, w.Key, w.Why = in.Name, b.Name, m.Key, "the server has it there, and is right"
	w.brief()
	return w.Action
}
