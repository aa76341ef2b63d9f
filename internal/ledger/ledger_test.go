package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func newLedger(t testing.TB) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), filepath.Join(t.TempDir(), "state", "work"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"INBOX", "Archive"} {
		if err := l.SaveMailbox(t.Context(), Mailbox{Name: name, Folder: name, Delim: '/', UIDValidity: 14}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func present(uid imap.UID, flags ...string) Message {
	return Message{Mailbox: "INBOX", UIDValidity: 14, UID: uid, State: Present, Key: fmt.Sprintf("1700000000.M%dP1Q1R0123456789abcdefnmimap.host", uid),
		Name: fmt.Sprintf("cur/1700000000.M%dP1Q1R0123456789abcdefnmimap.host:2,S", uid), ID: fmt.Sprintf("%d@example.org", uid),
		Size: 4000, WireSize: 4000, Date: time.Unix(1_700_000_000, 0).UTC(), Flags: flags}
}

func uids(ms []Message) (out []imap.UID) {
	for _, m := range ms {
		out = append(out, m.UID)
	}
	return out
}

func (l *Ledger) all(t testing.TB) []Message {
	t.Helper()
	ms, err := l.query(t.Context(), "1 ORDER BY mailbox, uidvalidity, uid")
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func TestAMessageComesBackAsItWasSaved(t *testing.T) {
	l := newLedger(t)
	want := []Message{
		{Mailbox: "INBOX", UIDValidity: 14, UID: 1, State: Stub, Key: "k", Name: "cur/k:2,S", ID: "a@b", Size: 5, WireSize: 6,
			Date: time.Date(1969, 1, 2, 3, 4, 5, 0, time.UTC), Flags: []string{"$MDNSent", `\Seen`}, StubKey: "s", StubName: "new/s", Digest: mail.Digest{0, 1, 31: 255},
			Attempts: 3, Since: time.Unix(10, 0).UTC(), NextTry: time.Unix(20, 0).UTC(), Reason: `NO "é"`},
		{Mailbox: "INBOX", UIDValidity: 14, UID: math.MaxUint32, State: Skipped},
		{Mailbox: "INBOX", UIDValidity: math.MaxUint64, UID: 1, State: Intended},
		{Mailbox: "Archive", UIDValidity: 1, UID: 1, State: Kept, Flags: []string{"caf\u00a0é"}},
	}
	if err := l.Save(t.Context(), want...); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if got, ok, err := l.Get(t.Context(), w.Mailbox, w.UIDValidity, w.UID); !ok || err != nil || !reflect.DeepEqual(got, w) {
			t.Errorf("got %+v, %v, %v\nwant %+v", got, ok, err, w)
		}
	}
	// Again, with everything else: flags in any order, another zone.
	m := want[0]
	m.State, m.Key, m.Flags, m.Date = Present, "k2", []string{`\Seen`, "b", "a", "b"}, m.Date.In(time.FixedZone("", 3600))
	if err := l.Save(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	m.Flags, m.Date = []string{`\Seen`, "a", "b"}, want[0].Date
	if got, _, err := l.Get(t.Context(), "INBOX", 14, 1); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, m)
	}
	if len(l.all(t)) != len(want) {
		t.Error("a message that is saved again is one message")
	}
	for _, missing := range []Message{{Mailbox: "INBOX", UIDValidity: 14, UID: 2}, {Mailbox: "INBOX", UIDValidity: 15, UID: 1}, {Mailbox: "inbox", UIDValidity: 14, UID: 1}} {
		if got, ok, err := l.Get(t.Context(), missing.Mailbox, missing.UIDValidity, missing.UID); ok || err != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	}
}

func TestAMailboxComesBackAsItWasSaved(t *testing.T) {
	l := newLedger(t)
	want := Mailbox{Name: "Entwürfe", Folder: "Entwürfe", Delim: '.', UIDValidity: math.MaxUint64, UIDNext: math.MaxUint32, HighestModSeq: math.MaxInt64, Messages: 7, Complete: true}
	for range 2 {
		if err := l.SaveMailbox(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	boxes, err := l.Mailboxes(t.Context())
	if err != nil || len(boxes) != 3 || boxes[0].Name != "Archive" || boxes[1] != want || boxes[2].Name != "INBOX" {
		t.Errorf("got %+v, %v", boxes, err)
	}
}

func TestMailboxRowsKeepTheirMessages(t *testing.T) {
	l := newLedger(t)
	if err := l.Save(t.Context(), present(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.SaveMailbox(t.Context(), Mailbox{Name: "INBOX", Folder: "other", UIDValidity: 15}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := l.Get(t.Context(), "INBOX", 14, 1); !ok || err != nil {
		t.Error("the message went with its mailbox's change", err)
	}
}

func TestSaveIsAllOrNothing(t *testing.T) {
	l := newLedger(t)
	stray := present(3)
	stray.Mailbox = "unknown"
	if err := l.Save(t.Context(), present(1), present(2), stray); err == nil || !strings.Contains(err.Error(), "unknown UID 3") {
		t.Errorf("a message without mailbox: %v", err)
	}
	if got := l.all(t); len(got) != 0 {
		t.Errorf("half of it was saved: %v", got)
	}
	if err := l.Save(t.Context()); err != nil {
		t.Errorf("nothing to save: %v", err)
	}
}

func TestRowsAreThoseOfOneUIDValidityByUID(t *testing.T) {
	l := newLedger(t)
	other, older := present(7), present(8)
	other.Mailbox, older.UIDValidity = "Archive", 13
	stub := Message{Mailbox: "INBOX", UIDValidity: 14, UID: 10, State: Stub}
	if err := l.Save(t.Context(), present(300, `\Seen`), present(2, "x", `\Seen`), other, older, stub); err != nil {
		t.Fatal(err)
	}
	got, err := l.Rows(t.Context(), "INBOX", 14)
	want := []Row{
		{UID: 2, State: Present, Flags: []string{`\Seen`, "x"}, Key: present(2).Key, Name: present(2).Name},
		{UID: 10, State: Stub},
		{UID: 300, State: Present, Flags: []string{`\Seen`}, Key: present(300).Key, Name: present(300).Name},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	old, err := l.OtherValidity(t.Context(), "INBOX", 14)
	if err != nil || !slices.Equal(uids(old), []imap.UID{8}) {
		t.Errorf("other UIDVALIDITY: %+v, %v", old, err)
	}
}

func TestGetManyTakesAnyNumber(t *testing.T) {
	l := newLedger(t)
	var ms []Message
	var ask []imap.UID
	for u := imap.UID(1); u <= 1300; u++ {
		ms = append(ms, present(u))
		ask = append(ask, 2602-2*u) // every other one, descending, from above the highest
	}
	if err := l.Save(t.Context(), ms...); err != nil {
		t.Fatal(err)
	}
	got, err := l.GetMany(t.Context(), "INBOX", 14, ask)
	if err != nil || len(got) != 650 || got[0].UID != 2 || got[649].UID != 1300 || !slices.IsSorted(uids(got)) {
		t.Errorf("%d messages, %v", len(got), err)
	}
	if got, err := l.GetMany(t.Context(), "INBOX", 14, nil); err != nil || len(got) != 0 {
		t.Errorf("none asked for: %v, %v", got, err)
	}
}

func TestDeleteForgetsWhatIsNamed(t *testing.T) {
	l := newLedger(t)
	older := present(1)
	older.UIDValidity = 13
	if err := l.Save(t.Context(), present(1), present(2), present(3), older); err != nil {
		t.Fatal(err)
	}
	if err := l.Delete(t.Context(), "INBOX", 14, 1, 3, 99); err != nil {
		t.Fatal(err)
	}
	if got := l.all(t); len(got) != 2 || got[0].UIDValidity != 13 || got[1].UID != 2 {
		t.Errorf("left: %+v", got)
	}
}

func TestRecordMovesAllOrNone(t *testing.T) {
	l := newLedger(t)
	a, b := present(1), present(2)
	if err := l.Save(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	before := l.all(t)
	to := []Message{a, b}
	to[0].UIDValidity, to[0].UID = 15, 70
	to[1].Mailbox = "unknown"
	if err := l.Record(t.Context(), Change{Forget: []Message{a, b}, Save: to}); err == nil {
		t.Error("a mailbox that is not there is no error")
	}
	if got := l.all(t); !reflect.DeepEqual(got, before) {
		t.Errorf("half of it was done: %+v", got)
	}
	// Two that change places: each new key is the other's old one.
	to[0], to[1] = a, b
	to[0].UID, to[1].UID = 2, 1
	if err := l.Record(t.Context(), Change{Forget: []Message{a, b}, Save: to}); err != nil {
		t.Fatal(err)
	}
	if got := l.all(t); len(got) != 2 || got[0].ID != b.ID || got[1].ID != a.ID {
		t.Errorf("got %+v", got)
	}
}

func TestMessagesAreFoundByStateAndID(t *testing.T) {
	l := newLedger(t)
	var ms []Message
	states := []State{Intended, Present, Stub, Skipped, GivenUp, Kept}
	for i, s := range states {
		m := present(imap.UID(i + 1))
		m.State, m.ID = s, []string{"same@example.org", "it's another"}[i%2]
		ms = append(ms, m)
	}
	ms[5].Mailbox = "Archive"
	if err := l.Save(t.Context(), ms...); err != nil {
		t.Fatal(err)
	}
	for i, s := range states {
		if got, err := l.InState(t.Context(), s); err != nil || !slices.Equal(uids(got), []imap.UID{imap.UID(i + 1)}) {
			t.Errorf("%s: %v, %v", s, uids(got), err)
		}
	}
	if some, err := l.Any(t.Context(), Stub, GivenUp); err != nil || !some {
		t.Errorf("Any: %v %v", some, err)
	}
	if some, err := l.Any(t.Context(), "it's none"); err != nil || some {
		t.Errorf("Any of none: %v %v", some, err)
	}
	if got, err := l.InState(t.Context(), Present, Stub, "it's none"); err != nil || !slices.Equal(uids(got), []imap.UID{2, 3}) {
		t.Errorf("%v, %v", uids(got), err)
	}
	if got, err := l.ByMessageID(t.Context(), "it's another"); err != nil || len(got) != 3 || got[2].Mailbox != "Archive" {
		t.Errorf("%v, %v", got, err)
	}
	if n, err := l.Count(t.Context(), "INBOX", 14, Present, Stub, Kept); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// A mail without Message-ID is like another one with its text, whatever notmuch calls the two.
func TestWhatIsLikeAMail(t *testing.T) {
	l := newLedger(t)
	text, other := mail.Digest{1}, mail.Digest{2}
	for i, m := range []Message{{ID: "a@b", Digest: text}, {ID: "notmuch-sha1-1", Digest: text}, {ID: "notmuch-sha1-2", Digest: text}, {ID: "notmuch-sha1-3", Digest: other}, {ID: "notmuch-sha1-4"}} {
		m.Mailbox, m.UID, m.State = "INBOX", imap.UID(i+1), Present
		if err := l.Save(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		of   Message
		want []imap.UID
	}{
		{Message{ID: "a@b", Digest: other}, []imap.UID{1}},
		{Message{ID: "notmuch-sha1-2", Digest: text}, []imap.UID{2, 3}},
		{Message{ID: "notmuch-sha1-9", Digest: other}, []imap.UID{4}},
		{Message{ID: "notmuch-sha1-4", Digest: text}, []imap.UID{2, 3, 5}},
		{Message{ID: "notmuch-sha1-4"}, []imap.UID{5}},
		{Message{ID: "c@d"}, nil},
	} {
		rows, err := l.Like(t.Context(), tc.of)
		got := uids(rows)
		if slices.Sort(got); err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("like %s are %v, want %v: %v", tc.of.ID, got, tc.want, err)
		}
	}
}

// Each sync asks for stubs and intents: that must not cost a look at every mail.
func TestQuestionsOfEverySyncUseAnIndex(t *testing.T) {
	l := newLedger(t)
	for where, index := range map[string]string{
		"state IN ('stub') AND state <> 'present' ORDER BY mailbox, uidvalidity, uid":             "message_state",
		"state IN ('intended', 'stub') AND state <> 'present' ORDER BY mailbox, uidvalidity, uid": "message_state",
		"message.id = 'x'": "message_id",
		"mailbox = (SELECT id FROM mailbox WHERE name = 'INBOX') AND uidvalidity = 14 AND uid IN (1, 2) ORDER BY uid": "PRIMARY KEY (mailbox=? AND uidvalidity=? AND uid=?)",
	} {
		rows, err := l.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN SELECT "+columns+" FROM message WHERE "+where)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		if p := strings.Join(plan, "\n"); !strings.Contains(p, index) || strings.Contains(p, "SCAN") {
			t.Errorf("%s:\n%s", where, p)
		}
	}
}

func TestMetaKeepsTheLastValue(t *testing.T) {
	l := newLedger(t)
	if v, err := l.Meta(t.Context(), "not_before"); v != "" || err != nil {
		t.Error(v, err)
	}
	for _, want := range []string{"a", "b", ""} {
		if err := l.SetMeta(t.Context(), "not_before", want); err != nil {
			t.Fatal(err)
		}
		if v, err := l.Meta(t.Context(), "not_before"); v != want || err != nil {
			t.Error(v, err)
		}
	}
}

func TestMetasOfAPrefix(t *testing.T) {
	l := newLedger(t)
	for k, v := range map[string]string{"up/": "none", "up/a": "1", "up/é/b": "2", "up": "x", "up.": "x", "up0": "x", "uq/a": "x"} {
		if err := l.SetMeta(t.Context(), k, v); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Metas(t.Context(), "up/")
	if want := map[string]string{"up/a": "1", "up/é/b": "2"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v: %q", err, got)
	}
}

func TestStagesUseOneLedgerAtOnce(t *testing.T) {
	l := newLedger(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20 {
				u := imap.UID(g*1000 + i*10 + 1)
				if err := l.Save(t.Context(), present(u), present(u+1)); err != nil {
					t.Error(err)
				}
				if err := l.Save(cancelled, present(u+2)); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				rows, err := l.Rows(t.Context(), "INBOX", 14)
				if err != nil || len(rows)%2 != 0 {
					t.Errorf("%d rows, %v", len(rows), err)
				}
				if err := l.Delete(t.Context(), "INBOX", 14, u, u+1); i%2 == 0 && err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(l.all(t)); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func BenchmarkSave200(b *testing.B) {
	l := newLedger(b)
	u := imap.UID(0)
	for b.Loop() {
		ms := make([]Message, 200)
		for i := range ms {
			u++
			ms[i] = present(u, `\Seen`)
		}
		if err := l.Save(b.Context(), ms...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRows100k(b *testing.B) {
	l := newLedger(b)
	ms := make([]Message, 100_000)
	for i := range ms {
		ms[i] = present(imap.UID(i+1), [][]string{{`\Seen`}, nil, {`\Seen`, `\Answered`}}[i%3]...)
	}
	if err := l.Save(b.Context(), ms...); err != nil {
		b.Fatal(err)
	}
	b.Run("Rows", func(b *testing.B) {
		for b.Loop() {
			if rows, err := l.Rows(b.Context(), "INBOX", 14); err != nil || len(rows) != len(ms) {
				b.Fatal(len(rows), err)
			}
		}
	})
	b.Run("InState", func(b *testing.B) {
		for b.Loop() {
			if rows, err := l.InState(b.Context(), Stub, Intended); err != nil || len(rows) != 0 {
				b.Fatal(len(rows), err)
			}
		}
	})
	b.Run("ByMessageID", func(b *testing.B) {
		for b.Loop() {
			if rows, err := l.ByMessageID(b.Context(), "777@example.org"); err != nil || len(rows) != 1 {
				b.Fatal(len(rows), err)
			}
		}
	})
	b.Run("Count", func(b *testing.B) {
		for b.Loop() {
			if n, err := l.Count(b.Context(), "INBOX", 14, Present, Stub); err != nil || n != len(ms) {
				b.Fatal(n, err)
			}
		}
	})
}

func TestAForgottenMailboxLeavesNothingBehind(t *testing.T) {
	l := newLedger(t)
	ctx := t.Context()
	other := present(1)
	other.Mailbox, other.Key = "Archive", "k"
	old := present(2)
	old.UIDValidity = 13
	if err := errors.Join(l.Save(ctx, present(1), other, old), l.SetMeta(ctx, "scanned/INBOX", "1"), l.SetMeta(ctx, "scanned/Archive", "2")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Forget(ctx, "INBOX", "scanned/INBOX", "none"); err != nil {
			t.Fatal(err)
		}
	}
	if ms := l.all(t); len(ms) != 1 || ms[0].Mailbox != "Archive" {
		t.Errorf("left are %+v", ms)
	}
	if boxes, err := l.Mailboxes(ctx); err != nil || len(boxes) != 1 || boxes[0].Name != "Archive" {
		t.Errorf("%+v %v", boxes, err)
	}
	for key, want := range map[string]string{"scanned/INBOX": "", "scanned/Archive": "2"} {
		if v, err := l.Meta(ctx, key); err != nil || v != want {
			t.Errorf("%s is %q, %v", key, v, err)
		}
	}
}
