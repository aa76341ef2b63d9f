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
	err = lock(f, unix.LOCK_EX)
	for range looks {
		if !errors.Is(err, ErrBusy) {
			break
		}
		time.Sleep(look)
		err = lock(f, unix.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
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

// Who only looks holds the lock for far less than look.
const (
	look  = 5 * time.Millisecond
	looks = 4
)

// lock takes the lock, or says who has it.
func lock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		holder := ""
		if b, _ := io.ReadAll(io.NewSectionReader(f, 0, 32)); len(b) > 0 {
			holder = fmt.Sprintf(" (process %s)", strings.TrimSpace(string(b)))
		}
		return fmt.Errorf("%w%s", ErrBusy, holder)
	case err != nil:
		return fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	return nil
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
	if err = lock(f, unix.LOCK_SH); err != nil {
		return errors.Join(err, f.Close())
	}
	return dropLock(f)
}

// dropLock gives the lock back. Closing alone would leave it to a child that was
// just forked and has not yet run its program.
func dropLock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}
