// Package index is the notmuch database. It is the only room that talks to
// libnotmuch: one goroutine holds the handle, every object is closed where it
// was opened and its finalizer is cleared, since finalizers of go.notmuch race
// with live calls; and no object leaves.
package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Options is where to find notmuch. What is left out is found as notmuch finds
// it: NOTMUCH_CONFIG, NOTMUCH_PROFILE, NOTMUCH_DATABASE, XDG directories.
type Options struct {
	Config  string
	Profile string
	// LockWait is how long Apply waits for another program's write lock; 0
	// means a minute.
	LockWait time.Duration
	// Existing: a database that is not there yet is not made. It looks empty, and
	// nothing can be written to it; Missing says so.
	Existing bool
	// Note is told, in a line, what looks odd but works; nil for silence.
	Note func(string)
	// Waits is told, in a line, that another program's write lock is waited for, when that
	// has taken a while; nil for silence.
	Waits func(string)
}

// Index is a notmuch database. It is open only while a method runs. Its methods
// may be called from several goroutines; they take turns.
type Index struct {
	// turn is held by whoever has a handle: a second one in the process would
	// wait for the first for ever. It is a channel so that waiting can end.
	turn chan struct{}
	// aside is held by who reads beside a long transaction of this process.
	aside    chan struct{}
	config   string
	profile  string
	own      string // the directory of a database that is not the configuration's; "" if it is
	lockWait time.Duration
	waits    func(string)
	base     string // the directory of the database
	path     string // the Xapian directory, in or below it
	conf     configuration
	missing  bool // there is no database, and it was not to be made
	clearing sync.Once
	sweeping sync.Once
}

// ErrLocked says that another program held the write lock all the time.
var ErrLocked = errors.New("another program is writing to the notmuch database")

// Open finds the database and reads notmuch's configuration. A database that
// the configuration names and that is not there yet is made, unless o.Existing.
func Open(ctx context.Context, o Options) (*Index, error) {
	x := &Index{turn: make(chan struct{}, 1), aside: make(chan struct{}, 1), config: o.Config, profile: o.Profile, lockWait: o.LockWait, waits: o.Waits}
	if x.lockWait <= 0 {
		x.lockWait = time.Minute
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	flushEarly()
	conf, err := x.probe()
	switch {
	case errors.Is(err, ErrNoDatabase) && o.Existing:
		conf, err = x.configured()
		x.missing = true
	case errors.Is(err, ErrNoDatabase):
		if err = x.create(); err == nil {
			conf, err = x.probe()
		}
	}
	if err != nil {
		return nil, err
	}
	if conf.mailRoot == "" {
		return nil, errors.New("notmuch does not say where mail is: run `notmuch setup`")
	}
	conf.mailRoot = filepath.Clean(conf.mailRoot)
	x.conf = conf
	// libnotmuch 0.37 gives database.path of the configuration as the path of
	// a database that NOTMUCH_DATABASE named; and paths of mail stay relative
	// to the mail root of the configuration.
	base := os.Getenv("NOTMUCH_DATABASE")
	if base == "" {
		base = conf.path
	} else if o.Note != nil && filepath.Clean(base) != filepath.Clean(conf.path) {
		o.Note(fmt.Sprintf("NOTMUCH_DATABASE is %s, but mail is kept below %s, as the configuration says", base, conf.mailRoot))
	}
	x.base, x.path = base, xapianDir(base)
	breakOffPlainly(x.path)
	return x, nil
}

// xapianDir gives the directory with the lock file: below .notmuch beside the
// mail, or apart from it in a split layout.
func xapianDir(database string) string {
	old := filepath.Join(database, ".notmuch", "xapian")
	if fi, err := os.Stat(old); err == nil && fi.IsDir() {
		return old
	}
	return filepath.Join(database, "xapian")
}

// Missing tells that there is no database yet (Options.Existing).
func (x *Index) Missing() bool { return x.missing }

// MailRoot is the directory below which all mail is.
func (x *Index) MailRoot() string { return x.conf.mailRoot }

// DatabasePath is the directory of the Xapian database.
func (x *Index) DatabasePath() string { return x.path }

// HookDir is where notmuch looks for hooks.
func (x *Index) HookDir() string { return x.conf.hookDir }

// NewTags is notmuch's new.tags.
func (x *Index) NewTags() []string { return slices.Clone(x.conf.newTags) }

// Ignores gives the entry of notmuch's new.ignore that leaves a directory out, which is
// given as its path below the mail root; "" if none does. Entries are names, or
// regular expressions for paths between slashes.
func (x *Index) Ignores(dir string) string {
	for _, entry := range x.conf.newIgnore {
		pattern, opened := strings.CutPrefix(entry, "/")
		if pattern, closed := strings.CutSuffix(pattern, "/"); opened && closed {
			if re, err := regexp.Compile(pattern); err == nil && re.MatchString(dir) {
				return entry
			}
			continue
		}
		if slices.Contains(strings.Split(dir, "/"), entry) {
			return entry
		}
	}
	return ""
}

// Addresses are the user's own: user.primary_email and user.other_email.
func (x *Index) Addresses() []string { return slices.Clone(x.conf.addresses) }

// SyncFlags is notmuch's maildir.synchronize_flags.
func (x *Index) SyncFlags() bool { return x.conf.syncFlags }

// UUID names the database; another one means that it was rebuilt.
func (x *Index) UUID() string { return x.conf.uuid }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// take waits until no other method has a handle.
func (x *Index) take(ctx context.Context) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case x.turn <- struct{}{}:
		return func() { <-x.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// takeToRead is take for who reads: libnotmuch may be at one mail for minutes, and reading goes
// beside that. One that is under way sees one commit of this process at most, since the next
// transaction waits for it (calm): two end the process (steady).
func (x *Index) takeToRead(ctx context.Context) (release func(), aside bool, err error) {
	within, cancel := context.WithTimeout(ctx, held)
	defer cancel()
	release, err = x.take(within)
	if err == nil || ctx.Err() != nil {
		return release, false, err
	}
	select {
	case x.turn <- struct{}{}:
		return func() { <-x.turn }, false, nil
	case x.aside <- struct{}{}:
		return func() { <-x.aside }, true, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// calm waits until nobody reads beside transactions of this process.
func (x *Index) calm(ctx context.Context) error {
	select {
	case x.aside <- struct{}{}:
		<-x.aside
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open opens the database as notmuch does.
func (x *Index) open(mode notmuch.DBMode) (*notmuch.DB, error) {
	return x.openWith(optional(x.own), optional(x.config), optional(x.profile), mode)
}

// openWith opens it with its finalizer cleared.
func (x *Index) openWith(base, config, profile *string, mode notmuch.DBMode) (*notmuch.DB, error) {
	var db *notmuch.DB
	var err error
	undisturbed(func() (disturbed bool) {
		db, err = notmuch.OpenWithConfig(base, config, profile, mode)
		return errors.Is(err, notmuch.ErrXapianException)
	})
	if err != nil {
		if _, why := x.probe(); why != nil {
			return nil, why // in words, which go.notmuch loses
		}
		return nil, fmt.Errorf("the notmuch database cannot be opened: %w", err)
	}
	runtime.SetFinalizer(db, nil)
	return db, nil
}

// undisturbed opens a database again, some times at most, where Xapian fails to: others may commit
// to it meanwhile, and what was being read is discarded then (Xapian's DatabaseModifiedError).
func undisturbed(open func() (disturbed bool)) {
	for range 10 {
		if !open() {
			return
		}
	}
}

// read lets f read, once more from the start if writers got in between
// (Xapian's DatabaseModifiedError: a reader outlives one commit), and while nobody writes if they
// did so again.
func (x *Index) read(ctx context.Context, f func(*notmuch.DB) error) error {
	release, aside, err := x.takeToRead(ctx)
	if err != nil {
		return err
	}
	defer release()
	if x.missing {
		return nil
	}
	err = x.once(notmuch.DBReadOnly, f)
	if errors.Is(err, notmuch.ErrXapianException) {
		err = x.once(notmuch.DBReadOnly, f)
	}
	if errors.Is(err, notmuch.ErrXapianException) && !aside {
		return x.alone(ctx, f)
	}
	return unreadable(err)
}

func unreadable(err error) error {
	if errors.Is(err, notmuch.ErrXapianException) {
		return fmt.Errorf("the notmuch database cannot be read: %w", err)
	}
	return err
}

func (x *Index) once(mode notmuch.DBMode, f func(*notmuch.DB) error) (err error) {
	db, err := x.open(mode)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, db.Close()); mode == notmuch.DBReadWrite {
			err = noRoom(x.path, err)
		}
	}()
	return f(db)
}

// steadyWait is how long alone waits for a program that writes.
const steadyWait = 5 * time.Second

// steady lets f read while nobody writes: under a list of messages that is read
// while another program commits twice, libnotmuch 0.37 ends the process, since
// nobody catches the exception of notmuch_messages_get. A program that holds the
// lock for long commits rarely, and is not waited for any longer.
func (x *Index) steady(ctx context.Context, f func(*notmuch.DB) error) error {
	release, aside, err := x.takeToRead(ctx)
	if err != nil {
		return err
	}
	defer release()
	if x.missing {
		return nil
	}
	if aside {
		return unreadable(x.once(notmuch.DBReadOnly, f))
	}
	return x.alone(ctx, f)
}

// alone lets f read under the write lock, or without if another program keeps that for long.
func (x *Index) alone(ctx context.Context, f func(*notmuch.DB) error) error {
	switch err := x.waitForLock(ctx, min(steadyWait, x.lockWait), nil); {
	case err == nil:
		return unreadable(x.once(notmuch.DBReadWrite, f))
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return unreadable(x.once(notmuch.DBReadOnly, f))
}

// Count counts the messages that match a notmuch query. No tag is excluded,
// nor is any in Search: search.exclude_tags is of `notmuch search` alone.
func (x *Index) Count(ctx context.Context, query string) (n int, err error) {
	err = x.read(ctx, func(db *notmuch.DB) error {
		n, err = count(db, query)
		return err
	})
	return n, err
}

// Search gives the ids of the messages that match a notmuch query, newest
// first, at most limit of them; 0 means all.
func (x *Index) Search(ctx context.Context, query string, limit int) (ids []string, err error) {
	err = x.steady(ctx, func(db *notmuch.DB) error {
		ids, err = search(db, query, limit)
		return err
	})
	return ids, err
}

// Tags gives the tags of a message, sorted; known is false if there is none
// with this id.
func (x *Index) Tags(ctx context.Context, id string) (tags []string, known bool, err error) {
	err = x.message(ctx, id, func(m *notmuch.Message) (err error) {
		known = true
		tags, err = tagsOf(m)
		return err
	})
	return tags, known, err
}

// AllTags gives the tags that any message has, sorted.
func (x *Index) AllTags(ctx context.Context) (tags []string, err error) {
	err = x.read(ctx, func(db *notmuch.DB) error {
		tags, err = allTagsOf(db)
		return err
	})
	return tags, err
}

// Files gives the paths of a message's files, sorted; none if notmuch does not
// know it.
func (x *Index) Files(ctx context.Context, id string) (files []string, err error) {
	err = x.message(ctx, id, func(m *notmuch.Message) (err error) {
		files, err = filesOf(m)
		return err
	})
	slices.Sort(files)
	return files, err
}

// message lets f look at a message, if there is one.
func (x *Index) message(ctx context.Context, id string, f func(*notmuch.Message) error) error {
	return x.read(ctx, func(db *notmuch.DB) error {
		_, err := lookUp(db, id, f)
		return err
	})
}

// lookUp lets f at the message with this id; found is false if there is none.
func lookUp(db *notmuch.DB, id string, f func(*notmuch.Message) error) (found bool, err error) {
	m, err := find(db.FindMessage(id))
	if m == nil && err == nil && filepath.IsAbs(id) { // or an id that looks so, as gateways from X.400 make them
		m, err = find(db.FindMessageByFilename(id))
	}
	if m == nil || err != nil {
		return false, err
	}
	return true, errors.Join(f(m), m.Close())
}

// Revision is what a query lastmod:REVISION.. starts from to find later
// changes. It counts in the database with this uuid only.
func (x *Index) Revision(ctx context.Context) (uuid string, revision uint64, err error) {
	err = x.read(ctx, func(db *notmuch.DB) error {
		uuid, revision = revisionOf(handle(db))
		return nil
	})
	return uuid, revision, err
}

// Changes gives the messages with files below the directory under that changed
// after since. If since is of another database, or of a later state than there
// is, as after a restored backup, whole is true and all of them are given. What
// changes meanwhile is given again by the next call that begins at now.
func (x *Index) Changes(ctx context.Context, since mail.Revision, under string) (now mail.Revision, tagged []mail.Tagged, whole bool, err error) {
	// Mostly there is nothing, which needs no lock.
	if now.UUID, now.N, err = x.Revision(ctx); err != nil || now == since {
		return now, nil, false, err
	}
	err = x.steady(ctx, func(db *notmuch.DB) error {
		now.UUID, now.N = revisionOf(handle(db))
		tagged, whole = nil, since.UUID != now.UUID || since.N > now.N
		query := "*"
		if !whole && since.N > 0 {
			query = fmt.Sprintf("lastmod:%d..", since.N+1)
		}
		ids, err := search(db, query, 0)
		if err != nil {
			return err
		}
		for _, id := range ids {
			_, err := lookUp(db, id, func(m *notmuch.Message) error {
				t, err := taggedOf(m, under)
				if err != nil {
					return err
				}
				if !whole && x.conf.syncFlags {
					t.Set, t.Clear = unwritten(t.Tags, slices.Concat(t.Paths, t.Others))
				}
				if len(t.Paths) > 0 {
					tagged = append(tagged, t)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return now, tagged, whole, err
}

// taggedOf gives a message with its files below the directory under, and its others.
func taggedOf(m *notmuch.Message, under string) (t mail.Tagged, err error) {
	t.ID = m.ID()
	tags, err := tagsOf(m)
	files, e := filesOf(m)
	for _, f := range files {
		if strings.HasPrefix(f, under+"/") {
			t.Paths = append(t.Paths, f)
		} else {
			t.Others = append(t.Others, f)
		}
	}
	t.Tags = tags
	return t, errors.Join(err, e)
}

// Messages gives those of the messages with these ids that have files, by id, with those below
// the directory under, and their others. An absolute path stands for the message of that file.
func (x *Index) Messages(ctx context.Context, ids []string, under string) (map[string]mail.Tagged, error) {
	out := make(map[string]mail.Tagged)
	err := x.read(ctx, func(db *notmuch.DB) error {
		for _, id := range ids {
			_, err := lookUp(db, id, func(m *notmuch.Message) error {
				t, err := taggedOf(m, under)
				ghost, e := isGhost(db, m)
				if err := errors.Join(err, e); err != nil || ghost {
					return err
				}
				t.From, t.Subject = m.Header("from"), m.Header("subject")
				out[id] = t
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}
