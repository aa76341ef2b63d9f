package takeover

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Folders are where programs put a mailbox below an account's folder: in
// directories of its levels (mbsync's Verbatim, OfflineIMAP with sep = /), with dots between
// (OfflineIMAP), as Maildir++ (a dot before, too), or with dots before all levels but the
// first (Legacy); names as they are, or in modified UTF-7 (RFC 3501 5.1.3) as before isync
// 1.5. "." is the account's folder itself.
func Folders(mailbox string, delim rune) []string {
	var out []string
	add := func(f string) {
		if filepath.IsLocal(f) && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	if mailbox == "INBOX" {
		add("Inbox")
		add("inbox")
		add(".") // as with Maildir++
	}
	for _, name := range []string{mailbox, mail.EncodeName(mailbox)} {
		levels := Levels(name, delim)
		if slices.ContainsFunc(levels, func(l string) bool { return l == "" || strings.ContainsAny(l, "/\x00") }) {
			continue
		}
		add(filepath.Join(levels...))
		add(strings.Join(levels, "."))
		add("." + strings.Join(levels, "."))
		add(levels[0] + strings.Join(append([]string{""}, levels[1:]...), "/."))
	}
	return out
}

// Levels are the parts of a mailbox's name.
func Levels(name string, delim rune) []string {
	if delim == 0 {
		return []string{name}
	}
	return strings.Split(name, string(delim))
}

// SameDirectory tells whether two paths are of one directory, which need not be there yet.
func SameDirectory(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}
