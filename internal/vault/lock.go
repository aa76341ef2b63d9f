package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock takes an exclusive lock (flock(2)) on an open file or directory, and waits for
// it until ctx ends; its error is then the context's. It closes the file, with unlock
// or after an error.
func Lock(ctx context.Context, f *os.File) (unlock func(), err error) {
	fd := int(f.Fd()) //nolint:gosec // a descriptor fits
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() {
				// Closing alone would leave it to a child that was just forked.
				_ = unix.Flock(fd, unix.LOCK_UN)
				_ = f.Close() // nothing was written to it
			}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("cannot lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}
