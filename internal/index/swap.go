package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

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
	wait := swapWait
	if r.ahead != nil {
		wait = r.lockWait
	}
	unlock, err := r.lockDatabase(ctx, wait)
	if err != nil {
		return false, err
	}
	defer unlock()
	r.step("locked")
	now, err := r.state()
	if err != nil || !bytes.Equal(now, state) {
		return false, errors.Join(err, os.Remove(filepath.Join(made.path, lockName)))
	}
	if n, err := made.Count(ctx, "*"); err != nil || n != r.done.Messages+r.ahead.count() {
		return false, errors.Join(err, fmt.Errorf("the new database has %d messages, and the one in use %d", n, r.done.Messages))
	}
	if err := exchange(made.path, r.real); err != nil {
		return false, err
	}
	if r.ahead != nil {
		r.ahead.swapped = true
		r.step("swapped")
		return true, syncDir(filepath.Dir(r.real)) // the one before is in the new one, and goes
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
