package remote

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// reader reads responses, leniently: what it cannot read it drops up to the end
// of that response, and says so. Only a connection that ends, or a bound that is
// broken, is an error.
type reader struct {
	*wire
	maxLiteral int64
	used       int // bytes of the response so far, literals apart
	junk       int // bytes dropped during this command
}

// errSyntax says that the rest of a response cannot be read.
type errSyntax struct{ what string }

func (e *errSyntax) Error() string { return e.what }

func syntax(format string, args ...any) error { return &errSyntax{fmt.Sprintf(format, args...)} }

// next gives the next byte without taking it.
func (r *reader) peek() (byte, error) {
	b, err := r.br.Peek(1)
	if err != nil {
		return 0, ioFault(err)
	}
	return b[0], nil
}

// byte takes the next byte.
func (r *reader) byte() (byte, error) {
	c, err := r.br.ReadByte()
	if err != nil {
		return 0, ioFault(err)
	}
	if r.used++; r.used > maxData {
		return 0, &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a response of more than %d bytes", maxData)}
	}
	if r.record != nil {
		if c == '\n' {
			r.record.end()
		} else if c != '\r' {
			r.record.take([]byte{c})
		}
	}
	return c, nil
}

// skipLine takes the rest of a response: to the end of the line, and on if the
// line ends with a literal.
func (r *reader) skipLine() error {
	var tail []byte // enough of the end to hold "{18446744073709551615+}"
	for {
		c, err := r.byte()
		if err != nil {
			return err
		}
		if r.junk++; r.junk > maxJunk {
			return &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("more than %d bytes that cannot be read", maxJunk)}
		}
		if c != '\n' {
			if c != '\r' {
				if len(tail) == 32 {
					tail = tail[1:]
				}
				tail = append(tail, c)
			}
			continue
		}
		n, ok := literalSize(string(tail))
		if !ok {
			return nil
		}
		tail = tail[:0]
		if err := r.literal(n, io.Discard); err != nil {
			return err
		}
	}
}

// literalSize reads the announcement of a literal at the end of a line.
func literalSize(line string) (int64, bool) {
	i := strings.LastIndexByte(line, '{')
	if i < 0 || !strings.HasSuffix(line, "}") {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(line[i+1:len(line)-1], "+"), 10, 64)
	return n, err == nil && n >= 0
}

// literal copies the n bytes of a literal.
func (r *reader) literal(n int64, to io.Writer) error {
	if n > r.maxLiteral {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a literal of %d bytes", n)}
	}
	var shown *head
	if r.record != nil {
		shown = &head{most: maxLiteralText}
		to = io.MultiWriter(shown, to)
	}
	_, err := io.CopyN(writeFault{to}, r.br, n)
	if shown != nil {
		r.record.literal(shown.b, n)
	}
	var w *ourFault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &w):
		return w
	}
	return ioFault(err)
}

// head keeps the first bytes.
type head struct {
	b    []byte
	most int
}

func (h *head) Write(p []byte) (int, error) {
	if room := h.most - len(h.b); room > 0 {
		h.b = append(h.b, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// ourFault is an error of whoever takes the bytes, not of the server.
type ourFault struct{ err error }

func (e *ourFault) Error() string { return e.err.Error() }
func (e *ourFault) Unwrap() error { return e.err }

type writeFault struct{ w io.Writer }

func (w writeFault) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = &ourFault{err}
	}
	return n, err
}

// expect takes one byte.
func (r *reader) expect(want byte) error {
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c != want {
		return syntax("%q instead of %q", c, want)
	}
	_, err = r.byte()
	return err
}

// spaces takes any number of spaces: there is one, but not from every server.
func (r *reader) spaces() error {
	for {
		c, err := r.peek()
		if err != nil || c != ' ' {
			return err
		}
		if _, err := r.byte(); err != nil {
			return err
		}
	}
}

// word takes bytes up to a delimiter. Brackets hold what is in them together:
// BODY[HEADER.FIELDS (FROM)] is one word.
func (r *reader) word() (string, error) {
	var b strings.Builder
	depth := 0
	for {
		c, err := r.peek()
		if err != nil {
			return "", err
		}
		if c == '\r' || c == '\n' || depth == 0 && (c == ' ' || c == '(' || c == ')') || c == '"' && b.Len() == 0 {
			return b.String(), nil
		}
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		}
		if _, err := r.byte(); err != nil {
			return "", err
		}
		b.WriteByte(c)
	}
}

// text takes the rest of a line of text.
func (r *reader) text() (string, error) {
	var b strings.Builder
	for {
		c, err := r.byte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return strings.TrimSuffix(b.String(), "\r"), nil
		}
		if b.Len() > maxText {
			return "", &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a line of more than %d bytes", maxText)}
		}
		b.WriteByte(c)
	}
}

// quoted takes a quoted string. Quotes that are not escaped (iCloud,
// mailcore2#1967) end it where a delimiter follows.
func (r *reader) quoted() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	var b strings.Builder
	for {
		c, err := r.peek()
		if err != nil {
			return "", err
		}
		if c == '\r' || c == '\n' {
			return "", syntax("a quoted string without an end")
		}
		if _, err := r.byte(); err != nil {
			return "", err
		}
		switch c {
		case '\\':
			e, err := r.peek()
			if err != nil {
				return "", err
			}
			if e == '"' || e == '\\' {
				if _, err := r.byte(); err != nil {
					return "", err
				}
				c = e
			}
		case '"':
			e, err := r.peek()
			if err != nil {
				return "", err
			}
			if e == ' ' || e == ')' || e == '(' || e == '\r' || e == '\n' {
				return b.String(), nil
			}
		}
		b.WriteByte(c)
	}
}

// announce takes the announcement of a literal, if the next thing is one.
func (r *reader) announce() (n int64, ok bool, err error) {
	c, err := r.peek()
	if err != nil || c != '{' && c != '~' {
		return 0, false, err
	}
	if c == '~' { // "~{5}" is a literal8, "~user" an atom
		if two, err := r.br.Peek(2); err != nil || two[1] != '{' {
			return 0, false, nil //nolint:nilerr // the next read tells
		}
	}
	word, err := r.word()
	if err != nil {
		return 0, false, err
	}
	n, ok = literalSize(word)
	if !ok {
		return 0, false, syntax("%q announces no literal", r.shown(word, 40))
	}
	if n > r.maxLiteral {
		return 0, false, &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a literal of %d bytes", n)}
	}
	if c, err = r.peek(); err == nil && c == '\r' {
		_, err = r.byte()
	}
	if err == nil {
		err = r.expect('\n')
	}
	return n, true, err
}

// str takes a string of any form; isNil tells NIL from "NIL". It is bounded by
// most bytes.
func (r *reader) str(most int64) (s string, isNil bool, err error) {
	n, ok, err := r.announce()
	if err != nil {
		return "", false, err
	}
	if ok {
		keep := &head{most: int(min(most, maxData))}
		err := r.literal(n, keep)
		return string(keep.b), false, err
	}
	c, err := r.peek()
	if err != nil {
		return "", false, err
	}
	if c == '"' {
		s, err = r.quoted()
		return s, false, err
	}
	if s, err = r.word(); err != nil {
		return "", false, err
	}
	if s == "" {
		return "", false, syntax("%q where a string should be", c)
	}
	return s, strings.EqualFold(s, "NIL"), nil
}

// list takes a parenthesised list as raw text.
func (r *reader) list() (string, error) {
	var b strings.Builder
	depth := 0
	for {
		n, ok, err := r.announce()
		if err != nil {
			return "", err
		}
		if ok {
			keep := &head{most: maxText}
			if err := r.literal(n, keep); err != nil {
				return "", err
			}
			b.WriteString(strconv.Quote(string(keep.b)))
			if b.Len() > maxData { // literals are not in used
				return "", &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a response of more than %d bytes", maxData)}
			}
			continue
		}
		c, err := r.peek()
		if err != nil {
			return "", err
		}
		switch c {
		case '\r', '\n':
			return "", syntax("a list without an end")
		case '"':
			s, err := r.quoted()
			if err != nil {
				return "", err
			}
			b.WriteString(`"` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`) + `"`)
			continue
		case '(':
			if depth++; depth > maxDepth {
				return "", syntax("lists nested deeper than %d", maxDepth)
			}
		case ')':
			depth--
		}
		if _, err := r.byte(); err != nil {
			return "", err
		}
		b.WriteByte(c)
		if depth == 0 {
			return b.String(), nil
		}
	}
}

// words takes a parenthesised list of words: flags, attributes.
func (r *reader) words() ([]string, error) {
	raw, err := r.list()
	if err != nil {
		return nil, err
	}
	return strings.Fields(strings.Trim(raw, "()")), nil
}

// bodies says what becomes of the bodies in FETCH responses.
type bodies interface {
	// open is called for a literal or string of size bytes that is the value of
	// item; nil means that it is kept in memory, cut at keep bytes.
	open(item string, size int64) (io.Writer, error)
}

// maxFlags bounds the flags of one message, and one flag's length.
const (
	maxFlags   = 1000
	maxFlagLen = 1000
)

// fetch takes the items of a FETCH response, from the opening parenthesis on to
// the end of the line.
func (r *reader) fetch(seq uint32, keep int64, to bodies) (mail.Fetched, error) {
	f := mail.Fetched{Message: mail.Message{Seq: seq}, Items: make(map[string]mail.Value)}
	if err := r.spaces(); err != nil {
		return f, err
	}
	if err := r.expect('('); err != nil {
		return f, err
	}
	for n := 0; ; n++ {
		if err := r.spaces(); err != nil {
			return f, err
		}
		c, err := r.peek()
		if err != nil {
			return f, err
		}
		if c == ')' {
			if _, err := r.byte(); err != nil {
				return f, err
			}
			break
		}
		if n > 1000 {
			return f, syntax("more than a thousand items")
		}
		name, err := r.word()
		if err != nil {
			return f, err
		}
		if name == "" {
			return f, syntax("%q where an item should be", c)
		}
		if err := r.spaces(); err != nil {
			return f, err
		}
		if err := r.item(&f, strings.ToUpper(name), keep, to); err != nil {
			return f, err
		}
	}
	// Exchange 2003 and others put spaces, or a stray byte, behind.
	c, err := r.peek()
	for err == nil && (c == ' ' || c == '\r') {
		if _, err = r.byte(); err == nil {
			c, err = r.peek()
		}
	}
	if err != nil {
		return f, err
	}
	return f, r.expect('\n')
}

// item takes one item's value.
func (r *reader) item(f *mail.Fetched, name string, keep int64, to bodies) error {
	switch name {
	case "FLAGS":
		flags, err := r.words()
		if err != nil {
			return err
		}
		f.Flags = cleanFlags(flags)
		f.Items[name] = mail.Value{Text: []byte(strings.Join(flags, " "))}
		return nil
	case "MODSEQ", "X-GM-LABELS":
		raw, err := r.list()
		if err != nil {
			return err
		}
		if name == "MODSEQ" {
			f.ModSeq, _ = strconv.ParseUint(strings.Trim(raw, "() "), 10, 64) // 0: not told
		}
		f.Items[name] = mail.Value{Text: []byte(raw)}
		return nil
	}
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c == '(' {
		raw, err := r.list()
		if err != nil {
			return err
		}
		f.Items[name] = mail.Value{Text: []byte(raw), Size: int64(len(raw))}
		return nil
	}
	n, isLiteral, err := r.announce()
	if err != nil {
		return err
	}
	if isLiteral {
		v, err := r.body(name, n, keep, to)
		if err != nil {
			return err
		}
		f.Items[name] = v
		return nil
	}
	s, isNil, err := r.str(maxData)
	if err != nil {
		return err
	}
	v := mail.Value{Nil: isNil, Text: []byte(s), Size: int64(len(s))}
	if isNil {
		v.Text, v.Size = nil, 0
	} else if to != nil {
		// A body may come as a quoted string, too.
		w, err := to.open(name, v.Size)
		if err != nil {
			return &ourFault{err}
		}
		if w != nil {
			if _, err := io.WriteString(w, s); err != nil {
				return &ourFault{err}
			}
		}
	}
	switch name {
	case "UID":
		u, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return syntax("UID %s", r.shown(s, 20))
		}
		f.UID = imap.UID(u)
	case "RFC822.SIZE":
		if f.Size, err = strconv.ParseInt(s, 10, 64); err != nil || f.Size < 0 {
			f.Size = 0 // Exchange and others tell nonsense; it is only a hint
		}
	case "INTERNALDATE":
		f.InternalDate = parseDate(s)
	}
	f.Items[name] = v
	return nil
}

// body takes a literal that is an item's value.
func (r *reader) body(name string, n, keep int64, to bodies) (mail.Value, error) {
	if to != nil {
		w, err := to.open(name, n)
		if err != nil {
			return mail.Value{}, &ourFault{err}
		}
		if w != nil {
			return mail.Value{Size: n}, r.literal(n, w)
		}
	}
	kept := &head{most: int(min(keep, n))}
	err := r.literal(n, kept)
	return mail.Value{Text: kept.b, Size: n}, err
}

// cleanFlags leaves out \Recent (RFC 3501 2.3.2: the session's) and what cannot
// be a flag.
func cleanFlags(flags []string) []string {
	out := make([]string, 0, min(len(flags), maxFlags))
	for _, f := range flags {
		if strings.EqualFold(f, `\Recent`) || len(f) > maxFlagLen || strings.ContainsFunc(f, func(c rune) bool { return c <= ' ' || c == '"' || c == '{' || c == 0x7f || c == 0xfffd }) {
			continue
		}
		if out = append(out, f); len(out) == maxFlags {
			break
		}
	}
	return out
}

// parseDate reads an INTERNALDATE (RFC 9051 date-time); zero if it cannot.
func parseDate(s string) time.Time {
	s = strings.TrimSpace(s)
	for _, layout := range []string{"2-Jan-2006 15:04:05 -0700", "2-Jan-2006 15:04:05 MST", "2-Jan-2006 15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}
