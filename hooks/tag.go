package hooks

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strings"
)

// TagRule is what a mail must be for its tags: all that is set holds.
type TagRule struct {
	Mailboxes Mailboxes
	Header    string         // a field
	Match     *regexp.Regexp // of which one such field has this; nil: it is there
	ListID    string         // a pattern (path.Match) of List-Id; "" is not asked
	Own       []string       // it is from one of these; nil is not asked
	Tags      Tags
}

// Tag gives mail tags by rule when it comes.
func Tag(name string, rule TagRule) Hook {
	return Hook{
		Name: name, Doc: "tags new mail by rule: " + rule.Tags.words(), Points: []Point{PreWrite},
		Run: rule.Mailboxes.only(func(_ context.Context, e *Event) (Verdict, error) {
			if ok, err := rule.applies(e); !ok || err != nil {
				return Verdict{}, err
			}
			return rule.Tags.verdict(), nil
		}),
	}
}

func (r TagRule) applies(e *Event) (bool, error) {
	if r.ListID != "" {
		if ok, _ := path.Match(strings.ToLower(r.ListID), strings.ToLower(e.ListID)); !ok || e.ListID == "" {
			return false, nil
		}
	}
	if r.Own != nil && !isOwn(e.From, r.Own) {
		return false, nil
	}
	if r.Header == "" {
		return true, nil
	}
	h, err := headerOf(e.File)
	if err != nil {
		return false, err
	}
	values := h.decoded(r.Header)
	if text := map[string]string{"from": e.From, "to": e.To, "subject": e.Subject}[strings.ToLower(r.Header)]; text != "" {
		values = append(values, text) // decoded from whatever charset it was in
	}
	return slices.ContainsFunc(values, func(value string) bool { return r.Match == nil || r.Match.MatchString(value) }), nil
}

// Lists tags mail of mailing lists with prefix and the list's name, which is
// what stands before the first dot of its List-Id.
func Lists(name string, mailboxes Mailboxes, prefix string, tags Tags) Hook {
	return Hook{
		Name: name, Doc: "tags mail of each mailing list with " + prefix + "NAME", Points: []Point{PreWrite},
		Run: mailboxes.only(func(_ context.Context, e *Event) (Verdict, error) {
			list, _, _ := strings.Cut(strings.ToLower(e.ListID), ".")
			tag := prefix + list
			if list == "" || badTag(tag) != "" {
				return Verdict{}, nil
			}
			v := tags.verdict()
			v.Add = append(slices.Clone(v.Add), tag)
			return v, nil
		}),
	}
}
