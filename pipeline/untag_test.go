package pipeline

import (
	"fmt"
	"slices"
	"strings"
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

// A tag that is put on a mail, or taken off, goes to the server with the move of its file, or
// with its new name, whether notmuch knows where the file is now or not.
func TestATagThatChangedWithAMove(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, to := range []string{"INBOX", "Archive"} {
			for _, renamed := range []bool{false, true} {
				for _, known := range []bool{false, true} {
					for _, off := range []bool{false, true} {
						if spared(wire, to, renamed, known, off) {
							continue
						}
						t.Run(fmt.Sprintf("%s to %s, renamed %v, known %v, off %v", wire, to, renamed, known, off), func(t *testing.T) {
							t.Parallel()
							s, h := newServer(caps...), newHome(t)
							flags, add, remove := []string{`\Seen`}, []string{"todo"}, []string(nil)
							if off {
								flags, add, remove = append(flags, "todo"), nil, []string{"todo"}
							}
							s.box("INBOX").add(plainMail(1), flags...)
							s.box("INBOX").add(plainMail(2), `\Seen`)
							s.box("Archive")
							use := func(o *Options) { o.Keywords = []string{"todo"} }
							h.sync(s, use)
							h.sync(s, use)
							if to != "INBOX" || renamed {
								h.move("INBOX", 1, to, renamed)
							}
							if known {
								h.notmuchNew()
							}
							h.tag(id(1), add, remove)
							for range 2 {
								h.sync(s, use)
							}
							for _, m := range s.box(to).msgs {
								if strings.Contains(m.raw, id(1)) && slices.Contains(m.flags, "todo") == off {
									t.Errorf("flags %v", m.flags)
								}
							}
							if slices.Contains(h.tags(id(1)), "todo") == off {
								t.Errorf("tags %v", h.tags(id(1)))
							}
							h.quiet(s, use)
							h.notmuchNew()
							h.check(s)
						})
					}
				}
			}
		}
	}
}

// A database that was made anew, and knows a mail where its owner has moved it, takes no keyword
// off it.
func TestANewDatabaseTakesNoKeywordOffAMovedMail(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			s.box("INBOX").add(plainMail(1), `\Seen`, "todo")
			s.box("INBOX").add(plainMail(2), `\Seen`)
			s.box("Archive")
			use := func(o *Options) { o.Keywords = []string{"todo"} }
			h.sync(s, use)
			h.sync(s, use)
			h.move("INBOX", 1, "Archive", true)
			h.notmuchNew()
			h.tag(id(1), nil, []string{"todo"})
			h.index.another()
			for range 3 {
				h.sync(s, use)
			}
			if flags := s.box("Archive").msgs[1].flags; !slices.Contains(flags, "todo") || !slices.Contains(h.tags(id(1)), "todo") {
				t.Errorf("flags %v, tags %v", flags, h.tags(id(1)))
			}
			h.check(s)
		})
	}
}
