package pipeline

import (
	"fmt"
	"slices"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Mail that was removed here, since the server had it no more, and that comes again has
// the tags that it had; those of flags are the server's, and no order is given twice.
func TestTheTagsOfRemovedMailComeBack(t *testing.T) {
	rules := func(o *Options) {
		o.DeletedTag, o.Orders = "deleted", []string{"fetch-drop"}
		o.Moves = []Move{{From: "INBOX", With: "filed", To: "Archive"}}
	}
	for name, tc := range map[string]struct {
		away func(h *home, s *server, sync func(...func(*Options)) *Report)
		want []string
	}{
		"in the same mailbox": {func(_ *home, s *server, sync func(...func(*Options)) *Report) {
			m := s.box("INBOX").expunge(1)
			sync()
			s.box("INBOX").add(m.raw, `\Seen`)
		}, []string{"work"}},
		"in another one": {func(_ *home, s *server, sync func(...func(*Options)) *Report) {
			m := s.box("INBOX").expunge(1)
			sync()
			s.box("Archive").add(m.raw, `\Seen`, `\Flagged`)
		}, []string{"flagged", "work"}},
		"unread": {func(_ *home, s *server, sync func(...func(*Options)) *Report) {
			m := s.box("INBOX").expunge(1)
			sync()
			s.box("Archive").add(m.raw)
		}, []string{"unread", "work"}},
		"one mailbox is synchronised after a move": {func(_ *home, s *server, sync func(...func(*Options)) *Report) {
			s.relocate("INBOX", 1, "Archive")
			sync(func(o *Options) { o.Only = []string{"INBOX"} })
		}, []string{"work"}},
		"after 89 days": {func(h *home, s *server, sync func(...func(*Options)) *Report) {
			m := s.box("INBOX").expunge(1)
			sync()
			h.now = h.now.AddDate(0, 0, 89)
			s.box("INBOX").add(m.raw, `\Seen`)
		}, []string{"work"}},
		"after 91 days": {func(h *home, s *server, sync func(...func(*Options)) *Report) {
			m := s.box("INBOX").expunge(1)
			sync()
			h.now = h.now.AddDate(0, 0, 91)
			s.box("INBOX").add(m.raw, `\Seen`)
		}, []string{"inbox"}},
		"another mail with the same Message-ID": {func(_ *home, s *server, sync func(...func(*Options)) *Report) {
			m := s.box("INBOX").expunge(1)
			sync()
			s.box("INBOX").add(m.raw+"P.S.\r\n", `\Seen`)
		}, []string{"inbox"}},
	} {
		for wire, caps := range wires() {
			for _, old := range []bool{false, true} {
				if old && wire != "all" || spared(name, wire, old) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", name, wire, old), func(t *testing.T) {
					t.Parallel()
					s, h, in := few(t, caps...)
					in.flag(1, `\Seen`)
					sync := func(more ...func(*Options)) *Report { return h.sync(s, append(more, rules)...) }
					sync()
					h.tag(id(1), []string{"work"}, []string{"inbox"})
					sync()
					if old {
						h.forgetDigests()
					}
					// Given in the same moment in which the server loses it: no order comes of it.
					h.tag(id(1), []string{"fetch-drop"}, nil)
					tc.away(h, s, sync)
					for range 2 {
						if rep := sync(); !rep.Clean() {
							t.Errorf("%+v", rep)
						}
					}
					if got := h.tags(id(1)); !slices.Equal(got, tc.want) {
						t.Errorf("tags %v, want %v", got, tc.want)
					}
					h.check(s)
					h.quiet(s, rules)
				})
			}
		}
	}
}

// Of mail whose tags are not known nothing is kept.
func TestNoTagsOfRemovedMail(t *testing.T) {
	t.Parallel()
	var c journal.Change
	n := lineNotes{noted: newNoted(Options{})}
	if err := n.keepTags(t.Context(), &c, ledger.Message{Digest: mail.Digest{1}}, nil); err != nil || !c.Empty() {
		t.Errorf("%v %+v", err, c)
	}
}
