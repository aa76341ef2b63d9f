package cmd

import (
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
)

// The configuration knows the points by their names only.
func TestEveryPointCanBeConfigured(t *testing.T) {
	t.Parallel()
	c := config.Hook{Name: "h", Command: []string{"true"}, Timeout: time.Second, Required: true}
	for _, p := range hooks.Points() {
		c.Points = append(c.Points, string(p))
	}
	for _, c.Stream = range []bool{false, true} {
		list := hookList([]config.Hook{c}, nil, nil)
		if err := hooks.Validate(list); err != nil {
			t.Error(err)
		}
		if h := list[0]; h.Timeout != time.Second || !h.Required || len(h.Points) != len(hooks.Points()) || (h.Close != nil) != c.Stream {
			t.Errorf("%+v", h)
		}
	}
	if got, want := config.HookPoints(), c.Points; len(got) != len(want) {
		t.Errorf("the configuration knows %q, there is %q", got, want)
	} else {
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("the configuration knows %q, there is %q", got, want)
			}
		}
	}
}
