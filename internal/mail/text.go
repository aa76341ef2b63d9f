package mail

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// OneLine makes one line of at most so many characters of a server's or a sender's
// words, which a terminal can show.
func OneLine(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	s = FoldSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return s
}

// FoldSpace makes one space of each run of white space, and none of what is at the ends.
func FoldSpace(s string) string { return strings.Join(strings.Fields(s), " ") }

// Visible makes what could steer a terminal readable: control characters, those that turn
// the direction of writing, and bytes that are no UTF-8, are escaped. What is visible already
// stays as it is, so that nothing is escaped twice.
func Visible(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r != '\t' && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.Is(unicode.Bidi_Control, r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Quoted is Visible between quotes.
func Quoted(s string) string { return `"` + Visible(s) + `"` }

// Typed writes a word, such as the name of a mailbox, as it is to be typed in a shell.
func Typed(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\n'\"$&;<>|()*?[]{}~#!`\\") {
		return word
	}
	return ShellQuoted(word)
}

// ShellQuoted writes a word in quotes for a shell, whatever is in it.
func ShellQuoted(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
