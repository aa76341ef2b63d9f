package maildir

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// attic is a folder, an attic, and the time that both go by.
type attic struct {
	*Attic
	t   *testing.T
	dir Dir
	now time.Time
}

// run begins another run, which has put nothing there itself.
func (a *attic) run() { a.Attic = &Attic{Dir: a.Dir, Days: a.Days, Size: a.Size, Now: a.Now} }

// prune is Prune.
func (a *attic) prune(tight bool) {
	a.t.Helper()
	_, err := a.Prune(tight)
	a.do(err)
}

func newAttic(t *testing.T) *attic {
	a := &attic{t: t, dir: newDir(t), now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	a.Attic = &Attic{Dir: filepath.Join(t.TempDir(), "attic"), Days: 30, Size: 1 << 20, Now: func() time.Time { return a.now }}
	return a
}

func (a *attic) do(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

// put puts a mail of that many bytes into the folder and gives it to the attic.
func (a *attic) put(name string, size int, sent time.Time) {
	a.t.Helper()
	path := a.dir.Path(name)
	a.do(os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o600))
	a.do(os.Chtimes(path, sent, sent))
	a.do(a.Keep("Work/Old", path))
}

// has gives the keys of what is there.
func (a *attic) has() (keys []string) {
	a.t.Helper()
	a.do(filepath.WalkDir(a.Dir, func(path string, e os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !e.IsDir() && e.Name() != unpruned {
			key, _ := ParseName(path)
			keys = append(keys, key)
		}
		return err
	}))
	slices.Sort(keys)
	return keys
}

func TestTheAtticKeepsAMailAsItWas(t *testing.T) {
	a := newAttic(t)
	sent := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	a.put("cur/a:2,FS", 5, sent)
	if a.dir.Has("cur/a:2,FS") {
		t.Error("it is in its folder still")
	}
	path, err := a.Find("Work/Old", "a", a.now)
	a.do(err)
	fi, err := os.Stat(path)
	a.do(err)
	if filepath.Base(path) != "a:2,FS" || !fi.ModTime().Equal(sent) || fi.Size() != 5 {
		t.Errorf("%s, %v, %d bytes", path, fi.ModTime(), fi.Size())
	}
	for dir := path; dir != filepath.Dir(a.Dir); {
		dir = filepath.Dir(dir)
		if fi, err := os.Stat(dir); err != nil || dir != filepath.Dir(a.Dir) && fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, fi.Mode(), err)
		}
	}
	// Removed again on the same day, under the same name: it is the one that is found.
	a.put("cur/a:2,FS", 7, sent)
	if fi, err := os.Stat(path); err != nil || fi.Size() != 7 {
		t.Errorf("%v, %v", fi, err)
	}
	for folder, key := range map[string]string{"Work": "a", "Work/Old": "b"} {
		if path, err := a.Find(folder, key, a.now); path != "" || err != nil {
			t.Errorf("%s, %v", path, err)
		}
	}
	a.now = a.now.AddDate(0, 0, 1)
	if path, err := a.Find("Work/Old", "a", a.now); path != "" || err != nil {
		t.Errorf("of another day: %s, %v", path, err)
	}
}

func TestTheAtticIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		days  int
		size  int64
		tight bool
		want  []string
	}{
		"by nothing":  {30, 1 << 20, false, []string{"old", "later", "newer", "newest"}},
		"by days":     {7, 1 << 20, false, []string{"later", "newer", "newest"}},
		"by size":     {30, 250, false, []string{"newer", "newest"}},
		"by both":     {1, 150, false, []string{"newest"}},
		"off":         {0, 1 << 20, false, nil},
		"by one mail": {30, 99, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttic(t)
			sent := a.now
			for i, key := range []string{"old", "later", "newer", "newest"} {
				if i < 3 { // the last two come on one day
					a.now = a.now.AddDate(0, 0, 7)
				}
				a.put("new/"+key, 100, sent.Add(time.Duration(i)*time.Hour))
			}
			a.run()
			a.do(os.WriteFile(filepath.Join(a.Dir, "mine"), nil, 0o600))
			a.Days, a.Size = c.days, c.size
			for range 2 {
				a.prune(c.tight)
				slices.Sort(c.want)
				if got := slices.DeleteFunc(a.has(), func(k string) bool { return k == "mine" }); !slices.Equal(got, c.want) {
					t.Errorf("it has %q, want %q", got, c.want)
				}
			}
			if _, err := os.Stat(filepath.Join(a.Dir, "mine")); err != nil {
				t.Error(err)
			}
		})
	}
	// It is looked through only when something came, or where the disk is full.
	a := newAttic(t)
	a.put("new/a", 100, a.now)
	a.prune(false)
	a.Size = 10
	if a.prune(false); len(a.has()) != 1 {
		t.Error("it was looked through")
	}
	a.run()
	if a.prune(true); len(a.has()) != 0 {
		t.Error("it was not")
	}
	// What a run has put there stays in it, and is looked at again by the next one.
	a.put("new/b", 100, a.now)
	a.run()
	a.put("new/c", 100, a.now)
	if a.prune(false); !slices.Equal(a.has(), []string{"c"}) {
		t.Errorf("it has %q", a.has())
	}
	a.run()
	if a.prune(false); len(a.has()) != 0 {
		t.Errorf("the next run leaves %q", a.has())
	}
	if _, err := newAttic(t).Prune(true); err != nil {
		t.Errorf("where there is none: %v", err)
	}
}

// Where the attic is on another file system, a mail is there before it goes.
func TestAMoveToAnotherFileSystem(t *testing.T) {
	from, to := newDir(t), newDir(t)
	mail := from.Path("cur/a:2,S")
	if err := os.WriteFile(mail, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := moveAcross(mail, to.Path("cur/a:2,S")); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(to.Path("cur/a:2,S")); string(raw) != "mail" || from.Has("cur/a:2,S") || to.Has("tmp/a:2,S") {
		t.Errorf("%q, %v", raw, err)
	}
}

// What was removed from a folder is found in that of its other name, also if two exchange theirs.
func TestAnAtticFollowsItsFolders(t *testing.T) {
	a := newAttic(t)
	a.do(a.Rename("Work", "Play")) // there is none yet
	a.put("cur/one:2,", 1, a.now)
	a.now = a.now.AddDate(0, 0, 1)
	a.put("cur/two:2,", 1, a.now)
	for i, names := range []string{"Work/Old New", "Work Play", "New aside", "Nothing New", "aside New/Sub"} {
		from, to, _ := strings.Cut(names, " ")
		for range 2 { // the second after a crash
			a.do(a.Rename(from, to))
		}
		folder := []string{"New", "New", "aside", "aside", "New/Sub"}[i]
		for _, key := range []string{"one", "two"} {
			if path, err := a.Find(folder, key, time.Time{}); err != nil || !strings.HasSuffix(path, folder+"/cur/"+key+":2,") {
				t.Errorf("after %s %s is at %q, %v", names, key, path, err)
			}
		}
	}
}
