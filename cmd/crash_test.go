package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// crashChild is the name under which the test binary syncs a world until it is
// killed after its n-th durable effect, some hours from now: crash-child DIR ADDR N HOURS.
const crashChild = "crash-child"

func runCrashChild() {
	dir, addr := os.Args[1], os.Args[2]
	at, err := strconv.ParseInt(os.Args[3], 10, 64)
	hours, errHours := strconv.Atoi(os.Args[4])
	if err = errors.Join(err, errHours); err == nil {
		err = crashSync(dir, addr, at, time.Now().Add(time.Duration(hours)*time.Hour))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func crashSync(dir, addr string, at int64, now time.Time) error {
	ctx := context.Background()
	w := &world{dir: dir, config: dir + "/notmuch-config", now: now}
	host, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	w.remote = remote.Options{Host: host, Port: n, TLS: "none", AllowPlaintext: true, User: "user", Timeout: time.Minute,
		Password: func(context.Context) (string, error) { return "pass", nil }}
	if user := os.Getenv("CRASH_USER"); user != "" {
		w.remote.User = user
		w.remote.Password = func(context.Context) (string, error) { return os.Getenv("CRASH_PASSWORD"), nil }
	}
	if os.Getenv("CRASH_POLICY") != "" {
		w.policy = simulatedPolicy
	}
	if w.index, err = index.Open(ctx, index.Options{Config: w.config}); err != nil {
		return err
	}
	l, err := ledger.Open(ctx, w.state())
	if err != nil {
		return err
	}
	var done atomic.Int64
	o := w.options(l)
	o.Emit = nil
	o.Batch = 7
	o.Step = func(string) {
		if done.Add(1) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}
	_, err = pipeline.Sync(ctx, o)
	return errors.Join(err, l.Close())
}

// killedAt runs the child and tells whether it was killed.
func killedAt(t *testing.T, w *world, addr string, at, hours int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Args = []string{crashChild, w.dir, addr, strconv.Itoa(at), strconv.Itoa(hours)}
	cmd.Env = append(os.Environ(), "CRASH_USER="+w.remote.User)
	if password, err := w.remote.Password(t.Context()); err == nil {
		cmd.Env = append(cmd.Env, "CRASH_PASSWORD="+password)
	}
	if w.policy != nil {
		cmd.Env = append(cmd.Env, "CRASH_POLICY=simulated")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signaled() {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return false
}

// left waits until a server has nobody left, and has done by then all that a client that was killed
// had sent: the next syncs need not wait for it by the clock. Where it may be at that, they do.
func (w *world) left(s *imaptest.DovecotServer, maybe bool) {
	w.t.Helper()
	if w.pause = nil; maybe {
		return
	}
	w.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(tooLong); time.Now().Before(end); <-tick.C {
		out, err := s.Doveadm("who", "-1")
		if err != nil {
			w.t.Fatalf("%v: %s", err, out)
		}
		if strings.Count(strings.TrimSpace(string(out)), "\n") == 0 {
			return // it is a head line alone
		}
	}
	w.t.Fatal("somebody is still connected")
}

// crashFloor is how many kill points there must be at least: fewer mean that
// effects were lost from the count.
const crashFloor = 40

// TestKilledWithRealNotmuch kills a first sync and an incremental one after each
// durable effect, with the real database behind them; `notmuch new` runs in
// between, as it may. The run that resumes must end in the same state.
func TestKilledWithRealNotmuch(t *testing.T) {
	t.Parallel()
	otherPrograms(t)
	const lanes = 4 // each has every fourth effect
	var points atomic.Int64
	t.Run("lanes", func(t *testing.T) {
		for lane := range lanes {
			t.Run(strconv.Itoa(lane), func(t *testing.T) {
				t.Parallel()
				points.Add(killedWithRealNotmuch(t, 1+lane, lanes*share.Pace()))
			})
		}
	})
	t.Logf("%d kill points", points.Load())
	if n := points.Load(); n*int64(share.Pace()) < crashFloor {
		t.Errorf("only %d kill points, want at least %d", n, crashFloor)
	}
}

// killedWithRealNotmuch kills after the effect of number from, and each so many further on, and
// gives how often it did.
func killedWithRealNotmuch(t *testing.T, from, step int) (points int64) {
	t.Helper()
	fault := imaptest.Faults()[0] // OK without data
	for at := from; ; at += step {
		var inbox []string
		for i := range imaptest.BadUID + 2 {
			inbox = append(inbox, faultMail(i+1))
		}
		s, err := imaptest.NewScript("IMAP4rev1 ENABLE CONDSTORE QRESYNC", &fault, imaptest.Box("INBOX", inbox...))
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, s.Addr(), "user", "pass")
		if err := os.MkdirAll(w.index.MailRoot()+"/work", 0o700); err != nil {
			t.Fatal(err)
		}
		killedFirst := killedAt(t, w, s.Addr(), at, 0)
		if killedFirst && at%2 == 0 {
			w.notmuch("new")
		}
		rep := w.sync()
		without := slices.Delete(slices.Clone(inbox), imaptest.BadUID-1, imaptest.BadUID)
		w.same(at, without, 1)
		if !killedFirst && rep.New+rep.NewStubs != 0 {
			t.Errorf("after a whole run: %+v", rep)
		}

		// And an incremental one: new, flags both ways, deletion, a stub that
		// heals.
		w.notmuch("tag", "+replied", "--", "id:f2@example.org", "or", "id:f4@example.org")
		fresh := faultMail(500)
		s.With(func(boxes []*imaptest.ScriptBox) {
			b := boxes[0]
			b.Add(fresh, `\Flagged`)
			b.ModSeq++
			b.Mails[3].Flags, b.Mails[3].ModSeq = `\Seen`, b.ModSeq
			b.Expunge(7)
		})
		s.Heal()
		w.now = time.Now().Add(time.Hour)
		killedSecond := killedAt(t, w, s.Addr(), at, 1)
		if killedSecond && at%2 == 0 {
			w.notmuch("new")
		}
		w.sync()
		want := append(slices.Delete(slices.Clone(inbox), 6, 7), fresh)
		w.same(at, want, 0)
		if n := w.notmuch("count", "tag:flagged"); n != "1" {
			t.Errorf("killed at %d: %s flagged", at, n)
		}
		if n := w.notmuch("count", "tag:replied"); n != "2" {
			t.Errorf("killed at %d: %s replied", at, n)
		}
		s.With(func(boxes []*imaptest.ScriptBox) {
			for i, flags := range map[int]string{1: `\Answered`, 3: `\Seen \Answered`} {
				if got := boxes[0].Mails[i].Flags; got != flags {
					t.Errorf("killed at %d: the server has %q for UID %d, want %q", at, got, boxes[0].Mails[i].UID, flags)
				}
			}
		})
		if again := w.sync(); again.New+again.Pushed+again.Flagged+again.Removed+again.NewStubs+again.Healed != 0 || !again.Clean() {
			t.Errorf("killed at %d: the run after finds work: %+v", at, again)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("killed at effect %d", at)
		}
		for _, k := range []bool{killedFirst, killedSecond} {
			if k {
				points++
			}
		}
		if !killedFirst && !killedSecond {
			return points
		}
	}
}

// TestKilledWhileItTellsADovecot kills a sync after each durable effect of flags,
// moves, deletions and uploads on a real server. The runs after it end with what
// the user did, each message once.
func TestKilledWhileItTellsADovecot(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string][]string{"everything": nil, "bare": {"QRESYNC", "CONDSTORE", "LIST-STATUS", "ESEARCH", "UIDPLUS", "MOVE"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			appendAll(t, s, "Archive", rawDovecot(1))
			appendAll(t, s, "Trash", rawDovecot(2))
			appendAll(t, s, "INBOX", rawDovecot(3))
			w := newWorld(t, s.Addr(), s.User, s.Password)
			archive, trash, inbox := []string{rawDovecot(1)}, []string{rawDovecot(2)}, []string{rawDovecot(3)}
			points, rounds := 0, 0
			for at := 1; ; at += share.Pace() {
				rounds++
				n := 10 * at
				var raws []string
				for i := range 5 {
					raws = append(raws, rawDovecot(n+i))
				}
				appendAll(t, s, "INBOX", raws[:4]...)
				w.sync()
				id := func(i int) string { return fmt.Sprintf("d%d@example.org", n+i) }
				w.mv(id(0), "Archive", true)
				w.mv(id(1), "Archive", false)
				w.rm(id(2))
				w.notmuch("tag", "+flagged", "--", "id:"+id(3))
				w.put("Archive", raws[4], "S")
				killed := killedAt(t, w, s.Addr(), at, 0)
				w.left(s, rounds%5 == 0)
				if killed && at%2 == 0 {
					w.notmuch("new")
				}
				w.sync()
				w.sync()
				w.notmuch("new")
				archive, trash, inbox = append(archive, raws[0], raws[1], raws[4]), append(trash, raws[2]), append(inbox, raws[3])
				for folder, want := range map[string][]string{"INBOX": inbox, "Archive": archive, "Trash": trash} {
					w.holds(folder, want)
					out, err := s.Command("STATUS " + folder + " (MESSAGES)")
					if err != nil {
						t.Fatal(err)
					}
					if want := fmt.Sprintf("(MESSAGES %d)", len(want)); !strings.Contains(strings.Join(out, " "), want) {
						t.Errorf("killed at %d: %s: %q, want %s", at, folder, out, want)
					}
				}
				if n := w.notmuch("count", "tag:flagged"); n != strconv.Itoa(rounds) {
					t.Errorf("killed at %d: %s flagged", at, n)
				}
				if rep := w.sync(); rep.New+rep.Pushed+rep.Flagged+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed != 0 || !rep.Clean() {
					t.Errorf("killed at %d: not quiet: %+v", at, rep)
				}
				if t.Failed() {
					t.Fatalf("killed at effect %d", at)
				}
				if !killed {
					break
				}
				points++
			}
			if points*share.Pace() < 15 {
				t.Errorf("only %d kill points", points)
			}
			t.Logf("%d kill points", points)
		})
	}
}

// same asserts the store's state after a resumed run: files, notmuch's view of
// them, tags.
func (w *world) same(at int, mails []string, stubs int) {
	w.t.Helper()
	w.holds("INBOX", mails)
	if _, found := w.mails("INBOX"); len(found) != stubs {
		w.t.Errorf("killed at %d: %d stubs, want %d", at, len(found), stubs)
	}
	for query, want := range map[string]int{"*": len(mails) + stubs, "tag:fetch-failed": stubs, "tag:inbox": len(mails) + stubs} {
		if got := w.notmuch("count", query); got != strconv.Itoa(want) {
			w.t.Errorf("killed at %d: notmuch count %s: %s, want %d", at, query, got, want)
		}
	}
	if got := w.notmuch("count", "--output=files", "*"); got != strconv.Itoa(len(mails)+stubs) {
		w.t.Errorf("killed at %d: notmuch knows %s files, want %d", at, got, len(mails)+stubs)
	}
	if w.t.Failed() {
		w.t.Fatalf("killed at effect %d", at)
	}
}
