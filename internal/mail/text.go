package mail

import (
	"strings"
	"unicode"
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
