package journal

import (
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// account is a ledger with a mailbox of two messages.
func account(t *testing.T) (*Journal, *ledger.Ledger) {
	t.Helper()
	j, l := open(t)
	if err := l.SaveMailbox(t.Context(), ledger.Mailbox{Name: "INBOX", Folder: "INBOX", UIDValidity: 7, Complete: true}); err != nil {
		t.Fatal(err)
	}
	for uid := range imap.UID(2) {
		if err := l.Save(t.Context(), message(uid+1)); err != nil {
			t.Fatal(err)
		}
	}
	return j, l
}

func message(uid imap.UID) ledger.Message {
	return ledger.Message{Mailbox: "INBOX", UIDValidity: 7, UID: uid, Key: string(rune('a' + uid)), State: ledger.Present}
}

// What the server was told of flags is known to the next run, until it is recorded, or the
// message is gone; and what that one tells comes to it.
func TestToldFlags(t *testing.T) {
	t.Parallel()
	j, l := account(t)
	told := func(uid imap.UID) []string {
		n, _, err := j.Told.Get(t.Context(), About(message(uid)))
		if err != nil {
			t.Fatal(err)
		}
		return n.Flags
	}
	record := func(c Change) {
		t.Helper()
		if err := j.Record(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	recalled := func() *ToldFlags {
		t.Helper()
		f := NewToldFlags(j)
		if err := f.Recall(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		return f
	}
	var c Change
	recalled().Intend(&c, "INBOX", 7, map[imap.UID][]string{1: {`\Seen`}, 2: {`\Flagged`}, 3: {`\Seen`}})
	recalled().Intend(&c, "Gone", 7, map[imap.UID][]string{1: {`\Seen`}})
	record(c)
	f := recalled()
	if b := f.Before(); len(b) != 1 || len(b["INBOX"]) != 2 || !slices.Equal(b["INBOX"][1], []string{`\Seen`}) {
		t.Errorf("before: %v", b)
	}
	if all, err := j.Told.All(t.Context()); len(all) != 2 || err != nil {
		t.Errorf("of messages that are not there a note is left: %v, %v", all, err)
	}
	c = Change{}
	f.Intend(&c, "INBOX", 7, map[imap.UID][]string{1: {`\Flagged`, `\Seen`}})
	record(c)
	if got := told(1); !slices.Equal(got, []string{`\Flagged`, `\Seen`}) {
		t.Errorf("told %q", got)
	}
	c = Change{}
	f.Forget(&c, message(1), message(3))
	record(c)
	if told(1) != nil || told(2) == nil {
		t.Errorf("told %q and %q", told(1), told(2))
	}
	c = Change{}
	if f.Forget(&c, message(1)); !c.Empty() {
		t.Error("what is forgotten is forgotten again")
	}
	if err := f.Over(t.Context(), "INBOX"); err != nil || told(2) != nil {
		t.Errorf("%v, told %q", err, told(2))
	}
	if err := l.Delete(t.Context(), "INBOX", 7, 1); err != nil {
		t.Fatal(err)
	}
	if b := recalled().Before(); len(b) != 0 {
		t.Errorf("before: %v", b)
	}
}

// A fault that stays is told once, and again after a while or in other words, or when it
// was away meanwhile.
func TestStandingFaults(t *testing.T) {
	t.Parallel()
	j, _ := account(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	run := func(texts ...string) (known []bool) {
		t.Helper()
		s := NewStandingFaults(j, func() time.Time { return now }, 24*time.Hour)
		for _, text := range texts {
			is, err := s.Meet(t.Context(), "held", "INBOX", text)
			if err != nil {
				t.Fatal(err)
			}
			if known = append(known, is); !is {
				var c Change
				s.Told(&c, "held", "INBOX", text)
				if err := j.Record(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
		}
		if s.Met() != min(len(texts), 1) {
			t.Errorf("%d are met", s.Met())
		}
		if err := s.ForgetOthers(t.Context()); err != nil {
			t.Fatal(err)
		}
		return known
	}
	for i, c := range []struct {
		text  string // "" if the fault is away
		after time.Duration
		known bool
	}{
		{"two", 0, false}, {"two", time.Hour, true}, {"three", 0, false}, {"three", 23 * time.Hour, true}, {"three", time.Hour, false},
		{"", 0, false}, {"three", 0, false},
	} {
		now = now.Add(c.after)
		if c.text == "" {
			run()
		} else if known := run(c.text); known[0] != c.known {
			t.Errorf("%d: known %v", i, known[0])
		}
	}
}
