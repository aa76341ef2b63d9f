package ledger

import (
	"database/sql"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// asVersion1 makes a ledger with two messages one of the first version.
func asVersion1(t *testing.T) (dir string, want []Message) {
	t.Helper()
	dir = t.TempDir()
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	want = []Message{present(1, `\Seen`), present(2)}
	if err := l.SaveMailbox(t.Context(), Mailbox{Name: "INBOX", UIDValidity: 14}); err != nil {
		t.Fatal(err)
	}
	if err := l.Save(t.Context(), want...); err != nil {
		t.Fatal(err)
	}
	if _, err := l.db.ExecContext(t.Context(), "ALTER TABLE message DROP COLUMN digest; PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, want
}

func TestALedgerOfTheFirstVersionGoesOn(t *testing.T) {
	t.Parallel()
	dir, want := asVersion1(t)
	kept := filepath.Join(dir, "ledger.db.v1")
	if err := os.WriteFile(kept+".part", []byte("of a run that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := OpenReadOnly(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	read := l.all(t)
	if byID, err := l.ByMessageID(t.Context(), want[0].ID); err != nil || len(byID) != 1 {
		t.Errorf("by id: %+v, %v", byID, err)
	}
	if err := l.Close(); err != nil || !slices.EqualFunc(read, want, same) {
		t.Errorf("to look into: %+v, %v\nwant %+v", read, err, want)
	}
	if _, err := os.Stat(kept); err == nil {
		t.Error("to look into it makes a copy")
	}
	for i := range 2 {
		if l, err = Open(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if got := l.all(t); !slices.EqualFunc(got, want, same) {
			t.Errorf("%+v\nwant %+v", got, want)
		}
		want[0].Digest = mail.Digest{1, 2, byte(i)}
		if err := l.Save(t.Context(), want[0]); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// What was kept is what the older program can open.
	db, err := sql.Open("sqlite", kept)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	v, err := userVersion(t.Context(), db)
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM message").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d messages, %v", n, err)
	}
	if _, digest := db.ExecContext(t.Context(), "SELECT digest FROM message"); err != nil || v != 1 || digest == nil {
		t.Errorf("version %d, %v, %v", v, err, digest)
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := filepath.Glob(kept + ".*"); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

func same(a, b Message) bool { return reflect.DeepEqual(a, b) }

func TestALedgerThatCannotBeKeptStaysAsItIs(t *testing.T) {
	t.Parallel()
	dir, want := asVersion1(t)
	kept := filepath.Join(dir, "ledger.db.v1")
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), kept) {
		t.Fatalf("err = %v", err)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.all(t); !slices.EqualFunc(got, want, same) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
