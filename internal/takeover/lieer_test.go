package takeover

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLieer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		files  []string
		want   map[uint64]string
		words  string
	}{
		"what there may be": {`{"account": "me", "file_extension": ""}`, []string{"cur/15a2b3c4d5e6f708:2,FS", "new/10", "cur/mine:2,S", "cur/ffffffffffffffff:2,"},
			map[uint64]string{0x15a2b3c4d5e6f708: "15a2b3c4d5e6f708", 16: "10", 1<<64 - 1: "ffffffffffffffff"}, ""},
		"an extension": {`{"file_extension": "mbox"}`, []string{"cur/11.mbox:2,S", "cur/12:2,S"}, map[uint64]string{0x11: "11.mbox", 0x12: "12"}, ""},
		"two files":    {`{}`, []string{"cur/11:2,S", "new/11"}, nil, "two files"},
		"no JSON":      {`x`, nil, nil, "none of lieer's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, d := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(dir, "mail", d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write(t, dir, ".gmailieer.json", c.config)
			for _, f := range c.files {
				write(t, dir, filepath.Join("mail", f), "x")
			}
			a, err := Lieer(dir)
			switch {
			case c.words != "":
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v does not say %q", err, c.words)
				}
			case err != nil || !maps.Equal(a.Gmail, c.want):
				t.Errorf("%v, %v", a, err)
			}
		})
	}
	if _, err := Lieer(t.TempDir()); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

func TestLieerAtWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, ".gmailieer.json", `{"account": "me@example.org"}`)
	if p, err := LieerProposal(dir); err != nil || p.User != "me@example.org" || p.Root != dir {
		t.Error(p, err)
	}
	f, err := os.Create(filepath.Join(dir, ".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Lieer(dir); err != nil {
		t.Error(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if _, err := Lieer(dir); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}
