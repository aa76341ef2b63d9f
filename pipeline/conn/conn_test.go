package conn

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Where there is no room for one more connection it is tried again within half a minute, ever
// less; who can do without one does not wait for it.
func TestRoomForAConnectionIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for room, want := range map[int]time.Duration{1: 0, 2: 2 * time.Second, 3: 6 * time.Second, 5: 30 * time.Second, 6: 30 * time.Second} {
			dials, told := 0, 0
			c := New(func(context.Context) (*session, error) {
				if dials++; dials < room {
					return nil, &mail.Fault{Kind: mail.KindCrowded}
				}
				return &session{}, nil
			}, nil).OnWait(func(error, time.Duration) { told++ })
			begun := time.Now()
			err := c.Connect(t.Context())
			if (err == nil) != (room < 6) || dials != min(room, 5) || told != dials-1 || time.Since(begun) != want {
				t.Errorf("room with dial %d: %v after %d dials and %v, %d waits told", room, err, dials, time.Since(begun), told)
			}
			c.Close()
			dials = 0
			if err := c.Try(t.Context()); (err == nil) != (room == 1) || dials != 1 || told != min(room, 5)-1 {
				t.Errorf("room with dial %d, without waiting: %v after %d dials", room, err, dials)
			}
		}
	})
}

// server counts what it is asked.
type server struct {
	dials, examines int
	uidValidity     uint64
	refuse          error // the next dial
}

func (s *server) dial(context.Context) (*session, error) {
	s.dials++
	if err := s.refuse; err != nil {
		s.refuse = nil
		return nil, err
	}
	return &session{server: s}, nil
}

type session struct {
	*server
	name         string
	dead, closed bool
}

func (s *session) Examine(_ context.Context, name string, _ *mail.Known) (*mail.Selected, error) {
	s.examines++
	s.name = name
	return &mail.Selected{Status: mail.Status{UIDValidity: s.uidValidity}}, nil
}

func (s *session) Select(_ context.Context, name string) (*mail.Selected, error) {
	s.name = name
	return &mail.Selected{}, nil
}

func (s *session) Mailbox() string { return s.name }
func (s *session) Alive() bool     { return !s.dead }
func (s *session) Close() error    { s.closed = true; return errors.New("hung up") }

// A mailbox is opened once for all that is fetched from it, and again only where it is not
// open any more.
func TestAMailboxIsOpenedOnce(t *testing.T) {
	s := &server{uidValidity: 7}
	c, ctx := New(s.dial, nil), t.Context()
	enter := func(mailbox string, dials, examines int) {
		t.Helper()
		if err := c.Enter(ctx, mailbox, 7); err != nil {
			t.Fatal(err)
		}
		if s.dials != dials || s.examines != examines || c.Examined() != mailbox {
			t.Errorf("%d dials and %d EXAMINEs, %q is open", s.dials, s.examines, c.Examined())
		}
	}
	enter("INBOX", 1, 1)
	enter("INBOX", 1, 1)
	enter("Sent", 1, 2)
	if _, err := c.Select(ctx, "Sent"); err != nil || c.Examined() != "" {
		t.Errorf("%v, and %q may be fetched from", err, c.Examined())
	}
	enter("Sent", 1, 3)
	c.Session().name = "INBOX" // somebody else had the session
	enter("Sent", 1, 4)
	old := c.Session()
	old.dead = true
	if !c.Lost() || c.Alive() {
		t.Error("a dead session counts as alive")
	}
	enter("Sent", 2, 5)
	if !old.closed {
		t.Error("the dead session was not closed")
	}
	c.Close()
	if c.Open() || c.Session() != nil || c.Examined() != "" {
		t.Error("something is left of a closed connection")
	}
}

// UIDs of another UIDVALIDITY are fetched from no mailbox, however often it is tried.
func TestAnotherUIDValidityIsAFault(t *testing.T) {
	s := &server{uidValidity: 7}
	c := New(s.dial, nil)
	for range 2 {
		if err := c.Enter(t.Context(), "INBOX", 6); err == nil || !strings.Contains(err.Error(), "from 6 to 7") {
			t.Errorf("entered: %v", err)
		}
	}
}

// A server that asks for a little time gets it; one that refuses is not asked again.
func TestAShortThrottleIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{refuse: &mail.Fault{Kind: mail.KindThrottled, RetryAfter: report.Patience}}
		c := New(s.dial, nil)
		begun := time.Now()
		if err := c.Connect(t.Context()); err != nil || s.dials != 2 || time.Since(begun) < report.Patience {
			t.Errorf("%v after %d dials and %v", err, s.dials, time.Since(begun))
		}
		c.Close()
		s.refuse = &mail.Fault{Kind: mail.KindAuth}
		err := c.Connect(t.Context())
		if _, ok := errors.AsType[*report.ConnectError](err); !ok || s.dials != 3 || c.Open() {
			t.Errorf("%v after %d dials", err, s.dials)
		}
	})
}
