package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestATraceIsBounded: when it is full that is told once, and nothing more is written to it.
func TestATraceIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "trace")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	f := &recordFile{file: file, left: 25, tell: func(text string) { told = append(told, text) }}
	for range 5 {
		if n, err := f.Write([]byte("ten bytes\n")); n != 10 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	f.close()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "ten bytes\nten bytes\n" {
		t.Errorf("there is written %q (%v)", got, err)
	}
	if len(told) != 1 || !strings.Contains(told[0], path+" is full after 64 MB; what follows is not in it") {
		t.Errorf("it says %q", told)
	}
}
