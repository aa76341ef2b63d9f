package plan

import (
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// FlagRow is one line of the mapping between an IMAP flag (RFC 9051 2.3.2), the
// letter in a maildir file name, and the notmuch tag.
type FlagRow struct {
	Flag   string
	Letter string
	Tag    string
	Absent bool // the tag stands for the flag's absence
}

// FlagRows is the one mapping flag <-> letter <-> tag, notmuch's own
// (notmuch_message_tags_to_maildir_flags). \Deleted has no tag: notmuch's
// `deleted` never becomes T either.
func FlagRows() []FlagRow {
	return []FlagRow{
		{`\Seen`, "S", "unread", true},
		{`\Flagged`, "F", "flagged", false},
		{`\Answered`, "R", "replied", false},
		{`$Forwarded`, "P", "passed", false},
		{`\Draft`, "D", "draft", false},
		{`\Deleted`, "T", "", false},
	}
}

// OwnFlags are the flags that mail which is put into a mailbox from here gets beside its
// own: what its owner wrote is no news to them, and what lies among the drafts is one.
// Mail programs leave that out, since the folder says it.
func OwnFlags(m mail.Mailbox) []string {
	switch {
	case m.For(`\Drafts`, "Drafts", "Draft"):
		return []string{`\Draft`, `\Seen`}
	case m.For(`\Sent`, "Sent", "Sent Items", "Sent Messages", "Sent Mail"):
		return []string{`\Seen`}
	}
	return nil
}

// SameFlags compares flags as sets: system flags and keywords are case-insensitive
// (RFC 9051 2.3.2).
func SameFlags(a, b []string) bool {
	return slices.Equal(a, b) || slices.Equal(foldFlags(a), foldFlags(b)) // most are as they were
}

// foldFlags gives flags in one spelling and order, each once.
func foldFlags(flags []string) []string {
	out := make([]string, 0, len(flags))
	for _, f := range flags {
		out = append(out, strings.ToLower(f))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// HasFlag tells whether a flag is among flags, in any case.
func HasFlag(flags []string, flag string) bool {
	return slices.ContainsFunc(flags, func(f string) bool { return strings.EqualFold(f, flag) })
}

// Letters gives the maildir flag letters of flags, in order.
func Letters(flags []string) string {
	var b []byte
	for _, r := range FlagRows() {
		if HasFlag(flags, r.Flag) {
			b = append(b, r.Letter...)
		}
	}
	slices.Sort(b)
	return string(b)
}

// Delta is what the user changed in a message's flags since the last agreement.
type Delta struct {
	Add, Remove []string
}

// HasInfo tells whether a file's name has letters, if only none of them: one
// without says nothing about flags.
func HasInfo(name string) bool { return strings.Contains(name, ":2,") }

// DeltaOf compares the letters of a file with the flags that were agreed on. The letter T is
// no flag to add, since to delete is more than to flag; that it was taken off is that of a flag.
func DeltaOf(flags []string, letters string) Delta {
	d := FlagDelta(flags, func(f FlagRow) bool { return strings.Contains(letters, f.Letter) })
	if HasFlag(flags, `\Deleted`) && !strings.Contains(letters, "T") {
		d.Remove = append(d.Remove, `\Deleted`)
	}
	return d
}

// FlagDelta compares what is said here of each flag that has a tag with the flags
// that were agreed on.
func FlagDelta(flags []string, here func(FlagRow) bool) (d Delta) {
	for _, f := range FlagRows() {
		is, was := here(f), HasFlag(flags, f.Flag)
		switch {
		case f.Tag == "" || is == was:
		case is:
			d.Add = append(d.Add, f.Flag)
		default:
			d.Remove = append(d.Remove, f.Flag)
		}
	}
	return d
}

// Changed gives the delta between two sets of flags.
func Changed(before, after []string) (d Delta) {
	for _, f := range after {
		if !HasFlag(before, f) {
			d.Add = append(d.Add, f)
		}
	}
	for _, f := range before {
		if !HasFlag(after, f) {
			d.Remove = append(d.Remove, f)
		}
	}
	return d
}

// Nothing tells whether it changes nothing.
func (d Delta) Nothing() bool { return len(d.Add)+len(d.Remove) == 0 }

// Merged gives flags with a delta applied: a flag that one side changed since
// they agreed is as that side has it, and both cannot have changed it apart,
// since it is there or not.
func (d Delta) Merged(flags []string) []string {
	out := slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return HasFlag(d.Remove, f) })
	for _, f := range d.Add {
		if !HasFlag(out, f) {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}

// FlagsOf gives the flags that a file's letters stand for.
func FlagsOf(letters string) []string {
	return DeltaOf(nil, letters).Add
}

// StoredFlags leaves out \Recent, which is the session's (RFC 3501 2.3.2), and
// makes unknown flags none.
func StoredFlags(flags []string) []string {
	out := []string{}
	for _, f := range flags {
		if f != `\Recent` {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}
