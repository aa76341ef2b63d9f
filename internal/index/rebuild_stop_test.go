package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// rebuildChild rebuilds where no file may have more bytes than size, if that is not 0, and
// kills itself behind a step.
func rebuildChild(ctx context.Context, x *Index, args []string) error {
	step := args[0]
	size, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	if size > 0 {
		signal.Ignore(unix.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: size}); err != nil {
			return err
		}
	}
	kill := func(at string) {
		if at == step {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	}
	_, err = x.Rebuild(ctx, RebuildOptions{Workers: 2, Worker: shardProcess, step: kill, Progress: func(int, int) { kill("indexing") }})
	return err
}

func (w *world) rebuildIn(step string, size int) (*os.ProcessState, string) {
	w.Helper()
	cmd := exec.Command(os.Args[0], w.config, step, strconv.Itoa(size))
	cmd.Env = append(cleanEnv(), childEnv+"=rebuild", "HOME="+w.dir)
	out, _ := cmd.CombinedOutput() // the state tells
	return cmd.ProcessState, string(out)
}

// left gives what is beside the database.
func (w *world) left() []string {
	w.Helper()
	entries, err := os.ReadDir(filepath.Dir(w.x.DatabasePath()))
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// A rebuild that is killed leaves the database that was there, or the whole new one, and the
// next one leaves nothing of it.
func TestAKilledRebuildLeavesAWholeDatabase(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	w := newWorld(t)
	w.generate(210, 8)
	w.notmuch("new", "--quiet")
	before := w.holds()
	kept := filepath.Join(filepath.Dir(w.x.DatabasePath()), keptName)
	w.write(filepath.Join(kept, stateName), "of the one kept before")
	state := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, stateName))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, step := range []string{"indexing", "made", "caught up", "ready", "locked", "beside", "swapped"} {
		older, inUse := state(kept), state(w.x.DatabasePath())
		ended, out := w.rebuildIn(step, 0)
		if ws, ok := ended.Sys().(syscall.WaitStatus); !ok || ws.Signal() != unix.SIGKILL {
			t.Fatalf("%s: it was not killed: %v: %s", step, ended, out)
		}
		if now := state(kept); now != older && now != inUse {
			t.Errorf("%s: what is kept is neither the database that was in use nor the one kept before", step)
		}
		w.equals(before)
		w.whole()
	}
	w.rebuild(2)
	w.equals(before)
	if got, want := fmt.Sprint(w.left()), "[xapian xapian.before]"; got != want {
		t.Errorf("beside the database there is %s, want %s", got, want)
	}
}

// On a full disk a rebuild fails, says so, and leaves the database that was there.
func TestARebuildOnAFullDiskLeavesTheDatabase(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	w := newWorld(t)
	w.generate(210, 9)
	w.notmuch("new", "--quiet")
	before := w.holds()
	failed := 0
	for size := 4 << 10; ; size += size / 2 {
		state, out := w.rebuildIn("", size)
		w.equals(before)
		if state.Success() {
			break
		}
		failed++
		if out == "" || strings.Contains(out, "goroutine") {
			t.Errorf("with %d bytes: %v: %s", size, state, out)
		}
	}
	if failed < 3 {
		t.Errorf("it failed %d times", failed)
	}
	w.whole()
}

// What other programs do meanwhile is in the new database, whenever they do it.
func TestWhatOthersWriteDuringARebuildStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "maildir.synchronize_flags=false")
	w.generate(300, 10)
	w.notmuch("new", "--quiet")
	w.notmuch("config", "set", "--database", "query.former", "tag:inbox")
	var files []string
	for _, query := range []string{"id:m3@example.org", "id:m4@example.org", "id:m200@example.org"} {
		files = append(files, strings.Split(w.notmuch("search", "--output=files", query), "\n")...)
	}
	others := map[string]func(){
		"made": func() {
			w.notmuch("tag", "+during", "--", "from:alpha")
			w.deliver("work/new/late", "late@example.org")
			w.rename(files[0], "home/cur/renamed:2,FS")
			if err := os.Remove(files[1]); err != nil {
				t.Error(err)
			}
			w.notmuch("new", "--quiet")
			w.notmuch("config", "set", "--database", "query.mine", "tag:during")
			w.notmuch("config", "set", "--database", "query.former")
		},
		"caught up": func() { w.notmuch("tag", "+between", "--", "from:gamma") },
		"ready": func() {
			if err := os.Remove(files[len(files)-1]); err != nil {
				t.Error(err)
			}
			w.notmuch("new", "--quiet")
		},
	}
	done := make(map[string]bool)
	var before string
	late := make(chan error, 1)
	r, err := w.x.Rebuild(t.Context(), RebuildOptions{Workers: 2, Worker: shardProcess, step: func(step string) {
		if f := others[step]; f != nil && !done[step] {
			done[step] = true
			f()
			before = w.holds()
		}
		if step == "locked" && len(done) == len(others) && !done[step] { // the swap
			done[step] = true
			go func() {
				cmd := exec.CommandContext(t.Context(), "notmuch", "tag", "+waited", "--", "from:delta")
				cmd.Env = append(cleanEnv(), "NOTMUCH_CONFIG="+w.config, "HOME="+w.dir)
				late <- cmd.Run()
			}()
			w.waited()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Threads != r.ThreadsBefore || r.Threads != len(w.threads()) {
		t.Errorf("%d threads are %d", r.ThreadsBefore, r.Threads)
	}
	if err := <-late; err != nil {
		t.Error(err)
	}
	w.count("tag:waited and not from:delta", 0)
	w.count("from:delta and not tag:waited", 0)
	w.notmuch("tag", "-waited", "--", "from:delta")
	w.equals(before)
	w.whole()
}

// waited waits until another program waits for the lock.
func (w *world) waited() {
	w.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(w.x.DatabasePath(), "flintlock"), &stat); err != nil {
		w.Fatal(err)
	}
	inode := fmt.Sprintf(":%d ", stat.Ino)
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			w.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "->") && strings.Contains(line, inode) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	w.Fatal("nobody waits for the lock")
}

// A mail reader renames files and tells notmuch nothing, before and during a rebuild. The next
// `notmuch new` sees that in the new database as it would in the old one.
func TestWhatAMailReaderRenamesDuringARebuildIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 40 {
		w.deliver(fmt.Sprintf("work/new/k%d", i), fmt.Sprintf("m%d@x", i))
	}
	copied := w.deliver("home/cur/copy:2,", "m7@x")
	w.notmuch("new", "--quiet")
	w.notmuch("tag", "+mine", "--", "id:m5@x", "id:m6@x", "id:m7@x")
	before := w.holds()
	moved := w.rename(filepath.Join(w.root, "work/new/k5"), "work/cur/k5:2,S")
	o := RebuildOptions{Workers: 2, Worker: shardProcess}
	var once sync.Once
	o.Progress = func(int, int) {
		once.Do(func() {
			w.rename(filepath.Join(w.root, "work/new/k6"), "work/cur/k6:2,FS")
			w.rename(filepath.Join(w.root, "work/new/k7"), "work/cur/k7:2,RS")
		})
	}
	done, err := w.x.Rebuild(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if done.Threads != 40 || done.ThreadsBefore != 40 {
		t.Errorf("%d threads, %d before", done.Threads, done.ThreadsBefore)
	}
	w.equals(before)
	w.notmuch("new", "--quiet")
	w.tags("m5@x", "inbox mine")
	w.tags("m6@x", "flagged inbox mine")
	w.tags("m7@x", "inbox mine replied")
	w.whole()

	// What is nowhere is for notmuch first.
	before = w.holds()
	for _, path := range []string{moved, copied} {
		away := filepath.Join(w.dir, "away")
		if err := os.Rename(path, away); err != nil {
			t.Fatal(err)
		}
		if _, err := w.x.Rebuild(t.Context(), o); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is gone, and %v", path, err)
		}
		o.step = func(step string) {
			if step == "made" {
				_ = os.Rename(path, away)
			}
		}
		if err := os.Rename(away, path); err != nil {
			t.Fatal(err)
		}
		if _, err := w.x.Rebuild(t.Context(), o); err != nil {
			t.Errorf("its mail is indexed already, and %v", err)
		}
		if err := os.Rename(away, path); err != nil {
			t.Fatal(err)
		}
	}
	w.equals(before)
}

// A program that never ends writing keeps a rebuild from its end, and nothing is changed.
func TestARebuildWaitsForNobodyForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.generate(20, 11)
	w.notmuch("new", "--quiet")
	n := 0
	_, err := w.x.Rebuild(t.Context(), RebuildOptions{Workers: 2, Worker: shardProcess, step: func(step string) {
		if step == "caught up" {
			if _, err := w.x.Rebuild(t.Context(), RebuildOptions{Workers: 2, Worker: shardProcess}); !errors.Is(err, ErrLocked) {
				t.Errorf("beside another rebuild: %v", err)
			}
			n++
			w.notmuch("tag", fmt.Sprintf("+n%d", n), "--", "*")
		}
	}})
	if !errors.Is(err, ErrLocked) || n != catchUps {
		t.Errorf("%d times, then %v", n, err)
	}
	if got := fmt.Sprint(w.left()); got != "[xapian]" {
		t.Errorf("beside the database there is %s", got)
	}
	w.count("tag:n1 and tag:n5", 20)
}

// A database whose directory nobody may write to makes none that nobody may remove.
func TestARebuiltDatabaseCanBeRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.generate(20, 13)
	w.notmuch("new", "--quiet")
	like := filepath.Join(w.dir, "like")
	w.write(filepath.Join(like, stateName), "")
	if err := os.Chmod(like, 0o555); err != nil { //nolint:gosec // as its owner did
		t.Fatal(err)
	}
	if err := likeFiles(w.x.DatabasePath(), like); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(w.x.DatabasePath())
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Error(err, info.Mode())
	}
}

// A process that is killed is said to be, and what one says of itself is said once.
func TestARebuildSaysWhyAProcessFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.generate(20, 14)
	w.notmuch("new", "--quiet")
	for script, want := range map[string]string{
		"kill -KILL $$": "a process that indexes was ended (signal: killed): memory may be short",
		"echo 'notmuch-imap: open mail: permission denied' >&2; exit 1": "open mail: permission denied",
	} {
		_, err := w.x.Rebuild(t.Context(), RebuildOptions{Workers: 2, Worker: func(ctx context.Context, _, _ string) *exec.Cmd {
			return exec.CommandContext(ctx, "sh", "-c", script)
		}})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", script, err)
		}
	}
}
