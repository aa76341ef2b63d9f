package maildir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is the absolute path of a folder: the directory that holds cur, new and
// tmp.
type Dir string

func subdirs() [3]string { return [3]string{"cur", "new", "tmp"} }

// Create makes the folder, with mode 0700, and makes it durable. It may be
// there already.
func (d Dir) Create() error {
	if d.Exists() {
		return nil
	}
	for _, sub := range subdirs() {
		if err := os.MkdirAll(filepath.Join(string(d), sub), 0o700); err != nil {
			return err
		}
	}
	if err := syncDir(string(d)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(string(d)))
}

// Exists tells whether the folder's three directories are there.
func (d Dir) Exists() bool {
	for _, sub := range subdirs() {
		if fi, err := os.Stat(filepath.Join(string(d), sub)); err != nil || !fi.IsDir() {
			return false
		}
	}
	return true
}

// Sync makes the names in the folder durable.
func (d Dir) Sync() error {
	return errors.Join(syncDir(filepath.Join(string(d), "cur")), syncDir(filepath.Join(string(d), "new")))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// File is one mail of a folder.
type File struct {
	Key     string
	Name    string // below the folder: "cur/KEY:2,S"
	Flags   string // letters
	ModTime time.Time
	Size    int64 // bytes on disk
}

// Listing is what a folder held when it was read.
type Listing struct {
	dir   Dir
	names map[string]string // by key
}

// Scan reads the names in the folder.
func (d Dir) Scan() (*Listing, error) {
	l := &Listing{dir: d, names: make(map[string]string)}
	// new before cur: a file that a mail reader moves meanwhile is seen.
	for _, sub := range []string{"new", "cur"} {
		f, err := os.Open(filepath.Join(string(d), sub))
		if err != nil {
			return nil, err
		}
		names, err := f.Readdirnames(-1)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		for _, n := range names {
			if strings.HasPrefix(n, ".") {
				continue
			}
			key, _ := ParseName(n)
			l.names[key] = sub + "/" + n
		}
	}
	return l, nil
}

// Find gives the name of the file with this key.
func (l *Listing) Find(key string) (string, bool) {
	name, ok := l.names[key]
	return name, ok
}

// Files gives the folder's mails; those that went away meanwhile are left out.
func (l *Listing) Files() []File {
	var out []File
	for key, name := range l.names {
		fi, err := os.Lstat(filepath.Join(string(l.dir), name))
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		_, flags := ParseName(name)
		out = append(out, File{Key: key, Name: name, Flags: flags, ModTime: fi.ModTime(), Size: fi.Size()})
	}
	return out
}

// Find gives the name of the file with this key, wherever its flags have moved
// it. It reads the folder; use Scan for many keys.
func (d Dir) Find(key string) (string, bool, error) {
	if _, err := os.Lstat(filepath.Join(string(d), "new", key)); err == nil {
		return "new/" + key, true, nil
	}
	l, err := d.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	name, ok := l.Find(key)
	return name, ok, nil
}

// Remove takes a file away. That it is gone already is no error.
func (d Dir) Remove(name string) error {
	err := os.Remove(filepath.Join(string(d), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Link puts the file at path into the folder under key, without copying its
// bytes where the file system can. It never overwrites.
func (d Dir) Link(path, key, flags string) (name string, err error) {
	name = FileName(key, flags)
	to := filepath.Join(string(d), name)
	err = os.Link(path, to)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return name, err
	}
	// Another file system, or one without hard links.
	tmp := filepath.Join(string(d), "tmp", key)
	if err := copyFile(path, tmp); err != nil {
		return "", errors.Join(err, os.Remove(tmp))
	}
	return name, rename(tmp, to)
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	return errors.Join(dst.Sync(), os.Chtimes(to, time.Time{}, fi.ModTime()))
}

// rename gives a file its name and never overwrites another.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// A file system without it: link fails where to exists.
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// CleanTmp removes from tmp what an interrupted run of ours left there. The
// caller holds the account's lock, so no living run owns it.
func (d Dir) CleanTmp() error {
	entries, err := os.ReadDir(filepath.Join(string(d), "tmp"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if Ours(e.Name()) {
			if err := d.Remove("tmp/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// WireSize gives the size that the mail at path has on the wire: with CRLF
// where the file has LF.
func WireSize(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReaderSize(f, 64<<10)
	last := byte(0)
	for {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if size++; c == '\n' && last != '\r' {
			size++
		}
		last = c
	}
}
