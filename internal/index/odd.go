package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What a rebuild finds out of the files before it begins: a file that is no mail any more, or
// another one, would end it when most of its work is done.

// oddFile says why libnotmuch would not take a file for what the database has of it.
type oddFile string

func (o oddFile) Error() string { return string(o) }

// openMail opens a file if it is a regular one: nothing else is mail, and to open a FIFO may take for ever.
func openMail(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = oddFile(path + " is no regular file")
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// look is what is seen of a file in a moment.
type look struct {
	id   string // what its message's seems to be
	size int64
	refs []string // ids that it names in its header
	odd  bool     // libnotmuch may not take it for a mail, or not for that of the message
}

// lookAt looks at a file of a message; of any, if its id is not known.
func lookAt(path, id string) (l look, err error) {
	f, size, err := openMail(path)
	if err != nil {
		return l, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	l.size = size
	h, err := mail.ReadHeader(f, "References", "In-Reply-To", "Message-ID", "From", "Subject", "To")
	if err != nil {
		return l, err
	}
	own, isMail := "", false
	for _, field := range h {
		switch strings.ToLower(field.Name) {
		case "message-id":
			own = mail.MessageID(field.Value)
		case "from", "subject", "to":
			isMail = isMail || field.Value != ""
		default:
			for _, part := range strings.Split(field.Value, "<")[1:] {
				if id, _, closed := strings.Cut(part, ">"); closed && id != "" {
					l.refs = append(l.refs, mail.MessageID("<"+id+">"))
				}
			}
		}
	}
	other := func() bool { return id != "" && own != mail.NotmuchID(id) }
	if own == "" || other() {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return l, err
		}
		if own, err = mail.MadeUpID(f); err != nil {
			return l, err
		}
	}
	l.id, l.odd = own, !isMail || other()
	return l, nil
}

// oddFiles is files, and the messages that the database has them for.
type oddFiles struct {
	paths, ids []string
	why        []string // of those that are odd
}

// ask has libnotmuch tell which of the files that look odd are so, by a database that nobody
// else sees.
func (o *oddFiles) ask(ctx context.Context, root, config string) (err error) {
	if len(o.paths) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "notmuch-imap-odd-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := &workshop{dir: dir, config: config}
	x, err := w.open(baseName, root)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(x.own, 0o700), x.create()); err != nil {
		return err
	}
	x.path = xapianDir(x.own)
	return x.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		return atomically(db, func() error {
			for i, path := range o.paths {
				err := errors.Join(indexFile(db, path, o.ids[i]), ctx.Err())
				if errors.As(err, new(oddFile)) {
					o.why = append(o.why, err.Error())
				} else if err != nil && !errors.Is(err, ErrStale) {
					return err
				}
			}
			return nil
		})
	})
}

// mostOdd is how many files are named at once.
const mostOdd = 10

// err names them.
func (o *oddFiles) err() error {
	if len(o.why) == 0 {
		return nil
	}
	const advice = "give them the contents back that they had, or move them out of the mail root and run `notmuch new`, which forgets their tags where the message has no other file"
	text := strings.Join(o.why[:min(len(o.why), mostOdd)], "; ")
	if more := len(o.why) - mostOdd; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Errorf("files that are not what notmuch knows them as: %d (%s): %s", len(o.why), text, advice)
}

// files looks at all files of a message.
func (r *rebuilding) files(m record, gone *absent, odd *oddFiles) error {
	for _, f := range m.Files {
		path := filepath.Join(r.conf.mailRoot, f)
		l, err := lookAt(path, m.ID)
		if errors.Is(err, fs.ErrNotExist) {
			if path, err = locate(path, nil); err == nil {
				l, err = lookAt(path, m.ID)
			}
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			gone.add(path)
		case errors.As(err, new(oddFile)):
			odd.why = append(odd.why, err.Error())
		case err != nil:
			return err
		case l.odd:
			odd.paths, odd.ids = append(odd.paths, path), append(odd.ids, m.ID)
		}
		r.grove.file(m.ID, l.refs, l.size)
	}
	return nil
}
