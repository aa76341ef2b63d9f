package maildir

import (
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
