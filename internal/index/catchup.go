package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	notmuch "github.com/zenhack/go.notmuch"
)

// catchUp makes the new database equal to the one in use, and gives the state of that.
// Where nothing was written meanwhile it finds that they are.
func (r *rebuilding) catchUp(ctx context.Context, w *workshop, made *Index) (state []byte, err error) {
	if state, err = r.state(); err != nil {
		return nil, err
	}
	ids, err := r.Search(ctx, "*", 0)
	if err != nil {
		return nil, err
	}
	threads, were := make(map[string]bool), make(map[string]bool)
	var dirs []string
	var renamed []record
	err = made.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		there, err := search(db, "*", 0)
		if err != nil {
			return err
		}
		gone := make(map[string]bool, len(there))
		for _, id := range there {
			gone[id] = true
		}
		err = r.records(ctx, ids, func(want record) error {
			delete(gone, want.ID)
			were[want.Thread] = true
			if r.ahead.lacked(want.ID) {
				return errOthersIndex
			}
			for _, f := range want.Files {
				if d := filepath.Dir(f); len(dirs) == 0 || dirs[len(dirs)-1] != d {
					dirs = append(dirs, d)
				}
			}
			changed, thread, err := level(db, made, want)
			if changed {
				r.done.Repeated++
			}
			if errors.Is(err, ErrStale) {
				renamed = append(renamed, want)
				return ctx.Err()
			}
			threads[thread] = true
			return errors.Join(err, ctx.Err())
		})
		r.ahead.are(gone)
		for id := range gone {
			if err != nil {
				break
			}
			r.done.Repeated++
			err = put(db, made.conf.mailRoot, record{ID: id})
		}
		if err != nil {
			return err
		}
		if err := r.scans(ctx, db, withParents(dirs)); err != nil {
			return err
		}
		return r.configure(ctx, db)
	})
	if err == nil && len(renamed) > 0 {
		err = r.byFormerNames(w, made, renamed, threads)
	}
	r.done.Threads, r.done.ThreadsBefore, r.done.Messages = len(threads), len(were), len(ids)
	return state, err
}

// byFormerNames indexes messages with files that a mail reader has renamed and notmuch has not
// seen since. The new database has to know them by the names that the one in use has: so the next
// `notmuch new` sees them renamed, and reads the flags. They have these names in a mail root of
// their own. Their threads join threads.
func (r *rebuilding) byFormerNames(w *workshop, made *Index, messages []record, threads map[string]bool) error {
	root := filepath.Join(w.dir, "former")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	var gone absent
	for _, m := range messages {
		for _, f := range m.Files {
			path, err := locate(filepath.Join(r.conf.mailRoot, f), nil)
			if errors.Is(err, fs.ErrNotExist) {
				gone.add(path)
				continue
			}
			name := filepath.Join(root, f)
			if err := errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o700), os.Symlink(path, name)); err != nil {
				return err
			}
		}
	}
	if err := gone.err(r.done.Files); err != nil {
		return err
	}
	former, err := w.open(newName, root)
	if err != nil {
		return err
	}
	err = former.once(notmuch.DBReadWrite, func(db *notmuch.DB) error {
		for _, m := range messages {
			if err := put(db, root, m); err != nil {
				return err
			}
			if _, err := lookUp(db, m.ID, func(m *notmuch.Message) error { threads[m.ThreadID()] = true; return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	_, e := w.open(newName, made.conf.mailRoot) // as it was
	return errors.Join(err, e)
}

// level makes a message of the new database what want says, and tells whether it was not.
func level(db *notmuch.DB, made *Index, want record) (changed bool, thread string, err error) {
	for range 2 {
		m, err := find(db.FindMessage(want.ID))
		if err != nil {
			return changed, "", err
		}
		var have record
		if m != nil {
			have, err = made.recordOf(db, m)
			if err := errors.Join(err, m.Close()); err != nil {
				return changed, "", err
			}
		}
		if slices.Equal(have.Tags, want.Tags) && slices.Equal(have.Properties, want.Properties) && equalSets(have.Files, want.Files) {
			return changed, have.Thread, nil
		}
		changed = true
		if err := put(db, made.conf.mailRoot, want); err != nil {
			return changed, "", err
		}
	}
	return changed, "", fmt.Errorf("the message id:%s does not become in a new database what it is", want.ID)
}

func equalSets(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// scans has the new database know which directories `notmuch new` has read.
func (r *rebuilding) scans(ctx context.Context, made *notmuch.DB, dirs []string) error {
	when := make([]int64, len(dirs))
	err := r.Index.read(ctx, func(db *notmuch.DB) (err error) {
		for i, d := range dirs {
			if when[i], err = scanned(db, filepath.Join(r.conf.mailRoot, d)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return atomically(made, func() error {
		for i, d := range dirs {
			if err := setScanned(made, filepath.Join(r.conf.mailRoot, d), when[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// configure has the new database hold the configuration that the one in use has.
func (r *rebuilding) configure(ctx context.Context, made *notmuch.DB) error {
	var want []property
	var uuid string
	err := r.Index.read(ctx, func(db *notmuch.DB) (err error) {
		uuid, _ = revisionOf(handle(db))
		want, err = storedConfig(db, "")
		return err
	})
	if err != nil {
		return err
	}
	restamp(want, uuid, made)
	have, err := storedConfig(made, "")
	if err != nil || slices.Equal(have, want) {
		return err
	}
	for _, c := range have {
		if !slices.ContainsFunc(want, func(w property) bool { return w.Key == c.Key }) {
			want = append(want, property{Key: c.Key}) // which deletes it
		}
	}
	return storeConfig(made, want)
}
