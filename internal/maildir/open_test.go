package maildir

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOnlyRegularFilesAreRead by whatever reads a mail; a fifo keeps nobody waiting.
func TestOnlyRegularFilesAreRead(t *testing.T) {
	t.Parallel()
	d := Dir(t.TempDir())
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	socket, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", d.Path("cur/socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := errors.Join(syscall.Mkfifo(d.Path("cur/fifo"), 0o600), os.Mkdir(d.Path("cur/directory"), 0o700), os.Symlink("fifo", d.Path("cur/link"))); err != nil {
		t.Fatal(err)
	}
	for what, read := range map[string]func(path string) error{
		"digest":  func(path string) error { _, err := Digest(path); return err },
		"header":  func(path string) error { _, err := ReadHeader(path); return err },
		"id":      func(path string) error { _, err := MadeUpID(path); return err },
		"content": func(path string) error { _, err := Content(path); return err },
		"size":    func(path string) error { _, err := WireSize(path); return err },
		"bytes":   func(path string) error { _, err := Read(path, make([]byte, 10), io.Discard); return err },
		"copied":  func(path string) error { return Copy(path, filepath.Join(t.TempDir(), "copy")) },
	} {
		for _, name := range []string{"fifo", "directory", "socket", "link"} {
			if err := read(d.Path("cur/" + name)); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s of a %s: %v", what, name, err)
			}
		}
	}
}
