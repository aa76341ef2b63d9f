package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MoveRule is one table of an account's `moves`: mail in one mailbox that has a
// tag, or has it not, goes to another mailbox.
type MoveRule struct {
	From, To      string // names of mailboxes
	With, Without string // one of them is a tag, the other ""
}

// moveKeys are a rule's, in the order of the manual page.
func moveKeys() []string { return []string{"from", "with", "without", "to"} }

// moves reads the list of rules, for an account whose `tags` are read already.
func (t *section) moves(k string, a *Account) []MoveRule {
	v, there := t.values[k]
	if !there {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		t.fail(k, "a rule is written as [[account.%s.moves]], with two brackets", t.key[1])
		return nil
	}
	var out []MoveRule
	for i, e := range list {
		table, ok := e.(map[string]any)
		if !ok {
			t.fail(k, "a rule is written as [[account.%s.moves]], with two brackets", t.key[1])
			return nil
		}
		one := &reader{file: t.r.file, getenv: t.r.getenv, lines: t.r.lines.entry(t.path(k), i)}
		if len(one.lines) == 0 {
			one.lines = t.r.lines // a list in one line
		}
		rule := &section{r: one, key: t.path(k), values: table}
		out = append(out, rule.move())
		if len(one.errs) == 0 {
			if why := goesRound(out, a); why != "" {
				rule.fail("to", "%s", why)
			}
		}
		t.r.errs = append(t.r.errs, one.errs...)
	}
	return out
}

func (t *section) move() MoveRule {
	for _, k := range slices.Sorted(maps.Keys(t.values)) {
		if !slices.Contains(moveKeys(), k) {
			t.r.unknown(t.path(k), moveKeys(), "")
		}
	}
	name := func(k string) string {
		s := inbox(t.required(k), 0)
		if strings.ContainsAny(s, "*%") {
			t.fail(k, "%q is a pattern; the name of one mailbox is needed", s)
		}
		return s
	}
	m := MoveRule{From: name("from"), To: name("to"), With: t.tag("with", ""), Without: t.tag("without", "")}
	switch {
	case m.With == "" && m.Without == "":
		t.r.errs = append(t.r.errs, &Error{File: t.r.file, Line: t.r.lines.line(t.key), Key: dotted(t.key), Text: `needs a tag: with = "spam", or without = "inbox"`})
	case m.With != "" && m.Without != "":
		t.fail("without", "one of with and without is enough; the first rule that holds counts")
	case m.From == m.To && m.From != "":
		t.fail("to", "%q is where the mail is already", m.To)
	}
	return m
}

// mostLooks bounds how long rules are looked at for a ring: very many of them
// that hang together could take for ever.
const mostLooks = 10_000

// goesRound says why some mail would be moved without end by the last of the
// rules, or at once by it when it comes; "" if none is. What the mailboxes on the
// way give or take by `tags` counts.
func goesRound(rules []MoveRule, a *Account) string {
	last := len(rules) - 1
	// arrive gives the tags that are known of a mail once it is in a mailbox.
	arrive := func(known map[string]bool, mailbox string) map[string]bool {
		out := maps.Clone(known)
		add, remove := a.TagRules(mailbox, '/')
		for _, tag := range add {
			out[tag] = true
		}
		for _, tag := range remove {
			out[tag] = false
		}
		return out
	}
	looked := 0
	// round follows a mail from rule to rule. What goes round twice does so for
	// ever: after the first time nothing more becomes known.
	var round func(m MoveRule, known map[string]bool, steps, times int) bool
	round = func(m MoveRule, known map[string]bool, steps, times int) bool {
		tag, want := m.With, true
		if tag == "" {
			tag, want = m.Without, false
		}
		if has, ok := known[tag]; ok && has != want {
			return false
		}
		if steps > 0 && m == rules[last] {
			times++
		}
		if looked++; times == 2 || steps > 2*len(rules) || looked > mostLooks { // a ring without the last rule was told before
			return times == 2
		}
		known = maps.Clone(known)
		known[tag] = want
		known = arrive(known, m.To)
		return slices.ContainsFunc(rules, func(next MoveRule) bool { return next.From == m.To && round(next, known, steps+1, times) })
	}
	m := rules[last]
	add, remove := a.TagRules(m.From, '/')
	switch {
	case m.With != "" && slices.Contains(add, m.With), m.Without != "" && slices.Contains(remove, m.Without):
		return fmt.Sprintf("all mail that comes to %s would be moved to %s, since its tags are given or taken there by tags", m.From, m.To)
	case round(m, map[string]bool{}, 0, 0):
		return fmt.Sprintf("some mail that this rule moves to %s would be moved back to %s by the rules before, without end", m.To, m.From)
	}
	return ""
}
