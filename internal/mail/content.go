package mail

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
)

// Content is what makes a mail the one that it is, however it came here.
type Content struct {
	from, date, subject string
	body                [sha256.Size]byte // with its line ends as LF, without what is blank at its end
}

// Is tells whether two mails are the same. A mailing list may have put its name before
// the subject.
func (c *Content) Is(o *Content) bool {
	return c.body == o.body && c.from == o.from && c.date == o.date && (strings.HasSuffix(c.subject, o.subject) || strings.HasSuffix(o.subject, c.subject))
}

// maxHead is how much of a mail's header is looked at, in bytes.
const maxHead = 64 << 10

// ContentOf reads a mail; its errors are those of from.
func ContentOf(from io.Reader) (*Content, error) {
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
	h := ParseEnvelope(head.Bytes())
	c := &Content{from: FoldSpace(h.From), date: FoldSpace(h.Fields.Get("Date")), subject: FoldSpace(h.Subject)}
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
