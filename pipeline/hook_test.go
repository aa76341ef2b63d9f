package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

type hookFunc = func(context.Context, *hooks.Event) (hooks.Verdict, error)

// hook is one at these points.
func hook(run hookFunc, points ...hooks.Point) hooks.Hook {
	return hooks.Hook{Name: "test", Doc: "a test", Points: points, Run: run}
}

// with gives a sync these hooks.
func with(list ...hooks.Hook) func(*Options) {
	return func(o *Options) {
		for i := range list {
			if i > 0 && list[i].Name == "test" {
				list[i].Name = fmt.Sprintf("test%d", i+1)
			}
		}
		r, err := hooks.NewRunner(list)
		if err != nil {
			panic(err)
		}
		o.Hooks = r
	}
}

func verdict(v hooks.Verdict) hookFunc {
	return func(context.Context, *hooks.Event) (hooks.Verdict, error) { return v, nil }
}

// of gives those of the events that are of a type, as lines.
func (h *home) of(kind report.EventType) []string {
	var out []string
	for _, e := range h.events {
		if e.Type == kind {
			out = append(out, e.Text)
		}
	}
	return out
}

func (h *home) row(uid imap.UID) ledger.Message {
	h.t.Helper()
	l, done := h.reading()
	defer done()
	row, _, err := l.Get(context.Background(), "INBOX", 14, uid)
	if err != nil {
		h.t.Fatal(err)
	}
	return row
}

func inbox(n int, caps ...string) *server {
	s := newServer(caps...)
	for i := range n {
		s.box("INBOX").add(rawMail(i))
	}
	return s
}

func TestHooksAreAskedAndToldAtEveryPoint(t *testing.T) {
	t.Parallel()
	for name, caps := range extensions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := inbox(3, caps...), newHome(t)
			s.box("INBOX").msgs[2].fault = &serverFault{}
			var mu sync.Mutex
			var got []string
			see := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
				mu.Lock()
				defer mu.Unlock()
				line := fmt.Sprintf("%s %s %d", e.Point, e.Mailbox, e.UID)
				if e.File != "" {
					raw, err := os.ReadFile(e.File)
					if err != nil {
						return hooks.Verdict{}, err
					}
					if e.Point != hooks.PostStub && string(raw) != strings.ReplaceAll(rawMail(int(e.UID)-1), "\r\n", "\n") {
						line += " with other bytes"
					}
				}
				switch e.Point {
				case hooks.PreFetch, hooks.PreWrite:
					line += " " + e.MessageID + " " + strings.Join(e.Tags, ",")
				case hooks.PostIndex, hooks.PostStub:
					line += " " + e.ID + " " + e.Reason
				case hooks.PrePush:
					line += fmt.Sprintf(" %s %v %v", e.ID, e.Set, e.Clear)
				case hooks.PostSync:
					line += fmt.Sprintf(" %d %d %d", e.New, e.Stubs, e.Pushed)
				}
				got = append(got, line)
				if e.Account != "work" || e.Version != 1 || e.Hook != "test" {
					t.Errorf("%+v", e)
				}
				if e.Point == hooks.PreFetch {
					return hooks.Verdict{Add: []string{"fetched"}, Remove: []string{"inbox"}}, nil
				}
				if e.Point == hooks.PreWrite {
					return hooks.Verdict{Add: []string{"written"}}, nil
				}
				return hooks.Verdict{}, nil
			}, hooks.Points()...)
			h.sync(s, with(see))
			stub := stub.NewKey("work", "INBOX", 14, 2).MessageID()
			want := []string{
				"pre-sync  0",
				"pre-fetch INBOX 1 m0@example.org inbox,unread", "pre-fetch INBOX 2 m1@example.org inbox,unread", "pre-fetch INBOX 3 m2@example.org inbox,unread",
				"pre-write INBOX 1 m0@example.org fetched,unread", "pre-write INBOX 3 m2@example.org fetched,unread",
				"post-index INBOX 1 m0@example.org ", "post-index INBOX 3 m2@example.org ",
				"post-stub INBOX 2 " + stub + " the server lists this message and says OK, but sends nothing of it",
				"post-sync  0 2 1 0",
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if tags := h.tags("m0@example.org"); !slices.Equal(tags, []string{"fetched", "unread", "written"}) {
				t.Errorf("tags %q", tags)
			}
			if tags := h.tags(stub); !slices.Equal(tags, []string{"fetch-failed", "fetched", "unread"}) {
				t.Errorf("tags of the stub %q", tags)
			}
			h.check(s, 2)
			got = nil
			h.flag("INBOX", 1, "S")
			h.sync(s, with(see))
			slices.Sort(got)
			if want := []string{"post-sync  0 0 0 1", `pre-push INBOX 1 m0@example.org [\Seen] []`, "pre-sync  0"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			got = nil
			h.sync(s, with(see), func(o *Options) { o.DryRun = true })
			if len(got) > 0 {
				t.Errorf("a dry run asked %q", got)
			}
		})
	}
}

func TestSkippedMessageIsNeitherForgottenNorTakenForDeleted(t *testing.T) {
	t.Parallel()
	for _, point := range []hooks.Point{hooks.PreFetch, hooks.PreWrite} {
		for name, caps := range extensions() {
			t.Run(string(point)+" "+name, func(t *testing.T) {
				t.Parallel()
				s, h := inbox(5, caps...), newHome(t)
				asked := 0
				skip := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
					asked++
					if e.UID%2 == 0 {
						return hooks.Verdict{Action: hooks.Skip, Reason: "even"}, nil
					}
					return hooks.Verdict{}, nil
				}, point)
				rep := h.sync(s, with(skip))
				if rep.New != 3 || rep.Skipped != 2 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				if notes := h.of(report.EventNote); len(notes) != 1 || notes[0] != "hook test said skip 2 times: even" {
					t.Errorf("told %q", notes)
				}
				if row := h.row(2); row.State != ledger.Skipped || row.Reason != "hook test: even" {
					t.Errorf("%+v", row)
				}
				// Nor is anything asked of it again, whatever happens to it.
				asked = 0
				s.box("INBOX").flag(2, `\Seen`)
				s.box("INBOX").flag(1, `\Seen`)
				for range 2 {
					if rep := h.sync(s, with(skip)); rep.New+rep.Removed+rep.Skipped != 0 || asked != 0 || !rep.Clean() {
						t.Errorf("asked %d times, %+v", asked, rep)
					}
				}
				h.givenUp = []imap.UID{2, 4}
				h.check(s)
				// Gone on the server, it is gone.
				s.box("INBOX").expunge(2)
				h.sync(s, with(skip))
				h.check(s)
				// All of it on demand, and one at its user's word.
				if rep := h.sync(s, with(skip), func(o *Options) { o.Full = true }); rep.Skipped != 1 || asked != 1 {
					t.Errorf("full: asked %d times, %+v", asked, rep)
				}
				if rep := h.sync(s, with(skip), func(o *Options) { o.Retry = []Target{{Mailbox: "INBOX", UIDValidity: 14, UID: 4}} }); rep.New != 1 {
					t.Errorf("retry: %+v", rep)
				}
				h.givenUp = nil
				h.check(s)
			})
		}
	}
}

func TestDeferredMessageComesWithALaterRun(t *testing.T) {
	t.Parallel()
	for _, point := range []hooks.Point{hooks.PreFetch, hooks.PreWrite} {
		for name, caps := range extensions() {
			t.Run(string(point)+" "+name, func(t *testing.T) {
				t.Parallel()
				s, h := inbox(30, caps...), newHome(t)
				ready := false
				later := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
					if !ready && e.UID > 10 {
						return hooks.Verdict{Action: hooks.Defer}, nil
					}
					return hooks.Verdict{}, nil
				}, point)
				for range 3 {
					if rep := h.sync(s, with(later)); rep.Deferred != 20 || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
					if notes := h.of(report.EventNote); len(notes) != 1 || notes[0] != "hook test said defer 20 times; the next sync asks again" {
						t.Errorf("told %q", notes)
					}
				}
				s.box("INBOX").expunge(15)
				s.box("INBOX").flag(16, `\Flagged`)
				ready = true
				if rep := h.sync(s, with(later)); rep.New != 19 || rep.Deferred != 0 {
					t.Errorf("%+v", rep)
				}
				h.sync(s, with(later))
				h.check(s)
			})
		}
	}
}

// What a hook has seen, and puts off, is not downloaded a second time, and has all its bytes when it
// comes. What lies beside the account's state for that goes when it is no more put off.
func TestDeferredMessageIsDownloadedOnce(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]hooks.Action{"passed": hooks.Pass, "skipped": hooks.Skip, "deleted": hooks.Defer, "damaged": hooks.Pass} {
		s, h := inbox(2), newHome(t)
		odd := s.box("INBOX").add(rawMail(7) + "two ends\r\r\nof lines\rand none")
		action := hooks.Defer
		later := hook(func(context.Context, *hooks.Event) (hooks.Verdict, error) { return hooks.Verdict{Action: action}, nil }, hooks.PreWrite)
		lies := func() []string {
			files, _ := filepath.Glob(filepath.Join(h.dir, "state", "deferred", "*"))
			return files
		}
		for range 3 {
			if rep := h.sync(s, with(later)); rep.Deferred != 3 || !rep.Clean() {
				t.Errorf("%s: %+v", name, rep)
			}
		}
		if s.fetched[odd] != 1 || s.fetched[1] != 1 || len(lies()) != 3 {
			t.Errorf("%s: fetched %v times, %q", name, s.fetched, lies())
		}
		switch action = end; name {
		case "deleted":
			s.box("INBOX").expunge(odd)
		case "damaged":
			for _, path := range lies() {
				if err := os.Truncate(path, 20); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.box("INBOX").flag(1, `\Flagged`)
		rep := h.sync(s, with(later))
		if want := map[string]int{"passed": 1, "damaged": 2}[name]; want > 0 {
			if h.check(s); rep.New != 3 || s.fetched[odd] != want || h.row(odd).WireSize != int64(len(s.box("INBOX").msgs[odd].raw)) {
				t.Errorf("%s: fetched %v times, %+v, %+v", name, s.fetched, h.row(odd), rep)
			}
		}
		if left := map[string]int{"deleted": 2}[name]; len(lies()) != left {
			t.Errorf("%s: %q are left", name, lies())
		}
	}
}

// Whatever hooks do, the mail comes, and one line says what they did.
func TestBadHooksCostNoMail(t *testing.T) {
	t.Parallel()
	bad := map[string]struct {
		run  hookFunc
		want string
	}{
		"crash": {func(context.Context, *hooks.Event) (hooks.Verdict, error) { panic("out of cheese") }, "it crashed: out of cheese at /"},
		"fail":  {func(context.Context, *hooks.Event) (hooks.Verdict, error) { return hooks.Verdict{}, errors.New("no") }, "failed 20 times: no;"},
		"hang": {func(ctx context.Context, _ *hooks.Event) (hooks.Verdict, error) {
			<-ctx.Done()
			return hooks.Verdict{}, ctx.Err()
		}, "no answer within 10ms"},
		"delete": {func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
			return hooks.Verdict{}, os.Remove(e.File)
		}, ""},
		"change": {func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
			return hooks.Verdict{}, os.WriteFile(e.File, []byte("Subject: cheap\n\n"), 0o600)
		}, ""},
		"delete all": {func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
			if !filepath.IsAbs(e.File) {
				return hooks.Verdict{}, errors.New("no file")
			}
			return hooks.Verdict{}, os.RemoveAll(filepath.Dir(e.File))
		}, ""},
		"nonsense": {verdict(hooks.Verdict{Action: "eat"}), `it answered "eat"`},
	}
	for name, tc := range bad {
		for _, point := range []hooks.Point{hooks.PreWrite, hooks.PostIndex} {
			t.Run(name+" "+string(point), func(t *testing.T) {
				t.Parallel()
				s, h := inbox(20, "CONDSTORE"), newHome(t)
				b := hook(tc.run, point)
				b.Timeout = time.Minute
				if name == "hang" {
					b.Timeout = 10 * time.Millisecond
				}
				rep := h.sync(s, with(b))
				if rep.New != 20 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				lines := h.of(report.EventHook)
				want := tc.want
				if name == "nonsense" && point == hooks.PostIndex {
					want = "" // nobody listens
				}
				if want == "" && len(lines) > 0 || want != "" && (len(lines) != 1 || !strings.Contains(lines[0], want)) {
					t.Errorf("told %q", lines)
				}
				h.check(s)
			})
		}
	}
}

func TestHookThatDefersForEverDoesNotKeepMailForEver(t *testing.T) {
	t.Parallel()
	s, h := inbox(3), newHome(t)
	never := hook(verdict(hooks.Verdict{Action: hooks.Defer}), hooks.PreWrite)
	if rep := h.sync(s, with(never)); rep.Deferred != 3 {
		t.Errorf("%+v", rep)
	}
	h.now = h.now.Add(ask.DeferMost - time.Minute)
	if rep := h.sync(s, with(never)); rep.Deferred != 3 || rep.New != 0 {
		t.Errorf("%+v", rep)
	}
	h.now = h.now.Add(time.Minute)
	if rep := h.sync(s, with(never)); rep.New != 3 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	if lines := h.of(report.EventHook); len(lines) != 1 || !strings.Contains(lines[0], "hook test failed 3 times: it defers for too long") {
		t.Errorf("told %q", lines)
	}
	h.check(s)
}

func TestRequiredHookThatFailsHoldsMailBack(t *testing.T) {
	t.Parallel()
	s, h := inbox(20), newHome(t)
	broken := true
	scan := hook(func(context.Context, *hooks.Event) (hooks.Verdict, error) {
		if broken {
			return hooks.Verdict{}, errors.New("no signatures")
		}
		return hooks.Verdict{}, nil
	}, hooks.PreWrite)
	scan.Required = true
	for range 2 {
		rep := h.sync(s, with(scan))
		if rep.New != 0 || rep.Deferred != 20 || len(rep.Faults) != 1 {
			t.Errorf("%+v", rep)
		}
		if want := "hook test failed 20 times: no signatures; it is required"; !strings.HasPrefix(rep.Faults[0].Text, want) {
			t.Errorf("told %q", rep.Faults[0].Text)
		}
		h.now = h.now.Add(2 * ask.DeferMost)
	}
	broken = false
	if rep := h.sync(s, with(scan)); rep.New != 20 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}

func TestHookMayKeepAnAccountFromBeingSynchronised(t *testing.T) {
	t.Parallel()
	s, h := inbox(3), newHome(t)
	rep := h.sync(s, with(hook(verdict(hooks.Verdict{Action: hooks.Skip, Reason: "on the train"}), hooks.PreSync, hooks.PostSync)))
	if notes := h.of(report.EventNote); s.dials != 0 || rep.Nothing() || len(notes) != 1 || notes[0] != "hook test said skip: on the train" {
		t.Errorf("%d dials, %+v, %q", s.dials, rep, notes)
	}
	rep = h.sync(s, with(hook(verdict(hooks.Verdict{Action: hooks.Defer, Reason: "on the train"}), hooks.PreSync)))
	if faults := h.of(report.EventFault); s.dials != 0 || !rep.Nothing() || len(faults) != 1 || len(h.of(report.EventNote)) != 0 ||
		faults[0] != "hook test puts this account off: on the train; nothing was done" {
		t.Errorf("%d dials, %+v, %q", s.dials, rep, faults)
	}
}

func TestHookMayKeepFlagsFromTheServer(t *testing.T) {
	t.Parallel()
	for name, caps := range extensions() {
		for _, action := range []hooks.Action{hooks.Skip, hooks.Defer} {
			t.Run(name+" "+string(action), func(t *testing.T) {
				t.Parallel()
				s, h := inbox(3, caps...), newHome(t)
				h.sync(s)
				h.flag("INBOX", 1, "S")
				h.flag("INBOX", 2, "F")
				for _, sub := range []string{"new", "cur"} { // a folder that changed just now is read again
					h.do(os.Chtimes(h.path("INBOX", sub), h.now, h.now))
				}
				asked := 0
				private := hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
					asked++
					if slices.Contains(e.Set, `\Flagged`) {
						return hooks.Verdict{Action: action, Add: []string{"private"}}, nil
					}
					return hooks.Verdict{}, nil
				}, hooks.PrePush)
				if rep := h.sync(s, with(private)); rep.Pushed != 1 || asked != 2 {
					t.Errorf("%d asked, %+v", asked, rep)
				}
				if f := s.box("INBOX").msgs[2].flags; len(f) > 0 || !plan.HasFlag(s.box("INBOX").msgs[1].flags, `\Seen`) {
					t.Errorf("the server has %q", f)
				}
				if tags := h.tags("m1@example.org"); !slices.Contains(tags, "private") {
					t.Errorf("tags %q", tags)
				}
				asked = 0
				h.sync(s, with(private))
				if again := map[hooks.Action]int{hooks.Skip: 0, hooks.Defer: 1}[action]; asked != again {
					t.Errorf("asked %d times again, want %d", asked, again)
				}
				if f := h.file("INBOX", 2); !strings.HasSuffix(f, ":2,F") {
					t.Errorf("the file is %s", f)
				}
			})
		}
	}
}

// lockedIndex says whether it is being written to.
type lockedIndex struct {
	Index
	busy chan struct{}
}

func (x lockedIndex) Apply(ctx context.Context, changes []mail.Change) ([]mail.Result, error) {
	x.busy <- struct{}{}
	defer func() { <-x.busy }()
	return x.Index.Apply(ctx, changes)
}

func TestHooksRunWhileNobodyWritesToNotmuch(t *testing.T) {
	t.Parallel()
	s, h := inbox(200), newHome(t)
	busy := make(chan struct{}, 1)
	look := hook(func(context.Context, *hooks.Event) (hooks.Verdict, error) {
		select {
		case busy <- struct{}{}:
			<-busy
			return hooks.Verdict{}, nil
		default:
			return hooks.Verdict{}, errors.New("the database is being written to")
		}
	}, hooks.PreFetch, hooks.PreWrite, hooks.PostIndex)
	h.sync(s, with(look), func(o *Options) { o.Index, o.Batch = lockedIndex{o.Index, busy}, 5 })
	if lines := h.of(report.EventHook); len(lines) > 0 {
		t.Errorf("told %q", lines)
	}
	h.check(s)
}

func TestNoHooksCostNothing(t *testing.T) {
	t.Parallel()
	r, err := hooks.NewRunner(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, h := inbox(3), newHome(t)
	h.sync(s)
	plain := slices.Clone(s.asked)
	s, h = inbox(3), newHome(t)
	h.sync(s, func(o *Options) { o.Hooks = r })
	if !slices.Equal(s.asked, plain) {
		t.Errorf("asked %q, want %q", s.asked, plain)
	}
}

// withCrashHooks skips two messages, one at each point, and tags the rest.
func withCrashHooks(o *Options) {
	with(hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
		v := hooks.Verdict{Add: []string{string(e.Point)}}
		switch {
		case e.Mailbox != "INBOX":
		case e.UID == 2 && e.Point == hooks.PreFetch, e.UID == 3 && e.Point == hooks.PreWrite:
			v.Action = hooks.Skip
		}
		return v, nil
	}, hooks.PreFetch, hooks.PreWrite))(o)
}

// A run that is interrupted gives its mails the tags of hooks all the same:
// they are nowhere but in notmuch.
func TestInterruptedRunGivesTagsOfHooks(t *testing.T) {
	t.Parallel()
	for _, effect := range []string{"intents recorded", "file in place", "batch indexed"} {
		s, h := inbox(4), newHome(t)
		func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			l, err := ledger.Open(ctx, filepath.Join(h.dir, "state"))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = l.Close() }()
			o := h.options(s, l)
			o.Step = func(e string) {
				if e == effect {
					cancel()
				}
			}
			withCrashHooks(&o)
			_ = os.MkdirAll(o.Root, 0o700)
			_, _ = Sync(ctx, o)
		}()
		h.sync(s, withCrashHooks)
		for _, id := range []string{"m0@example.org", "m3@example.org"} {
			if tags := h.tags(id); !slices.Contains(tags, "pre-fetch") || !slices.Contains(tags, "pre-write") {
				t.Errorf("interrupted at %q: %s has %q", effect, id, tags)
			}
		}
		h.givenUp = []imap.UID{2, 3}
		h.check(s)
	}
}

// A run that was killed may have left copies of mail.
func TestCopiesForHooksAreInTheAccountsDirectoryAndGoAway(t *testing.T) {
	t.Parallel()
	s, h := inbox(3), newHome(t)
	state := filepath.Join(h.dir, "state")
	left := filepath.Join(state, "hook-1", "mail-1")
	h.do(os.MkdirAll(filepath.Dir(left), 0o700))
	h.do(os.WriteFile(left, []byte("Subject: secret\n\n"), 0o600))
	var lent []string
	h.sync(s, with(hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
		lent = append(lent, e.File)
		if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			return hooks.Verdict{}, errors.New("what a killed run left is there still")
		}
		return hooks.Verdict{}, nil
	}, hooks.PreWrite)))
	if len(lent) != 3 || len(h.of(report.EventHook)) > 0 {
		t.Errorf("lent %q, said %q", lent, h.of(report.EventHook))
	}
	for _, f := range lent {
		if !strings.HasPrefix(f, state+"/"+ask.LentPrefix) {
			t.Errorf("%s is not in the account's directory", f)
		}
	}
	if dirs, err := filepath.Glob(filepath.Join(state, ask.LentPrefix+"*")); err != nil || len(dirs) > 0 {
		t.Errorf("left behind: %q, %v", dirs, err)
	}
}
