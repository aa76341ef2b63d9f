package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// limits are what a process may have little of: file descriptors beyond those that it
// has at the start (EMFILE), and bytes in a file, at which a write ends short (EFBIG).
func limits() map[string]struct{ from, to, step, floor int } {
	return map[string]struct{ from, to, step, floor int }{"files": {0, 12, 1, 4}, "bytes": {0, 150_000, 15_000, 5}}
}

// limitedChild is the process that has little of something. Its status is 0 for a
// success, and 1 for an error of this machine.
func limitedChild(dir, limit string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	kept := filepath.Join(dir, "server.json")
	s, err := loadServer(kept)
	if err != nil {
		return fail(err)
	}
	var what string
	var n int
	if _, err := fmt.Sscan(limit, &what, &n); err != nil {
		return fail(err)
	}
	// Go ends a process that cannot make its poller, and that has no more room in a file.
	r, w, err := os.Pipe()
	if err = errors.Join(err, r.Close(), w.Close()); err != nil {
		return fail(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	resource := unix.RLIMIT_FSIZE
	if what == "files" {
		resource = unix.RLIMIT_NOFILE
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return fail(err)
		}
		n += len(open) - 1 // it was one of them itself
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(resource, &before); err != nil {
		return fail(err)
	}
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: uint64(n), Max: before.Max}); err != nil {
		return fail(err)
	}
	rep, err := limitedSync(dir, s)
	if err := errors.Join(unix.Setrlimit(resource, &before), s.save(kept)); err != nil {
		return fail(err)
	}
	if err != nil || rep.Broken() {
		return 1
	}
	if !rep.Clean() {
		return fail(fmt.Errorf("%+v", rep))
	}
	return 0
}

func limitedSync(dir string, s *server) (rep *report.Report, err error) {
	l, err := ledger.Open(context.Background(), filepath.Join(dir, "state"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	h := &home{dir: dir, index: &notmuch{path: filepath.Join(dir, "index.json")}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	o := h.options(s, l)
	h.careful(&o)
	o.Emit = nil
	return Sync(context.Background(), o)
}

// limited runs a sync in a process of its own that has little of something. It gives
// the server as that left it.
func (h *home) limited(s *server, limit string) (_ *server, status int) {
	h.t.Helper()
	kept := filepath.Join(h.dir, "server.json")
	h.do(s.save(kept))
	h.do(os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIPELINE_CRASH_DIR="+h.dir, "PIPELINE_CRASH_LIMIT="+limit)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && (!ok || exit.ExitCode() != 1) {
		h.t.Fatalf("%v: %s", err, stderr.String())
	}
	s, err = loadServer(kept)
	h.do(err)
	return s, cmd.ProcessState.ExitCode()
}

// A run that has too few file descriptors, or no room in a file for all of a write,
// is no success, whatever it was about to open or write; and the next run ends where
// one without a limit ends.
func TestARunWithLittleOfSomething(t *testing.T) {
	share.Sweep(t)
	for what, l := range limits() {
		if testing.Short() { // its files and bytes are the same
			l.step, l.floor = 4*l.step, 1
		}
		for story, begin := range breakStories() {
			t.Run(what+"/"+story, func(t *testing.T) {
				t.Parallel()
				h, s := broken(t, begin)
				h.rest(s)
				want := h.all(s)
				points := 0
				for n := l.from; n <= l.to; n += l.step {
					h, s := broken(t, begin)
					limit := fmt.Sprintf("%s %d", what, n)
					s, status := h.limited(s, limit)
					if status == 0 && h.all(s) != want {
						t.Errorf("%s passes for success:\n%s\nis not\n%s", limit, h.all(s), want)
					}
					points += status
					h.rest(s)
					h.notmuchNew()
					h.check(s)
					if got := h.all(s); got != want {
						t.Errorf("after %s, status %d, the next run ends in\n%s\nnot in\n%s", limit, status, got, want)
					}
					h.do(os.RemoveAll(h.dir))
				}
				t.Logf("%d runs failed", points)
				if points < l.floor {
					t.Errorf("only %d runs failed, want %d", points, l.floor)
				}
			})
		}
	}
}
