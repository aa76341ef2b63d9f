package remote

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// reader reads responses, leniently: what it cannot read it drops up to the end
// of that response, and says so. Only a connection that ends, or a bound that is
// broken, is an error.
type reader struct {
	*wire
	maxLiteral int64
	maxLine    int    // bytes of a response, literals apart
	tag        string // what our tags begin with

	// Of the response that is being read:
	used     int   // bytes so far, literals apart
	literals int   // how many were read
	brace    int   // how much of "{123}" came last, see mark
	number   int64 // the number in it
	next     int64 // size of a literal that was announced and not read yet; or -1

	// Of the command:
	junk    int   // bytes dropped, literals apart
	dropped int64 // bytes of literals dropped
	kept    int64 // bytes of literals and strings kept in memory
	lost    bool  // a response could not be read
	took    int64 // bytes of the responses before, with the literals that were kept or dropped
	left    int64 // how many more its answers may have

	names map[string]string // one copy of each flag's name
}

// begin forgets the last response.
func (r *reader) begin() {
	r.took += int64(r.used)
	r.used, r.literals, r.brace, r.next = 0, 0, 0, -1
}

// beginCommand forgets the last command.
func (r *reader) beginCommand() {
	r.rest()
	r.junk, r.dropped, r.kept, r.lost = 0, 0, 0, false
	r.begin()
	r.took, r.left = 0, math.MaxInt64
}

// count adds bytes of a response.
func (r *reader) count(n int) error {
	if r.used += n; r.used > r.maxLine {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a response of more than %d bytes", r.maxLine)}
	}
	if int64(r.used) > r.left {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of answers"}
	}
	return nil
}

// errSyntax says that the rest of a response cannot be read.
type errSyntax struct{ what string }

func (e *errSyntax) Error() string { return e.what }

func syntax(format string, args ...any) error { return &errSyntax{fmt.Sprintf(format, args...)} }

// peek gives the next byte without taking it.
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
	if err := r.count(1); err != nil {
		return 0, err
	}
	r.mark(c)
	if r.record != nil {
		if c == '\n' {
			r.record.end(false)
		} else if c != '\r' {
			r.record.take(c)
		}
	}
	return c, nil
}

// mark watches for the announcement of a literal at the end of a line, so that
// a response that cannot be read is skipped with its literals: what is in a
// mail must not be taken for the server's words.
func (r *reader) mark(c byte) {
	switch {
	case c == '{':
		r.brace, r.number = 1, 0
	case r.brace == 0:
	case c >= '0' && c <= '9' && r.brace == 1 && r.number < 1<<59:
		r.number = r.number*10 + int64(c-'0')
	case c == '+' && r.brace == 1:
		r.brace = 2
	case c == '}' && r.brace < 3:
		r.brace = 3
	case c == '\r' && r.brace == 3:
	case c == '\n' && r.brace == 3:
		r.next, r.brace = r.number, 0
	default:
		r.brace = 0
	}
}

// run takes bytes up to one of stops, all of them ASCII, by the bufferful, and
// gives the first most of them to b. took says how many there were.
func (r *reader) run(stops string, b *strings.Builder, most int) (took int, err error) {
	for {
		if _, err := r.peek(); err != nil {
			return took, err
		}
		part, err := r.br.Peek(r.br.Buffered())
		if err != nil {
			return took, ioFault(err)
		}
		end := bytes.IndexAny(part, stops)
		if end >= 0 {
			part = part[:end]
		}
		took += len(part)
		if err := r.count(len(part)); err != nil {
			return took, err
		}
		// Only the last announcement can be one at the end of the line.
		tail := part
		if i := bytes.LastIndexByte(part, '{'); i >= 0 {
			tail = part[i:]
		}
		for i := 0; i < len(tail) && (r.brace != 0 || tail[i] == '{'); i++ {
			r.mark(tail[i])
		}
		if r.record != nil {
			r.record.take(part...)
		}
		b.Write(part[:max(0, min(len(part), most-b.Len()))])
		if _, err := r.br.Discard(len(part)); err != nil {
			return took, ioFault(err)
		}
		if end >= 0 {
			return took, nil
		}
	}
}

// line takes the rest of a response, to the end of the line, and on if the line
// ends with a literal. It gives the first most bytes, literals apart, and then
// "..." if there are more.
func (r *reader) line(most int) (string, error) {
	var text strings.Builder
	all := 0
	for {
		if n := r.next; n >= 0 {
			if r.dropped += n; r.dropped > r.maxLiteral {
				return "", &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a literal of %d bytes that nobody asked for", n)}
			}
			if err := r.literal(n, io.Discard); err != nil {
				return "", err
			}
		}
		took, err := r.run("\n", &text, most)
		if err == nil {
			_, err = r.byte()
		}
		if err != nil {
			return "", err
		}
		all += took
		if r.junk += took; r.junk > maxJunk {
			return "", &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("more than %d bytes that nobody asked for", maxJunk)}
		}
		if r.next < 0 {
			line := text.String()
			if all > len(line) {
				line = r.shorn(line) + "..."
			}
			return strings.ReplaceAll(line, "\r", ""), nil
		}
	}
}

// skipLine takes the rest of a response.
func (r *reader) skipLine() error {
	_, err := r.line(0)
	return err
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
	r.literals++
	r.next = -1
	var end tail
	var shown *head
	if r.record != nil {
		shown = &head{most: maxLiteralText}
		defer func() { r.record.literal(shown.b, n) }()
	}
	for left := n; left > 0; {
		// As much as is there: a buffer more would be a copy more.
		if _, err := r.br.Peek(1); err != nil {
			return r.cutShort(n, end, err)
		}
		b, err := r.br.Peek(int(min(left, int64(r.br.Buffered()))))
		if err != nil {
			return ioFault(err)
		}
		if shown != nil {
			_, _ = shown.Write(b) // never fails
		}
		end.add(b)
		if _, err := to.Write(b); err != nil {
			return &ourFault{err}
		}
		left -= int64(len(b))
		if _, err := r.br.Discard(len(b)); err != nil {
			return ioFault(err)
		}
	}
	return nil
}

// cutShort says why a literal of n bytes ended before its time.
func (r *reader) cutShort(n int64, end tail, err error) error {
	f := ioFault(err)
	if bytes.Contains(end, []byte("\r\n"+r.tag)) {
		// The answer to the command was taken for a part of the literal.
		f.Kind, f.Text = mail.KindShort, fmt.Sprintf("a literal of %d bytes is announced, and fewer come", n)
	}
	return f
}

// tail is the last bytes of a literal.
type tail []byte

func (t *tail) add(p []byte) {
	const most = 4 << 10
	if len(p) >= most {
		*t = append((*t)[:0], p[len(p)-most:]...)
		return
	}
	if *t = append(*t, p...); len(*t) > 4*most {
		*t = append((*t)[:0], (*t)[len(*t)-most:]...)
	}
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
		switch {
		case c == '[':
			depth++
		case c == ']' && depth > 0:
			depth--
		}
		if _, err := r.byte(); err != nil {
			return "", err
		}
		b.WriteByte(c)
	}
}

// text takes the rest of a line of text.
func (r *reader) text() (string, error) { return r.restOfLine(maxText) }

// dataLine takes the rest of a response without literals.
func (r *reader) dataLine() (string, error) { return r.restOfLine(maxData) }

// restOfLine takes the rest of a line of at most so many bytes.
func (r *reader) restOfLine(most int) (string, error) {
	var b strings.Builder
	took, err := r.run("\n", &b, most)
	if err == nil {
		_, err = r.byte()
	}
	if err == nil && took > most {
		err = &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a line of more than %d bytes", most)}
	}
	return strings.TrimSuffix(b.String(), "\r"), err
}

// quoted takes a quoted string. Quotes that are not escaped (iCloud,
// mailcore2#1967) end it where a delimiter follows.
func (r *reader) quoted() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	var b strings.Builder
	for {
		if _, err := r.run("\"\\\r\n", &b, maxData); err != nil {
			return "", err
		}
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
		b, err := r.keep(n, most)
		return string(b), false, err
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

// maxMemory bounds what is kept of the literals and strings of one command, in
// bytes.
const maxMemory = 64 << 20

// room says how many of n bytes may be kept, and counts them.
func (r *reader) room(n, most int64) int64 {
	n = max(0, min(n, most, maxMemory-r.kept))
	r.kept += n
	return n
}

// keep takes a literal of n bytes and keeps at most so many.
func (r *reader) keep(n, most int64) ([]byte, error) {
	h := &head{most: int(r.room(n, most))}
	r.took += n
	err := r.literal(n, h)
	return h.b, err
}

// writeQuoted writes a string with quotes. Its bytes stay what they are, line
// ends as well, which is more than a quoted string may hold on the wire.
func writeQuoted(b *strings.Builder, s string) {
	b.WriteString(`"` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`) + `"`)
}

// list takes a parenthesised list as raw text. Its literals become quoted
// strings.
func (r *reader) list() (string, error) {
	var b strings.Builder
	depth := 0
	for {
		if _, err := r.run("\"(){~\r\n", &b, maxData); err != nil {
			return "", err
		}
		n, ok, err := r.announce()
		if err != nil {
			return "", err
		}
		if ok {
			kept, err := r.keep(n, maxText)
			if err != nil {
				return "", err
			}
			writeQuoted(&b, string(kept))
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
			writeQuoted(&b, s)
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

// words takes a parenthesised list of words: flags, attributes. Servers put
// quotes, brackets and any byte into it; only the closing parenthesis ends it.
// NIL is an empty list.
func (r *reader) words() ([]string, error) {
	c, err := r.peek()
	if err != nil {
		return nil, err
	}
	if c != '(' {
		s, err := r.word()
		if err == nil && !strings.EqualFold(s, "NIL") {
			err = syntax("%q where a list should be", r.shown(s, 20))
		}
		return nil, err
	}
	if _, err := r.byte(); err != nil {
		return nil, err
	}
	var b strings.Builder
	if _, err := r.run(")\r\n", &b, maxData); err != nil {
		return nil, err
	}
	if err := r.expect(')'); err != nil {
		return nil, err
	}
	return strings.Fields(b.String()), nil
}
