package ledger

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
)

func TestALedgerOutlivesItsRunInAnyDirectory(t *testing.T) {
	for _, name := range []string{"work", "a b?c=d#e%41;é&f", "file:x"} {
		dir := filepath.Join(t.TempDir(), name)
		for i := range 2 {
			l, err := Open(t.Context(), dir)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if v, err := l.Meta(t.Context(), "run"); err != nil || v != strings.Repeat("x", i) {
				t.Errorf("%s: run %d read %q, %v", name, i, v, err)
			}
			if err := l.SetMeta(t.Context(), "run", "x"); err != nil {
				t.Error(err)
			}
			files, err := os.ReadDir(dir)
			if err != nil || len(files) < 4 {
				t.Errorf("%s: %v, %v", name, files, err)
			}
			for _, f := range files {
				if fi, err := f.Info(); err != nil || fi.Mode() != 0o600 {
					t.Errorf("%s: %s has mode %v, %v", name, f.Name(), fi.Mode(), err)
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	}
}

func TestReadOnlySeesAndWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	if _, err := OpenReadOnly(t.Context(), dir); !errors.Is(err, ErrNotExist) {
		t.Errorf("without a ledger: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("looking made the directory")
	}
	w, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	// What a run records is seen while it works.
	if err := w.SetMeta(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
	if v, err := r.Meta(t.Context(), "k"); v != "v" || err != nil {
		t.Error(v, err)
	}
	if err := r.SetMeta(t.Context(), "k", "w"); err == nil {
		t.Error("a read-only ledger was written")
	}
	if err := errors.Join(w.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	// A run that was interrupted before it recorded anything.
	if err := os.Truncate(filepath.Join(dir, "ledger.db"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReadOnly(t.Context(), dir); !errors.Is(err, ErrNotExist) {
		t.Errorf("an empty ledger: %v", err)
	}
}

func TestALedgerOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.db.ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the lock is given back
		for _, open := range []func(context.Context, string) (*Ledger, error){Open, OpenReadOnly} {
			if _, err := open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "newer notmuch-imap (version 99") || strings.Contains(err.Error(), "move it away") {
				t.Errorf("err = %v", err)
			}
		}
	}
}

func TestADamagedLedgerIsNamedWithWhatToDo(t *testing.T) {
	check := func(err error, dir string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "ledger.db")) || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("err = %v", err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := Open(t.Context(), dir)
		check(err, dir)
		_, err = OpenReadOnly(t.Context(), dir)
		check(err, dir)
	}

	// Damage that shows only when it is read.
	dir = t.TempDir()
	path = filepath.Join(dir, "ledger.db")
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var ms []Message
	for u := range imap.UID(2000) {
		ms = append(ms, present(u+1))
	}
	if err := errors.Join(l.SaveMailbox(t.Context(), Mailbox{Name: "INBOX"}), l.Save(t.Context(), ms...), l.Close()); err != nil {
		t.Fatal(err)
	}
	db, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 16 << 10; i < len(db); i++ {
		db[i] = 'x'
	}
	if err := os.WriteFile(path, db, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err = Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Rows(t.Context(), "INBOX", 14)
	check(err, dir)
	check(l.Save(t.Context(), ms...), dir)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFullDiskIsTold(t *testing.T) {
	l := newLedger(t)
	if _, err := l.db.ExecContext(t.Context(), "PRAGMA max_page_count = 20"); err != nil {
		t.Fatal(err)
	}
	var ms []Message
	for u := range imap.UID(2000) {
		ms = append(ms, present(u+1))
	}
	if err := l.Save(t.Context(), ms...); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), l.path) {
		t.Errorf("err = %v", err)
	}
	if got := l.all(t); len(got) != 0 {
		t.Errorf("%d messages were saved", len(got))
	}
	if err := l.Save(t.Context(), ms[0]); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A file system without room is told as such whatever SQLite calls it: for its own files it
// is an I/O error. The small one is in a namespace of its own, so that this wants no rights.
func TestAFullFileSystemIsTold(t *testing.T) {
	const where = "LEDGER_ON_A_FULL_FILE_SYSTEM"
	dir := os.Getenv(where)
	if dir == "" {
		cmd := exec.CommandContext(t.Context(), "unshare", "--map-root-user", "--mount", "sh", "-ec",
			`mount -t tmpfs -o size=1m tmpfs "$`+where+`"; exec "$0" -test.run='^TestAFullFileSystemIsTold$'`, os.Args[0])
		cmd.Env = append(os.Environ(), where+"="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if l, err = Open(t.Context(), dir); err == nil {
		err = errors.Join(l.SetMeta(t.Context(), "k", strings.Repeat("v", 1<<20)), l.Close())
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "ledger.db") || !strings.Contains(err.Error(), "cannot grow") {
		t.Errorf("err = %v", err)
	}
}
