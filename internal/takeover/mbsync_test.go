package takeover

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const head = "FarUidValidity 7\nNearUidValidity 9\nMaxPulledUid 5\nMaxPushedUid 3\n\n"

// folder makes one with files of these near UIDs, and a state.
func folder(t *testing.T, state string, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, ".uidvalidity", "9\n4\n")
	write(t, dir, ".mbsyncstate", state)
	for _, n := range names {
		write(t, dir, n, "x")
	}
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// goesOn wants of the state of an agreement that it is the file's, and that it is known to have changed
// where the program writes into it or begins a run, and not where it is put away.
func goesOn(t *testing.T, s State, file string) {
	t.Helper()
	if s.File != file {
		t.Errorf("the state is %s, want %s", s.File, file)
	}
	changed := func(what string, want bool) {
		t.Helper()
		if got, err := s.Changed(); err != nil || got != want {
			t.Errorf("%s: changed %v, %v", what, got, err)
		}
	}
	changed("as it was", false)
	dir, name := filepath.Split(file)
	write(t, dir, name+".journal", "")
	changed("a run that has begun", false)
	write(t, dir, name+".journal", "x")
	changed("a run that has done something", true)
	if err := os.Remove(file + ".journal"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	changed("put away", false)
	write(t, dir, name, "other")
	changed("another text", true)
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	changed("as it was again", false)
}

func TestMbsync(t *testing.T) {
	t.Parallel()
	files := []string{"cur/a,U=1:2,S", "new/b,U=2", "cur/c,U=3,X=1:2,", "cur/mine:2,S", "cur/odd,U=x:2,"}
	for name, c := range map[string]struct {
		state string
		want  *Agreement
		words string
	}{
		"what there may be": {head + "1 1 FS\n2 2 \n3 3 >F\n4 0 S\n0 4 S\n5 6\n7 0 ^\n8 9 ~S\n9 2000 <R\n10 90 >\n", &Agreement{UIDValidity: 7, UIDNext: 11, Messages: []Agreed{
			{UID: 1, Key: "a,U=1", Letters: "FS"}, {UID: 2, Key: "b,U=2"}, {UID: 3, Key: "c,U=3,X=1", Letters: "F", Placeholder: true},
			{UID: 4, Letters: "S"}, {UID: 5, Key: "gone,U=6"}, {UID: 7}, {UID: 8, Letters: "S"}, {UID: 9, Key: "gone,U=2000", Letters: "R"}, {UID: 10, Placeholder: true}}}, ""},
		"nothing in it":        {head, &Agreement{UIDValidity: 7, UIDNext: 6}, ""},
		"before isync 1.4":     {"MasterUidValidity 7\nSlaveUidValidity 9\nMaxPulledUid 1\nMaxPushedUid 1\n\n1 1 XS\n", &Agreement{UIDValidity: 7, UIDNext: 2, Messages: []Agreed{{UID: 1, Key: "a,U=1", Letters: "S", Expired: true}}}, ""},
		"before isync 1.1":     {"7:5 9:0:3\n", nil, "line 1 is none of mbsync's"},
		"a key of the future":  {"FarUidValidity 7\nNew 1\n\n", nil, `"New 1"`},
		"a flag of the future": {head + "1 1 ?\n", nil, `"1 1 ?"`},
		"a row that is none":   {head + "1\n", nil, "line 6 is none"},
		"no number":            {head + "1 x\n", nil, "line 6 is none"},
		"twice":                {head + "1 1\n1 2\n", nil, "UID 1 stands there twice"},
		"another folder's":     {strings.Replace(head, "9", "8", 1), nil, "of another folder"},
		"no UIDVALIDITY":       {"MaxPulledUid 0\n\n", nil, "names no UIDVALIDITY"},
		"empty":                {"", nil, "names no UIDVALIDITY"},
		"cut in a line":        {head + "1 1 S\n2 2", nil, "its end is missing"},
		"a long line":          {head + strings.Repeat("1", 1000), nil, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := folder(t, c.state, files...)
			got, err := Mbsync(at)
			if c.words != "" {
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v does not say %q", err, c.words)
				}
				return
			}
			if err == nil {
				goesOn(t, got.State, filepath.Join(at, ".mbsyncstate"))
				got.State = State{}
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%v\n%+v, want\n%+v", err, got, c.want)
			}
		})
	}
}

func TestMbsyncIsNotBelieved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		words  string
	}{
		"a journal": {func(t *testing.T, dir string) { write(t, dir, ".mbsyncstate.journal", "5\n# 1 1 1\n") }, "run mbsync once more"},
		"a draft":   {func(t *testing.T, dir string) { write(t, dir, ".mbsyncstate.new", head) }, "run mbsync once more"},
		"AltMap": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, ".uidvalidity")); err != nil {
				t.Fatal(err)
			}
		}, "AltMap"},
		"InfoDelimiter":         {func(t *testing.T, dir string) { write(t, dir, "cur/other,U=2;2,S", "y") }, `flags behind ";" (InfoDelimiter)`},
		"no number of a folder": {func(t *testing.T, dir string) { write(t, dir, ".uidvalidity", "x\n") }, "is no number"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, head+"1 1\n", "cur/a,U=1:2,")
			if _, err := Mbsync(dir); err != nil {
				t.Fatal(err)
			}
			c.change(t, dir)
			if _, err := Mbsync(dir); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v does not say %q", err, c.words)
			}
		})
	}
	none := folder(t, head)
	if err := os.Remove(filepath.Join(none, ".mbsyncstate")); err != nil {
		t.Fatal(err)
	}
	if _, err := Mbsync(none, t.TempDir(), filepath.Join(none, "x")); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

// TestMbsyncAtWork holds the lock as mbsync does, by fcntl; a process sees no lock of its
// own, so that the lock is one of the open file here.
func TestMbsyncAtWork(t *testing.T) {
	t.Parallel()
	dir := folder(t, head)
	f, err := os.Create(filepath.Join(dir, ".mbsyncstate.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Mbsync(dir); err != nil {
		t.Errorf("a lock that nobody holds: %v", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if _, err := Mbsync(dir); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}

func TestMbsyncStates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, n := range []string{":far:Archiv&AOk-!2024_:near:Archiv&AOk-!2024", ":far:Archiv&AOk-!2024_:near:Archiv&AOk-!2024.lock", ":far:INBOX_:near:INBOX", ":b:INBOX_:c:INBOX", "other"} {
		write(t, dir, n, head)
	}
	got := MbsyncStates("", []string{dir, "/nonexistent"}, []string{"Archivé", "2024"}, []string{"Archiv&AOk-", "2024"})
	if want := []string{filepath.Join(dir, ":far:Archiv&AOk-!2024_:near:Archiv&AOk-!2024")}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := MbsyncStates("", []string{dir}, []string{"INBOX"}); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if got := MbsyncStates("/s/pre-", nil, []string{"a", "b"}); !slices.Equal(got, []string{"/s/pre-a!b", "/s/pre-/a!b"}) {
		t.Errorf("%q", got)
	}
}

func FuzzMbsync(f *testing.F) {
	f.Add(head + "1 1 FS\n2 0\n")
	f.Add("MasterUidValidity 7\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := readMbsync(strings.NewReader(text))
		if err == nil && (s.far == 0 || s.near == 0) {
			t.Errorf("%+v", s)
		}
	})
}
