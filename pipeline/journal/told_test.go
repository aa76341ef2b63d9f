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
// was away meanwhile; and as long as nobody could read it.
func TestStandingFaults(t *testing.T) {
	t.Parallel()
	j, _ := account(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	began := now
	run := func(text string, shown bool) (known bool) {
		t.Helper()
		s := NewStandingFaults(j, func() time.Time { return now }, 24*time.Hour)
		if err := s.Recall(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if known = s.Meet("held", "INBOX", text); !known && shown {
				s.Told("held", "INBOX")
				if !s.Meet("held", "INBOX", text) {
					t.Error("one run tells it twice")
				}
			}
		}
		var c Change
		s.Note(&c, func(kind, mailbox string) bool { return kind == "held" && mailbox == "INBOX" })
		if err := j.Record(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		last, there, err := j.Standing.Get(t.Context(), AboutWord("held", "INBOX"))
		if err != nil || there != (text != "") || last.Text != text || there && !last.Since.Equal(began) || there && last.Told.IsZero() == shown {
			t.Errorf("noted: %+v, %v", last, err)
		}
		return known
	}
	for i, c := range []struct {
		text  string // "" if the fault is away
		after time.Duration
		shown bool
		known bool
	}{
		{"two", 0, false, false}, {"two", time.Minute, true, false}, {"two", time.Hour, true, true}, {"three", 0, true, false},
		{"three", 23 * time.Hour, true, true}, {"three", time.Hour, true, false}, {"", 0, true, false}, {"three", 0, true, false},
	} {
		now = now.Add(c.after)
		if c.text != "" && i == 7 {
			began = now
		}
		if known := run(c.text, c.shown); known != c.known {
			t.Errorf("%d: known %v", i, known)
		}
	}
}

// What is told once is told again until somebody could read it.
func TestWhatNobodyCouldReadIsToldAgain(t *testing.T) {
	t.Parallel()
	j, _ := account(t)
	for about, of := range map[string]Notes[Text]{"a": j.FolderSaid, "14/b": j.GoneSaid, "k": j.TwinSaid} {
		told := 0
		for i, c := range []struct{ note, shown bool }{{false, true}, {true, false}, {true, false}, {true, true}, {true, true}, {true, false}} {
			if err := Once(t.Context(), of, about, "words", c.note, func() bool { told++; return c.shown }); err != nil {
				t.Fatal(err)
			}
			text, noted, err := of.Get(t.Context(), about)
			if what, said := text.Said(); err != nil || noted && (what != "words" || said != (i > 2)) || i > 2 && !noted {
				t.Errorf("%s: %d: %q, %v", about, i, text, err)
			}
		}
		if told != 4 {
			t.Errorf("%s was told %d times", about, told)
		}
	}
}
