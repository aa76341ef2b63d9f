package pipeline

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

// nameless is a mail without Message-ID.
func nameless(n int) string {
	return strings.Replace(plainMail(n), fmt.Sprintf("Message-ID: <m%d@example.org>\r\n", n), "", 1)
}

// numbers gives the numbers of mails in texts.
func numbers(texts []string) string {
	var out []string
	for _, text := range texts {
		_, rest, _ := strings.Cut(text, "Subject: mail ")
		n, _, _ := strings.Cut(strings.ReplaceAll(rest, "\r", ""), "\n")
		out = append(out, n)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// have gives which mails a mailbox has on the server, and here.
func (h *home) have(s *server, box string) (there, here string) {
	var texts []string
	if s.boxes[box] != nil {
		for _, m := range s.boxes[box].msgs {
			texts = append(texts, m.raw)
		}
	}
	return numbers(texts), numbers(slices.Collect(maps.Values(h.files(box))))
}

// ending is an account whose mailbox Old is about to lose its UIDs on the server.
func ending(t *testing.T, wire string) (*server, *home) {
	t.Helper()
	s, h := newServer(wires()[wire]...), newHome(t)
	s.box("INBOX").add(plainMail(20))
	s.box("Archive").add(plainMail(9))
	s.box("Trash")
	s.box("Archive").validity, s.box("Trash").validity, s.box("Old").validity = 21, 22, 23
	for i := range 4 {
		s.box("Old").add(plainMail(i + 1))
	}
	return s, h
}

// ends are the ways in which it does.
func ends() []string { return []string{"deleted", "made again", "renumbered"} }

// end lets it lose them. In one that is made again, and has all extensions, there is new mail.
func (s *server) end(how string) {
	old := s.box("Old")
	s.drop("Old")
	if how == "deleted" {
		return
	}
	b := s.box("Old")
	b.validity, b.next, b.modseq = 99, 40, old.modseq
	switch {
	case how == "renumbered":
		for _, u := range old.uids() {
			b.msgs[b.add(old.msgs[u].raw, old.msgs[u].flags...)].date = old.msgs[u].date
		}
	case slices.Contains(s.caps, "QRESYNC"):
		b.add(plainMail(50))
	}
}

// Mail that was moved to other mailboxes before its own was deleted, or lost its UIDs, is here where the server
// has it, and there alone, whether it is seen there at once or later, and wherever its file was put here; what was
// deleted with the mailbox stays in its folder. A folder of no mailbox in which no mail is left goes. A dry run
// says so.
func TestMailOfADeletedMailboxIsWhereTheServerHasIt(t *testing.T) {
	t.Parallel()
	each := func(s *server, to string, uids ...imap.UID) {
		for _, u := range uids {
			s.relocate("Old", u, to)
		}
	}
	put := func(h *home, n int, to string) { h.moveFile("Old", h.mailFile("Old", plainMail(n)), to, n%2 == 0) }
	type then struct {
		stay  string // of the folder Old
		moved int
	}
	for name, tc := range map[string]struct {
		before func(h *home, s *server) // agreed on
		do     func(h *home, s *server, end func())
		then
		renumbered *then             // where what is left of it has other UIDs; nil: as in the others
		there      map[string]string // what else the server has
		uploaded   int
		ends       []string // nil: all
		mute       bool     // of the deleted one nothing is said any more
		unforeseen bool     // it shows when mail was fetched
	}{
		"all of it": {
			do:    func(_ *home, s *server, end func()) { each(s, "Archive", 1, 2, 3, 4); end() },
			there: map[string]string{"Archive": "1 2 3 4 9"}, then: then{moved: 4},
		},
		"some, to two": {
			do:   func(_ *home, s *server, end func()) { each(s, "Archive", 1); each(s, "Trash", 2); end() },
			then: then{"3 4", 2}, there: map[string]string{"Archive": "1 9", "Trash": "2"},
		},
		"copied before": {
			before: func(_ *home, s *server) { s.box("Archive").add(plainMail(1)) },
			do:     func(_ *home, _ *server, end func()) { end() },
			then:   then{"2 3 4", 1}, there: map[string]string{"Archive": "1 9"}, renumbered: &then{"1 2 3 4", 0},
		},
		"to a new one and another": {
			do:    func(_ *home, s *server, end func()) { each(s, "New", 1, 2, 3); each(s, "Archive", 4); end() },
			there: map[string]string{"Archive": "4 9", "New": "1 2 3"}, then: then{moved: 4},
		},
		"none": {
			do:   func(_ *home, _ *server, end func()) { end() },
			then: then{stay: "1 2 3 4"}, there: map[string]string{"Archive": "9"},
		},
		"one is deleted here": {
			do: func(h *home, s *server, end func()) {
				each(s, "Archive", 1, 2, 3, 4)
				end()
				h.removeText("Old", plainMail(1))
			},
			there: map[string]string{"Archive": "1 2 3 4 9"}, then: then{moved: 3},
		},
		"one is flagged here, and one edited": {
			do: func(h *home, s *server, end func()) {
				each(s, "Archive", 1, 2)
				end()
				for file, text := range h.files("Old") {
					switch {
					case strings.Contains(text, "<m1@"):
						h.flagFile("Old", file, "F")
					case strings.Contains(text, "<m2@"):
						h.do(os.WriteFile(h.path("Old", file), []byte(text+"edited\n"), 0o600))
					}
				}
			},
			then: then{"2 3 4", 1}, there: map[string]string{"Archive": "1 2 9"},
		},
		"it was empty": {
			before: func(_ *home, s *server) { each(s, "Archive", 1, 2, 3, 4) },
			do:     func(_ *home, _ *server, end func()) { end() },
			there:  map[string]string{"Archive": "1 2 3 4 9"},
		},
		"renamed, and all moved out of it": {
			do: func(_ *home, s *server, _ func()) {
				each(s, "Trash", 1, 2, 3, 4)
				s.rename("Old", "Other")
				s.box("Other").add(plainMail(30))
			},
			there: map[string]string{"Archive": "9", "Trash": "1 2 3 4", "Other": "30"}, then: then{moved: 4}, ends: []string{"deleted"},
		},
		"renamed, all moved out of it, and made again": {
			do: func(_ *home, s *server, end func()) {
				each(s, "Trash", 1, 2, 3, 4)
				s.rename("Old", "Other")
				s.box("Other").add(plainMail(30))
				end()
			},
			there: map[string]string{"Archive": "9", "Trash": "1 2 3 4", "Other": "30"}, then: then{moved: 4}, ends: []string{"made again"},
		},
		"moved here, and elsewhere there": {
			do: func(h *home, s *server, end func()) {
				put(h, 1, "Archive")
				put(h, 2, "INBOX")
				each(s, "Trash", 1, 2)
				end()
			},
			then: then{stay: "3 4"}, there: map[string]string{"Archive": "9", "Trash": "1 2", "INBOX": "20"},
		},
		"moved here, and gone with it": {
			do: func(h *home, s *server, end func()) {
				put(h, 1, "Archive")
				put(h, 2, "INBOX")
				s.box("Old").expunge(1)
				s.box("Old").expunge(2)
				end()
			},
			then: then{stay: "3 4"}, there: map[string]string{"Archive": "1 9", "INBOX": "2 20"}, uploaded: 2,
		},
		"moved here, and still there": {
			do:   func(h *home, _ *server, end func()) { put(h, 1, "Archive"); put(h, 2, "INBOX"); end() },
			then: then{stay: "3 4"}, there: map[string]string{"Archive": "1 9", "INBOX": "2 20"}, ends: []string{"renumbered"},
		},
		"one of twins": {
			before: func(_ *home, s *server) { s.box("Old").add(plainMail(1)) },
			do:     func(_ *home, s *server, end func()) { each(s, "Archive", 1); end() },
			then:   then{"2 3 4", 2}, there: map[string]string{"Archive": "1 9"}, renumbered: &then{"1 2 3 4", 1},
		},
		"without Message-ID": {
			before: func(_ *home, s *server) { s.box("Old").add(nameless(6)); s.box("Old").add(nameless(7)) },
			do:     func(_ *home, s *server, end func()) { each(s, "Archive", 1, 5); end() },
			then:   then{"2 3 4 7", 2}, there: map[string]string{"Archive": "1 6 9"},
		},
		"at another date": {
			do: func(_ *home, s *server, end func()) {
				s.box("Archive").add(s.box("Old").expunge(1).raw)
				end()
			},
			then: then{"2 3 4", 1}, there: map[string]string{"Archive": "1 9"}, unforeseen: true,
		},
		"later": {
			do: func(h *home, s *server, end func()) {
				m := s.box("Old").expunge(1)
				end()
				h.sync(s)
				s.box("Archive").msgs[s.box("Archive").add(m.raw)].date = m.date
			},
			then: then{"2 3 4", 1}, there: map[string]string{"Archive": "1 9"},
		},
		"later, at another date": {
			do: func(h *home, s *server, end func()) {
				m := s.box("Old").expunge(1)
				end()
				h.sync(s)
				s.box("Archive").add(m.raw)
			},
			then: then{"2 3 4", 1}, there: map[string]string{"Archive": "1 9"}, unforeseen: true,
		},
		"later, and moved here meanwhile": {
			do: func(h *home, s *server, end func()) {
				m := s.box("Old").expunge(1)
				end()
				h.sync(s)
				put(h, 1, "INBOX")
				s.box("Archive").msgs[s.box("Archive").add(m.raw)].date = m.date
			},
			then: then{stay: "2 3 4"}, there: map[string]string{"Archive": "1 9", "INBOX": "20"}, mute: true,
		},
		"moved here later": {
			do: func(h *home, s *server, end func()) {
				s.box("Old").expunge(1)
				end()
				h.sync(s)
				put(h, 1, "INBOX")
			},
			then: then{stay: "2 3 4"}, there: map[string]string{"Archive": "9", "INBOX": "1 20"}, uploaded: 1, mute: true,
		},
		"in itself, later": {
			do: func(h *home, s *server, end func()) {
				m := s.box("Old").expunge(1)
				end()
				h.sync(s)
				s.box("Old").msgs[s.box("Old").add(m.raw)].date = m.date
			},
			then: then{"1 2 3 4", 1}, there: map[string]string{"Archive": "9"}, ends: []string{"made again", "renumbered"},
		},
		"where it does not answer at first": {
			do: func(h *home, s *server, end func()) {
				each(s, "Archive", 1, 2)
				put(h, 2, "INBOX")
				end()
				s.box("Archive").refuse = &mail.Fault{Kind: mail.KindNo, Text: "in use"}
				h.sync(s)
				s.box("Archive").refuse = nil
				h.now = h.now.Add(24 * time.Hour)
			},
			then: then{"3 4", 1}, there: map[string]string{"Archive": "1 2 9", "INBOX": "20"},
		},
	} {
		for i, how := range ends() {
			for j, wire := range []string{"bare", "all"} {
				if (i+j+len(name))%2 == 0 || spared(name, how, wire) || tc.ends != nil && !slices.Contains(tc.ends, how) {
					continue // with one of the two
				}
				then := tc.then
				if how == "renumbered" && tc.renumbered != nil {
					then = *tc.renumbered
				}
				t.Run(name+"/"+how+"/"+wire, func(t *testing.T) {
					t.Parallel()
					s, h := ending(t, wire)
					if tc.before != nil {
						tc.before(h, s)
					}
					h.sync(s)
					h.sync(s)
					h.tag("m3@example.org", []string{"mine"}, nil)
					tc.do(h, s, func() { s.end(how) })
					plan, would := h.planned(s)
					said := func() (gone, moved, stay int) {
						return h.said("the server has this mailbox no more"), h.said("of before elsewhere, and so"), h.said("as after a restored backup")
					}
					wgone, wmoved, wstay := said()
					rep := h.sync(s)
					gone, moved, stay := said()
					if d := h.notAsPlanned(plan); d != "" && !tc.unforeseen {
						t.Errorf("the log differs from the plan:\n%s", d)
					}
					if !tc.unforeseen && (wgone != gone || wmoved != moved || wstay != stay || would.Removed != rep.Removed || would.Uploaded != rep.Uploaded) {
						t.Errorf("the dry run said %+v, and the run %+v: %v", would, rep, h.events)
					}
					if how == "deleted" && (gone == 0) != tc.mute || how != "deleted" && moved != min(1, then.moved) {
						t.Errorf("%d and %d were said: %v", gone, moved, h.events)
					}
					if !rep.Clean() || rep.Held > 0 || rep.Uploaded != tc.uploaded || rep.Removed != then.moved {
						t.Errorf("%+v: %v", rep, h.events)
					}
					h.named()
					there, here := h.have(s, "Old")
					if strings.Contains(there, "50") {
						here = strings.TrimSpace(strings.Replace(here+" ", "50 ", "", 1))
					}
					if here != then.stay {
						t.Errorf("Old has %q here", here)
					}
					if _, err := os.Lstat(h.path("Old", "")); how == "deleted" && (err == nil) != (then.stay != "") {
						t.Errorf("the folder Old: %v", err)
					}
					if !slices.Contains(h.tags("m3@example.org"), "mine") {
						t.Error("a tag is gone")
					}
					h.quiet(s)
					for box, mails := range tc.there {
						if there, here := h.have(s, box); there != mails || here != mails {
							t.Errorf("%s has %q, and here %q", box, there, here)
						}
					}
					if here == there {
						h.notmuchNew()
						h.check(s)
					}
					folders, err := maildir.Folders(h.path("", ""))
					h.do(err)
					want := len(s.boxes)
					if how == "deleted" && then.stay != "" {
						want++
					}
					if len(folders) != want {
						t.Errorf("folders %q, mailboxes %q", folders, s.names())
					}
				})
			}
		}
	}
}

// A run that finds mail of a mailbox elsewhere may end behind any of its effects: the next ones bring it to the
// same end, and notmuch knows each file. Another machine with the same account comes to the same, and changes
// nothing on the server.
func TestAStopWhileMailOfADeletedMailboxIsFound(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for i, how := range ends() {
		for at, stopped := 1, true; stopped && !t.Failed(); at += pace() {
			wire := []string{"bare", "all"}[(at+i)%2]
			t.Run(fmt.Sprintf("%s behind effect %d", how, at), func(t *testing.T) {
				s, h := ending(t, wire)
				s.box("Old").add(plainMail(1))
				s.box("Old").add(nameless(6))
				for n := range 2 {
					s.box("Old").add(plainMail(10 + n))
				}
				other := newHome(t)
				for _, at := range []*home{h, other} {
					at.sync(s)
					at.sync(s)
				}
				h.tag("m1@example.org", []string{"mine"}, nil)
				move := func(n int, to string) { h.moveFile("Old", h.mailFile("Old", plainMail(n)), to, n%2 == 0) }
				move(2, "INBOX")
				move(3, "INBOX")
				move(10, "Archive")
				s.relocate("Old", 1, "Archive")
				s.relocate("Old", 2, "Trash")
				s.relocate("Old", 6, "Archive")
				s.relocate("Old", 7, "New")
				s.box("Old").expunge(3)
				s.box("Old").expunge(4)
				s.end(how)
				stopped = h.stopAt(s, at)
				for range 3 {
					h.sync(s)
				}
				// Of twins one is there no more, with the mailbox, if not under another UID.
				want := map[string]string{"Archive": "1 6 9", "Trash": "2", "INBOX": "20 3", "New": "10"}
				stay := "11 4"
				if how == "renumbered" {
					stay = "1 11 4"
				}
				for box, mails := range want {
					if there, here := h.have(s, box); there != mails || here != mails {
						t.Errorf("%s has %q, and here %q", box, there, here)
					}
				}
				h.quiet(s)
				for range 2 {
					other.sync(s)
				}
				other.quiet(s)
				h.quiet(s)
				for _, at := range []*home{h, other} {
					at.named()
					for box := range want {
						if there, here := at.have(s, box); there != here {
							t.Errorf("%s has %q, and here %q", box, there, here)
						}
					}
					_, here := at.have(s, "Old")
					if here = strings.TrimSpace(strings.Replace(here+" ", "50 ", "", 1)); here != stay {
						t.Errorf("Old has %q here, want %q", here, stay)
					}
				}
				if !slices.Contains(h.tags("m1@example.org"), "mine") {
					t.Error("a tag is gone")
				}
			})
		}
	}
}

// What stays here since the server has it nowhere may be moved to another folder, and back: it goes to the server with
// the first, and with the second where that has a mailbox for it. Nothing is deleted for it.
func TestMailThatTheServerHasNowhereIsMovedAwayAndBack(t *testing.T) {
	t.Parallel()
	for _, how := range ends() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s, h := ending(t, "all")
			h.sync(s)
			s.box("Old").expunge(1)
			s.end(how)
			h.sync(s)
			h.moveFile("Old", h.mailFile("Old", plainMail(1)), "INBOX", false)
			if rep := h.sync(s); rep.Uploaded != 1 {
				t.Errorf("%+v: %v", rep, h.events)
			}
			h.moveFile("INBOX", h.mailFile("INBOX", plainMail(1)), "Old", false)
			h.sync(s)
			want := map[string]string{"INBOX": "20", "Old": map[string]string{"made again": "1 50", "renumbered": "1 2 3 4"}[how]}
			if how == "deleted" {
				want = map[string]string{"INBOX": "1 20"}
			}
			for box, mails := range want {
				if there, _ := h.have(s, box); there != mails || len(s.box("Trash").msgs) > 0 {
					t.Errorf("%s has %q, want %q", box, there, mails)
				}
			}
			if _, here := h.have(s, "Old"); !strings.HasPrefix(here, "1 2 3 4") {
				t.Errorf("Old has %q here", here)
			}
			h.quiet(s)
		})
	}
}
