package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// leftAgain finds files that this run has put into the mailbox, and that others have
// moved or deleted since. Their rows make of that what the view tells.
func (w *worker) leftAgain(ctx context.Context, b *box, v *plan.View, rows []ledger.Row) ([]ledger.Row, error) {
	if len(b.Expected)+len(b.Uploaded) == 0 || !b.goesOn() || b.now.UIDNext <= b.known.UIDNext {
		return rows, nil
	}
	first := max(b.known.UIDNext, 1)
	var came []mail.Message
	for _, m := range v.Messages {
		if m.UID >= first && !v.Vanished.Contains(m.UID) {
			came = append(came, mail.Message{UID: m.UID})
		}
	}
	for _, u := range v.UIDs {
		if u >= first {
			came = append(came, mail.Message{UID: u})
		}
	}
	var files []plan.Untracked
	for _, s := range b.local.Untracked {
		s.UID = 0
		for uid, key := range b.Expected {
			if key == s.Key {
				s.UID = uid
			}
		}
		there := slices.ContainsFunc(came, func(m mail.Message) bool { return m.UID == s.UID })
		if s.UID != 0 && !there || slices.ContainsFunc(b.Uploaded, func(u plan.Untracked) bool { return u.Key == s.Key }) {
			files = append(files, s)
		}
	}
	if len(files) == 0 || !plan.PassedOf(rows, came, first, b.now.UIDNext, files).Any() {
		return rows, nil
	}
	// What is to be believed gone is asked for once more, and what the server told of
	// new UIDs may be wrong.
	listed, err := w.conn.Session().Identify(ctx, mail.UIDsFrom(first))
	if err != nil {
		return nil, err
	}
	gone := plan.PassedOf(rows, listed, first, b.now.UIDNext, files)
	there := make(map[string]bool)
	pairs, err := w.match.Pair(ctx, w.conn.Session(), slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { return plan.Taken(rows, m.UID) || b.Expected[m.UID] != "" }), files, plan.Evidence{Drafts: plan.ForDrafts(b.Mailbox)})
	if err != nil {
		return nil, err
	}
	for _, s := range pairs {
		there[s.Key] = true
	}
	var c journal.Change
	for _, s := range files {
		if there[s.Key] || slices.ContainsFunc(listed, func(m mail.Message) bool { return m.MessageID != "" && m.MessageID == s.ID }) {
			continue
		}
		uid := gone.Take(s.UID)
		if uid == 0 {
			continue
		}
		row := s.Message
		_, letters := maildir.ParseName(s.Name)
		row.Mailbox, row.UIDValidity, row.UID, row.State = b.Name, b.now.UIDValidity, uid, ledger.Present
		row.Date, row.Flags = plan.When(s.Sent, s.Date, w.Now()).UTC().Truncate(time.Second), plan.FlagsOf(letters)
		c.Save = append(c.Save, row)
		w.notes().Arriving.Forget(&c, s.Key)
		if !v.Complete {
			v.Vanished.AddNum(uid)
		}
		delete(b.Expected, s.UID)
		b.Uploaded = slices.DeleteFunc(b.Uploaded, func(u plan.Untracked) bool { return u.Key == s.Key })
		b.local.Untracked = slices.DeleteFunc(b.local.Untracked, func(o plan.Untracked) bool { return o.Key == s.Key })
	}
	if len(c.Save) == 0 {
		return rows, nil
	}
	if err := w.commit(ctx, c, "uploads that left noted"); err != nil {
		return nil, err
	}
	return w.rows(ctx, b)
}

// stray is a mail whose file was moved here, and which was moved on the server, too, or
// deleted there: it is no more where its row says.
type stray struct {
	plan.Move
	in *box // in whose folder the file is
}

// findStrays finds them, after the push, among the moves that it did not make: without
// them the look would take the mail for one that is gone on both sides, and what is in the
// other two mailboxes for two others.
func (w *worker) findStrays(ctx context.Context, boxes []*box, unmade []plan.Unmade) error {
	for _, b := range boxes {
		var strays []stray
		var rows []ledger.Message
		for _, m := range unmade {
			if m.Row.Mailbox == b.Name {
				in := boxes[slices.IndexFunc(boxes, func(in *box) bool { return in.Name == m.To })]
				strays, rows = append(strays, stray{m.Move, in}), append(rows, m.Row)
			}
		}
		there, err := w.stillThere(ctx, b, rows)
		if err != nil {
			if err := w.pusher.NotSettled(ctx, b.line, err, "where mail is that was moved out of it cannot be found out"); err != nil {
				return err
			}
			continue
		}
		w.strays = append(w.strays, slices.DeleteFunc(strays, func(s stray) bool { return there.Contains(s.Row.UID) })...)
	}
	return nil
}

// strayed tells whether a message is one of these. Its row stays until all mailboxes
// were looked at, so that a run that ends before leaves that to the next one.
func (r *run) strayed(row ledger.Message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.strays, func(s stray) bool { return sameMessage(s.Row, row) })
}

// follow brings files into the folder whose mails came into the mailbox. Of a mail that
// was moved on both sides, but not to the same mailbox, the server's move holds, as it
// does against a deletion here and against the rules: there is one place where all who
// look at the account see it, and nobody has to ask which of two copies is meant. A
// stray that came nowhere was deleted there; since its owner has just put it somewhere,
// the next run uploads it.
func (w *worker) follow(ctx context.Context, b *box, fetch []imap.UID) error {
	w.mu.Lock()
	strays := slices.DeleteFunc(slices.Clone(w.strays), func(s stray) bool { return s.in == b })
	w.mu.Unlock()
	if len(strays) == 0 || len(fetch) == 0 {
		return nil
	}
	listed, err := w.identify(ctx, b, fetch)
	if err != nil {
		return err
	}
	here := make([]plan.Untracked, len(strays))
	for i, s := range strays {
		here[i] = plan.Untracked{Message: s.Row}
	}
	pairs, err := w.match.Pair(ctx, w.conn.Session(), listed, here, plan.Evidence{Drafts: plan.ForDrafts(b.Mailbox), Exact: true})
	if err != nil {
		return err
	}
	for _, m := range listed {
		h, ok := pairs[m.UID]
		if !ok {
			continue
		}
		s := strays[slices.IndexFunc(strays, func(s stray) bool { return sameMessage(s.Row, h.Message) })]
		if err := w.followOne(ctx, b, m, s); err != nil {
			return err
		}
	}
	return nil
}

func sameMessage(a, b ledger.Message) bool {
	return a.Mailbox == b.Mailbox && a.UIDValidity == b.UIDValidity && a.UID == b.UID
}

// followOne moves one file. That it is there is for adopt to record; a run that ends
// before finds it as a new file beside a new message.
func (w *worker) followOne(ctx context.Context, b *box, m mail.Message, s stray) error {
	name, ok, err := s.in.find(s.Key, "")
	if err != nil || !ok {
		return err
	}
	// Flags that were changed here and on the server: both hold.
	_, l := maildir.ParseName(name)
	var d plan.Delta
	if plan.HasInfo(name) {
		d = plan.DeltaOf(s.Row.Flags, l)
	}
	row := s.Row
	row.Mailbox, row.Key = b.Name, w.keys.New(w.Now())
	row.Name = "cur/" + row.Key + ":2," + plan.Letters(d.Merged(m.Flags))
	if err := os.Rename(s.in.path(name), b.path(row.Name)); errors.Is(err, fs.ErrNotExist) {
		return nil // taken away this moment
	} else if err != nil {
		return err
	}
	w.step("file followed")
	w.note(b, "a mail that was in %s was moved to %s here and to %s on the server: it is in %s now", s.Row.Mailbox, s.in.Name, b.Name, b.Name)
	b.local.Untracked = append(b.local.Untracked, plan.Untracked{Message: row})
	if b.Expected == nil {
		b.Expected = make(map[imap.UID]string)
	}
	b.Expected[m.UID] = row.Key
	old := ledger.Message{Mailbox: s.in.Name, UIDValidity: disowned, UID: s.Row.UID, Name: name, ID: s.Row.ID}
	var c journal.Change
	w.line.Forget(&c, s.in.line, old)
	return w.commit(ctx, c, "forgotten files noted")
}
