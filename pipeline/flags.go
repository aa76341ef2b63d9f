package pipeline

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Tags of ours on messages.
const (
	TagFailed   = stub.LabelFailed  // on a stub
	TagSalvaged = "fetch-salvaged"  // on a mail that came by another road
	TagSkipped  = stub.LabelSkipped // on a stub of a message that a hook left on the server
)

// flagTags gives the tags that a change of flags from old to new adds and
// removes, and the maildir letters that it sets and clears.
func flagTags(before, after []string) (add, remove []string, set, clear string) {
	for _, r := range plan.FlagRows() {
		was, is := plan.HasFlag(before, r.Flag), plan.HasFlag(after, r.Flag)
		if was == is {
			continue
		}
		if is {
			set += r.Letter
		} else {
			clear += r.Letter
		}
		switch {
		case r.Tag == "":
		case is != r.Absent:
			add = append(add, r.Tag)
		default:
			remove = append(remove, r.Tag)
		}
	}
	for _, k := range after {
		if tag := keywordTag(k); tag != "" && !plan.HasFlag(before, k) {
			add = append(add, tag)
		}
	}
	for _, k := range before {
		if tag := keywordTag(k); tag != "" && !plan.HasFlag(after, k) {
			remove = append(remove, tag)
		}
	}
	return add, remove, set, clear
}

// keywordTag gives the notmuch tag for an IMAP keyword, "" for one that has
// none: flags with a row of their own, the many $-keywords by which programs
// talk to themselves, and words that mean something else as a tag.
func keywordTag(keyword string) string {
	switch strings.ToLower(keyword) {
	case "$junk", "junk":
		return "spam"
	case "nonjunk", "notjunk":
		return ""
	case "unread", "flagged", "replied", "passed", "draft", "deleted", "new", TagFailed, TagSalvaged, TagSkipped:
		return ""
	}
	// 200 bytes is NOTMUCH_TAG_MAX; a leading '-' could not be typed in `notmuch tag`.
	if keyword == "" || len(keyword) > 200 || strings.ContainsAny(keyword[:1], `\$-`) || !utf8.ValidString(keyword) {
		return ""
	}
	if strings.ContainsFunc(keyword, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return ""
	}
	return keyword
}

// isOrder tells whether a tag orders something here: that mail is deleted, moved, or
// asked for again or no more. A server's keywords never give or take such a tag, nor
// is it told of them: anybody who can set a keyword would give orders.
func (o *Options) isOrder(tag string) bool {
	is := func(t string) bool { return t != "" && strings.EqualFold(t, tag) }
	return is(o.DeletedTag) || slices.ContainsFunc(o.Orders, is) || slices.ContainsFunc(o.OrderTags, is) ||
		slices.ContainsFunc(o.Moves, func(m Move) bool { return is(m.With) || is(m.Without) })
}

// flagTags is flagTags without the tags that order something.
func (o *Options) flagTags(before, after []string) (add, remove []string, set, clear string) {
	harmless := func(flags []string) []string {
		return slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return o.isOrder(keywordTag(f)) })
	}
	return flagTags(harmless(before), harmless(after))
}

// initialTags gives what a newly come message gets beside notmuch's new.tags.
func (o *Options) initialTags(flags, ruleAdd, ruleRemove []string) (add, remove []string) {
	add, remove, _, _ = o.flagTags(nil, flags)
	add = append(add, ruleAdd...)
	return add, append(remove, ruleRemove...)
}
