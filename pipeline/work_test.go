package pipeline

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// watchdog is how long a run may take that ends at all, on the slowest machine.
const watchdog = 5 * time.Minute

// frail is the way to a server on which a connection is lost at the command of
// number at, and that is away then for some dials.
type frail struct {
	*server
	mu   sync.Mutex
	at   int
	away int // dials that are refused from then on; -1: all of them
	said int // commands so far
	lost bool
}

func (f *frail) dial(ctx context.Context) (Session, error) {
	f.mu.Lock()
	refused := f.lost && f.away != 0
	if refused && f.away > 0 {
		f.away--
	}
	f.mu.Unlock()
	if refused {
		// Refused, or cut before the greeting: both are of the account.
		kind := []mail.Kind{mail.KindDial, mail.KindCut}[f.at%2]
		return Session{}, &mail.Fault{Kind: kind, Op: "dial", Text: "connection refused"}
	}
	s, err := f.server.dial(ctx)
	if err != nil {
		return Session{}, err
	}
	c := &frailSession{session: s.Opener.(*session), frail: f}
	c.verbs = verbs{c.Exchange, c.Mailbox}
	return sessionOf(c, s.Greeting), nil
}

type frailSession struct {
	verbs
	*session
	frail *frail
}

// strike counts a command, and tells whether the connection is lost with it.
func (s *frailSession) strike(op string) error {
	f := s.frail
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said++; f.said != f.at {
		return nil
	}
	f.lost = true
	s.dead, s.name = true, ""
	return &mail.Fault{Kind: mail.KindCut, Op: op, Text: "the connection was lost"}
}

func (s *frailSession) List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error) {
	if err := s.strike("LIST"); err != nil {
		return nil, err
	}
	return s.session.List(ctx, how)
}

func (s *frailSession) Examine(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	if err := s.strike("EXAMINE"); err != nil {
		return nil, err
	}
	return s.session.Examine(ctx, name, known)
}

func (s *frailSession) Select(ctx context.Context, name string) (*mail.Selected, error) {
	if err := s.strike("SELECT"); err != nil {
		return nil, err
	}
	return s.session.Select(ctx, name)
}

func (s *frailSession) Flags(ctx context.Context, uids imap.UIDSet, since uint64) ([]mail.Message, error) {
	if err := s.strike("UID FETCH"); err != nil {
		return nil, err
	}
	return s.session.Flags(ctx, uids, since)
}

func (s *frailSession) Search(ctx context.Context, uids imap.UIDSet) (out imap.UIDSet, err error) {
	if err := s.strike("UID SEARCH"); err != nil {
		return nil, err
	}
	return s.session.Search(ctx, uids)
}

func (s *frailSession) Sizes(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	if err := s.strike("UID FETCH"); err != nil {
		return nil, err
	}
	return s.session.Sizes(ctx, uids)
}

func (s *frailSession) Identify(ctx context.Context, uids imap.UIDSet) ([]mail.Message, error) {
	if err := s.strike("UID FETCH"); err != nil {
		return nil, err
	}
	return s.session.Identify(ctx, uids)
}

func (s *frailSession) Fetch(ctx context.Context, uids imap.UIDSet, sink mail.Sink) error {
	if err := s.strike("UID FETCH"); err != nil {
		return err
	}
	return s.session.Fetch(ctx, uids, sink)
}

func (s *frailSession) FetchOne(ctx context.Context, uid imap.UID, sink mail.Sink) (*mail.Exchange, error) {
	if err := s.strike("UID FETCH"); err != nil {
		return &mail.Exchange{}, err
	}
	return s.session.FetchOne(ctx, uid, sink)
}

func (s *frailSession) Exchange(ctx context.Context, command string) (*mail.Exchange, error) {
	if err := s.strike(command); err != nil {
		return &mail.Exchange{}, err
	}
	return s.session.Exchange(ctx, command)
}

func (s *frailSession) Append(ctx context.Context, name string, uploads []mail.Upload, stored func(int, mail.Appended), then *mail.Known) ([]mail.Appended, error) {
	if err := s.strike("APPEND"); err != nil {
		return nil, err
	}
	return s.session.Append(ctx, name, uploads, stored, then)
}

// within runs a sync that must end, and gives its report.
func (h *home) within(t *testing.T, f *frail, change ...func(*Options)) *report.Report {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	var rep *report.Report
	var err error
	h.withLedger(f.server, func(o Options) {
		o.Dial, o.Batch = f.dial, 1000
		for _, c := range change {
			c(&o)
		}
		rep, err = Sync(ctx, o)
	})
	if ctx.Err() != nil {
		t.Fatalf("the run did not end within %v", time.Since(begun).Round(time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// lacking counts messages of the server that have neither file nor stub here.
func (h *home) lacking(s *server) (n int) {
	for name, b := range s.boxes {
		n += max(0, len(b.msgs)-len(h.files(name)))
	}
	return n
}

// A run always ends, wherever a connection is lost and however long the server is
// away then; what it did not do it says, and the next one does it.
func TestARunEndsWhereverAConnectionIsLost(t *testing.T) {
	share.Sweep(t)
	for connections := range 3 {
		for _, mailboxes := range []int{1, 3} {
			for _, poison := range []bool{false, true} {
				name := fmt.Sprintf("%d connections, %d mailboxes, poison %v", connections+1, mailboxes, poison)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					aways := []int{-1, 1, 0}
					if poison {
						aways = aways[:2] // it kills connections enough
					}
					for _, away := range aways {
						struck := true
						for at := 1; struck; at += pace() {
							struck = endsAt(t, connections+1, mailboxes, poison, away, at)
						}
					}
				})
			}
		}
	}
}

// endsAt plays one case of that. struck tells whether so many commands were said.
func endsAt(t *testing.T, connections, mailboxes int, poison bool, away, at int) (struck bool) {
	s, h := newServer("UIDPLUS", "MOVE", "CONDSTORE", "QRESYNC"), newHome(t)
	for i := range mailboxes {
		s.box([]string{"INBOX", "Archive", "Sent"}[i]).add(plainMail(i))
	}
	h.within(t, &frail{server: s})
	in := s.box("INBOX")
	for i := range 30 {
		in.add(plainMail(100 + i))
	}
	for i := range mailboxes - 1 {
		s.box([]string{"Archive", "Sent"}[i]).add(plainMail(200 + i))
	}
	var stubs []imap.UID
	if poison {
		newest := in.uids()[len(in.msgs)-1]
		in.msgs[newest].fault = &serverFault{death: true}
		stubs = append(stubs, newest)
	}
	h.put("INBOX", plainMail(300), "S")
	use := func(o *Options) { o.Connections = connections }
	f := &frail{server: s, at: at, away: away}
	rep := h.within(t, f, use)
	what := fmt.Sprintf("lost at command %d, away %d", at, away)
	if n := h.lacking(s); n > 0 && len(rep.Faults) == 0 {
		t.Errorf("%s: %d messages are missing, and nothing is said: %+v", what, n, rep)
	}
	h.within(t, &frail{server: s}, use)
	h.check(s, stubs...)
	if t.Failed() {
		t.Fatal(what)
	}
	return f.lost
}
