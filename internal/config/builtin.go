package config

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Builtin is what a built-in hook is set to. What its kind does not know is
// zero.
type Builtin struct {
	Kind        string
	Mailboxes   []string // patterns as in Account.Mailboxes, in which % is *
	Tags        []string // "+lists", "-inbox"
	Header      string
	Match       *regexp.Regexp // nil: the header is there
	ListID      string
	FromMe      bool
	Prefix      string
	Size        int64 // bytes; 0: no limit
	Age         time.Duration
	Placeholder bool
	Score       float64 // 0: the filter's own verdict
	Tag         string
	File        string
	Format      string
	Most        int
	Show        string
}

// The kinds of built-in hooks.
const (
	BuiltinTag       = "tag"
	BuiltinLists     = "lists"
	BuiltinLimit     = "limit"
	BuiltinSpam      = "spam"
	BuiltinMute      = "mute"
	BuiltinAddresses = "addresses"
	BuiltinNotify    = "notify"
)

// builtinKeys are the keys of each kind, beside those of every hook.
func builtinKeys() map[string][]string {
	return map[string][]string{
		BuiltinTag:       {"tags", "mailboxes", "header", "match", "list_id", "from_me"},
		BuiltinLists:     {"prefix", "tags", "mailboxes"},
		BuiltinLimit:     {"size", "age", "placeholder", "tags", "mailboxes"},
		BuiltinSpam:      {"score", "tags", "mailboxes"},
		BuiltinMute:      {"tag", "tags", "mailboxes"},
		BuiltinAddresses: {"file", "format", "most", "mailboxes"},
		BuiltinNotify:    {"show", "mailboxes"},
	}
}

// builtins are the kinds in the order of the manual page.
func builtins() []string {
	return []string{BuiltinTag, BuiltinLists, BuiltinLimit, BuiltinSpam, BuiltinMute, BuiltinAddresses, BuiltinNotify}
}

// builtin reads the keys of a built-in hook.
func (t *section) builtin() *Builtin {
	kind := t.string("builtin")
	known, ok := builtinKeys()[kind]
	if !ok {
		if _, text := t.values["builtin"].(string); text {
			t.fail("builtin", "there is no built-in hook %q; there is: %s", kind, strings.Join(builtins(), ", "))
		}
		return nil
	}
	allowed := append([]string{"builtin", "name", "timeout", "required"}, known...)
	for _, k := range slices.Sorted(maps.Keys(t.values)) {
		switch {
		case slices.Contains(allowed, k):
		case slices.Contains([]string{"command", "points", "mode"}, k):
			t.fail(k, "goes with a program of your own, not with builtin = %q", kind)
		default:
			t.r.unknown(t.path(k), allowed, "")
		}
	}
	b := &Builtin{
		Kind: kind, Mailboxes: t.patterns("mailboxes"), Header: t.string("header"), Match: t.regexp("match"), ListID: t.string("list_id"),
		FromMe: t.boolean("from_me"), Prefix: "lists/", Size: t.size("size"), Age: t.age("age"), Placeholder: true,
		Score: t.number("score"), Tag: t.tag("tag", "muted"), File: t.file("file"), Format: t.oneOf("format", "query", "query", "alias"),
		Most: t.integer("most", 10_000, 1, 1_000_000), Show: t.oneOf("show", "count", "count", "senders", "subjects"),
	}
	if _, there := t.values["prefix"]; there {
		b.Prefix = t.string("prefix")
	}
	if _, there := t.values["placeholder"]; there {
		b.Placeholder = t.boolean("placeholder")
	}
	b.Tags = t.tagList("tags", map[string][]string{BuiltinSpam: {"+spam", "-inbox"}, BuiltinMute: {"-inbox", "-unread"}}[kind])
	switch kind {
	case BuiltinTag:
		t.there("tags")
		if b.Header == "" && b.ListID == "" && !b.FromMe && !t.has("mailboxes") {
			t.fail("builtin", "to what mail? set at least one of mailboxes, header, list_id and from_me = true")
		}
		if b.Match != nil && b.Header == "" {
			t.fail("match", "needs header, the field that it is about")
		}
		if _, err := path.Match(b.ListID, ""); err != nil {
			t.fail("list_id", "%q is no pattern: * stands for any letters, ? for one, [ab] for one of these", b.ListID)
		}
		if strings.ContainsFunc(b.Header, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			t.fail("header", "%q is not the name of a header field, such as X-GitHub-Reason", b.Header)
		}
	case BuiltinLists:
		if why := badTag("+" + b.Prefix + "x"); why != "" {
			t.fail("prefix", "%q: a tag that begins so %s", b.Prefix, why)
		}
	case BuiltinLimit:
		if !t.has("size") && !t.has("age") {
			t.fail("builtin", `what is the limit? set size = "10M" or age = "2y" or both`)
		}
	case BuiltinMute:
		if b.Tag == "" {
			t.fail("tag", "is empty")
		}
		b.Tags = append([]string{"+" + b.Tag}, b.Tags...)
	case BuiltinAddresses:
		t.required("file")
	case BuiltinNotify:
		if t.has("mailboxes") && b.Show == "count" {
			t.fail("mailboxes", `has no meaning without show = "senders" or "subjects"`)
		}
	}
	return b
}

func (t *section) has(k string) bool {
	_, ok := t.values[k]
	return ok
}

// tagList gives tags to add and remove.
func (t *section) tagList(k string, fallback []string) []string {
	if !t.has(k) {
		return fallback
	}
	list, _ := t.strings(k, `tags to add and remove: ["+archive", "-inbox"]`)
	for _, tag := range list {
		if why := badTag(tag); why != "" {
			t.fail(k, "%q %s", tag, why)
		}
	}
	return list
}

func (t *section) regexp(k string) *regexp.Regexp {
	s := t.string(k)
	if s == "" {
		return nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		t.fail(k, "%s; it is a regular expression as Go's regexp has them", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re
}

// size reads bytes: 10_000, "500K", "10M" or "1G", by 1024.
func (t *section) size(k string) int64 {
	v, there := t.values[k]
	n, ok := v.(int64)
	if s, text := v.(string); text {
		n, ok = scaled(strings.TrimSuffix(strings.ToUpper(s), "B"), map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30})
	}
	if there && (!ok || n <= 0) {
		t.fail(k, `%s is not a size such as "500K", "10M" or "1G"`, shown(v))
	}
	return n
}

// age reads a time in days, weeks or years.
func (t *section) age(k string) time.Duration {
	v, there := t.values[k]
	s, _ := v.(string)
	days, ok := scaled(strings.ToUpper(s), map[string]int64{"D": 1, "W": 7, "Y": 365})
	if there && (!ok || days <= 0 || days > 200*365) {
		t.fail(k, `%s is not an age such as "90d", "8w" or "2y"`, shown(v))
		return 0
	}
	return time.Duration(days) * 24 * time.Hour
}

// scaled reads a number with a unit, which may be missing where that means 1
// byte.
func scaled(s string, units map[string]int64) (int64, bool) {
	unit := int64(1)
	if n := len(s); n > 0 && units[s[n-1:]] > 0 {
		unit, s = units[s[n-1:]], s[:n-1]
	} else if units["K"] == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
	return n * unit, err == nil
}

func (t *section) number(k string) float64 {
	switch v := t.values[k].(type) {
	case nil:
		return 0
	case int64:
		if v > 0 {
			return float64(v)
		}
	case float64:
		if v > 0 && v < 1e6 {
			return v
		}
	}
	t.fail(k, "%s is not a number above 0", shown(t.values[k]))
	return 0
}

// shown writes a value for a message about it.
func shown(v any) string {
	switch v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case int64, float64:
		return fmt.Sprint(v)
	}
	return kindOf(v)
}

// Selects tells whether the hook is about a mailbox.
func (b *Builtin) Selects(mailbox string) bool {
	return (&Account{Mailboxes: b.Mailboxes}).Selects(mailbox, 0)
}

// Changes gives the tags to add and those to remove.
func (b *Builtin) Changes() (add, remove []string) {
	return (&Account{Tags: []TagRule{{"*", b.Tags}}}).TagRules("", 0)
}
