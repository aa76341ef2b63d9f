package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestFlag(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		sync  string
		file  string                      // as delivered and indexed
		touch func(w *world, path string) // what happens before the server's change comes
		stale bool                        // the change knows the file's first name only
		set   string                      // the server's change
		clear string
		add   []string
		rem   []string
		want  string // tags
		files string
		text  bool // the mail is read anew for it
	}{
		{name: "read at the server", file: "new/a", set: "S", rem: []string{"unread"}, want: "inbox", files: "box/cur/a:2,S"},
		{name: "unread at the server", file: "cur/a:2,S", clear: "S", add: []string{"unread"}, want: "inbox unread", files: "box/cur/a:2,"},
		{name: "flagged and answered", file: "cur/a:2,S", set: "RF", add: []string{"replied", "flagged"}, want: "flagged inbox replied", files: "box/cur/a:2,FRS"},
		{name: "keywords leave the name", file: "new/a", add: []string{"todo"}, want: "inbox todo unread", files: "box/new/a"},
		{name: "nothing to do", file: "cur/a:2,S", set: "S", rem: []string{"unread"}, want: "inbox", files: "box/cur/a:2,S"},
		{name: "other letters stay", file: "cur/a:2,ab", set: "F", add: []string{"flagged"}, want: "flagged inbox unread", files: "box/cur/a:2,Fab"},
		{name: "deleted has no tag", file: "cur/a:2,S", set: "T", want: "inbox", files: "box/cur/a:2,ST", text: true},
		{name: "deleted and read at once", file: "new/a", set: "ST", rem: []string{"unread"}, want: "inbox", files: "box/cur/a:2,ST", text: true},
		{name: "infixes of other programs stay", file: "cur/a,U=77,FMD5=ab:2,", set: "S", rem: []string{"unread"}, want: "inbox", files: "box/cur/a,U=77,FMD5=ab:2,S"},

		{name: "flagged in the reader, notmuch saw it", file: "new/a", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,F"); w.notmuch("new") },
			stale: true, set: "S", rem: []string{"unread"}, want: "flagged inbox", files: "box/cur/a:2,FS"},
		{name: "flagged in the reader, notmuch did not see it", file: "new/a", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,F") },
			stale: true, set: "S", rem: []string{"unread"}, want: "flagged inbox", files: "box/cur/a:2,FS"},
		{name: "the same, by its name of today", file: "new/a", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,F") },
			set: "S", rem: []string{"unread"}, want: "flagged inbox", files: "box/cur/a:2,FS"},
		{name: "unflagged in the reader", file: "cur/a:2,FS", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,S") },
			stale: true, set: "R", add: []string{"replied"}, want: "inbox replied", files: "box/cur/a:2,RS"},
		{name: "flagged in the reader, unflagged at the server", file: "new/a", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,F") },
			stale: true, clear: "F", rem: []string{"flagged"}, want: "inbox unread", files: "box/cur/a:2,", text: true},
		{name: "only moved to cur", file: "new/a", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,") },
			stale: true, add: []string{"todo"}, want: "inbox todo unread", files: "box/cur/a:2,", text: true},
		{name: "tagged in notmuch meanwhile", file: "new/a", touch: func(w *world, _ string) { w.notmuch("tag", "+flagged", "+mine", "--", "*") },
			stale: true, set: "S", rem: []string{"unread"}, want: "flagged inbox mine", files: "box/cur/a:2,FS"},

		// Tags without letters: the server did not say S, so the name must not.
		{name: "tags and letters differ", file: "new/a", touch: func(w *world, _ string) {
			w.notmuch("config", "set", "maildir.synchronize_flags", "false")
			w.notmuch("tag", "-unread", "--", "*")
			w.notmuch("config", "set", "maildir.synchronize_flags", "true")
		}, set: "F", add: []string{"flagged"}, want: "flagged inbox", files: "box/cur/a:2,F", text: true},

		{name: "without synchronisation", sync: "false", file: "new/a", set: "S", rem: []string{"unread"}, want: "inbox", files: "box/cur/a:2,S"},
		{name: "without synchronisation, tags and letters differ", sync: "false", file: "cur/a:2,S", touch: func(w *world, _ string) { w.notmuch("tag", "+unread", "--", "*") },
			set: "F", add: []string{"flagged"}, want: "flagged inbox unread", files: "box/cur/a:2,FS", text: true},
		{name: "without synchronisation, renamed", sync: "false", file: "new/a", touch: func(w *world, p string) { w.rename(p, "box/cur/a:2,F") },
			stale: true, set: "S", rem: []string{"unread"}, want: "inbox", files: "box/cur/a:2,FS", text: true},
	} {
		for _, id := range []string{"a@example.org", ""} {
			t.Run(tc.name+", id="+id, func(t *testing.T) {
				t.Parallel()
				sync := tc.sync
				if sync == "" {
					sync = "true"
				}
				w := newWorld(t, "maildir.synchronize_flags="+sync)
				path := w.deliver("box/"+tc.file, "a@example.org")
				w.apply(mail.Change{Op: mail.OpAdd, Path: path, New: usual()})
				c := mail.Change{Op: mail.OpFlag, Path: path, ID: id, Set: tc.set, Clear: tc.clear, Add: tc.add, Remove: tc.rem}
				if tc.touch != nil {
					tc.touch(w, path)
				}
				actual, err := locate(path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !tc.stale {
					c.Path = actual
				}
				// Words that are in the file only since it was indexed show
				// whether it was read again.
				f, err := os.OpenFile(actual, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteString("marmalade\n"); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				r := w.apply(c)[0]
				if r.ID != "a@example.org" || r.Path != filepath.Join(w.root, tc.files) {
					t.Errorf("%+v", r)
				}
				w.tags("a@example.org", tc.want)
				w.files("a@example.org", tc.files)
				if !tc.text {
					w.count("marmalade", 0)
				}
				// Again, as after a crash before it was recorded.
				if again := w.apply(c)[0]; !reflect.DeepEqual(again, r) {
					t.Errorf("again: %+v, want %+v", again, r)
				}
				w.tags("a@example.org", tc.want)
				w.files("a@example.org", tc.files)
				w.quiet()
				w.tags("a@example.org", tc.want)
			})
		}
	}
}

func TestFlagOfOneOfSeveralFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.deliver("box/cur/a:2,FS", "a@example.org"), w.deliver("list/cur/b:2,FS", "a@example.org")
	w.apply(mail.Change{Op: mail.OpAdd, Path: a, New: usual()}, mail.Change{Op: mail.OpAdd, Path: b, New: usual()})
	w.tags("a@example.org", "flagged inbox")
	// Its reader unflags one file: the other one's flag stands.
	w.rename(b, "list/cur/b:2,S")
	answered := mail.Change{Op: mail.OpFlag, Path: b, ID: "a@example.org", Set: "R", Add: []string{"replied"}}
	w.apply(answered)
	w.tags("a@example.org", "flagged inbox replied")
	w.files("a@example.org", "box/cur/a:2,FS", "list/cur/b:2,RS")
	// And then the other one.
	w.rename(a, "box/cur/a:2,S")
	answered.Path = a
	w.apply(answered)
	w.tags("a@example.org", "inbox replied")
	w.files("a@example.org", "box/cur/a:2,RS", "list/cur/b:2,RS")
	w.quiet()
	w.tags("a@example.org", "inbox replied")
}

func TestFlagOfAFileThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.deliver("box/new/a", "a@example.org"), w.deliver("list/new/b", "a@example.org")
	w.notmuch("new")
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{a, filepath.Join(w.root, "nobox/new/x")} {
		r := w.try(mail.Change{Op: mail.OpFlag, Path: path, ID: "a@example.org", Set: "F", Add: []string{"flagged", "todo"}})[0]
		if !errors.Is(r.Err, fs.ErrNotExist) || r.ID != "a@example.org" {
			t.Errorf("%+v", r)
		}
	}
	w.tags("a@example.org", "inbox todo unread") // no file has the letter
	if _, err := os.Stat(b); err != nil {
		t.Error("the other file was renamed:", err)
	}
	if r := w.try(mail.Change{Op: mail.OpFlag, Path: a, ID: "none@example.org", Set: "F"})[0]; !errors.Is(r.Err, fs.ErrNotExist) {
		t.Errorf("%+v", r)
	}
}

func TestFlagOfAFileThatIsNoMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	empty := filepath.Join(w.root, "box/new/e")
	w.deliver("box/new/m", "m@example.org") // which makes the maildir
	w.write(empty, "")
	r := w.apply(mail.Change{Op: mail.OpFlag, Path: empty, Set: "S", Remove: []string{"unread"}})[0]
	if want := filepath.Join(w.root, "box/cur/e:2,S"); r.Path != want || r.ID != "" {
		t.Errorf("%+v, want path %s", r, want)
	}
}

func TestFlagNeverOverwrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.deliver("box/new/a", "a@example.org")
	other := w.deliver("box/cur/a:2,S", "other@example.org")
	w.notmuch("new")
	r := w.try(mail.Change{Op: mail.OpFlag, Path: a, ID: "a@example.org", Set: "S", Remove: []string{"unread"}})[0]
	if !errors.Is(r.Err, fs.ErrExist) || r.Path != a {
		t.Errorf("%+v", r)
	}
	for path, id := range map[string]string{a: "a@example.org", other: "other@example.org"} {
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "<"+id+">") {
			t.Errorf("%s: %q %v", path, text, err)
		}
	}
}
