package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Another client moves on, or deletes, what we have just moved, before our look. The mail is
// where that client put it, once, and here likewise. That it was deleted nothing says where the
// server names no UIDs: then it comes back where we had moved it, or stays here and that is said.
func TestAMoveThatOthersMoveOn(t *testing.T) {
	t.Parallel()
	for wire, caps := range stopServers() {
		for _, other := range []string{"Later", "Made", "INBOX", "Trash", ""} {
			for _, renamed := range []bool{false, true} {
				if spared(wire, other, renamed) {
					continue
				}
				t.Run(fmt.Sprintf("%s to %q, file renamed %v", wire, other, renamed), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.mute = wire == "mute" || wire == "bare"
					in := s.box("INBOX")
					for i := range 4 {
						in.add(plainMail(i), `\Seen`)
					}
					for i, b := range []string{"Archive", "Later", "Trash"} {
						s.box(b).add(plainMail(90+i), `\Seen`)
					}
					h.sync(s)
					h.move("INBOX", 2, "Archive", renamed)
					taken := false
					s.effect = func(verb string) {
						switch {
						case taken || verb == "UID STORE":
						case other == "":
							taken = s.box("Archive").take(id(1), nil)
						default:
							taken = s.box("Archive").take(id(1), s.box(other))
						}
					}
					h.sync(s)
					s.effect = nil
					for range 3 {
						h.now = h.now.Add(time.Hour)
						h.sync(s)
					}
					want := []string{"[" + other + "]"}
					if other == "" && wire != "all" {
						want = append(want, "[Archive]")
					}
					if got := fmt.Sprint(s.holding(id(1))); !slices.Contains(want, got) || !taken {
						t.Errorf("taken %v: it is in %s, want one of %s", taken, got, want)
					}
					h.notmuchNew()
					if kept := h.unsent(); len(kept) > 0 {
						if other != "" || len(kept) != 1 || !kept[0].GivenUp || kept[0].ID != id(1) {
							t.Errorf("%+v", kept)
						}
						return
					}
					h.check(s)
					h.quiet(s)
				})
			}
		}
	}
}
