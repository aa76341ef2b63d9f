//go:build !linux

package maildir

// rename gives a file its name and never overwrites another.
func rename(from, to string) error { return linkRename(from, to) }
