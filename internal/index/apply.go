package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Apply does the changes and commits them, within one hold of the write lock.
// It may be called with changes that were done before. An error means that
// nothing can be said of any of them; Result.Err is of one change alone.
func (x *Index) Apply(ctx context.Context, changes []mail.Change) (results []mail.Result, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.waitForLock(ctx); err != nil {
		return nil, err
	}
	db, err := x.open(notmuch.DBReadWrite)
	if err != nil {
		return nil, err
	}
	// Closing commits, and lets go of the lock.
	defer func() {
		if e := db.Close(); e != nil {
			results, err = nil, errors.Join(err, fmt.Errorf("the notmuch database cannot be written: %w", e))
		}
	}()
	if db.NeedsUpgrade() {
		return nil, errUpgrade
	}
	results = make([]mail.Result, len(changes))
	var fatal error
	var panicked any
	err = db.Atomic(func(db *notmuch.DB) {
		// A panic that left the transaction open would make later writes vanish.
		defer func() { panicked = recover() }()
		b := &batch{db: db, syncFlags: x.conf.syncFlags}
		for i, c := range changes {
			if results[i], fatal = b.apply(c); fatal != nil {
				return
			}
		}
	})
	if panicked != nil {
		panic(panicked)
	}
	if err := errors.Join(fatal, err); err != nil {
		return nil, fmt.Errorf("the notmuch database cannot be written: %w", err)
	}
	return results, nil
}

// batch is an open transaction.
type batch struct {
	db        *notmuch.DB
	syncFlags bool
}

// apply does one change. The error is one of the database; one of the change
// alone is in the result.
func (b *batch) apply(c mail.Change) (mail.Result, error) {
	var r mail.Result
	var err error
	switch c.Op {
	case mail.OpAdd:
		r, err = b.add(c, nil)
	case mail.OpFlag:
		r, err = b.flag(c)
	case mail.OpRemove:
		r, err = mail.Result{Path: c.Path}, b.remove(c)
	case mail.OpReplace:
		r, err = b.replace(c)
	default:
		return r, fmt.Errorf("no such change: %d", c.Op)
	}
	if errors.Is(err, notmuch.ErrXapianException) || errors.Is(err, notmuch.ErrOutOfMemory) || errors.Is(err, notmuch.ErrReadOnlyDB) {
		if words := b.db.LastStatus(); words != "" {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(words))
		}
		return r, err
	}
	if err != nil {
		r.Err = err
	}
	return r, nil
}

// find makes nil of what is not there, and clears the finalizer.
func find(m *notmuch.Message, err error) (*notmuch.Message, error) {
	if errors.Is(err, notmuch.ErrNotFound) {
		return nil, nil //nolint:nilnil // said in the comment
	}
	if err != nil {
		return nil, err
	}
	runtime.SetFinalizer(m, nil)
	return m, nil
}

func tagsOf(m *notmuch.Message) []string {
	tags := m.Tags()
	runtime.SetFinalizer(tags, nil)
	var out []string
	var t *notmuch.Tag
	for tags.Next(&t) {
		out = append(out, t.Value)
	}
	_ = tags.Close() // frees memory only
	slices.Sort(out)
	return out
}

func filesOf(m *notmuch.Message) []string {
	var out []string
	var name string
	for it := m.Filenames(); it.Next(&name); {
		out = append(out, name)
	}
	return out
}

// retag changes tags in one write of the message: without freezing it each tag
// costs one.
func retag(m *notmuch.Message, add, remove []string) error {
	if len(add)+len(remove) == 0 {
		return nil
	}
	var errs []error
	err := m.Atomic(func(m *notmuch.Message) {
		for _, t := range add {
			errs = append(errs, m.AddTag(t))
		}
		for _, t := range remove {
			errs = append(errs, m.RemoveTag(t))
		}
	})
	return errors.Join(append(errs, err)...)
}

func flagsOf(path string) string {
	_, flags, _ := strings.Cut(filepath.Base(path), ":2,")
	return flags
}

// add indexes a file. extra are tags that it gets whether notmuch knows the
// message or not; nil stands for a mail on its own.
func (b *batch) add(c mail.Change, extra []string) (r mail.Result, err error) {
	r.Path = c.Path
	m, err := b.db.AddMessage(c.Path)
	r.Duplicate = errors.Is(err, notmuch.ErrDuplicateMessageID)
	switch {
	case errors.Is(err, notmuch.ErrFileNotEmail):
		r.NotMail = true
		return r, nil
	case err != nil && !r.Duplicate:
		if _, e := os.Stat(c.Path); e != nil {
			err = e
		}
		return r, err
	}
	runtime.SetFinalizer(m, nil)
	defer func() { err = errors.Join(err, m.Close()) }()
	r.ID = m.ID()
	flags := flagsOf(c.Path)
	seen := strings.Contains(flags, "S")
	add := slices.Clone(extra)
	if !r.Duplicate && extra == nil {
		// As `notmuch new` does: new.tags, but never unread for mail that is
		// read; and unread for mail with other flags than S.
		for _, t := range c.New {
			if t != "unread" || !seen {
				add = append(add, t)
			}
		}
		if b.syncFlags && flags != "" && !seen {
			add = append(add, "unread")
		}
	}
	return r, retag(m, append(add, c.Add...), c.Remove)
}

// replace indexes a mail where a stub stood.
func (b *batch) replace(c mail.Change) (mail.Result, error) {
	stub, err := find(b.db.FindMessageByFilename(c.OldPath))
	if err != nil {
		return mail.Result{}, err
	}
	if stub == nil {
		return b.add(c, nil)
	}
	carried := append([]string{}, tagsOf(stub)...)
	if err := stub.Close(); err != nil {
		return mail.Result{}, err
	}
	// The mail itself is news, though its stub may have been read.
	if slices.Contains(c.New, "unread") && !strings.Contains(flagsOf(c.Path), "S") {
		carried = append(carried, "unread")
	}
	r, err := b.add(c, carried)
	if err != nil || r.NotMail {
		return r, err
	}
	return r, b.forget(c.OldPath)
}

// forget takes a file out of the database. Others of the message may stay.
func (b *batch) forget(path string) error {
	err := b.db.RemoveMessage(path)
	if errors.Is(err, notmuch.ErrDuplicateMessageID) {
		return nil // it has another file
	}
	return err
}

// remove forgets a file, under whatever name the database knows it.
func (b *batch) remove(c mail.Change) error {
	if c.ID != "" {
		m, err := find(b.db.FindMessage(c.ID))
		if err != nil {
			return err
		}
		if m != nil {
			stale := slices.DeleteFunc(filesOf(m), func(f string) bool { return !sameFile(f, c.Path) })
			if err := m.Close(); err != nil {
				return err
			}
			for _, f := range stale {
				if err := b.forget(f); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return b.forget(c.Path)
}

// sameFile tells whether two paths are names of one file at different times:
// flags change the name, and with them it goes from new to cur.
func sameFile(a, b string) bool {
	return filepath.Dir(filepath.Dir(a)) == filepath.Dir(filepath.Dir(b)) && keyOf(a) == keyOf(b)
}

func keyOf(path string) string {
	key, _, _ := strings.Cut(filepath.Base(path), ":2,")
	return key
}

// flag changes tags and the file's name.
func (b *batch) flag(c mail.Change) (r mail.Result, err error) {
	r.Path = c.Path
	path, err := actual(c.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	gone := err
	m, err := b.message(c, path)
	if err != nil {
		return r, err
	}
	if m == nil {
		// notmuch does not know it (it is no mail, or was taken away): the name
		// alone changes.
		if gone == nil {
			r.Path, gone = rename(path, c)
		}
		return r, gone
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	r.ID = m.ID()
	if gone != nil {
		return r, errors.Join(retag(m, c.Add, c.Remove), gone)
	}
	files := filesOf(m)
	if b.syncFlags && len(files) == 1 && files[0] == path && !strings.ContainsAny(c.Set+c.Clear, "T") {
		// The common case, without reading the mail: what its reader did by
		// renaming comes first, then the server's change, then one call names
		// the file after the tags and tells the database.
		if err := m.MaildirFlagsToTags(); err != nil {
			return r, err
		}
		if err := retag(m, c.Add, c.Remove); err != nil {
			return r, err
		}
		if err := m.TagsToMaildirFlags(); err != nil {
			return r, err
		}
		r.Path, err = actual(path)
		return r, err
	}
	if err := retag(m, c.Add, c.Remove); err != nil {
		return r, err
	}
	if r.Path, err = rename(path, c); err != nil {
		return r, err
	}
	if !slices.Contains(files, r.Path) {
		again, err := b.db.AddMessage(r.Path)
		if err != nil && !errors.Is(err, notmuch.ErrDuplicateMessageID) {
			return r, err
		}
		runtime.SetFinalizer(again, nil)
		if err := again.Close(); err != nil {
			return r, err
		}
	}
	for _, f := range files {
		if f != r.Path && sameFile(f, r.Path) {
			if err := b.forget(f); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

// message finds the message of a change: by its id if that is known and has
// such a file, else by the file.
func (b *batch) message(c mail.Change, path string) (*notmuch.Message, error) {
	if c.ID != "" {
		m, err := find(b.db.FindMessage(c.ID))
		if m != nil || err != nil {
			return m, err
		}
	}
	m, err := find(b.db.FindMessageByFilename(path))
	if m != nil || err != nil || path == c.Path {
		return m, err
	}
	return find(b.db.FindMessageByFilename(c.Path))
}

// actual gives the path under which a file is now: a mail reader may have
// renamed it since.
func actual(path string) (string, error) {
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	dir, key := filepath.Dir(filepath.Dir(path)), keyOf(path)
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return path, err
		}
		for _, e := range entries {
			if keyOf(e.Name()) == key {
				return filepath.Join(dir, sub, e.Name()), nil
			}
		}
	}
	return path, &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
}

// rename gives a file the flags of a change. It never overwrites: the key is
// the file's own.
func rename(path string, c mail.Change) (string, error) {
	letters := []byte(strings.Map(func(r rune) rune {
		if strings.ContainsRune(c.Clear, r) {
			return -1
		}
		return r
	}, flagsOf(path)) + c.Set)
	slices.Sort(letters)
	letters = slices.Compact(letters)
	dir := filepath.Dir(path)
	if len(letters) == 0 && filepath.Base(dir) == "new" {
		return path, nil
	}
	to := filepath.Join(filepath.Dir(dir), "cur", keyOf(path)+":2,"+string(letters))
	if to == path {
		return path, nil
	}
	return to, os.Rename(path, to)
}
