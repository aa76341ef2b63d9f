package journal

import (
	"maps"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// Mailboxes that exchange names and folders, and one more behind them, take along what is noted of
// each, and their messages: nothing of one comes to another.
func TestMailboxesExchangeNames(t *testing.T) {
	t.Parallel()
	j, l := open(t)
	// Notes are given by the name, the folder and the root of the files of a mailbox.
	notes := func(name, folder, key string) map[string]string {
		file := "/mail/" + folder + "/cur/" + key
		return map[string]string{
			"told/" + name + "/14/3":       `{"mailbox":"` + name + `","uidvalidity":14}`,
			"moving/" + name:               `{"mailbox":"` + name + `","to":"other","uids":[3]}`,
			"unsent/" + name + "/" + key:   `{"mailbox":"` + name + `"}`,
			"standing/push/" + name:        "2026-01-02T03:04:05Z words",
			"arriving/" + key:              `{"row":{"Mailbox":"` + name + `"}}`,
			"uploaded/" + key:              name,
			"before/" + folder:             "said",
			"scanned/" + name:              "14 5 6 7.100",
			"tagged/" + name + "/" + key:   `{"path":"` + file + `"}`,
			"tags/unseen/" + name:          `{"k":"` + key + `"}`,
			"linked/" + key:                `{"mailbox":"other","to":"` + name + `","to_validity":14}`,
			"forgotten/" + name + "/14/30": `{"Mailbox":"` + name + `"}`,
		}
	}
	type state struct{ name, folder, key string }
	before := []state{{"a", "a", "ka"}, {"b", "b", "kb"}, {"a/c", "own", "kc"}, {"d", "a/d", "kd"}}
	after := []state{{"b", "b", "ka"}, {"a", "a", "kb"}, {"c", "own", "kc"}, {"d", "a/d", "kd"}} // the last one stays
	mailbox := func(s state, i int) ledger.Mailbox {
		return ledger.Mailbox{Name: s.name, Folder: s.folder, Delim: '/', UIDValidity: uint64(14 + i), UIDNext: 9}
	}
	var all []Renamed
	want := map[string]string{"renaming/b": `{"from":"a","to":"b"}`, "renaming/a": `{"from":"b","to":"a"}`}
	for i, s := range before {
		of := mailbox(s, i)
		row := ledger.Message{Mailbox: s.name, UIDValidity: of.UIDValidity, UID: 3, State: ledger.Present, Key: s.key}
		if err := l.Record(t.Context(), ledger.Change{Mailbox: &of, Save: []ledger.Message{row}, Metas: notes(s.name, s.folder, s.key)}); err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			all = append(all, Renamed{of, mailbox(after[i], i)})
		}
		maps.Copy(want, notes(after[i].name, after[i].folder, s.key))
	}
	if err := j.Rename(t.Context(), all, "/mail"); err != nil {
		t.Fatal(err)
	}
	for _, s := range before {
		for key := range notes(s.name, s.folder, s.key) {
			if _, stays := want[key]; !stays {
				want[key] = "" // it is another's, or nobody's
			}
		}
	}
	for key, text := range want {
		if got, err := l.Meta(t.Context(), key); err != nil || got != text {
			t.Errorf("%s is %q, want %q (%v)", key, got, text, err)
		}
	}
	for i, s := range after {
		rows, err := l.Rows(t.Context(), s.name, uint64(14+i))
		if err != nil || len(rows) != 1 || rows[0].Key != s.key {
			t.Errorf("%s has %+v, %v", s.name, rows, err)
		}
	}
	if rows, err := l.Mailboxes(t.Context()); err != nil || len(rows) != 4 {
		t.Errorf("mailboxes %+v, %v", rows, err)
	}
}
