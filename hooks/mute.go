package hooks

import (
	"context"
	"slices"
	"strings"
)

// maxAncestors bounds of how many mails it is asked whether they are muted.
const maxAncestors = 30

// Mute gives new mail of a muted thread the tags, before it is seen anywhere.
// muted tells whether any mail of the threads that these Message-IDs are in is
// muted; it is called as Run is.
func Mute(name string, mailboxes Mailboxes, muted func(ctx context.Context, ids []string) (bool, error), tags Tags) Hook {
	return Hook{
		Name: name, Doc: "keeps new mail of muted threads out of sight: " + tags.words(), Points: []Point{PreWrite},
		Run: mailboxes.only(func(ctx context.Context, e *Event) (Verdict, error) {
			h, err := headerOf(e.File)
			if err != nil {
				return Verdict{}, err
			}
			ids := h.ancestors()
			if len(ids) == 0 {
				return Verdict{}, nil
			}
			if is, err := muted(ctx, ids); !is || err != nil {
				return Verdict{}, err
			}
			return tags.verdict(), nil
		}),
	}
}

// ancestors are the Message-IDs that a mail refers to, without angle brackets,
// the nearest last. Those that could mean more in a query than their name are
// left out.
func (h header) ancestors() []string {
	var out []string
	for _, name := range []string{"References", "In-Reply-To"} {
		for part := range strings.SplitSeq(strings.Join(h[name], " "), "<") {
			id, _, ok := strings.Cut(part, ">")
			if ok && strings.Contains(id, "@") && !slices.Contains(out, id) &&
				!strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"{}\`, r) }) {
				out = append(out, id)
			}
		}
	}
	return out[max(0, len(out)-maxAncestors):]
}
