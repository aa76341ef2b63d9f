package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Where nothing came, uploads take two round trips after the list: APPEND, and the
// look that tells in one answer what is new and what it is.
func TestUploadsAloneTakeTwoRoundTrips(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE", "QRESYNC"), newHome(t)
	in, other := s.box("INBOX"), s.box("lists")
	in.add(plainMail(0))
	h.sync(s)
	h.sync(s)
	for _, c := range []struct {
		came *serverBox
		want []string
	}{
		{nil, []string{"LIST", "APPEND INBOX 2", "EXAMINE INBOX"}},
		// It may be what an interrupted run has uploaded.
		{in, []string{"LIST", "EXAMINE INBOX", "IDENTIFY", "APPEND INBOX 2", "EXAMINE INBOX", "FETCH"}},
		{other, []string{"LIST", "APPEND INBOX 2", "EXAMINE INBOX", "EXAMINE lists", "FETCH"}},
		{nil, []string{"LIST", "APPEND INBOX 2", "EXAMINE INBOX"}},
	} {
		n := len(in.msgs)
		h.put("INBOX", plainMail(100+n), "S")
		h.put("INBOX", plainMail(200+n), "")
		if c.came != nil {
			c.came.add(plainMail(300 + n))
		}
		if rep := h.sync(s); rep.Uploaded != 2 || !rep.Clean() {
			t.Fatalf("%+v", rep)
		}
		asked := slices.Clone(s.asked)
		if i := slices.Index(asked, "EXAMINE INBOX"); c.came == other && i > 2 {
			// Each mailbox is looked at by a connection of its own, and either may be the first.
			asked = slices.Insert(slices.Delete(asked, i, i+1), 2, "EXAMINE INBOX")
		}
		if !slices.Equal(asked, c.want) {
			t.Errorf("asked %q, want %q", s.asked, c.want)
		}
		h.check(s)
		h.quiet(s)
	}
}

// A server whose STATUS is of a moment ago gets no mail twice, though the run before
// was cut off when the server had it.
func TestAStatusOfBeforeMakesNoMailTwice(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(0))
	h.sync(s)
	before := mail.Status{Messages: 1, UIDNext: in.next, UIDValidity: in.validity, HighestModSeq: in.modseq}
	h.put("INBOX", plainMail(1), "S")
	h.put("INBOX", plainMail(2), "S")
	s.cutAt = s.writes + 1
	dials := s.dials
	s.dialErr = func(n int) error {
		if n > dials+1 {
			return &mail.Fault{Kind: mail.KindDial, Op: "dial"}
		}
		return nil
	}
	if rep := h.sync(s); rep.Clean() || len(in.msgs) != 2 {
		t.Fatalf("%+v, %d mails", rep, len(in.msgs))
	}
	s.dialErr, s.lag = nil, map[string]mail.Status{"INBOX": before}
	if rep := h.sync(s); rep.Uploaded != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	s.lag = nil
	h.sync(s)
	if got := in.subjects(); !slices.Equal(got, []string{"mail 0", "mail 1", "mail 2"}) {
		t.Errorf("the server has %q", got)
	}
	h.check(s)
	h.quiet(s)
}

// That a mailbox is only to be read shows when a mail is refused, and no mail is
// sent again to learn it.
func TestUploadsToAMailboxThatIsOnlyToBeRead(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(0))
	h.sync(s)
	in.readOnly = true
	h.put("INBOX", plainMail(1), "S")
	sent := 0
	for range 3 {
		notes := 0
		rep := h.sync(s, func(o *Options) {
			o.Emit = func(e report.Event) bool {
				if strings.Contains(e.Text, "for reading only") {
					notes++
				}
				return true
			}
		})
		if !rep.Clean() || rep.Uploaded != 0 || notes != 1 {
			t.Errorf("%+v, %d notes", rep, notes)
		}
		sent += strings.Count(strings.Join(s.asked, "\n"), "APPEND")
	}
	if sent != 1 {
		t.Errorf("sent %d times", sent)
	}
	in.readOnly = false
	if rep := h.sync(s); rep.Uploaded != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.quiet(s)
	h.check(s)
}

// slowList is a connection on which something happens behind its list.
type slowList struct {
	Lister
	then func()
}

func (l slowList) List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error) {
	list, err := l.Lister.List(ctx, how)
	l.then()
	return list, err
}

// The server may keep a copy of its own of a mail that was sent, which comes to Sent
// at about the time of the upload: it is not uploaded to where it is already.
func TestACopyThatComesAfterTheListIsNotDoubled(t *testing.T) {
	t.Parallel()
	for _, while := range []string{"mail goes to another mailbox", "time goes by"} {
		s, h := newServer("UIDPLUS", "CONDSTORE", "QRESYNC"), newHome(t)
		archive, sent := s.box("Archive"), s.box("Sent")
		archive.add(plainMail(1))
		sent.add(plainMail(2))
		h.sync(s)
		h.sync(s)
		now := h.now
		come := func() {
			if len(sent.msgs) == 1 {
				sent.msgs[sent.add(plainMail(4), `\Seen`)].date = now
			}
		}
		h.put("Sent", plainMail(4), "S")
		rep := h.sync(s, func(o *Options) {
			if while == "time goes by" {
				// The list has the time at which it came; whatever asks for the time next
				// finds that it is later.
				var listed atomic.Bool
				var since atomic.Int64
				dial := o.Dial
				o.Dial = func(ctx context.Context) (Session, error) {
					session, err := dial(ctx)
					session.Lister = slowList{session.Lister, func() { come(); listed.Store(true) }}
					return session, err
				}
				o.Now = func() time.Time {
					if listed.Load() && since.Add(1) > 1 {
						return now.Add(time.Second)
					}
					return now
				}
				return
			}
			h.put("Archive", plainMail(3), "S")
			s.effect = func(string) { come() }
		})
		if got := sent.subjects(); len(got) != 2 || !rep.Clean() {
			t.Errorf("%s: Sent has %q; asked %q", while, got, s.asked)
		}
		h.check(s)
	}
}

// What was moved into a mailbox that could not be looked into then is not uploaded to
// it by the next run, though STATUS is of before.
func TestAStatusOfBeforeAMoveMakesNoMailTwice(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE", "MOVE"), newHome(t)
	in, to := s.box("INBOX"), s.box("to")
	for i := range 3 {
		in.add(plainMail(i))
	}
	to.add(plainMail(9))
	h.sync(s)
	h.sync(s)
	before := mail.Status{Messages: 1, UIDNext: to.next, UIDValidity: to.validity, HighestModSeq: to.modseq}
	h.move("INBOX", 1, "to", false)
	to.refuse = &mail.Fault{Kind: mail.KindNo, Op: "EXAMINE", Text: "try later"}
	if rep := h.sync(s); rep.Moved != 1 || len(rep.Faults) != 1 {
		t.Fatalf("%+v", rep)
	}
	to.refuse, s.lag = nil, map[string]mail.Status{"to": before}
	h.sync(s)
	s.lag = nil
	h.sync(s)
	if got := to.subjects(); !slices.Equal(got, []string{"mail 0", "mail 9"}) {
		t.Errorf("the server has %q", got)
	}
	h.check(s)
	h.quiet(s)
}

// A mail that was found by what the server said of its upload is recorded before
// anything that takes time: the next run would not find it, since the server gives it
// back changed, or of another size.
func TestAnEndBeforeTheRecordMakesNoMailTwice(t *testing.T) {
	t.Parallel()
	changed := func(s *server) { s.footer = strings.Repeat("footer\r\n", 200) }
	for _, c := range []struct {
		name string
		odd  func(*server)
		raw  string
	}{
		{"changed", changed, plainMail(8)},
		{"changed, without a UID", func(s *server) { changed(s); s.mute = true }, plainMail(8)},
		{"a draft of another size", func(s *server) { s.fat = 100 }, strings.Replace(plainMail(8), "Message-ID", "X-ID", 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("UIDPLUS"), newHome(t)
			c.odd(s)
			s.box("INBOX").add(plainMail(1))
			h.sync(s)
			h.put("INBOX", c.raw, "S")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h.withLedger(s, func(o Options) {
				o.Step = func(effect string) {
					if effect == "folder synced" {
						cancel()
					}
				}
				if _, err := Sync(ctx, o); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
			for range 3 {
				h.sync(s)
			}
			if got := s.box("INBOX").subjects(); len(got) != 2 {
				t.Errorf("the server has %q", got)
			}
		})
	}
}

// What the server took before the connection died is not sent again, though it is not
// to be found as it was.
func TestAnAcknowledgedMailIsNotSentAgain(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.footer, s.mute = strings.Repeat("footer\r\n", 200), true
	in := s.box("INBOX")
	in.add(plainMail(1))
	h.sync(s)
	for i := range 3 {
		h.put("INBOX", plainMail(5+i), "S")
	}
	s.cutAt = s.writes + 3 // the third is stored, and not answered
	for range 3 {
		h.sync(s)
	}
	got := in.subjects()
	if len(got) > 5 || len(slices.Compact(slices.Clone(got))) != 4 {
		t.Errorf("the server has %q", got)
	}
}

// What was here before the first run is not uploaded unasked either where that was an upload of
// one mailbox alone.
func TestAnUploadOfOneMailboxFirst(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	s.box("INBOX")
	for i, folder := range []string{"INBOX", "Old", "Old/Older"} {
		h.maildir(folder)
		h.put(folder, plainMail(i), "S")
	}
	if rep := h.sync(s, func(o *Options) { o.Only, o.UploadHere = []string{"INBOX"}, true }); rep.Uploaded != 1 || !rep.Clean() {
		t.Errorf("the upload: %+v", rep)
	}
	for range 2 {
		if rep := h.sync(s); rep.Uploaded != 0 || !slices.Equal(s.names(), []string{"INBOX"}) {
			t.Errorf("a sync after it: %+v, the server has %q", rep, s.names())
		}
	}
	if rep := h.sync(s, func(o *Options) { o.UploadHere = true }); rep.Uploaded != 2 || !slices.Equal(s.names(), []string{"INBOX", "Old", "Old/Older"}) {
		t.Errorf("an upload of all: %+v, the server has %q", rep, s.names())
	}
	h.quiet(s)
	h.check(s)
}
