package look

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// adopt finds those of the new messages whose file is here already: it was
// uploaded, or moved here as it was on the server. It gives the UIDs that remain. rows are
// those of the mailbox.
func (l *Looker) adopt(ctx context.Context, b *Mailbox, fetch []imap.UID, rows []ledger.Row) ([]imap.UID, error) {
	b.Local.Untracked = slices.DeleteFunc(b.Local.Untracked, func(s plan.Untracked) bool { return l.isTaken(s.Key) })
	if len(b.Local.Untracked) == 0 {
		return fetch, nil
	}
	if !b.numbered() {
		b.Expected = nil // these numbers are of other messages by now
	}
	var listed []mail.Message
	var pairs map[imap.UID]plan.Untracked
	var err error
	if len(fetch) > 0 {
		if listed, pairs, err = l.pairNew(ctx, b, fetch); err != nil {
			return nil, err
		}
	}
	byKey := make(map[string]plan.Untracked, len(b.Local.Untracked))
	for _, s := range b.Local.Untracked {
		byKey[s.Key] = s
	}
	paired := make(map[string]bool)
	for _, s := range pairs {
		paired[s.Key] = true
	}
	fresh := mail.UIDSet(fetch)
	for uid, key := range b.Expected {
		s, ok := byKey[key]
		switch {
		case !fresh.Contains(uid) && plan.Taken(rows, uid):
			// The server made no new message of the file (Gmail has each mail once): the
			// next run must not send it again.
			if err := l.neverUpload(ctx, b, key); err != nil {
				return nil, err
			}
		case ok && !paired[key]:
			b.Uploaded = append(b.Uploaded, s)
		}
	}
	rest := slices.DeleteFunc(slices.Clone(listed), func(m mail.Message) bool { _, ok := pairs[m.UID]; return ok })
	if err := l.notFound(ctx, b, rest, pairs, paired); err != nil {
		return nil, err
	}
	done := make(map[imap.UID]bool)
	for _, m := range listed {
		s, ok := pairs[m.UID]
		if !ok {
			continue
		}
		beside := deliver.BesideRecorded
		if _, moved := l.MovedHere(s.Key); moved {
			beside = deliver.BesideNone
		}
		if done[m.UID], err = l.adoptOne(ctx, b, m, s, beside); err != nil {
			return nil, err
		}
	}
	if err := l.sent(ctx, b, pairs); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { return done[u] }), nil
}

// pairNew finds which of the new messages are which files of the folder. It gives what the
// server told of them, too.
func (l *Looker) pairNew(ctx context.Context, b *Mailbox, fetch []imap.UID) (listed []mail.Message, pairs map[imap.UID]plan.Untracked, err error) {
	ask := fetch
	if b.allExpected() {
		ask = slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { return b.Expected[u] == "" })
	}
	e := b.evidence()
	// There are servers whose COPYUID is not true (GreenMail, outlook.com): a file that
	// were taken for another message would go with it.
	for _, ask := range [][]imap.UID{ask, fetch} {
		if listed, err = l.identify(ctx, b, ask); err != nil {
			return nil, nil, err
		}
		if pairs, err = l.Match.Pair(ctx, l.conn.Session(), listed, b.Local.Untracked, e); err != nil {
			return nil, nil, err
		}
		if len(pairs) == len(b.Local.Untracked) || len(ask) == len(fetch) {
			break
		}
	}
	return listed, pairs, l.Match.Compare(ctx, l.conn.Session(), b.Dir, listed, pairs, l.Match.Unproven(e.Told))
}

// evidence is what is known of new messages and files of the mailbox beside what is listed.
func (b *Mailbox) evidence() plan.Evidence {
	e := plan.Evidence{Drafts: plan.ForDrafts(b.Listed)}
	if !b.numbered() {
		return e
	}
	e.Told, e.Since, e.Sent = make(map[imap.UID]string), b.since(), make(map[string]bool)
	for uid, row := range b.MovedFrom {
		if row.Key != "" {
			e.Told[uid] = row.Key
		}
	}
	maps.Copy(e.Told, b.Expected)
	for _, s := range b.Uploaded {
		e.Sent[s.Key] = true
	}
	return e
}

// numbered tells whether the UIDs of before are those of the same messages.
func (b *Mailbox) numbered() bool { return b.now.UIDValidity == b.Known.UIDValidity }

// since is the first UID that a message can have which has come since the mailbox was looked at; 0 if
// that is not known.
func (b *Mailbox) since() imap.UID {
	if !b.numbered() || b.Contradicted || b.now.UIDNext < b.Known.UIDNext {
		return 0
	}
	return b.Known.UIDNext
}

// adopted notes that a file is a message's: from then on it is no other's.
func (b *Mailbox) adopted(key string) {
	is := func(s plan.Untracked) bool { return s.Key == key }
	b.Local.Untracked, b.Uploaded = slices.DeleteFunc(b.Local.Untracked, is), slices.DeleteFunc(b.Uploaded, is)
	maps.DeleteFunc(b.Expected, func(_ imap.UID, k string) bool { return k == key })
}

// allExpected tells whether the server said what it made of every file that may be
// found among the new messages.
func (b *Mailbox) allExpected() bool {
	return len(b.Expected) >= len(b.Local.Untracked)
}

// identify asks what messages these are, unless EXAMINE told that already.
func (l *Looker) identify(ctx context.Context, b *Mailbox, uids []imap.UID) ([]mail.Message, error) {
	if len(uids) == 0 {
		return nil, nil
	}
	wanted := mail.UIDSet(uids)
	of := func(ms []mail.Message) []mail.Message {
		return slices.DeleteFunc(slices.Clone(ms), func(m mail.Message) bool { return !wanted.Contains(m.UID) })
	}
	if told := of(b.identified); len(told) == len(uids) {
		return told, nil
	}
	listed, err := l.conn.Session().Identify(ctx, wanted)
	return of(listed), err
}

// adoptOne records a file as the server's message. Its name gets the letters of
// flags that the server has; those that only the file has are what the next scan
// tells the server of.
func (l *Looker) adoptOne(ctx context.Context, b *Mailbox, m mail.Message, s plan.Untracked, beside deliver.Beside) (bool, error) {
	if !l.stays(s.Key) {
		return false, nil
	}
	b.adopted(s.Key)
	here, off, clear := l.flagsAdopted(b, m, s)
	// Flags that the file alone has are told when it is recorded.
	b.found.Paired = b.found.Paired || !l.Match.Ours(s.Key) && !plan.SameFlags(plan.StoredFlags(here), plan.StoredFlags(m.Flags))
	to, ok, err := letter(b.Dir, s, plan.Letters(here), clear)
	if err != nil {
		return false, err
	}
	row := s.Message
	row.Mailbox, row.UIDValidity, row.UID = b.Name, b.now.UIDValidity, m.UID
	row.Size, row.Date, row.Flags = m.Size, m.InternalDate.UTC().Truncate(time.Second), plan.StoredFlags(m.Flags)
	if !ok {
		return true, l.adoptMovedOn(ctx, b, s, row)
	}
	row.Name = to
	_, followed := l.wasOf(s.Key)
	it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpAdd, Row: row, Known: true, Paired: !l.Match.Ours(s.Key) && !followed, Beside: beside}
	flags := l.Tags.AsNamed(plan.StoredFlags(here), to)
	it.Add, it.Remove = l.arriving(b, flags, plan.ByHand)
	it.Remove = slices.Concat(it.Remove, off)
	if beside == deliver.BesideAny || l.UploadHere || s.Stood {
		it.IfKnown = deliver.TagsOfFlags(l.Tags, flags, off)
	}
	return true, l.Line.Send(ctx, it)
}

// flagsAdopted gives the flags that a file's mail has when it is the server's message: tags that go
// off it, and letters, for what was taken off on the server of a mail that was moved here.
func (l *Looker) flagsAdopted(b *Mailbox, m mail.Message, s plan.Untracked) (here, off []string, clear string) {
	here = b.Withheld[s.Key].Merged(m.Flags)
	from, _ := l.wasOf(s.Key)
	if !l.Match.Ours(s.Key) {
		here = l.flagsHere(from, s.Name, m)
	} else if from.UID != 0 {
		here = b.Withheld[s.Key].Merged(l.flagsHere(from, s.Name, m))
	}
	if from.UID != 0 {
		_, off, _, clear = l.Tags.FromFlags(from.Flags, here)
	}
	return here, off, clear
}

// wasOf gives the message that a file was of before it was moved here, as it was agreed on. A
// stray has come by that.
func (l *Looking) wasOf(key string) (from ledger.Message, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.strays, func(s stray) bool { return s.Key == key }); i >= 0 {
		l.strays[i].came = true
		return l.strays[i].Row, true
	}
	return l.MovedHere(key)
}

// letter gives a file the letters of flags that its message has, but for those that its owner
// took off since the folder was read, and takes others off. ok is false if the file is there no
// more, or gets other names as fast as it is looked for.
func letter(dir maildir.Dir, s plan.Untracked, letters, clear string) (name string, ok bool, err error) {
	_, were := maildir.ParseName(s.Name)
	for range 3 {
		from, ok, err := dir.Locate(s.Key, s.Name)
		if err != nil || !ok {
			return "", false, err
		}
		_, are := maildir.ParseName(from)
		to := maildir.WithFlags(from, strings.Map(func(r rune) rune {
			if strings.ContainsRune(were, r) && !strings.ContainsRune(are, r) {
				return -1
			}
			return r
		}, letters), clear)
		if err := dir.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
			return to, err == nil, err
		}
	}
	return "", false, nil
}

// adoptMovedOn records a message whose file was in the folder when that was read, and is there
// no more: its owner has moved it on, or deleted it. The next run finds that by the row. Of the
// flags it is to have those that the owner knew of; what the server has beside them the next
// look brings.
func (l *Looker) adoptMovedOn(ctx context.Context, b *Mailbox, s plan.Untracked, row ledger.Message) error {
	_, letters := maildir.ParseName(s.Name)
	withheld := b.Withheld[s.Key].Remove
	known := slices.DeleteFunc(slices.Clone(row.Flags), func(f string) bool {
		l := plan.Letters([]string{f})
		return l != "" && plan.HasInfo(s.Name) && !strings.Contains(letters, l) && !plan.HasFlag(withheld, f)
	})
	b.unsettled = b.unsettled || len(known) < len(row.Flags)
	row.State, row.Name, row.Flags = ledger.Present, s.Name, known
	c := journal.Change{Save: []ledger.Message{row}}
	l.Journal.Arriving.Forget(&c, s.Key)
	c.Became(mail.IsDone, "", mail.Action{Kind: mail.ActUpload, Mailbox: b.Name, Key: s.Key})
	return l.commit(ctx, c, "moved file recorded")
}

// notFound deals with files that were uploaded, and that are not among the new messages by
// the UID that the server told, nor as they were. One new message with that Message-ID is the
// file (Exchange changes what it stores), but none that was there before. One that may be, since one
// of the two has no Message-ID, is a reason never to upload the file again. If there is none, the
// server has not stored it. paired are those that were found.
func (l *Looker) notFound(ctx context.Context, b *Mailbox, listed []mail.Message, pairs map[imap.UID]plan.Untracked, paired map[string]bool) error {
	since := b.since()
	listed = slices.DeleteFunc(listed, func(m mail.Message) bool { return m.UID < since })
	var unstored []plan.Untracked
	for _, s := range b.Uploaded {
		if paired[s.Key] {
			continue
		}
		if i := slices.IndexFunc(listed, func(m mail.Message) bool { return s.ID != "" && m.MessageID == s.ID }); i >= 0 {
			pairs[listed[i].UID] = s
			listed = slices.Delete(listed, i, i+1)
			continue
		}
		i := slices.IndexFunc(listed, func(m mail.Message) bool { return m.MessageID == "" || plan.RealID(s.ID) == "" })
		if i < 0 {
			unstored = append(unstored, s)
			continue
		}
		listed = slices.Delete(listed, i, i+1)
		if err := l.neverUpload(ctx, b, s.Key); err != nil {
			return err
		}
	}
	b.Uploaded = nil
	moved := 0
	for uid := range b.MovedFrom {
		if slices.ContainsFunc(unstored, func(s plan.Untracked) bool { return s.Key == b.Expected[uid] }) {
			moved++
		}
	}
	l.Report.Tally(func(r *report.Report) { // it was counted when the server said so
		r.Moved, r.Uploaded = r.Moved-moved, r.Uploaded-(len(unstored)-moved)
	})
	return l.unstored(ctx, b.Name, unstored)
}

// neverUpload remembers a file that the server is not to be given.
func (l *Looking) neverUpload(ctx context.Context, b *Mailbox, key string) error {
	if l.DryRun {
		return nil
	}
	var c journal.Change
	l.Journal.NeverUpload.Put(&c, key, journal.Text(b.Name))
	l.Journal.Arriving.Forget(&c, key)
	c.Became(mail.IsUndone, "the server made no new message of it: it has the mail already, or may have", mail.Action{Kind: mail.ActUpload, Mailbox: b.Name, Key: key})
	return l.commit(ctx, c, "upload ruled out")
}
