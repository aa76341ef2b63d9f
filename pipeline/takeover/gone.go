package takeover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// taking is what a take-over keeps until all mailboxes have been looked at.
type taking struct {
	files map[string]bool // by path, without what may change of a name: those that are of a message
	left  []*leaving
}

// leaving is a mailbox, taken over but for its record, that messages have left: their files are
// gone, or may be in another folder.
type leaving struct {
	mailbox     string
	uidValidity uint64
	change      journal.Change
	gone        []int // of change.Save
}

// follow finds where the messages went whose files are gone, and records their mailboxes. Of a
// file that is not here neither content nor notmuch's id is known. Where a Message-ID and the
// server's size do not tell which file of another folder it is now, the server's text does.
func (a *Account) follow(ctx context.Context, s Session, t *taking) error {
	if len(t.left) == 0 {
		return nil
	}
	files, err := a.strangers(ctx, t)
	if err != nil {
		return err
	}
	for _, l := range t.left {
		var ask []imap.UID
		rows := make(map[imap.UID]*ledger.Message)
		for _, i := range l.gone {
			row := &l.change.Save[i]
			for _, f := range files {
				if nameless := row.ID == "" && plan.RealID(f.ID) == ""; nameless || row.ID != "" && f.ID == row.ID && !f.SameContent(row) {
					ask, rows[row.UID] = append(ask, row.UID), row
					break
				}
			}
		}
		if err := l.identify(ctx, s, ask, rows, files); err != nil {
			return fmt.Errorf("%s: %w", l.mailbox, err)
		}
		if err := journal.Of(a.Ledger).Record(ctx, l.change); err != nil {
			return err
		}
	}
	return nil
}

// strangers reads the files of the account that are of no message.
func (a *Account) strangers(ctx context.Context, t *taking) (out []plan.Untracked, err error) {
	folders, err := maildir.Folders(a.Root)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for _, folder := range folders {
		dir := maildir.Dir(filepath.Join(a.Root, folder))
		files, err := dir.Scan()
		if err != nil {
			return nil, err
		}
		some, err := files.Some(func(key string) bool { return !t.files[filepath.Join(folder, key)] })
		if err != nil {
			return nil, err
		}
		for _, f := range some {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			var row ledger.Message
			if _, err := describe(&row, string(dir), f.Name, buf); errors.Is(err, fs.ErrNotExist) {
				continue // it goes elsewhere this moment
			} else if err != nil {
				return nil, err
			}
			row.Size = row.WireSize
			out = append(out, plan.Untracked{Message: row})
		}
	}
	return out, nil
}

// identify fetches the texts of messages, and notes of each what it is if one of the files has it.
// What does not come, or not as it was, stays as it is known.
func (l *leaving) identify(ctx context.Context, s Session, uids []imap.UID, rows map[imap.UID]*ledger.Message, files []plan.Untracked) error {
	if len(uids) == 0 {
		return nil
	}
	sel, err := s.Examine(ctx, l.mailbox, nil)
	if err == nil && sel.UIDValidity == l.uidValidity {
		err = s.Fetch(ctx, mail.UIDSet(uids), mail.Sink{
			Open: func(int64) (mail.Spool, error) { return mail.NewDigester(), nil },
			Done: func(m mail.Message, spool mail.Spool) error {
				digest := spool.(*mail.Digester).Sum() //nolint:forcetypeassert // it is what Open gave
				for _, f := range files {
					if row := rows[m.UID]; row != nil && f.Digest == digest {
						row.ID, row.Digest, row.WireSize = f.ID, digest, f.WireSize
						break
					}
				}
				return nil
			},
		})
	}
	if err != nil && (ctx.Err() != nil || !s.Alive()) {
		return err
	}
	return nil
}
