package pipeline

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// crashFloor is how many kill points the scenarios must have together: fewer
// mean that effects were lost from the count.
func crashFloor() int64 {
	if testing.Short() {
		return 20
	}
	return 150
}

// scenario is a state of the server, and how it became so: each act is followed
// by a sync. The last one is the one that is killed.
type scenario struct {
	name  string
	acts  []func(*server)
	stubs []imap.UID
	later time.Duration // how much time passes before the last sync
	// change alters the last sync, and every one that comes after it.
	change  func(*Options)
	givenUp []imap.UID
	// before alters the syncs before the last one.
	before       func(*Options)
	placeholders []imap.UID
}

func scenarios() []scenario {
	first := func(s *server) {
		for i := range 12 {
			s.box("INBOX").add(rawMail(i), [][]string{nil, {`\Seen`}}[i%2]...)
		}
		s.box("Archive").add(rawMail(100))
	}
	withBad := func(s *server) {
		first(s)
		s.box("INBOX").msgs[5].fault = &serverFault{}
	}
	return []scenario{
		{name: "first sync", acts: []func(*server){first}},
		{name: "first sync with a stub", acts: []func(*server){withBad}, stubs: []imap.UID{5}},
		{name: "changes", acts: []func(*server){first, func(s *server) {
			in := s.box("INBOX")
			in.add(rawMail(50))
			in.add(rawMail(51), `\Flagged`)
			in.flag(2, `\Seen`, `\Answered`)
			in.flag(3, `\Seen`)
			in.expunge(4)
			in.expunge(6)
		}}},
		{name: "healing", later: time.Hour, acts: []func(*server){withBad, func(s *server) { s.box("INBOX").msgs[5].fault = nil }}},
		{name: "moves", acts: []func(*server){first, func(s *server) {
			for _, u := range []imap.UID{1, 2, 3} {
				m := s.box("INBOX").expunge(u)
				s.box("Archive").msgs[s.box("Archive").add(m.raw, m.flags...)].date = m.date
			}
		}}},
		{name: "new UIDVALIDITY", acts: []func(*server){first, func(s *server) {
			old := s.boxes["INBOX"]
			delete(s.boxes, "INBOX")
			in := s.box("INBOX")
			in.validity, in.next, in.modseq = 99, 700, old.modseq
			for _, u := range old.uids() {
				in.msgs[in.add(old.msgs[u].raw, old.msgs[u].flags...)].date = old.msgs[u].date
			}
		}}},
		{name: "stub given up", acts: []func(*server){withBad, func(*server) {}}, givenUp: []imap.UID{5}, change: func(o *Options) {
			o.GiveUp = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 5}}
		}},
		{name: "asked again and failing", acts: []func(*server){withBad, func(*server) {}}, stubs: []imap.UID{5}, change: func(o *Options) {
			o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 5}}
		}},
		{name: "hooks", acts: []func(*server){withBad}, stubs: []imap.UID{5}, givenUp: []imap.UID{2, 3}, change: withCrashHooks},
		{name: "placeholders", acts: []func(*server){withBad}, stubs: []imap.UID{5}, placeholders: []imap.UID{2, 3}, change: withPlaceholders},
		{name: "placeholder asked for", acts: []func(*server){first, func(*server) {}}, placeholders: []imap.UID{3}, before: withPlaceholders, change: func(o *Options) {
			withPlaceholders(o)
			o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}}
		}},
		{name: "placeholder asked for and failing", acts: []func(*server){first, func(s *server) { s.box("INBOX").msgs[2].fault = &serverFault{} }},
			placeholders: []imap.UID{3}, stubs: []imap.UID{2}, before: withPlaceholders, change: func(o *Options) {
				withPlaceholders(o)
				o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}}
			}},
		{name: "placeholder given up", acts: []func(*server){first, func(*server) {}}, placeholders: []imap.UID{3}, givenUp: []imap.UID{2}, before: withPlaceholders, change: func(o *Options) {
			withPlaceholders(o)
			o.GiveUp = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}}
		}},
		{name: "asked again, and more of it comes", acts: []func(*server){withBad, func(s *server) {
			s.box("INBOX").msgs[5].fault = &serverFault{items: map[string]string{"BODY.PEEK[TEXT]": "only words\r\n"}}
		}}, stubs: []imap.UID{5}, change: func(o *Options) {
			o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 5}}
		}},
		{name: "stub goes", acts: []func(*server){withBad, func(s *server) { s.box("INBOX").expunge(5) }}},
	}
}

// prepare brings a home to just before the last sync of the scenario.
func (sc scenario) prepare(s *server, sync func()) {
	for i, act := range sc.acts {
		act(s)
		if i < len(sc.acts)-1 {
			sync()
		}
	}
}

// crashChild is the process that is killed: it rebuilds the scenario's server,
// which is deterministic, and does the last sync in the home that the parent
// prepared. It prints how many effects there were if it lives to the end.
func crashChild() int {
	dir := os.Getenv("PIPELINE_CRASH_DIR")
	if limit, ok := os.LookupEnv("PIPELINE_CRASH_LIMIT"); ok {
		return limitedChild(dir, limit)
	}
	at, err := strconv.ParseInt(os.Getenv("PIPELINE_CRASH_AT"), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if name, ok := os.LookupEnv("PIPELINE_CRASH_STORY"); ok {
		return storyChild(dir, name, at)
	}
	for _, sc := range scenarios() {
		if sc.name != os.Getenv("PIPELINE_CRASH_SCENARIO") {
			continue
		}
		s := newServer(extensions()[os.Getenv("PIPELINE_CRASH_CAPS")]...)
		sc.prepare(s, func() {})
		l, err := ledger.Open(context.Background(), filepath.Join(dir, "state"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		h := &home{dir: dir, index: &notmuch{path: filepath.Join(dir, "index.json")}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(sc.later)}
		var n atomic.Int64
		o := h.options(s, l)
		o.Emit = nil
		if sc.change != nil {
			sc.change(&o)
		}
		o.Step = func(string) {
			if n.Add(1) == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // the signal is on its way
			}
		}
		_, err = Sync(context.Background(), o)
		if err = errors.Join(err, l.Close()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		fmt.Println(n.Load())
		return 0
	}
	return 2
}

// runChild runs the killed process; effects is -1 if it was killed.
func runChild(t *testing.T, sc scenario, caps, dir string, at int) (effects int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIPELINE_CRASH_DIR="+dir, "PIPELINE_CRASH_SCENARIO="+sc.name, "PIPELINE_CRASH_CAPS="+caps, "PIPELINE_CRASH_AT="+strconv.Itoa(at))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signaled() {
		return -1
	}
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	line, _, _ := bufio.NewReader(bytes.NewReader(out)).ReadLine()
	n, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKillAtEveryEffect kills a sync after each of its durable effects, with
// SIGKILL, and again at the same effect of the run that resumes it; then one
// more run must bring the same store as an undisturbed one, with nothing lost
// and nothing doubled, and the run after that must find nothing to do.
func TestKillAtEveryEffect(t *testing.T) {
	share.Sweep(t)
	var points atomic.Int64
	t.Run("scenarios", func(t *testing.T) {
		for _, sc := range scenarios() {
			for _, caps := range []string{"bare", "QRESYNC"} {
				t.Run(sc.name+" "+caps, func(t *testing.T) {
					t.Parallel()
					for at := 1; ; at += pace() {
						s, h := newServer(extensions()[caps]...), newHome(t)
						h.givenUp, h.placeholders = sc.givenUp, sc.placeholders
						var change []func(*Options)
						if sc.change != nil {
							change = append(change, sc.change)
						}
						sc.prepare(s, func() {
							if sc.before != nil {
								h.sync(s, sc.before)
							} else {
								h.sync(s)
							}
						})
						h.now = h.now.Add(sc.later)
						if err := os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700); err != nil {
							t.Fatal(err)
						}
						if n := runChild(t, sc, caps, h.dir, at); n >= 0 {
							h.check(s, sc.stubs...)
							break
						}
						points.Add(1)
						runChild(t, sc, caps, h.dir, at)
						done := h.keep()
						h.sync(s, change...)
						h.check(s, sc.stubs...)
						if rep := h.sync(s, change...); rep.New+rep.Flagged+rep.Removed+rep.NewStubs+rep.Healed != 0 || !rep.Clean() {
							t.Errorf("killed at %d: the run after the next finds work: %+v", at, rep)
						}
						done()
						if t.Failed() {
							t.Fatalf("killed at effect %d", at)
						}
					}
				})
			}
		}
	})
	t.Logf("%d kill points", points.Load())
	if n := points.Load(); n < crashFloor() {
		t.Errorf("only %d kill points, want at least %d", n, crashFloor())
	}
}
