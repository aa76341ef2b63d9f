package watch

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// changed is what files says of the scene's account.
func (s *scene) changed() { s.w.accounts[0].changed(false) }

func TestWhatASyncWritesDoesNotWakeItForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY")
		defer s.stop()
		// A hook that writes with each sync.
		s.comesTo(func([]string) Outcome { s.changed(); return Outcome{} })
		s.take()
		s.changed()
		time.Sleep(time.Hour)
		if n := len(s.take()); n < 3 || n > 25 {
			t.Errorf("%d syncs in an hour of a hook that writes", n)
		}
		// What the user does is not held up by that.
		begun := time.Since(s.begun)
		s.changed()
		time.Sleep(2 * time.Second)
		if got := s.take(); len(got) == 0 || got[0].at > begun+time.Second {
			t.Errorf("%v after a change at %v", got, begun)
		}
	})
}

// What a sync wrote is no reason for another one where all is known to be as was agreed on. What is
// not sure, what somebody asks for, and the hourly look are not affected.
func TestWhatASyncWroteIsNotSyncedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		settled, asked := true, 0
		s := watched(t, "IDLE NOTIFY", func(_ *scene, a *Account) {
			a.Settled = func(context.Context) bool { asked++; return settled }
		})
		defer s.stop()
		s.take()
		s.comesTo(func([]string) Outcome { s.changed(); return Outcome{Did: true} })
		for range 5 {
			s.server.deliver("INBOX", 1, 0)
			time.Sleep(10 * time.Second)
		}
		if got := s.names(); len(got) != 5 || asked != 5 {
			t.Errorf("5 mails are %v, it was asked %d times", got, asked)
		}
		s.comesTo(nil)
		for name, c := range map[string]struct {
			do   func()
			want []string
		}{
			"the user's":  {func() { settled = false; s.changed() }, []string{"*"}},
			"nobody's":    {func() { s.changed() }, nil},
			"a folder":    {func() { s.ends(); s.w.accounts[0].changed(true) }, []string{"INBOX", "*"}},
			"beside news": {func() { s.ends(); s.changed(); s.server.deliver("INBOX", 1, 0) }, []string{"INBOX", "INBOX"}},
			"not settled": {func() { settled = false; s.ends(); s.changed() }, []string{"INBOX", "*"}},
			"beside a fault": {func() {
				s.comesTo(func([]string) Outcome { return Outcome{Text: "something was left"} })
				s.ends()
				s.changed()
			}, []string{"INBOX", "*"}},
			"hourly": {func() {
				for range 31 {
					s.ends()
					s.changed()
					time.Sleep(2 * time.Minute)
				}
				if got := s.names(); len(got) < 32 || !slices.Contains(got, "*") {
					t.Errorf("in an hour: %v", got)
				}
			}, nil},
		} {
			time.Sleep(time.Minute)
			s.take()
			c.do()
			time.Sleep(10 * time.Second)
			if got := s.names(); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v", name, got)
			}
			settled = true
			s.comesTo(nil)
		}
	})
}

// What the server tells of a sync's own doing is no reason for another one, also where that moved
// mail. What is not as it was agreed on, or is not told exactly, is one.
func TestWhatASyncDidThereIsNoNews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var agreed map[string]mail.Status // by who syncs
		s := watched(t, "IDLE NOTIFY", func(s *scene, a *Account) {
			a.Settled = func(context.Context) bool { return true }
			a.Agreed = func(_ context.Context, told map[string]mail.Status) (names []string) {
				for name, st := range told {
					if agreed[name] == st || st.UIDNext == 0 && agreed[name].HighestModSeq >= st.HighestModSeq {
						names = append(names, name)
					}
				}
				return names
			}
		})
		defer s.stop()
		agree := func() { agreed = s.server.statuses() }
		tells := func(vague, flags bool, left int) {
			s.server.vague, s.server.flags = vague, flags
			s.server.deliver("INBOX", 0, left)
		}
		for name, c := range map[string]struct {
			do   func([]string) Outcome // in a sync of INBOX, of which the server tells
			want []string
		}{
			"a flag": {func([]string) Outcome { s.server.deliver("INBOX", 0, 0); agree(); return Outcome{} }, nil},
			"a move": {func([]string) Outcome {
				s.server.deliver("INBOX", 0, 1)
				s.server.deliver("Archive", 1, 0)
				agree()
				return Outcome{}
			}, nil},
			"and files here": {func([]string) Outcome { s.changed(); s.server.deliver("INBOX", 0, 0); agree(); return Outcome{} }, nil},
			"others' flag":   {func([]string) Outcome { agree(); s.server.deliver("INBOX", 0, 0); return Outcome{} }, []string{"INBOX"}},
			"others' move":   {func([]string) Outcome { agree(); s.server.deliver("INBOX", 0, 1); return Outcome{} }, []string{"*"}},
			"others' mail besides": {func([]string) Outcome {
				s.server.deliver("INBOX", 0, 1)
				agree()
				s.server.deliver("Archive", 1, 0)
				return Outcome{}
			}, []string{"Archive"}},
			"not told exactly":            {func([]string) Outcome { tells(true, false, 0); agree(); return Outcome{} }, []string{"INBOX"}},
			"a flag alone":                {func([]string) Outcome { tells(false, true, 0); tells(false, true, 0); agree(); return Outcome{} }, nil},
			"others' flag alone":          {func([]string) Outcome { tells(false, true, 0); agree(); tells(false, true, 0); return Outcome{} }, []string{"INBOX"}},
			"a flag behind what is not":   {func([]string) Outcome { tells(true, false, 0); tells(false, true, 0); agree(); return Outcome{} }, []string{"INBOX"}},
			"a flag behind what is":       {func([]string) Outcome { tells(false, false, 0); tells(false, true, 0); agree(); return Outcome{} }, []string{"INBOX"}},
			"a flag before what is not":   {func([]string) Outcome { tells(false, true, 0); tells(true, false, 0); agree(); return Outcome{} }, []string{"INBOX"}},
			"a flag before what is":       {func([]string) Outcome { tells(false, true, 0); tells(false, false, 0); agree(); return Outcome{} }, nil},
			"a flag and mail that leaves": {func([]string) Outcome { tells(false, true, 1); agree(); return Outcome{} }, []string{"*"}},
			"after a fault": {func([]string) Outcome {
				s.server.deliver("INBOX", 0, 0)
				agree()
				return Outcome{Text: "something was left"}
			}, []string{"INBOX"}},
			"and a change of boxes": {func([]string) Outcome {
				s.server.deliver("INBOX", 0, 0)
				agree()
				s.w.accounts[0].look()
				return Outcome{}
			}, []string{"*"}},
		} {
			s.comesTo(nil)
			s.ends()
			time.Sleep(time.Minute)
			s.take()
			s.comesTo(func(only []string) Outcome { s.comesTo(nil); return c.do(only) })
			s.server.deliver("INBOX", 1, 0)
			time.Sleep(time.Minute)
			if got := s.names(); !slices.Equal(got, append([]string{"INBOX"}, c.want...)) {
				t.Errorf("%s: %v, want INBOX and %v", name, got, c.want)
			}
			s.server.vague, s.server.flags = false, false
		}
	})
}

// ends has a sync of INBOX begin and end.
func (s *scene) ends() {
	s.server.deliver("INBOX", 1, 0)
	time.Sleep(time.Second)
	synctest.Wait()
}

func TestWhatChangesDuringASyncIsSyncedAfterIt(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		once := true
		s.comesTo(func([]string) Outcome {
			if once {
				once = false
				time.Sleep(time.Minute)
				s.changed() // the user, or the sync itself
				return Outcome{Did: true}
			}
			return Outcome{}
		})
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(10 * time.Minute)
		if got := s.names(); !slices.Equal(got, []string{"INBOX", "*"}) {
			t.Errorf("%v", got)
		}
	})
}

func TestAnotherProgramAtWorkIsWaitedFor(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		free := time.Now().Add(time.Minute)
		s.comesTo(func([]string) Outcome { return Outcome{Busy: time.Now().Before(free), Did: true} })
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(5 * time.Minute)
		got := s.take()
		if n := len(got); n < 3 || n > 40 || got[n-1].only != "INBOX" || got[n-1].at > time.Minute+16*time.Second {
			t.Errorf("%v", got)
		}
	})
}

func TestAFailedSyncIsRunAgainEverLess(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		s.comesTo(func([]string) Outcome { return Outcome{Fail: true} })
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(time.Hour)
		got := s.take()
		if n := len(got); n < 12 || n > 40 || got[n-1].only != "*" {
			t.Errorf("%v", got)
		}
		s.comesTo(nil)
		time.Sleep(6 * time.Minute)
		if n := len(s.take()); n != 1 {
			t.Errorf("%d syncs once they succeed", n)
		}
	})
}

// TestAConnectionIsTriedWhenASyncCannotReachTheServer: the two go the same way.
func TestAConnectionIsTriedWhenASyncCannotReachTheServer(t *testing.T) {
	t.Parallel()
	for _, caps := range []string{"IDLE NOTIFY", "IDLE"} {
		atRest(t, caps, func(t *testing.T, s *scene) {
			s.comesTo(func([]string) Outcome { return Outcome{Fail: true, Unreached: true} })
			before := s.idles()
			s.changed()
			time.Sleep(5 * time.Second)
			if s.idles() == before {
				t.Errorf("%s: it is not tried", caps)
			}
			s.comesTo(nil)
			time.Sleep(time.Minute)
			if said := s.lines(); !slices.Equal(said, []string{"back"}) {
				t.Errorf("%s: that it is over is said so: %v", caps, said)
			}
		})
	}
}

// idles gives how often IDLE was begun.
func (s *scene) idles() int {
	synctest.Wait()
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	return s.server.idles
}

func TestARefusedSignInIsNotTriedAgainBeforeItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY", func(s *scene, _ *Account) {
			s.server.down = &mail.Fault{Kind: mail.KindAuth, Op: "sign-in"}
			s.outcome = func([]string) Outcome {
				// As the pipeline remembers it.
				s.mu.Lock()
				defer s.mu.Unlock()
				if !s.paused.After(time.Now()) {
					s.paused = time.Now().Add(6 * time.Hour)
				}
				return Outcome{Fail: true, Until: s.paused}
			}
		})
		defer s.stop()
		time.Sleep(24 * time.Hour)
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		if n := len(s.server.dials); n > 5 {
			t.Errorf("%d tries in a day: %v", n, s.server.dials)
		}
		if n := len(s.take()); n > 10 {
			t.Errorf("%d syncs", n)
		}
		if st := s.w.States()[0]; st.How != "" || st.Fault == "" {
			t.Errorf("%+v", st)
		}
	})
}

func TestWhoAsksHasItAtOnce(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		s.server.deliver("INBOX", 1, 0)
		synctest.Wait()
		begun := time.Since(s.begun)
		out, err := s.w.Sync(t.Context(), []string{"work", "other"})
		if _, other := out["other"]; err != nil || !out["work"].Did || other {
			t.Errorf("%v, %v", out, err)
		}
		time.Sleep(time.Minute)
		if got := s.take(); len(got) != 1 || got[0] != (ran{begun, "*"}) {
			t.Errorf("%v, want one sync at once, which has the news, too", got)
		}
	})
}

// TestWhoAsksForAnAccountThatIsAwayIsToldSo at once, and no sync is run that could but wait.
// What was lost a moment ago is tried.
func TestWhoAsksForAnAccountThatIsAwayIsToldSo(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		s.comesTo(func([]string) Outcome { time.Sleep(time.Hour); return Outcome{Fail: true} })
		s.goes(&mail.Fault{Kind: mail.KindDial, Op: "dial", Text: "no route"})
		s.server.cut()
		time.Sleep(time.Minute)
		s.take()
		begun := time.Now()
		out, err := s.w.Sync(t.Context(), nil)
		if o := out["work"]; err != nil || !o.Fail || !strings.Contains(o.Text, "not connected since ") || !strings.Contains(o.Text, "no route") || time.Since(begun) > 0 || len(s.take()) > 0 {
			t.Errorf("%+v after %v (%v)", o, time.Since(begun), err)
		}
		s.goes(nil)
		s.comesTo(nil)
		time.Sleep(2 * time.Hour)
		s.take()
		s.server.cut()
		synctest.Wait()
		if out, err := s.w.Sync(t.Context(), nil); err != nil || !out["work"].Did || len(s.take()) == 0 {
			t.Errorf("right after a connection was lost: %+v (%v)", out, err)
		}
	})
}

func TestWhoAsksIsAnsweredWhenTheWatchEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY")
		begun := make(chan struct{})
		release := make(chan struct{})
		s.comesTo(func([]string) Outcome { close(begun); <-release; return Outcome{} })
		s.server.deliver("INBOX", 1, 0)
		<-begun
		got := make(chan Outcome)
		go func() {
			out, _ := s.w.Sync(t.Context(), nil)
			got <- out["work"]
		}()
		synctest.Wait()
		go func() { synctest.Wait(); close(release) }()
		s.stop()
		if out := <-got; !out.Ended {
			t.Errorf("%+v", out)
		}
		// Another account may be at work for long until it is the end of all.
		if out, err := s.w.Sync(t.Context(), nil); err != nil || !out["work"].Ended {
			t.Errorf("%+v: %v", out, err)
		}
	})
}

func TestAServerThatNeverAnswersHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var servers []*server
		var accounts []Account
		synced := make([]int, 5)
		for i := range 5 {
			s := &server{caps: []string{"IDLE", "NOTIFY"}, boxes: map[string]mail.Status{"INBOX": {UIDNext: 1, UIDValidity: 1}}, hang: i == 2}
			servers = append(servers, s)
			accounts = append(accounts, Account{
				Name: fmt.Sprint(i), Dial: s.dial,
				Sync: func(ctx context.Context, _ []string, _ Turn) Outcome {
					if i == 2 {
						<-ctx.Done()
					}
					synced[i]++
					return Outcome{Did: true}
				},
				Paused: func(context.Context) time.Time { return time.Time{} },
				Tagged: func(context.Context) bool { return false },
				Say:    func(string) {},
				Back:   func(string, bool) {},
			})
		}
		w := New(Usual(), accounts...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		time.Sleep(5 * time.Second)
		for _, s := range servers {
			s.deliver("INBOX", 1, 0)
		}
		time.Sleep(2 * time.Second)
		cancel()
		<-done
		if !slices.Equal(synced, []int{2, 2, 1, 2, 2}) {
			t.Errorf("syncs: %v", synced)
		}
	})
}

// TestSoak is days of events: nothing is kept of them.
func TestSoak(t *testing.T) {
	t.Parallel()
	events := 20_000
	if testing.Short() {
		events = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY")
		defer s.stop()
		heap := func() uint64 {
			s.take()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		var before uint64
		syncs := 0
		for i := range events {
			switch i % 10 {
			case 3:
				s.changed()
			case 6:
				s.server.cut()
			case 9:
				s.w.Resumed()
				s.w.NetworkChanged()
			default:
				s.server.deliver([]string{"INBOX", "Archive"}[i%2], 1, i%2)
			}
			time.Sleep(time.Duration(i%7) * 700 * time.Millisecond)
			if i%100 == 0 {
				syncs += len(s.take())
			}
			if i == events/4 {
				before = heap()
			}
		}
		s.server.mu.Lock()
		s.server.dials = nil
		s.server.mu.Unlock()
		if after := heap(); after > before+4<<20 {
			t.Errorf("%d bytes in use after a quarter of the events, %d after all", before, after)
		}
		if syncs == 0 || syncs > events {
			t.Errorf("%d syncs", syncs)
		}
		time.Sleep(time.Minute)
		if n := runtime.NumGoroutine(); n > 200 {
			t.Errorf("%d goroutines", n)
		}
		if how := s.w.States()[0].How; how != "notify" {
			t.Errorf("it ends as %q", how)
		}
	})
}

// What forbade the sign-in may be over before its time: others signed in, or the password is
// another one. That is looked at now and then, without a sign-in.
func TestAPauseThatIsOverEarlyEndsTheWait(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		pause := func(until time.Time) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.paused = until
		}
		pause(time.Now().Add(time.Hour))
		s.dialled()
		s.take()
		s.server.cut()
		time.Sleep(10 * time.Minute)
		if st, n, syncs := s.w.States()[0], s.dialled(), s.names(); st.How != "" || n != 0 || len(syncs) != 0 {
			t.Errorf("while it is paused: %+v, %d connections, syncs %v", st, n, syncs)
		}
		pause(time.Time{})
		time.Sleep(15 * time.Second)
		if st, n := s.w.States()[0], s.dialled(); st.How == "" || n != 1 {
			t.Errorf("15 seconds after the pause is gone: %+v, %d connections", st, n)
		}
	})
}

// TestASignInByHandEndsThePauseOfSyncs: whose connection holds all the while.
func TestASignInByHandEndsThePauseOfSyncs(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		until := time.Now().Add(time.Hour)
		s.mu.Lock()
		s.paused = until
		s.mu.Unlock()
		s.comesTo(func([]string) Outcome { return Outcome{Fail: true, Until: until} })
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(5 * time.Minute)
		s.comesTo(nil)
		s.take()
		time.Sleep(5 * time.Minute)
		if got := s.take(); len(got) > 0 {
			t.Errorf("in the pause: %v", got)
		}
		s.mu.Lock()
		s.paused = time.Time{}
		s.mu.Unlock()
		time.Sleep(11 * time.Second)
		if got := s.names(); !slices.Equal(got, []string{"*"}) {
			t.Errorf("when it is over: %v", got)
		}
	})
}
