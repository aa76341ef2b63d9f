// Package match finds which messages of a selected mailbox are which mails that are here.
// plan judges that by values; what it needs of the text is fetched here, over the session
// that it is given, and read from the files.
package match

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Session fetches messages of the mailbox that is selected on it.
type Session interface {
	// Fetch streams the messages of one batch. A nil error does not mean that
	// all of them came.
	Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error
	Alive() bool
}

// Files are the files of recorded messages.
type Files interface {
	// FileOf gives the path of a message's file; false if it is not here.
	FileOf(ctx context.Context, m ledger.Message) (string, bool, error)
}

// Matcher finds them for one account.
type Matcher struct {
	Files Files
	Dir   string // in which a text lies while it is compared
	// Ours tells whether this run has put a file, by its key, on the server.
	Ours func(key string) bool
}

// Pair has plan judge which messages are which files, and fetches the text of those that
// nothing else tells from each other.
func (m *Matcher) Pair(ctx context.Context, s Session, listed []mail.Message, here []plan.Untracked, e plan.Evidence) (map[imap.UID]plan.Untracked, error) {
	for {
		pairs, ask := plan.Pair(listed, here, e)
		if len(ask) == 0 {
			return pairs, nil
		}
		for i := range here {
			if err := m.readDigest(ctx, &here[i].Message); err != nil {
				return nil, err
			}
		}
		if err := texts(ctx, s, &e, ask); err != nil {
			return nil, err
		}
	}
}

// Copies has plan judge which messages are copies of which rows, and fetches texts as Pair
// does.
func (m *Matcher) Copies(ctx context.Context, s Session, listed []mail.Message, rows []ledger.Message, e plan.Evidence) (map[imap.UID]ledger.Message, error) {
	for {
		copies, ask := plan.Copies(listed, rows, e)
		if len(ask) == 0 {
			return copies, nil
		}
		for i := range rows {
			if err := m.readDigest(ctx, &rows[i]); err != nil {
				return nil, err
			}
		}
		if err := texts(ctx, s, &e, ask); err != nil {
			return nil, err
		}
	}
}

// readDigest has the digest of a message that an older ledger recorded without one.
func (m *Matcher) readDigest(ctx context.Context, row *ledger.Message) error {
	if !row.Digest.IsZero() || row.Key == "" || row.Mailbox == "" {
		return nil
	}
	path, ok, err := m.Files.FileOf(ctx, *row)
	if err != nil || !ok {
		return err
	}
	row.Digest, err = maildir.Digest(path)
	return err
}

// texts fetches messages and keeps their digests. What does not come is nobody's.
func texts(ctx context.Context, s Session, e *plan.Evidence, uids []imap.UID) error {
	if e.Text == nil {
		e.Text = make(map[imap.UID]mail.Digest)
	}
	for _, u := range uids {
		e.Text[u] = mail.Digest{}
	}
	return fetch(ctx, s, uids, mail.Sink{
		Open: func(int64) (mail.Spool, error) { return mail.NewDigester(), nil },
		Done: func(m mail.Message, sp mail.Spool) error {
			e.Text[m.UID] = sp.(*mail.Digester).Sum() //nolint:forcetypeassert // it is what Open gave
			return nil
		},
	})
}

// fetch fetches what is to be compared. What does not come contradicts nothing.
func fetch(ctx context.Context, s Session, uids []imap.UID, sink mail.Sink) error {
	if err := s.Fetch(ctx, mail.UIDSet(uids), sink); err != nil && (ctx.Err() != nil || !s.Alive()) {
		return err
	}
	return nil
}

// Compare takes those pairs back that are different mails, though they have one
// Message-ID, as any mail can: one was saved here, and another one came there. Those of
// which ask says so are fetched and compared with their files in the folder.
func (m *Matcher) Compare(ctx context.Context, s Session, dir maildir.Dir, listed []mail.Message, pairs map[imap.UID]plan.Untracked, ask func(mail.Message, plan.Untracked) bool) error {
	return m.compare(ctx, s, dir, listed, pairs, ask, func(here, there *mail.Content, _, _ io.ReadSeeker) (bool, error) { return here.Is(there), nil })
}

// CompareKept is Compare of mail that has been here and there: a server, or a list, may have
// put something below one of them since.
func (m *Matcher) CompareKept(ctx context.Context, s Session, dir maildir.Dir, listed []mail.Message, pairs map[imap.UID]plan.Untracked, ask func(mail.Message, plan.Untracked) bool) error {
	return m.compare(ctx, s, dir, listed, pairs, ask, func(here, there *mail.Content, file, spool io.ReadSeeker) (bool, error) {
		if here.Is(there) || !here.Headed(there) {
			return here.Is(there), nil
		}
		return mail.Extends(file, spool)
	})
}

func (m *Matcher) compare(ctx context.Context, s Session, dir maildir.Dir, listed []mail.Message, pairs map[imap.UID]plan.Untracked, ask func(mail.Message, plan.Untracked) bool,
	same func(here, there *mail.Content, file, spool io.ReadSeeker) (bool, error)) error {
	var uids []imap.UID
	for _, l := range listed {
		if h, ok := pairs[l.UID]; ok && ask(l, h) {
			uids = append(uids, l.UID)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	return fetch(ctx, s, uids, mail.Sink{
		Open: func(int64) (mail.Spool, error) {
			f, err := os.CreateTemp(m.Dir, "compare-")
			return kept{f}, err
		},
		Done: func(l mail.Message, sp mail.Spool) error {
			spool := sp.(kept) //nolint:forcetypeassert // it is what Open gave
			defer spool.Discard()
			h, ok := pairs[l.UID]
			if !ok {
				return nil
			}
			file, err := open(dir, h)
			if errors.Is(err, fs.ErrNotExist) {
				// It was taken away since it was read.
				sum := mail.NewDigester()
				if _, err := spool.Seek(0, io.SeekStart); err != nil {
					return err
				}
				if _, err := io.Copy(sum, spool); err != nil {
					return err
				}
				if sum.Sum() != h.Digest {
					delete(pairs, l.UID)
				}
				return nil
			}
			if err != nil {
				return err
			}
			is, err := alike(file, spool, same)
			if err == nil && !is {
				delete(pairs, l.UID)
			}
			return errors.Join(err, file.Close())
		},
	})
}

// open opens a file of a folder under the name that it has now.
func open(dir maildir.Dir, h plan.Untracked) (*os.File, error) {
	name, ok, err := dir.Locate(h.Key, h.Name)
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	return maildir.Open(dir.Path(name))
}

func alike(file, spool io.ReadSeeker, same func(here, there *mail.Content, file, spool io.ReadSeeker) (bool, error)) (bool, error) {
	var read [2]*mail.Content
	for i, f := range []io.ReadSeeker{file, spool} {
		_, err := f.Seek(0, io.SeekStart)
		if err == nil {
			read[i], err = mail.ContentOf(f)
		}
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return false, err
		}
	}
	return same(read[0], read[1], file, spool)
}

// Unproven is what Compare is to ask of files that are new here: all but what the server
// said itself that it is (told), and what has the size and date with which we put it there.
func (m *Matcher) Unproven(told map[imap.UID]string) func(mail.Message, plan.Untracked) bool {
	return func(l mail.Message, h plan.Untracked) bool {
		return told[l.UID] != h.Key && (!m.Ours(h.Key) || l.Size != h.Size || plan.Weigh(plan.Told(l), h.Traits()).Date != plan.Equal)
	}
}

// kept is a spool in a file that is read once.
type kept struct{ *os.File }

func (k kept) Discard() {
	_ = k.Close()
	_ = os.Remove(k.Name()) // the account's directory is ours; what is left there costs nothing
}
