package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// takeLock takes the account's lock, which goes with the process however it
// ends. The file says who holds it.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := ""
		if b, _ := io.ReadAll(io.LimitReader(f, 32)); len(b) > 0 {
			holder = fmt.Sprintf(" (process %s)", strings.TrimSpace(string(b)))
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w%s", ErrBusy, holder)
		} else {
			err = fmt.Errorf("cannot lock %s: %w", path, err)
		}
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

// dropLock gives the lock back. Closing alone would leave it to a child that was
// just forked and has not yet run its program.
func dropLock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}
