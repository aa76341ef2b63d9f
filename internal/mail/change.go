package mail

import (
	"errors"
	"io/fs"
)

// Op is one kind of change to the notmuch database.
type Op int

const (
	// OpAdd indexes the file Path. New tags are given only if notmuch did not
	// know the message; Add and Remove always. A file that notmuch refuses
	// gives Result.NotMail, no error.
	OpAdd Op = iota + 1
	// OpFlag applies Add and Remove to the message of the file Path, and
	// Set/Clear (maildir letters) to the file's name. A file's own flags that
	// notmuch has not seen yet are kept, and names that the file had are forgotten,
	// with OldPath, which may be one in another folder. Result.Path is the new path.
	OpFlag
	// OpRemove forgets the file Path, which is gone from disk or about to be. Add and
	// Remove are for its message, if that has other files.
	// Unknown paths are no error.
	OpRemove
	// OpReplace indexes Path in place of the stub OldPath: the stub's tags
	// less Remove are carried to the new message, Add is added, and OldPath is
	// forgotten, all in one transaction. Without OldPath in the database it is
	// an OpAdd.
	OpReplace
	// OpReindex reads the file Path again, whose contents have changed. Tags
	// stay.
	OpReindex
)

// Change is one change to the notmuch database.
type Change struct {
	Op      Op
	Path    string // absolute
	OldPath string
	ID      string // notmuch message id, if known; the file is looked up by it first. Of a new file, what seems to be its
	New     []string
	Add     []string
	Remove  []string
	Set     string // maildir flag letters to set in the name, e.g. "S"
	Clear   string // maildir flag letters to take out of it
}

// Result is what became of the Change at the same place.
type Result struct {
	ID        string // notmuch message id; "" if the file is not indexed
	Path      string // where the file is now
	Duplicate bool   // notmuch knew the message already
	// Tags are those of a message whose last file OpRemove took; nil if it has others.
	Tags []string
	// From and Subject are as notmuch has them, of OpFlag.
	From, Subject string

	NotMail bool  // notmuch does not take the file for a mail, now or ever; Err may say why
	Err     error // this change alone failed; the others stand
}

// Undone gives why a change is yet to be done; nil where it is done, or never will be, since its
// file is gone by now, or is none that notmuch takes.
func (r Result) Undone() error {
	if r.NotMail || errors.Is(r.Err, fs.ErrNotExist) {
		return nil
	}
	return r.Err
}

// Revision is a state of the notmuch database. N grows with every change, in the
// database with this UUID only.
type Revision struct {
	UUID string
	N    uint64
}

// Tagged is a message as notmuch has it.
type Tagged struct {
	ID     string
	Paths  []string // absolute, of those of its files that were asked for
	Others []string // absolute, of its other files
	Tags   []string
	// From and Subject are as notmuch has them, where single messages were asked for.
	From, Subject string
	// Set and Clear are maildir letters that its tags want set and cleared, and that
	// notmuch could not give its files.
	Set, Clear string
}
