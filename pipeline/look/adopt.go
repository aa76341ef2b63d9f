package look

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// adopt finds those of the new messages whose file is here already: it was
// uploaded, or moved here as it was on the server. It gives the UIDs that remain.
func (l *Looker) adopt(ctx context.Context, b *Mailbox, fetch []imap.UID) ([]imap.UID, error) {
	if len(b.Local.Untracked) == 0 {
		return fetch, nil
	}
	if b.now.UIDValidity != b.Known.UIDValidity {
		b.Expected = nil // these numbers are of other messages by now
	}
	// Where the server made no new message of a file (Gmail has each mail once),
	// the next run must not send it again.
	fresh := mail.UIDSet(fetch)
	for uid, key := range b.Expected {
		if !fresh.Contains(uid) {
			if err := l.neverUpload(ctx, b, key); err != nil {
				return nil, err
			}
		}
	}
	if len(fetch) == 0 {
		return fetch, l.notFound(ctx, b, nil, nil, nil)
	}
	listed, pairs, err := l.pairNew(ctx, b, fetch)
	if err != nil {
		return nil, err
	}
	byKey := make(map[string]plan.Untracked, len(b.Local.Untracked))
	for _, s := range b.Local.Untracked {
		byKey[s.Key] = s
	}
	paired := make(map[string]bool)
	for _, s := range pairs {
		paired[s.Key] = true
	}
	for uid, key := range b.Expected {
		if s, ok := byKey[key]; ok && !paired[key] && fresh.Contains(uid) {
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
		if l.MovedHere(s.Key) {
			beside = deliver.BesideNone
		}
		if done[m.UID], err = l.adoptOne(ctx, b, m, s, beside); err != nil {
			return nil, err
		}
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
	told := maps.Clone(b.Expected)
	for uid, row := range b.MovedFrom {
		if _, ok := told[uid]; !ok && row.Key != "" && b.now.UIDValidity == b.Known.UIDValidity {
			if told == nil {
				told = make(map[imap.UID]string)
			}
			told[uid] = row.Key
		}
	}
	// There are servers whose COPYUID is not true (GreenMail, outlook.com): a file that
	// were taken for another message would go with it.
	for _, ask := range [][]imap.UID{ask, fetch} {
		if listed, err = l.identify(ctx, b, ask); err != nil {
			return nil, nil, err
		}
		if pairs, err = l.Match.Pair(ctx, l.conn.Session(), listed, b.Local.Untracked, plan.Evidence{Drafts: plan.ForDrafts(b.Listed), Told: told}); err != nil {
			return nil, nil, err
		}
		if len(pairs) == len(b.Local.Untracked) || len(ask) == len(fetch) {
			break
		}
	}
	return listed, pairs, l.Match.Compare(ctx, l.conn.Session(), b.Dir, listed, pairs, l.Match.Unproven(told))
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
	name, ok, err := b.Dir.Locate(s.Key, s.Name)
	if err != nil || !ok {
		return false, err
	}
	here := b.Withheld[s.Key].Merged(m.Flags)
	to := maildir.WithFlags(name, plan.Letters(here), "")
	if err := b.Dir.Rename(name, to); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	row := s.Message
	row.Mailbox, row.UIDValidity, row.UID, row.Name = b.Name, b.now.UIDValidity, m.UID, to
	row.Size, row.Date, row.Flags = m.Size, m.InternalDate.UTC().Truncate(time.Second), plan.StoredFlags(m.Flags)
	it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpAdd, Row: row, Known: true, Beside: beside}
	it.Add, it.Remove = l.arriving(b, plan.StoredFlags(here), plan.ByHand)
	return true, l.Line.Send(ctx, it)
}

// notFound deals with files that were uploaded to a server which neither says
// what UID they got nor gives them back as they were (Exchange): one new message
// with that Message-ID is it; otherwise the file is remembered, so that it is
// never uploaded twice. paired are those that were found.
func (l *Looker) notFound(ctx context.Context, b *Mailbox, listed []mail.Message, pairs map[imap.UID]plan.Untracked, paired map[string]bool) error {
	for _, s := range b.Uploaded {
		if paired[s.Key] {
			continue
		}
		i := slices.IndexFunc(listed, func(m mail.Message) bool {
			_, taken := pairs[m.UID]
			return !taken && s.ID != "" && m.MessageID == s.ID
		})
		if i >= 0 {
			pairs[listed[i].UID] = s
			continue
		}
		if err := l.neverUpload(ctx, b, s.Key); err != nil {
			return err
		}
	}
	b.Uploaded = nil
	return nil
}

// neverUpload remembers a file that the server is not to be given.
func (l *Looking) neverUpload(ctx context.Context, b *Mailbox, key string) error {
	if l.DryRun {
		return nil
	}
	var c journal.Change
	l.Journal.NeverUpload.Put(&c, key, journal.Text(b.Name))
	l.Journal.Arriving.Forget(&c, key)
	return l.commit(ctx, c, "upload ruled out")
}
