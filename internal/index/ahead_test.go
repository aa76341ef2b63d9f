package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// coming are the changes by which all files of a mail root come, at some of which tags are said.
func coming(root string) (out []mail.Change, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "/.notmuch/") {
			return err
		}
		c := mail.Change{Op: mail.OpAdd, Path: path, New: []string{"unread", "inbox"}}
		if len(out)%5 == 0 {
			c.Add, c.Remove = []string{"to do", "a%b"}, []string{"inbox"}
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

const first = 40 // that come before the others

func aheadOptions(step func(string)) RebuildOptions {
	return RebuildOptions{Workers: 2, Worker: shardProcess, least: 2, step: step}
}

// aheadsWorld is a world with messages that are its own.
type aheadsWorld struct {
	*world
	own int
}

// aheadWorld is one with mail of all kinds, of which the first is indexed.
func aheadWorld(t *testing.T) (*aheadsWorld, []mail.Change) {
	t.Helper()
	w := newWorld(t)
	w.generate(300, 21)
	w.realMail()
	w.write(filepath.Join(w.root, "no", "cur", "mail"), "not\na mail")
	changes, err := coming(w.root)
	if err != nil {
		t.Fatal(err)
	}
	w.apply(changes[:first]...)
	own, err := w.x.Count(t.Context(), "*")
	if err != nil {
		t.Fatal(err)
	}
	return &aheadsWorld{w, own}, changes[first:]
}

func (w *aheadsWorld) ahead(changes []mail.Change, o RebuildOptions) (bool, error) {
	w.Helper()
	return w.x.Ahead(context.Background(), changes, w.own, o)
}

// What several processes have indexed before Apply is told of it is what Apply would have made of
// it, term by term, and Apply gives the same results.
func TestWhatIsIndexedAheadIsWhatApplyMakes(t *testing.T) {
	t.Parallel()
	alone, changes := aheadWorld(t)
	want := alone.try(changes...)
	w, changes := aheadWorld(t)
	told := 0
	o := aheadOptions(nil)
	o.Progress = func(done, total int) {
		if told = done; total < done {
			t.Errorf("%d of %d", done, total)
		}
	}
	if renewed, err := w.ahead(changes, o); !renewed || err != nil {
		t.Fatal(renewed, err)
	}
	if told < 250 {
		t.Errorf("it told of %d messages", told)
	}
	if n, err := w.x.Count(t.Context(), "*"); err != nil || n < 250 {
		t.Error("not indexed before Apply:", n, err)
	}
	for i, got := range w.try(changes...) {
		if got.ID != want[i].ID || got.NotMail != want[i].NotMail || (got.Err != nil) != (want[i].Err != nil) {
			t.Errorf("%s: %+v, want %+v", changes[i].Path, got, want[i])
		}
	}
	w.equals(alone.holds())
	w.whole()
	if got := fmt.Sprint(w.left()); got != "[xapian]" {
		t.Errorf("beside the database there is %s", got)
	}
}

// Nothing is done ahead where a database has what others put there, and what they do
// meanwhile stays.
func TestOthersKeepWhatIsIndexedAheadFromTheirMail(t *testing.T) {
	t.Parallel()
	theirs := func(w *aheadsWorld) string {
		lines := strings.Split(w.notmuch("dump", "tag:theirs"), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	for name, c := range map[string]struct {
		before, meanwhile func(w *aheadsWorld)
		renewed           bool
		err               error
	}{
		"their mail was there": {before: func(w *aheadsWorld) {
			w.write(filepath.Join(w.root, "theirs", "cur", "1:2,"), mailText("theirs@x"))
			w.apply(mail.Change{Op: mail.OpAdd, Path: filepath.Join(w.root, "theirs", "cur", "1:2,")})
		}},
		"they index mail": {meanwhile: func(w *aheadsWorld) {
			w.write(filepath.Join(w.root, "theirs", "cur", "1:2,"), mailText("theirs@x"))
			w.notmuch("new", "--quiet")
		}, err: errOthersIndex},
		"they tag mail": {meanwhile: func(w *aheadsWorld) { w.notmuch("tag", "+theirs", "-unread", "--", "from:alpha or from:beta") }, renewed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, changes := aheadWorld(t)
			if c.before != nil {
				c.before(w)
			}
			held := ""
			renewed, err := w.ahead(changes, aheadOptions(func(step string) {
				if step == "made" && c.meanwhile != nil {
					c.meanwhile(w)
				}
				if step == "caught up" {
					held = theirs(w)
				}
			}))
			if renewed != c.renewed || !errors.Is(err, c.err) {
				t.Errorf("renewed %v, %v", renewed, err)
			}
			if c.renewed && (held == "" || theirs(w) != held) {
				t.Error("their tags are lost")
			}
			if c.before != nil || c.err != nil {
				w.count("id:theirs@x", 1)
			}
			w.try(changes...)
			w.whole()
		})
	}
}

// A mail reader may rename files while they are indexed ahead.
func TestWhatIsRenamedWhileItIsIndexedAhead(t *testing.T) {
	t.Parallel()
	w, changes := aheadWorld(t)
	var moved []string
	for _, c := range changes {
		if strings.Contains(c.Path, "/new/") && len(moved) < 5 {
			moved = append(moved, c.Path)
		}
	}
	o := aheadOptions(nil)
	worker, read := o.Worker, sync.OnceFunc(func() {
		for _, from := range moved {
			w.rename(from, strings.Replace(strings.TrimPrefix(from, w.root+"/"), "/new/", "/cur/", 1)+":2,S")
		}
	})
	o.Worker = func(ctx context.Context, dir, shard string) *exec.Cmd {
		read()
		return worker(ctx, dir, shard)
	}
	o.Workers = 1
	if renewed, _ := w.ahead(changes, o); renewed {
		t.Error("one process is no reason")
	}
	o.Workers = 2
	if renewed, err := w.ahead(changes, o); !renewed || err != nil {
		t.Fatal(renewed, err)
	}
	for i, r := range w.try(changes...) {
		if r.Err != nil {
			t.Errorf("%s: %v", changes[i].Path, r.Err)
		}
		if strings.Contains(changes[i].Path, "/new/") && strings.Contains(r.Path, "/cur/") && !slices.Contains(w.filesOf(r.ID), r.Path) {
			t.Errorf("%s is not known as %s", changes[i].Path, r.Path)
		}
	}
	w.whole()
}

func (w *world) filesOf(id string) []string {
	w.Helper()
	files, err := w.x.Files(context.Background(), id)
	if err != nil {
		w.Fatal(err)
	}
	return files
}

// aheadChild indexes ahead what comes behind the first, and kills itself behind a step.
func aheadChild(ctx context.Context, x *Index, args []string) error {
	changes, err := coming(x.MailRoot())
	if err != nil {
		return err
	}
	o := aheadOptions(func(at string) {
		if at == args[0] {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	})
	o.Progress = func(int, int) { o.step("indexing") }
	_, err = x.Ahead(ctx, changes[first:], first, o) // its messages are fewer
	return err
}

// Killed at any time, what is left is a whole database, with what was in it; Apply goes on from
// there, and takes away what is beside it.
func TestKilledWhileIndexingAhead(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	alone, changes := aheadWorld(t)
	alone.try(changes...)
	want := alone.holds()
	for _, step := range []string{"indexing", "made", "caught up", "ready", "locked", "swapped"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w, changes := aheadWorld(t)
			cmd := exec.Command(os.Args[0], w.config, step)
			cmd.Env = append(cleanEnv(), childEnv+"=ahead", "HOME="+w.dir)
			out, _ := cmd.CombinedOutput() // the state tells
			if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != unix.SIGKILL {
				t.Fatalf("it was not killed: %v: %s", cmd.ProcessState, out)
			}
			w.sound()
			next := w.open(Options{}) // as the next run does
			for part := range slices.Chunk(changes, 50) {
				if _, err := next.Apply(t.Context(), part); err != nil {
					t.Fatal(err)
				}
			}
			w.equals(want)
			w.whole()
			for ctx := waitFor(t); len(w.left()) > 1 && ctx.Err() == nil; { // its processes end soon
				if _, err := w.open(Options{}).Apply(ctx, changes[:1]); err != nil {
					t.Fatal(err)
				}
			}
			if got := fmt.Sprint(w.left()); got != "[xapian]" {
				t.Errorf("beside the database there is %s", got)
			}
		})
	}
}
