package plan

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func Row(uid imap.UID, state ledger.State, flags ...string) ledger.Row {
	return ledger.Row{UID: uid, State: state, Flags: flags}
}

func Msg(uid imap.UID, flags ...string) mail.Message {
	if flags == nil {
		flags = []string{}
	}
	return mail.Message{UID: uid, Flags: flags}
}

func TestPlan(t *testing.T) {
	present := ledger.Present
	for name, c := range map[string]struct {
		Rows  []ledger.Row
		View  View
		Fetch []imap.UID
		Flags []imap.UID
		Gone  []imap.UID
	}{
		"first sync, newest first":         {View: View{Complete: true, UIDs: []imap.UID{1, 2, 3}}, Fetch: []imap.UID{3, 2, 1}},
		"nothing changed":                  {Rows: []ledger.Row{Row(1, present), Row(2, present)}, View: View{Complete: true, UIDs: []imap.UID{1, 2}}},
		"gone from a listing":              {Rows: []ledger.Row{Row(1, present), Row(2, present)}, View: View{Complete: true, UIDs: []imap.UID{2}}, Gone: []imap.UID{1}},
		"not named in a delta":             {Rows: []ledger.Row{Row(1, present)}, View: View{Messages: []mail.Message{Msg(2)}}, Fetch: []imap.UID{2}},
		"vanished":                         {Rows: []ledger.Row{Row(1, present), Row(2, ledger.Stub)}, View: View{Vanished: mail.EveryUID()}, Gone: []imap.UID{1, 2}},
		"new and vanished at once":         {View: View{Messages: []mail.Message{Msg(5)}, Vanished: mail.UIDSet([]imap.UID{5})}},
		"flags":                            {Rows: []ledger.Row{Row(1, present, `\Seen`)}, View: View{Messages: []mail.Message{Msg(1, `\Flagged`)}}, Flags: []imap.UID{1}},
		"flags in other case":              {Rows: []ledger.Row{Row(1, present, `\Seen`)}, View: View{Messages: []mail.Message{Msg(1, `\SEEN`)}}},
		"flags not told":                   {Rows: []ledger.Row{Row(1, present, `\Seen`)}, View: View{Messages: []mail.Message{{UID: 1}}}},
		"a stub is not fetched as new":     {Rows: []ledger.Row{Row(1, ledger.Stub)}, View: View{Complete: true, UIDs: []imap.UID{1}}},
		"given up is not fetched":          {Rows: []ledger.Row{Row(1, ledger.GivenUp)}, View: View{Complete: true, UIDs: []imap.UID{1}}},
		"an intent is fetched again":       {Rows: []ledger.Row{Row(1, ledger.Intended)}, View: View{Complete: true, UIDs: []imap.UID{1}}, Fetch: []imap.UID{1}},
		"an intent is not deleted":         {Rows: []ledger.Row{Row(1, ledger.Intended)}, View: View{Complete: true}},
		"UID 0":                            {View: View{Messages: []mail.Message{Msg(0)}}},
		"one message told twice":           {Rows: []ledger.Row{Row(1, present)}, View: View{Messages: []mail.Message{Msg(1, "a"), Msg(1, "b")}}, Flags: []imap.UID{1}},
		"told, but not in the listing":     {View: View{Complete: true, UIDs: []imap.UID{1}, Messages: []mail.Message{Msg(1), Msg(9)}}, Fetch: []imap.UID{1}},
		"listed, though its flags are not": {View: View{Complete: true, UIDs: []imap.UID{1, 2}, Messages: []mail.Message{Msg(1)}}, Fetch: []imap.UID{2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			a := OfServer(c.Rows, c.View)
			var flags []imap.UID
			for _, f := range a.Flags {
				flags = append(flags, f.UID)
			}
			if !slices.Equal(a.Fetch, c.Fetch) || !slices.Equal(flags, c.Flags) || !slices.Equal(a.Gone, c.Gone) {
				t.Errorf("fetch %v flags %v gone %v, want %v %v %v", a.Fetch, flags, a.Gone, c.Fetch, c.Flags, c.Gone)
			}
		})
	}
}

// FuzzPlan checks that whatever the server has and the ledger believes, doing
// what is planned once makes the ledger hold what the server has, and that the
// second plan is empty. Full listings and deltas must agree.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{2, 3, 4}, true)
	f.Add([]byte{}, []byte{1, 1, 1}, false)
	f.Add([]byte{9, 8}, []byte{}, true)
	f.Fuzz(func(t *testing.T, ledgerBytes, serverBytes []byte, complete bool) {
		flags := func(b byte) []string {
			out := []string{}
			for i, r := range FlagRows() {
				if b&(1<<(i%3)) != 0 {
					out = append(out, r.Flag)
				}
			}
			return out
		}
		rows := make(map[imap.UID]ledger.Row)
		states := []ledger.State{ledger.Present, ledger.Stub, ledger.Intended, ledger.GivenUp, ledger.Skipped}
		for i, b := range ledgerBytes {
			u := imap.UID(b%64) + 1
			rows[u] = ledger.Row{UID: u, State: states[i%len(states)], Flags: flags(b >> 6)}
		}
		server := make(map[imap.UID][]string)
		for _, b := range serverBytes {
			server[imap.UID(b%64)+1] = flags(b >> 5)
		}
		see := func() View {
			v := View{Complete: complete}
			for _, u := range slices.Sorted(maps.Keys(server)) {
				v.Messages = append(v.Messages, mail.Message{UID: u, Flags: server[u]})
				v.UIDs = append(v.UIDs, u)
			}
			if !complete {
				v.UIDs = nil
				for u := range rows {
					if _, ok := server[u]; !ok {
						v.Vanished.AddNum(u)
					}
				}
			}
			return v
		}
		sorted := func() []ledger.Row {
			return slices.SortedFunc(maps.Values(rows), func(a, b ledger.Row) int { return int(a.UID) - int(b.UID) })
		}
		a := OfServer(sorted(), see())
		for _, u := range a.Fetch {
			if r, ok := rows[u]; ok && r.State != ledger.Intended {
				t.Fatalf("UID %d is fetched again", u)
			}
			rows[u] = ledger.Row{UID: u, State: ledger.Present, Flags: server[u]}
		}
		for _, c := range a.Flags {
			r := rows[c.UID]
			r.Flags = c.After
			rows[c.UID] = r
		}
		for _, u := range a.Gone {
			delete(rows, u)
		}
		for u := range server {
			r, ok := rows[u]
			if !ok || r.State == ledger.Intended || !SameFlags(r.Flags, server[u]) {
				t.Fatalf("UID %d: %+v, the server has %v", u, r, server[u])
			}
		}
		for u, r := range rows {
			if _, ok := server[u]; !ok && r.State != ledger.Intended {
				t.Fatalf("UID %d stays though it is gone", u)
			}
		}
		if b := OfServer(sorted(), see()); len(b.Fetch)+len(b.Flags)+len(b.Gone) > 0 {
			t.Fatalf("the second plan is not empty: %+v", b)
		}
	})
}

func TestDeletionGuard(t *testing.T) {
	for _, c := range []struct {
		Gone, Have int
		Want       bool
	}{
		{0, 0, false}, {50, 50, false}, {51, 51, true}, {51, 510, false}, {51, 509, true}, {1000, 1000, true}, {60, 10000, false},
	} {
		if got := guarded(c.Gone, c.Have); got != c.Want {
			t.Errorf("%d of %d: held %v", c.Gone, c.Have, got)
		}
		// Where some were held back before, all wait, and nothing else is in order.
		var j Judgement
		s := Suspicion{Gone: c.Gone, Have: c.Have, Held: true}
		s.Weigh(&j, c.Gone, true)
		if s.Holds(c.Gone) != (c.Gone > 0) || j.Mistake() != (c.Gone > 0) || s.Why(c.Gone) == "" != c.Want {
			t.Errorf("%d of %d, held back before: %+v %q", c.Gone, c.Have, j, s.Why(c.Gone))
		}
	}
}

func TestHostileUIDSetIsNotExpanded(t *testing.T) {
	for _, set := range []imap.UIDSet{mail.EveryUID(), {{Start: 1, Stop: 0}}, {{Start: 5, Stop: 3}}, {{Start: 0, Stop: 3}}} {
		if uids, ok := mail.UIDList(set, 1000); ok {
			t.Errorf("%v became %d numbers", set, len(uids))
		}
	}
	if uids, ok := mail.UIDList(imap.UIDSet{{Start: 3, Stop: 4}, {Start: 1, Stop: 3}}, 1000); !ok || !slices.Equal(uids, []imap.UID{1, 2, 3, 4}) {
		t.Errorf("%v %v", uids, ok)
	}
	if uids, ok := mail.UIDList(imap.UIDSet{{Start: 4294967295, Stop: 4294967295}}, 10); !ok || len(uids) != 1 {
		t.Errorf("the highest UID: %v %v", uids, ok)
	}
}

func TestUIDSetIsAscendingAndShort(t *testing.T) {
	if got := mail.UIDSet([]imap.UID{9, 3, 2, 1, 3, 8}).String(); got != "1:3,8:9" {
		t.Error(got)
	}
}

func TestMatchPairsEachMessageWithItsOwn(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2020, 1, n, 0, 0, 0, 0, time.UTC) }
	server := []mail.Message{
		{UID: 1, MessageID: "a", Size: 10, InternalDate: day(1)},
		{UID: 2, MessageID: "a", Size: 20, InternalDate: day(2)}, // same Message-ID, another mail
		{UID: 3, MessageID: "", Size: 30, InternalDate: day(3)},
		{UID: 4, MessageID: "", Size: 30, InternalDate: day(4)},
		{UID: 5, MessageID: "e", Size: 50, InternalDate: day(5)},
		{UID: 6, MessageID: "", Size: 60, InternalDate: day(6)}, // its Message-ID is not told
		{UID: 7, MessageID: "g", Size: 70, InternalDate: day(7)},
		{UID: 8, MessageID: "", Size: 80, InternalDate: day(8)},
		{UID: 9, MessageID: "nul", Size: 91, InternalDate: day(10)},
		{UID: 10, MessageID: "notmuch-sha1-10", Size: 100, InternalDate: day(12)}, // too long
		{UID: 11, MessageID: "y", Size: 110, InternalDate: day(11)},               // it contradicts
	}
	here := []Untracked{}
	for _, m := range []ledger.Message{
		{Key: "k2", ID: "a", Size: 20, Date: day(2)},
		{Key: "k1", ID: "a", Size: 99, Date: day(1)}, // size told otherwise (Exchange)
		{Key: "k3", ID: "", Size: 30, Date: day(3)},
		{Key: "k5", ID: "e", Size: 5000, Date: day(6)}, // neither agrees
		{Key: "k6", ID: "f", Size: 60, Date: day(6)},
		{Key: "k7", ID: "", Size: 70, Date: day(7)}, // notmuch does not take it for a mail
		{Key: "k8", ID: "notmuch-sha1-8", Size: 80, Date: day(8)},
		{Key: "k9", ID: "nul\u0080inside", Size: 90, Date: day(9)},
		{Key: "k10", ID: "notmuch-sha1-10", Size: 101, Date: day(10)},
		{Key: "k11", ID: "x", Size: 110, Date: day(11)},
	} {
		here = append(here, Untracked{Message: m})
	}
	got, ask := Pair(server, here, Evidence{})
	if len(ask) > 0 {
		t.Errorf("the text of %v is asked for", ask)
	}
	want := map[imap.UID]string{1: "k1", 2: "k2", 3: "k3", 6: "k6", 7: "k7", 8: "k8", 9: "k9", 10: "k10"}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for u, k := range want {
		if got[u].Key != k {
			t.Errorf("UID %d: %q, want %q", u, got[u].Key, k)
		}
	}
}

func TestBatchesBeginSmall(t *testing.T) {
	var uids []imap.UID
	for u := range imap.UID(500) {
		uids = append(uids, 500-u)
	}
	n := 0
	for i, b := range Batches(uids) {
		if i == 0 && len(b) != 25 || len(b) > 200 {
			t.Errorf("batch %d holds %d", i, len(b))
		}
		n += len(b)
	}
	if n != 500 {
		t.Errorf("%d of 500", n)
	}
}

// A message whose file went with its copy comes when it is not to be deleted any more.
func TestAnOriginalThatIsToStayComes(t *testing.T) {
	t.Parallel()
	rows := []ledger.Row{{UID: 1, State: ledger.Present, Flags: []string{`\Deleted`}}, {UID: 2, State: ledger.Present, Flags: []string{`\Deleted`}}}
	told := []mail.Message{{UID: 1, Flags: []string{}}, {UID: 2, Flags: []string{`\Deleted`}}}
	if a := OfServer(rows, View{Messages: told}); !slices.Equal(a.Fetch, []imap.UID{1}) || len(a.Flags) != 0 {
		t.Errorf("%+v", a)
	}
}

// Large mails come for themselves, the smallest first, so many at once as take no longer than one;
// a huge one comes alone. What is not known to be large is small, and of that the newest come first.
func TestLargeMailsArePartedFromTheOthers(t *testing.T) {
	sizes := map[imap.UID]int64{1: 5, 2: Large, 3: 15 * Large, 4: 40 * Large, 6: Large - 1, 7: Large, 8: 17 * Large, 9: 17 * Large, 10: Huge}
	small, large, huge := BySize([]imap.UID{7, 8, 6, 5, 10, 4, 3, 9, 2, 1}, sizes)
	if want := []imap.UID{6, 5, 1}; !slices.Equal(small, want) {
		t.Errorf("small: %v, not %v", small, want)
	}
	if want := [][]imap.UID{{7, 2}, {3}}; !slices.EqualFunc(large, want, slices.Equal) {
		t.Errorf("large: %v, not %v", large, want)
	}
	if want := []imap.UID{10, 9, 8, 4}; !slices.Equal(huge, want) {
		t.Errorf("huge: %v, not %v", huge, want)
	}
}
