package watch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// local is an account whose folders are watched, without a server.
type local struct {
	t      *testing.T
	root   string
	db     string
	w      *Watcher
	synced chan struct{}
	tagged chan struct{}

	mu   sync.Mutex
	said []string
}

func newLocal(t *testing.T) *local {
	t.Helper()
	l := &local{t: t, synced: make(chan struct{}, 100), tagged: make(chan struct{}, 100)}
	dir := t.TempDir()
	l.root, l.db = filepath.Join(dir, "work"), filepath.Join(dir, ".notmuch", "xapian")
	for _, d := range []string{l.root + "/INBOX/cur", l.root + "/INBOX/new", l.root + "/INBOX/tmp", l.db} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	times := Usual()
	times.Quiet, times.Own = time.Millisecond, 0
	l.w = New(times, Account{
		Name: "work",
		Dial: func(ctx context.Context) (Line, error) { <-ctx.Done(); return nil, ctx.Err() },
		Sync: func(context.Context, []string, Turn) Outcome {
			l.synced <- struct{}{}
			return Outcome{Did: true}
		},
		Paused: func(context.Context) time.Time { return time.Time{} },
		Tagged: func(context.Context) bool { l.tagged <- struct{}{}; return true },
		Say:    func(string) {},
	})
	if err := l.w.Files([]string{l.root}, l.db, func(s string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.said = append(l.said, s)
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	l.await(l.synced) // the start
	return l
}

func (l *local) await(c chan struct{}) {
	l.t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Minute):
		l.t.Fatal("nothing came of it")
	}
}

func (l *local) write(path string) {
	l.t.Helper()
	if err := os.WriteFile(path, []byte("Subject: x\n\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *local) rename(from, to string) {
	l.t.Helper()
	if err := os.Rename(from, to); err != nil {
		l.t.Fatal(err)
	}
}

func TestChangesOfMaildirsAreSynced(t *testing.T) {
	t.Parallel()
	l := newLocal(t)
	box := l.root + "/INBOX"
	l.write(box + "/tmp/1")
	l.rename(box+"/tmp/1", box+"/new/1")
	l.await(l.synced)
	l.rename(box+"/new/1", box+"/cur/1:2,S")
	l.await(l.synced)
	if err := os.Remove(box + "/cur/1:2,S"); err != nil {
		t.Fatal(err)
	}
	l.await(l.synced)
	// A new folder, and mail in it.
	for _, d := range []string{"/Lists/notmuch/tmp", "/Lists/notmuch/cur", "/Lists/notmuch/new"} {
		if err := os.MkdirAll(l.root+d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l.await(l.synced)
	for i := 0; ; i++ {
		// It may be a moment until that is watched, but mail that came before is looked at, too.
		l.write(filepath.Join(l.root, "Lists/notmuch/new", string(rune('a'+i%26))+"x"))
		select {
		case <-l.synced:
		case <-time.After(5 * time.Minute):
			t.Fatal("mail in a new folder is not seen")
		}
		if i == 3 {
			break
		}
	}
}

func TestACommitOfNotmuchIsLookedAt(t *testing.T) {
	t.Parallel()
	l := newLocal(t)
	l.write(l.db + "/v4.tmp")
	l.write(l.db + "/postlist.glass")
	l.rename(l.db+"/v4.tmp", l.db+"/iamglass")
	l.await(l.tagged)
	l.await(l.synced)
}

func TestEventsThatTheKernelDroppedAreMadeUpFor(t *testing.T) {
	t.Parallel()
	l := newLocal(t)
	l.w.files.w.Errors <- fsnotify.ErrEventOverflow
	l.await(l.synced)
	l.w.files.w.Errors <- errors.New("no such thing")
	l.w.files.w.Errors <- errors.New("no such thing")
	l.await(l.synced)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.said) != 1 {
		t.Errorf("said %q", l.said)
	}
}

// notmuch compact puts another directory into the place of the one that is watched.
func TestADatabaseInThePlaceOfAnotherIsWatched(t *testing.T) {
	t.Parallel()
	l := newLocal(t)
	if err := os.Mkdir(l.db+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	l.rename(l.db, l.db+".old")
	l.rename(l.db+".new", l.db)
	l.await(l.tagged)
	l.await(l.synced)
	for range 2 {
		l.write(l.db + "/v4.tmp")
		l.rename(l.db+"/v4.tmp", l.db+"/iamglass")
		l.await(l.tagged)
		l.await(l.synced)
	}
}

// TestADatabaseThatIsMovedAwayIsSeen with the directory that it is in, while all else is quiet.
func TestADatabaseThatIsMovedAwayIsSeen(t *testing.T) {
	t.Parallel()
	l := newLocal(t)
	l.rename(filepath.Dir(l.db), filepath.Dir(l.db)+".away")
	l.await(l.tagged)
}
