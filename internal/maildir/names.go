// Package maildir keeps mail in Maildir folders: names, delivery without loss,
// flags in file names, and the mapping of mailbox names to folders.
package maildir

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxComponent bounds one part of a folder's path, in bytes: file systems take
// 255, and tools append to names.
const maxComponent = 200

// Folder gives the folder of a mailbox, as a path relative to the account's
// folder: plain nested directories, as most notmuch users have them. Bytes that
// would lead out of it, hide it, or collide with a maildir's own directories are
// written as %XX, so that Mailbox gives the name back.
func Folder(mailbox string, delim rune) (string, error) {
	if mailbox == "" {
		return "", errors.New("a mailbox without a name")
	}
	parts := []string{mailbox}
	if delim != 0 {
		parts = strings.Split(mailbox, string(delim))
	}
	if strings.EqualFold(parts[0], "INBOX") {
		parts[0] = "INBOX" // case-insensitive (RFC 9051 5.1)
	}
	for i, p := range parts {
		p = escape(p)
		if len(p) > maxComponent {
			return "", fmt.Errorf("the mailbox name %.40q... is too long for a folder: rename the mailbox, or exclude it with mailboxes in the configuration", mailbox)
		}
		parts[i] = p
	}
	return strings.Join(parts, "/"), nil
}

// Mailbox gives the name of the mailbox that Folder, or Unclash, named so.
func Mailbox(folder string, delim rune) (string, error) {
	parts := strings.Split(folder, "/")
	for i, p := range parts {
		u, err := unescape(p)
		if err != nil {
			return "", fmt.Errorf("folder %q: %w", folder, err)
		}
		parts[i] = u
	}
	if len(parts) > 1 && delim == 0 {
		return "", fmt.Errorf("folder %q is nested, but the server has no hierarchy", folder)
	}
	return strings.Join(parts, string(delim)), nil
}

// Unclash gives a name for folder that is not taken, where taken compares
// without case, as some file systems do: letters of the last part are escaped
// one after the other until the name is free.
func Unclash(folder string, taken func(string) bool) string {
	if !taken(folder) {
		return folder
	}
	dir, base := "", folder
	if i := strings.LastIndexByte(folder, '/'); i >= 0 {
		dir, base = folder[:i+1], folder[i+1:]
	}
	for i := 0; i < len(base); i++ {
		if c := base[i]; c == '%' {
			i += 2 // an escape stays as it is
		} else if name := fmt.Sprintf("%s%s%%%02X%s", dir, base[:i], c, base[i+1:]); !taken(name) {
			return name
		}
	}
	return folder
}

// escape makes one part of a mailbox name a safe file name.
func escape(part string) string {
	switch part {
	case "":
		return "%" // an empty part; "%" alone is no escape
	case "cur", "new", "tmp":
		return fmt.Sprintf("%%%02X%s", part[0], part[1:])
	}
	var b strings.Builder
	for i := 0; i < len(part); {
		r, n := utf8.DecodeRuneInString(part[i:])
		last := i+n == len(part)
		switch {
		case r == utf8.RuneError && n == 1, r < ' ', r == 0x7f, r == '%', r == '/', r == '\\', r == ':',
			r == '.' && (i == 0 || last), r == ' ' && (i == 0 || last):
			for _, c := range []byte(part[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		default:
			b.WriteString(part[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unescape(part string) (string, error) {
	if part == "%" {
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] != '%' {
			b.WriteByte(part[i])
			continue
		}
		if i+2 >= len(part) {
			return "", errors.New("% is not followed by two hexadecimal digits")
		}
		hi, lo := unhex(part[i+1]), unhex(part[i+2])
		if hi < 0 || lo < 0 {
			return "", errors.New("% is not followed by two hexadecimal digits")
		}
		b.WriteByte(byte(hi<<4 | lo))
		i += 2
	}
	return b.String(), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
