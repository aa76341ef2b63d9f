package index

import (
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// A file that notmuch knows is renamed by its owner, and given to the database once
// more before notmuch looks: as mail that was saved in Sent, and found on the server.
// Its letters are what `notmuch new` would make of them, with other files of the message
// and without.
func TestAddOfAFileThatWasRenamedSince(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ was, is, other, want string }{
		{"cur/a:2,S", "cur/a:2,", "", "inbox unread"},
		{"cur/a:2,FS", "cur/a:2,S", "", "inbox"},
		{"cur/a:2,", "cur/a:2,FS", "", "flagged inbox"},
		{"cur/a:2,S", "cur/a:2,", "cur/b:2,S", "inbox"},
		{"cur/a:2,FS", "cur/a:2,S", "cur/b:2,FS", "flagged inbox"},
		{"cur/a:2,S", "cur/a:2,S", "", "inbox"},
	} {
		t.Run(tc.was+" "+tc.is+" "+tc.other, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			path := w.deliver("box/"+tc.was, "a@example.org")
			if tc.other != "" {
				w.deliver("box/"+tc.other, "a@example.org")
			}
			w.notmuch("new")
			if tc.is != tc.was {
				path = w.rename(path, "box/"+tc.is)
			}
			w.apply(mail.Change{Op: mail.OpAdd, Path: path, ID: "a@example.org", New: []string{"inbox", "unread"}})
			w.tags("a@example.org", tc.want)
			w.quiet()
		})
	}
}
