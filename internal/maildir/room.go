package maildir

import "golang.org/x/sys/unix"

// Full tells whether the file system of a directory has no room for so many bytes. Libraries
// that write there fail then without saying why.
func Full(dir string, bytes int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && float64(st.Bavail)*float64(st.Bsize) < float64(bytes) // which are integers of each system's own kind
}
