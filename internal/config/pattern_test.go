package config

import (
	"slices"
	"strings"
	"testing"
)

func TestMatchIsThatOfLIST(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, mailbox string
		delim            rune
		want             bool
	}{
		{"*", "INBOX", '/', true},
		{"*", "a/b/c", '/', true},
		{"%", "a", '/', true},
		{"%", "a/b", '/', false},
		{"%", "a/b", '.', true},
		{"%", "a/b", 0, true},
		{"a/%", "a/b", '/', true},
		{"a/%", "a/b/c", '/', false},
		{"a/%/c", "a/b/c", '/', true},
		{"a/*", "a", '/', false},
		{"a/*", "a/", '/', true},
		{"a*", "a", '/', true},
		{"%b%", "abc", '/', true},
		{"*b*d", "abcd", '/', true},
		{"*b*d", "abc", '/', false},
		{"", "", '/', true},
		{"", "a", '/', false},
		{"Spam", "spam", '/', false},
		{"inbox", "INBOX", '/', true},
		{"INBOX", "Inbox", '/', true},
		{"inbox*", "INBOX.Sent", '.', true},
		{"inbox.sent", "INBOX.sent", '.', true},
		{"Inbox.Sent", "INBOX/Sent", '/', false},
		{"inboxes", "INBOXes", '/', false},
		{"Entwürfe", "Entwürfe", '/', true},
		{"Entw%rfe", "Entwürfe", '/', true},
	} {
		if got := Match(tc.pattern, tc.mailbox, tc.delim); got != tc.want {
			t.Errorf("Match(%q, %q, %q) = %v", tc.pattern, tc.mailbox, tc.delim, got)
		}
	}
}

// TestMatchOfAHostilePattern ends: tried one by one, its ways are more than 10^100.
func TestMatchOfAHostilePattern(t *testing.T) {
	t.Parallel()
	if Match(strings.Repeat("*a", 500)+"b", strings.Repeat("a", 1000), '/') {
		t.Error("matched")
	}
}

func TestLastMatchWins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		patterns, mailbox string
		want              bool
	}{
		{"", "anything", true},
		{"*", "Spam", true},
		{"* !Spam", "Spam", false},
		{"* !Spam", "INBOX", true},
		{"* !Archive/* Archive/2024", "Archive/2024", true},
		{"* !Archive/* Archive/2024", "Archive/2023", false},
		{"!Spam", "INBOX", true}, // all but
		{"!Spam", "Spam", false},
		{"!* INBOX", "INBOX", true},
		{"INBOX", "Sent", false},
		{"inbox", "INBOX", true},
	} {
		a := Account{Mailboxes: strings.Fields(tc.patterns)}
		if got := a.Selects(tc.mailbox, '/'); got != tc.want {
			t.Errorf("%q selects %q: %v", tc.patterns, tc.mailbox, got)
		}
	}
}

func TestTagRulesApplyInOrder(t *testing.T) {
	t.Parallel()
	a := Account{Tags: []TagRule{
		{"*", []string{"+mail", "+inbox"}},
		{"Archive/*", []string{"+archive", "-inbox"}},
		{"Archive/2024", []string{"-archive", "+old", "+inbox", "+old"}},
	}}
	for _, tc := range []struct{ mailbox, add, remove string }{
		{"INBOX", "mail inbox", ""},
		{"Archive/2023", "mail archive", "inbox"},
		{"Archive/2024", "mail inbox old", "archive"},
	} {
		add, remove := a.TagRules(tc.mailbox, '/')
		if !slices.Equal(add, strings.Fields(tc.add)) || !slices.Equal(remove, strings.Fields(tc.remove)) {
			t.Errorf("%s: +%v -%v", tc.mailbox, add, remove)
		}
	}
}
