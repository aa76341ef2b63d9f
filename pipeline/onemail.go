package pipeline

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// oneMail tells whether all files of a message are the same mail. notmuch joins them
// by their Message-ID alone, which any sender can copy from a mail that is here: what
// is said of the one would then be done to the other.
func oneMail(t mail.Tagged) (bool, error) {
	files := slices.Concat(t.Paths, t.Others)
	if len(files) < 2 {
		return true, nil
	}
	var first *content
	for _, path := range files {
		c, err := contentOf(path)
		switch {
		case err != nil:
			return false, err
		case c == nil: // its file is gone
		case first == nil:
			first = c
		case !first.is(c):
			return false, nil
		}
	}
	return true, nil
}

// content is what makes a mail the one that it is, however it came here.
type content struct {
	from, date, subject string
	body                [sha256.Size]byte // with its line ends as LF, without what is blank at its end
}

// is tells whether two mails are the same. A mailing list may have put its name before
// the subject.
func (c *content) is(o *content) bool {
	return c.from == o.from && c.date == o.date && c.body == o.body && (strings.HasSuffix(c.subject, o.subject) || strings.HasSuffix(o.subject, c.subject))
}

// maxHead is how much of a mail's header is looked at, in bytes.
const maxHead = 64 << 10

// contentOf reads a mail; nil if its file is gone.
func contentOf(path string) (*content, error) {
	f, err := openRenamed(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // said in the comment
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return contentFrom(f)
}

func contentFrom(from io.Reader) (*content, error) {
	r := bufio.NewReader(from)
	var head bytes.Buffer
	for head.Len() < maxHead {
		line, err := r.ReadSlice('\n')
		head.Write(line)
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	h := mail.ParseEnvelope(head.Bytes())
	c := &content{from: mail.FoldSpace(h.From), date: mail.FoldSpace(h.Fields.Get("Date")), subject: mail.FoldSpace(h.Subject)}
	hash := sha256.New()
	sum, blank := bufio.NewWriter(hash), 0
	for {
		b, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		switch b {
		case '\r':
		case '\n':
			blank++
		default:
			for ; blank > 0; blank-- {
				_ = sum.WriteByte('\n')
			}
			_ = sum.WriteByte(b) // a hash takes all
		}
	}
	if err := sum.Flush(); err != nil {
		return nil, err
	}
	hash.Sum(c.body[:0])
	return c, nil
}

// openRenamed opens a mail by a path that may be older than the name of its file.
func openRenamed(path string) (*os.File, error) {
	f, err := os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	dir := maildir.Dir(filepath.Dir(filepath.Dir(path)))
	key, _ := maildir.ParseName(path)
	name, ok, err := dir.Find(key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fs.ErrNotExist
	}
	return os.Open(filepath.Join(string(dir), name))
}
