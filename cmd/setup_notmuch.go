package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/index"
)

// notmuchSetup is notmuch's own configuration where there was none: its file,
// and what it is to say.
type notmuchSetup struct{ file, text, root string }

// notmuch looks whether notmuch is set up, and if it is not, asks what its
// configuration needs.
func (s *setup) notmuch(ctx context.Context) (n notmuchSetup, err error) {
	if _, err = index.Open(ctx, index.Options{Existing: true}); !errors.Is(err, index.ErrNoConfig) {
		return n, err
	}
	if s.person.there() {
		s.say("notmuch is not set up yet. Of what `notmuch setup` asks, two are needed:")
	}
	home := s.getenv("HOME")
	proposal := either(s.c.String("mail-root"), filepath.Join(home, "Mail"))
	for {
		if n.root, err = s.person.line(ctx, "where all mail is to be kept", proposal, "--mail-root"); err != nil {
			return n, err
		}
		if rest, ok := strings.CutPrefix(n.root, "~/"); ok {
			n.root = filepath.Join(home, rest)
		}
		if n.root, err = filepath.Abs(n.root); err != nil {
			return n, err
		}
		err := makeable(n.root)
		if err == nil {
			break
		}
		if !s.person.there() {
			return n, fmt.Errorf("--mail-root: %w; %w", err, errUnchanged)
		}
		s.say("%v", err)
	}
	if !s.person.there() {
		s.say("notmuch is not set up yet: mail is to be kept below %s (--mail-root).", n.root)
	}
	who, err := s.person.line(ctx, "your name", s.address.Local, "--yes")
	if err != nil {
		return n, err
	}
	n.file = either(s.getenv("NOTMUCH_CONFIG"), filepath.Join(home, ".notmuch-config"))
	n.text = fmt.Sprintf("[database]\npath=%s\n\n[user]\nname=%s\nprimary_email=%s\n\n[new]\ntags=unread;inbox\n\n[search]\nexclude_tags=deleted;spam;trash\n\n[maildir]\nsynchronize_flags=true\n",
		keyFileValue(n.root), keyFileValue(who), keyFileValue(s.address.String()))
	return n, nil
}

// makeable tells why a directory cannot be made or written to.
func makeable(dir string) error {
	for {
		err := writable(dir)
		if above := filepath.Dir(dir); (errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR)) && above != dir {
			dir = above
			continue
		}
		return err
	}
}

// keyFileValue writes a value as GLib's key files have it.
func keyFileValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(s)
}

// write makes notmuch's configuration, which must not be there, and the place
// for mail. What it gives undoes it.
func (n notmuchSetup) write() (undo func(), err error) {
	if n.file == "" {
		return func() {}, nil
	}
	_, missing := os.Lstat(n.root)
	if err := os.MkdirAll(n.root, 0o700); err != nil {
		return nil, err
	}
	undo = func() {
		if missing != nil {
			_ = os.Remove(n.root) // what holds mail by now stays
		}
	}
	f, err := os.OpenFile(n.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		err = fmt.Errorf("%s is there by now, from another program; nothing was changed: begin again", n.file)
	}
	if err != nil {
		undo()
		return nil, err
	}
	rootless := undo
	undo = func() {
		_ = os.Remove(n.file) // it is gone already otherwise
		rootless()
	}
	_, err = f.WriteString(n.text)
	if err = errors.Join(err, f.Close()); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}
