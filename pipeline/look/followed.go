package look

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// leftAgain finds files that this run has put into the mailbox, and that others have
// moved or deleted since, if they ever were there. With their rows they are found where
// they went.
func (l *Looker) leftAgain(ctx context.Context, b *Mailbox, v *plan.View, rows []ledger.Row) ([]ledger.Row, error) {
	if len(b.Expected)+len(b.Uploaded) == 0 || !b.numbered() || b.Known.UIDNext == 0 || b.now.UIDNext <= b.Known.UIDNext {
		return rows, nil
	}
	first := max(b.Known.UIDNext, 1)
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
	for _, s := range b.Local.Untracked {
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
	listed, err := l.conn.Session().Identify(ctx, mail.UIDsFrom(first))
	if err != nil {
		return nil, err
	}
	gone := plan.PassedOf(rows, listed, first, b.now.UIDNext, files)
	there := make(map[string]bool)
	pairs, err := l.Match.Pair(ctx, l.conn.Session(), slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { return plan.Taken(rows, m.UID) || b.Expected[m.UID] != "" }), files, plan.Evidence{Drafts: plan.ForDrafts(b.Listed)})
	if err != nil {
		return nil, err
	}
	for _, s := range pairs {
		there[s.Key] = true
	}
	before, err := l.Journal.Unsent.All(ctx)
	if err != nil {
		return nil, err
	}
	var c journal.Change
	for _, s := range files {
		if there[s.Key] || slices.ContainsFunc(listed, func(m mail.Message) bool { return m.MessageID != "" && m.MessageID == s.ID }) {
			continue
		}
		uid, why := gone.Take(s.UID)
		if uid == 0 {
			continue
		}
		row := s.Message
		row.Reason = why
		n := before[journal.AboutFile(b.Name, s.Key)] // of a file with a row that is forgotten
		row.Attempts, row.Since = n.Attempts, n.Since
		_, letters := maildir.ParseName(s.Name)
		row.Mailbox, row.UIDValidity, row.UID, row.State = b.Name, b.now.UIDValidity, uid, ledger.Present
		row.Date, row.Flags = plan.When(s.Sent, s.Date, l.Now()).UTC().Truncate(time.Second), plan.FlagsOf(letters)
		if from, moved := b.MovedFrom[uid]; moved {
			row.Size, row.Date = from.Size, from.Date
		}
		c.Save = append(c.Save, row)
		l.Journal.Arriving.Forget(&c, s.Key)
		c.Became(mail.IsDone, why, mail.Action{Kind: mail.ActUpload, Mailbox: b.Name, Key: s.Key})
		if !v.Complete {
			v.Vanished.AddNum(uid)
		}
		delete(b.Expected, s.UID)
		b.Uploaded = slices.DeleteFunc(b.Uploaded, func(u plan.Untracked) bool { return u.Key == s.Key })
		b.Local.Untracked = slices.DeleteFunc(b.Local.Untracked, func(o plan.Untracked) bool { return o.Key == s.Key })
	}
	if len(c.Save) == 0 {
		return rows, nil
	}
	if err := l.commit(ctx, c, "uploads that left noted"); err != nil {
		return nil, err
	}
	l.mu.Lock()
	for _, row := range c.Save {
		l.passed[row.Key] = true
	}
	l.mu.Unlock()
	return l.rows(ctx, b)
}

// stray is a mail whose file was moved here, and which was moved on the server, too, or
// deleted there: it is no more where its row says.
type stray struct {
	plan.Move
	in   *deliver.Mailbox // in whose folder the file is
	came bool             // it was found where it was moved to on the server
}

// FindStrays finds them, after the push and before any look, among the moves that it did not
// make: without them a look would take the mail for one that is gone on both sides, and what is
// in the other two mailboxes for two others.
func (l *Looker) FindStrays(ctx context.Context, boxes []*Mailbox, unmade []plan.Unmade) error {
	for _, b := range boxes {
		var strays []stray
		var rows []ledger.Message
		for _, m := range unmade {
			if m.Row.Mailbox == b.Name {
				in := boxes[slices.IndexFunc(boxes, func(in *Mailbox) bool { return in.Name == m.To })]
				strays, rows = append(strays, stray{Move: m.Move, in: in.Mailbox}), append(rows, m.Row)
			}
		}
		there, err := l.stillIn(ctx, b, rows)
		if err != nil {
			if err := l.Report.Unended(ctx, b.Name, err, "where mail is that was moved out of it cannot be found out", b.Leave); err != nil {
				return err
			}
			continue
		}
		l.mu.Lock()
		l.strays = append(l.strays, slices.DeleteFunc(strays, func(s stray) bool { return there[journal.About(s.Row)] })...)
		l.mu.Unlock()
	}
	return nil
}

// stillIn tells which of a mailbox's messages it still has, whatever their UIDs are now.
func (l *Looker) stillIn(ctx context.Context, b *Mailbox, rows []ledger.Message) (there map[string]bool, err error) {
	there = make(map[string]bool)
	over := func(m ledger.Message) bool { return m.UIDValidity != b.Known.UIDValidity }
	if now := b.Listed.Status; now != nil && (now.UIDValidity != b.Known.UIDValidity || !b.Known.Complete && slices.ContainsFunc(rows, over)) && len(rows) > 0 {
		return there, l.matchAnew(ctx, b, there)
	}
	rows = slices.DeleteFunc(slices.Clone(rows), over) // what was kept is new where it comes again
	uids, err := l.conn.StillThere(ctx, b.Name, b.Known.UIDValidity, ledger.UIDs(rows))
	if err != nil || len(uids) == 0 {
		return nil, err
	}
	listed, err := l.conn.Session().Identify(ctx, uids)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		there[journal.About(row)] = uids.Contains(row.UID)
		if slices.ContainsFunc(listed, func(m mail.Message) bool { return m.UID == row.UID && plan.Another(row, m) }) {
			clear(there)
			return there, l.matchAnew(ctx, b, there)
		}
	}
	return there, nil
}

// matchAnew is stillIn of a mailbox whose messages have other UIDs, as its look will find. It adds all that
// are there.
func (l *Looker) matchAnew(ctx context.Context, b *Mailbox, there map[string]bool) error {
	rows, err := l.Ledger.EveryValidity(ctx, b.Name)
	if err != nil {
		return err
	}
	var here []plan.Untracked
	for _, m := range rows {
		if (m.State == ledger.Present || m.State == ledger.Kept) && m.Key != "" {
			here = append(here, plan.Untracked{Message: m})
		}
	}
	if err := l.conn.Connect(ctx); err != nil {
		return err
	}
	sel, err := l.conn.Examine(ctx, b.Name, nil)
	if err != nil || sel.Messages == 0 {
		return err
	}
	listed, err := l.conn.Session().Identify(ctx, mail.EveryUID())
	if err != nil {
		return err
	}
	pairs, err := l.Match.Pair(ctx, l.conn.Session(), listed, here, plan.Evidence{Drafts: plan.ForDrafts(b.Listed)})
	for _, s := range pairs {
		there[journal.About(s.Message)] = true
	}
	return err
}

// Strayed tells whether a message is one of these. Its row stays until all mailboxes
// were looked at, so that a run that ends before leaves that to the next one.
func (l *Looking) Strayed(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.strays, func(s stray) bool { return sameMessage(s.Row, row) })
}

// Came tells whether it was found where it was moved to on the server.
func (l *Looking) Came(row ledger.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.strays, func(s stray) bool { return s.came && sameMessage(s.Row, row) })
}

// follow brings files into the folder whose mails came into the mailbox. Of a mail that
// was moved on both sides, but not to the same mailbox, the server's move holds, as it
// does against a deletion here and against the rules: there is one place where all who
// look at the account see it, and nobody has to ask which of two copies is meant. A
// stray that came nowhere was deleted there; since its owner has just put it somewhere,
// it is uploaded.
func (l *Looker) follow(ctx context.Context, b *Mailbox, fetch []imap.UID) error {
	listed, came, err := l.straysIn(ctx, b, fetch)
	if err != nil {
		return err
	}
	for _, m := range listed {
		if s, ok := came[m.UID]; ok {
			if err := l.followOne(ctx, b, m, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// straysIn tells which of the messages that are new in the mailbox are strays whose files are in
// other folders. It gives what the server told of all of them, too.
func (l *Looker) straysIn(ctx context.Context, b *Mailbox, fetch []imap.UID) (listed []mail.Message, came map[imap.UID]stray, err error) {
	l.mu.Lock()
	strays := slices.DeleteFunc(slices.Clone(l.strays), func(s stray) bool { return s.in == b.Mailbox || s.came })
	l.mu.Unlock()
	// What came by a move that this run has made is no other client's.
	fetch = slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { return b.Expected[u] != "" })
	if len(strays) == 0 || len(fetch) == 0 {
		return nil, nil, nil
	}
	if listed, err = l.identify(ctx, b, fetch); err != nil {
		return nil, nil, err
	}
	here := make([]plan.Untracked, len(strays))
	for i, s := range strays {
		here[i] = plan.Untracked{Message: s.Row}
		here[i].Key, here[i].Name = s.Key, ""
	}
	evidence := plan.Evidence{Drafts: plan.ForDrafts(b.Listed), Exact: true}
	// Of twins, those that have a file here need no other.
	own := slices.DeleteFunc(slices.Clone(b.Local.Untracked), func(s plan.Untracked) bool { return l.isTaken(s.Key) || b.expects(s.Key) })
	placed, err := l.Match.Pair(ctx, l.conn.Session(), listed, own, evidence)
	if err == nil {
		err = l.Match.Compare(ctx, l.conn.Session(), b.Dir, listed, placed, l.Match.Unproven(nil))
	}
	if err != nil {
		return nil, nil, err
	}
	rest := slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { _, ok := placed[m.UID]; return ok })
	pairs, err := l.Match.Pair(ctx, l.conn.Session(), rest, here, evidence)
	if err != nil {
		return nil, nil, err
	}
	came = make(map[imap.UID]stray)
	for uid, h := range pairs {
		came[uid] = strays[slices.IndexFunc(strays, func(s stray) bool { return sameMessage(s.Row, h.Message) })]
	}
	// One that was deleted there may be like another mail that comes now: only their texts tell.
	compared := make(map[*deliver.Mailbox]bool)
	for _, s := range came {
		if compared[s.in] {
			continue
		}
		compared[s.in] = true
		if err := l.Match.Compare(ctx, l.conn.Session(), s.in.Dir, rest, pairs, func(m mail.Message, _ plan.Untracked) bool { return came[m.UID].in == s.in }); err != nil {
			return nil, nil, err
		}
	}
	maps.DeleteFunc(came, func(uid imap.UID, _ stray) bool { _, is := pairs[uid]; return !is })
	return listed, came, nil
}

// expects tells whether the server has told which new message a file of the folder is.
func (b *Mailbox) expects(key string) bool {
	for _, k := range b.Expected {
		if k == key {
			return true
		}
	}
	return false
}

// Deleted gives the strays that came nowhere, when all mailboxes were looked at: the keys of
// their files, by the mailbox in whose folder they are.
func (l *Looking) Deleted() map[string][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string][]string)
	for _, s := range l.strays {
		if !s.came {
			out[s.in.Name] = append(out[s.in.Name], s.Key)
		}
	}
	return out
}

func sameMessage(a, b ledger.Message) bool {
	return a.Mailbox == b.Mailbox && a.UIDValidity == b.UIDValidity && a.UID == b.UID
}

// takes gives a stray's file another key, by which adopt finds it in the folder that it is about to
// get into, unless that has found it where it is.
func (l *Looking) takes(key, now string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.strays, func(s stray) bool { return s.Key == key && !s.came })
	if i < 0 {
		return false
	}
	l.strays[i].Key, l.taken[key] = now, true
	delete(l.taken, now)
	return true
}

// stays tells whether a file is in its folder still, and not in another one since it was followed
// there. If it is a stray's, that has come then.
func (l *Looking) stays(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.strays, func(s stray) bool { return s.Key == key }); i >= 0 {
		l.strays[i].came = true
	}
	return !l.taken[key]
}

func (l *Looking) isTaken(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken[key]
}

// followOne moves one file. That it is there is for adopt to record; a run that ends
// before finds it as a new file beside a new message.
func (l *Looker) followOne(ctx context.Context, b *Mailbox, m mail.Message, s stray) error {
	name, ok, err := s.in.Dir.Locate(s.Key, "")
	if err != nil || !ok {
		return err
	}
	// Flags that were changed here and on the server: both hold.
	row := s.Row
	row.Mailbox, row.Key = b.Name, l.Keys.New(l.Now())
	row.Name = "cur/" + row.Key + ":2," + plan.Letters(l.flagsHere(s.Row, name, m))
	if !l.takes(s.Key, row.Key) {
		return nil // its mail is where its file is, too, as one of twins
	}
	if err := os.Rename(s.in.Dir.Path(name), b.Dir.Path(row.Name)); err != nil {
		l.takes(row.Key, s.Key)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // taken away this moment
		}
		return err
	}
	l.Report.Step("file followed")
	l.Report.Note(b.Name, "a mail that was in %s was moved to %s here and to %s on the server: it is in %s now", s.Row.Mailbox, s.in.Name, b.Name, b.Name)
	b.Local.Untracked = append(b.Local.Untracked, plan.Untracked{Message: row})
	if b.Expected == nil {
		b.Expected = make(map[imap.UID]string)
	}
	b.Expected[m.UID] = row.Key
	old := ledger.Message{Mailbox: s.in.Name, UIDValidity: disowned, UID: s.Row.UID, Name: name, ID: s.Row.ID}
	var c journal.Change
	if err := l.Old.Follow(ctx, &c, s.Row, row); err != nil {
		return err
	}
	a := journal.ActionOf(mail.ActFollow, s.Row)
	a.Mailbox, a.Other, a.Why = s.in.Name, b.Name, "it was moved there on the server"
	a.From, a.Subject = maildir.Brief(b.Dir.Path(row.Name))
	c.Did(a)
	l.Line.Forget(&c, s.in, old, nil)
	return l.commit(ctx, c, "forgotten files noted")
}
