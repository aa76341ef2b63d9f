package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// evidence makes traits of mails that agree and differ in all ways.
type evidence struct{ *rand.Rand }

func one[T any](r evidence, of ...T) T { return of[r.IntN(len(of))] }

func (r evidence) id() string {
	return one(r, "a@x", "a@x", "a@x", "b@x", "", "notmuch-sha1-1", "nul\u0080x")
}
func (r evidence) size() int64 { return one[int64](r, 5000, 5000, 5000, 5100, 9000, 0) }
func (r evidence) date() time.Time {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	return one(r, at, at, at, at.Add(time.Minute), at.AddDate(0, 0, 1), time.Time{})
}
func (r evidence) text() mail.Digest { return mail.Digest{byte(r.IntN(3))} }

func (r evidence) row() ledger.Message {
	m := ledger.Message{Mailbox: "A", UID: 1, State: ledger.Present, Key: one(r, "k", "l"), ID: r.id(), Size: r.size(), Date: r.date(), Digest: r.text()}
	m.WireSize = one(r, m.Size, m.Size, r.size())
	return m
}

func (r evidence) file() Untracked {
	s := Untracked{Message: r.row(), Sent: r.date()}
	s.WireSize = s.Size
	if s.Size > 5000 {
		s.Added = one(r, 0, s.Size-5000)
	}
	return s
}

func (r evidence) message() mail.Message {
	return mail.Message{UID: 1, MessageID: mail.NotmuchID(r.id()), Size: r.size(), InternalDate: r.date()}
}

// Whatever is known of two mails, they are judged alike whichever is the first, and all that ask
// which mail is which follow that.
func TestAllAskOneJudgement(t *testing.T) {
	t.Parallel()
	const rounds = 5_000
	met := make(map[string]int)
	for seed := range uint64(rounds) {
		r := evidence{rand.New(rand.NewPCG(seed, 12))} //nolint:gosec // a test's numbers
		m, row, file := r.message(), r.row(), r.file()
		fail := func(format string, args ...any) {
			t.Fatalf("%d: "+format+"\n%+v\n%+v\n%+v", append(append([]any{seed}, args...), m, row, file)...)
		}
		traits := []Traits{Told(m), Agreed(&row), Came(&row), file.Traits()}
		for _, a := range traits {
			for _, b := range traits {
				if Weigh(a, b) != Weigh(b, a) || Judge(a, b) != Judge(b, a) {
					fail("%+v, and %+v", Weigh(a, b), Weigh(b, a))
				}
			}
		}

		judged := Judge(Told(m), Agreed(&row))
		met[fmt.Sprint("message and row ", judged)]++
		renamed := Renamed{ledger.Mailbox{UIDValidity: 1}, mail.Mailbox{Status: &mail.Status{UIDValidity: 1}}}
		if is := renamed.Like([]ledger.Message{row}, []mail.Message{m}, false) == SameBox; Another(row, m) != (judged == Different) || is != (judged == Same) {
			fail("judged %v; another is %v, the mailbox of it %v", judged, Another(row, m), is)
		}
		renamed.Known.UIDValidity = 2
		anew := renamed.Like([]ledger.Message{row}, []mail.Message{m}, false) == SameBox
		copies, _ := Copies([]mail.Message{m}, []ledger.Message{row}, Evidence{})
		if (anew || len(copies) > 0) && judged != Same {
			fail("judged %v, and a copy", judged)
		}
		as := Untracked{Message: row}
		if pairs, ask := Pair([]mail.Message{m}, []Untracked{as}, Evidence{Exact: true}); len(copies) > len(pairs)+len(ask) {
			fail("a copy, and no pair")
		}

		judged = Judge(Told(m), file.Traits())
		met[fmt.Sprint("message and file ", judged)]++
		pairs, ask := Pair([]mail.Message{m}, []Untracked{file}, Evidence{})
		if paired := len(pairs) > 0; paired && judged == Different || !paired && judged == Same || len(ask) > 0 && judged != Open {
			fail("judged %v; paired %v, asked for %v", judged, pairs, ask)
		}
		text := Evidence{Text: map[imap.UID]mail.Digest{1: r.text()}, Doubtful: true}
		if pairs, _ := Pair([]mail.Message{m}, []Untracked{file}, text); len(pairs) > 0 && Judge(text.of(m), file.Traits()) != Same && !file.Digest.IsZero() {
			fail("paired by its text %v", text.Text)
		}

		judged = Judge(Came(&row), file.Traits())
		met[fmt.Sprint("two files ", judged)]++
		if file.SameContent(&row) != (judged == Same) {
			fail("judged %v", judged)
		}
	}
	for _, of := range []string{"message and row", "message and file", "two files"} {
		for _, v := range []Verdict{Open, Same, Different} {
			if what := fmt.Sprint(of, " ", v); met[what] < rounds/100 {
				t.Errorf("%s: %d times", what, met[what])
			}
		}
	}
}

// Where those that ask had answers of their own to the same question.
func TestWhereTheyContradictedEachOther(t *testing.T) {
	t.Parallel()
	day := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	text := mail.Digest{1}
	row := func(change func(*ledger.Message)) ledger.Message {
		m := ledger.Message{Mailbox: "A", UID: 1, State: ledger.Present, Key: "k", ID: "a@x", Size: 5000, WireSize: 5000, Date: day, Digest: text}
		change(&m)
		return m
	}
	told := func(change func(*mail.Message)) []mail.Message {
		m := mail.Message{UID: 1, MessageID: "a@x", Size: 5000, InternalDate: day}
		change(&m)
		return []mail.Message{m}
	}
	asTold := func(*mail.Message) {}
	copied := func(m []mail.Message, r ledger.Message, e Evidence) error {
		if copies, ask := Copies(m, []ledger.Message{r}, e); copies[1].Key != r.Key {
			return fmt.Errorf("no copy, and asked for %v", ask)
		}
		return nil
	}
	for what, err := range map[string]error{
		// Pair took it by its id, and Copies by none.
		"a Message-ID that is too long": copied(told(func(m *mail.Message) { m.MessageID = "notmuch-sha1-7" }), row(func(m *ledger.Message) { m.ID = "notmuch-sha1-7" }), Evidence{}),
		"NUL in a Message-ID":           copied(told(func(m *mail.Message) { m.MessageID = "nul" }), row(func(m *ledger.Message) { m.ID = "nul\u0080x" }), Evidence{}),
		// Pair believed the server's word of a draft, and Copies wanted its text.
		"a draft that the server says it has moved": copied(told(func(m *mail.Message) { m.Flags = []string{`\Draft`} }), row(func(*ledger.Message) {}), Evidence{Told: map[imap.UID]string{1: "k"}}),
		// A date that the row lacks contradicted nothing, and one that the server lacks did.
		"a date that is not told": copied(told(func(m *mail.Message) { m.InternalDate = time.Time{} }), row(func(*ledger.Message) {}), Evidence{}),
		"another size and date under a Message-ID that is too long": func() error {
			r := row(func(m *ledger.Message) { m.ID = "notmuch-sha1-7" })
			if Another(r, told(func(m *mail.Message) { m.MessageID, m.Size, m.InternalDate = r.ID, 9000, day.AddDate(0, 0, 1) })[0]) {
				return fmt.Errorf("another mail than with the same Message-ID that is short")
			}
			return nil
		}(),
		// Two mails of which nothing but one size is known are one for nobody else.
		"no Message-ID and no date": func() error {
			r := Renamed{ledger.Mailbox{UIDValidity: 1}, mail.Mailbox{Status: &mail.Status{UIDValidity: 1}}}
			rows := []ledger.Message{row(func(m *ledger.Message) { m.ID, m.Date = "", time.Time{} })}
			if r.Like(rows, told(func(m *mail.Message) { m.MessageID, m.InternalDate = "", time.Time{} }), false) == SameBox {
				return fmt.Errorf("the same mailbox by one size")
			}
			return nil
		}(),
		// No other mail, so that its UID is agreed on, and yet it made the mailbox another one.
		"a mail that the server has changed, in a renamed mailbox": func() error {
			r := Renamed{ledger.Mailbox{UIDValidity: 1}, mail.Mailbox{Status: &mail.Status{UIDValidity: 1}}}
			rows := []ledger.Message{row(func(*ledger.Message) {}), row(func(m *ledger.Message) { m.UID = 2 })}
			list := slices.Concat(told(asTold), told(func(m *mail.Message) { m.UID, m.Size, m.InternalDate = 2, 9000, day.AddDate(0, 0, 1) }))
			if Another(rows[1], list[1]) || r.Like(rows, list, false) != SameBox {
				return fmt.Errorf("another mailbox")
			}
			return nil
		}(),
		// One size made one content of two files with two Message-IDs.
		"a file with the size of a row, and another Message-ID": func() error {
			r := row(func(m *ledger.Message) { m.Digest = mail.Digest{} })
			f := Untracked{Message: row(func(m *ledger.Message) { m.Key, m.ID = "l", "b@x" })}
			if f.SameContent(&r) {
				return fmt.Errorf("the same content")
			}
			return nil
		}(),
		// It was of the server's size, and yet not near it.
		"a file to which another program added much": func() error {
			r := row(func(m *ledger.Message) { m.Digest = mail.Digest{} })
			f := Untracked{Message: row(func(m *ledger.Message) { m.Size = 9000 }), Added: 4000}
			if !f.SameContent(&r) {
				return fmt.Errorf("another content under the same key")
			}
			return nil
		}(),
		// A text that did not come was that of a file that was not read.
		"a text that does not come": func() error {
			files := []Untracked{{Message: row(func(m *ledger.Message) { m.Digest = mail.Digest{} })}, {Message: row(func(m *ledger.Message) { m.Key = "l" })}}
			e := Evidence{Told: map[imap.UID]string{1: "l"}, Text: map[imap.UID]mail.Digest{1: {}}}
			if pairs, _ := Pair(told(asTold), files, e); pairs[1].Key != "l" {
				return fmt.Errorf("not what the server said: %+v", pairs)
			}
			return nil
		}(),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Of two messages that the server said are one file, which was which was left to chance.
	two := slices.Concat(told(asTold), told(func(m *mail.Message) { m.UID = 2 }))
	e := Evidence{Told: map[imap.UID]string{1: "k", 2: "k"}}
	_, first := Pair(two, []Untracked{{Message: row(func(*ledger.Message) {})}}, e)
	for range 50 {
		if _, ask := Pair(two, []Untracked{{Message: row(func(*ledger.Message) {})}}, e); !slices.Equal(ask, first) {
			t.Fatalf("%v, and %v before", ask, first)
		}
	}
}

// Of a mail without Message-ID no list tells whether it is a copy of another one: what is found to be
// one may be expunged where it was.
func TestACopyWithoutMessageIDIsToldByItsText(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	server := []mail.Message{{UID: 9, Size: 100, InternalDate: when}}
	here := []Untracked{{Message: ledger.Message{UID: 1, Key: "k", ID: "notmuch-sha1-1", Size: 100, Date: when, Digest: mail.Digest{1}}}}
	if pairs, ask := Pair(server, here, Evidence{Exact: true}); len(pairs) > 0 || !slices.Equal(ask, []imap.UID{9}) {
		t.Errorf("paired %v, asked for %v", pairs, ask)
	}
	for text, want := range map[mail.Digest]int{{1}: 1, {2}: 0, {}: 0} {
		if pairs, ask := Pair(server, here, Evidence{Exact: true, Text: map[imap.UID]mail.Digest{9: text}}); len(pairs) != want || len(ask) > 0 {
			t.Errorf("text %.1s: paired %v, asked for %v", text, pairs, ask)
		}
	}
}
