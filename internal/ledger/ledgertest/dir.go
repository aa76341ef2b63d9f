package ledgertest

import (
	"os"
	"syscall"
	"testing"
)

// Dir is a directory that ends with the test and that no disk keeps waiting, if the system has one
// with room: what a process that was killed has written stays there.
func Dir(t testing.TB) string {
	t.Helper()
	var room syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &room); err != nil || room.Bavail*uint64(room.Bsize) < 1<<30 { //nolint:gosec // a block has a size
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "notmuch-imap")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing hangs on it
	return dir
}
