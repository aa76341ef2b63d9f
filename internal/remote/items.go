package remote

import (
	"errors"
	"io"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// bodies says what becomes of the bodies in FETCH responses.
type bodies interface {
	// open is called for a literal or quoted string of size bytes that is the
	// value of item; nil means that it is kept in memory, cut at keep bytes.
	open(item string, size int64) (io.Writer, error)
}

// maxFlags bounds the flags of one message, and one flag's length.
const (
	maxFlags   = 1000
	maxFlagLen = 1000
)

// fetch takes the items of a FETCH response, from the opening parenthesis on to
// the end of the line. If it cannot be read on after a literal, the literal was
// not as long as announced, and what follows may be any part of a mail: that is
// a fault, since nothing more can be believed on this connection.
func (r *reader) fetch(seq uint32, keep int64, to bodies) (mail.Fetched, error) {
	f, err := r.items(seq, keep, to)
	if bad, ok := errors.AsType[*errSyntax](err); ok && r.literals > 0 {
		err = &mail.Fault{Kind: mail.KindShort, Text: "a literal is not as long as announced: " + bad.what}
	}
	return f, err
}

func (r *reader) items(seq uint32, keep int64, to bodies) (mail.Fetched, error) {
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
	c, err := r.peek()
	if err != nil {
		return err
	}
	if name == "FLAGS" {
		flags, err := r.words()
		if err != nil {
			return err
		}
		f.Flags = r.cleanFlags(flags)
		f.Items[name] = mail.Value{Text: []byte(strings.Join(flags, " "))}
		return nil
	}
	if c == '(' {
		raw, err := r.list()
		if err != nil {
			return err
		}
		if name == "MODSEQ" {
			f.ModSeq, _ = strconv.ParseUint(strings.Trim(raw, "() "), 10, 64) // 0: not told
		}
		f.Items[name] = r.value(raw, keep)
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
	v := mail.Value{Nil: true}
	if !isNil {
		v = r.value(s, keep)
	}
	if to != nil && c == '"' {
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
	case "X-GM-MSGID":
		f.GmailID, _ = strconv.ParseUint(s, 10, 64) // 0: not told
	case "INTERNALDATE":
		f.InternalDate = parseDate(s)
	}
	f.Items[name] = v
	return nil
}

// value keeps a string, cut at keep bytes.
func (r *reader) value(s string, keep int64) mail.Value {
	return mail.Value{Text: []byte(s[:r.room(int64(len(s)), keep)]), Size: int64(len(s))}
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
	b, err := r.keep(n, keep)
	return mail.Value{Text: b, Size: n}, err
}

// cleanFlags leaves out \Recent (RFC 3501 2.3.2: the session's) and what cannot
// be a flag.
func (r *reader) cleanFlags(flags []string) []string {
	out := make([]string, 0, min(len(flags), maxFlags))
	for _, f := range flags {
		if strings.EqualFold(f, `\Recent`) || len(f) > maxFlagLen || strings.ContainsFunc(f, func(c rune) bool {
			return c <= ' ' || c == '"' || c == '(' || c == '{' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0xfffd
		}) {
			continue
		}
		if out = append(out, r.name(f)); len(out) == maxFlags {
			break
		}
	}
	return out
}

// name gives one and the same string for each flag: a hundred thousand messages
// have ten names between them.
func (r *reader) name(flag string) string {
	if one, ok := r.names[flag]; ok {
		return one
	}
	if r.names == nil {
		r.names = make(map[string]string)
	}
	flag = strings.Clone(flag)
	if len(r.names) < 10_000 {
		r.names[flag] = flag
	}
	return flag
}

// parseDate reads an INTERNALDATE (RFC 9051 date-time), also in the forms that servers have
// in its place; zero if it cannot.
func parseDate(s string) time.Time {
	s = strings.Join(strings.Fields(s), " ")
	for _, layout := range []string{
		"2-Jan-2006 15:04:05 -0700", "2-Jan-2006 15:04:05 -07:00", "2-Jan-2006 15:04:05 MST", "2-Jan-2006 15:04:05",
		"2-Jan-2006 15:04 -0700", "2-Jan-06 15:04:05 -0700", "2 Jan 2006 15:04:05 -0700", "2-Jan-2006", time.RFC3339, "2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	t, _ := netmail.ParseDate(s) // as in a header; zero if it cannot
	return t
}
