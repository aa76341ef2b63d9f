package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refused asserts that a rebuild is refused, that one which is only tried is so too, and
// that the database is what it was.
func (w *world) refused() error {
	w.Helper()
	before := w.holds()
	_, tried := w.x.Rebuild(context.Background(), RebuildOptions{Workers: 2, Worker: shardProcess, DryRun: true})
	_, err := w.x.Rebuild(context.Background(), RebuildOptions{Workers: 2, Worker: shardProcess})
	if err == nil || tried == nil || err.Error() != tried.Error() {
		w.Fatalf("%v, and where it is only tried: %v", err, tried)
	}
	w.equals(before)
	if got := fmt.Sprint(w.left()); got != "[xapian]" {
		w.Errorf("beside the database there is %s", got)
	}
	return err
}

// splitWorld makes an empty database that is not below the mail.
func splitWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	db := filepath.Join(w.dir, "db")
	if err := os.Mkdir(db, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write(w.config, configText(w.root, "database.path="+db, "database.mail_root="+w.root))
	w.x = w.open(Options{})
	return w
}

// Where much of the mail is gone its disk may not be mounted: who ran `notmuch new` then would
// lose all tags.
func TestMailThatIsGoneIsNotForgotten(t *testing.T) {
	t.Parallel()
	const advice = "run `notmuch new`"
	for name, tc := range map[string]struct {
		hide   func(w *world) error
		advice bool
		want   string
	}{
		"an empty mail root": {func(w *world) error {
			return errors.Join(os.Rename(w.root, w.root+".away"), os.Mkdir(w.root, 0o700))
		}, false, "41 of 41 files are gone"},
		"no mail root":         {func(w *world) error { return os.Rename(w.root, w.root+".away") }, false, "whether their disk is mounted"},
		"a folder":             {func(w *world) error { return os.Rename(filepath.Join(w.root, "home"), filepath.Join(w.dir, "home")) }, false, "1 of 41 files are gone"},
		"a tenth of the files": {func(w *world) error { return w.remove(0, 5) }, false, "5 of 41 files are gone"},
		"one file":             {func(w *world) error { return w.remove(7, 8) }, true, filepath.Join("work", "cur", "7:2,S")},
		"a folder that cannot be entered": {func(w *world) error {
			return errors.Join(os.Rename(filepath.Join(w.root, "home"), filepath.Join(w.dir, "home")), os.Symlink("home", filepath.Join(w.root, "home")))
		}, false, "too many levels of symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := splitWorld(t)
			for i := range 40 {
				w.deliver(fmt.Sprintf("work/cur/%d:2,S", i), fmt.Sprintf("m%d@x", i))
			}
			w.deliver("home/cur/1:2,S", "home@x")
			w.notmuch("new", "--quiet")
			if err := tc.hide(w); err != nil {
				t.Fatal(err)
			}
			err := w.refused()
			if strings.Contains(err.Error(), advice) != tc.advice || errors.Is(err, ErrStale) != tc.advice || !strings.Contains(err.Error(), tc.want) {
				t.Error(err)
			}
		})
	}
	t.Run("all while it is indexed", func(t *testing.T) {
		t.Parallel()
		w := splitWorld(t)
		w.deliver("work/cur/1:2,S", "m1@x")
		w.notmuch("new", "--quiet")
		before := w.holds()
		_, err := w.x.Rebuild(t.Context(), RebuildOptions{Workers: 1, Worker: func(ctx context.Context, dir, shard string) *exec.Cmd {
			if err := os.Rename(w.root, w.root+".away"); err != nil {
				t.Error(err)
			}
			return shardProcess(ctx, dir, shard)
		}})
		if err == nil || strings.Contains(err.Error(), advice) || !strings.Contains(err.Error(), "1 of 1 files are gone") {
			t.Error(err)
		}
		w.equals(before)
	})
}

// remove takes away the n-th to the m-th file of work.
func (w *world) remove(n, m int) (err error) {
	for i := n; i < m; i++ {
		err = errors.Join(err, os.Remove(filepath.Join(w.root, "work", "cur", fmt.Sprintf("%d:2,S", i))))
	}
	return err
}

// A file that is not what the database has it for is told of before anything is done, with all
// others.
func TestFilesThatAreOtherMailByNowAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 20 {
		w.deliver(fmt.Sprintf("work/cur/%d:2,S", i), fmt.Sprintf("m%d@x", i))
	}
	w.write(filepath.Join(w.root, "work", "cur", "none"), "From: a\nSubject: it has no id\n\nx\n")
	w.write(filepath.Join(w.root, "work", "cur", "long"), mailText(strings.Repeat("long", 60)+"@x"))
	w.write(filepath.Join(w.root, "work", "cur", "comment"), "From: a\nMessage-ID: (a) comment <c@x>\n\nx\n")
	w.notmuch("new", "--quiet")
	file := func(i int) string { return filepath.Join(w.root, "work", "cur", fmt.Sprintf("%d:2,S", i)) }
	if err := errors.Join(os.Truncate(file(1), 0), w.remove(2, 4), unix.Mkfifo(file(2), 0o600), os.Mkdir(file(3), 0o700)); err != nil {
		t.Fatal(err)
	}
	w.write(file(4), mailText("other@x"))
	err := w.refused()
	if errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "not what notmuch knows them as: 4 (") {
		t.Error(err)
	}
	for i := range 6 {
		if odd := i > 0 && i < 5; strings.Contains(err.Error(), file(i)) != odd {
			t.Errorf("%s: %v", file(i), err)
		}
	}
	for i := 1; i < 5; i++ {
		if err := os.Remove(file(i)); err != nil {
			t.Fatal(err)
		}
		w.write(file(i), mailText(fmt.Sprintf("m%d@x", i)))
	}
	before := w.holds()
	w.rebuild(2)
	w.equals(before)
}
