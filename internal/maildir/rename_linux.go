package maildir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// rename gives a file its name and never overwrites another.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return linkRename(from, to) // a kernel or file system without it (NFS)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
