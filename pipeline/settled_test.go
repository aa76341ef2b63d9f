package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// settled tells whether all that is here is known to be as it was agreed on.
func (h *home) settled(s *server, change ...func(*Options)) (is bool) {
	h.t.Helper()
	h.withLedger(s, func(o Options) {
		for _, f := range change {
			f(&o)
		}
		var err error
		if is, err = Settled(h.t.Context(), o); err != nil {
			h.t.Error(err)
		}
	})
	return is
}

// agreed gives the mailboxes that are known to be on the server as it was agreed on, by what it tells,
// or by what it tells of a change of flags alone.
func (h *home) agreed(s *server, flags bool) (names []string) {
	h.t.Helper()
	list, err := (&session{server: s}).List(h.t.Context(), mail.Listing{})
	h.do(err)
	told := map[string]mail.Status{"Elsewhere": *list[0].Status}
	for _, m := range list {
		told[m.Name] = *m.Status
		if flags {
			told[m.Name] = mail.Status{UIDValidity: m.Status.UIDValidity, HighestModSeq: m.Status.HighestModSeq}
		}
	}
	h.withLedger(s, func(o Options) {
		names, err = Agreed(h.t.Context(), o, told)
		h.do(err)
	})
	slices.Sort(names)
	return names
}

// After a sync all that is here is settled, whatever the sync did; after each change of the user's it
// is not. (That a run then has something to tell whenever it says so, home.tryIn looks after, in all
// tests.)
func TestWhatASyncDidIsSettled(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(h *home, s *server){
		"nothing":         nil,
		"flags":           func(h *home, _ *server) { h.flag("INBOX", 1, "FS") },
		"a new name":      func(h *home, _ *server) { h.flag("INBOX", 2, "") },
		"a deletion":      func(h *home, _ *server) { h.remove("INBOX", 1) },
		"a move":          func(h *home, _ *server) { h.move("INBOX", 1, "Archive", true) },
		"new mail":        func(h *home, _ *server) { h.put("INBOX", plainMail(9), "S") },
		"a tag":           func(h *home, _ *server) { h.tag(id(1), []string{"flagged"}, nil) },
		"a keyword":       func(h *home, _ *server) { h.tag(id(1), []string{"todo"}, nil) },
		"a folder":        func(h *home, _ *server) { h.maildir("New") },
		"a folder is not": func(h *home, _ *server) { h.do(os.RemoveAll(filepath.Join(h.dir, "mail", "Archive"))) },
	} {
		tags := func(o *Options) { o.TagFlags, o.Keywords = true, []string{"todo"} }
		s, h := newServer(wires()["all"]...), newHome(t)
		in := s.box("INBOX")
		in.add(plainMail(1), `\Seen`)
		in.add(plainMail(2))
		s.box("Archive").add(plainMail(3))
		if h.withLedger(s, func(Options) {}); h.settled(s, tags) || h.agreed(s, false) != nil || h.agreed(s, true) != nil {
			t.Errorf("%s: before any sync all is settled", name)
		}
		both := []string{"Archive", "INBOX"}
		for i, news := range []func(){
			func() {}, func() { in.add(plainMail(4)) }, func() { in.flag(2, `\Seen`, `\Flagged`, "todo") }, func() { in.expunge(4) },
			func() { h.flag("INBOX", 2, "S") }, func() { h.put("Archive", plainMail(5), "S") },
		} {
			news()
			there := i > 0 && i < 4
			for _, flags := range []bool{false, true} {
				if got := h.agreed(s, flags); i > 0 && slices.Equal(got, both) == there {
					t.Errorf("%s: before sync %d %q are agreed on", name, i+1, got)
				}
			}
			if rep := h.sync(s, tags); !rep.Clean() {
				t.Fatalf("%s: %+v", name, rep)
			}
			if h.sync(s, tags); !h.settled(s, tags) { // what a run uploads it sees in the next
				t.Errorf("%s: what a sync did is not settled", name)
			}
			for _, flags := range []bool{false, true} {
				if got := h.agreed(s, flags); !slices.Equal(got, both) {
					t.Errorf("%s: after sync %d %q are agreed on", name, i+1, got)
				}
			}
		}
		if change == nil {
			continue
		}
		if change(h, s); h.settled(s, tags) {
			t.Errorf("%s: it is settled", name)
		}
	}
}

// What nobody is sure of is not settled: a mailbox that is not all here, and a stopped run.
func TestWhatIsNotSureIsNotSettled(t *testing.T) {
	t.Parallel()
	s, h := inbox(3), newHome(t)
	s.box("INBOX").refuse = errors.New("not now")
	h.withLedger(s, func(o Options) { _, _ = Sync(t.Context(), o) })
	if h.settled(s) || h.agreed(s, false) != nil || h.agreed(s, true) != nil {
		t.Error("a mailbox that did not come is settled")
	}
	s.box("INBOX").refuse = nil
	if h.sync(s); !h.settled(s) {
		t.Error("what came is not settled")
	}
	h.withLedger(s, func(o Options) {
		h.do(o.notes().IntendFlags(t.Context(), []ledger.Message{{Mailbox: "INBOX", UIDValidity: 14, UID: 1}}))
	})
	if h.settled(s) || h.agreed(s, false) != nil || h.agreed(s, true) != nil {
		t.Error("an intent is settled")
	}
}
