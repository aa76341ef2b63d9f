package index

import (
	"bytes"
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

	step func(string) // for tests: called behind each step
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
	if o.step == nil {
		o.step = func(string) {}
	}
	path, err := filepath.EvalSymlinks(x.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Rebuilt{}, ErrNoDatabase
	}
	if err != nil {
		return Rebuilt{}, err
	}
	r := &rebuilding{Index: x, RebuildOptions: o, real: path}
	if err := r.known(ctx); err != nil {
		return r.done, err
	}
	if err := r.read(ctx); err != nil {
		return r.done, err
	}
	if err := r.room(); err != nil || o.DryRun {
		return r.done, err
	}
	beside := filepath.Dir(path)
	lock, err := lockDir(beside)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return r.done, fmt.Errorf("%w: a rebuild", ErrLocked)
	case err != nil:
		return r.done, fmt.Errorf("%s cannot be locked: %w", beside, err)
	}
	defer func() { _ = lock.Close() }() // nothing was written
	dir := filepath.Join(beside, workshopName)
	if err := clearWorkshop(ctx, dir); err != nil {
		return r.done, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return r.done, err
	}
	if err = r.canSwap(dir); err == nil {
		err = r.build(ctx, dir)
	}
	return r.done, errors.Join(err, os.RemoveAll(dir))
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

// rebuilding is a rebuild that is under way.
type rebuilding struct {
	*Index
	RebuildOptions
	real     string // the Xapian directory itself
	config   string // notmuch's configuration, as text
	stored   []property
	messages []record
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
		r.stored, err = storedConfig(db)
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
	r.grove = newGrove()
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
	r.done.Workers = min(max(1, r.Workers), max(1, len(r.messages)/leastPart))
	switch {
	case err != nil:
		return err
	case gone.files > 0:
		return gone.err(r.done.Files)
	case len(ids) == 0:
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
	r.done.Room = roomFor * r.done.SizeBefore
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

// catchUp makes the new database equal to the one in use, and gives the state of that.
// Where nothing was written meanwhile it finds that they are.
func (r *rebuilding) catchUp(ctx context.Context, w *workshop, made *Index) (state []byte, err error) {
	if state, err = r.state(); err != nil {
		return nil, err
	}
	ids, err := r.Search(ctx, "*", 0)
	if err != nil {
		return nil, err
	}
	threads, were := make(map[string]bool), make(map[string]bool)
	var dirs []string
	var renamed []record
	err = made.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		there, err := search(db, "*", 0)
		if err != nil {
			return err
		}
		gone := make(map[string]bool, len(there))
		for _, id := range there {
			gone[id] = true
		}
		err = r.records(ctx, ids, func(want record) error {
			delete(gone, want.ID)
			were[want.Thread] = true
			for _, f := range want.Files {
				if d := filepath.Dir(f); len(dirs) == 0 || dirs[len(dirs)-1] != d {
					dirs = append(dirs, d)
				}
			}
			changed, thread, err := level(db, made, want)
			if changed {
				r.done.Repeated++
			}
			if errors.Is(err, ErrStale) {
				renamed = append(renamed, want)
				return ctx.Err()
			}
			threads[thread] = true
			return errors.Join(err, ctx.Err())
		})
		for id := range gone {
			if err != nil {
				break
			}
			r.done.Repeated++
			err = put(db, made.conf.mailRoot, record{ID: id})
		}
		if err != nil {
			return err
		}
		if err := r.scans(ctx, db, withParents(dirs)); err != nil {
			return err
		}
		return r.configure(ctx, db)
	})
	if err == nil && len(renamed) > 0 {
		err = r.byFormerNames(w, made, renamed, threads)
	}
	r.done.Threads, r.done.ThreadsBefore, r.done.Messages = len(threads), len(were), len(ids)
	return state, err
}

// byFormerNames indexes messages with files that a mail reader has renamed and notmuch has not
// seen since. The new database has to know them by the names that the one in use has: so the next
// `notmuch new` sees them renamed, and reads the flags. They have these names in a mail root of
// their own. Their threads join threads.
func (r *rebuilding) byFormerNames(w *workshop, made *Index, messages []record, threads map[string]bool) error {
	root := filepath.Join(w.dir, "former")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	var gone absent
	for _, m := range messages {
		for _, f := range m.Files {
			path, err := locate(filepath.Join(r.conf.mailRoot, f), nil)
			if errors.Is(err, fs.ErrNotExist) {
				gone.add(path)
				continue
			}
			name := filepath.Join(root, f)
			if err := errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700), os.Symlink(path, name)); err != nil {
				return err
			}
		}
	}
	if err := gone.err(r.done.Files); err != nil {
		return err
	}
	former, err := w.open(newName, root)
	if err != nil {
		return err
	}
	err = former.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		for _, m := range messages {
			if err := put(db, root, m); err != nil {
				return err
			}
			if _, err := lookUp(db, m.ID, func(m *notmuch.Message) error { threads[m.ThreadID()] = true; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	_, e := w.open(newName, made.conf.mailRoot) // as it was
	return errors.Join(err, e)
}

// level makes a message of the new database what want says, and tells whether it was not.
func level(db *notmuch.DB, made *Index, want record) (changed bool, thread string, err error) {
	for range 2 {
		m, err := find(db.FindMessage(want.ID))
		if err != nil {
			return changed, "", err
		}
		var have record
		if m != nil {
			have, err = made.recordOf(db, m)
			if err := errors.Join(err, m.Close()); err != nil {
				return changed, "", err
			}
		}
		if slices.Equal(have.Tags, want.Tags) && slices.Equal(have.Properties, want.Properties) && equalSets(have.Files, want.Files) {
			return changed, have.Thread, nil
		}
		changed = true
		if err := put(db, made.conf.mailRoot, want); err != nil {
			return changed, "", err
		}
	}
	return changed, "", fmt.Errorf("the message id:%s does not become in a new database what it is", want.ID)
}

func equalSets(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// scans has the new database know which directories `notmuch new` has read.
func (r *rebuilding) scans(ctx context.Context, made *notmuch.DB, dirs []string) error {
	when := make([]int64, len(dirs))
	err := r.Index.read(ctx, func(db *notmuch.DB) (err error) {
		for i, d := range dirs {
			if when[i], err = scanned(db, filepath.Join(r.conf.mailRoot, d)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return atomically(made, func() error {
		for i, d := range dirs {
			if err := setScanned(made, filepath.Join(r.conf.mailRoot, d), when[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// configure has the new database hold the configuration that the one in use has.
func (r *rebuilding) configure(ctx context.Context, made *notmuch.DB) error {
	var want []property
	err := r.Index.read(ctx, func(db *notmuch.DB) (err error) {
		want, err = storedConfig(db)
		return err
	})
	if err != nil {
		return err
	}
	have, err := storedConfig(made)
	if err != nil || slices.Equal(have, want) {
		return err
	}
	for _, c := range have {
		if !slices.ContainsFunc(want, func(w property) bool { return w.Key == c.Key }) {
			want = append(want, property{Key: c.Key}) // which deletes it
		}
	}
	return storeConfig(made, want)
}

// stateName is the file that every commit writes anew, with the number of the commit and the
// id of the database.
const stateName = "iamglass"

func (r *rebuilding) state() ([]byte, error) { return os.ReadFile(filepath.Join(r.real, stateName)) }

// lockName is the file that is the lock.
const lockName = "flintlock"

// canSwap tries what swap needs of the file system, before anything is indexed.
func (r *rebuilding) canSwap(dir string) error {
	a, b, lock := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, lockName)
	err := errors.Join(os.Mkdir(a, 0o700), os.Mkdir(b, 0o700), exchange(a, b), os.Link(filepath.Join(r.real, lockName), lock))
	if err != nil {
		return fmt.Errorf("a database cannot take another's place in this file system: %w", err)
	}
	return errors.Join(os.Remove(a), os.Remove(b), os.Remove(lock))
}

// swap puts the new database in the place of the one in use, in one step, if that is in this state
// still, and under its lock. The file that is the lock goes with it: who waits for it
// goes on with the new database, and keeps others from that.
func (r *rebuilding) swap(ctx context.Context, made *Index, state []byte) (swapped bool, err error) {
	kept := filepath.Join(filepath.Dir(r.real), keptName)
	if err := os.Remove(filepath.Join(made.path, lockName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Link(filepath.Join(r.real, lockName), filepath.Join(made.path, lockName)); err != nil {
		return false, err
	}
	if err := likeFiles(made.path, r.real); err != nil {
		return false, err
	}
	if r.done.Size, err = sizeOf(made.path); err != nil {
		return false, err
	}
	r.step("ready")
	release, err := r.take(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	unlock, err := r.lockDatabase(ctx, swapWait)
	if err != nil {
		return false, err
	}
	defer unlock()
	r.step("locked")
	now, err := r.state()
	if err != nil || !bytes.Equal(now, state) {
		return false, errors.Join(err, os.Remove(filepath.Join(made.path, lockName)))
	}
	if n, err := made.Count(ctx, "*"); err != nil || n != r.done.Messages {
		return false, errors.Join(err, fmt.Errorf("the new database has %d messages, and the one in use %d", n, r.done.Messages))
	}
	if err := exchange(made.path, r.real); err != nil {
		return false, err
	}
	r.done.Kept = kept
	r.step("beside")
	// The one that was kept before goes with the workshop.
	err = rename(made.path, kept)
	if errors.Is(err, fs.ErrExist) {
		err = exchange(made.path, kept)
	}
	if err != nil {
		return true, err
	}
	r.step("swapped")
	return true, syncDir(filepath.Dir(r.real))
}

// likeFiles gives the files of a new database the rights that those of the old one have, and has
// them on the disk.
func likeFiles(dir, like string) error {
	whole, err := os.Stat(like)
	if err != nil {
		return err
	}
	one, err := os.Stat(filepath.Join(like, stateName))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if filepath.Ext(path) == ".glass" || e.Name() == stateName {
			if err := os.Chmod(path, one.Mode().Perm()); err != nil {
				return err
			}
		}
		if err := syncDir(path); err != nil {
			return err
		}
	}
	return errors.Join(os.Chmod(dir, whole.Mode().Perm()|0o700), syncDir(dir)) // it has to be removed some day
}

// syncDir has a directory, or a file, on the disk.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
