package mail

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"mime"
	"strings"
)

// Content is what makes a mail the one that it is, however it came here.
type Content struct {
	from, date, subject string
	body                [sha256.Size]byte // with its line ends as LF, without what is blank at its end
}

// Is tells whether two mails are the same. A mailing list may have put its name before
// the subject.
func (c *Content) Is(o *Content) bool { return c.body == o.body && c.Headed(o) }

// Headed tells whether two mails are so by their headers.
func (c *Content) Headed(o *Content) bool {
	return c.from == o.from && c.date == o.date && (strings.HasSuffix(c.subject, o.subject) || strings.HasSuffix(o.subject, c.subject))
}

// maxHead is how much of a mail's header is looked at, in bytes.
const maxHead = 64 << 10

// readHead reads the header of a mail.
func readHead(r *bufio.Reader) ([]byte, error) {
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
	return head.Bytes(), nil
}

// ContentOf reads a mail; its errors are those of from.
func ContentOf(from io.Reader) (*Content, error) {
	r := bufio.NewReader(from)
	head, err := readHead(r)
	if err != nil {
		return nil, err
	}
	h := ParseEnvelope(head)
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

// maxFooter is how much a list or a server puts below a text, in bytes, at most.
const maxFooter = 4 << 10

// Extends tells whether the text of one of two mails is that of the other with something below
// it, as a list or a server puts a footer there. The shorter one has to be whole, as far as can be
// seen: what a full disk or a crash cut off ends in the midst of a line, or before the last
// boundary of its parts. Errors are those of a and b.
func Extends(a, b io.Reader) (bool, error) {
	begins, _, err := begins(a, b)
	return begins, err
}

// IsCut tells whether the text of the mail a is the beginning of that of b, and is not whole in that
// sense. Errors are those of a and b.
func IsCut(a, b io.Reader) (bool, error) {
	_, cut, err := begins(a, b)
	return cut, err
}

// begins tells whether of two texts one is the other with something below it, or they are the same,
// or whether a is the beginning of b that was cut off.
func begins(a, b io.Reader) (extends, cut bool, err error) {
	x, y := bufio.NewReader(a), bufio.NewReader(b)
	end := ""
	for _, r := range []*bufio.Reader{x, y} {
		head, err := readHead(r)
		if err != nil {
			return false, false, err
		}
		_, params, err := mime.ParseMediaType(ParseHeader(head).Get("Content-Type"))
		if b := params["boundary"]; err == nil && b != "" {
			end = "--" + b + "--"
		}
	}
	var line bytes.Buffer // as far as it may be the end of the parts
	ended, whole := end == "", false
	for {
		c, err := nextOf(x)
		d, err2 := nextOf(y)
		switch {
		case errors.Is(err, io.EOF) && err2 == nil:
			footer, err := isFooter(y, ended && whole)
			return footer, !footer, err
		case errors.Is(err2, io.EOF) && err == nil:
			footer, err := isFooter(x, ended && whole)
			return footer, false, err
		case errors.Is(err, io.EOF) && errors.Is(err2, io.EOF):
			return true, false, nil
		case err != nil || err2 != nil:
			return false, false, errors.Join(err, err2)
		case c != d:
			return false, false, nil
		}
		if whole = c == '\n'; whole {
			ended = ended || strings.TrimRight(line.String(), " \t") == end
			line.Reset()
		} else if line.Len() <= len(end) {
			line.WriteByte(c)
		}
	}
}

// isFooter tells whether what is left of a mail, of which a byte was read, may stand below the
// text of another one that is whole.
func isFooter(r *bufio.Reader, whole bool) (bool, error) {
	if !whole {
		return false, nil
	}
	n, err := io.CopyN(io.Discard, r, maxFooter)
	if errors.Is(err, io.EOF) {
		return n < maxFooter, nil
	}
	return false, err
}

// nextOf gives the next byte, but for CR.
func nextOf(r *bufio.Reader) (byte, error) {
	for {
		if c, err := r.ReadByte(); err != nil || c != '\r' {
			return c, err
		}
	}
}
