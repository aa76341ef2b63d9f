package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// kill deletes UID 3 of INBOX.
func (h *home) kill(s *server, change ...func(*probe.ExpungeOptions)) (*probe.Expunged, error) {
	h.t.Helper()
	l, done := h.open()
	defer done()
	o := probe.ExpungeOptions{
		Target: Target{Mailbox: "INBOX", UIDValidity: 14, UID: 3}, Dial: deleting(s.dial), Notes: journal.Of(l).Expunge,
		Confirm: func(probe.ExpungePlan) (bool, error) { return true, nil }, Keep: func() error { return nil },
	}
	for _, f := range change {
		f(&o)
	}
	return probe.Expunge(context.Background(), o)
}

// deleting makes a Dial of a deletion out of that of a run.
func deleting(dial func(context.Context) (Session, error)) func(context.Context) (probe.Deleter, error) {
	return func(ctx context.Context) (probe.Deleter, error) {
		s, err := dial(ctx)
		return s.Deleter(), err
	}
}

// doomed is a server whose UID 3 fails; deleted are marked so by somebody else.
func doomed(caps []string, deleted ...imap.UID) *server {
	s := newServer(caps...)
	in := s.box("INBOX")
	for i := range 6 {
		in.add(rawMail(i))
	}
	in.msgs[3].fault = &serverFault{}
	for _, u := range deleted {
		in.msgs[u].flags = []string{`\Deleted`}
	}
	return s
}

func TestExactlyOneMessageIsDeleted(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		caps    []string
		deleted []imap.UID
		protect bool
	}{
		"UIDPLUS":             {caps: []string{"UIDPLUS"}},
		"UIDPLUS, others":     {caps: []string{"UIDPLUS"}, deleted: []imap.UID{2, 5}},
		"UIDPLUS, itself":     {caps: []string{"UIDPLUS"}, deleted: []imap.UID{3}},
		"plain":               {},
		"plain, itself":       {deleted: []imap.UID{3}},
		"plain, others saved": {deleted: []imap.UID{2, 5}, protect: true},
	} {
		s, h := doomed(tc.caps, tc.deleted...), newHome(t)
		done, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Protect = tc.protect })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !done.Done || done.Left != 5 || len(done.Missing) > 0 {
			t.Errorf("%s: %+v", name, done)
		}
		s.intact(t, name, tc.deleted)
	}
}

// intact asserts that UID 3 is gone, that no other is, and that those and only
// those that were marked are.
func (s *server) intact(t *testing.T, name string, deleted []imap.UID) {
	t.Helper()
	if got := s.box("INBOX").uids(); !slices.Equal(got, []imap.UID{1, 2, 4, 5, 6}) {
		t.Errorf("%s: UIDs %v are left", name, got)
	}
	s.marked(t, name, slices.DeleteFunc(slices.Clone(deleted), func(u imap.UID) bool { return u == 3 }))
}

func (s *server) marked(t *testing.T, name string, want []imap.UID) {
	t.Helper()
	var got []imap.UID
	for _, u := range s.box("INBOX").uids() {
		if slices.Contains(s.box("INBOX").msgs[u].flags, `\Deleted`) {
			got = append(got, u)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: marked %v, want %v", name, got, want)
	}
}

func TestOthersInDangerAreAReasonToRefuse(t *testing.T) {
	t.Parallel()
	s, h := doomed(nil, 2, 5), newHome(t)
	_, err := h.kill(s)
	if !errors.Is(err, probe.ErrOthersDeleted) || !strings.Contains(err.Error(), "--protect-others") {
		t.Errorf("%v", err)
	}
	if n := len(s.box("INBOX").msgs); n != 6 {
		t.Errorf("%d messages left", n)
	}
	s.marked(t, "refused", []imap.UID{2, 5})
}

func TestNothingHappensWithoutAYes(t *testing.T) {
	t.Parallel()
	s, h := doomed([]string{"UIDPLUS"}), newHome(t)
	done, err := h.kill(s, func(o *probe.ExpungeOptions) {
		o.Confirm = func(p probe.ExpungePlan) (bool, error) {
			if p.UID != 3 || p.Mailbox != "INBOX" || p.Messages != 6 || !p.UIDPlus {
				t.Errorf("%+v", p)
			}
			return false, nil
		}
	})
	if err != nil || done.Done || s.writes != 0 {
		t.Errorf("%+v %v %d", done, err, s.writes)
	}
}

func TestNothingIsDeletedThatCouldNotBeKept(t *testing.T) {
	t.Parallel()
	s, h := doomed([]string{"UIDPLUS"}), newHome(t)
	if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Keep = func() error { return errors.New("disk full") } }); err == nil || s.writes != 0 {
		t.Errorf("%v %d", err, s.writes)
	}
}

func TestNothingIsDeletedUnderAnotherUIDValidity(t *testing.T) {
	t.Parallel()
	s, h := doomed([]string{"UIDPLUS"}), newHome(t)
	s.box("INBOX").validity = 15
	if _, err := h.kill(s); !errors.Is(err, probe.ErrUIDValidity) || s.writes != 0 {
		t.Errorf("%v %d", err, s.writes)
	}
}

func TestAMessageThatIsGoneIsNoError(t *testing.T) {
	t.Parallel()
	s, h := doomed(nil), newHome(t)
	s.box("INBOX").expunge(3)
	if done, err := h.kill(s); err != nil || done.Listed || s.writes != 0 {
		t.Errorf("%+v %v", done, err)
	}
}

func TestMovingToAQuarantine(t *testing.T) {
	t.Parallel()
	for name, caps := range map[string][]string{"MOVE": {"MOVE"}, "COPY": {"UIDPLUS"}, "plain COPY": nil} {
		s, h := doomed(caps), newHome(t)
		done, err := h.kill(s, func(o *probe.ExpungeOptions) { o.To = "Quarantine" })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s.intact(t, name, nil)
		if n := len(s.box("Quarantine").msgs); n != 1 || done.Moved != 1 || done.MovedTo != 14 {
			t.Errorf("%s: %d messages in quarantine, %+v", name, n, done)
		}
	}
}

func TestACopyThatIsRefusedDeletesNothing(t *testing.T) {
	t.Parallel()
	for verb, caps := range map[string][]string{"UID MOVE": {"MOVE"}, "UID COPY": nil} {
		s, h := doomed(caps), newHome(t)
		s.refuses = map[string]*mail.Fault{verb: {Text: "cannot"}}
		if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.To = "Quarantine" }); err == nil {
			t.Errorf("%s: no error", verb)
		}
		if n := len(s.box("INBOX").msgs); n != 6 {
			t.Errorf("%s: %d messages left", verb, n)
		}
		s.marked(t, verb, nil)
	}
}

// Whatever the server refuses, nothing is marked afterwards that was not before.
func TestARefusalLeavesTheMarksAsTheyWere(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"UID EXPUNGE", "EXPUNGE"} {
		for _, deleted := range [][]imap.UID{nil, {3}, {2, 5}} {
			caps := []string{"UIDPLUS"}
			if verb == "EXPUNGE" {
				caps = nil
			}
			s, h := doomed(caps, deleted...), newHome(t)
			s.refuses = map[string]*mail.Fault{verb: {Text: "not now"}}
			if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Protect = true }); err == nil || !strings.Contains(err.Error(), "not now") {
				t.Errorf("%s: %v", verb, err)
			}
			if n := len(s.box("INBOX").msgs); n != 6 {
				t.Errorf("%s: %d messages left", verb, n)
			}
			s.marked(t, verb, deleted)
		}
	}
}

// The connection dies after each command that changes something. The next sync
// puts the marks right: others are marked as they were, and the message is gone
// or as it was.
func TestMarksArePutRightAfterACut(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for _, caps := range [][]string{nil, {"UIDPLUS"}, {"UIDPLUS", "CONDSTORE", "QRESYNC"}} {
		for _, deleted := range [][]imap.UID{nil, {2, 5}, {2, 3, 5}} {
			for at := 1; ; at++ {
				name := fmt.Sprintf("%v %v cut at %d", caps, deleted, at)
				s, h := doomed(caps, deleted...), newHome(t)
				h.sync(s)
				s.cutAt = s.writes + at
				_, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Protect = true })
				if err == nil {
					if s.writes >= s.cutAt {
						t.Errorf("%s: no error", name)
					}
					s.intact(t, name, deleted)
					break
				}
				s.cutAt = 0
				h.sync(s)
				if s.box("INBOX").msgs[3] == nil {
					s.intact(t, name, deleted)
				} else {
					s.marked(t, name, deleted)
				}
				if n := len(s.box("INBOX").msgs); n < 5 {
					t.Errorf("%s: %d messages left", name, n)
				}
				if rep := h.sync(s); !rep.Clean() {
					t.Errorf("%s: %+v", name, rep)
				}
				if t.Failed() {
					return
				}
			}
		}
	}
}

// A message that another client marks between two commands of ours is not taken
// along.
func TestAMarkThatComesInBetweenStopsIt(t *testing.T) {
	t.Parallel()
	s, h := doomed(nil), newHome(t)
	_, err := h.kill(s, func(o *probe.ExpungeOptions) {
		o.Confirm = func(probe.ExpungePlan) (bool, error) {
			s.box("INBOX").flag(5, `\Deleted`)
			return true, nil
		}
	})
	if !errors.Is(err, probe.ErrOthersDeleted) || len(s.box("INBOX").msgs) != 6 {
		t.Errorf("%v, %d messages left", err, len(s.box("INBOX").msgs))
	}
	s.marked(t, "in between", []imap.UID{5})
}

// What another client does while the question stands holds: what it unmarked
// stays unmarked, and what it marked stays marked.
func TestWhatOthersDoWhileTheQuestionStandsHolds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		meanwhile func(*serverBox)
		fails     bool
		deleted   []imap.UID
	}{
		"another is unmarked":       {func(b *serverBox) { b.flag(2) }, false, []imap.UID{5}},
		"all others are unmarked":   {func(b *serverBox) { b.flag(2); b.flag(5) }, false, nil},
		"it is marked, then a fail": {func(b *serverBox) { b.flag(3, `\Deleted`) }, true, []imap.UID{2, 3, 5}},
	} {
		s, h := doomed(nil, 2, 5), newHome(t)
		if tc.fails {
			s.refuses = map[string]*mail.Fault{"EXPUNGE": {Text: "not now"}}
		}
		_, err := h.kill(s, func(o *probe.ExpungeOptions) {
			o.Protect = true
			o.Confirm = func(probe.ExpungePlan) (bool, error) {
				tc.meanwhile(s.box("INBOX"))
				return true, nil
			}
		})
		if (err != nil) != tc.fails {
			t.Errorf("%s: %v", name, err)
		}
		s.marked(t, name, tc.deleted)
	}
}

func TestAMessageThatGoesWhileTheQuestionStandsWasNotDeletedHere(t *testing.T) {
	t.Parallel()
	for name, caps := range map[string][]string{"UIDPLUS": {"UIDPLUS"}, "MOVE": {"MOVE"}, "plain": nil} {
		s, h := doomed(caps), newHome(t)
		done, err := h.kill(s, func(o *probe.ExpungeOptions) {
			if name == "MOVE" {
				o.To = "Quarantine"
			}
			o.Confirm = func(probe.ExpungePlan) (bool, error) {
				s.box("INBOX").expunge(3)
				return true, nil
			}
		})
		if err != nil || done.Listed || done.Done || s.writes != 0 {
			t.Errorf("%s: %+v %v, %d writes", name, done, err, s.writes)
		}
	}
}

// A person takes long to answer, and servers hang up on who is idle.
func TestAServerThatHangsUpWhileTheQuestionStandsIsAskedAnew(t *testing.T) {
	t.Parallel()
	s, h := doomed([]string{"UIDPLUS"}), newHome(t)
	done, err := h.kill(s, func(o *probe.ExpungeOptions) {
		o.Confirm = func(probe.ExpungePlan) (bool, error) {
			s.hangUp = true
			return true, nil
		}
	})
	if err != nil || !done.Done {
		t.Errorf("%+v %v", done, err)
	}
	s.intact(t, "hung up", nil)
}

// Marks in a mailbox that is deleted meanwhile cannot be put right, and need not
// be. In one that only cannot be opened today they can, later.
func TestMarksInAMailboxThatIsGoneAreForgotten(t *testing.T) {
	t.Parallel()
	s, h := doomed(nil, 2, 5), newHome(t)
	s.box("Other")
	h.sync(s)
	s.cutAt = s.writes + 2 // both others are unmarked, the message is marked
	if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Protect = true }); err == nil {
		t.Fatal("no error")
	}
	in := s.box("INBOX")
	in.refuse = &mail.Fault{Kind: mail.KindNo, Text: "in use"}
	if rep := h.sync(s); rep.Clean() {
		t.Errorf("%+v", rep)
	}
	in.refuse = nil
	delete(s.boxes, "INBOX")
	if rep := h.sync(s); !rep.Clean() || !slices.ContainsFunc(h.events, func(e report.Event) bool { return strings.Contains(e.Text, "interrupted") }) {
		t.Errorf("%+v %v", rep, h.events)
	}
	if rep := h.sync(s); !rep.Clean() || slices.ContainsFunc(h.events, func(e report.Event) bool { return strings.Contains(e.Text, "interrupted") }) {
		t.Errorf("then: %+v %v", rep, h.events)
	}
	// Refused today, and put right tomorrow.
	s, h = doomed(nil, 2, 5), newHome(t)
	h.sync(s)
	s.cutAt = s.writes + 2
	if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Protect = true }); err == nil {
		t.Fatal("no error")
	}
	s.box("INBOX").refuse = &mail.Fault{Kind: mail.KindNo, Text: "in use"}
	h.sync(s)
	s.box("INBOX").refuse = nil
	h.sync(s)
	s.marked(t, "refused for a day", []imap.UID{2, 5})
}

// A copy that was made for a move that then failed is told of.
func TestACopyThatStaysIsTold(t *testing.T) {
	t.Parallel()
	s, h := doomed(nil), newHome(t)
	s.refuses = map[string]*mail.Fault{"EXPUNGE": {Text: "not now"}}
	if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.To = "Quarantine" }); err == nil || !strings.Contains(err.Error(), "a copy of it is in Quarantine") {
		t.Errorf("%v", err)
	}
	s.marked(t, "copied", nil)
}

// Also where the caller did not say which UIDVALIDITY it means.
func TestMarksArePutRightUnderTheUIDValidityThatWasMet(t *testing.T) {
	t.Parallel()
	s, h := doomed(nil, 2, 5), newHome(t)
	h.sync(s)
	s.cutAt = s.writes + 2
	if _, err := h.kill(s, func(o *probe.ExpungeOptions) { o.Protect, o.UIDValidity = true, 0 }); err == nil {
		t.Fatal("no error")
	}
	h.sync(s)
	s.marked(t, "no UIDVALIDITY", []imap.UID{2, 5})
}
