package plan

import (
	"slices"
	"testing"
)

func TestFlagTags(t *testing.T) {
	for name, c := range map[string]struct {
		before, after []string
		add, remove   []string
		set, clear    string
	}{
		"read":           {nil, []string{`\Seen`}, nil, []string{"unread"}, "S", ""},
		"unread again":   {[]string{`\seen`}, nil, []string{"unread"}, nil, "", "S"},
		"flagged":        {nil, []string{`\Flagged`}, []string{"flagged"}, nil, "F", ""},
		"deleted":        {nil, []string{`\Deleted`}, nil, nil, "T", ""},
		"forwarded":      {nil, []string{"$Forwarded"}, []string{"passed"}, nil, "P", ""},
		"keyword":        {[]string{"old"}, []string{"todo"}, []string{"todo"}, []string{"old"}, "", ""},
		"internal words": {nil, []string{"$MDNSent", "NonJunk", "unread", "-x", "a b", "fetch-failed"}, nil, nil, "", ""},
		"junk":           {nil, []string{"$Junk"}, []string{"spam"}, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			add, remove, set, clear := FlagTags(c.before, c.after)
			if !slices.Equal(add, c.add) || !slices.Equal(remove, c.remove) || set != c.set || clear != c.clear {
				t.Errorf("add %v remove %v set %q clear %q", add, remove, set, clear)
			}
		})
	}
}
