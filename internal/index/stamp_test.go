package index

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	notmuch "github.com/zenhack/go.notmuch"
)

// stamps gives the stamps of an account, and the revision.
func (w *world) stamps(account string) (string, uint64) {
	w.Helper()
	now, of, stamps, err := w.x.Stamped(w.Context(), account)
	if err != nil {
		w.Fatal(err)
	}
	if of != "" && of != now.UUID {
		stamps = append(stamps, "of", of)
	}
	return strings.Join(stamps, " "), now.N
}

func (w *world) stamp(account string, stamps ...string) {
	w.Helper()
	if done, err := w.x.Stamp(w.Context(), account, stamps...); err != nil || !done {
		w.Fatalf("done %v, %v", done, err)
	}
}

// A stamp is of one account and one database, changes nothing that other programs see of mail,
// goes back with a backup, and along into a database that is made of this one.
func TestAStampIsOfOneDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deliver("work/cur/a:2,S", "a@example.org")
	w.notmuch("new")
	if got, _ := w.stamps("work"); got != "" {
		t.Errorf("stamps %q", got)
	}
	w.stamp("work", "one")
	w.stamp("home", "other")
	_, before := w.stamps("work")
	backup := filepath.Join(w.dir, "backup")
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(w.root, ".notmuch"))); err != nil {
		t.Fatal(err)
	}
	w.stamp("work", "two", "one")
	if got, now := w.stamps("work"); got != "two one" || now != before {
		t.Errorf("stamps %q, and the revision is %d after %d", got, now, before)
	}
	w.quiet()
	uuid := func() string {
		now, _, _, err := w.x.Stamped(t.Context(), "work")
		if err != nil {
			t.Fatal(err)
		}
		return now.UUID
	}
	was := uuid()
	w.rebuild(2)
	if got, _ := w.stamps("work"); got != "two one" || uuid() == was {
		t.Errorf("after a rebuild of %s: %q, the database is %s", was, got, uuid())
	}
	rebuilt := uuid()
	dump := filepath.Join(w.dir, "dump")
	w.notmuch("dump", "--output="+dump)
	put := func() {
		if err := os.RemoveAll(filepath.Join(w.root, ".notmuch")); err != nil {
			t.Fatal(err)
		}
	}
	put()
	if err := os.CopyFS(filepath.Join(w.root, ".notmuch"), os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	if got, now := w.stamps("work"); got != "one" || now != before || uuid() != was {
		t.Errorf("after a backup was put back: stamps %q, revision %d, database %s", got, now, uuid())
	}
	put()
	w.notmuch("new")
	w.notmuch("restore", "--input="+dump)
	if got, _ := w.stamps("work"); got != "two one of "+rebuilt {
		t.Errorf("where a dump of another database was put in: %q, and that was %s", got, rebuilt)
	}
	w.stamp("work", "three")
	_, before = w.stamps("work")
	was = uuid()
	w.notmuch("compact", "--quiet")
	if got, now := w.stamps("work"); got != "three of "+was || now != before || uuid() == was {
		t.Errorf("after %s was compacted: %q, revision %d after %d, database %s", was, got, now, before, uuid())
	}
}

// While another program writes, a stamp waits for the next run.
func TestAStampWaitsForNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.x.lockWait = 1
	other := w.open(Options{})
	err := other.once(notmuch.DBReadWrite, func(*notmuch.DB) error {
		if done, err := w.x.Stamp(t.Context(), "work", "one"); done || err != nil {
			t.Errorf("done %v, %v", done, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// While this process is at one mail, which may take minutes, who has nothing to write that cannot
// wait goes on.
func TestWhatCanWaitWaitsForNoMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stamp("work", "one")
	w.x.turn <- struct{}{}
	if done, err := w.x.Stamp(t.Context(), "work", "two"); done || err != nil {
		t.Errorf("stamped: %v, %v", done, err)
	}
	if _, err := w.x.Apply(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if got, _ := w.stamps("work"); got != "one" {
		t.Errorf("stamps %q", got)
	}
	<-w.x.turn
	w.stamp("work", "two")
}
