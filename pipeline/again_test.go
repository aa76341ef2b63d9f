package pipeline

import (
	"fmt"
	"slices"
	"testing"
)

// A mailbox has other UIDs for a while, and then those of before again: another one is in its
// place, as when it is renamed away and back, or its disk is not there. It is as it was.
func TestAMailboxIsBackWithItsUIDs(t *testing.T) {
	t.Parallel()
	for wire, caps := range stopServers() {
		for _, syncs := range []int{1, 2} {
			if spared(wire, syncs) {
				continue
			}
			t.Run(wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.box("INBOX").add(plainMail(90), `\Seen`)
				s.box("Trash").add(plainMail(91), `\Seen`)
				p := s.box("P")
				for i := range 5 {
					p.add(plainMail(i), `\Seen`)
				}
				h.sync(s)
				s.drop("P")
				other := s.box("P")
				other.validity = p.validity + 7
				other.expunge(other.add(plainMail(50), `\Seen`))
				for range syncs {
					h.sync(s)
				}
				h.remove("P", 5) // which no mailbox of the server has now
				h.notmuchNew()
				s.drop("P")
				s.boxes["P"] = p
				h.sync(s)
				h.sync(s)
				h.check(s)
				h.remove("P", 1)
				h.flag("P", 2, "FS")
				h.move("P", 3, "INBOX", false)
				p.flag(4, `\Seen`, `\Answered`)
				h.notmuchNew()
				h.sync(s)
				h.check(s)
				h.quiet(s)
			})
		}
	}
}

// A mailbox is known again by one of its messages, however many of them were moved out of it since, if
// no other mailbox has their UIDVALIDITY: also where it has exchanged its name with another one, and
// with what waits in both.
func TestARenamedMailboxIsKnownByWhatIsLeftInIt(t *testing.T) {
	t.Parallel()
	for wire, caps := range stopServers() {
		for _, names := range [][]string{{"P", "D", "D", "P"}, {"P", "Q"}} {
			if spared(wire, len(names)) {
				continue
			}
			t.Run(fmt.Sprint(wire, names), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.mute = wire == "mute" || wire == "bare"
				in := s.box("INBOX")
				in.add(plainMail(90), `\Seen`)
				s.box("Trash").add(plainMail(91), `\Seen`)
				p, d := s.box("P"), s.box("D")
				in.validity, d.validity, s.box("Trash").validity = 20, 21, 22
				for i := range 4 {
					p.add(plainMail(i), `\Seen`)
					d.add(plainMail(10+i), `\Seen`)
				}
				h.sync(s)
				s.rename(names...)
				for i := range 3 {
					if !p.take(id(i), in) {
						t.Fatal(i)
					}
				}
				h.flag("P", 4, "FS")
				h.removeText("D", plainMail(10))
				h.notmuchNew()
				h.sync(s)
				h.check(s)
				h.quiet(s)
				if got := p.msgs[4].flags; len(p.msgs) != 1 || !slices.Contains(got, `\Flagged`) || len(d.msgs) != 3 || len(in.msgs) != 4 {
					t.Errorf("%d messages with %v, %d and %d", len(p.msgs), got, len(d.msgs), len(in.msgs))
				}
			})
		}
	}
}

// A mailbox is renamed to the name of a folder that was here before the first sync: what lies in it
// stays here, as it would if a mailbox of that name were made.
func TestAMailboxIsRenamedToTheNameOfAFolderOfBefore(t *testing.T) {
	t.Parallel()
	for _, caps := range stopServers() {
		s, h := newServer(caps...), newHome(t)
		s.box("INBOX").add(plainMail(90), `\Seen`)
		p := s.box("P")
		p.validity = 20
		p.add(plainMail(1), `\Seen`)
		h.maildir("Old")
		for i := range 3 {
			h.put("Old", plainMail(10+i), "S")
		}
		h.notmuchNew()
		h.sync(s)
		s.rename("P", "Old")
		for range 2 {
			h.sync(s)
		}
		h.quiet(s)
		if here := h.files("Old"); len(p.msgs) != 1 || len(here) != 4 {
			t.Errorf("the server has %d messages, and %d are here", len(p.msgs), len(here))
		}
	}
}

// A run of some mailboxes finds another one under the name of one of them: it is judged by all that the
// server has, as in a run of all.
func TestSomeMailboxesWhoseNamesOthersHave(t *testing.T) {
	t.Parallel()
	for wire, caps := range stopServers() {
		for what, names := range map[string][]string{"exchanged": {"P", "D", "D", "P"}, "one after another": {"D", "E", "P", "D"}} {
			for _, only := range []string{"P", "D"} {
				if spared(wire, what, only) {
					continue
				}
				t.Run(fmt.Sprint(wire, what, only), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.mute = wire == "mute" || wire == "bare"
					in, p, d := s.box("INBOX"), s.box("P"), s.box("D")
					in.validity, d.validity, s.box("Trash").validity = 20, 21, 22
					in.add(plainMail(90), `\Seen`)
					for i := range 3 {
						p.add(plainMail(i), `\Seen`)
						d.add(plainMail(10+i), `\Seen`)
					}
					h.sync(s)
					s.rename(names...)
					h.removeText("P", plainMail(0))
					h.removeText("D", plainMail(11))
					h.notmuchNew()
					if s.boxes[only] != nil {
						h.sync(s, func(o *Options) { o.Only = []string{only} })
					}
					h.sync(s)
					h.check(s)
					h.quiet(s)
					if len(p.msgs) != 2 || len(d.msgs) != 2 || len(s.box("Trash").msgs) != 2 {
						t.Errorf("the server has %d, %d and %d messages", len(p.msgs), len(d.msgs), len(s.box("Trash").msgs))
					}
				})
			}
		}
	}
}
