package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// What a mail program writes into the folders of drafts and of sent mail is no news to who
// wrote it: it goes up as a draft and as read, and its letters and tags here say the same.
// A draft that another text takes the place of is none in the Trash, either.
func TestWhatWasWrittenHereIsNoNews(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			for _, box := range []string{"Drafts", "Outbox", "Notes", "Trash"} {
				s.box(box)
			}
			s.box("Outbox").attrs = []string{`\Sent`}
			h.sync(s)
			for i, box := range []string{"Drafts", "Outbox", "Notes"} {
				h.put(box, plainMail(i), "")
			}
			h.notmuchNew()
			for range 3 {
				h.sync(s)
			}
			for box, want := range map[string][]string{"Drafts": {`\Draft`, `\Seen`}, "Outbox": {`\Seen`}, "Notes": nil} {
				for uid, m := range s.box(box).msgs {
					if !plan.SameFlags(m.flags, want) {
						t.Errorf("%s has %q, want %q", box, m.flags, want)
					}
					if name := h.file(box, uid); !strings.HasSuffix(name, ":2,"+plan.Letters(want)) {
						t.Errorf("%s has %s", box, name)
					}
				}
				if n := len(s.box(box).msgs); n != 1 {
					t.Errorf("%s has %d messages", box, n)
				}
			}
			h.remove("Drafts", 1)
			h.put("Drafts", finished(plainMail(0)), "")
			h.notmuchNew()
			for range 3 {
				h.sync(s)
			}
			for i, unread := range []bool{false, false, true} {
				tags := h.tags(fmt.Sprintf("m%d@example.org", i))
				if slices.Contains(tags, "unread") != unread {
					t.Errorf("mail %d: %q", i, tags)
				}
			}
			for _, m := range s.box("Trash").msgs {
				if !plan.SameFlags(m.flags, []string{`\Draft`, `\Seen`}) {
					t.Errorf("the old draft has %q", m.flags)
				}
			}
			h.notmuchNew()
			h.quiet(s)
		})
	}
}
