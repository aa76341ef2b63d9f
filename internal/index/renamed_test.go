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

// A file that has another key, or is in another folder, is told with the name that it had: its
// tags stay, and those of flags are as the letters are. One that is there still is no old name.
func TestAFileWithAnotherKey(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		is    string
		stays bool // the old name is another file's
		want  string
	}{
		{"box/cur/b:2,S", false, "inbox mine"}, {"other/cur/a:2,F", false, "flagged inbox mine unread"}, {"other/cur/b", false, "inbox mine unread"}, {"box/cur/b:2,F", true, "flagged inbox mine"},
	} {
		t.Run(tc.is, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.deliver("other/cur/c:2,", "c@example.org")
			was := w.deliver("box/cur/a:2,"+map[bool]string{true: "S"}[tc.stays], "a@example.org")
			w.notmuch("new")
			w.notmuch("tag", "+mine", "--", "id:a@example.org")
			path := ""
			if tc.stays {
				path = w.deliver(tc.is, "a@example.org")
			} else {
				path = w.rename(was, tc.is)
			}
			for range 2 {
				w.apply(mail.Change{Op: mail.OpFlag, Path: path, OldPath: was, ID: "a@example.org"})
				w.tags("a@example.org", tc.want)
				w.quiet()
			}
		})
	}
}
