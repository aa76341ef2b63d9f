package pipeline

import (
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// A move that the server refuses keeps no other move, deletion or upload of its
// mailbox from being done. It is said, and done when the server takes it.
func TestARefusedMoveKeepsNothingElse(t *testing.T) {
	for _, deletions := range []Deletions{DeletionsTrash, DeletionsExpunge} {
		t.Run(string(deletions), func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			in, full, open, trash := s.box("INBOX"), s.box("Full"), s.box("Open"), s.box("Trash")
			for i := range 8 {
				in.add(plainMail(i), `\Seen`)
			}
			for i, b := range []*serverBox{full, open, trash} {
				b.add(plainMail(20+i), `\Seen`)
			}
			use := func(o *Options) { o.Deletions = deletions }
			h.sync(s, use)
			h.move("INBOX", 1, "Full", false)
			h.move("INBOX", 2, "Open", false)
			h.remove("INBOX", 3)
			h.flag("INBOX", 4, "FS")
			h.put("INBOX", plainMail(30), "S")
			full.readOnly = true
			rep := h.sync(s, use)
			if rep.Moved != 1 || rep.Deleted != 1 || rep.Pushed != 1 || rep.Uploaded != 1 {
				t.Errorf("refused: %+v", rep)
			}
			if len(rep.Faults) != 1 || rep.Faults[0].Mailbox != "INBOX" || !strings.Contains(rep.Faults[0].Text, "Full") || rep.Faults[0].Scope != report.ScopeMailbox {
				t.Errorf("said: %+v", rep.Faults)
			}
			full.readOnly = false
			if rep := h.sync(s, use); rep.Moved != 1 || rep.Deleted+rep.Uploaded > 0 || !rep.Clean() {
				t.Errorf("taken: %+v", rep)
			}
			h.check(s)
		})
	}
}

// Without MOVE a copy is looked for in the other mailbox before the original goes. Where the
// server opens either of the two no more at that moment, the run asks nothing else of messages
// that are in no open mailbox, and the next one ends what was begun: once, and of the right mail.
func TestACopyThatCannotBeLookedFor(t *testing.T) {
	for _, closed := range []string{"Full", "INBOX"} {
		for _, wire := range []string{"UIDPLUS", ""} {
			t.Run(closed+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(strings.Fields(wire)...), newHome(t)
				s.box("Open")
				s.box("Trash")
				for i := range 8 {
					s.box("INBOX").add(plainMail(i), `\Seen`)
					s.box("Full").add(plainMail(20+i), `\Seen`)
				}
				h.sync(s)
				h.move("INBOX", 1, "Full", false)
				h.move("INBOX", 2, "Open", false)
				h.remove("INBOX", 3)
				b := s.box(closed)
				s.effect = func(verb string) {
					if verb == "UID COPY" {
						b.refuse = &mail.Fault{Kind: mail.KindNo, Text: "in use"}
					}
				}
				if rep := h.sync(s); rep.Clean() || b.refuse == nil {
					t.Errorf("refused: %+v", rep)
				}
				s.effect, b.refuse = nil, nil
				for range 3 {
					h.sync(s)
				}
				for box, want := range map[string]int{"INBOX": 5, "Full": 9, "Open": 1, "Trash": 1} {
					if n := len(s.box(box).msgs); n != want {
						t.Errorf("%d messages in %s, want %d", n, box, want)
					}
				}
				h.check(s)
				h.quiet(s)
			})
		}
	}
}

// The Trash that takes nothing keeps no move and no upload.
func TestARefusedDeletionKeepsNothingElse(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, open, trash := s.box("INBOX"), s.box("Open"), s.box("Trash")
	for i := range 8 {
		in.add(plainMail(i), `\Seen`)
	}
	open.add(plainMail(20), `\Seen`)
	h.sync(s)
	h.move("INBOX", 2, "Open", false)
	h.remove("INBOX", 3)
	h.put("INBOX", plainMail(30), "S")
	trash.readOnly = true
	if rep := h.sync(s); rep.Moved != 1 || rep.Deleted != 0 || rep.Uploaded != 1 || rep.Clean() {
		t.Errorf("refused: %+v", rep)
	}
	trash.readOnly = false
	if rep := h.sync(s); rep.Deleted != 1 || !rep.Clean() {
		t.Errorf("taken: %+v", rep)
	}
	h.sync(s)
	h.check(s)
}
