package pipeline

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
func (w *worker) adopt(ctx context.Context, b *box, fetch []imap.UID) ([]imap.UID, error) {
	if len(b.local.Untracked) == 0 {
		return fetch, nil
	}
	if b.now.UIDValidity != b.known.UIDValidity {
		b.Expected = nil // these numbers are of other messages by now
	}
	// Where the server made no new message of a file (Gmail has each mail once),
	// the next run must not send it again.
	fresh := mail.UIDSet(fetch)
	for uid, key := range b.Expected {
		if !fresh.Contains(uid) {
			if err := w.neverUpload(ctx, b, key); err != nil {
				return nil, err
			}
		}
	}
	if len(fetch) == 0 {
		return fetch, w.notFound(ctx, b, nil, nil, nil)
	}
	byKey := make(map[string]plan.Untracked, len(b.local.Untracked))
	for _, s := range b.local.Untracked {
		byKey[s.Key] = s
	}
	ask := fetch
	if b.allExpected() {
		ask = slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { return b.Expected[u] == "" })
	}
	told := maps.Clone(b.Expected)
	for uid, row := range b.MovedFrom {
		if _, ok := told[uid]; !ok && row.Key != "" && b.now.UIDValidity == b.known.UIDValidity {
			if told == nil {
				told = make(map[imap.UID]string)
			}
			told[uid] = row.Key
		}
	}
	var listed []mail.Message
	var pairs map[imap.UID]plan.Untracked
	var err error
	// There are servers whose COPYUID is not true (GreenMail, outlook.com): a file that
	// were taken for another message would go with it.
	for _, ask := range [][]imap.UID{ask, fetch} {
		if listed, err = w.identify(ctx, b, ask); err != nil {
			return nil, err
		}
		if pairs, err = w.match.Pair(ctx, w.conn.Session(), listed, b.local.Untracked, plan.Evidence{Drafts: plan.ForDrafts(b.Mailbox), Told: told}); err != nil {
			return nil, err
		}
		if len(pairs) == len(b.local.Untracked) || len(ask) == len(fetch) {
			break
		}
	}
	if err := w.match.Compare(ctx, w.conn.Session(), b.dir, listed, pairs, w.match.Unproven(told)); err != nil {
		return nil, err
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
	if err := w.notFound(ctx, b, rest, pairs, paired); err != nil {
		return nil, err
	}
	done := make(map[imap.UID]bool)
	for _, m := range listed {
		s, ok := pairs[m.UID]
		if !ok {
			continue
		}
		if done[m.UID], err = w.adoptOne(ctx, b, m, s); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { return done[u] }), nil
}

// allExpected tells whether the server said what it made of every file that may be
// found among the new messages.
func (b *box) allExpected() bool {
	return len(b.Expected) >= len(b.local.Untracked)
}

// identify asks what messages these are, unless EXAMINE told that already.
func (w *worker) identify(ctx context.Context, b *box, uids []imap.UID) ([]mail.Message, error) {
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
	listed, err := w.conn.Session().Identify(ctx, wanted)
	return of(listed), err
}

// adoptOne records a file as the server's message. Its name gets the letters of
// flags that the server has; those that only the file has are what the next scan
// tells the server of.
func (w *worker) adoptOne(ctx context.Context, b *box, m mail.Message, s plan.Untracked) (bool, error) {
	name, ok, err := b.find(s.Key, s.Name)
	if err != nil || !ok {
		return false, err
	}
	here := b.Withheld[s.Key].Merged(m.Flags)
	to := maildir.WithFlags(name, plan.Letters(here), "")
	if err := b.dir.Rename(name, to); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	row := s.Message
	row.Mailbox, row.UIDValidity, row.UID, row.Name = b.Name, b.now.UIDValidity, m.UID, to
	row.Size, row.Date, row.Flags = m.Size, m.InternalDate.UTC().Truncate(time.Second), plan.StoredFlags(m.Flags)
	it := &deliver.Item{Box: b.line, Op: deliver.OpAdd, Row: row, Known: true}
	it.Add, it.Remove = w.arriving(b, plan.StoredFlags(here), plan.ByHand)
	return true, w.line.Send(ctx, it)
}

// notFound deals with files that were uploaded to a server which neither says
// what UID they got nor gives them back as they were (Exchange): one new message
// with that Message-ID is it; otherwise the file is remembered, so that it is
// never uploaded twice. paired are those that were found.
func (w *worker) notFound(ctx context.Context, b *box, listed []mail.Message, pairs map[imap.UID]plan.Untracked, paired map[string]bool) error {
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
		if err := w.neverUpload(ctx, b, s.Key); err != nil {
			return err
		}
	}
	b.Uploaded = nil
	return nil
}

// neverUpload remembers a file that the server is not to be given.
func (r *run) neverUpload(ctx context.Context, b *box, key string) error {
	if r.DryRun {
		return nil
	}
	var c journal.Change
	r.notes().NeverUpload.Put(&c, key, journal.Text(b.Name))
	r.notes().Arriving.Forget(&c, key)
	return r.commit(ctx, c, "upload ruled out")
}
