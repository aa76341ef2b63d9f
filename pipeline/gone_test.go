package pipeline

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Mail that was moved to other mailboxes before its own was deleted is here where the server has it, and
// there alone; what was deleted with the mailbox stays in its folder. One in which no mail is left goes.
// A dry run says so.
func TestMailOfADeletedMailboxIsWhereTheServerHasIt(t *testing.T) {
	t.Parallel()
	each := func(s *server, to string, uids ...imap.UID) {
		for _, u := range uids {
			s.relocate("Old", u, to)
		}
	}
	for name, tc := range map[string]struct {
		before func(h *home, s *server) // agreed on
		do     func(h *home, s *server)
		stay   string            // of the folder Old
		there  map[string]string // what else the server has
		moved  int
	}{
		"all of it": {
			do:    func(_ *home, s *server) { each(s, "Archive", 1, 2, 3, 4); s.drop("Old") },
			there: map[string]string{"Archive": "1 2 3 4 9"}, moved: 4,
		},
		"some, to two": {
			do:   func(_ *home, s *server) { each(s, "Archive", 1); each(s, "Trash", 2); s.drop("Old") },
			stay: "3 4", there: map[string]string{"Archive": "1 9", "Trash": "2"}, moved: 2,
		},
		"copied before": {
			before: func(_ *home, s *server) { s.box("Archive").add(plainMail(1)) },
			do:     func(_ *home, s *server) { s.drop("Old") },
			stay:   "2 3 4", there: map[string]string{"Archive": "1 9"}, moved: 1,
		},
		"to a new one and another": {
			do:    func(_ *home, s *server) { each(s, "New", 1, 2, 3); each(s, "Archive", 4); s.drop("Old") },
			there: map[string]string{"Archive": "4 9", "New": "1 2 3"}, moved: 4,
		},
		"none": {
			do:   func(_ *home, s *server) { s.drop("Old") },
			stay: "1 2 3 4", there: map[string]string{"Archive": "9"},
		},
		"one is deleted here": {
			do: func(h *home, s *server) {
				each(s, "Archive", 1, 2, 3, 4)
				s.drop("Old")
				h.removeText("Old", plainMail(1))
			},
			there: map[string]string{"Archive": "1 2 3 4 9"}, moved: 3,
		},
		"one is flagged here, and one edited": {
			do: func(h *home, s *server) {
				each(s, "Archive", 1, 2)
				s.drop("Old")
				for file, text := range h.files("Old") {
					switch {
					case strings.Contains(text, "<m1@"):
						h.flagFile("Old", file, "F")
					case strings.Contains(text, "<m2@"):
						h.do(os.WriteFile(h.path("Old", file), []byte(text+"edited\n"), 0o600))
					}
				}
			},
			stay: "2 3 4", there: map[string]string{"Archive": "1 2 9"}, moved: 1,
		},
		"it was empty": {
			before: func(h *home, s *server) { each(s, "Archive", 1, 2, 3, 4) },
			do:     func(_ *home, s *server) { s.drop("Old") },
			there:  map[string]string{"Archive": "1 2 3 4 9"},
		},
		"renamed, and all moved out of it": {
			do: func(_ *home, s *server) {
				each(s, "Trash", 1, 2, 3, 4)
				s.rename("Old", "Other")
				s.box("Other").add(plainMail(30))
			},
			there: map[string]string{"Archive": "9", "Trash": "1 2 3 4", "Other": "30"}, moved: 4,
		},
	} {
		for wire := range wires() {
			if spared(name, wire) {
				continue
			}
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(wires()[wire]...), newHome(t)
				s.box("INBOX").add(plainMail(20))
				s.box("Archive").add(plainMail(9))
				s.box("Trash")
				s.box("Archive").validity, s.box("Trash").validity, s.box("Old").validity = 21, 22, 23
				for i := range 4 {
					s.box("Old").add(plainMail(i + 1))
				}
				if tc.before != nil {
					tc.before(h, s)
				}
				h.sync(s)
				h.sync(s)
				h.tag("m3@example.org", []string{"mine"}, nil)
				tc.do(h, s)
				plan, would := h.planned(s)
				if n := h.said("the server has this mailbox no more"); n != 1 {
					t.Errorf("the dry run said %v", h.events)
				}
				rep := h.sync(s)
				if d := h.notAsPlanned(plan); d != "" {
					t.Errorf("the log differs from the plan:\n%s", d)
				}
				if n := h.said("the server has this mailbox no more"); n != 1 || !rep.Clean() || rep.Held > 0 || rep.Uploaded > 0 || rep.Removed != tc.moved || would.Removed != tc.moved {
					t.Errorf("%+v, and the dry run %+v: %v", rep, would, h.events)
				}
				h.named()
				var here []string
				for text := range maps.Values(h.files("Old")) {
					_, rest, _ := strings.Cut(text, "Subject: mail ")
					n, _, _ := strings.Cut(rest, "\n")
					here = append(here, n)
				}
				slices.Sort(here)
				if got := strings.Join(here, " "); got != tc.stay {
					t.Errorf("Old has %q here", got)
				}
				if _, err := os.Lstat(h.path("Old", "")); (err == nil) != (tc.stay != "") {
					t.Errorf("the folder Old: %v", err)
				}
				if !slices.Contains(h.tags("m3@example.org"), "mine") {
					t.Error("a tag is gone")
				}
				h.quiet(s)
				for box, mails := range tc.there {
					if got := strings.ReplaceAll(strings.Join(s.box(box).subjects(), " "), "mail ", ""); got != mails || len(h.files(box)) != len(s.box(box).msgs) {
						t.Errorf("%s has %q, and %d files here", box, got, len(h.files(box)))
					}
				}
				if tc.stay == "" {
					h.notmuchNew()
					h.check(s)
				}
				folders, err := maildir.Folders(h.path("", ""))
				h.do(err)
				if want := len(s.boxes) + min(1, len(tc.stay)); len(folders) != want {
					t.Errorf("folders %q, mailboxes %q", folders, s.names())
				}
			})
		}
	}
}
