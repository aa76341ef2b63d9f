package journal

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

func open(t *testing.T) (*Journal, *ledger.Ledger) {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return Of(l), l
}

// get is Get of any kind.
func get[T any](t *testing.T, n Notes[T], about string) any {
	t.Helper()
	v, ok, err := n.Get(t.Context(), about)
	if err != nil || !ok {
		t.Errorf("%s%s: %v, %v", n.kind.Key, about, ok, err)
	}
	return v
}

// The notes of a ledger as the versions before this package left it mean what they meant,
// and what is written is the same text.
func TestNotesOfEarlierVersions(t *testing.T) {
	t.Parallel()
	j, l := open(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	row := ledger.Message{Mailbox: "a/b", UIDValidity: 14, UID: 3}
	rowText := `{"Mailbox":"a/b","UIDValidity":14,"UID":3,"State":"","Key":"","Name":"","ID":"","Size":0,"WireSize":0,"Digest":[` + strings.Repeat("0,", 31) + `0],"Date":"0001-01-01T00:00:00Z",` +
		`"Flags":null,"StubKey":"","StubName":"","Attempts":0,"Since":"0001-01-01T00:00:00Z","NextTry":"0001-01-01T00:00:00Z","Reason":""}`
	for key, c := range map[string]struct {
		text string
		read func() any
		want any
		put  func(*Change)
	}{
		"flags": {`[{"Mailbox":"a","UIDValidity":14,"UID":3,"Flags":["\\Seen"]}]`, func() any { return get(t, j.Flags.notes, "") },
			[]Flagging{{"a", 14, 3, []string{`\Seen`}}}, func(c *Change) { j.Flags.notes.Put(c, "", []Flagging{{"a", 14, 3, []string{`\Seen`}}}) }},
		"told/a/b/14/3": {`{"mailbox":"a/b","uidvalidity":14,"uid":3,"flags":["todo"]}`, func() any { return get(t, j.Told, "a/b/14/3") },
			Told{"a/b", 14, 3, []string{"todo"}}, func(c *Change) { j.Told.Put(c, About(row), Told{"a/b", 14, 3, []string{"todo"}}) }},
		"back": {`[{"From":"/a","To":"/b","ID":"i"}]`, func() any { return get(t, j.Back.notes, "") },
			[]MovedBack{{"/a", "/b", "i"}}, func(c *Change) { j.Back.notes.Put(c, "", []MovedBack{{"/a", "/b", "i"}}) }},
		"expunge": {`{"mailbox":"a","uidvalidity":14,"uid":3,"had":true,"others":[4]}`, func() any { return get(t, j.Expunge.notes, "") },
			probe.Marks{Mailbox: "a", UIDValidity: 14, UID: 3, Had: true, Others: []imap.UID{4}},
			func(c *Change) {
				j.Expunge.notes.Put(c, "", probe.Marks{Mailbox: "a", UIDValidity: 14, UID: 3, Had: true, Others: []imap.UID{4}})
			}},
		"moving/a/b": {`{"mailbox":"a/b","uidvalidity":14,"uids":[3],"to":"c","to_validity":15,"to_next":9,"copied":true,"verb":"COPY","deleted":false,"absent":[3],"files":{}}`,
			func() any { return get(t, j.Moving, "a/b") },
			Moving{Mailbox: "a/b", UIDValidity: 14, UIDs: []imap.UID{3}, To: "c", ToValidity: 15, ToNext: 9, Copied: true, Verb: "COPY", Absent: []imap.UID{3}, Files: map[imap.UID]Arrival{}},
			func(c *Change) {
				j.Moving.Put(c, "a/b", Moving{Mailbox: "a/b", UIDValidity: 14, UIDs: []imap.UID{3}, To: "c", ToValidity: 15, ToNext: 9, Copied: true, Verb: "COPY",
					Absent: []imap.UID{3}, Files: map[imap.UID]Arrival{}, ByTags: true})
			}},
		"arriving/k": {`{"row":` + rowText + `,"next":9,"from":` + rowText + `}`, func() any { return get(t, j.Arriving, "k") },
			Arrival{Row: row, Next: 9, From: row}, func(c *Change) { j.Arriving.Put(c, "k", Arrival{Row: row, Next: 9, From: row}) }},
		"linked/k": {`{"mailbox":"a/b","uidvalidity":14,"uid":3,"to":"c","to_validity":15,"to_uid":9,"by_tags":true,"gone":true}`, func() any { return get(t, j.Linked, "k") },
			Linking{"a/b", 14, 3, "c", 15, 9, true, true}, func(c *Change) { j.Linked.Put(c, "k", Linking{"a/b", 14, 3, "c", 15, 9, true, true}) }},
		"forgotten/a/b/14/3": {rowText, func() any { return get(t, j.Forgotten, "a/b/14/3") }, Gone{Message: row}, func(c *Change) { j.Forgotten.Put(c, About(row), Gone{Message: row}) }},
		"forgotten/a/b/14/4": {strings.TrimSuffix(rowText, "}") + `,"tags":["inbox","x y"]}`, func() any { return get(t, j.Forgotten, "a/b/14/4") },
			Gone{row, []string{"inbox", "x y"}}, func(c *Change) { j.Forgotten.Put(c, "a/b/14/4", Gone{row, []string{"inbox", "x y"}}) }},
		"ruled/a/b/14/3": {`{"mailbox":"a/b","uidvalidity":14,"uid":3,"to":"c"}`, func() any { return get(t, j.Ruled, "a/b/14/3") },
			Ruled{"a/b", 14, 3, "c"}, func(c *Change) { j.Ruled.Put(c, About(row), Ruled{"a/b", 14, 3, "c"}) }},
		"remove": {`{"mailbox":"a","folder":"a","uidvalidity":14,"keys":["k"]}`, func() any { return get(t, j.Remove.notes, "") },
			Removal{"a", "a", 14, []string{"k"}}, func(c *Change) { j.Remove.notes.Put(c, "", Removal{"a", "a", 14, []string{"k"}}) }},
		"unsent/a/b/k": {`{"mailbox":"a/b","name":"cur/k:2,","id":"i","size":5,"attempts":2,"next_try":"2026-01-02T03:04:05Z","since":"2026-01-02T03:04:05Z","reason":"no"}`,
			func() any { return get(t, j.Unsent, "a/b/k") }, Unsent{"a/b", "cur/k:2,", "i", 5, Tries{2, at, at, "no", false}},
			func(c *Change) {
				j.Unsent.Put(c, AboutFile("a/b", "k"), Unsent{"a/b", "cur/k:2,", "i", 5, Tries{2, at, at, "no", false}})
			}},
		"silent/STATUS/a/b": {`{"attempts":2,"next_try":"2026-01-02T03:04:05Z"}`, func() any { return get(t, j.Unavailable, "STATUS/a/b") },
			Unavailable{Tries{Attempts: 2, NextTry: at}}, func(c *Change) {
				j.Unavailable.Put(c, AboutWord("STATUS", "a/b"), Unavailable{Tries{Attempts: 2, NextTry: at}})
			}},
		"silent/EXAMINE/a/b": {`{"attempts":2,"next_try":"2026-01-02T03:04:05Z","since":"2026-01-02T03:04:05Z","reason":"no","given_up":true}`,
			func() any { return get(t, j.Unavailable, "EXAMINE/a/b") }, Unavailable{Tries{2, at, at, "no", true}},
			func(c *Change) {
				j.Unavailable.Put(c, AboutWord("EXAMINE", "a/b"), Unavailable{Tries{2, at, at, "no", true}})
			}},
		"declined/a/b/14/3": {`{"mailbox":"a/b","uidvalidity":14,"uid":3,"changes":{"move c":{"attempts":2,"next_try":"2026-01-02T03:04:05Z","since":"2026-01-02T03:04:05Z","reason":"no"}}}`,
			func() any { return get(t, j.Declined, "a/b/14/3") }, Declined{"a/b", 14, 3, map[string]Tries{"move c": {2, at, at, "no", false}}},
			func(c *Change) {
				j.Declined.Put(c, About(row), Declined{"a/b", 14, 3, map[string]Tries{"move c": {2, at, at, "no", false}}})
			}},
		"removed/00ff": {`{"tags":["work"],"at":"2026-01-02T03:04:05Z"}`, func() any { return get(t, j.Removed, "00ff") },
			Removed{[]string{"work"}, at}, func(c *Change) { j.Removed.Put(c, "00ff", Removed{[]string{"work"}, at}) }},
		"standing/held/a/b": {"2026-01-02T03:04:05Z these words", func() any { return get(t, j.Standing, "held/a/b") },
			Standing{Told: at, Text: "these words"}, func(c *Change) {
				j.Standing.Put(c, AboutWord("held", "a/b"), Standing{Told: at, Text: "these words"})
			}},
		"standing/push/a/b": {"2026-01-02T03:04:05Z/2026-01-02T03:04:05Z these words", func() any { return get(t, j.Standing, "push/a/b") },
			Standing{at, at, "these words"}, func(c *Change) { j.Standing.Put(c, AboutWord("push", "a/b"), Standing{at, at, "these words"}) }},
		"standing/gone/a/b": {"-/2026-01-02T03:04:05Z these words", func() any { return get(t, j.Standing, "gone/a/b") },
			Standing{Since: at, Text: "these words"}, func(c *Change) {
				j.Standing.Put(c, AboutWord("gone", "a/b"), Standing{Since: at, Text: "these words"})
			}},
		"sign-in refused": {`{"attempts":2,"next_try":"2026-01-02T03:04:05Z","text":"no","way":"w","secret":"s"}`, func() any { return get(t, j.Refused.notes, "") },
			Refusal{Attempts: 2, NextTry: at, Text: "no", Way: "w", Secret: "s"}, func(c *Change) {
				j.Refused.notes.Put(c, "", Refusal{Attempts: 2, NextTry: at, Text: "no", Way: "w", Secret: "s"})
			}},
		"not_before by": {"ab12", func() any { return get(t, j.LeftBy.notes, "") }, Text("ab12"), func(c *Change) { j.LeftBy.notes.Put(c, "", "ab12") }},
		"not_before":    {"2026-01-02T03:04:05Z", func() any { return get(t, j.NotBefore.notes, "") }, Moment{at}, func(c *Change) { j.NotBefore.notes.Put(c, "", Moment{at}) }},
		"without": {`{"server":"s","arguments":{"FETCH x":"2026-01-02T03:04:05Z"}}`, func() any { return get(t, j.Without.notes, "") },
			Without{"s", map[string]time.Time{"FETCH x": at}}, func(c *Change) {
				j.Without.notes.Put(c, "", Without{"s", map[string]time.Time{"FETCH x": at}})
			}},
		"before/a":           {"said", func() any { return get(t, j.Before, "a") }, SaidOnce, func(c *Change) { j.Before.Put(c, "a", SaidOnce) }},
		"uploaded/k":         {"a/b", func() any { return get(t, j.NeverUpload, "k") }, Text("a/b"), func(c *Change) { j.NeverUpload.Put(c, "k", "a/b") }},
		"gone/14/a/b":        {"said", func() any { return get(t, j.GoneSaid, "14/a/b") }, SaidOnce, func(c *Change) { j.GoneSaid.Put(c, AboutWord(14, "a/b"), SaidOnce) }},
		"folder/a":           {"said", func() any { return get(t, j.FolderSaid, "a") }, SaidOnce, func(c *Change) { j.FolderSaid.Put(c, "a", SaidOnce) }},
		"twin/k":             {"said", func() any { return get(t, j.TwinSaid, "k") }, SaidOnce, func(c *Change) { j.TwinSaid.Put(c, "k", SaidOnce) }},
		`stays/\Flagged/a/b`: {"said", func() any { return get(t, j.StaysSaid, `\Flagged/a/b`) }, SaidOnce, func(c *Change) { j.StaysSaid.Put(c, AboutWord(`\Flagged`, "a/b"), SaidOnce) }},
		"odd/a":              {"said", func() any { return get(t, j.OddSaid, "a") }, SaidOnce, func(c *Change) { j.OddSaid.Put(c, "a", SaidOnce) }},
		"scanned/a/b":        {"14 5 6 8 9 7.100", func() any { return get(t, j.Scanned, "a/b") }, ScanOf(14, [4]time.Time{time.Unix(0, 5), time.Unix(0, 6), time.Unix(0, 8), time.Unix(0, 9)}, "7.100"), func(c *Change) { j.Scanned.Put(c, "a/b", "14 5 6 8 9 7.100") }},
		"scanned/again":      {"again 7.100", func() any { return get(t, j.Scanned, "again") }, ScanAgain("7.100"), func(c *Change) { j.Scanned.Put(c, "again", ScanAgain("7.100")) }},
		"scanned/doubted":    {"doubted its folder is gone 0", func() any { return get(t, j.Scanned, "doubted") }, ScanDoubted("its folder is gone"), func(c *Change) { j.Scanned.Put(c, "doubted", ScanDoubted("its folder is gone")) }},
		"uploading/a/b":      {"14 9", func() any { return get(t, j.Uploading, "a/b") }, Since{14, 9, false}, func(c *Change) { j.Uploading.Put(c, "a/b", Since{14, 9, false}) }},
		"uploading/only":     {"read-only", func() any { return get(t, j.Uploading, "only") }, Since{ReadOnly: true}, func(c *Change) { j.Uploading.Put(c, "only", Since{ReadOnly: true}) }},
		"tags":               {"uuid 5 rules", func() any { return get(t, j.Tags.notes, "") }, Revision{mail.Revision{UUID: "uuid", N: 5}, "rules"}, func(c *Change) { j.Tags.notes.Put(c, "", Revision{mail.Revision{UUID: "uuid", N: 5}, "rules"}) }},
		"tags/names":         {"uuid 5", func() any { return get(t, j.TagNames.notes, "") }, Revision{Revision: mail.Revision{UUID: "uuid", N: 5}}, func(c *Change) { j.TagNames.notes.Put(c, "", Revision{Revision: mail.Revision{UUID: "uuid", N: 5}}) }},
		"last run":           {`{"contact":"2026-01-02T03:04:05Z","faults":["a"]}`, func() any { return get(t, j.LastRun.notes, "") }, LastRun{Contact: at, Faults: []string{"a"}}, func(c *Change) { j.LastRun.notes.Put(c, "", LastRun{Contact: at, Faults: []string{"a"}}) }},
		"stub secret":        {"abc", func() any { return get(t, j.Secret.notes, "") }, Text("abc"), func(c *Change) { j.Secret.notes.Put(c, "", "abc") }},
	} {
		if err := l.SetMeta(t.Context(), key, c.text); err != nil {
			t.Fatal(err)
		}
		if got := c.read(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s is read as %+v, want %+v", key, got, c.want)
		}
		var change Change
		c.put(&change)
		if text, ok := change.notes[key]; !ok || text != c.text {
			t.Errorf("%s is written as %v\nwant %s", key, change.notes, c.text)
		}
		if _, ok := j.KindOf(key); !ok {
			t.Errorf("%s is not declared", key)
		}
	}
	if _, ok := j.KindOf("nothing/of that"); ok {
		t.Error("any key is of a kind")
	}
}

// Of a scan only what it says counts: the identity of a directory stands last.
func TestWhatAScanSays(t *testing.T) {
	t.Parallel()
	if got := ScanOf(1, [4]time.Time{}, "7.100").Identity(); got != "7.100" {
		t.Errorf("identity %q", got)
	}
	if got := ScanAgain("7.100").Identity(); got != "7.100" {
		t.Errorf("identity %q", got)
	}
	if why, ok := ScanDoubted("its folder is gone").Doubt(); !ok || why != "its folder is gone" {
		t.Errorf("doubt %q, %v", why, ok)
	}
	if why, ok := ScanOf(1, [4]time.Time{}, "7").Doubt(); ok {
		t.Errorf("doubt %q", why)
	}
}

// A note that cannot be read is an error where it says what is under way: its run must not
// go on as if nothing were. Any other one is over.
func TestANoteThatCannotBeRead(t *testing.T) {
	t.Parallel()
	j, l := open(t)
	for _, key := range []string{"moving/a", "standing/held/a", "sign-in refused", "unsent/a/k"} {
		if err := l.SetMeta(t.Context(), key, "{broken"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := j.Moving.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "the ledger's note of an interrupted move cannot be read") {
		t.Errorf("%v", err)
	}
	if _, err := j.Moving.All(t.Context()); err == nil {
		t.Error("one of all is passed over")
	}
	if _, ok, err := j.Standing.Get(t.Context(), "held/a"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if v, ok, err := j.Refused.Get(t.Context()); ok || err != nil || v != (Refusal{}) {
		t.Errorf("%+v, %v, %v", v, ok, err)
	}
	if all, err := j.Unsent.All(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
}

// An empty text is how earlier versions left what was done.
func TestAnEmptyNoteIsNone(t *testing.T) {
	t.Parallel()
	j, l := open(t)
	if err := l.SetMeta(t.Context(), "flags", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.SetMeta(t.Context(), "moving/a", ""); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := j.Flags.Get(t.Context()); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if all, err := j.Moving.All(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// A mailbox is forgotten with all that is noted about it, and nothing that is about others.
func TestAMailboxIsForgottenWithItsNotes(t *testing.T) {
	t.Parallel()
	j, l := open(t)
	about := func(box, folder string) map[string]string {
		return map[string]string{
			"moving/" + box: "{}", "arriving/k": "{}", "forgotten/" + box + "/14/3": "{}", "ruled/" + box + "/14/3": "{}", "unsent/" + box + "/k": "{}",
			"silent/STATUS/" + box: "{}", "standing/held/" + box: "t x", "before/" + folder: "said", "folder/" + folder: "said", "gone/14/" + box: "said",
			`stays/\Seen/` + box: "said", "odd/" + box: "said", "imported/" + box: "{}", "scanned/" + box: "1", "uploading/" + box: "1 1", "uploaded/of " + box: box, "twin/of " + box: box,
		}
	}
	all := about("a/b", "a.b")
	maps.Copy(all, about("b", "b"))
	maps.Copy(all, about("a/b/c", "a.b.c"))
	all["remove"], all["tags/names"] = "{}", "u 1"
	for key, text := range all {
		if err := l.SetMeta(t.Context(), key, text); err != nil {
			t.Fatal(err)
		}
	}
	k := ledger.Mailbox{Name: "a/b", Folder: "a.b"}
	if err := l.SaveMailbox(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	var and Change
	j.Remove.Forget(&and)
	if err := j.ForgetMailbox(t.Context(), k, and); err != nil {
		t.Fatal(err)
	}
	for key := range about("a/b", "a.b") {
		if key != "arriving/k" { // the next run finds that its mailbox is gone
			delete(all, key)
		}
	}
	delete(all, "remove")
	left := make(map[string]string)
	for key := range all {
		if text, err := l.Meta(t.Context(), key); err != nil {
			t.Fatal(err)
		} else if text != "" {
			left[key] = text
		}
	}
	if !maps.Equal(left, all) {
		t.Errorf("left:\n%v\nwant:\n%v", slices.Sorted(maps.Keys(left)), slices.Sorted(maps.Keys(all)))
	}
	for key := range about("a/b", "a.b") {
		if text, err := l.Meta(t.Context(), key); key != "arriving/k" && (err != nil || text != "") {
			t.Errorf("%s is left: %q, %v", key, text, err)
		}
	}
	if boxes, err := l.Mailboxes(t.Context()); err != nil || len(boxes) != 0 {
		t.Errorf("%+v, %v", boxes, err)
	}
}

// The order is stated once: that of the declarations.
func TestIntentsComeFirstAndInOrder(t *testing.T) {
	t.Parallel()
	j, _ := open(t)
	seen := make(map[string]bool)
	last := Intent
	for i, k := range j.Kinds() {
		if k.Life == Intent && (last != Intent || k.Order != i+1) || k.Life != Intent && k.Order != 0 {
			t.Errorf("%s has the order %d", k.Key, k.Order)
		}
		if seen[k.Key] || k.What == "" || (k.Form == Alone) == strings.HasSuffix(k.Key, "/") {
			t.Errorf("%+v", k)
		}
		seen[k.Key], last = true, k.Life
	}
}
