package plan

import (
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Unrecorded are the files of all folders that no row has. Among them is the file of a
// message that its owner moved on before its row was recorded.
type Unrecorded struct{ files []UnrecordedFile }

// UnrecordedFile is one of them, and the folder that it is in.
type UnrecordedFile struct {
	Untracked
	Dir maildir.Dir
}

// Add adds a file.
func (u *Unrecorded) Add(f UnrecordedFile) { u.files = append(u.files, f) }

// Take gives the file that was a row's, by its key or else by its content, and to no other
// row.
func (u *Unrecorded) Take(row ledger.Message) (f UnrecordedFile, ok bool) {
	if row.Key == "" {
		return f, false
	}
	i := slices.IndexFunc(u.files, func(f UnrecordedFile) bool { return f.Key == row.Key && f.SameContent(&row) })
	if i < 0 {
		i = slices.IndexFunc(u.files, func(f UnrecordedFile) bool { return !row.Digest.IsZero() && f.Digest == row.Digest })
	}
	if i < 0 {
		return f, false
	}
	f = u.files[i]
	u.files = slices.Delete(u.files, i, i+1)
	return f, true
}
