package maildir

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inodeChanged gives when a file's inode changed last; zero where that is not known.
func inodeChanged(fi fs.FileInfo) time.Time {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}
	}
	return time.Unix(st.Ctim.Unix())
}

// birth gives when a file was made, in nanoseconds since 1970; 0 where the file
// system does not keep it.
func birth(path string) int64 {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}
