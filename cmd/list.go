package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// listMark is the file by which a maildir is known to be a list of stubs.
const listMark = "." + name

// errNotOurs says that a directory is not for us to change.
var errNotOurs = errors.New("no directory for a list")

// listInMaildir makes dir a maildir that holds the stubs' files. They are hard
// links, or copies where there can be none: symbolic ones would lead nowhere as
// soon as a mail reader marks a stub as read, which renames its file. What is
// right there already stays as it is, since Mutt may look at it.
func listInMaildir(ctx context.Context, idx *index.Index, dir string, all []failedIn) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(idx.MailRoot(), dir); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("%w: %s is below notmuch's mail root, and would be indexed", errNotOurs, dir)
	}
	if err := takeForList(dir); err != nil {
		return err
	}
	listed, err := readListed(dir)
	if err != nil {
		return err
	}
	wanted := make(map[string]string) // key -> path
	var mails []string                // keys of those that are no stubs
	for _, s := range all {
		path, err := stubFile(ctx, idx, s.ID)
		if err != nil {
			return err
		}
		if path != "" {
			key, _ := maildir.ParseName(path)
			wanted[key] = path
			if s.State == pipeline.FailedUnsent {
				mails = append(mails, key)
			}
		}
	}
	// What is about to be put there is noted before, and what is taken away after.
	if err := writeListed(dir, slices.Concat(listed, mails)); err != nil {
		return err
	}
	list := maildir.Dir(dir)
	there, err := list.Scan()
	if err != nil {
		return err
	}
	files, err := there.Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil {
			return err
		}
		if now, err := os.ReadFile(wanted[f.Key]); err == nil && bytes.Equal(raw, now) {
			delete(wanted, f.Key)
			continue
		}
		if _, err := stub.ReadKey(bytes.NewReader(raw)); err != nil && !slices.Contains(listed, f.Key) {
			continue // put there by the user
		}
		if err := list.Remove(f.Name); err != nil {
			return err
		}
	}
	for key, path := range wanted {
		_, flags := maildir.ParseName(path)
		_, err := list.Link(path, key, flags)
		// Another Mutt was quicker, or the stub is gone just now.
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return writeListed(dir, mails)
}

const listText = "What is in this maildir comes and goes: notmuch imap stubs --maildir makes it.\n"

// readListed gives the keys of those mails in a list that are no stubs: new mail that a server
// refused. The list's mark has them, a line for each.
func readListed(dir string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, listMark))
	_, keys, _ := strings.Cut(string(text), "\n")
	return strings.Fields(keys), err
}

func writeListed(dir string, keys []string) error {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	before, err := readListed(dir)
	if err != nil || slices.Equal(before, keys) {
		return err
	}
	return os.WriteFile(filepath.Join(dir, listMark), []byte(listText+strings.Join(keys, "\n")), 0o600)
}

// stubFile gives the path of a stub, "" if it has no file. A mail reader may have
// renamed it, and notmuch not know yet.
func stubFile(ctx context.Context, idx *index.Index, id string) (string, error) {
	files, err := idx.Files(ctx, id)
	if err != nil || len(files) == 0 {
		return "", err
	}
	key, _ := maildir.ParseName(files[0])
	folder := maildir.Dir(filepath.Dir(filepath.Dir(files[0])))
	name, ok, err := folder.Find(key)
	if err != nil || !ok {
		return "", err
	}
	return filepath.Join(string(folder), name), nil
}

// takeForList makes dir a maildir, unless it is there and not ours.
func takeForList(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	ours := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == listMark && e.Type().IsRegular() })
	if len(entries) > 0 && !ours {
		return fmt.Errorf("%w: %s holds other things", errNotOurs, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if !ours {
		if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, listMark), []byte(listText), 0o600)); err != nil {
			return err
		}
	}
	return maildir.Dir(dir).Create()
}
