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
	"syscall"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Apply does the changes and commits them, holding the write lock at most twice.
// It may be called with changes that were done before. An error means that
// nothing can be said of any of them; Result.Err is of one change alone. Once
// the lock is held ctx ends nothing: half a batch would be no sooner done.
func (x *Index) Apply(ctx context.Context, changes []mail.Change) (results []mail.Result, err error) {
	if len(changes) == 0 {
		return nil, ctx.Err() // that waits for nobody
	}
	release, err := x.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	x.sweeping.Do(x.sweep)
	results = make([]mail.Result, len(changes))
	done := make([]bool, len(changes))
	if slices.ContainsFunc(changes, func(c mail.Change) bool { return c.Op == mail.OpFlag }) {
		x.clearing.Do(func() { clearShadows(os.TempDir()) })
		if sh, err := newShadow(os.TempDir()); err == nil { // it can do without
			err = x.write(ctx, sh, func(b *batch) error { return b.inShadow(changes, results, done) })
			_ = sh.remove() // a few empty files; what was done is done
			switch {
			case errors.Is(err, errHalf):
				clear(done)
			case err != nil:
				return nil, err
			}
		}
	}
	if !slices.Contains(done, false) {
		return results, nil
	}
	for {
		err = x.write(ctx, nil, func(b *batch) error {
			for i, c := range changes {
				if done[i] {
					continue
				}
				var err error
				if results[i], err = b.apply(c); err != nil {
					return err
				}
				if half(results[i]) {
					done[i] = true
					return errHalf
				}
			}
			return nil
		})
		switch {
		case errors.Is(err, errHalf):
			// The others are done again without it.
		case err != nil:
			return nil, err
		default:
			return results, nil
		}
	}
}

// errHalf takes a transaction back for a change that libnotmuch may have done half.
var errHalf = errors.New("a change was done half")

// half tells whether a change failed in libnotmuch. What it may fail at in the file
// system comes before all else of it.
func half(r mail.Result) bool {
	_, system := errors.AsType[syscall.Errno](r.Err)
	return r.Err != nil && !r.NotMail && !system && !errors.Is(r.Err, fs.ErrNotExist) && !errors.Is(r.Err, fs.ErrExist) && !errors.Is(r.Err, errLater)
}

// write lets f write in one transaction, as soon as nobody else does. Below sh, if
// there is one, libnotmuch believes the mail.
func (x *Index) write(ctx context.Context, sh *shadow, f func(*batch) error) (err error) {
	if err := x.waitForLock(ctx, x.lockWait, x.waits); err != nil {
		return err
	}
	if err := x.calm(ctx); err != nil {
		return err
	}
	defer func() { err = noRoom(x.path, err) }()
	defer tellSlow(x.waits)()
	atWork.begin("")
	defer atWork.end()
	open := x.open
	if sh != nil {
		open = func(mode notmuch.DBMode) (*notmuch.DB, error) { return x.openWith(&x.base, &sh.config, nil, mode) }
	}
	db, err := open(notmuch.DBReadWrite)
	if err != nil {
		return err
	}
	// Closing commits, and lets go of the lock.
	defer func() {
		if e := db.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("the notmuch database cannot be written: %w", e))
		}
	}()
	if db.NeedsUpgrade() {
		return errUpgrade
	}
	b := &batch{db: db, root: x.conf.mailRoot, syncFlags: x.conf.syncFlags, shadow: sh}
	if err := atomically(db, func() error { return f(b) }); err != nil {
		return fmt.Errorf("the notmuch database cannot be written: %w", err)
	}
	return nil
}

// atomically lets f write in one transaction. If f fails or panics it stays open, and
// closing the database takes all of it back: half a change would be taken for the
// owner's doing when it is done again.
func atomically(db *notmuch.DB, f func() error) error {
	if err := begin(db); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return end(db)
}

// batch is an open transaction.
type batch struct {
	db        *notmuch.DB
	root      string
	syncFlags bool
	shadow    *shadow // nil: libnotmuch reads the mail where it is
	// names are those of the files that the database has, by key, of the
	// maildirs that had to be looked through; as of the first look.
	names map[string]map[string][]string
}

// apply does one change. The error is one of the database; one of the change
// alone is in the result.
func (b *batch) apply(c mail.Change) (r mail.Result, err error) {
	r.Path = c.Path
	atWork.begin(c.Path)
	defer atWork.begin("")
	if err := b.fits(c.Path); err != nil {
		switch {
		case !errors.Is(err, errTooLong):
			r.Err = err
		case c.Op == mail.OpFlag:
			// notmuch cannot know it: the name alone changes.
			r.Path, r.Err = reletter(c.Path, nil, c.Set, c.Clear)
		case c.Op != mail.OpRemove && c.Op != mail.OpReindex:
			r.Err, r.NotMail = err, true
		}
		return r, nil // it is the change's alone
	}
	switch c.Op {
	case mail.OpAdd:
		r, err = b.add(c, nil)
	case mail.OpFlag:
		r, err = b.flag(c)
	case mail.OpRemove:
		r.Tags, err = b.remove(c)
	case mail.OpReplace:
		r, err = b.replace(c)
	case mail.OpReindex:
		err = b.reindex(c)
	default:
		return r, fmt.Errorf("no such change: %d", c.Op)
	}
	if err == nil {
		return r, nil
	}
	if errors.Is(err, notmuch.ErrXapianException) || errors.Is(err, notmuch.ErrOutOfMemory) || errors.Is(err, notmuch.ErrReadOnlyDB) {
		if words := oneLine(b.db.LastStatus()); words != "" {
			err = full(words, fmt.Errorf("%w: %s", err, words))
		}
		return r, err
	}
	r.Err = err
	return r, nil
}

// Longest names that libnotmuch 0.37 takes, in bytes: a Xapian term has 245,
// less the prefix XFOLDER:, or XFDIRENTRY and a number. At a longer one it ends
// the process.
const (
	maxFolder = 237
	maxFile   = 200
)

var errTooLong = errors.New("the path is too long for notmuch")

// fits refuses paths that libnotmuch would end the process for.
func (b *batch) fits(path string) error {
	folder, err := filepath.Rel(b.root, filepath.Dir(path))
	if err != nil || !filepath.IsAbs(path) || folder == ".." || strings.HasPrefix(folder, "../") {
		return fmt.Errorf("%s is not below notmuch's mail root %s", path, b.root)
	}
	if inMaildir(path) {
		folder = filepath.Dir(folder)
	}
	if len(folder) > maxFolder || len(filepath.Base(path)) > maxFile {
		return fmt.Errorf("%w (a folder has at most %d bytes, a file's name %d): %s", errTooLong, maxFolder, maxFile, path)
	}
	return nil
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

// without gives tags less some.
func without(tags, less []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return slices.Contains(less, t) })
}

// with gives tags and add, less remove.
func with(tags, add, remove []string) []string {
	out := without(slices.Concat(tags, add), remove)
	slices.Sort(out)
	return slices.Compact(out)
}

// retag changes tags in one write of the message: without freezing it each tag
// costs one (four tags: 17 ms a mail in place of 9, of which indexing is 5). It
// is no faster on a message found again, nor in a pass after all were indexed,
// nor without the transaction.
func retag(m *notmuch.Message, add, remove []string) error {
	if len(add)+len(remove) == 0 {
		return nil
	}
	var errs []error
	err := m.Atomic(func(m *notmuch.Message) { errs = change(m, add, remove) })
	return errors.Join(append(errs, err)...)
}

func change(m *notmuch.Message, add, remove []string) (errs []error) {
	for _, t := range add {
		errs = append(errs, m.AddTag(t))
	}
	for _, t := range remove {
		errs = append(errs, m.RemoveTag(t))
	}
	return errs
}

// add indexes a file. carried are the tags of the stub that it replaces; nil
// stands for a mail on its own.
func (b *batch) add(c mail.Change, carried []string) (r mail.Result, err error) {
	r.Path = c.Path
	ghost, err := b.tagGhost(c, carried)
	if err != nil {
		return r, err
	}
	if ghost {
		defer func() {
			// The file is of another message, or of none.
			if r.ID != c.ID {
				err = errors.Join(err, b.untagGhost(c, carried))
			}
		}()
	}
	var m *notmuch.Message
	if exists(c.Path) {
		// If `notmuch new` came first, AddMessage would read the mail again.
		if m, err = find(b.db.FindMessageByFilename(c.Path)); err != nil {
			return r, err
		}
		r.Duplicate = m != nil
	}
	known := m != nil
	if m == nil {
		m, err = b.db.AddMessage(c.Path)
	}
	if errors.Is(err, notmuch.ErrFileError) {
		// A mail reader may have moved it from new to cur since it was written.
		path, e := locate(c.Path, nil)
		if e != nil {
			return r, e
		}
		r.Path = path
		relettered := b.relettered(c.Path, path)
		c.Add, c.Remove = without(c.Add, relettered), without(c.Remove, relettered)
		if m, err = b.db.AddMessage(path); errors.Is(err, notmuch.ErrFileError) {
			if f, e := os.Open(path); e != nil {
				err = e // says why
			} else {
				_ = f.Close() // nothing was written
			}
		}
	}
	r.Duplicate = r.Duplicate || errors.Is(err, notmuch.ErrDuplicateMessageID)
	switch {
	case errors.Is(err, notmuch.ErrFileNotEmail):
		r.NotMail = true
		return r, nil
	case err != nil && !r.Duplicate:
		return r, err
	}
	runtime.SetFinalizer(m, nil)
	defer func() { err = errors.Join(err, m.Close()) }()
	r.ID = m.ID()

	add, remove := b.tagsFor(c, r.Path, carried, r.Duplicate)
	if !r.Duplicate && !ghost {
		return r, retag(m, add, remove)
	}
	have, files, err := b.stateOf(m)
	if err != nil {
		return r, err
	}
	before := files
	if !known {
		before = slices.DeleteFunc(slices.Clone(files), func(f string) bool { return f == r.Path })
	}
	own := b.ownTags(have, before)
	want := with(b.asFiles(have, before, withoutOldNames(files, r.Path), ""), without(add, own), without(remove, own))
	if err := retag(m, without(want, have), without(have, want)); err != nil {
		return r, err
	}
	return r, b.forgetOldNames(files, r.Path)
}

// tagsFor gives what the file at path is to do to its message's tags.
func (b *batch) tagsFor(c mail.Change, path string, carried []string, duplicate bool) (add, remove []string) {
	add, remove = b.letterTags(path)
	switch {
	case duplicate:
		// Known mail is not made unread by another copy, nor by its stub.
		add = with(add, without(carried, []string{"unread"}), nil)
	case carried != nil:
		add = with(add, carried, nil)
	default:
		// As `notmuch new` does: new.tags, but never unread for mail that is
		// read; and unread for any other, whatever new.tags say.
		seen := strings.Contains(lettersOf(path), "S")
		for _, t := range c.New {
			if t != "unread" || !seen {
				add = append(add, t)
			}
		}
		if b.syncFlags && !seen && hasInfo(path) {
			add = append(add, "unread")
		}
	}
	add, remove = with(add, c.Add, nil), with(remove, c.Remove, nil)
	return without(add, remove), remove
}

// tagGhost gives the tags of a mail that is about to be indexed to its ghost, if
// it has one: the mail keeps them when it takes the ghost's place, which spares
// the second write of all its words, a quarter of what indexing costs. The
// newest come first, so that replies have left a ghost of about every other mail.
func (b *batch) tagGhost(c mail.Change, carried []string) (bool, error) {
	add, _ := b.tagsFor(c, c.Path, carried, false)
	return b.onGhost(c.ID, func(m *notmuch.Message) error { return retag(m, add, nil) })
}

// untagGhost takes them back.
func (b *batch) untagGhost(c mail.Change, carried []string) error {
	add, _ := b.tagsFor(c, c.Path, carried, false)
	_, err := b.onGhost(c.ID, func(m *notmuch.Message) error { return retag(m, nil, add) })
	return err
}

// onGhost lets f at the message with this id, if it is a ghost.
func (b *batch) onGhost(id string, f func(*notmuch.Message) error) (is bool, err error) {
	if id == "" {
		return false, nil
	}
	m, err := find(b.db.FindMessage(id))
	if m == nil || err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if is, err = isGhost(b.db, m); !is || err != nil {
		return false, err
	}
	return true, f(m)
}

// replace indexes a mail where a stub stood.
func (b *batch) replace(c mail.Change) (r mail.Result, err error) {
	r.Path = c.Path
	if c.OldPath == "" || b.fits(c.OldPath) != nil {
		return b.add(c, nil)
	}
	stub, old, err := b.byFile(c.OldPath)
	if err != nil {
		return r, err
	}
	if stub == nil {
		return b.add(c, nil)
	}
	// What its owner did to the stub is in its tags, or in a name that the
	// database has not seen yet.
	id := stub.ID()
	carried, err := tagsOf(stub)
	if err = errors.Join(err, stub.Close()); err != nil {
		return r, err
	}
	carried = b.asFiles(carried, []string{old}, []string{c.OldPath}, "")
	if c.Path, err = b.named(c.Path, carried, id == c.ID); err != nil {
		return r, err
	}
	r.Path = c.Path
	// The mail itself is news, though its stub may have been read.
	if slices.Contains(c.New, "unread") && !strings.Contains(lettersOf(c.Path), "S") {
		carried = append(carried, "unread")
	}
	if r, err = b.add(c, carried); err != nil {
		return r, err
	}
	if err = b.forget(old); err == nil && r.ID == id {
		// What stood there had the mail's Message-ID, as mbsync's placeholders have, and the
		// message still has its subject and text.
		err = b.reindex(mail.Change{Path: c.Path, ID: id})
	}
	return r, err
}

// named gives a file the letters of flags that are among tags; that it was read, where they are
// all the tags that it will have.
func (b *batch) named(path string, tags []string, all bool) (string, error) {
	if !b.syncFlags || !inMaildir(path) {
		return path, nil
	}
	set := ""
	for _, row := range letterRows() {
		if slices.Contains(tags, row.tag) != row.absent && (all || !row.absent) {
			set += row.letter
		}
	}
	if set == "" {
		return path, nil
	}
	return reletter(path, nil, set, "")
}

// reindex reads a message's files again.
func (b *batch) reindex(c mail.Change) (err error) {
	m, err := b.flagged(c)
	if m == nil || err != nil {
		return err
	}
	id := m.ID()
	have, files, err := b.stateOf(m)
	if err == nil {
		err = reindexed(b.db, m)
	}
	if err = errors.Join(err, m.Close()); err != nil {
		return err
	}
	// libnotmuch takes the message apart for that. Where it could not read its tags or
	// files before, it leaves it without, and says that all went well.
	var now, left []string
	m, err = find(b.db.FindMessage(id))
	if m != nil {
		now, left, err = b.stateOf(m)
		err = errors.Join(err, m.Close())
	}
	lost := func(f string) bool { return !slices.Contains(left, f) && exists(f) }
	if err == nil && (slices.ContainsFunc(files, lost) || m != nil && !slices.Equal(have, now)) {
		return fmt.Errorf("%w: %s would lose tags or files", notmuch.ErrXapianException, id)
	}
	return err
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
// tags are those that its message had, if that was the last one.
func (b *batch) remove(c mail.Change) (tags []string, err error) {
	var m *notmuch.Message
	if c.ID != "" {
		if m, err = find(b.db.FindMessage(c.ID)); err != nil {
			return nil, err
		}
	}
	if m != nil {
		// Another program may have told notmuch before that the file is gone: then it
		// is the tags alone.
		same := func(f string) bool { return sameFile(f, c.Path) }
		files, err := filesOf(m)
		if !slices.ContainsFunc(files, same) {
			// Its folder got another name when the file was gone from it already, and kept this.
			same = func(f string) bool { return keyOf(f) == keyOf(c.Path) && !exists(f) }
		}
		if err == nil && (slices.ContainsFunc(files, same) || len(c.Add)+len(c.Remove) > 0 && len(files) > 0) {
			return b.lose(m, c, same)
		}
		if err = errors.Join(err, m.Close()); err != nil {
			return nil, err
		}
	}
	m, name, err := b.byFile(c.Path)
	if m == nil || err != nil {
		return nil, err
	}
	return b.lose(m, c, func(f string) bool { return f == name })
}

// lose takes those files of a message out of the database that are gone, and closes
// it. If it has others, its tags are theirs; else tags are those that it had.
func (b *batch) lose(m *notmuch.Message, c mail.Change, gone func(string) bool) (tags []string, err error) {
	id := m.ID()
	have, files, err := b.stateOf(m)
	if err = errors.Join(err, m.Close()); err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(slices.Clone(files), gone)
	for _, f := range files {
		if gone(f) {
			if err := b.forget(f); err != nil {
				return nil, err
			}
		}
	}
	if len(left) == 0 {
		return append([]string{}, have...), nil // a ghost has none
	}
	want := b.asFiles(with(have, c.Add, c.Remove), files, left, "")
	return nil, b.retagAlone(id, without(want, have), without(have, want))
}

// byFile finds the message of a file, and the name that the database has for
// the file. It is nil if there is none.
func (b *batch) byFile(path string) (*notmuch.Message, string, error) {
	m, err := find(b.db.FindMessageByFilename(b.at(path)))
	if m != nil || err != nil {
		return m, path, err
	}
	dir := filepath.Dir(filepath.Dir(path))
	if b.names[dir] == nil {
		keys := make(map[string][]string)
		for _, sub := range []string{"new", "cur"} {
			files, err := childFiles(b.db, b.at(filepath.Join(dir, sub)))
			if err != nil {
				return nil, "", err
			}
			for _, f := range files {
				keys[keyOf(f)] = append(keys[keyOf(f)], filepath.Join(dir, sub, f))
			}
		}
		if b.names == nil {
			b.names = make(map[string]map[string][]string)
		}
		b.names[dir] = keys
	}
	for _, name := range b.names[dir][keyOf(path)] {
		if m, err := find(b.db.FindMessageByFilename(b.at(name))); m != nil || err != nil {
			return m, name, err
		}
	}
	return nil, "", nil
}
