package maildir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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

// OneDirectory gives those of the folders below a root that are one directory with another of them,
// as by a symbolic link or a mount, each with such another one: that of their cur or new are the same.
func OneDirectory(root string, folders []string) map[string]string {
	type file struct{ dev, ino uint64 }
	first, with := make(map[file]string), make(map[string]string)
	for _, folder := range folders {
		for _, sub := range []string{"cur", "new"} {
			fi, err := os.Stat(filepath.Join(root, folder, sub))
			if err != nil {
				continue
			}
			st, ok := fi.Sys().(*syscall.Stat_t)
			if !ok {
				continue
			}
			id := file{uint64(st.Dev), st.Ino} //nolint:unconvert // it has another type on other systems
			other, known := first[id]
			if !known {
				first[id] = folder
				continue
			}
			if other == folder {
				continue
			}
			with[folder] = other
			if with[other] == "" {
				with[other] = folder
			}
		}
	}
	return with
}
