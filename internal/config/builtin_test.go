package config

import (
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"
)

func TestBuiltinHooksOfTheFile(t *testing.T) {
	t.Parallel()
	c, err := parse("/etc/f", []byte(oneAccount+`[[hook]]
builtin = "tag"
name = "sent"
from_me = true
tags = ["+sent", "-inbox", "-unread"]
[[hook]]
builtin = "tag"
header = "X-GitHub-Reason"
match = "^review"
list_id = "*.github.com"
mailboxes = ["*", "!Archive/*"]
tags = ["+review"]
timeout = "2s"
required = true
[[hook]]
builtin = "lists"
prefix = ""
[[hook]]
builtin = "limit"
size = "10M"
age = "2y"
placeholder = false
[[hook]]
name = "small"
builtin = "limit"
size = 5_000
[[hook]]
builtin = "spam"
score = 7.5
[[hook]]
builtin = "mute"
tag = "killed"
[[hook]]
builtin = "addresses"
file = "~/.cache/book"
format = "alias"
most = 50
[[hook]]
builtin = "notify"
show = "senders"
mailboxes = ["INBOX"]
`), env("HOME", "/home/me"))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"*"}
	plain := func(b Builtin) *Builtin {
		if b.Mailboxes == nil {
			b.Mailboxes = all
		}
		b.Prefix, b.Format, b.Most, b.Show, b.Tag = either(b.Prefix, "lists/"), either(b.Format, "query"), max(b.Most, 50), either(b.Show, "count"), either(b.Tag, "muted")
		if b.Most == 50 && b.Kind != BuiltinAddresses {
			b.Most = 10_000
		}
		return &b
	}
	half := 30 * time.Second
	want := []Hook{
		{Name: "sent", Timeout: half, Builtin: plain(Builtin{Kind: "tag", FromMe: true, Tags: []string{"+sent", "-inbox", "-unread"}, Placeholder: true})},
		{Name: "tag", Timeout: 2 * time.Second, Required: true, Builtin: plain(Builtin{
			Kind: "tag", Header: "X-GitHub-Reason", Match: regexp.MustCompile("^review"), ListID: "*.github.com", Mailboxes: []string{"*", "!Archive/*"},
			Tags: []string{"+review"}, Placeholder: true,
		})},
		{Name: "lists", Timeout: half, Builtin: plain(Builtin{Kind: "lists", Placeholder: true})},
		{Name: "limit", Timeout: half, Builtin: plain(Builtin{Kind: "limit", Size: 10 << 20, Age: 730 * 24 * time.Hour})},
		{Name: "small", Timeout: half, Builtin: plain(Builtin{Kind: "limit", Size: 5000, Placeholder: true})},
		{Name: "spam", Timeout: half, Builtin: plain(Builtin{Kind: "spam", Score: 7.5, Tags: []string{"+spam", "-inbox"}, Placeholder: true})},
		{Name: "mute", Timeout: half, Builtin: plain(Builtin{Kind: "mute", Tag: "killed", Tags: []string{"+killed", "-inbox", "-unread"}, Placeholder: true})},
		{Name: "addresses", Timeout: half, Builtin: plain(Builtin{Kind: "addresses", File: "/home/me/.cache/book", Format: "alias", Most: 50, Placeholder: true})},
		{Name: "notify", Timeout: half, Builtin: plain(Builtin{Kind: "notify", Show: "senders", Mailboxes: []string{"INBOX"}, Placeholder: true})},
	}
	want[2].Builtin.Prefix = ""
	got := c.Accounts[0].Hooks
	if len(got) != len(want) {
		t.Fatalf("%d hooks, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("number %d: got %+v %+v,\nwant %+v %+v", i, got[i], got[i].Builtin, want[i], want[i].Builtin)
		}
	}
	b := got[1].Builtin
	if !b.Selects("INBOX") || b.Selects("Archive/2024") {
		t.Error("the mailboxes are others")
	}
	if add, remove := got[0].Builtin.Changes(); !slices.Equal(add, []string{"sent"}) || !slices.Equal(remove, []string{"inbox", "unread"}) {
		t.Errorf("%q %q", add, remove)
	}
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestWrongBuiltinHooksAreToldByLine(t *testing.T) {
	t.Parallel()
	_, err := parse("f", []byte(oneAccount+`[[hook]]
builtin = "limits"
[[hook]]
builtin = "limit"
command = ["x"]
sise = "10M"
[[hook]]
builtin = "limit"
name = "b"
size = "much"
age = "10M"
[[hook]]
builtin = "limit"
name = "c"
size = -1
age = "-3d"
points = ["pre-write"]
[[hook]]
builtin = "tag"
tags = ["work"]
match = "("
[[hook]]
name = "d"
builtin = "tag"
header = "a b"
list_id = "["
[[hook]]
builtin = "spam"
score = 0
[[hook]]
builtin = "mute"
tag = ""
[[hook]]
builtin = "addresses"
format = "vcard"
[[hook]]
builtin = "notify"
mailboxes = ["INBOX"]
[[hook]]
builtin = "notify"
show = "all"
mode = "stream"
[[hook]]
name = "-x"
builtin = "lists"
prefix = "-"
[[hook]]
builtin = 1
`), env())
	want := `f:6: hook.builtin: there is no built-in hook "limits"; there is: tag, lists, limit, spam, mute, addresses, notify
f:8: hook.builtin: what is the limit? set size = "10M" or age = "2y" or both
f:9: hook.command: goes with a program of your own, not with builtin = "limit"
f:10: hook.sise: unknown key; did you mean "size"?
f:14: hook.size: "much" is not a size such as "500K", "10M" or "1G"
f:15: hook.age: "10M" is not an age such as "90d", "8w" or "2y"
f:19: hook.size: -1 is not a size such as "500K", "10M" or "1G"
f:20: hook.age: "-3d" is not an age such as "90d", "8w" or "2y"
f:21: hook.points: goes with a program of your own, not with builtin = "limit"
f:23: hook.builtin: to what mail? set at least one of mailboxes, header, list_id and from_me = true
f:24: hook.tags: "work" begins with neither "+" nor "-"
f:25: hook.match: missing closing ): ` + "`(`" + `; it is a regular expression as Go's regexp has them
f:26: hook.tags: is missing
f:29: hook.header: "a b" is not the name of a header field, such as X-GitHub-Reason
f:30: hook.list_id: "[" is no pattern: * stands for any letters, ? for one, [ab] for one of these
f:33: hook.score: 0 is not a number above 0
f:36: hook.tag: is empty
f:37: hook.file: is missing
f:39: hook.format: "vcard" is not one of "query", "alias"
f:42: hook.mailboxes: has no meaning without show = "senders" or "subjects"
f:44: hook.builtin: there is a hook "notify" already; give this one a name
f:45: hook.show: "all" is not one of "count", "senders", "subjects"
f:46: hook.mode: goes with a program of your own, not with builtin = "notify"
f:48: hook.name: "-x" may hold letters, digits and . _ - only, and at most 64 of them
f:50: hook.prefix: "-": a tag that begins so names a tag that begins with "+" or "-"
f:52: hook.builtin: must be a string in quotes, not a number`
	if err == nil || !sameLines(err.Error(), want) {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
