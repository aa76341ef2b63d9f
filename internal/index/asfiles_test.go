package index

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Files of a few messages come, go, are moved and get other letters, by the server's
// word and by hand, in any order, and notmuch looks now and then. In the end the tags of
// flags are those that `notmuch new` gives the same files in a database that is empty.
func TestTagsOfFlagsAreThoseOfTheFiles(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			v := &vicissitudes{world: newWorld(t), r: rand.New(rand.NewPCG(seed, 1))}
			for i := range 3 {
				v.come(i)
			}
			for range 40 {
				v.step()
			}
			v.notmuch("new")
			got := v.flagTags()
			if err := os.RemoveAll(filepath.Join(v.root, ".notmuch")); err != nil {
				t.Fatal(err)
			}
			v.notmuch("new")
			if want := v.flagTags(); got != want {
				t.Errorf("tags of flags are\n%s\nand `notmuch new` makes of the same files\n%s\nafter\n%s", got, want, strings.Join(v.log, "\n"))
			}
		})
	}
}

// vicissitudes is a world in which things happen to mail.
type vicissitudes struct {
	*world
	r   *rand.Rand
	n   int
	now []fate
	log []string
}

// fate is a file that is there.
type fate struct {
	id   string
	path string
	told string // as we believe it to be called, which may be long ago
}

func (v *vicissitudes) letters() (letters string) {
	for _, l := range "DFPRS" {
		if v.r.IntN(3) == 0 {
			letters += string(l)
		}
	}
	return letters
}

func (v *vicissitudes) name(letters string) string {
	v.n++
	box := []string{"a", "b", "c"}[v.r.IntN(3)]
	if letters == "" && v.r.IntN(2) == 0 {
		return fmt.Sprintf("%s/new/k%d", box, v.n)
	}
	return fmt.Sprintf("%s/cur/k%d:2,%s", box, v.n, letters)
}

// come lets a mail come from the server.
func (v *vicissitudes) come(i int) {
	letters, id := v.letters(), fmt.Sprintf("m%d@example.org", i)
	path := v.deliver(v.name(letters), id)
	v.log = append(v.log, "comes "+path)
	v.apply(mail.Change{Op: mail.OpAdd, Path: path, ID: id, New: []string{"inbox", "unread"}, Add: tagsOfLetters(letters), Remove: lessOfLetters(letters)})
	v.now = append(v.now, fate{id, path, path})
}

func (v *vicissitudes) step() {
	if v.r.IntN(6) == 0 || len(v.now) == 0 {
		v.come(v.r.IntN(3))
		return
	}
	i := v.r.IntN(len(v.now))
	f := &v.now[i]
	l := v.letters()
	switch v.r.IntN(7) {
	case 0:
		v.log = append(v.log, "notmuch new")
		v.notmuch("new")
	case 1: // by hand
		v.path(f, filepath.Join(filepath.Base(filepath.Dir(filepath.Dir(f.path))), "cur", keyOf(f.path)+":2,"+l))
	case 2: // moved by hand, of which we hear as of one that goes and one that comes
		was := f.path
		v.path(f, v.name(l))
		if v.r.IntN(3) == 0 {
			v.notmuch("new")
		}
		coming := mail.Change{Op: mail.OpAdd, Path: f.path, ID: f.id, Add: tagsOfLetters(lettersOf(f.path)), Remove: lessOfLetters(lettersOf(f.path))}
		v.apply(coming, mail.Change{Op: mail.OpRemove, Path: was, ID: f.id})
		f.told = f.path
	case 3, 4: // by the server
		set, clear := l, strings.Join(slices.DeleteFunc(strings.Split("DFPRS", ""), func(x string) bool { return strings.Contains(l, x) || v.r.IntN(2) == 0 }), "")
		v.log = append(v.log, fmt.Sprintf("server +%s -%s %s", set, clear, f.told))
		r := v.apply(mail.Change{Op: mail.OpFlag, Path: f.told, ID: f.id, Set: set, Clear: clear,
			Add: append(tagsOfLetters(set), lessOfLetters(clear)...), Remove: append(tagsOfLetters(clear), lessOfLetters(set)...)})
		f.path, f.told = r[0].Path, r[0].Path
	case 5: // deleted: here first, or by the server
		v.log = append(v.log, "goes "+f.path)
		if err := os.Remove(f.path); err != nil {
			v.Fatal(err)
		}
		if v.r.IntN(3) == 0 {
			v.notmuch("new")
		}
		v.apply(mail.Change{Op: mail.OpRemove, Path: f.told, ID: f.id})
		v.now = slices.Delete(v.now, i, i+1)
	case 6:
		v.notmuch("new")
		tag := []string{"+flagged", "-flagged", "+unread", "-unread", "+replied", "-replied"}[v.r.IntN(6)]
		v.log = append(v.log, tag+" "+f.id)
		v.notmuch("tag", tag, "--", "id:"+f.id)
		for i := range v.now {
			if path, err := locate(v.now[i].path, nil); err == nil {
				v.now[i].path = path
			}
		}
	}
}

// path renames a file, whatever the database thinks of it.
func (v *vicissitudes) path(f *fate, to string) {
	v.log = append(v.log, "by hand "+f.path+" -> "+to)
	f.path = v.rename(f.path, to)
}

func tagsOfLetters(letters string) (tags []string) {
	for _, row := range letterRows() {
		if strings.Contains(letters, row.letter) && !row.absent {
			tags = append(tags, row.tag)
		}
	}
	return tags
}

func lessOfLetters(letters string) []string {
	if strings.Contains(letters, "S") {
		return []string{"unread"}
	}
	return nil
}

// flagTags gives each message with its tags of flags.
func (v *vicissitudes) flagTags() string {
	var out []string
	for i := range 3 {
		id := fmt.Sprintf("m%d@example.org", i)
		var tags []string
		for _, t := range strings.Fields(v.notmuch("search", "--output=tags", "--exclude=false", "id:"+id)) {
			if slices.ContainsFunc(letterRows(), func(row letterRow) bool { return row.tag == t }) {
				tags = append(tags, t)
			}
		}
		out = append(out, id+": "+strings.Join(tags, " "))
	}
	return strings.Join(out, "\n")
}

// What a user tags while notmuch knows a file by an older name only, it cannot write
// into the name: Changes says which letters are wanted, and OpFlag gives them, also to
// a file that has another key by now.
func TestChangesOfAFileThatWasRenamedSince(t *testing.T) {
	t.Parallel()
	for i, is := range []string{"cur/a:2,S", "cur/a:2,FS", "cur/b:2,", "cur/a:2,S", "cur/a:2,FS", "cur/b:2,"} {
		told := i >= 3 // of the new name, before anybody asks
		t.Run(fmt.Sprint(is, told), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			path := w.deliver("box/cur/a:2,", "a@example.org")
			w.notmuch("new")
			w.notmuch("tag", "+kept", "--", "*")
			now, _, _, err := w.x.Changes(t.Context(), mail.Revision{}, w.root)
			if err != nil {
				t.Fatal(err)
			}
			was := path
			path = w.rename(path, "box/"+is)
			w.notmuch("tag", "+replied", "--", "*")
			if told {
				w.apply(mail.Change{Op: mail.OpAdd, Path: path, ID: "a@example.org", Remove: []string{"replied"}})
				if keyOf(was) != keyOf(path) {
					w.apply(mail.Change{Op: mail.OpRemove, Path: was, ID: "a@example.org"})
				}
			}
			_, tagged, whole, err := w.x.Changes(t.Context(), now, w.root)
			if err != nil || whole || len(tagged) != 1 || tagged[0].Set != "R" || tagged[0].Clear != "" {
				t.Fatalf("%+v %v %v", tagged, whole, err)
			}
			r := w.apply(mail.Change{Op: mail.OpFlag, Path: path, ID: "a@example.org", Set: "R"})
			if want := withLetters(path, "R", ""); r[0].Path != want {
				t.Errorf("%s, want %s", r[0].Path, want)
			}
			w.notmuch("new")
			if tags := w.notmuch("search", "--output=tags", "*"); !strings.Contains(tags, "replied") || strings.Contains(tags, "flagged") != strings.Contains(is, "F") {
				t.Errorf("tags %q", tags)
			}
		})
	}
}

// A file is told of by the name that it had, with the tags of its letters, and its owner has
// taken one off since: that is no order to set it again.
func TestAFileWhoseLettersWereChangedBeforeItIsTold(t *testing.T) {
	t.Parallel()
	for _, of := range []struct{ was, is, add, remove, want string }{
		{"cur/a:2,S", "cur/a:2,", "", "unread", "unread"},
		{"cur/a:2,", "cur/a:2,S", "unread", "", ""},
		{"cur/a:2,FS", "cur/a:2,S", "flagged", "unread", ""},
		{"cur/a:2,S", "cur/a:2,FS", "", "unread", "flagged"},
	} {
		t.Run(of.was+of.is, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			was := w.deliver("box/"+of.was, "a@example.org")
			w.rename(was, "box/"+of.is)
			w.apply(mail.Change{Op: mail.OpAdd, Path: was, ID: "a@example.org", Add: strings.Fields(of.add), Remove: strings.Fields(of.remove)})
			if got := strings.TrimSpace(w.notmuch("search", "--output=tags", "--", "*")); got != of.want {
				t.Errorf("it has the tags %q, want %q", got, of.want)
			}
		})
	}
}
