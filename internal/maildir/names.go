// Package maildir keeps mail in Maildir folders: names, delivery without loss,
// flags in file names, and the mapping of mailbox names to folders.
package maildir

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxFolder bounds a folder's path, in bytes. Below the mail root notmuch 0.37
// takes 237 (a term of 245 less its prefix): at one folder with more `notmuch
// new` stops with an internal error. The rest is for the account's folder, and
// for what Unclash adds. No part can thus be longer than file systems take.
const maxFolder = 200

// Folder gives the folder of a mailbox, as a path relative to the account's
// folder: plain nested directories, as most notmuch users have them. Bytes that
// would lead out of it, hide it, or collide with a maildir's own directories are
// written as %XX, so that Mailbox gives the name back. (`notmuch new` goes into
// every directory but .notmuch, a maildir's tmp, and those that new.ignore
// names.)
func Folder(mailbox string, delim rune) (string, error) {
	if mailbox == "" {
		return "", errors.New("a mailbox without a name")
	}
	parts := []string{mailbox}
	if delim != 0 {
		parts = strings.Split(mailbox, string(delim))
	}
	// Case-insensitive (RFC 9051 5.1); a delimiter that is one of its letters
	// would cut what this puts in its place.
	if strings.EqualFold(parts[0], "INBOX") && !strings.ContainsRune("INBOX", delim) {
		parts[0] = "INBOX"
	}
	for i, p := range parts {
		parts[i] = escape(p, i > 0)
	}
	folder := strings.Join(parts, "/")
	if len(folder) > maxFolder {
		return "", fmt.Errorf("the mailbox name %.40q... is too long for a folder that notmuch takes (%d bytes, at most %d): "+
			"rename the mailbox, or exclude it with mailboxes in the configuration", mailbox, len(folder), maxFolder)
	}
	return folder, nil
}

// Mailbox gives the name of the mailbox that Folder, or Unclash, named so. A
// path that is no mailbox's folder is an error.
func Mailbox(folder string, delim rune) (string, error) {
	parts := strings.Split(folder, "/")
	if len(parts) > 1 && delim == 0 {
		return "", fmt.Errorf("folder %q is nested, but the server has no hierarchy", folder)
	}
	for i, p := range parts {
		u, err := unescape(p)
		if err == nil && delim != 0 && strings.ContainsRune(u, delim) {
			err = fmt.Errorf("%q separates mailboxes on this server", delim)
		}
		if err != nil {
			return "", fmt.Errorf("folder %q: %w", folder, err)
		}
		parts[i] = u
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return strings.Join(parts, string(delim)), nil
}

// Unclash gives a name for folder that is not taken, where taken compares
// without case, as some file systems do: characters of the last part are
// escaped until the name is free. taken must be false for all but finitely many
// names.
func Unclash(folder string, taken func(string) bool) string {
	if !taken(folder) {
		return folder
	}
	i := strings.LastIndexByte(folder, '/') + 1
	dir := folder[:i]
	var parts []string // characters and escapes
	var plain []int    // the characters among them; no escape is escaped again
	for base := folder[i:]; base != ""; {
		_, n := utf8.DecodeRuneInString(base)
		if base[0] == '%' {
			n = min(3, len(base))
		} else {
			plain = append(plain, len(parts))
		}
		parts, base = append(parts, base[:n]), base[n:]
	}
	plain = plain[:min(len(plain), 62)]
	// All subsets, in the order of binary numbers: more than there are names
	// that differ only by case.
	for set := 1; set < 1<<len(plain); set++ {
		name := slices.Clone(parts)
		for bit, at := range plain {
			if set>>bit&1 == 1 {
				name[at] = percent(name[at])
			}
		}
		if name := dir + strings.Join(name, ""); !taken(name) {
			return name
		}
	}
	return folder // nothing that has a case: it is the very same mailbox
}

// percent writes every byte as %XX.
func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// escape makes one part of a mailbox name a safe file name. nested says that it
// lies in a maildir, beside cur, new and tmp.
func escape(part string, nested bool) string {
	switch {
	case part == "":
		return "%" // an empty part; "%" alone is no escape
	case part == "cur", part == "new", part == "tmp",
		// The same directory, where a file system knows no case.
		nested && (strings.EqualFold(part, "cur") || strings.EqualFold(part, "new") || strings.EqualFold(part, "tmp")):
		return percent(part[:1]) + part[1:]
	}
	var b strings.Builder
	for i := 0; i < len(part); {
		r, n := utf8.DecodeRuneInString(part[i:])
		last := i+n == len(part)
		switch {
		case r == utf8.RuneError && n == 1, r < ' ', r >= 0x7f && r < 0xa0, r == '%', r == '/', r == '\\', r == ':',
			r == '.' && (i == 0 || last), r == ' ' && (i == 0 || last):
			b.WriteString(percent(part[i : i+n]))
		default:
			b.WriteString(part[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unescape(part string) (string, error) {
	switch part {
	case "":
		return "", errors.New("a part of the path is empty")
	case "%":
		return "", nil
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] != '%' {
			b.WriteByte(part[i])
			continue
		}
		if i+2 >= len(part) || unhex(part[i+1]) < 0 || unhex(part[i+2]) < 0 {
			return "", errors.New("% is not followed by two hexadecimal digits")
		}
		b.WriteByte(byte(unhex(part[i+1])<<4 | unhex(part[i+2])))
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
