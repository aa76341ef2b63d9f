//go:build !linux

package index

import (
	"context"
	"errors"
	"time"
)

// waitForLock asks nobody: Xapian's lock cannot be looked at elsewhere without
// taking it, so libnotmuch waits itself, and without bound.
func (x *Index) waitForLock(ctx context.Context, _ time.Duration, _ func(string)) error {
	return ctx.Err()
}

// lockDatabase is of Linux.
func (x *Index) lockDatabase(context.Context, time.Duration) (unlock func(), err error) {
	return nil, errors.ErrUnsupported
}

// exchange is of Linux.
func exchange(_, _ string) error { return errors.ErrUnsupported }

// rename gives a file a new name and never overwrites another.
func rename(from, to string) error { return lookAndRename(from, to) }
