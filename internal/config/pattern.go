package config

import (
	"slices"
	"strings"
)

// Selects tells whether a mailbox is to be synchronised. The account's patterns
// are IMAP's own (RFC 9051 6.3.9): `*` stands for anything, `%` for anything
// but the hierarchy delimiter. A leading `!` excludes, and the last match wins.
// A list that begins with an exclusion is about all others.
func (a *Account) Selects(mailbox string, delim rune) bool {
	if len(a.Mailboxes) == 0 {
		return true
	}
	selected := strings.HasPrefix(a.Mailboxes[0], "!")
	for _, p := range a.Mailboxes {
		pattern, exclude := strings.CutPrefix(p, "!")
		if Match(pattern, mailbox, delim) {
			selected = !exclude
		}
	}
	return selected
}

// TagRules gives the tags that mail of a mailbox gets and loses when it comes.
// All rules that match apply, in the order of the file; of two that name one
// tag the later wins.
func (a *Account) TagRules(mailbox string, delim rune) (add, remove []string) {
	without := func(list []string, tag string) []string {
		return slices.DeleteFunc(list, func(t string) bool { return t == tag })
	}
	for _, r := range a.Tags {
		if !Match(r.Pattern, mailbox, delim) {
			continue
		}
		for _, t := range r.Tags {
			tag := t[1:]
			add, remove = without(add, tag), without(remove, tag)
			if t[0] == '+' {
				add = append(add, tag)
			} else {
				remove = append(remove, tag)
			}
		}
	}
	return add, remove
}

// Match tells whether an IMAP LIST pattern matches a mailbox's name. INBOX is
// the same in any case (RFC 9051 5.1), also as the top of a hierarchy. Time
// grows with the product of the lengths, whatever the pattern.
func Match(pattern, mailbox string, delim rune) bool {
	name := []rune(inbox(mailbox, delim))
	// may[i] tells whether what was read of the pattern matches name[:i].
	may := make([]bool, len(name)+1)
	may[0] = true
	for _, c := range inbox(pattern, delim) {
		if c == '*' || c == '%' {
			for i := range name {
				may[i+1] = may[i+1] || may[i] && (c == '*' || delim == 0 || name[i] != delim)
			}
			continue
		}
		for i := len(name); i > 0; i-- {
			may[i] = may[i-1] && name[i-1] == c
		}
		may[0] = false
	}
	return may[len(name)]
}

// inbox writes a leading INBOX in capitals.
func inbox(s string, delim rune) string {
	const n = len("INBOX")
	if len(s) < n || !strings.EqualFold(s[:n], "INBOX") {
		return s
	}
	if rest := s[n:]; rest == "" || rest[0] == '*' || rest[0] == '%' || delim != 0 && strings.HasPrefix(rest, string(delim)) {
		return "INBOX" + rest
	}
	return s
}
