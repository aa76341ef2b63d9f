package pipeline

import (
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
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
		if !slices.Equal(s.asked, c.want) {
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
	s.dialErr, s.lag = nil, &before
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
			o.Emit = func(e Event) {
				if strings.Contains(e.Text, "for reading only") {
					notes++
				}
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
