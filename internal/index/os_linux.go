package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pollLock is how often a lock that somebody holds is asked for.
const pollLock = 20 * time.Millisecond

// waitForLock waits until nobody holds the write lock, since libnotmuch would
// wait without bound (F_OFD_SETLKW). Somebody may take it between the answer
// and the opening; then opening waits as long as that program holds it. told, if not nil,
// is told once that it takes a while.
func (x *Index) waitForLock(ctx context.Context, most time.Duration, told func(string)) error {
	f, err := os.OpenFile(filepath.Join(x.path, lockName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the notmuch database cannot be locked: %w", err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	ctx, cancel := context.WithTimeoutCause(ctx, most, ErrLocked)
	defer cancel()
	tick := time.NewTicker(pollLock)
	defer tick.Stop()
	while := time.After(most / 30)
	stop := func() {}
	defer func() { stop() }()
	for waits := false; ; waits = true {
		// Xapian locks the first byte (flint_lock.cc).
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 1}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
			return fmt.Errorf("the notmuch database's lock cannot be read: %w", err)
		}
		if lock.Type == unix.F_UNLCK {
			return nil
		}
		if !waits {
			stop = atWork.wait()
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrLocked) {
				return fmt.Errorf("%w for %v (%s): end it, or run this again later", ErrLocked, most, x.path)
			}
			return ctx.Err()
		case <-while:
			if told != nil {
				told(fmt.Sprintf("another program is writing to the database (%s): waiting for it, for %v at most", x.path, most))
			}
		case <-tick.C:
		}
	}
}

// lockDatabase takes the write lock as Xapian does, and waits for it so long at most.
func (x *Index) lockDatabase(ctx context.Context, most time.Duration) (unlock func(), err error) {
	for {
		if err := x.waitForLock(ctx, most, x.waits); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(filepath.Join(x.path, lockName), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("the notmuch database cannot be locked: %w", err)
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 0, Len: 1}
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if err == nil {
			return func() { _ = f.Close() }, nil // which lets go of it
		}
		_ = f.Close() // nothing was written
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("the notmuch database cannot be locked: %w", err)
		}
		// Somebody was faster.
	}
}

// exchange lets two files, or directories, have each other's name, in one step.
func exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// rename gives a file a new name and never overwrites another.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return lookAndRename(from, to) // a kernel or file system without it (NFS)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
