package maildir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Taken are the folders below a root that mailboxes have.
type Taken struct {
	root    string
	folders map[string][]string // by their names in lower case
}

// NewTaken gives one with no folder in it.
func NewTaken(root string) *Taken { return &Taken{root, make(map[string][]string)} }

// Put adds a folder.
func (t *Taken) Put(folder string) {
	key := strings.ToLower(folder)
	t.folders[key] = append(t.folders[key], folder)
}

// Has tells whether a folder is taken. A name that differs from a taken one by case alone
// is taken, too, since some file systems have one directory for both; but not where its
// directory is there, and is another one.
func (t *Taken) Has(folder string) bool {
	return slices.ContainsFunc(t.folders[strings.ToLower(folder)], func(f string) bool {
		if f == folder {
			return true
		}
		here, err := os.Stat(filepath.Join(t.root, folder))
		if err != nil {
			return true
		}
		other, err := os.Stat(filepath.Join(t.root, f))
		return !errors.Is(err, fs.ErrNotExist) && (err != nil || os.SameFile(here, other))
	})
}
