package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// killFloor is how many runs TestKillWhileBothWays must kill. Fewer mean that
// effects were lost from the count.
func killFloor() int64 {
	if testing.Short() {
		return 5
	}
	return 1000
}

// story is some rows of the table in one account.
type story struct {
	name string
	rows []triple
}

// stories are each row by itself, and all that go together in one account.
func stories(t testing.TB) (out []story) {
	t.Helper()
	all := story{name: "all at once"}
	for _, tr := range readTriples(t) {
		out = append(out, story{tr.name, []triple{tr}})
		if len(tr.with) == 0 && !slices.ContainsFunc(tr.agreed, func(p placed) bool { return p.stub }) {
			all.rows = append(all.rows, tr)
		}
	}
	return append(out, all)
}

// options are those of the first row: rows with some stand by themselves.
func (st story) options(o *Options) { st.rows[0].options(o) }

// begin brings both sides to where the last run sets in.
func (st story) begin(s *server, h *home) {
	h.t.Helper()
	bystand(s)
	for _, tr := range st.rows {
		for _, p := range tr.agreed {
			tr.deliver(s, p)
		}
	}
	h.sync(s)
	for _, tr := range st.rows {
		s.box("INBOX").readOnly = tr.has("locked")
		tr.change(s, h)
	}
}

// saved is a server in a file, so that what it did outlives the process that
// asked for it.
type saved struct {
	Caps  []string
	Mute  bool
	Boxes map[string]savedBox
}

type savedBox struct {
	Validity uint64
	Next     imap.UID
	ModSeq   uint64
	Msgs     map[imap.UID]savedMail
	Gone     map[imap.UID]uint64
	ReadOnly bool
}

type savedMail struct {
	Raw    []byte
	Flags  []string
	Date   time.Time
	ModSeq uint64
	Bad    bool // it is listed, and not handed out
}

func (s *server) save(path string) error {
	out := saved{s.caps, s.mute, make(map[string]savedBox)}
	for name, b := range s.boxes {
		sb := savedBox{b.validity, b.next, b.modseq, make(map[imap.UID]savedMail), b.gone, b.readOnly}
		for u, m := range b.msgs {
			sb.Msgs[u] = savedMail{[]byte(m.raw), m.flags, m.date, m.modseq, m.fault != nil}
		}
		out.Boxes[name] = sb
	}
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func loadServer(path string) (*server, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var in saved
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, err
	}
	s := newServer(in.Caps...)
	s.mute = in.Mute
	for name, sb := range in.Boxes {
		b := &serverBox{validity: sb.Validity, next: sb.Next, modseq: sb.ModSeq, msgs: make(map[imap.UID]*serverMail), gone: sb.Gone, readOnly: sb.ReadOnly}
		for u, m := range sb.Msgs {
			b.msgs[u] = &serverMail{raw: string(m.Raw), flags: m.Flags, date: m.Date, modseq: m.ModSeq}
			if m.Bad {
				b.msgs[u].fault = &serverFault{}
			}
		}
		s.boxes[name] = b
	}
	return s, nil
}

// storyChild is the process that is killed, after the effect of number at: one
// here, that is durable, or one on the server, before its answer comes. It prints
// how many there were if it lives to the end.
func storyChild(dir, name string, at int64) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	kept := filepath.Join(dir, "server.json")
	s, err := loadServer(kept)
	if err != nil {
		return fail(err)
	}
	l, err := ledger.Open(context.Background(), filepath.Join(dir, "state"))
	if err != nil {
		return fail(err)
	}
	var n atomic.Int64
	effect := func(string) {
		if n.Add(1) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	}
	s.effect = func(verb string) {
		if err := s.save(kept); err != nil {
			os.Exit(fail(err))
		}
		effect(verb)
	}
	h := &home{dir: dir, index: &notmuch{path: filepath.Join(dir, "index.json")}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	o := h.options(s, l)
	o.Emit, o.Step = nil, effect
	all := stories(&testing.B{})
	all[slices.IndexFunc(all, func(st story) bool { return st.name == name })].options(&o)
	_, err = Sync(context.Background(), o)
	if err = errors.Join(err, l.Close()); err != nil {
		return fail(err)
	}
	fmt.Println(n.Load())
	return 0
}

// kill runs a sync that is killed after the effect of number at. It tells whether
// that came; then the server is as the killed run left it.
func (st story) kill(h *home, s *server, at int) (_ *server, killed bool) {
	h.t.Helper()
	kept := filepath.Join(h.dir, "server.json")
	h.do(s.save(kept))
	h.do(os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PIPELINE_CRASH_DIR="+h.dir, "PIPELINE_CRASH_STORY="+st.name, "PIPELINE_CRASH_AT="+strconv.Itoa(at))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	_, err := cmd.Output()
	exit, ok := errors.AsType[*exec.ExitError](err)
	killed = ok && exit.Sys().(syscall.WaitStatus).Signaled()
	if err != nil && !killed {
		h.t.Fatalf("%v: %s", err, stderr.String())
	}
	h.ended = !killed
	s, err = loadServer(kept)
	h.do(err)
	return s, killed
}

// TestKillWhileBothWays kills a sync, by SIGKILL, after its effects on
// either side, and every other time the one that goes on with it, too. The next
// brings the end that the table wants, and the ones after that have nothing to
// do: nothing is lost, and nothing there twice.
func TestKillWhileBothWays(t *testing.T) {
	share.Sweep(t)
	var points atomic.Int64
	t.Run("stories", func(t *testing.T) {
		for i, st := range stories(t) {
			for wire, caps := range wires() {
				// What others marked lets nothing be expunged without UIDPLUS. A row
				// by itself has one set of extensions, the next row the other.
				if len(st.rows) > 1 && wire == "bare" || len(st.rows) == 1 && wire != []string{"bare", "all"}[i%2] {
					continue
				}
				if spared(st.name) {
					continue
				}
				t.Run(strings.ReplaceAll(st.name, " ", "_")+"/"+wire, func(t *testing.T) {
					t.Parallel()
					// Of a row by itself every second effect is one, of half of them the first, and
					// of all at once each: the three sets of extensions share these.
					at, stride := 1+i/2%2, 2
					if len(st.rows) > 1 {
						at, stride = map[string]int{"UIDPLUS": 1, "MOVE": 2, "all": 3}[wire], 3
					}
					for killed := true; killed && !t.Failed(); at += stride * pace() {
						s, h := newServer(caps...), newHome(t)
						other := (at+at/2)%2 == 0 // also where only every second effect is one
						s.mute = other
						st.begin(s, h)
						if s, killed = st.kill(h, s, at); killed {
							points.Add(1)
							again := false
							if !other {
								if s, again = st.kill(h, s, at/2+1); again {
									points.Add(1)
								}
							}
						}
						done := h.keep()
						// Where one mail is wanted back, its mailbox is looked
						// at as a whole before the others go on.
						runs := min(2, len(st.rows))
						for _, tr := range st.rows {
							if runs = max(runs, tr.runs()); tr.has("restore") {
								runs = 2
							}
						}
						for range runs {
							h.sync(s, st.options)
						}
						for _, tr := range st.rows {
							tr.as("after the kill", s, h)
						}
						bystanders(s, h)
						if len(st.rows) == 1 {
							st.rows[0].settled(s, h)
						} else {
							h.quiet(s)
							h.notmuchNew()
							h.check(s)
						}
						done()
						if t.Failed() {
							t.Fatalf("killed at effect %d: %v", at, killed)
						}
						h.do(os.RemoveAll(h.dir))
					}
				})
			}
		}
	})
	if n := points.Load(); n < killFloor() {
		t.Fatalf("only %d runs were killed, want at least %d", n, killFloor())
	} else {
		t.Logf("%d runs were killed", n)
	}
}
