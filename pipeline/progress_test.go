package pipeline

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// manyThere is a server whose INBOX has a large mail that is the newest, and which has more
// in other mailboxes.
func manyThere() *server {
	s := newServer("UIDPLUS")
	for i := range 40 {
		s.box("Archive").add(rawMail(100 + i))
		s.box("INBOX").add(rawMail(i))
		s.box("Lists").add(rawMail(200 + i))
	}
	s.box("INBOX").add(rawMail(90) + strings.Repeat("x", plan.Large))
	return s
}

func (s *server) bytes() (n int64) {
	for _, b := range s.boxes {
		for _, m := range b.msgs {
			n += int64(len(m.raw))
		}
	}
	return n
}

// progress is what was told of it.
func (h *home) progress() (out []report.Event) {
	for _, e := range h.events {
		if e.Type == report.EventProgress {
			out = append(out, e)
		}
	}
	return out
}

// Before the first mail comes it is known how many come, and how much, and all of that
// comes. A sync after one that was interrupted knows it, too.
func TestTotalsAreKnownFirst(t *testing.T) {
	t.Parallel()
	// No clock goes on while the mailboxes are looked into, which bounds how long others wait for that.
	synctest.Test(t, func(t *testing.T) {
		h, s := newHome(t), manyThere()
		whole := func() report.Event {
			t.Helper()
			all := h.progress()
			came := slices.IndexFunc(all, func(e report.Event) bool { return e.Done > 0 })
			if came < 0 {
				t.Fatal("nothing is told")
			}
			for _, e := range all[came:] {
				if e.Total != all[came].Total || e.TotalBytes != all[came].TotalBytes {
					t.Errorf("the totals change on the way: %+v, and then %+v", all[came], e)
				}
			}
			return all[len(all)-1]
		}
		f := &frail{server: s, at: 13, away: -1} // at the second batch
		if rep := h.within(t, f, func(o *Options) { o.Connections = 1 }); rep.New != 25 {
			t.Fatalf("it was not interrupted: %+v", rep)
		}
		if e := whole(); e.Total != 121 || e.TotalBytes != s.bytes() || e.Done >= e.Total {
			t.Errorf("of 121 messages and %d bytes is told: %+v", s.bytes(), e)
		}
		h.sync(s)
		if e := whole(); e.Done != e.Total || e.DoneBytes != e.TotalBytes || e.Total >= 121 || e.TotalBytes < plan.Large || e.TotalBytes >= s.bytes() {
			t.Errorf("of what was left is told: %+v", e)
		}
		h.check(s)
	})
}

// The order in which mail comes over one connection.
func TestINBOXComesFirstAndLargeMailLast(t *testing.T) {
	t.Parallel()
	// No clock goes on while the mailboxes are looked into, which bounds how long others wait for that.
	synctest.Test(t, func(t *testing.T) {
		h, s := newHome(t), manyThere()
		h.sync(s, func(o *Options) { o.Connections = 1 })
		box := ""
		var order []string
		for _, a := range s.asked {
			if name, ok := strings.CutPrefix(a, "EXAMINE "); ok {
				box = name
			}
			if a == "FETCH" {
				order = append(order, box)
			}
		}
		if order = slices.Compact(order); !slices.Equal(order, []string{"INBOX", "Archive", "Lists", "INBOX"}) {
			t.Errorf("mail came from %v: %q", order, s.asked)
		}
		h.check(s)
	})
}

// Of large mail the smaller comes first, whatever mailbox it is in, and however old it is.
func TestTheSmallerOfLargeMailComesFirst(t *testing.T) {
	t.Parallel()
	h, s := newHome(t), newServer("UIDPLUS")
	of := func(units int) string { return strings.Repeat("0123456789abcde\n", units*plan.Large/16) }
	for i, units := range []int{3, 18, 1, 36} {
		for _, box := range []string{"INBOX", "Lists"} {
			s.box(box).add(rawMail(10*i+len(box)) + of(units))
		}
	}
	h.sync(s, func(o *Options) { o.Connections = 1 })
	var order []int // in units, of those that come alone
	for _, size := range s.sent {
		if size > plan.Huge {
			order = append(order, size/plan.Large)
		}
	}
	if !slices.Equal(order, []int{18, 18, 36, 36}) || slices.Max(s.sent[:4]) > plan.Huge {
		t.Errorf("they came in the order %v: %v bytes", order, s.sent)
	}
	h.check(s)
}

// A server that does not say how large its messages are is asked once, and loses nothing;
// what there is to ask for one message, nobody asks.
func TestSizesCostNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range []mail.Kind{mail.KindNo, mail.KindCut, mail.KindSilent} {
		h, s := newHome(t), manyThere()
		s.sizeless = &mail.Fault{Kind: kind, Op: "UID FETCH", Text: "not that"}
		if rep := h.sync(s, func(o *Options) { o.Connections = 1 }); rep.New != 121 || !rep.Clean() {
			t.Errorf("%v: %+v", kind, rep)
		}
		if n := asks(s, "SIZES"); n != 1 {
			t.Errorf("%v: asked %d times", kind, n)
		}
		if all := h.progress(); all[len(all)-1].DoneBytes != s.bytes() {
			t.Errorf("%v: %+v, not %d bytes", kind, all[len(all)-1], s.bytes())
		}
		s.sizeless = nil
		uid := s.box("INBOX").add(rawMail(500))
		h.sync(s)
		if n := asks(s, "SIZES"); n != 0 || s.fetched[uid] != 1 {
			t.Errorf("%v: for one message sizes are asked for", kind)
		}
		h.check(s)
	}
}

func asks(s *server, what string) (n int) {
	for _, a := range s.asked {
		if a == what {
			n++
		}
	}
	return n
}
