package watch

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.uber.org/goleak"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is what a fake account is on. All fields are read and written under mu.
type server struct {
	mu       sync.Mutex
	caps     []string
	boxes    map[string]mail.Status
	down     error // what Dial gives
	hang     bool  // Dial never answers
	deaf     bool  // IDLE tells nothing
	refuse   map[string]error
	overflow int  // so many times IDLE begins with too much to tell
	rotates  bool // what it has told of is told of once more only to who asks anew, as Dovecot does
	lines    []*fakeLine
	dials    []time.Time
	idles    int
	vague    bool // its news are without the status
	flags    bool // its news have what a change of flags has
}

// statuses are those of all mailboxes.
func (s *server) statuses() map[string]mail.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.boxes)
}

func (s *server) deliver(box string, came, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.boxes[box]
	st.Messages += uint32(came - left)
	st.UIDNext += imap.UID(came)
	st.HighestModSeq++
	s.boxes[box] = st
	for _, l := range s.lines {
		if !s.deaf && !l.stale && (l.box == "" || l.box == box) {
			l.stale = s.rotates
			n := mail.News{Mailbox: box, Status: st, Gone: left > 0}
			if s.vague {
				n.Status = mail.Status{}
			}
			if s.flags {
				n.Status = mail.Status{UIDValidity: st.UIDValidity, HighestModSeq: st.HighestModSeq}
			}
			l.news = append(l.news, n)
			signal(l.wake)
		}
	}
}

type fakeLine struct {
	s     *server
	box   string // selected; "" after NOTIFY
	news  []mail.News
	wake  chan struct{}
	dead  bool
	stale bool // it is told nothing more
}

func (s *server) dial(ctx context.Context) (Line, error) {
	s.mu.Lock()
	s.dials = append(s.dials, time.Now())
	down, hang := s.down, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if down != nil {
		return nil, down
	}
	l := &fakeLine{s: s, box: "-", wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, l)
	return l, nil
}

// cut ends all connections.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		l.dead = true
		signal(l.wake)
	}
	s.lines = nil
}

func (l *fakeLine) Has(c string) bool { return slices.Contains(l.s.caps, c) }

func (l *fakeLine) usable(op string) error {
	if l.dead {
		return &mail.Fault{Kind: mail.KindCut, Op: op}
	}
	return l.s.refuse[op]
}

func (l *fakeLine) List(context.Context, mail.Listing) (out []mail.Mailbox, err error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if err := l.usable("LIST"); err != nil {
		return nil, err
	}
	for name, st := range l.s.boxes {
		out = append(out, mail.Mailbox{Name: name, Status: &st})
	}
	return out, nil
}

func (l *fakeLine) Examine(_ context.Context, box string, _ *mail.Known) (*mail.Selected, error) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if err := l.usable("EXAMINE"); err != nil {
		return nil, err
	}
	l.box, l.news = box, nil
	return &mail.Selected{Status: l.s.boxes[box]}, nil
}

func (l *fakeLine) Notify(context.Context, func(mail.News)) error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if err := l.usable("NOTIFY"); err != nil {
		return err
	}
	l.box, l.stale = "", false
	return nil
}

func (l *fakeLine) Idle(ctx context.Context, end <-chan struct{}, tell func(mail.News)) error {
	l.s.mu.Lock()
	l.s.idles++
	l.stale = l.stale && l.box == "" // then it takes a NOTIFY
	if l.s.overflow > 0 && l.box == "" {
		l.s.overflow--
		l.news = append(l.news, mail.News{Gone: true, Over: true})
	}
	l.s.mu.Unlock()
	for {
		l.s.mu.Lock()
		err, news := l.usable("IDLE"), l.news
		l.news = nil
		l.s.mu.Unlock()
		if err != nil {
			return err
		}
		for _, n := range news {
			tell(n)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-l.wake:
		}
	}
}

func (l *fakeLine) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.s.lines = slices.DeleteFunc(l.s.lines, func(m *fakeLine) bool { return l == m })
	return nil
}

// ran is a sync that was run.
type ran struct {
	at   time.Duration // since the start
	only string        // mailboxes, with spaces; "*" for all
}

// scene is an account under watch in a bubble of time.
type scene struct {
	t      *testing.T
	server *server
	begun  time.Time
	w      *Watcher
	paused time.Time
	stop   func()

	mu      sync.Mutex
	syncs   []ran
	said    []string
	turn    Turn // of the last sync
	outcome func(only []string) Outcome
}

func (s *scene) sync(_ context.Context, only []string, turn Turn) Outcome {
	s.mu.Lock()
	r := ran{time.Since(s.begun), strings.Join(only, " ")}
	if only == nil {
		r.only = "*"
	}
	s.syncs = append(s.syncs, r)
	f := s.outcome
	s.turn = turn
	s.mu.Unlock()
	if f != nil {
		return f(only)
	}
	return Outcome{Did: true}
}

func (s *scene) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, text)
}

// comesTo sets what syncs come to from now on.
func (s *scene) comesTo(f func(only []string) Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcome = f
}

// lines gives what was said since it was called last.
func (s *scene) lines() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.said
	s.said = nil
	return out
}

// dialled gives how many connections were tried since it was called last.
func (s *scene) dialled() int {
	synctest.Wait()
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	n := len(s.server.dials)
	s.server.dials = nil
	return n
}

// goes takes the server away, or brings it back by nil.
func (s *scene) goes(down error) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.down = down
}

// take gives the syncs since it was called last.
func (s *scene) take() []ran {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.syncs
	s.syncs = nil
	return out
}

func (s *scene) names() (out []string) {
	for _, r := range s.take() {
		out = append(out, r.only)
	}
	return out
}

// atRest plays a story in a bubble of its own time, with a scene in which all was
// synchronised once.
func atRest(t *testing.T, caps string, story func(*testing.T, *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, caps)
		defer s.stop()
		s.take()
		story(t, s)
	})
}

// watched begins a scene and lets it come to rest.
func watched(t *testing.T, caps string, change ...func(*scene, *Account)) *scene {
	t.Helper()
	s := &scene{t: t, begun: time.Now(), server: &server{caps: strings.Fields(caps), refuse: map[string]error{}, boxes: map[string]mail.Status{
		"INBOX": {Messages: 10, UIDNext: 11, UIDValidity: 1}, "Archive": {Messages: 5, UIDNext: 6, UIDValidity: 1}}}}
	a := Account{
		Name: "work", Dial: s.server.dial, Sync: s.sync,
		Selects: func(box string) bool { return box != "Spam" },
		Paused:  func(context.Context) time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.paused },
		Tagged:  func(context.Context) bool { return false },
		Say:     s.say,
		Away:    func(err error) { s.say("away: " + err.Error()) },
		Back: func(_ string, again bool) {
			if again {
				s.say("back")
			}
		},
		Refused: func(_ context.Context, err error) { s.say("refused: " + err.Error()) },
	}
	for _, f := range change {
		f(s, &a)
	}
	s.w = New(Usual(), a)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.w.Run(ctx) }()
	s.stop = func() { cancel(); <-done }
	time.Sleep(10 * time.Second) // of the bubble
	return s
}

func TestNewsIsSyncedWithinASecond(t *testing.T) {
	t.Parallel()
	for caps, want := range map[string]string{"IDLE NOTIFY": "notify", "IDLE": "idle"} {
		synctest.Test(t, func(t *testing.T) {
			s := watched(t, caps)
			defer s.stop()
			if how := s.w.States()[0].How; how != want {
				t.Errorf("it is watched by %q, want %q", how, want)
			}
			if got := s.names(); !slices.Equal(got, []string{"*"}) {
				t.Errorf("the start is %v, want one look at all", got)
			}
			begun := time.Since(s.begun)
			s.server.deliver("INBOX", 1, 0)
			time.Sleep(500 * time.Millisecond)
			s.server.deliver("INBOX", 1, 0)
			time.Sleep(10 * time.Second)
			if got := s.take(); len(got) != 1 || got[0] != (ran{begun + 1300*time.Millisecond, "INBOX"}) {
				t.Errorf("%v, want one sync of INBOX 0.8 s after the last event", got)
			}
			// Mail that left may have been moved: all mailboxes.
			s.server.deliver("INBOX", 0, 1)
			time.Sleep(10 * time.Second)
			if got := s.names(); !slices.Equal(got, []string{"*"}) {
				t.Errorf("%v after mail left", got)
			}
		})
	}
}

// TestNewsWithoutEndIsSyncedOnTheWay: who gets mail and tags it without a pause waits for none of
// it as for the end, and where a sync takes long, syncs do not follow one another without a pause.
func TestNewsWithoutEndIsSyncedOnTheWay(t *testing.T) {
	t.Parallel()
	for took, each := range map[time.Duration]time.Duration{0: 2 * time.Second, time.Second: 4 * time.Second, 10 * time.Second: 30 * time.Second, time.Minute: time.Minute} {
		atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
			s.comesTo(func([]string) Outcome { time.Sleep(took); return Outcome{Did: true} })
			for range 600 {
				s.server.deliver("INBOX", 1, 0)
				s.server.deliver("Spam", 1, 0) // is not synchronised
				time.Sleep(300 * time.Millisecond)
				s.changed()
				time.Sleep(300 * time.Millisecond)
			}
			time.Sleep(2 * time.Minute)
			got := s.take()
			if len(got) < 3 {
				t.Fatalf("%v", got)
			}
			for i := range got[1 : len(got)-1] {
				if d := got[i+1].at - got[i].at; d < each-time.Second || d > each+time.Second {
					t.Errorf("of syncs that take %v one began %v after the other", took, d)
				}
			}
		})
	}
}

// TestLargeMailGivesWay: a sync that is at large mail is told when something else waits, and not
// for what it has written itself; what it left is synchronised after that.
func TestLargeMailGivesWay(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		var said []bool
		s.comesTo(func(only []string) Outcome {
			if only == nil {
				return Outcome{Did: true}
			}
			wait := func(d time.Duration) { time.Sleep(d); synctest.Wait(); said = append(said, s.turn.Awaited()) }
			s.turn.Wrote()
			s.changed() // a small mail
			wait(time.Second)
			time.Sleep(time.Minute)
			s.changed() // a tag
			wait(0)
			s.server.deliver("Archive", 1, 0)
			wait(time.Second)
			return Outcome{Did: true, More: true}
		})
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(5 * time.Minute)
		if got := s.names(); !slices.Equal(got, []string{"INBOX", "*"}) {
			t.Errorf("%v", got)
		}
		if !slices.Equal(said, []bool{false, true, true}) {
			t.Errorf("something else waits: %v", said)
		}
	})
}

func TestEachHourAllIsLookedAtAndElseThereIsRest(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		s.comesTo(func([]string) Outcome { return Outcome{} })
		time.Sleep(6 * time.Hour)
		if got := s.take(); len(got) != 6 {
			t.Errorf("%d syncs in six hours: %v", len(got), got)
		}
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		// Every nine minutes the connection is tried.
		if s.server.idles > 6*60/9+2 || s.server.idles < 6*60/9-2 || len(s.server.dials) != 1 {
			t.Errorf("%d IDLEs over %d connections", s.server.idles, len(s.server.dials))
		}
	})
}

func TestServersThatRefuse(t *testing.T) {
	t.Parallel()
	no := &mail.Fault{Kind: mail.KindNo, Text: "not for you"}
	for name, c := range map[string]struct {
		op   string
		want string
	}{"NOTIFY": {"NOTIFY", "idle"}, "IDLE": {"IDLE", "poll"}, "EXAMINE": {"EXAMINE", "notify"}} {
		synctest.Test(t, func(t *testing.T) {
			s := watched(t, "IDLE NOTIFY", func(s *scene, _ *Account) { s.server.refuse[c.op] = no })
			defer s.stop()
			if how := s.w.States()[0].How; how != c.want {
				t.Errorf("%s refused: %q, want %q", name, how, c.want)
			}
			s.take()
			s.server.deliver("Archive", 1, 0)
			time.Sleep(6 * time.Minute)
			if got := s.names(); len(got) != 1 || got[0] != "Archive" {
				t.Errorf("%s refused: %v, want Archive within five minutes", name, got)
			}
			if n := s.dialled(); n != 1 {
				t.Errorf("%s refused: %d connections", name, n)
			}
		})
	}
}

func TestOverflowIsAskedAgainOnce(t *testing.T) {
	t.Parallel()
	atRest(t, "IDLE NOTIFY", func(t *testing.T, s *scene) {
		s.server.mu.Lock()
		s.server.overflow = 1
		s.server.mu.Unlock()
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(20 * time.Minute)
		if how := s.w.States()[0].How; how != "notify" {
			t.Errorf("one overflow: %q", how)
		}
		if got := s.names(); !slices.Contains(got, "*") {
			t.Errorf("%v: no look at all", got)
		}
		s.server.mu.Lock()
		s.server.overflow = 5
		s.server.mu.Unlock()
		time.Sleep(20 * time.Minute)
		if how := s.w.States()[0].How; how != "idle" {
			t.Errorf("overflow after overflow: %q", how)
		}
	})
}

func TestIdleThatTellsNothingIsFoundOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE", func(s *scene, _ *Account) { s.server.deaf = true })
		defer s.stop()
		s.take()
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(5*time.Minute + 2*time.Second)
		if got := s.names(); !slices.Equal(got, []string{"*"}) {
			t.Errorf("%v within five minutes", got)
		}
		s.server.deliver("INBOX", 1, 0)
		time.Sleep(2*time.Minute + 2*time.Second)
		if got := s.names(); !slices.Equal(got, []string{"*"}) {
			t.Errorf("%v within two more", got)
		}
		if said := s.lines(); len(said) != 1 || !strings.Contains(said[0], "IDLE tells nothing of INBOX") {
			t.Errorf("said %q", said)
		}
	})
}

// TestNotifyThatTellsNothingIsFoundOut: a server may not hear of what others put beside it
// into the mailbox.
func TestNotifyThatTellsNothingIsFoundOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE NOTIFY", func(s *scene, _ *Account) { s.server.deaf = true })
		defer s.stop()
		s.take()
		for _, box := range []string{"INBOX", "Archive"} {
			s.server.deliver(box, 1, 0)
			time.Sleep(9*time.Minute + 2*time.Second)
			if got := s.names(); !slices.Equal(got, []string{box}) {
				t.Errorf("%v within nine minutes", got)
			}
		}
	})
}

// A provider that wants to be left alone for a while is not asked more often, in whatever
// way it is watched.
func TestAServerIsNotAskedBeforeItsPause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		caps  string
		pause time.Duration
		deaf  bool
	}{{"", 20 * time.Minute, false}, {"IDLE", 20 * time.Minute, false}, {"IDLE", 4 * time.Minute, true}} {
		synctest.Test(t, func(t *testing.T) {
			s := watched(t, c.caps, func(s *scene, a *Account) { a.Pause, s.server.deaf = c.pause, c.deaf })
			defer s.stop()
			s.take()
			box := "Archive"
			if c.deaf {
				s.server.deliver("INBOX", 1, 0) // by which it is found out
				time.Sleep(5*time.Minute + 2*time.Second)
				s.take()
				box = "INBOX"
			}
			s.server.deliver(box, 1, 0)
			time.Sleep(c.pause - 20*time.Second)
			if got := s.names(); len(got) != 0 {
				t.Errorf("%q, pause %v: %v before it", c.caps, c.pause, got)
			}
			time.Sleep(30 * time.Second)
			if got := s.names(); len(got) != 1 {
				t.Errorf("%q, pause %v: %v after it", c.caps, c.pause, got)
			}
		})
	}
}

func TestSeveralMailboxesHaveAnIdleEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := watched(t, "IDLE", func(_ *scene, a *Account) { a.Boxes = []string{"INBOX", "Archive"} })
		defer s.stop()
		s.take()
		s.server.deliver("Archive", 1, 0)
		time.Sleep(3 * time.Second)
		if got := s.names(); !slices.Equal(got, []string{"Archive"}) {
			t.Errorf("%v", got)
		}
		if n := s.dialled(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}
