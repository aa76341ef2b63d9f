package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// few is how many texts are compared, whatever part of the account they are, because their
// sizes differ.
const few = 50

// doubted are messages of a mailbox of which the server tells another size than their files
// have.
type doubted struct {
	of     Body // the mailbox
	folder string
	uids   []imap.UID
}

// doubts tells whether a message has another size on the server than its file, which another
// program wrote, so that the text has to say whether the file is whole. A file that we wrote is
// known by its digest to be as it came, whatever size the server says.
func doubts(row *ledger.Message, m mail.Message, file plan.Untracked) bool {
	told := row.Size != 0 && m.Size != row.Size // that is a difference of its own
	return m.Size != 0 && !told && plan.Weigh(plan.Told(m), file.Traits()).Size != plan.Equal && !maildir.Ours(row.Key)
}

// resolve compares the texts of the messages that are doubted. Where they are most of many, the
// server counts otherwise, as Exchange does, and sizes are no evidence.
func (s *side) resolve(ctx context.Context, session Session) error {
	n := 0
	for _, d := range s.doubted {
		n += len(d.uids)
	}
	if n > few && 2*n > s.result.Messages {
		s.result.Unsized = n
		return nil
	}
	for _, d := range s.doubted {
		for uids := range slices.Chunk(d.uids, atOnce) {
			if _, err := s.batch(ctx, session, d.of, d.folder, uids); err != nil {
				return fmt.Errorf("%s: %w", d.of.Mailbox, err)
			}
		}
	}
	return nil
}

// contentOf gives size and digest of the file with a key; no digest if it is gone.
func contentOf(dir maildir.Dir, key string) (plan.Untracked, error) {
	name, ok, err := dir.Find(key)
	if err != nil || !ok {
		return plan.Untracked{}, err
	}
	sum := mail.NewDigester()
	size, err := maildir.Read(dir.Path(name), make([]byte, 64<<10), sum)
	if errors.Is(err, fs.ErrNotExist) {
		return plan.Untracked{}, nil
	}
	return plan.Untracked{Message: ledger.Message{Key: key, Name: name, Size: size, Digest: sum.Sum()}, Added: sum.Left()}, err
}
