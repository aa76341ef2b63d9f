package pipeline

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Another client has marked a message with \Deleted, and expunged it not, so that its file here has the
// letter T. It is mail like any other: what is done to its file reaches the server.
func TestMailThatOthersHaveMarkedIsMail(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		do      func(h *home, s *server)
		want    map[string]string
		marked  string // the mailbox in which it is marked on the server still
		expunge bool
	}{
		"nothing":                  {func(*home, *server) {}, map[string]string{"INBOX": "1 2"}, "INBOX", false},
		"removed":                  {func(h *home, _ *server) { h.remove("INBOX", 1) }, map[string]string{"INBOX": "2", "Trash": "1"}, "Trash", false},
		"removed for good":         {func(h *home, _ *server) { h.remove("INBOX", 1) }, map[string]string{"INBOX": "2"}, "", true},
		"renamed":                  {func(h *home, _ *server) { h.move("INBOX", 1, "INBOX", true) }, map[string]string{"INBOX": "1 2"}, "INBOX", false},
		"moved":                    {func(h *home, _ *server) { h.move("INBOX", 1, "Archive", true) }, map[string]string{"INBOX": "2", "Archive": "1"}, "Archive", false},
		"the mark is taken off":    {func(h *home, _ *server) { h.flag("INBOX", 1, "S") }, map[string]string{"INBOX": "1 2"}, "", false},
		"it is taken off, moved":   {func(h *home, _ *server) { h.flag("INBOX", 1, "S"); h.move("INBOX", 1, "Archive", true) }, map[string]string{"INBOX": "2", "Archive": "1"}, "", false},
		"it is taken off there":    {func(_ *home, s *server) { s.box("INBOX").flag(1, `\Seen`) }, map[string]string{"INBOX": "1 2"}, "", false},
		"removed, taken off there": {func(h *home, s *server) { h.remove("INBOX", 1); s.box("INBOX").flag(1, `\Seen`) }, map[string]string{"INBOX": "2", "Trash": "1"}, "", false},
		"moved by a tag":           {func(h *home, _ *server) { h.tag(id(1), []string{"archive"}, nil) }, map[string]string{"INBOX": "2", "Archive": "1"}, "Archive", false},
	} {
		for wire, caps := range wires() {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				in.add(plainMail(1), `\Seen`)
				in.add(plainMail(2))
				s.box("Archive")
				s.box("Trash")
				options := func(o *Options) {
					if o.Moves = []plan.MoveRule{{From: "INBOX", To: "Archive", With: "archive"}}; tc.expunge {
						o.Deletions = DeletionsExpunge
					}
				}
				h.sync(s, options)
				in.flag(1, `\Seen`, `\Deleted`)
				h.sync(s, options)
				if _, letters := maildir.ParseName(h.file("INBOX", 1)); letters != "ST" {
					t.Fatalf("letters %q", letters)
				}
				h.quiet(s, options)
				tc.do(h, s)
				for range 2 {
					if rep := h.sync(s, options); !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				h.quiet(s, options)
				h.has(s, tc.want)
				for _, box := range []string{"INBOX", "Archive", "Trash"} {
					for _, u := range s.box(box).uids() {
						marked := slices.Contains(s.box(box).msgs[u].flags, `\Deleted`)
						if want := box == tc.marked && strings.Contains(s.box(box).msgs[u].raw, "mail 1\r\n"); marked != want {
							t.Errorf("%s/%d: marked %v on the server, want %v", box, u, marked, want)
						}
						_, letters := maildir.ParseName(h.file(box, u))
						if strings.Contains(letters, "T") != marked {
							t.Errorf("%s/%d: letters %q, marked %v on the server", box, u, letters, marked)
						}
					}
				}
			})
		}
	}
}

// What was deleted here, and cannot be expunged since others have marked more, waits for nobody: it is marked,
// and comes again if somebody takes that off.
func TestWhatCannotBeExpungedIsMarked(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	in := s.box("INBOX")
	for n := range imap.UID(3) {
		in.add(plainMail(int(n) + 1))
	}
	expunge := func(o *Options) { o.Deletions = DeletionsExpunge }
	h.sync(s, expunge)
	in.flag(2, `\Deleted`)
	h.sync(s, expunge)
	h.remove("INBOX", 1)
	if rep := h.sync(s, expunge); rep.Deleted != 1 || !rep.Clean() || len(in.msgs) != 3 {
		t.Errorf("%+v", rep)
	}
	h.quiet(s, expunge)
	in.flag(1)
	if rep := h.sync(s, expunge); rep.New != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.quiet(s, expunge)
	h.has(s, map[string]string{"INBOX": "1 2 3"})
}
