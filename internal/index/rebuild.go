package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sys/unix"
)

// RebuildOptions is what a rebuild is given.
type RebuildOptions struct {
	// Workers is how many processes index at once.
	Workers int
	// Worker gives a process that calls BuildShard with dir and shard, its own standard
	// input and its own standard output.
	Worker func(ctx context.Context, dir, shard string) *exec.Cmd
	// Progress is told how many messages are indexed.
	Progress func(done, total int)
	// DryRun: what would be done is looked into, and not done.
	DryRun bool

	step  func(string) // for tests: called behind each step
	least int          // for tests: in place of leastAhead
}

// Rebuilt is what came of a rebuild, or, of a dry run, what it would be about.
type Rebuilt struct {
	Messages int `json:"messages"`
	Files    int `json:"files"`
	// Threads, before and after: mail that is gone may have held a thread together.
	ThreadsBefore int    `json:"threads_before"`
	Threads       int    `json:"threads,omitempty"`
	SizeBefore    int64  `json:"bytes_before"`
	Size          int64  `json:"bytes,omitempty"`
	Room          int64  `json:"room"`           // it takes on the disk meanwhile, at most
	Kept          string `json:"kept,omitempty"` // where the database is that was there before
	Repeated      int    `json:"meanwhile"`      // messages that other programs changed meanwhile
	Workers       int    `json:"-"`              // how many processes index, at most
}

const (
	// workshopName is what the directory of a rebuild is called, beside the database.
	workshopName = "notmuch-imap-rebuild"
	// keptName is what the database that was there before is called, beside the new one.
	keptName = "xapian.before"
	// catchUps is how often what others write meanwhile is taken over before they are told to wait.
	catchUps = 5
	// swapWait is how long a program that writes is waited for, for which all was done in vain else.
	swapWait = 10 * time.Minute
)

// ErrStale says that the database does not know the files as they are.
var ErrStale = errors.New("the notmuch database does not know this mail as it is")

// absent is files that are nowhere.
type absent struct {
	files  int
	first  string
	folder bool // so is a directory of theirs
}

func (a *absent) add(path string) {
	if a.files++; a.files == 1 {
		a.first = path
	}
	if !a.folder {
		_, err := os.Lstat(filepath.Dir(path))
		a.folder = errors.Is(err, fs.ErrNotExist)
	}
}

// err tells of them, and what to do. Files that their owner has removed are for `notmuch new`.
// It would forget the tags of all that is on a disk that is not mounted, though.
func (a *absent) err(of int) error {
	switch {
	case a.files == 0:
		return nil
	case a.folder || a.files*muchGone >= of:
		return fmt.Errorf("%d of %d files are gone, as %s: see whether their disk is mounted; `notmuch new` forgets them with their tags, and is right only if you have removed them", a.files, of, a.first)
	default:
		return fmt.Errorf("%w: run `notmuch new`, then this again (files that are gone, or in another folder: %d, as %s)", ErrStale, a.files, a.first)
	}
}

// muchGone is which part of the files is more than their owner would remove and not tell notmuch.
const muchGone = 10

// Rebuild makes the database anew of the files that it has, in several processes, with all
// tags, properties and the configuration that it has, and puts it in the place of the one that was there,
// which is kept beside it. Whatever ends it before leaves the database that was there.
// What others write meanwhile is taken over.
func (x *Index) Rebuild(ctx context.Context, o RebuildOptions) (Rebuilt, error) {
	r, err := x.rebuilding(o)
	if err == nil {
		err = r.all(ctx)
	}
	return r.done, err
}

// rebuilding begins a rebuild.
func (x *Index) rebuilding(o RebuildOptions) (*rebuilding, error) {
	if o.step == nil {
		o.step = func(string) {}
	}
	path, err := filepath.EvalSymlinks(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoDatabase
	}
	return &rebuilding{Index: x, RebuildOptions: o, real: path, grove: newGrove()}, err
}

// all does all of it.
func (r *rebuilding) all(ctx context.Context) error {
	if err := r.known(ctx); err != nil {
		return err
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if err := r.room(); err != nil || r.DryRun {
		return err
	}
	beside := filepath.Dir(r.real)
	lock, err := lockDir(beside)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("%w: a rebuild", ErrLocked)
	case err != nil:
		return fmt.Errorf("%s cannot be locked: %w", beside, err)
	}
	defer func() { _ = lock.Close() }() // nothing was written
	dir := filepath.Join(beside, workshopName)
	if err := clearWorkshop(ctx, dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err = r.canSwap(dir); err == nil {
		err = r.build(ctx, dir)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// clearWorkshop takes away what a rebuild has left that was killed. Its processes end with it,
// or soon after.
func clearWorkshop(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, steadyWait)
	defer cancel()
	tick := time.NewTicker(pollLock)
	defer tick.Stop()
	for {
		err := os.RemoveAll(dir)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// sweep takes away what a rebuild has left that was killed, if none is under way.
func (x *Index) sweep() {
	path, err := filepath.EvalSymlinks(x.path)
	if err != nil {
		return
	}
	dir := filepath.Join(filepath.Dir(path), workshopName)
	if _, err := os.Lstat(dir); err != nil {
		return
	}
	if lock, err := lockDir(filepath.Dir(path)); err == nil {
		_ = os.RemoveAll(dir) // what is left of it costs nothing but room
		_ = lock.Close()      // nothing was written
	}
}

// rebuilding is a rebuild that is under way.
type rebuilding struct {
	*Index
	RebuildOptions
	real     string // the Xapian directory itself
	config   string // notmuch's configuration, as text
	stored   []property
	messages []record
	ahead    *ahead // nil: of what is in the database alone
	grove    *grove
	done     Rebuilt
}

// known refuses databases that have what would be lost, and programs that this was not tried with.
func (r *rebuilding) known(ctx context.Context) error {
	if r.missing {
		return ErrNoDatabase
	}
	if _, err := os.Stat(filepath.Join(r.real, stateName)); err != nil {
		return fmt.Errorf("the notmuch database is of a kind that cannot be rebuilt: %w", err)
	}
	version, err := tool(ctx, "xapian-compact", "--version")
	if err != nil {
		return err
	}
	if !strings.Contains(version, "xapian-core 1.4.") {
		return fmt.Errorf("a rebuild was not tried with this Xapian (%s)", oneLine(version))
	}
	keys, err := tool(ctx, "xapian-metadata", "list", r.real)
	if err != nil {
		return err
	}
	for key := range strings.Lines(keys) {
		key = strings.TrimSuffix(key, "\n")
		if !strings.HasPrefix(key, "C") && !slices.Contains([]string{"features", "last_thread_id", "version"}, key) {
			return fmt.Errorf("the notmuch database has the Xapian metadata %q of another program, which a rebuild would lose: remove them by that program, or leave this database as it is", key)
		}
	}
	return nil
}

// read reads all that the database alone knows.
func (r *rebuilding) read(ctx context.Context) error {
	err := r.Index.read(ctx, func(db *notmuch.DB) (err error) {
		if db.NeedsUpgrade() {
			return errUpgrade
		}
		text, err := os.ReadFile(configPath(db))
		if err != nil {
			return err
		}
		r.config = string(text)
		r.stored, err = storedConfig(db, "")
		return err
	})
	if err != nil {
		return err
	}
	ids, err := r.Search(ctx, "*", 0)
	if err != nil {
		return err
	}
	var gone absent
	var odd oddFiles
	threads := make(map[string]bool)
	r.messages = make([]record, 0, len(ids))
	err = r.records(ctx, ids, func(m record) error {
		if err := r.files(m, &gone, &odd); err != nil {
			return err
		}
		r.messages = append(r.messages, m)
		r.done.Files += len(m.Files)
		threads[m.Thread] = true
		return ctx.Err()
	})
	r.done.Messages, r.done.ThreadsBefore = len(r.messages), len(threads)
	r.messages = append(r.messages, r.ahead.besides(ids)...)
	r.done.Workers = min(max(1, r.Workers), max(1, len(r.messages)/leastPart))
	switch {
	case err != nil:
		return err
	case gone.files > 0:
		return gone.err(r.done.Files)
	case len(ids) == 0 && r.ahead == nil:
		return errors.New("the notmuch database has no mail: run `notmuch new`")
	}
	if err := errors.Join(odd.ask(ctx, r.conf.mailRoot, r.config), odd.err()); err != nil {
		return err
	}
	r.done.SizeBefore, err = sizeOf(r.real)
	return err
}

// room sees that there is enough of it, which may be written to.
func (r *rebuilding) room() error {
	for _, dir := range []string{filepath.Dir(r.real), r.real} {
		if err := unix.Access(dir, unix.W_OK); err != nil {
			return fmt.Errorf("the directory %s cannot be written to: %w", dir, err)
		}
	}
	r.done.Room = roomFor*r.done.SizeBefore + r.ahead.room()
	var st unix.Statfs_t
	if err := unix.Statfs(r.real, &st); err != nil {
		return err
	}
	free := int64(float64(st.Bavail) * float64(st.Bsize)) // integers of each system's own kind
	if free < r.done.Room {
		return fmt.Errorf("a rebuild takes up to %.2f MB beside %s, and %.2f MB are free there", float64(r.done.Room)/(1<<20), r.real, float64(free)/(1<<20))
	}
	return nil
}

// roomFor is what a rebuild takes of the size of the database: the shards, which are half
// empty, the new one, and what is added to that.
const roomFor = 4

// sizeOf sums up the files of a directory.
func sizeOf(dir string) (n int64, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if info, e := e.Info(); e == nil {
			n += info.Size()
		}
	}
	return n, err
}

// build makes the new database below dir, and puts it in place.
func (r *rebuilding) build(ctx context.Context, dir string) error {
	indexed := make(chan int)
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		done := 0
		for n := range indexed {
			if done += n; r.Progress != nil {
				r.Progress(done, len(r.messages))
			}
		}
	}()
	w := &workshop{dir: dir, root: r.conf.mailRoot, config: r.config, grove: r.grove, worker: r.Worker, counted: func(n int) { indexed <- n }}
	made, err := w.build(ctx, r.messages, r.stored, r.done.Workers)
	close(indexed)
	<-counted
	r.messages, r.grove = nil, nil
	if err != nil {
		return err
	}
	r.step("made")
	for range catchUps {
		state, err := r.catchUp(ctx, w, made)
		if err != nil {
			return err
		}
		r.step("caught up")
		swapped, err := r.swap(ctx, made, state)
		if swapped || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w again and again: end that, or run this again later", ErrLocked)
}

// leastPart is how many messages are worth a process.
const leastPart = 100
