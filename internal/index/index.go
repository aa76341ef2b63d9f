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
	"runtime"
	"sync"
	"time"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sys/unix"
)

// Options is where to find notmuch. What is left out is found as notmuch finds
// it: NOTMUCH_CONFIG, NOTMUCH_PROFILE, NOTMUCH_DATABASE, XDG directories.
type Options struct {
	Config  string
	Profile string
	// LockWait is how long Apply waits for another program's write lock; 0
	// means a minute.
	LockWait time.Duration
}

// Index is a notmuch database. It is open only while a method runs.
type Index struct {
	mu       sync.Mutex // one handle at a time: a second one in the process would wait for the first for ever
	config   string
	profile  string
	lockWait time.Duration
	path     string // the Xapian directory
	conf     configuration
}

// ErrLocked says that another program held the write lock all the time.
var ErrLocked = errors.New("another program is writing to the notmuch database") //nolint:gochecknoglobals // a sentinel

// Open finds the database and reads notmuch's configuration. A database that
// the configuration names and that is not there yet is made.
func Open(ctx context.Context, o Options) (*Index, error) {
	x := &Index{config: o.Config, profile: o.Profile, lockWait: o.LockWait}
	if x.lockWait <= 0 {
		x.lockWait = time.Minute
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err := x.explain()
	if errors.Is(err, errNoDatabase) {
		err = x.create()
	}
	if err != nil {
		return nil, err
	}
	err = x.read(func(db *notmuch.DB) error {
		x.conf = readConfiguration(db)
		x.path = xapianDir(db.Path())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if x.conf.mailRoot == "" {
		return nil, errors.New("notmuch does not say where mail is: run `notmuch setup`")
	}
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

// MailRoot is the directory below which all mail is.
func (x *Index) MailRoot() string { return x.conf.mailRoot }

// DatabasePath is the directory of the Xapian database.
func (x *Index) DatabasePath() string { return x.path }

// HookDir is where notmuch looks for hooks.
func (x *Index) HookDir() string { return x.conf.hookDir }

// NewTags is notmuch's new.tags.
func (x *Index) NewTags() []string { return x.conf.newTags }

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

// open opens the database with its finalizer cleared.
func (x *Index) open(mode notmuch.DBMode) (*notmuch.DB, error) {
	db, err := notmuch.OpenWithConfig(nil, optional(x.config), optional(x.profile), mode)
	if err != nil {
		if why := x.explain(); why != nil {
			return nil, why
		}
		return nil, fmt.Errorf("the notmuch database cannot be opened: %w", err)
	}
	runtime.SetFinalizer(db, nil)
	return db, nil
}

// read lets f read, once more if a writer got in between.
func (x *Index) read(f func(*notmuch.DB) error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	once := func() (err error) {
		db, err := x.open(notmuch.DBReadOnly)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return f(db)
	}
	err := once()
	if errors.Is(err, notmuch.ErrXapianException) {
		err = once()
	}
	return err
}

// Count counts the messages that match a query.
func (x *Index) Count(query string) (n int, err error) {
	err = x.read(func(db *notmuch.DB) error {
		q := db.NewQuery(query)
		runtime.SetFinalizer(q, nil)
		n = q.CountMessages()
		return q.Close()
	})
	return n, err
}

// Tags gives the tags of a message, sorted; known is false if there is none
// with this id.
func (x *Index) Tags(id string) (tags []string, known bool, err error) {
	err = x.read(func(db *notmuch.DB) error {
		m, err := find(db.FindMessage(id))
		if m == nil || err != nil {
			return err
		}
		known, tags = true, tagsOf(m)
		return m.Close()
	})
	return tags, known, err
}

// pollLock is how often a lock that somebody holds is asked for.
const pollLock = 20 * time.Millisecond

// waitForLock waits until nobody holds the write lock. libnotmuch would wait
// without bound. Somebody may take it between the answer and the opening; then
// opening waits, as long as that program's own commit takes.
func (x *Index) waitForLock(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(x.path, "flintlock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the notmuch database cannot be locked: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	ctx, cancel := context.WithTimeoutCause(ctx, x.lockWait, ErrLocked)
	defer cancel()
	tick := time.NewTicker(pollLock)
	defer tick.Stop()
	for {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
			return fmt.Errorf("the notmuch database's lock cannot be read: %w", err)
		}
		if lock.Type == unix.F_UNLCK {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrLocked) {
				return fmt.Errorf("%w for %v (%s): end it, or run this again later", ErrLocked, x.lockWait, x.path)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}
