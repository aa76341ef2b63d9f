package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// files watches what changes here: the Maildirs of the accounts, and notmuch's database.
type files struct {
	w        *fsnotify.Watcher
	roots    map[string]*account // by the account's folder
	database string              // the directory with iamglass; "" if there is none
	above    []string            // those that it is in, which may be moved away with it
	accounts []*account
	say      func(string)
	said     bool // that not all can be watched
}

// Files has the watcher watch the accounts' folders, which stand in the order of the
// accounts, and the directory of the Xapian database. say is told in a line what cannot be
// watched, since the limits of the kernel are reached without a word; the hourly look finds
// it then. An error says that nothing here can be watched.
func (w *Watcher) Files(roots []string, database string, say func(string)) error {
	fw, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	f := &files{w: fw, roots: make(map[string]*account), database: filepath.Clean(database), accounts: w.accounts, say: say}
	for i, root := range roots {
		f.roots[filepath.Clean(root)] = w.accounts[i]
	}
	w.files = f
	// Before any account is looked at, so that nothing falls between.
	f.above = []string{filepath.Dir(f.database), filepath.Dir(filepath.Dir(f.database))}
	for _, dir := range append(f.above, f.database) {
		if err := fw.Add(dir); err != nil {
			f.limited(dir, err)
		}
	}
	for root := range f.roots {
		if err := os.MkdirAll(root, 0o700); err != nil { // as the first sync would
			f.limited(root, err)
			continue
		}
		f.add(root)
	}
	return nil
}

// add watches a directory and those below it. Files in tmp are nobody's mail yet.
func (f *files) add(root string) {
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { // f.limited tells what is wrong
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was there a moment ago
		case err != nil:
			f.limited(path, err)
			return nil
		case !d.IsDir():
			return nil
		case d.Name() == "tmp", d.Name() == ".notmuch":
			return fs.SkipDir
		}
		if err := f.w.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.limited(path, err)
			return fs.SkipAll
		}
		return nil
	})
}

// limited tells once that not all is watched.
func (f *files) limited(path string, err error) {
	if f.said {
		return
	}
	f.said = true
	f.say(fmt.Sprintf("changes here are not all seen at once, but within the hour: cannot watch %s: %v; see fs.inotify in sysctl(8)", path, err))
}

// of gives the account whose folder has the path; nil if none has.
func (f *files) of(path string) *account {
	for dir := path; ; dir = filepath.Dir(dir) {
		if a := f.roots[dir]; a != nil {
			return a
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// run passes the events on until the context ends.
func (f *files) run(ctx context.Context) {
	defer f.w.Close() //nolint:errcheck // what it was for is over
	tagged := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.tags(ctx, tagged)
	}()
	defer func() { <-done }()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-f.w.Events:
			if !ok {
				return
			}
			f.event(e, tagged)
		case err, ok := <-f.w.Errors:
			if !ok {
				return
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				f.limited("files", err)
			}
			for _, a := range f.accounts {
				a.changed(false)
			}
		}
	}
}

// event takes one event. What is written to a file is none: mail is renamed or linked to
// its name, and so is a commit of notmuch's.
func (f *files) event(e fsnotify.Event, tagged chan struct{}) {
	if e.Name == f.database { // another one took its place, as `notmuch compact` does, or it is gone
		signal(tagged)
		return
	}
	if slices.Contains(f.above, e.Name) && (e.Has(fsnotify.Rename) || e.Has(fsnotify.Remove)) {
		signal(tagged)
	}
	if !e.Has(fsnotify.Create) && !e.Has(fsnotify.Rename) && !e.Has(fsnotify.Remove) {
		return
	}
	if filepath.Dir(e.Name) == f.database {
		if filepath.Base(e.Name) == "iamglass" && e.Has(fsnotify.Create) {
			signal(tagged)
		}
		return
	}
	a := f.of(e.Name)
	if a == nil {
		return
	}
	dir := filepath.Base(filepath.Dir(e.Name))
	isMail := dir == "cur" || dir == "new"
	if e.Has(fsnotify.Create) && !isMail {
		switch {
		case filepath.Base(e.Name) == "tmp":
			return
		default:
			f.add(e.Name) // a folder, or nothing that can be added
		}
	}
	a.changed(!isMail)
}

// tags asks, after commits of notmuch's, whose mail was changed.
func (f *files) tags(ctx context.Context, tagged chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tagged:
		}
		_ = f.w.Add(f.database) // it may be another one; if it is none, Tagged sees that
		for _, a := range f.accounts {
			if a.Tagged(ctx) {
				a.changed(false)
			}
		}
		// Whoever tags a thousand mails commits as often.
		if len(f.accounts) > 0 && !sleep(ctx, f.accounts[0].times.Quiet, nil) {
			return
		}
	}
}
