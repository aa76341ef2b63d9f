package pipeline

import (
	"fmt"
	"testing"
)

// A mailbox is emptied into another one and deleted on the server, as who merges two folders on a
// telephone does, while its mail is moved here: each mail is where the server has it, once, and what
// was deleted there with its mailbox is where its owner has put it.
func TestAMailboxIsEmptiedAndDeletedThereAndItsMailMovedHere(t *testing.T) {
	t.Parallel()
	for wire, caps := range stopServers() {
		for _, to := range []string{"Later", "INBOX", "Archive", ""} {
			for _, renamed := range []bool{false, true} {
				if spared(wire, to, renamed) {
					continue
				}
				t.Run(fmt.Sprintf("%s to %q, file renamed %v", wire, to, renamed), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.mute = wire == "mute" || wire == "bare"
					for i, b := range []string{"INBOX", "Archive", "Later", "Trash"} {
						s.box(b).add(plainMail(90+i), `\Seen`)
					}
					s.box("Old").add(plainMail(1), `\Seen`)
					h.sync(s)
					if to != "" {
						s.box("Old").take(id(1), s.box(to))
					}
					s.drop("Old")
					h.move("Old", 1, "Archive", renamed)
					plan, _ := h.planned(s)
					h.sync(s)
					if d := h.notAsPlanned(plan); d != "" {
						t.Errorf("the log differs from the plan:\n%s", d)
					}
					want := "[Archive]"
					if to != "" {
						want = "[" + to + "]"
					}
					if got := fmt.Sprint(s.holding(id(1))); got != want {
						t.Errorf("after one sync it is in %s, want %s", got, want)
					}
					h.notmuchNew()
					h.sync(s)
					if got := fmt.Sprint(s.holding(id(1))); got != want {
						t.Errorf("it is in %s, want %s", got, want)
					}
					h.quiet(s)
				})
			}
		}
	}
}
