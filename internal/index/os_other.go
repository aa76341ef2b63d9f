//go:build !linux

package index

import (
	"context"
	"time"
)

// waitForLock asks nobody: Xapian's lock cannot be looked at elsewhere without
// taking it, so libnotmuch waits itself, and without bound.
func (x *Index) waitForLock(ctx context.Context, _ time.Duration, _ func(string)) error {
	return ctx.Err()
}

// rename gives a file a new name and never overwrites another.
func rename(from, to string) error { return lookAndRename(from, to) }
