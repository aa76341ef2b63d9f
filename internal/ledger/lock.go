package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const lockName = "lock"

// takeLock takes the account's lock, which goes with the process however it
// ends. The file says who holds it.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = TryLock(f); err != nil {
		return nil, errors.Join(busy(f, err), f.Close())
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

const (
	look = 5 * time.Millisecond
	// One that was killed may leave its lock for a moment to a child that it had just begun.
	leaves = 200 * time.Millisecond
	// Who only looks has it for far less, but it is the machine that says when it goes on.
	looks = 10 * time.Second
)

// TryLock takes a lock for this process alone, or gives unix.EWOULDBLOCK where another has it so.
// Who only looks whether it is taken, by LOCK_SH, is waited for.
func TryLock(f *os.File) error {
	for began, owned := time.Now(), time.Duration(0); ; time.Sleep(look) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Since(began) > looks {
			return err
		}
		// Beside one that looks there is room for another that does.
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
		case err == nil:
			if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
				return err
			}
		case !errors.Is(err, unix.EWOULDBLOCK) || owned >= leaves:
			return err
		default:
			owned += look
		}
	}
}

// busy makes of an error of a lock what its user reads: who has it, if that is why.
func busy(f *os.File, err error) error {
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	holder := ""
	if b, _ := io.ReadAll(io.NewSectionReader(f, 0, 32)); len(b) > 0 {
		holder = fmt.Sprintf(" (process %s)", strings.TrimSpace(string(b)))
	}
	return fmt.Errorf("%w%s", ErrBusy, holder)
}

// Busy gives ErrBusy, with the process, if a run is at work on the account of the ledger
// in dir. A run that begins at this moment is kept from nothing.
func Busy(dir string) error {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return errors.Join(busy(f, err), f.Close())
	}
	return dropLock(f)
}

// dropLock gives the lock back. Closing alone would leave it to a child that was
// just forked and has not yet run its program.
func dropLock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}
