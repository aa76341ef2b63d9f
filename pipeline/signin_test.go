package pipeline

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// door is a server that refuses the sign-in, and how an account signs in to it.
type door struct {
	*server
	refuses     bool
	way, secret string
}

func newDoor() *door {
	d := &door{server: newServer("UIDPLUS", "MOVE", "CONDSTORE"), refuses: true, way: "way", secret: "secret"}
	d.box("INBOX").add(plainMail(1))
	d.dialErr = func(int) error {
		if d.refuses {
			return &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Text: "invalid credentials"}
		}
		return nil
	}
	return d
}

// sync gives how many connections a run wanted, and its report.
func (d *door) sync(h *home, change ...func(*Options)) (int, *report.Report) {
	h.t.Helper()
	before := d.dials
	rep := h.sync(d.server, append([]func(*Options){func(o *Options) {
		o.SignIn = func(context.Context, string) (string, string) { return d.way, d.secret }
	}}, change...)...)
	return d.dials - before, rep
}

// refused asserts a run that ended with a refusal, in one line that has these words.
func (d *door) refused(h *home, dials int, words string) {
	h.t.Helper()
	n, rep := d.sync(h)
	faults := h.of(report.EventFault)
	if n != dials || !rep.Nothing() || len(faults) != 1 || !strings.Contains(faults[0], "invalid credentials") || !strings.Contains(faults[0], words) {
		h.t.Errorf("%v: %d connections, want %d; %q lacks %q", h.now, n, dials, faults, words)
	}
	if len(rep.Faults) != 1 || rep.Faults[0].Scope != report.ScopeAccount || !isAuth(rep.Faults[0].Err) {
		h.t.Errorf("faults: %+v", rep.Faults)
	}
}

func isAuth(err error) bool {
	f, ok := err.(*mail.Fault) //nolint:errorlint // it is that itself
	return ok && f.Kind == mail.KindAuth
}

// A refused sign-in is tried again ever less, at most every six hours, and until then no
// run connects, though each says that it was refused and when the next try is.
func TestARefusedSignInIsTriedEverLess(t *testing.T) {
	t.Parallel()
	d, h := newDoor(), newHome(t)
	for _, wait := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 360, 360, 360} {
		wait *= time.Minute
		next := moment(h.now.Add(wait), h.now)
		d.refused(h, 1, "is at "+next)
		d.refused(h, 0, "is at "+next)
		h.now = h.now.Add(wait - time.Second)
		d.refused(h, 0, "is at "+moment(h.now.Add(time.Second), h.now))
		h.now = h.now.Add(time.Second)
	}
	d.refuses = false
	if n, rep := d.sync(h); n == 0 || rep.New != 1 {
		t.Errorf("%d connections, %+v", n, rep)
	}
	d.refuses = true
	d.refused(h, 1, "is at "+moment(h.now.Add(5*time.Minute), h.now))
}

// What has changed is tried at once, and begins anew; what is not known waits.
func TestARefusedSignInIsTriedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *door)
		option func(o *Options)
		tried  bool
		wait   time.Duration
	}{
		"nothing changed":  {},
		"another secret":   {change: func(d *door) { d.secret = "other" }, tried: true, wait: 5 * time.Minute},
		"another way":      {change: func(d *door) { d.way = "other" }, tried: true, wait: 5 * time.Minute},
		"secret not known": {change: func(d *door) { d.secret = "" }},
		"at a terminal":    {option: func(o *Options) { o.Attended = true }, tried: true, wait: 20 * time.Minute},
		"dry run":          {option: func(o *Options) { o.DryRun = true }},
		"in full":          {option: func(o *Options) { o.Full = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, h := newDoor(), newHome(t)
			d.sync(h)
			h.now = h.now.Add(5 * time.Minute)
			d.sync(h)
			if c.change != nil {
				c.change(d)
			}
			option := func(*Options) {}
			if c.option != nil {
				option = c.option
			}
			n, rep := d.sync(h, option)
			if (n == 1) != c.tried || n > 1 || !rep.Nothing() {
				t.Errorf("%d connections, %+v", n, rep)
			}
			if want := "is at " + moment(h.now.Add(c.wait), h.now); c.tried && !strings.Contains(rep.Faults[0].Text, want) {
				t.Errorf("%q lacks %q", rep.Faults[0].Text, want)
			}
		})
	}
}

// A dry run remembers no refusal, and a secret that only a try tells counts from then on.
func TestARefusedSignInIsKnownByWhatWasTried(t *testing.T) {
	t.Parallel()
	d, h := newDoor(), newHome(t)
	h.sync(newServer()) // there is a ledger
	for range 2 {
		if n, rep := d.sync(h, func(o *Options) { o.DryRun = true }); n != 1 || strings.Contains(rep.Faults[0].Text, "next try") {
			t.Errorf("dry run: %d connections, %+v", n, rep)
		}
	}
	asked := func(secret string) func(*Options) {
		return func(o *Options) {
			dial := o.Dial
			d.secret = ""
			o.Dial = func(ctx context.Context) (Session, error) { d.secret = secret; return dial(ctx) }
		}
	}
	for i, c := range []struct {
		secret string
		wait   time.Duration
	}{{"one", 5}, {"one", 10}, {"two", 5}, {"two", 10}} {
		n, rep := d.sync(h, asked(c.secret))
		if want := "is at " + moment(h.now.Add(c.wait*time.Minute), h.now); n != 1 || !strings.Contains(rep.Faults[0].Text, want) {
			t.Errorf("%d: %d connections, %q lacks %q", i, n, rep.Faults[0].Text, want)
		}
		if n, _ := d.sync(h, asked("three")); n != 0 {
			t.Errorf("%d: %d connections", i, n)
		}
		h.now = h.now.Add(c.wait * time.Minute)
	}
}

// Status tells of refused sign-ins, and no more once one succeeded.
func TestStatusTellsOfRefusedSignIns(t *testing.T) {
	t.Parallel()
	d, h := newDoor(), newHome(t)
	d.sync(h)
	h.now = h.now.Add(time.Hour)
	d.sync(h)
	standing := func() (s *Status) {
		h.withLedger(d.server, func(o Options) {
			var err error
			if s, err = StatusOf(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		})
		return s
	}
	if s := standing(); s.Refusals != 2 || !s.NextSignIn.Equal(h.now.Add(10*time.Minute)) || !s.Waits() {
		t.Errorf("%+v", s)
	}
	d.refuses, h.now = false, h.now.Add(time.Hour)
	d.sync(h)
	if s := standing(); s.Refusals != 0 || !s.NextSignIn.IsZero() || s.Waits() {
		t.Errorf("%+v", s)
	}
}

// A connection limit leaves no account in silence: each run tries, and the first one that
// finds room is like any other, also without a terminal.
func TestAConnectionLimitIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, h := newDoor(), newHome(t)
		d.refuses = false
		full := &mail.Fault{Kind: mail.KindCrowded, Op: "sign-in", Text: "Maximum number of connections exceeded", Do: "end one of them"}
		d.dialErr = func(int) error { return full }
		for range 2 {
			if n, rep := d.sync(h); n != 5 || len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "end one of them; the next sync tries again") || strings.Contains(rep.Faults[0].Text, "left alone") {
				t.Errorf("%d connections, %+v", n, rep.Faults)
			}
			if said := h.of(report.EventNote); len(said) != 4 || !strings.HasSuffix(said[0], "trying again in 2s") {
				t.Errorf("said %q", said)
			}
		}
		d.dialErr = func(n int) error {
			if n%2 == 1 {
				return full
			}
			return nil
		}
		if n, rep := d.sync(h, func(o *Options) { o.Connections = 1 }); n != 2 || rep.New != 1 || !rep.Clean() {
			t.Errorf("%d connections, %+v", n, rep)
		}
	})
}

// A server is left alone for a day at most, whatever it asks for, and until when is told
// with its date where that is not today.
func TestALongPauseIsNotBelieved(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		5 * time.Minute:     5 * time.Minute,
		20 * time.Hour:      20 * time.Hour,
		11 * 24 * time.Hour: 24 * time.Hour,
	} {
		t.Run(asked.String(), func(t *testing.T) {
			t.Parallel()
			d, h := newDoor(), newHome(t)
			h.now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.Local)
			d.dialErr = func(int) error {
				return &mail.Fault{Kind: mail.KindThrottled, Op: "sign-in", Text: "throttled", RetryAfter: asked}
			}
			until := h.now.Add(want).Format("15:04:05")
			if want > 12*time.Hour {
				until = h.now.Add(want).Format("2006-01-02 15:04:05")
			}
			for range 2 {
				if _, rep := d.sync(h); !strings.Contains(rep.Faults[0].Text, "left alone until "+until) {
					t.Errorf("%q lacks %q", rep.Faults[0].Text, until)
				}
			}
			d.dialErr, h.now = nil, h.now.Add(want)
			if n, rep := d.sync(h); n == 0 || rep.New != 1 {
				t.Errorf("%d connections, %+v", n, rep)
			}
		})
	}
}

// A time in the ledger that no pause can end at, of an earlier version or of a clock that
// was wrong, keeps nothing waiting.
func TestATimeThatCannotBeIsOver(t *testing.T) {
	for key, text := range map[string]string{
		"not_before":      "2026-01-03T00:00:01Z",
		"sign-in refused": `{"attempts":9,"next_try":"2026-01-01T06:00:01Z","text":"refused","way":"way","secret":"secret"}`,
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			d, h := newDoor(), newHome(t)
			d.refuses = false
			h.withLedger(d.server, func(o Options) {
				if err := o.Ledger.SetMeta(t.Context(), key, text); err != nil {
					t.Fatal(err)
				}
			})
			if n, rep := d.sync(h); n == 0 || rep.New != 1 {
				t.Errorf("%d connections, %+v", n, rep)
			}
		})
	}
}

// What a server asked for that was reached in another way holds for that one alone.
func TestAnotherConfigurationEndsAPause(t *testing.T) {
	t.Parallel()
	d, h := newDoor(), newHome(t)
	d.dialErr = func(int) error {
		return &mail.Fault{Kind: mail.KindThrottled, Op: "sign-in", Text: "throttled", RetryAfter: time.Hour}
	}
	d.sync(h)
	d.dialErr = nil
	if n, rep := d.sync(h); n != 0 || !rep.Nothing() {
		t.Errorf("the same again: %d connections, %+v", n, rep)
	}
	d.way = "another way"
	h.withLedger(d.server, func(o Options) {
		o.SignIn = func(context.Context, string) (string, string) { return d.way, d.secret }
		if until, err := Paused(t.Context(), o); err != nil || !until.IsZero() {
			t.Errorf("it is paused until %v, %v", until, err)
		}
	})
	if n, rep := d.sync(h); n == 0 || rep.New != 1 {
		t.Errorf("by another way: %d connections, %+v", n, rep)
	}
}
