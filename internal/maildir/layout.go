package maildir

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Layout says what the folder of a mailbox is called. The zero Layout is Nested.
type Layout string

// The layouts.
const (
	Nested    Layout = "nested"    // directories in directories, names in UTF-8
	MaildirPP Layout = "maildir++" // ".a.b" beside INBOX's own, names in modified UTF-7 (RFC 3501 5.1.3)
)

// Folder gives the folder of a mailbox, as a path relative to the account's folder.
func (l Layout) Folder(mailbox string, delim rune) (string, error) {
	folder, err := Folder(mailbox, delim)
	if l != MaildirPP || err != nil {
		return folder, err
	}
	if folder == "INBOX" {
		return ".", nil
	}
	parts := strings.Split(folder, "/")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(mail.EncodeName(p), ".", "%2E")
	}
	if folder = "." + strings.Join(parts, "."); len(folder) > maxFolder {
		return "", fmt.Errorf("the mailbox name %.40q... is too long for a folder that notmuch takes (%d bytes, at most %d): "+
			"rename the mailbox, or exclude it with mailboxes in the configuration", mailbox, len(folder), maxFolder)
	}
	return folder, nil
}

// Names tells whether a folder is called as that of a mailbox which a server can have: the one
// that Mailbox gives.
func (l Layout) Names(folder string, delim rune) bool {
	name, err := l.Mailbox(folder, delim)
	if err != nil || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return false
	}
	back, err := l.Folder(name, delim)
	return err == nil && back == folder
}

// Mailbox gives the name of the mailbox that Folder named so. A path that is no mailbox's
// folder is an error.
func (l Layout) Mailbox(folder string, delim rune) (string, error) {
	if l != MaildirPP {
		return Mailbox(folder, delim)
	}
	if folder == "." {
		return "INBOX", nil
	}
	rest, ok := strings.CutPrefix(folder, ".")
	if !ok || strings.Contains(folder, "/") {
		return "", errors.New("it is not called as Maildir++ has it: a dot, and the name with dots between its levels")
	}
	parts := strings.Split(rest, ".")
	for i, p := range parts {
		var err error
		if parts[i], err = mail.DecodeName(p); err != nil {
			return "", fmt.Errorf("folder %q: %w", folder, err)
		}
	}
	return Mailbox(strings.Join(parts, "/"), delim)
}
