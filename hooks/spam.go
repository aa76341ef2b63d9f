package hooks

import (
	"context"
	"regexp"
	"strconv"
	"strings"
)

// Spam tags mail that the server's filter takes for spam, by the header that it
// wrote: SpamAssassin's, rspamd's, or what imitates them. With a score above 0
// the filter's number counts, where it gave one.
func Spam(name string, mailboxes Mailboxes, score float64, tags Tags) Hook {
	return Hook{
		Name: name, Doc: "tags what the server's filter takes for spam: " + tags.words(), Points: []Point{PreWrite},
		Run: mailboxes.only(func(_ context.Context, e *Event) (Verdict, error) {
			h, err := headerOf(e.File)
			if err != nil || !h.spam(score) {
				return Verdict{}, err
			}
			return tags.verdict(), nil
		}),
	}
}

func (h header) spam(score float64) bool {
	if n, ok := h.score(); ok && score > 0 {
		return n >= score
	}
	for _, name := range []string{"X-Spam-Flag", "X-Spam-Status", "X-Spam"} {
		if word := strings.ToLower(h.first(name)); strings.HasPrefix(word, "yes") || strings.HasPrefix(word, "true") {
			return true
		}
	}
	// rspamd: `default: True [15.00 / 15.00]`
	_, verdict, _ := strings.Cut(strings.ToLower(h.first("X-Spamd-Result")), ":")
	return strings.HasPrefix(strings.TrimSpace(verdict), "true")
}

// score gives the number of the first filter that gave one.
func (h header) score() (float64, bool) {
	number := `([-+]?[0-9]+(?:\.[0-9]+)?)`
	for _, f := range []struct{ name, pattern string }{
		{"X-Spam-Status", `\b(?:score|hits)=` + number},
		{"X-Spam-Score", `^` + number},
		{"X-Rspamd-Score", `^` + number},
		{"X-Spamd-Result", `\[` + number + ` */`},
	} {
		if m := regexp.MustCompile(f.pattern).FindStringSubmatch(h.first(f.name)); m != nil {
			n, err := strconv.ParseFloat(m[1], 64)
			return n, err == nil
		}
	}
	if stars := h.first("X-Spam-Level"); stars != "" && strings.Trim(stars, "*") == "" {
		return float64(len(stars)), true
	}
	return 0, false
}
