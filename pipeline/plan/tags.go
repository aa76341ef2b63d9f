package plan

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Tags says what notmuch's tags mean to the server, and its flags to notmuch, by the
// configuration.
type Tags struct {
	NewTags []string // notmuch's new.tags
	// Keywords are patterns of tags (path.Match) that go to the server as
	// keywords; none means that no tags do.
	Keywords []string
	// Known are the tags of the database, where Keywords have patterns that leave a tag's
	// spelling open (OpenSpelling).
	Known []string
	// TagFlags: notmuch does not rename files for its tags, so that the flags
	// are in these.
	TagFlags bool
	// Moves are the rules by which tags move mail; the first that holds counts.
	Moves []MoveRule
	// DeletedTag is the tag by which mail is deleted as by removing its file; ""
	// means none.
	DeletedTag string
	Orders     []string // tags by which a stub's owner asks for its mail, or no more; the real mail does not inherit them
	// OrderTags are all tags that order something, in any account: notmuch has one
	// set of tags for the files of all accounts.
	OrderTags []string
}

// TagSalvaged is on a mail that came by another road.
const TagSalvaged = "fetch-salvaged"

// TagUnsent is on new mail that the server refused.
const TagUnsent = "upload-failed"

// MoveRule is a rule by which the mail of a mailbox goes to another one: one of With
// and Without is set.
type MoveRule struct {
	From, To      string
	With, Without string // a tag
}

// Holds tells whether the rule moves a mail with these tags out of the mailbox.
func (m MoveRule) Holds(mailbox string, tags []string) bool {
	if m.From != mailbox {
		return false
	}
	if m.With != "" {
		return slices.Contains(tags, m.With)
	}
	return !slices.Contains(tags, m.Without)
}

// order gives the tag by which the rule moves mail, and whether it is one that mail has.
func (m MoveRule) order() (tag string, on bool) { return cmp.Or(m.With, m.Without), m.With != "" }

// OldTags are tags by which something would be ordered of a file, that its message had, or
// did not have, before the file was there, and whether it had them. What is said of a message
// is said of the files that it has then.
type OldTags map[string]bool

// stand tells whether a message has the tag, or has it not, as it did then.
func (o OldTags) stand(tag string, on bool) bool {
	was, noted := o[tag]
	return noted && was == on
}

// Still gives those that are still so with these tags.
func (o OldTags) Still(tags []string) OldTags {
	still := maps.Clone(o)
	maps.DeleteFunc(still, func(tag string, on bool) bool { return slices.Contains(tags, tag) != on })
	return still
}

// Ordering gives what of a message's tags orders something of its mail in a mailbox.
func (t *Tags) Ordering(mailbox string, tags []string) OldTags {
	out := make(OldTags)
	if t.DeletedTag != "" && slices.Contains(tags, t.DeletedTag) {
		out[t.DeletedTag] = true
	}
	if t.Untagged(tags) {
		return out
	}
	for _, m := range t.Moves {
		if m.Holds(mailbox, tags) {
			tag, on := m.order()
			out[tag] = on
		}
	}
	return out
}

// Moving gives those of old tags by which a mail would be moved, and Deleting those by which it
// would be deleted.
func (t *Tags) Moving(old OldTags) OldTags   { return t.split(old, false) }
func (t *Tags) Deleting(old OldTags) OldTags { return t.split(old, true) }

func (t *Tags) split(old OldTags, deleting bool) OldTags {
	out := maps.Clone(old)
	maps.DeleteFunc(out, func(tag string, on bool) bool { return (on && t.Deletes([]string{tag}, nil)) != deleting })
	return out
}

// StayingText says that so many messages have tags by which a rule would move them, that were
// there before, and what to type.
func StayingText(n int, account string) string {
	return mail.Number(n, "has tags by which `moves` takes it elsewhere: it stays", "have tags by which `moves` takes them elsewhere: they stay") +
		"; `notmuch imap sync --rules " + mail.Typed(account) + "` moves what its tags say"
}

// DeletingText says of how many messages the files are marked as deleted, by a letter or a tag, when
// they are taken over.
func DeletingText(n int) string {
	return mail.Number(n, "is marked as deleted here: a sync deletes it there", "are marked as deleted here: a sync deletes them there")
}

// Untagged tells whether a mail with these tags is one that the user's own hook is yet to tag:
// no rule is about it.
func (t *Tags) Untagged(tags []string) bool {
	return slices.Contains(tags, TagNew) && slices.Contains(t.NewTags, TagNew)
}

// Deletes tells whether tags say that a file's mail is deleted.
func (t *Tags) Deletes(tags []string, old OldTags) bool {
	return t.DeletedTag != "" && slices.Contains(tags, t.DeletedTag) && !old.stand(t.DeletedTag, true)
}

// MovedBy gives the rule by which a file's mail is moved out of the mailbox; ok is false if
// none does.
func (t *Tags) MovedBy(mailbox string, tags []string, old OldTags, is func(MoveRule) bool) (rule MoveRule, ok bool) {
	i := slices.IndexFunc(t.Moves, func(m MoveRule) bool { return m.Holds(mailbox, tags) && !old.stand(m.order()) && is(m) })
	if i < 0 || t.Untagged(tags) {
		return MoveRule{}, false
	}
	return t.Moves[i], true
}

// Ordered gives what a message's tags order of a file: to what mailbox it goes, or that it is
// deleted. old are those of its tags that were said of other files.
func (t *Tags) Ordered(mailbox, trash string, deletions Deletions, tags []string, old OldTags) (to string, deleted bool) {
	if t.Deletes(tags, old) {
		// What is in the Trash has the tag since it was put there.
		return "", deletions != DeletionsKeep && (deletions != DeletionsTrash || trash != mailbox)
	}
	rule, _ := t.MovedBy(mailbox, tags, old, func(MoveRule) bool { return true })
	return rule.To, false
}

// HasRules tells whether tags order anything by the configuration.
func (t *Tags) HasRules() bool { return len(t.Moves) > 0 || t.DeletedTag != "" }

// RulesFingerprint is what tags order by the configuration, as one word; "" if nothing. Where
// deletions are kept back the server was not told of all, as in local's scans.
func (t *Tags) RulesFingerprint(deletions Deletions) string {
	if !t.HasRules() {
		return ""
	}
	tag := t.DeletedTag
	if deletions == DeletionsKeep {
		tag = "" // it orders nothing
	}
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q %q", t.Moves, tag)))[:16]
}

// TagNew is what by convention a mail has in new.tags until the user's own
// hook has tagged it.
const TagNew = "new"

// IsOrder tells whether a tag orders something here: that mail is deleted, moved, or
// asked for again or no more. A server's keywords never give or take such a tag, nor
// is it told of them: anybody who can set a keyword would give orders.
func (t *Tags) IsOrder(tag string) bool {
	is := func(t string) bool { return t != "" && strings.EqualFold(t, tag) }
	return is(t.DeletedTag) || slices.ContainsFunc(t.Orders, is) || slices.ContainsFunc(t.OrderTags, is) ||
		slices.ContainsFunc(t.Moves, func(m MoveRule) bool { return is(m.With) || is(m.Without) })
}

// FromFlags is FlagTags without the tags that order something.
func (t *Tags) FromFlags(before, after []string) (add, remove []string, set, clear string) {
	harmless := func(flags []string) []string {
		return slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return t.IsOrder(KeywordTag(f)) })
	}
	return t.FlagTags(harmless(before), harmless(after))
}

// InitialTags gives what a newly come message gets beside notmuch's new.tags.
func (t *Tags) InitialTags(flags, ruleAdd, ruleRemove []string) (add, remove []string) {
	add, remove, _, _ = t.FromFlags(nil, flags)
	add = append(add, ruleAdd...)
	return add, append(remove, ruleRemove...)
}

// FlagTags gives the tags that a change of flags from old to new adds and
// removes, and the maildir letters that it sets and clears.
func (t *Tags) FlagTags(before, after []string) (add, remove []string, set, clear string) {
	for _, r := range FlagRows() {
		was, is := HasFlag(before, r.Flag), HasFlag(after, r.Flag)
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
		if tag := t.TagOf(k); tag != "" && !HasFlag(before, k) {
			add = append(add, tag)
		}
	}
	for _, k := range before {
		if !HasFlag(after, k) {
			remove = append(remove, t.spellings(k)...)
		}
	}
	return add, remove, set, clear
}

// WithTags gives flags as they are with tags that stand for some of them, added and then
// removed: what a mail is tagged with as it comes its file's name shows, too.
func WithTags(flags, add, remove []string) []string {
	out := slices.Clone(flags)
	set := func(tag string, on bool) {
		for _, r := range FlagRows() {
			if r.Tag == "" || r.Tag != tag {
				continue
			}
			out = slices.DeleteFunc(out, func(f string) bool { return strings.EqualFold(f, r.Flag) })
			if on != r.Absent {
				out = append(out, r.Flag)
			}
		}
	}
	for _, t := range add {
		set(t, true)
	}
	for _, t := range remove {
		set(t, false)
	}
	return out
}

// KeywordTag gives the notmuch tag for an IMAP keyword, "" for one that has
// none: flags with a row of their own, the many $-keywords by which programs
// talk to themselves, and words that mean something else as a tag.
func KeywordTag(keyword string) string {
	switch strings.ToLower(keyword) {
	case "$junk", "junk":
		return "spam"
	case "nonjunk", "notjunk":
		return ""
	case "unread", "flagged", "replied", "passed", "draft", "deleted", "new", stub.LabelFailed, TagSalvaged, stub.LabelSkipped, TagUnsent:
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

// TagOf gives the tag that mail gets for a keyword, "" for one that has none (KeywordTag).
// Keywords are the same in any case (RFC 9051 2.3.2), so that the server may have another
// spelling than the tag: that of the configuration counts, else that of a tag which goes to the
// server as the keyword, else the server's.
func (t *Tags) TagOf(keyword string) string {
	exact := KeywordTag(keyword)
	if !strings.EqualFold(exact, keyword) {
		return exact // the word of a program
	}
	is := func(tag string) bool { return strings.EqualFold(tag, exact) && t.goesUp(tag) }
	if i := slices.IndexFunc(t.Keywords, is); i >= 0 {
		return t.Keywords[i]
	}
	i := slices.IndexFunc(t.Known, is)
	if i < 0 || is(exact) && slices.Contains(t.Known, exact) {
		return exact
	}
	return t.Known[i]
}

// StandsFor tells whether a tag says of a mail that it has the keyword: in any spelling that
// goes to the server, and in the server's.
func (t *Tags) StandsFor(tag, keyword string) bool {
	exact := KeywordTag(keyword)
	return tag == exact && tag != "" || strings.EqualFold(tag, exact) && t.goesUp(tag)
}

// spellings gives the tags that stand for a keyword, TagOf's first: mail that lost the keyword
// keeps none of them.
func (t *Tags) spellings(keyword string) (out []string) {
	for _, tag := range slices.Concat([]string{t.TagOf(keyword), KeywordTag(keyword)}, t.Keywords, t.Known) {
		if t.StandsFor(tag, keyword) && !slices.Contains(out, tag) {
			out = append(out, tag)
		}
	}
	return out
}

// OpenSpelling tells whether Known counts: a pattern of Keywords may be of several tags.
func (t *Tags) OpenSpelling() bool {
	return slices.ContainsFunc(t.Keywords, func(p string) bool { return strings.ContainsAny(p, `*?[\`) })
}

// anyStandsFor tells whether one of the tags stands for a keyword.
func (t *Tags) anyStandsFor(tags []string, keyword string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return t.StandsFor(tag, keyword) })
}

// TagDelta compares a message's tags with the flags and keywords that were
// agreed on.
func (t *Tags) TagDelta(flags, tags []string) (d Delta) {
	for _, tag := range tags {
		k := tagKeyword(tag)
		has := func(f string) bool { return t.StandsFor(tag, f) }
		if k == "" || !t.goesUp(tag) || slices.ContainsFunc(flags, has) || slices.ContainsFunc(d.Add, has) {
			continue
		}
		d.Add = append(d.Add, k)
	}
	for _, f := range flags {
		if t.isSent(f) && !t.anyStandsFor(tags, f) {
			d.Remove = append(d.Remove, f)
		}
	}
	if !t.TagFlags {
		return d
	}
	f := FlagDelta(flags, func(f FlagRow) bool { return slices.Contains(tags, f.Tag) != f.Absent })
	return Delta{Add: append(d.Add, f.Add...), Remove: append(d.Remove, f.Remove...)}
}

// DeltaAgain adds to a delta of tags what is to be told again.
func (t *Tags) DeltaAgain(d Delta, told, tags []string) Delta {
	for _, f := range told {
		if t.isSent(f) {
			d = ToldAgain(d, []string{f}, func(string) bool { return t.anyStandsFor(tags, f) })
		}
		for _, row := range FlagRows() {
			if row.Flag == f && row.Tag != "" && t.TagFlags {
				d = ToldAgain(d, []string{f}, func(string) bool { return slices.Contains(tags, row.Tag) != row.Absent })
			}
		}
	}
	return d
}

// Unlost leaves out of a delta of tags what a database says of which none were looked at
// before: it may be new, and lack tags that nobody took off. But what lacks a tag that all new
// mail gets has lost it by its owner.
func (t *Tags) Unlost(d Delta) Delta {
	d.Remove = nil
	d.Add = slices.DeleteFunc(slices.Clone(d.Add), func(f string) bool {
		return slices.ContainsFunc(FlagRows(), func(r FlagRow) bool {
			return r.Absent && r.Flag == f && !slices.Contains(t.NewTags, r.Tag)
		})
	})
	return d
}

// goesUp tells whether the configuration sends a tag to the server. A tag that orders
// something is no keyword either way: what the server has of it is not taken here, so
// that its absence here says nothing.
func (t *Tags) goesUp(tag string) bool { return t.selected(tag, func(s string) string { return s }) }

// isSent tells whether the server is told that a keyword was taken off: a tag that stands for it,
// in any spelling, is sent, whether or not any mail has that still.
func (t *Tags) isSent(keyword string) bool {
	tag := t.TagOf(keyword)
	return tag != "" && (t.goesUp(tag) || t.selected(tag, strings.ToLower))
}

// selected is goesUp, of tags and patterns as they are spelled.
func (t *Tags) selected(tag string, spelled func(string) string) bool {
	if t.IsOrder(tag) {
		return false
	}
	// To path.Match a slash is more than a letter; in a tag it is none.
	flat := func(s string) string { return strings.ReplaceAll(spelled(s), "/", "\x00") }
	return slices.ContainsFunc(t.Keywords, func(p string) bool {
		ok, _ := path.Match(flat(p), flat(tag)) // the configuration has checked it
		return ok
	})
}

// tagKeyword is KeywordTag the other way: "" for a tag that is no keyword (RFC
// 9051 9, flag-keyword is an atom), or that means something else to us.
func tagKeyword(tag string) string {
	switch tag {
	case "spam":
		return "$Junk"
	case "attachment", "signed", "encrypted":
		return "" // notmuch gives them by itself
	}
	if KeywordTag(tag) != tag || unspeakable(tag) {
		return ""
	}
	return tag
}

// unspeakable tells whether a tag has what no keyword can have.
func unspeakable(tag string) bool {
	return strings.ContainsFunc(tag, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`(){%*"\]`, c) })
}

// Unspeakable gives those of the tags that the configuration sends to the server, and that no
// keyword can be called.
func (t *Tags) Unspeakable(tags []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return !t.goesUp(tag) || !unspeakable(tag) })
}

// Arrival is how a mail comes to a mailbox.
type Arrival int

const (
	AsNew   Arrival = iota // it was not here before, or nobody can tell
	ByTags                 // this run moved it, as its tags, or its end, wanted it
	ByOther                // moved or copied on the server by others
	ByHand                 // its file was put there here
)

// Arriving gives the tags of a mail that comes to a mailbox. They agree with the
// rules, so that a move by hand or by another program is not undone: neither here
// nor by two machines of which each has its own tags, for ever. Tags that a new
// mail has of its own accord are for the rules; so are those of a mail that the
// user's own hook will tag. One that comes out of the Trash is not deleted again
// for the tag that it still has.
// Mailbox is the one that it comes to, ruleAdd and ruleRemove are the tags that its mail
// has by rule, and trash is the account's Trash; "" if it has none.
func (t *Tags) Arriving(mailbox, trash string, flags, ruleAdd, ruleRemove []string, by Arrival) (add, remove []string) {
	add, remove = t.InitialTags(flags, ruleAdd, ruleRemove)
	if by == ByTags {
		return add, remove
	}
	add, remove = slices.Clip(add), slices.Clip(remove)
	for _, m := range t.Moves {
		switch {
		case m.From != mailbox:
		case m.With != "" && (by != AsNew || slices.Contains(t.NewTags, m.With)):
			add = slices.DeleteFunc(slices.Clone(add), func(t string) bool { return t == m.With })
			remove = append(remove, m.With)
		case m.Without != "" && (by != AsNew || !slices.Contains(t.NewTags, TagNew)):
			add = append(add, m.Without)
		}
	}
	if t.DeletedTag != "" && by != ByHand && trash != mailbox {
		remove = append(remove, t.DeletedTag)
	}
	return add, remove
}

// AsNamed gives flags as the name of a message's file says them, which notmuch goes by where it
// minds letters: its owner may have changed them since. A tag that says something else is an order.
func (t *Tags) AsNamed(flags []string, name string) []string {
	if t.TagFlags || !HasInfo(name) {
		return flags
	}
	_, letters := maildir.ParseName(name)
	return DeltaOf(flags, letters).Merged(flags)
}

// ToldAgain adds to a delta what is to be told again: of the flags that the server was told
// of, what is here.
func ToldAgain(d Delta, told []string, here func(flag string) bool) Delta {
	for _, f := range told {
		switch {
		case HasFlag(d.Add, f) || HasFlag(d.Remove, f):
		case here(f):
			d.Add = append(d.Add, f)
		default:
			d.Remove = append(d.Remove, f)
		}
	}
	return d
}

// AsTold gives agreed flags with those of which the server was told as they are there.
func AsTold(agreed, there, told []string) []string {
	var d Delta
	for _, f := range told {
		d = ToldAgain(d, []string{f}, func(f string) bool { return HasFlag(there, f) })
	}
	return d.Merged(agreed)
}

// LetterDelta compares the letters of a message's file with the flags that were agreed on. told
// are flags that the server was told of: what of them the file says is told again. Where notmuch
// does not rename files for its tags, letters say nothing of what was done to a tag.
func (t *Tags) LetterDelta(flags []string, letters string, told []string) Delta {
	again := slices.DeleteFunc(slices.Clone(told), func(f string) bool {
		i := slices.IndexFunc(FlagRows(), func(r FlagRow) bool { return r.Flag == f })
		return i < 0 || t != nil && t.TagFlags && FlagRows()[i].Tag != ""
	})
	return ToldAgain(DeltaOf(flags, letters), again, func(f string) bool { return HasFlag(FlagsOf(letters), f) })
}
