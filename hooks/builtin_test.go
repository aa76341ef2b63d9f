package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// came is an event about a mail with this header.
func came(t *testing.T, head string) Event {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(file, []byte(head+"\nFrom: body@example.org\nX-Spam-Flag: YES\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := Event{Version: EventVersion, Point: PreWrite, Account: "work", Mailbox: "INBOX", File: file, Received: "2026-11-01T10:00:00Z"}
	h, err := headerOf(file)
	if err != nil {
		t.Fatal(err)
	}
	e.From, e.To, e.Subject = h.first("From"), h.first("To"), h.first("Subject")
	e.ListID = strings.Trim(h.first("List-Id"), "<>")
	return e
}

// asks gives what a hook says to an event, through the runner.
func asks(t *testing.T, h Hook, e Event) Outcome {
	t.Helper()
	r, err := NewRunner([]Hook{h})
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Ask(t.Context(), e, false)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tagged asserts tags, as "+a -b"; "" for none.
func tagged(t *testing.T, what string, out Outcome, want string) {
	t.Helper()
	if got := (Tags{out.Add, out.Remove}).words(); got != want || len(out.Failed) > 0 || out.Action != Pass {
		t.Errorf("%s: %q, want %q, %+v", what, got, want, out)
	}
}

func onlyInbox(mailbox string) bool { return mailbox == "INBOX" }

func TestTagsByRule(t *testing.T) {
	t.Parallel()
	tags := Tags{[]string{"x"}, []string{"inbox"}}
	own := []string{"me@example.org", "Me@Work.example"}
	for _, tc := range []struct {
		name string
		rule TagRule
		head string
		want bool
	}{
		{"mailbox", TagRule{Mailboxes: onlyInbox}, "From: a@b\n", true},
		{"another mailbox", TagRule{Mailboxes: func(string) bool { return false }}, "From: a@b\n", false},
		{"a header that is there", TagRule{Header: "x-github-reason"}, "X-GitHub-Reason: mention\n", true},
		{"a header that is not", TagRule{Header: "X-GitHub-Reason"}, "From: a@b\n", false},
		{"a header that is only in the body", TagRule{Header: "X-Spam-Flag"}, "From: a@b\n", false},
		{"match", TagRule{Header: "X-GitHub-Reason", Match: regexp.MustCompile("^review")}, "X-GitHub-Reason: review_requested\n", true},
		{"no match", TagRule{Header: "X-GitHub-Reason", Match: regexp.MustCompile("^review")}, "X-GitHub-Reason: mention\n", false},
		{"the second of two", TagRule{Header: "Delivered-To", Match: regexp.MustCompile("^b@")}, "Delivered-To: a@x\nDelivered-To: b@x\n", true},
		{"folded", TagRule{Header: "X", Match: regexp.MustCompile("^one two$")}, "X: one\n\ttwo\n", true},
		{"encoded", TagRule{Header: "Subject", Match: regexp.MustCompile("Köln")}, "Subject: =?utf-8?q?aus_K=C3=B6ln?=\n", true},
		{"behind a line that is none", TagRule{Header: "X"}, "From nobody Sat\nX: y\n", true},
		{"list", TagRule{ListID: "*.notmuchmail.org"}, "List-Id: <notmuch.notmuchmail.org>\n", true},
		{"list in another case", TagRule{ListID: "*.NotmuchMail.org"}, "List-Id: <notmuch.notmuchmail.ORG>\n", true},
		{"another list", TagRule{ListID: "*.notmuchmail.org"}, "List-Id: <notmuchmail.org.example.com>\n", false},
		{"no list", TagRule{ListID: "*"}, "From: a@b\n", false},
		{"from me", TagRule{Own: own}, "From: \"Me, myself\" <me@work.EXAMPLE>\n", true},
		{"from me without quotes", TagRule{Own: own}, "From: Me, myself <me@example.org>\n", true},
		{"my name, another's address", TagRule{Own: own}, "From: \"me@example.org\" <thief@example.com>\n", false},
		{"from me, without any address of mine", TagRule{Own: []string{}}, "From: me@example.org\n", false},
		{"both", TagRule{Own: own, ListID: "*"}, "From: me@example.org\nList-Id: <a.b>\n", true},
		{"one of both", TagRule{Own: own, ListID: "*"}, "From: me@example.org\n", false},
	} {
		tc.rule.Tags = tags
		want := map[bool]string{true: "+x -inbox"}[tc.want]
		tagged(t, tc.name, asks(t, Tag("t", tc.rule), came(t, tc.head)), want)
	}
	e := came(t, "From: a@b\n")
	e.File += ".gone"
	if out := asks(t, Tag("t", TagRule{Header: "X", Tags: tags}), e); len(out.Failed) != 1 || len(out.Add) > 0 {
		t.Errorf("a mail that cannot be read: %+v", out)
	}
}

func TestListsByTheirNames(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]string{
		"List-Id: <Notmuch.notmuchmail.org>\n": "+list +lists/notmuch -inbox",
		"From: a@b\n":                          "",
		"List-Id: <.org>\n":                    "",
		"List-Id: <" + strings.Repeat("a", 300) + ".example.org>\n": "",
	} {
		tagged(t, head, asks(t, Lists("l", nil, "lists/", Tags{[]string{"list"}, []string{"inbox"}}), came(t, head)), want)
	}
}

func TestLimitsLeaveMailOnTheServer(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC) }
	limits := Limits{Size: 10 << 20, Age: 30 * 24 * time.Hour, Mailboxes: onlyInbox, Now: now, Tags: Tags{Remove: []string{"inbox"}}}
	for _, tc := range []struct {
		e    Event
		want string
	}{
		{Event{Size: 10 << 20, Received: "2026-11-01T00:00:00Z"}, ""},
		{Event{Size: 10<<20 + 1}, "it has 10.0 MB, more than 10.0 MB"},
		{Event{Size: 34 << 20, Received: "2026-11-01T00:00:00Z"}, "it has 34.0 MB, more than 10.0 MB"},
		{Event{Size: 1, Received: "2026-10-25T23:59:59Z"}, "it came on 2026-10-25, more than 30 days ago"},
		{Event{Size: 1, Received: "2026-10-26T00:00:00Z"}, ""},
		{Event{}, ""}, // nothing is known of it
		{Event{Received: "yesterday"}, ""},
		{Event{Size: 34 << 20, Mailbox: "Archive"}, ""},
	} {
		tc.e.Point, tc.e.Mailbox = PreFetch, either(tc.e.Mailbox, "INBOX")
		out := asks(t, Limit("big", limits), tc.e)
		skipped := tc.want != ""
		if out.Reason != tc.want || skipped != (out.Action == Skip) || out.Placeholder != skipped || skipped != slices.Equal(out.Remove, []string{"inbox"}) || len(out.Failed) > 0 {
			t.Errorf("%+v: %+v", tc.e, out)
		}
	}
	limits.Silent = true
	if out := asks(t, Limit("big", limits), Event{Point: PreFetch, Mailbox: "INBOX", Size: 1 << 40}); out.Action != Skip || out.Placeholder {
		t.Errorf("silent: %+v", out)
	}
	if out := asks(t, Limit("big", Limits{Now: now}), Event{Point: PreFetch, Size: 1 << 40, Received: "1970-01-01T00:00:00Z"}); out.Action != Pass {
		t.Errorf("without limits: %+v", out)
	}
}

func TestSpamByTheFiltersHeader(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		head         string
		verdict, six bool // what the filter says; with a score of 6
	}{
		{"From: a@b\n", false, false},
		{"X-Spam-Flag: YES\n", true, true},
		{"X-Spam-Flag: NO\n", false, false},
		{"X-Spam-Status: Yes, score=7.3 required=5.0 tests=BAYES_99\n", true, true},
		{"X-Spam-Status: Yes, score=5.3 required=5.0\n", true, false},
		{"X-Spam-Status: No, score=-1.9 required=5.0\n", false, false},
		{"X-Spam-Status: No,\n\thits=6.5 required=7.0\n", false, true},
		{"X-Spam-Score: 12.5\nX-Spam-Flag: NO\n", false, true},
		{"X-Spam-Score: 2 (++)\n", false, false},
		{"X-Spam-Level: *******\n", false, true},
		{"X-Spam-Level: **\nX-Spam: yes\n", true, false},
		{"X-Spam: Yes\n", true, true},
		{"X-Spamd-Result: default: True [15.00 / 15.00];\n\tBAYES_SPAM(5.1)[100%]\n", true, true},
		{"X-Spamd-Result: default: False [3.10 / 15.00]\n", false, false},
		{"X-Rspamd-Score: 6\n", false, true},
		// The server's own is on top; what is below may be the sender's.
		{"X-Spam-Flag: YES\nX-Spam-Flag: NO\n", true, true},
		{"X-Spam-Status: No, score=0.1\nX-Spam-Status: Yes, score=20\n", false, false},
		{"X-Spam-Score: much\nX-Spam-Level: stars\n", false, false},
	} {
		for score, spam := range map[float64]bool{0: tc.verdict, 6: tc.six} {
			want := map[bool]string{true: "+spam -inbox"}[spam]
			tagged(t, fmt.Sprintf("%s at %v", tc.head, score), asks(t, Spam("s", nil, score, Tags{[]string{"spam"}, []string{"inbox"}}), came(t, tc.head)), want)
		}
	}
}

func TestMutedThreads(t *testing.T) {
	t.Parallel()
	var asked []string
	mute := Mute("m", nil, func(_ context.Context, ids []string) (bool, error) {
		asked = ids
		if slices.Contains(ids, "broken@x") {
			return false, errors.New("the database cannot be read")
		}
		return slices.Contains(ids, "muted@x"), nil
	}, Tags{[]string{"muted"}, []string{"inbox", "unread"}})
	tagged(t, "a thread that is not", asks(t, mute, came(t, "In-Reply-To: <other@x>\n")), "")
	tagged(t, "one that is", asks(t, mute, came(t, "References: <a@x> <muted@x>\n\t<b@x>\nIn-Reply-To: <b@x>\n")), "+muted -inbox -unread")
	if !slices.Equal(asked, []string{"a@x", "muted@x", "b@x"}) {
		t.Errorf("asked about %q", asked)
	}
	asked = nil
	tagged(t, "what could be more than an id", asks(t, mute, came(t, "References: <x\" or tag:muted@x> <}@x> <a b@x> <nothing>\n")), "")
	if asked != nil {
		t.Errorf("asked about %q", asked)
	}
	many := "References:"
	for i := range 100 {
		many += fmt.Sprintf("\n <%d@x>", i)
	}
	asks(t, mute, came(t, many+"\n"))
	if len(asked) != maxAncestors || asked[maxAncestors-1] != "99@x" {
		t.Errorf("asked about %q", asked)
	}
	if out := asks(t, mute, came(t, "In-Reply-To: <broken@x>\n")); len(out.Failed) != 1 || out.Action != Pass || len(out.Add) > 0 {
		t.Errorf("%+v", out)
	}
}

func TestDesktopIsToldOfNewMail(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	command := sh(`for a; do printf '[%s]' "$a"; done >>` + log + `; echo >>` + log)
	command = append(command, "sh", "--")
	said := func() string {
		text, _ := os.ReadFile(log)
		_ = os.Remove(log)
		return string(text)
	}
	events := func(show string) string {
		r, err := NewRunner([]Hook{Notify("n", onlyInbox, command, show)})
		if err != nil {
			t.Fatal(err)
		}
		tell := func(e Event) {
			if out, err := r.Ask(t.Context(), e, false); err != nil || len(out.Failed) > 0 {
				t.Errorf("%+v %v", out, err)
			}
		}
		tell(Event{Point: PostSync, Account: "work"})
		for i := range 7 {
			tell(Event{Point: PostIndex, Account: "work", Mailbox: "INBOX", News: 1, From: fmt.Sprintf(`"Jane %d <b>" <jane@example.org>`, i), Subject: "a & b\nc"})
		}
		tell(Event{Point: PostIndex, Account: "work", Mailbox: "INBOX", From: "read@example.org"})
		tell(Event{Point: PostIndex, Account: "work", Mailbox: "Junk", News: 1, From: "spam@example.org"})
		tell(Event{Point: PostIndex, Account: "home", Mailbox: "INBOX", News: 1, From: "--icon=x"})
		tell(Event{Point: PostSync, Account: "work", New: 12, News: 9})
		tell(Event{Point: PostSync, Account: "home", New: 1, News: 1})
		tell(Event{Point: PostSync, Account: "work"})
		return said()
	}
	if got, want := events(ShowCount), "[--][9 new mails in work][]\n[--][1 new mail in home][]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	sender := func(more string) string {
		var out []string
		for i := range 5 {
			out = append(out, fmt.Sprintf("Jane %d &lt;b&gt;%s", i, more))
		}
		return strings.Join(out, "\n") + "\nand 2 more"
	}
	if got, want := events(ShowSenders), "[--][7 new mails in work]["+sender("")+"]\n[--][1 new mail in home][--icon=x]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := events(ShowSubjects), "[--][7 new mails in work]["+sender(": a &amp; b; c")+"]\n[--][1 new mail in home][--icon=x:]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, tc := range []struct {
		argv []string
		want string
	}{
		{[]string{"no-such-program"}, `there is no program "no-such-program" on the PATH`},
		{sh("echo no display >&2; exit 1"), "/bin/sh: exit status 1: no display"},
	} {
		out := asks(t, Notify("n", nil, tc.argv, ShowCount), Event{Point: PostSync, News: 1})
		if len(out.Failed) != 1 || out.Failed[0].Err.Error() != tc.want {
			t.Errorf("%+v", out)
		}
	}
}
