package watch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Servers log out after half an hour. That costs a look at the account each time, and is no
// news to anybody.
func TestAServerThatLogsOutEachHalfHourIsConnectedAgain(t *testing.T) {
	t.Parallel()
	for _, caps := range []string{"IDLE NOTIFY", "IDLE"} {
		atRest(t, caps, func(t *testing.T, s *scene) {
			s.lines()
			s.dialled()
			for range 48 {
				time.Sleep(30*time.Minute - 2*time.Second)
				s.server.cut()
				time.Sleep(2 * time.Second)
				if st := s.w.States()[0]; st.How == "" {
					t.Fatalf("two seconds after a log-out: %+v", st)
				}
			}
			if n := s.dialled(); n != 48 {
				t.Errorf("%s: %d connections in a day", caps, n)
			}
			if n := len(s.take()); n < 48 || n > 2*48 {
				t.Errorf("%s: %d syncs in a day", caps, n)
			}
			if slices.ContainsFunc(s.lines(), func(l string) bool { return !strings.HasSuffix(l, "; connecting again") }) {
				t.Errorf("%s: it is told as if it were a fault", caps)
			}
		})
	}
}

// Dovecot tells nothing at once any more from when it has begun a new log of a mailbox, unless
// it is asked anew. That is done after each sync that changed something, and not at rest.
func TestAServerThatTellsOnceIsAskedAnew(t *testing.T) {
	t.Parallel()
	for _, caps := range []string{"IDLE NOTIFY", "IDLE"} {
		atRest(t, caps, func(t *testing.T, s *scene) {
			s.server.mu.Lock()
			s.server.rotates = true
			s.server.mu.Unlock()
			for i := range 20 {
				s.server.deliver("INBOX", 1, 0)
				time.Sleep(4 * time.Second)
				if got := s.names(); !slices.Equal(got, []string{"INBOX"}) {
					t.Fatalf("%s: mail %d brings %v", caps, i, got)
				}
			}
			s.comesTo(func([]string) Outcome { return Outcome{} })
			s.dialled()
			s.server.mu.Lock()
			before := s.server.idles
			s.server.mu.Unlock()
			for range 20 {
				s.server.deliver("INBOX", 0, 0) // that changes nothing
				time.Sleep(4 * time.Second)
			}
			s.server.mu.Lock()
			defer s.server.mu.Unlock()
			if n := s.server.idles - before; n > 1 || len(s.server.dials) > 0 {
				t.Errorf("%s: it is asked anew %d times, over %d connections, though nothing came", caps, n, len(s.server.dials))
			}
		})
	}
}

// A server that ends each connection right after the sign-in is left alone ever longer, and
// that is said once.
func TestAServerThatLogsOutAtOnceIsAskedEverLess(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		s.lines()
		s.dialled()
		s.server.mu.Lock()
		s.server.refuse["IDLE"] = &mail.Fault{Kind: mail.KindBye, Op: "IDLE", Text: "* BYE Logging out"}
		s.server.mu.Unlock()
		s.server.cut()
		time.Sleep(24 * time.Hour)
		if n := s.dialled(); n > 24*60/5*5/3 || n < 24*60/5/2 {
			t.Errorf("%d connections in a day", n)
		}
		if said := s.lines(); len(said) != 2 || !strings.HasPrefix(said[1], "away: IDLE: ") {
			t.Errorf("said %q", said)
		}
	})
}

// At the start a refused sign-in is tried by one connection: the sync hears of it first.
func TestASignInIsRefusedOnceAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY", func(s *scene, a *Account) {
			s.server.down = &mail.Fault{Kind: mail.KindAuth, Op: "sign-in"}
			a.Refused = func(_ context.Context, err error) {
				s.say("refused: " + err.Error())
				s.mu.Lock()
				defer s.mu.Unlock()
				s.paused = time.Now().Add(5 * time.Minute)
			}
			a.Back = func(string, bool) { s.say("there") }
			s.outcome = func([]string) Outcome {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.paused.IsZero() {
					s.said = append(s.said, "the sync signs in, too")
				}
				return Outcome{Fail: true, Until: s.paused}
			}
		})
		defer s.stop()
		time.Sleep(4 * time.Minute)
		defer func() {
			s.goes(nil)
			s.comesTo(nil)
			time.Sleep(2 * time.Minute)
			if said := s.lines(); !slices.Equal(said, []string{"there"}) {
				t.Errorf("said when it is accepted: %q", said)
			}
		}()
		if said, n := s.lines(), s.dialled(); len(said) != 1 || !strings.HasPrefix(said[0], "refused: ") || n != 1 {
			t.Errorf("%d connections; said %q", n, said)
		}
	})
}

func TestAConnectionThatEndsIsMadeAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY")
		defer s.stop()
		time.Sleep(time.Hour)
		s.take()
		s.server.cut()
		time.Sleep(4 * time.Second)
		if got := s.names(); !slices.Equal(got, []string{"*"}) || s.w.States()[0].How != "notify" {
			t.Errorf("%v after a cut", got)
		}
		time.Sleep(10 * time.Second)
		if said := s.lines(); len(said) != 1 || !strings.HasSuffix(said[0], "; connecting again") {
			t.Errorf("said of a matter of a moment: %q", said)
		}
		s.dialled()
		s.goes(&mail.Fault{Kind: mail.KindDial, Op: "dial"})
		s.server.cut()
		time.Sleep(24 * time.Hour)
		if n := s.dialled(); n > 24*60/5*5/3 || n < 24*60/5/2 {
			t.Errorf("%d tries in a day without the server", n)
		}
		if said := s.lines(); len(said) != 2 || !strings.HasPrefix(said[1], "away: cannot connect") {
			t.Errorf("said that it is away: %q", said)
		}
		// The network comes back.
		s.goes(nil)
		s.take()
		s.w.NetworkChanged()
		time.Sleep(2 * time.Second)
		if got := s.names(); !slices.Equal(got, []string{"*"}) || s.w.States()[0].How != "notify" {
			t.Errorf("two seconds after the network was there: %v, %q", got, s.w.States()[0].How)
		}
		time.Sleep(10 * time.Second)
		if said := s.lines(); !slices.Equal(said, []string{"back"}) {
			t.Errorf("said that it is there again: %q", said)
		}
	})
}

func TestAfterATimeAsleepAllIsAnew(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		// No network at first.
		s.goes(&mail.Fault{Kind: mail.KindDial, Op: "dial", Err: errors.New("no such host")})
		s.w.Resumed()
		time.Sleep(20 * time.Second)
		s.goes(nil)
		time.Sleep(2 * time.Second)
		if how := s.w.States()[0].How; how != "notify" {
			t.Errorf("two seconds after the network is there: %q", how)
		}
		time.Sleep(2 * time.Second)
		if got := s.names(); !slices.Contains(got, "*") {
			t.Errorf("%v", got)
		}
	})
}
