package pipeline

import (
	"fmt"
	"slices"
	"testing"
)

// A flag or keyword that is taken off a mail which is moved as well, on the server
// or here, between two runs, leaves no tag behind.
func TestAFlagTakenOffWithAMoveLeavesNoTag(t *testing.T) {
	for wire, caps := range wires() {
		for _, renamed := range []bool{false, true} {
			for _, here := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%v/%v", wire, renamed, here), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					s.box("INBOX").add(plainMail(1), `\Seen`, `\Flagged`, "work")
					s.box("INBOX").add(plainMail(2))
					s.box("Archive")
					h.sync(s)
					if here {
						h.flag("INBOX", 1, "S")
						h.move("INBOX", 1, "Archive", renamed)
					} else {
						m := s.box("INBOX").expunge(1)
						s.box("Archive").msgs[s.box("Archive").add(m.raw, `\Seen`)].date = m.date
					}
					for range 2 {
						h.sync(s)
					}
					for _, tag := range h.tags(id(1)) {
						if tag == "flagged" || tag == "work" && !here {
							t.Errorf("tags %v", h.tags(id(1)))
						}
					}
					h.quiet(s)
				})
			}
		}
	}
}

// What another copy of the mail has stays a tag.
func TestAFlagOfAnotherCopyStaysATag(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS"), newHome(t)
	s.box("INBOX").add(listCopy(plainMail(1)), `\Flagged`, "work")
	s.box("INBOX").add(plainMail(2))
	s.box("Sent").add(plainMail(1), `\Flagged`, "work")
	h.sync(s)
	s.box("INBOX").expunge(1)
	h.sync(s)
	if tags := h.tags(id(1)); !slices.Contains(tags, "flagged") || !slices.Contains(tags, "work") {
		t.Errorf("tags %v", tags)
	}
}

// A flag or keyword that is taken off a mail whose file was deleted here meanwhile: the
// mail comes again, without its tag.
func TestAFlagTakenOffAMailThatWasDeletedHereLeavesNoTag(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			s.box("INBOX").add(plainMail(1), `\Seen`, `\Flagged`, "work", "home")
			s.box("INBOX").add(plainMail(2))
			s.box("Trash")
			h.sync(s)
			h.remove("INBOX", 1)
			s.box("INBOX").flag(1, `\Seen`, "home")
			for range 2 {
				h.sync(s)
			}
			if tags := h.tags(id(1)); len(h.files("INBOX")) != 2 || slices.Contains(tags, "flagged") || slices.Contains(tags, "work") || !slices.Contains(tags, "home") {
				t.Errorf("tags %v of files %v", tags, h.files("INBOX"))
			}
			h.quiet(s)
		})
	}
}
