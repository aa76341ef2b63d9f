package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	notmuch "github.com/zenhack/go.notmuch"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// usual are notmuch's new.tags in most tests.
func usual() []string { return []string{"unread", "inbox"} }

func TestAddGivesTheTagsThatNotmuchNewWouldGive(t *testing.T) {
	t.Parallel()
	names := []string{"new/a", "cur/b:2,", "cur/c:2,S", "cur/d:2,FRS", "cur/e:2,F", "cur/f", "cur/g:2,DPT", "new/h:2,S", "new/i:2,F", "cur/j:2,Sab", "cur/l:1,S"}
	for _, sync := range []string{"true", "false"} {
		for _, newTags := range []string{"unread;inbox;", "new;", ""} {
			t.Run("sync="+sync+" new="+newTags, func(t *testing.T) {
				t.Parallel()
				settings := []string{"maildir.synchronize_flags=" + sync, "new.tags=" + newTags}
				theirs, ours := newWorld(t, settings...), newWorld(t, settings...)
				if ours.x.SyncFlags() != (sync == "true") {
					t.Fatalf("SyncFlags is %v", ours.x.SyncFlags())
				}
				var changes []mail.Change
				for i, name := range names {
					id := fmt.Sprintf("m%d@example.org", i)
					theirs.deliver("box/"+name, id)
					changes = append(changes, mail.Change{Op: mail.OpAdd, Path: ours.deliver("box/"+name, id), New: ours.x.NewTags()})
				}
				theirs.notmuch("new")
				ours.apply(changes...)
				for i := range names {
					want := strings.Fields(theirs.notmuch("search", "--output=tags", fmt.Sprintf("id:m%d@example.org", i)))
					t.Log(names[i], want)
					ours.tags(fmt.Sprintf("m%d@example.org", i), strings.Join(want, " "))
				}
				ours.quiet()
			})
		}
	}
}

func TestAFileThatChangedIsReadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.deliver("box/cur/a:2,S", "a@example.org")
	w.apply(mail.Change{Op: mail.OpAdd, Path: p, Add: []string{"mine"}})
	w.write(p, "From: a@example.org\nMessage-ID: <a@example.org>\nSubject: x\n\nzanzibar\n")
	w.apply(mail.Change{Op: mail.OpReindex, Path: p, ID: "a@example.org"})
	if got := w.notmuch("search", "--output=messages", "zanzibar"); got != "id:a@example.org" {
		t.Errorf("found %q", got)
	}
	w.tags("a@example.org", "mine")
	w.apply(mail.Change{Op: mail.OpReindex, Path: filepath.Join(w.root, "box/cur/none:2,"), ID: "none@example.org"})
	w.quiet()
}

func TestAdd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.deliver("box/new/a", "a@example.org")
	rs := w.apply(mail.Change{Op: mail.OpAdd, Path: p, New: usual(), Add: []string{"work", "x y"}, Remove: []string{"inbox"}})
	if r := rs[0]; r.ID != "a@example.org" || r.Path != p || r.Duplicate || r.NotMail {
		t.Errorf("%+v", r)
	}
	w.tags("a@example.org", "unread work x y")

	// A copy elsewhere: New does not apply, and unread does not come back.
	w.notmuch("tag", "-unread", "--", "id:a@example.org")
	q := w.deliver("list/new/b", "a@example.org")
	rs = w.apply(mail.Change{Op: mail.OpAdd, Path: q, New: usual(), Add: []string{"list"}, Remove: []string{"work"}})
	if r := rs[0]; !r.Duplicate || r.ID != "a@example.org" {
		t.Errorf("%+v", r)
	}
	w.tags("a@example.org", "list x y")
	w.files("a@example.org", "box/cur/a:2,S", "list/new/b")
	// What a copy's name says counts.
	w.apply(mail.Change{Op: mail.OpAdd, Path: w.deliver("third/cur/c:2,F", "a@example.org"), New: usual()})
	w.tags("a@example.org", "flagged list x y")
	w.quiet()
}

func TestAddAfterNotmuchNewCameFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "new.tags=new;unread;")
	p := w.deliver("box/new/a", "a@example.org")
	s := w.deliver("box/cur/b:2,S", "b@example.org")
	w.notmuch("new")
	w.notmuch("tag", "-new", "--", "*")
	for range 2 { // and once more, as after a crash
		rs := w.apply(
			mail.Change{Op: mail.OpAdd, Path: p, New: []string{"new", "unread"}, Add: []string{"work"}},
			mail.Change{Op: mail.OpAdd, Path: s, New: []string{"new", "unread"}, Add: []string{"work"}})
		for _, r := range rs {
			if !r.Duplicate {
				t.Errorf("%+v", r)
			}
		}
		w.tags("a@example.org", "unread work")
		w.tags("b@example.org", "work")
		w.files("a@example.org", "box/new/a")
	}
	w.quiet()
}

func TestAddFindsAFileThatAReaderMovedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.deliver("box/new/a", "a@example.org")
	now := w.rename(p, "box/cur/a:2,S")
	rs := w.apply(mail.Change{Op: mail.OpAdd, Path: p, New: usual()})
	if rs[0].Path != now {
		t.Errorf("path %s, want %s", rs[0].Path, now)
	}
	w.tags("a@example.org", "inbox")

	// The same when notmuch had seen it under its first name.
	p = w.deliver("box/new/b", "b@example.org")
	w.notmuch("new")
	w.rename(p, "box/cur/b:2,FS")
	w.apply(mail.Change{Op: mail.OpAdd, Path: p, New: usual()})
	w.tags("b@example.org", "flagged inbox")
	w.files("b@example.org", "box/cur/b:2,FS")
	w.quiet()
}

func TestAddOfWhatCannotBeIndexed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := strings.Repeat("x", 120)
	empty, fine := filepath.Join(w.root, "box/new/empty"), w.deliver("box/new/fine", "fine@example.org")
	w.write(empty, "")
	outside := filepath.Join(w.dir, "outside")
	w.write(outside, mailText("outside@example.org"))
	rs := w.try(
		mail.Change{Op: mail.OpAdd, Path: empty},
		mail.Change{Op: mail.OpAdd, Path: filepath.Join(w.root, "box/new/none")},
		mail.Change{Op: mail.OpAdd, Path: w.deliver(long+"/"+long+"/cur/f:2,", "deep@example.org")},
		mail.Change{Op: mail.OpAdd, Path: w.deliver("box/cur/"+long+long, "long@example.org")},
		mail.Change{Op: mail.OpAdd, Path: outside},
		mail.Change{Op: mail.OpAdd, Path: filepath.Join(w.root, "box/new")},
		mail.Change{Op: mail.OpAdd, Path: fine, Add: []string{strings.Repeat("t", 300), "ok"}},
		mail.Change{Op: mail.OpAdd, Path: fine, New: usual()},
	)
	if r := rs[0]; !r.NotMail || r.Err != nil || r.ID != "" {
		t.Errorf("an empty file: %+v", r)
	}
	if r := rs[1]; !errors.Is(r.Err, fs.ErrNotExist) || r.NotMail {
		t.Errorf("a file that is gone: %+v", r)
	}
	for i, words := range map[int]string{2: "too long", 3: "too long", 4: "not below notmuch's mail root", 6: "Tag value is too long"} {
		if r := rs[i]; r.Err == nil || !strings.Contains(r.Err.Error(), words) {
			t.Errorf("change %d: %v, want %q", i, r.Err, words)
		}
	}
	if rs[5].Err == nil && !rs[5].NotMail {
		t.Errorf("a directory: %+v", rs[5])
	}
	// None of this cost the good one anything.
	if rs[7].Err != nil {
		t.Error(rs[7].Err)
	}
	w.tags("fine@example.org", "inbox unread") // what failed at its tags left nothing of itself
	w.count("*", 1)
}

func TestFoldersUpToTheLimitAreIndexed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	folder := strings.Repeat("x", 120) + "/" + strings.Repeat("y", maxFolder-121)
	w.apply(mail.Change{Op: mail.OpAdd, Path: w.deliver(folder+"/cur/"+strings.Repeat("n", maxFile-3)+":2,", "a@example.org")})
	w.count("*", 1)
}

// What notmuch cannot have is no reason not to flag it, nor to complain that it
// is forgotten.
func TestBeyondTheLimitFilesAreFlaggedAllTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.deliver(strings.Repeat("x", 120)+"/"+strings.Repeat("y", maxFolder-120)+"/new/a", "a@example.org")
	want := filepath.Join(filepath.Dir(filepath.Dir(path)), "cur", "a:2,S")
	if r := w.try(mail.Change{Op: mail.OpFlag, Path: path, Set: "S", Remove: []string{"unread"}})[0]; r.Err != nil || r.Path != want || !exists(want) {
		t.Errorf("%+v", r)
	}
	for _, op := range []mail.Op{mail.OpReindex, mail.OpRemove} {
		if r := w.try(mail.Change{Op: op, Path: want})[0]; r.Err != nil {
			t.Errorf("%d: %v", op, r.Err)
		}
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.deliver("box/new/a", "a@example.org"), w.deliver("list/new/a", "a@example.org"), w.deliver("box/new/c", "c@example.org")
	w.notmuch("new")
	remove := func(change mail.Change, had ...string) {
		t.Helper()
		change.Op = mail.OpRemove
		if r := w.apply(change)[0]; r.Path != change.Path || !slices.Equal(r.Tags, had) || (r.Tags == nil) != (had == nil) {
			t.Errorf("%+v, want the tags %v", r, had)
		}
		if err := os.Remove(change.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	remove(mail.Change{Path: filepath.Join(w.root, "box/new/none")})
	remove(mail.Change{Path: filepath.Join(w.root, "nobox/new/none"), ID: "none@example.org"})
	remove(mail.Change{Path: a, ID: "a@example.org"})
	w.files("a@example.org", "list/new/a")
	// By a name that the database does not have, without an id.
	renamed := w.rename(b, "list/cur/a:2,S")
	remove(mail.Change{Path: renamed}, "inbox", "unread")
	w.tags("a@example.org", "none")
	w.tags("c@example.org", "inbox unread")
	// By an id that is another message's.
	remove(mail.Change{Path: c, ID: "a@example.org"}, "inbox", "unread")
	w.count("*", 0)
	// Its folder got another name when the file was gone from it. A file of this name that is there stays.
	d, e := w.deliver("box/new/d", "d@example.org"), w.deliver("box/new/e", "e@example.org")
	w.notmuch("new")
	if err := os.Remove(d); err != nil {
		t.Error(err)
	}
	remove(mail.Change{Path: filepath.Join(w.root, "other/new/d"), ID: "d@example.org"}, "inbox", "unread")
	remove(mail.Change{Path: filepath.Join(w.root, "other/new/e"), ID: "e@example.org"})
	w.count("*", 1)
	if err := os.Remove(e); err != nil {
		t.Error(err)
	}
	remove(mail.Change{Path: filepath.Join(w.root, "other/cur/e:2,S"), ID: "e@example.org"}, "inbox", "unread")
	w.count("*", 0)
	w.quiet()
}

func TestReplaceCarriesWhatTheOwnerDidToTheStub(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		touch func(w *world, stub string) (now string)
		seen  bool // the mail is read at the server
		want  string
	}{
		{"untouched", func(_ *world, s string) string { return s }, false, "account inbox unread"},
		{"tagged, archived, read", func(w *world, s string) string {
			w.notmuch("tag", "+mine", "-inbox", "-unread", "--", "id:stub@example.org")
			return filepath.Join(w.root, "box/cur/s:2,S")
		}, false, "account mine unread"},
		{"the mail is read", func(_ *world, s string) string { return s }, true, "account inbox"},
		{"flagged by renaming, which notmuch saw", func(w *world, s string) string {
			s = w.rename(s, "box/cur/s:2,FS")
			w.notmuch("new")
			return s
		}, false, "account flagged inbox unread"},
		{"flagged by renaming, which notmuch did not see", func(w *world, s string) string { return w.rename(s, "box/cur/s:2,FS") }, false, "account flagged inbox unread"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			stub := w.deliver("box/new/s", "stub@example.org")
			w.apply(mail.Change{Op: mail.OpAdd, Path: stub, New: usual(), Add: []string{"fetch-failed", "account"}})
			stub = tc.touch(w, stub)
			c := mail.Change{Op: mail.OpReplace, Path: w.deliver("box/new/r", "real@example.org"), OldPath: stub, New: usual(), Remove: []string{"fetch-failed"}}
			if tc.seen {
				c.Path = w.rename(c.Path, "box/cur/r:2,S")
				c.Remove = append(c.Remove, "unread")
			}
			r := w.apply(c)[0]
			if letter := strings.Contains(filepath.Base(r.Path), "F"); r.ID != "real@example.org" || r.Duplicate || letter != strings.Contains(tc.want, "flagged") {
				t.Errorf("%+v", r)
			}
			w.tags("real@example.org", tc.want)
			w.tags("stub@example.org", "none")
			if err := os.Remove(stub); err != nil {
				t.Fatal(err)
			}
			// Once more, as after a crash: nothing comes back.
			w.notmuch("tag", "-inbox", "--", "id:real@example.org")
			w.apply(c)
			w.tags("real@example.org", strings.Join(slices.DeleteFunc(strings.Fields(tc.want), func(s string) bool { return s == "inbox" }), " "))
			w.quiet()
		})
	}
}

func TestReplaceWhenTheMailIsKnownUnitesTags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stub := w.deliver("box/new/s", "stub@example.org")
	w.apply(mail.Change{Op: mail.OpAdd, Path: stub, New: usual(), Add: []string{"fetch-failed", "account"}},
		mail.Change{Op: mail.OpAdd, Path: w.deliver("list/cur/r:2,S", "real@example.org"), New: usual(), Add: []string{"list"}})
	r := w.apply(mail.Change{Op: mail.OpReplace, Path: w.deliver("box/new/r", "real@example.org"), OldPath: stub, New: usual(), Remove: []string{"fetch-failed"}})[0]
	if !r.Duplicate {
		t.Errorf("%+v", r)
	}
	w.tags("real@example.org", "account inbox list") // read it was, and read it stays
	w.tags("stub@example.org", "none")
	w.files("real@example.org", "box/new/r", "list/cur/r:2,S")
}

func TestReplaceWithoutAStubIsAnAdd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(mail.Change{Op: mail.OpReplace, Path: w.deliver("box/new/r", "r@example.org"), OldPath: filepath.Join(w.root, "box/new/none"), New: usual(), Add: []string{"x"}, Remove: []string{"fetch-failed"}},
		mail.Change{Op: mail.OpReplace, Path: w.deliver("box/new/q", "q@example.org"), New: usual()})
	w.tags("r@example.org", "inbox unread x")
	w.tags("q@example.org", "inbox unread")
}

func TestReplaceByWhatIsNoMailForgetsTheStub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stub, empty := w.deliver("box/new/s", "stub@example.org"), filepath.Join(w.root, "box/new/empty")
	w.apply(mail.Change{Op: mail.OpAdd, Path: stub})
	w.write(empty, "")
	if r := w.apply(mail.Change{Op: mail.OpReplace, Path: empty, OldPath: stub})[0]; !r.NotMail {
		t.Errorf("%+v", r)
	}
	w.count("*", 0)
}

func TestAPanicEndsTheTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, q := w.deliver("box/new/a", "a@example.org"), w.deliver("box/new/b", "b@example.org")
	db, err := w.x.open(notmuch.DBReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() != "ouch" {
				t.Error("the panic was swallowed")
			}
		}()
		_ = atomically(db, func() error {
			m, err := find(db.AddMessage(p))
			if err := errors.Join(err, m.Close()); err != nil {
				t.Error(err)
			}
			panic("ouch")
		})
	}()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.count("*", 0)
	w.apply(mail.Change{Op: mail.OpAdd, Path: p}, mail.Change{Op: mail.OpAdd, Path: q})
	w.count("*", 2)
}

func TestAnUnknownChangeChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.x.Apply(t.Context(), []mail.Change{{Path: filepath.Join(w.root, "new/a")}}); err == nil {
		t.Error("no error")
	}
	if rs, err := w.x.Apply(t.Context(), nil); err != nil || len(rs) != 0 {
		t.Error(rs, err)
	}
}

// Newest first, replies come before what they reply to, and leave ghosts.
func TestAddWhereRepliesLeftAGhost(t *testing.T) {
	t.Parallel()
	arrive := func(w *world, path, text string) mail.Change {
		w.deliver("box/tmp/x", "x") // makes the maildir
		c := mail.Change{Op: mail.OpAdd, New: usual(), Path: filepath.Join(w.root, path)}
		w.write(c.Path, text)
		return c
	}
	first := "From: b@example.org\nMessage-ID: <first@example.org>\nSubject: x\n\nfirst words\n"
	for _, test := range []struct {
		name, path, text, hint string
		want                   []string
	}{
		{"unread", "box/new/k", first, "first@example.org", []string{"inbox", "list", "unread"}},
		{"read", "box/cur/k:2,FS", first, "first@example.org", []string{"flagged", "inbox", "list"}},
		{"without being told its id", "box/new/k", first, "", []string{"inbox", "list", "unread"}},
		{"told the id of another", "box/new/k", strings.Replace(first, "first@", "other@", 1), "first@example.org", []string{"inbox", "list", "unread"}},
		{"no mail", "box/new/k", "no header\n", "first@example.org", nil},
		{"gone", "box/new/k", "", "first@example.org", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.apply(arrive(w, "box/new/reply", "From: a@example.org\nMessage-ID: <reply@example.org>\nReferences: <first@example.org>\nSubject: x\n\nx\n"))
			c := arrive(w, test.path, test.text)
			if test.text == "" {
				if err := os.Remove(c.Path); err != nil {
					t.Fatal(err)
				}
			}
			c.ID, c.Add = test.hint, []string{"list"}
			r := w.try(c)[0]
			if (r.Err != nil) != (test.text == "") || r.Duplicate || r.NotMail != (test.text == "no header\n") {
				t.Fatalf("%+v", r)
			}
			if test.want != nil {
				w.tags(r.ID, strings.Join(test.want, " "))
			}
			if r.ID == "first@example.org" {
				if out := w.notmuch("count", "--output=threads", "*"); out != "1" {
					t.Errorf("%s threads", out)
				}
			} else if got, _, err := w.x.Tags(t.Context(), "first@example.org"); err != nil || len(got) > 0 {
				t.Errorf("the ghost has the tags %q, %v", got, err)
			}
		})
	}
}
