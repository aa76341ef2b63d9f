package pipeline

import (
	"context"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// pair has plan judge which messages of the selected mailbox are which files, and fetches
// the text of those that nothing else tells from each other.
func (w *worker) pair(ctx context.Context, b *box, listed []mail.Message, here []plan.Untracked, e plan.Evidence) (map[imap.UID]plan.Untracked, error) {
	e.Drafts = e.Drafts || b != nil && b.drafts()
	for {
		pairs, ask := plan.Pair(listed, here, e)
		if len(ask) == 0 {
			return pairs, nil
		}
		for i := range here {
			if err := w.readDigest(ctx, &here[i].Message); err != nil {
				return nil, err
			}
		}
		if err := w.texts(ctx, &e, ask); err != nil {
			return nil, err
		}
	}
}

// copies has plan judge which messages of the selected mailbox are copies of which rows,
// and fetches texts as pair does.
func (w *worker) copies(ctx context.Context, b *box, listed []mail.Message, rows []ledger.Message, e plan.Evidence) (map[imap.UID]ledger.Message, error) {
	e.Drafts = b.drafts()
	for {
		copies, ask := plan.Copies(listed, rows, e)
		if len(ask) == 0 {
			return copies, nil
		}
		for i := range rows {
			if err := w.readDigest(ctx, &rows[i]); err != nil {
				return nil, err
			}
		}
		if err := w.texts(ctx, &e, ask); err != nil {
			return nil, err
		}
	}
}

// readDigest has the digest of a message that an older ledger recorded without one.
func (r *run) readDigest(ctx context.Context, m *ledger.Message) error {
	if !m.Digest.IsZero() || m.Key == "" || m.Mailbox == "" {
		return nil
	}
	path, ok, err := r.here.FileOf(ctx, *m)
	if err != nil || !ok {
		return err
	}
	m.Digest, err = maildir.Digest(path)
	return err
}

// texts fetches messages of the selected mailbox and keeps their digests. What does not
// come is nobody's.
func (w *worker) texts(ctx context.Context, e *plan.Evidence, uids []imap.UID) error {
	if e.Text == nil {
		e.Text = make(map[imap.UID]mail.Digest)
	}
	for _, u := range uids {
		e.Text[u] = mail.Digest{}
	}
	err := w.conn.Session().Fetch(ctx, mail.UIDSet(uids), mail.Sink{
		Open: func(int64) (mail.Spool, error) { return digesting{mail.NewDigester()}, nil },
		Done: func(m mail.Message, sp mail.Spool) error {
			e.Text[m.UID] = sp.(digesting).Sum() //nolint:forcetypeassert // it is what Open gave
			return nil
		},
	})
	if err != nil && (ctx.Err() != nil || !w.conn.Alive()) {
		return err
	}
	return nil
}

// digesting is a spool of which only the digest is kept.
type digesting struct{ *mail.Digester }

func (digesting) Discard() {}
