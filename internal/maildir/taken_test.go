package maildir

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestTaken(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, d := range []string{"Arch", "arch", "Old"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// As a file system has it that knows no case.
	if err := os.Symlink("Old", filepath.Join(root, "OLD")); err != nil {
		t.Fatal(err)
	}
	taken := NewTaken(root)
	for _, f := range []string{"ARCH", "Arch", "Old"} {
		taken.Put(f)
	}
	for folder, want := range map[string]bool{"Arch": true, "arch": false, "ARCH": true, "aRCH": true, "Old": true, "OLD": true, "other": false} {
		if got := taken.Has(folder); got != want {
			t.Errorf("%s is taken: %v", folder, got)
		}
	}
}

// A mail that lies in two folders by their names lies in one by its directory.
func TestFoldersThatAreOneDirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, f := range []string{"A", "B", "C", "D", "Z"} {
		if err := Dir(filepath.Join(root, f)).Create(); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, to), filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("A", "L")
	link("A", "M")
	link("B/cur", "C/cur")
	link("B/new", "D/new")
	link("none", "N")
	want := map[string]string{"A": "L", "L": "A", "M": "A", "B": "C", "C": "B", "D": "B"}
	got := OneDirectory(root, []string{"A", "B", "C", "D", "L", "M", "N", "Z", "missing"})
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for path, want := range map[string]bool{root + "/A": false, root + "/L": true, root + "/N": true, root + "/missing": false, "/proc": true} {
		if got := Dir(path).Elsewhere(); got != want {
			t.Errorf("%s is elsewhere: %v", path, got)
		}
	}
}
