package index

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestFlagsAmongOtherChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	known := w.deliver("box/new/k", "k@example.org")
	twice := w.deliver("box/new/t", "t@example.org")
	going := w.deliver("box/new/g", "g@example.org")
	stub := w.deliver("box/new/stub", "stub@example.org")
	w.notmuch("new")
	fresh := w.deliver("box/new/f", "f@example.org")
	came := w.deliver("box/new/came", "came@example.org")
	w.notmuch("tag", "+mine", "--", "id:stub@example.org")
	seen := func(path, id string) mail.Change {
		return mail.Change{Op: mail.OpFlag, Path: path, ID: id, Set: "S", Remove: []string{"unread"}}
	}
	unseen := func(path, id string) mail.Change {
		return mail.Change{Op: mail.OpFlag, Path: path, ID: id, Clear: "S", Add: []string{"unread"}}
	}
	changes := []mail.Change{
		{Op: mail.OpAdd, Path: fresh, ID: "f@example.org", New: usual()},
		seen(fresh, "f@example.org"),
		seen(known, ""),
		seen(twice, "t@example.org"), unseen(twice, "t@example.org"), seen(twice, ""),
		seen(going, "g@example.org"),
		{Op: mail.OpRemove, Path: going, ID: "g@example.org"},
		{Op: mail.OpReplace, Path: came, OldPath: stub, New: usual()},
		seen(came, "came@example.org"),
		seen(stub, "stub@example.org"), // which is no more
	}
	if err := os.Remove(stub); err != nil {
		t.Fatal(err)
	}
	results := w.try(changes...)
	for i, want := range []string{"new/f", "cur/f:2,S", "cur/k:2,S", "cur/t:2,S", "cur/t:2,", "cur/t:2,S", "cur/g:2,S", "new/g", "new/came", "cur/came:2,S", "new/stub"} {
		if got := results[i].Path; got != filepath.Join(w.root, "box", want) {
			t.Errorf("change %d: %s, want %s", i, got, want)
		}
		if err := results[i].Err; (err != nil) != (i == 10) {
			t.Errorf("change %d: %v", i, err)
		}
	}
	w.tags("f@example.org", "inbox")
	w.tags("k@example.org", "inbox")
	w.tags("t@example.org", "inbox")
	w.tags("g@example.org", "none")
	w.tags("came@example.org", "inbox mine")
	if err := os.Remove(filepath.Join(w.root, "box/cur/g:2,S")); err != nil {
		t.Fatal(err)
	}
	w.quiet()
}

// A directory for temporary files saves time, and is not needed.
func TestFlagAndTemporaryFiles(t *testing.T) {
	for _, there := range []bool{true, false} {
		w := newWorld(t)
		path := w.deliver("box/new/a", "a@example.org")
		w.notmuch("new")
		w.rename(path, "box/cur/a:2,F")
		tmp := filepath.Join(w.dir, `tmp\with "odd" = ; signs`)
		if there {
			if err := os.Mkdir(tmp, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("TMPDIR", tmp)
		w.apply(mail.Change{Op: mail.OpFlag, Path: path, ID: "a@example.org", Set: "S", Remove: []string{"unread"}})
		w.tags("a@example.org", "flagged inbox")
		w.files("a@example.org", "box/cur/a:2,FS")
		left, err := os.ReadDir(tmp)
		if (err == nil) != there || len(left) != 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
		w.quiet()
	}
}

// A TMPDIR in which libnotmuch would find nothing costs no change of tags, as of a
// mail whose Message-ID is not known.
func TestATemporaryDirectoryThatIsOfNoUse(t *testing.T) {
	for _, tmp := range []string{"rel", "new\nline"} {
		for _, id := range []string{"a@example.org", ""} {
			w := newWorld(t)
			path := w.deliver("box/new/a", "a@example.org")
			w.notmuch("new")
			t.Chdir(w.dir)
			if tmp != "rel" {
				tmp = filepath.Join(w.dir, "new\nline")
			}
			if err := os.Mkdir(tmp, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("TMPDIR", tmp)
			w.apply(mail.Change{Op: mail.OpFlag, Path: path, ID: id, Set: "S", Remove: []string{"unread"}})
			w.tags("a@example.org", "inbox")
			w.files("a@example.org", "box/cur/a:2,S")
			w.quiet()
		}
	}
}

// What a process that was killed has left is taken away by the next one, and nothing of
// those that live.
func TestShadowsOfTheDeadAreTakenAway(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	live, err := newShadow(tmp)
	if err != nil {
		t.Fatal(err)
	}
	dead, other := filepath.Join(tmp, "notmuch-imap-names-1"), filepath.Join(tmp, "notmuch-imap-other")
	unlocked := filepath.Join(tmp, "notmuch-imap-names-4") // somebody makes it at this moment
	linked := filepath.Join(tmp, "linked")
	link := filepath.Join(tmp, "notmuch-imap-names-2")
	if err := errors.Join(os.MkdirAll(filepath.Join(dead, "mail/box/cur"), 0o700), os.Mkdir(other, 0o700), os.Mkdir(linked, 0o700), os.Mkdir(unlocked, 0o700),
		os.Symlink(linked, link), os.WriteFile(filepath.Join(tmp, "notmuch-imap-names-3"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	for _, old := range []string{dead, live.dir, other, linked} {
		if err := os.Chtimes(old, long, long); err != nil {
			t.Fatal(err)
		}
	}
	clearShadows(tmp)
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the dead left: %v", err)
	}
	for _, kept := range []string{live.config, other, linked, link, unlocked} {
		if _, err := os.Lstat(kept); err != nil {
			t.Error(err)
		}
	}
	if err := live.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(live.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
}
