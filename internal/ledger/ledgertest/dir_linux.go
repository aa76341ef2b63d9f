package ledgertest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Dir is a directory that ends with the test and that no disk keeps waiting, if the system has one
// with room in which programs run: what a process that was killed has written stays there.
func Dir(t testing.TB) string {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err != nil || fs.Flags&unix.ST_NOEXEC != 0 || fs.Bavail*uint64(fs.Bsize) < 1<<30 { //nolint:gosec // a block has a size
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "notmuch-imap")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // nothing hangs on it
	return dir
}
