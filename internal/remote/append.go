package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// How much is sent before the answers are read. Servers answer an APPEND with a
// line or two, which the buffers of a socket hold for so many: nobody waits for
// the other to read.
const (
	flightBytes = 1 << 20
	flightMails = 64
	// literalMinus is the largest literal that LITERAL- lets go without asking
	// (RFC 7888 5).
	literalMinus = 4096
)

// Append gives the server mails (RFC 9051 6.3.12), many in one flight where it
// takes literals without being asked (RFC 7888). The results stand at the places
// of the uploads. The error is of the connection; those that were not answered
// then have it, too.
func (s *Session) Append(ctx context.Context, mailbox string, uploads []mail.Upload) ([]mail.Appended, error) {
	results := make([]mail.Appended, len(uploads))
	for from := 0; from < len(uploads); {
		to, size := from, int64(0)
		for to < len(uploads) && to-from < flightMails && (to == from || size+uploads[to].Size <= flightBytes && s.unasked(uploads[to].Size)) {
			size += uploads[to].Size
			if to++; !s.unasked(uploads[from].Size) {
				break
			}
		}
		if err := s.appendSome(ctx, mailbox, uploads[from:to], results[from:to]); err != nil {
			for i := to; i < len(results); i++ {
				results[i].Err = err
			}
			return results, err
		}
		from = to
	}
	return results, nil
}

// unasked tells whether a literal may be sent without waiting for "+".
func (s *Session) unasked(size int64) bool {
	return s.Has("LITERAL+") || s.Has("LITERAL-") && size <= literalMinus
}

// appendSome is one flight. Of several mails none waits for "+".
func (s *Session) appendSome(ctx context.Context, mailbox string, uploads []mail.Upload, results []mail.Appended) error {
	// What cannot be read is found before anything of it is announced.
	var files []*os.File
	var index []int
	defer func() {
		for _, f := range files {
			_ = f.Close() // only read
		}
	}()
	for i, u := range uploads {
		f, err := openSized(u)
		if err != nil {
			results[i].Err = err
			continue
		}
		files, index = append(files, f), append(index, i)
	}
	if len(files) == 0 {
		return ctx.Err()
	}
	plus := ""
	if s.unasked(uploads[index[0]].Size) {
		plus = "+"
	}
	h := handler{}
	answers, err := s.flight(ctx, "APPEND", len(files), h, func(tags []string) (early *answer, err error) {
		w := bufio.NewWriterSize(s, 64<<10)
		for n, i := range index {
			u := uploads[i]
			command := fmt.Sprintf("APPEND %s (%s) %q {%d%s}", s.Quote(mailbox), strings.Join(u.Flags, " "),
				u.InternalDate.Format("02-Jan-2006 15:04:05 -0700"), u.Size, plus)
			if s.record != nil {
				s.record.add(true, tags[n]+" "+command)
			}
			if _, err := w.WriteString(tags[n] + " " + command + "\r\n"); err != nil {
				return nil, err
			}
			if plus == "" {
				if err := w.Flush(); err != nil {
					return nil, err
				}
				if early, err := s.invited(h); early != nil || err != nil {
					return early, err
				}
			}
			size, err := copyCRLF(w, files[n])
			if _, ok := errors.AsType[*ourFault](err); ok || err == nil && size != u.Size {
				// The server waits for bytes that there are not, or takes some for
				// commands: the connection is of no more use.
				return nil, &mail.Fault{Kind: mail.KindShort, Text: u.Path + " changed while it was sent", Err: err}
			}
			if err != nil {
				return nil, err
			}
			if _, err := w.WriteString("\r\n"); err != nil {
				return nil, err
			}
		}
		return nil, w.Flush()
	})
	for n, a := range answers {
		r := &results[index[n]]
		switch {
		case a.status == "OK":
			r.UIDValidity, r.UID = appendUID(a.code)
		case a.status != "":
			f := refusal(a.status, a.code, a.text)
			f.Op, f.Mailbox = "APPEND", mailbox
			if f.Code == "OVERQUOTA" {
				f.Kind, f.RetryAfter = mail.KindNo, 0 // the mailbox is full
			}
			r.Err = f
		case err != nil:
			r.Err = err
		}
	}
	return err
}

// invited waits for the "+" that a literal needs. A tagged answer says that the
// server does not want it.
func (s *Session) invited(h handler) (*answer, error) {
	for {
		s.begin()
		c, err := s.peek()
		if err != nil {
			return nil, err
		}
		if c == '+' {
			return nil, s.skipLine()
		}
		tag, _, err := s.response(h)
		if bad, ok := errors.AsType[*errSyntax](err); ok {
			s.note("APPEND: dropped an answer that cannot be read: " + bad.Error())
			tag, err = "", s.skipLine()
		}
		if err != nil {
			return nil, err
		}
		if tag != "" {
			a, err := s.tagged()
			return &a, err
		}
	}
}

// appendUID reads APPENDUID (RFC 4315 3); zeros if it is not there.
func appendUID(code string) (validity uint64, uid imap.UID) {
	words := strings.Fields(code)
	if len(words) != 3 || words[0] != "APPENDUID" {
		return 0, 0
	}
	v, err1 := strconv.ParseUint(words[1], 10, 64)
	u, err2 := strconv.ParseUint(words[2], 10, 32)
	if err1 != nil || err2 != nil || u == 0 {
		return 0, 0
	}
	return v, imap.UID(u)
}

// openSized opens a file whose mail has the announced size.
func openSized(u mail.Upload) (*os.File, error) {
	f, err := os.Open(u.Path)
	if err != nil {
		return nil, err
	}
	n, err := copyCRLF(io.Discard, f)
	if err == nil && n != u.Size {
		err = fmt.Errorf("%s has %d bytes now and had %d", u.Path, n, u.Size)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// copyCRLF copies a mail with CRLF where it has LF, and gives the bytes written.
// An error of reading is an *ourFault.
func copyCRLF(w io.Writer, r io.Reader) (size int64, err error) {
	in, out := make([]byte, 32<<10), make([]byte, 0, 64<<10)
	cr := false // the byte before was CR
	for {
		n, err := r.Read(in)
		out = out[:0]
		for _, c := range in[:n] {
			if c == '\n' && !cr {
				out = append(out, '\r')
			}
			out = append(out, c)
			cr = c == '\r'
		}
		if _, err := w.Write(out); err != nil {
			return size, err
		}
		size += int64(len(out))
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, &ourFault{err}
		}
	}
}
