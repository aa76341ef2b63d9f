package maildir

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// irregular is the error of what is no regular file, as a fifo or a directory is.
type irregular struct{}

func (irregular) Error() string { return "it is no regular file" }

func (irregular) Unwrap() error { return fs.ErrInvalid }

// Open opens a mail's file to read it, and nothing else: a fifo that lies in a folder would keep
// its reader waiting for ever. A link leads to what is opened.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) { // a socket
		return nil, &fs.PathError{Op: "open", Path: path, Err: irregular{}}
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: irregular{}}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
