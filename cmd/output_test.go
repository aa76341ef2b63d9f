package cmd

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		r    pipeline.Report
		want string
	}{
		{pipeline.Report{Mailboxes: 3}, "nothing new"},
		{pipeline.Report{Mailboxes: 3, Stubs: 1}, "nothing new, 1 known stub"},
		{pipeline.Report{Mailboxes: 3, Faults: []pipeline.Failure{{Mailbox: "a", Known: true}, {Mailbox: "b"}}}, "nothing new, 1 known fault"},
		{pipeline.Report{Mailboxes: 3, New: 1232, NewStubs: 1}, "1232 new, 1 could not be fetched"},
		{pipeline.Report{Mailboxes: 3, New: 2, Linked: 1, Flagged: 1, Removed: 2}, "2 new, 1 of them was here already, 1 change of flags, 2 removed"},
		{pipeline.Report{Mailboxes: 3, Held: 60, Stubs: 2}, "60 deletions held back, 2 known stubs"},
		{pipeline.Report{Mailboxes: 3, New: 5, DryRun: true}, "would be: 5 new"},
		{pipeline.Report{Faults: []pipeline.Failure{{}}}, ""},
	} {
		if got := summary(tc.r); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.r, got, tc.want)
		}
	}
}

// everyEvent is a run with one event of each type.
func everyEvent() []pipeline.Event {
	at := time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC)
	return []pipeline.Event{
		{Time: at, Type: pipeline.EventMailbox, Account: "work", Mailbox: "INBOX", Total: 2, Text: "2 new messages"},
		{Time: at, Type: pipeline.EventProgress, Account: "work", Done: 1, Total: 2},
		{Time: at, Type: pipeline.EventNote, Account: "work", Mailbox: "Old", Text: "gone"},
		{Time: at, Type: pipeline.EventStub, Account: "work", Mailbox: "INBOX", UID: 15541, Text: "no data\x1b[2J"},
		{Time: at, Type: pipeline.EventHealed, Account: "work", Mailbox: "INBOX", UID: 7, Text: "came"},
		{Time: at, Type: pipeline.EventFault, Account: "work", Mailbox: "Shared", Text: "refused"},
		{Time: at, Type: pipeline.EventDone, Account: "work", Report: &pipeline.Report{Account: "work", Mailboxes: 2, New: 1, NewStubs: 1}},
	}
}

func TestFaultsGoToStandardErrorAndAllElseToStandardOutput(t *testing.T) {
	t.Parallel()
	const faults = "work/INBOX/15541: no data?[2J\nwork/Shared: refused\n"
	const results = "work/INBOX/7: came\nwork: 1 new, 1 could not be fetched\n"
	for _, tc := range []struct {
		name     string
		most     int
		out, err string
	}{
		{"quiet", showFaults, "", faults},
		{"hook", showResults, results, faults},
		{"normal", showAll, "work/INBOX: 2 new messages\nwork/Old: gone\n" + results, faults},
	} {
		var out, errs bytes.Buffer
		o := &output{stdout: &out, stderr: &errs, most: tc.most, limit: -1}
		for _, e := range everyEvent() {
			o.event(e)
		}
		o.close()
		if out.String() != tc.out || errs.String() != tc.err {
			t.Errorf("%s: out %q, err %q", tc.name, out.String(), errs.String())
		}
	}
}

func TestAHookSaysAFewLinesAtMost(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := &output{stdout: &out, stderr: &out, most: showResults, limit: 2}
	for range 5 {
		o.event(pipeline.Event{Type: pipeline.EventFault, Account: "work", Text: "refused"})
	}
	o.close()
	want := "work: refused\nwork: refused\nnotmuch-imap: 3 more lines; see: notmuch imap sync, notmuch imap stubs\n"
	if out.String() != want {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	o = &output{stdout: &out, stderr: &out, most: showResults, limit: 2}
	o.event(pipeline.Event{Type: pipeline.EventDone, Account: "work", Report: &pipeline.Report{Mailboxes: 2}})
	o.close()
	if out.String() != "" {
		t.Errorf("a run without news said %q", out.String())
	}
}

func TestJSONIsOneObjectALine(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	o := &output{stdout: &out, stderr: &errs, most: showAll, json: true, limit: -1}
	for _, e := range everyEvent() {
		o.event(e)
	}
	o.close()
	var types []string
	for line := range strings.Lines(out.String()) {
		var e pipeline.Event
		if err := json.Unmarshal([]byte(line), &struct {
			Type   *pipeline.EventType `json:"type"`
			Report any                 `json:"report"`
		}{Type: &e.Type}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		types = append(types, string(e.Type))
	}
	if got := strings.Join(types, " "); got != "mailbox progress note stub healed fault done" || errs.String() != "" {
		t.Errorf("types %s, standard error %q", got, errs.String())
	}
}

func TestPlainDisarmsWhatAServerSends(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Entwürfe":            "Entwürfe",
		"a\x1b]0;x\x07b\r\n":  "a?]0;x?b??",
		"a\u202eb":            "a?b",
		"bad \xff byte":       "bad ? byte",
		"\u009b31m":           "?31m",
		"日本語":                 "日本語",
		"tab\there":           "tab?here",
		"replacement \ufffd.": "replacement ?.",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// An account of which nothing good is known is not well.
func TestTheBarSaysWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	now := time.Now()
	reached := pipeline.Status{Account: "work", Contact: now}
	for want, s := range map[string]accountStatus{
		"mail: ok":                             {Status: reached},
		"mail: ok, watched":                    {Status: reached, Watch: &watched{Running: now, How: "idle", Since: now}},
		"work: never reached, 1 undone":        {Status: pipeline.Status{Account: "work", Failed: []pipeline.Failed{{State: pipeline.FailedAccount}}}},
		"work: never reached, sign-in refused": {Status: pipeline.Status{Account: "work", Refusals: 1}},
		"work: not synchronised yet":           {Status: pipeline.Status{Account: "work"}},
		"work: the notmuch database is gone":   {Status: reached, Database: "gone"},
		"mail: ok, watched ":                   {Status: reached, Watch: &watched{Fault: "it cannot be asked"}},
		"work: never synchronised":             {Status: pipeline.Status{Account: "work"}, Never: true},
		"work: synchronising since " + now.Add(-time.Hour).Format("15:04"): {Status: reached, Watch: &watched{Running: now, How: "idle", Working: now.Add(-time.Hour)}},
		"mail: ok, watched  ":             {Status: reached, Watch: &watched{Running: now, How: "idle", Working: now}},
		"work: cannot be read":            {Status: pipeline.Status{Account: "work"}, Fault: "no"},
		"work: not connected":             {Status: reached, Watch: &watched{Running: now, Since: now}},
		"work: the watch does not answer": {Status: reached, Watch: &watched{Fault: "it does not answer"}},
	} {
		if got := barLine([]*accountStatus{&s}, now); got != strings.TrimSpace(want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestAWatchSaysOnceWhatIsHeldBack, and again when it is another number.
func TestAWatchSaysOnceWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	v := &vigil{out: &output{stdout: &out, stderr: &out, most: showResults, limit: -1}}
	for _, r := range []pipeline.Report{{Held: 1}, {Held: 1}, {Held: 1, New: 1}, {Held: 2}, {}} {
		r.Account, r.Mailboxes = "work", 1
		v.event(pipeline.Event{Type: pipeline.EventDone, Account: "work", Report: &r})
	}
	if want := "work: 1 deletion held back\nwork: 1 new\nwork: 2 deletions held back\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
