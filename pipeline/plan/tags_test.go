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
		"internal words": {nil, []string{"$MDNSent", "NonJunk", "unread", "-x", "a b", "fetch-failed", "Fetch-Skipped", "fetch-salvaged", "Upload-Failed"}, nil, nil, "", ""},
		"junk":           {nil, []string{"$Junk"}, []string{"spam"}, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			add, remove, set, clear := new(Tags).FlagTags(c.before, c.after)
			if !slices.Equal(add, c.add) || !slices.Equal(remove, c.remove) || set != c.set || clear != c.clear {
				t.Errorf("add %v remove %v set %q clear %q", add, remove, set, clear)
			}
		})
	}
}

// One mapping says which tag stands for a keyword, whose case means nothing to a server.
func TestSpellingsOfAKeyword(t *testing.T) {
	for name, c := range map[string]struct {
		keywords, known []string
		flag            string
		add, remove     []string
	}{
		"the configuration's":       {[]string{"x", "work"}, nil, "Work", []string{"work"}, []string{"work", "Work"}},
		"both of it":                {[]string{"Work", "work"}, nil, "WORK", []string{"Work"}, []string{"Work", "WORK", "work"}},
		"that of mail":              {[]string{"w*"}, []string{"inbox", "work"}, "Work", []string{"work"}, []string{"work", "Work"}},
		"both of mail":              {[]string{"*"}, []string{"Work", "work"}, "work", []string{"work"}, []string{"work", "Work"}},
		"what of mail is not sent":  {[]string{"x"}, []string{"work"}, "Work", []string{"Work"}, []string{"Work"}},
		"the server's":              {nil, nil, "Work", []string{"Work"}, []string{"Work"}},
		"the word of a program":     {[]string{"Spam"}, nil, "$junk", []string{"spam"}, []string{"spam", "Spam"}},
		"what orders is no keyword": {[]string{"kill"}, nil, "Kill", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tags := &Tags{Keywords: c.keywords, Known: c.known, DeletedTag: "kill"}
			add, _, _, _ := tags.FromFlags(nil, []string{c.flag})
			_, remove, _, _ := tags.FromFlags([]string{c.flag}, nil)
			if !slices.Equal(add, c.add) || !slices.Equal(remove, c.remove) {
				t.Errorf("adds %q, removes %q, want %q and %q", add, remove, c.add, c.remove)
			}
			for _, tag := range c.remove {
				if d := tags.TagDelta([]string{c.flag}, []string{tag}); !d.Nothing() {
					t.Errorf("%s changes the flags by %+v", tag, d)
				}
			}
		})
	}
}
