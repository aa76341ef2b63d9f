package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	notmuch "github.com/zenhack/go.notmuch"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// A file's new name costs libnotmuch three writes of all words of its mail: the
// new name with the mail read again, the tags, and the old name. One call needs a
// single one (notmuch_message_tags_to_maildir_flags), but renames the file itself,
// and so cannot be had for a file that its reader renamed; and it would overwrite.
// It gets a mail root of our own, where an empty file stands for each mail. Files
// are renamed by us, and libnotmuch hears of it there. No mail is in its reach.

// errLater says that a change needs the mail itself.
var errLater = errors.New("the mail root is a shadow")

// shadow is such a mail root, and the configuration that leads there.
type shadow struct {
	dir    string
	lock   *os.File // dir, locked as long as the process lives
	root   string
	config string
}

// shadowNames is what the names of their directories begin with.
const shadowNames = "notmuch-imap-names-"

// newShadow makes one below a directory for temporary files.
func newShadow(tmp string) (*shadow, error) {
	// What libnotmuch would not find as we do is of no use.
	if !filepath.IsAbs(tmp) || strings.ContainsAny(tmp, "\r\n") {
		return nil, fmt.Errorf("%q cannot hold a mail root", tmp)
	}
	dir, err := os.MkdirTemp(tmp, shadowNames)
	if err != nil {
		return nil, err
	}
	s := &shadow{dir: dir, root: filepath.Join(dir, "mail"), config: filepath.Join(dir, "config")}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// GLib's key files have \ for an escape.
	text := "[database]\nmail_root=" + strings.ReplaceAll(s.root, `\`, `\\`) + "\n"
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *shadow) remove() error { return errors.Join(os.RemoveAll(s.dir), s.lock.Close()) }

// lockDir takes the lock of a directory of this user; an error if somebody has it.
func lockDir(dir string) (*os.File, error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	fd := int(d.Fd()) //nolint:gosec // a descriptor fits
	if err = unix.Fstat(fd, &st); err == nil && int(st.Uid) != os.Getuid() {
		err = os.ErrPermission
	}
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// inTheMaking is how long a directory may be without its lock.
const inTheMaking = time.Minute

// clearShadows takes away what processes have left that were killed.
func clearShadows(tmp string) {
	entries, _ := os.ReadDir(tmp) // what is not seen costs nothing now
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), shadowNames) {
			continue
		}
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < inTheMaking {
			continue // its owner may be about to lock it
		}
		dir := filepath.Join(tmp, e.Name())
		if d, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir) // the next run tries again
			_ = d.Close()         // nothing was written
		}
	}
}

// stand makes the empty file that stands for a mail, whose path below the shadow
// is given, and the directory that it will go to.
func (s *shadow) stand(path string) error {
	for _, dir := range []string{filepath.Dir(path), filepath.Join(filepath.Dir(filepath.Dir(path)), "cur")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return os.WriteFile(path, nil, 0o600)
}

// inShadow does what of the changes needs no mail to be read, and marks it as
// done. What comes after another change of the same message or file waits for it.
func (b *batch) inShadow(changes []mail.Change, results []mail.Result, done []bool) error {
	waiting := make(map[string]bool) // ids, and keys of files
	for i, c := range changes {
		names := []string{keyOf(c.Path)}
		if c.OldPath != "" {
			names = append(names, keyOf(c.OldPath))
		}
		if c.ID != "" {
			names = append(names, c.ID)
		}
		if c.Op == mail.OpFlag && !slices.ContainsFunc(names, func(n string) bool { return waiting[n] }) {
			r, err := b.apply(c)
			if err != nil {
				return err
			}
			if half(r) {
				return errHalf // the file itself may do better
			}
			if !errors.Is(r.Err, errLater) {
				results[i], done[i] = r, true
				continue
			}
		}
		for _, n := range names {
			waiting[n] = true
		}
	}
	return nil
}

// followable tells whether notmuch would rename a file from to to for these tags.
// What has no letters before and after stays in new.
func followable(from, to string, tags []string) bool {
	return sameFile(from, to) && lettersAfter(from, tags) == lettersOf(to) && (lettersOf(to) != "" || strings.Contains(filepath.Base(from), ":2,"))
}

// follow gives a message, of one file, other tags, and that file the name that it
// has by now, in one write.
func (b *batch) follow(m *notmuch.Message, from, to string, add, remove []string) error {
	if b.shadow.stand(b.at(from)) != nil {
		return errLater // a full disk, perhaps: it costs time only
	}
	var errs []error
	err := m.Atomic(func(m *notmuch.Message) {
		errs = append(change(m, add, remove), m.TagsToMaildirFlags())
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	now, err := b.filesOf(m)
	if err == nil && (len(now) != 1 || now[0] != to) {
		return errLater // libnotmuch does not say why it would not
	}
	return err
}

// at gives the path by which libnotmuch knows a file.
func (b *batch) at(path string) string {
	if b.shadow == nil {
		return path
	}
	return b.shadow.root + strings.TrimPrefix(path, b.root)
}

// filesOf gives the paths of a message's files, wherever libnotmuch believes them.
func (b *batch) filesOf(m *notmuch.Message) ([]string, error) {
	files, err := filesOf(m)
	if b.shadow != nil {
		for i, f := range files {
			files[i] = b.root + strings.TrimPrefix(f, b.shadow.root)
		}
	}
	return files, err
}

// stateOf gives a message's tags and its files.
func (b *batch) stateOf(m *notmuch.Message) (tags, files []string, err error) {
	tags, err = tagsOf(m)
	if err == nil {
		files, err = b.filesOf(m)
	}
	return tags, files, err
}
