package maildir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Keys makes unique base names. The zero value is ready; it may be used by
// several goroutines.
type Keys struct{ n atomic.Uint64 }

// keyMark stands in every key of ours, so that what an interrupted run left in
// tmp can be told from the files of other programs.
const keyMark = "nmimap"

// New gives a new key: seconds, then microseconds, process, count, 64 random
// bits and our mark, then the host, as https://cr.yp.to/proto/maildir.html has
// it.
func (k *Keys) New(now time.Time) string {
	var r [8]byte
	_, _ = rand.Read(r[:]) // never fails (Go 1.24)
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	host = strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' || strings.ContainsRune("/:,", c) {
			return '_'
		}
		return c
	}, host)
	return fmt.Sprintf("%d.M%dP%dQ%dR%s%s.%s", now.Unix(), now.Nanosecond()/1000, os.Getpid(), k.n.Add(1), hex.EncodeToString(r[:]), keyMark, host)
}

// Ours tells whether a key was made by Keys.
func Ours(key string) bool {
	_, rest, ok := strings.Cut(key, ".M")
	if !ok {
		return false
	}
	mark, _, _ := strings.Cut(rest, ".")
	return strings.HasSuffix(mark, keyMark)
}

// ParseName splits "cur/KEY:2,FS" into the key and the flag letters. Whatever
// stands before ":2," belongs to the key, infixes like ",U=77" too.
func ParseName(name string) (key, flags string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name = name[i+1:]
	}
	key, flags, _ = strings.Cut(name, ":2,")
	return key, flags
}

// Place is what stays of a file's path when its flags change, and with them its name: its folder
// and its key.
func Place(path string) string {
	key, _ := ParseName(path)
	return filepath.Join(filepath.Dir(filepath.Dir(path)), key)
}

// FileName gives the name below the folder of a file with these flags: without
// flags it is new, as a delivery is; with flags it belongs in cur.
func FileName(key, flags string) string {
	if flags == "" {
		return "new/" + key
	}
	return "cur/" + key + ":2," + sorted(flags)
}

// WithFlags gives the name that a file has after the letters of set were added
// and those of clear were taken out. Letters of others stay, and a file in cur
// stays there.
func WithFlags(name, set, clear string) string {
	key, flags := ParseName(name)
	left := make([]byte, 0, len(flags)+len(set))
	for _, c := range []byte(flags) {
		if strings.IndexByte(clear, c) < 0 {
			left = append(left, c)
		}
	}
	flags = sorted(string(left) + set)
	if flags == "" && strings.HasPrefix(name, "new/") {
		return name
	}
	return "cur/" + key + ":2," + flags
}

func sorted(flags string) string {
	b := []byte(flags)
	slices.Sort(b)
	return string(slices.Compact(b))
}

// linkRename is rename for where the system's own overwrites.
func linkRename(from, to string) error {
	err := os.Link(from, to)
	switch {
	case err == nil:
		return os.Remove(from)
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
		return err
	}
	// A file system without hard links. Names are unique, so that a look before
	// is enough.
	if _, err := os.Lstat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

// Digest gives the digest of a mail; zero if its file is gone.
func Digest(path string) (mail.Digest, error) {
	d, err := reading(path, mail.DigestOf)
	if errors.Is(err, fs.ErrNotExist) {
		return mail.Digest{}, nil
	}
	return d, err
}

// IsCut tells whether the mail at path is the beginning of the one at whole, cut off as by a full disk.
// Of a file that is gone nothing is known.
func IsCut(path, whole string) (bool, error) {
	cut, err := reading(path, func(a io.Reader) (bool, error) {
		return reading(whole, func(b io.Reader) (bool, error) { return mail.IsCut(a, b) })
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return cut, err
}

// ReadHeader gives the fields of these names of the header of the mail at path; without
// names, all.
func ReadHeader(path string, names ...string) (mail.Header, error) {
	return reading(path, func(r io.Reader) (mail.Header, error) { return mail.ReadHeader(r, names...) })
}

// Brief gives who wrote the mail at path, and what about (mail.Brief); "" if that cannot be read.
func Brief(path string) (who, what string) {
	h, _ := ReadHeader(path, "From", "Subject")
	return h.Brief()
}

// MadeUpID gives the id that notmuch has for the mail at path if that has no Message-ID.
func MadeUpID(path string) (string, error) { return reading(path, mail.MadeUpID) }

func reading[T any](path string, what func(io.Reader) (T, error)) (out T, err error) {
	f, err := Open(path)
	if err != nil {
		return out, err
	}
	out, err = what(f)
	return out, errors.Join(err, f.Close())
}

// Content gives what makes a mail the one that it is. Its path may be older than the name
// of its file; nil if there is none any more.
func Content(path string) (*mail.Content, error) {
	f, err := openRenamed(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // said in the comment
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return mail.ContentOf(f)
}

// OneMail tells whether the files of a message of notmuch's, which may have other names now, are
// all the same mail. notmuch joins them by their Message-ID alone, which any sender can copy from
// a mail that is here: what is said of the one would then be done to the other.
func OneMail(paths []string) (bool, error) {
	if len(paths) < 2 {
		return true, nil
	}
	var first *mail.Content
	for _, path := range paths {
		c, err := Content(path)
		switch {
		case err != nil:
			return false, err
		case c == nil: // its file is gone
		case first == nil:
			first = c
		case !first.Is(c):
			return false, nil
		}
	}
	return true, nil
}

// openRenamed opens a mail by a path that may be older than the name of its file.
func openRenamed(path string) (*os.File, error) {
	f, err := Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	dir := Dir(filepath.Dir(filepath.Dir(path)))
	key, _ := ParseName(path)
	name, ok, err := dir.Find(key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fs.ErrNotExist
	}
	return Open(dir.Path(name))
}
