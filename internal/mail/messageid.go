package mail

import (
	"crypto/sha1" //nolint:gosec // libnotmuch's choice; it is a name, not a proof
	"encoding/hex"
	"mime"
	"strings"
	"unicode/utf8"
)

// maxMessageID is the longest id that libnotmuch takes as it is, in bytes
// (NOTMUCH_MESSAGE_ID_MAX of notmuch 0.37).
const maxMessageID = 189

// madeUp is what ids begin with that libnotmuch makes: of an id that is too long,
// or, without any, of the whole file.
const madeUp = "notmuch-sha1-"

// MessageID gives the id that libnotmuch 0.37 makes of a mail with this value in
// its first Message-ID field: the one form in which ids of notmuch, of a file and
// of a server's answer are compared. It is "" where there is no id; libnotmuch then
// takes a hash of the file, which no server can tell.
//
// libnotmuch (lib/message-id.c) takes what stands between the first angle
// brackets, comments and blanks left out, but of several blanks in a row every
// second stays. Without brackets, or with less than two characters in them, it
// takes the whole value. GMime has decoded it before: encoded words, twice; and
// bytes that are no UTF-8 as ISO 8859-1. An id over 189 bytes is hashed, with the NUL
// that ends it in C (lib/sha1.c).
//
// What differs here: a value ends at byte 0x80 as it does at NUL, since Dovecot
// puts 0x80 in place of the NUL that IMAP cannot carry (istream-nonuls.c); see
// NotmuchID. An encoded word that is broken, or in another charset than UTF-8,
// US-ASCII and ISO 8859-1, stays as it is.
func MessageID(value string) string {
	id := bracketed(decoded(value))
	if len(id) > maxMessageID {
		sum := sha1.Sum([]byte(id + "\x00")) //nolint:gosec // see above
		return madeUp + hex.EncodeToString(sum[:])
	}
	return id
}

// NotmuchID gives the id of a message in notmuch in the form of MessageID, which
// tells it from others where there was NUL in it.
func NotmuchID(id string) string { return untilNUL(id) }

// Asking gives by what notmuch is to be asked for the messages of files, and has each file answered
// from that by Answer: by id, and by path where the mail has no Message-ID. notmuch's own id of
// that is of all bytes of the file, also of those that another program added, which MadeUpID leaves out.
func Asking(ids, paths []string) []string {
	var out []string
	for i, id := range ids {
		if id != "" {
			out = append(out, id)
		}
		if id == "" || strings.HasPrefix(id, madeUp) {
			out = append(out, paths[i])
		}
	}
	return out
}

// Answer gives the message of the file with this id and path.
func Answer(known map[string]Tagged, id, path string) (t Tagged, is bool) {
	if t, is = known[id]; !is {
		t, is = known[path]
	}
	return t, is
}

func untilNUL(s string) string {
	if i := strings.IndexAny(s, "\x00\u0080"); i >= 0 {
		return s[:i]
	}
	return s
}

// decoded gives a field's value as GMime does.
func decoded(value string) string {
	value = strings.ReplaceAll(strings.ReplaceAll(value, "\r", ""), "\n", "")
	if !utf8.ValidString(value) {
		var b strings.Builder
		for i := range len(value) {
			b.WriteRune(rune(value[i]))
		}
		value = b.String()
	}
	value = strings.Trim(untilNUL(value), " \t")
	for range 2 {
		if !strings.Contains(value, "=?") {
			break
		}
		if s, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
			value = s
		}
	}
	return value
}

// bracketed gives what stands in the first angle brackets.
func bracketed(value string) string {
	s := skipComments(value)
	i := strings.IndexByte(s, '<')
	if i < 0 {
		return value
	}
	s = skipComments(s[i+1:])
	id, _, closed := strings.Cut(s, ">")
	if id == "" || closed && len(id) < 2 {
		return value
	}
	b := []byte(id)
	for i := 0; i < len(b); i++ {
		if b[i] == ' ' || b[i] == '\t' {
			b = append(b[:i], b[i+1:]...)
		}
	}
	return string(b)
}

// skipComments leaves out blanks and comments (RFC 5322 3.2.2) at the beginning.
func skipComments(s string) string {
	for s != "" {
		switch {
		case strings.IndexByte(" \t\n\v\f\r", s[0]) >= 0:
			s = s[1:]
		case s[0] == '(':
			depth, i := 1, 1
			for ; i < len(s) && depth > 0; i++ {
				switch s[i] {
				case '(':
					depth++
				case ')':
					depth--
				case '\\':
					if i+1 < len(s) {
						i++
					}
				}
			}
			s = s[i:]
		default:
			return s
		}
	}
	return s
}
