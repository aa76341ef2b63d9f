package pipeline

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// A mail that was saved twice in a folder goes to the server once. Both files are of that
// message: where it goes, neither stays behind to bring it back; and what their owner does to
// one of them is done to that one.
func TestAMailThatWasSavedTwice(t *testing.T) {
	saved := plainMail(1)
	moves := func(o *Options) { o.Moves = []Move{{From: "INBOX", To: "Archive", With: "archive"}} }
	for name, tc := range map[string]struct {
		do   func(h *home, s *server, files []string)
		want map[string][]string // on the server
		here map[string]int      // files of it
	}{
		"nothing":       {func(*home, *server, []string) {}, map[string][]string{"INBOX": {saved}}, map[string]int{"INBOX": 2}},
		"deleted there": {func(_ *home, s *server, _ []string) { s.box("INBOX").expunge(2) }, nil, nil},
		"moved there": {func(_ *home, s *server, _ []string) {
			m := s.box("INBOX").expunge(2)
			s.box("Archive").msgs[s.box("Archive").add(m.raw, m.flags...)].date = m.date
		}, map[string][]string{"Archive": {saved}}, map[string]int{"Archive": 1}},
		"one is removed": {func(h *home, _ *server, files []string) { h.do(os.Remove(h.path("INBOX", files[0]))) }, map[string][]string{"INBOX": {saved}}, map[string]int{"INBOX": 1}},
		"the other is removed": {func(h *home, _ *server, files []string) { h.do(os.Remove(h.path("INBOX", files[1]))) },
			map[string][]string{"INBOX": {saved}}, map[string]int{"INBOX": 1}},
		"both are removed": {func(h *home, _ *server, files []string) {
			for _, f := range files {
				h.do(os.Remove(h.path("INBOX", f)))
			}
		}, map[string][]string{"Trash": {saved}}, map[string]int{"Trash": 1}},
		"both are moved": {func(h *home, _ *server, files []string) {
			for _, f := range files {
				h.moveFile("INBOX", f, "Archive", false)
			}
		}, map[string][]string{"Archive": {saved}}, map[string]int{"Archive": 2}},
		"both are moved and get new names": {func(h *home, _ *server, files []string) {
			for _, f := range files {
				h.moveFile("INBOX", f, "Archive", true)
			}
		}, map[string][]string{"Archive": {saved}}, map[string]int{"Archive": 2}},
		"flagged there, and both are moved": {func(h *home, s *server, files []string) {
			s.box("INBOX").flag(2, `\Seen`, `\Flagged`)
			h.sync(s, moves)
			for f, raw := range h.files("INBOX") {
				if strings.Contains(raw, "m1@") {
					h.moveFile("INBOX", f, "Archive", true)
				}
			}
		}, map[string][]string{"Archive": {saved}}, map[string]int{"Archive": 2}},
		"one is moved": {func(h *home, _ *server, files []string) { h.moveFile("INBOX", files[0], "Archive", false) },
			map[string][]string{"INBOX": {saved}, "Archive": {saved}}, map[string]int{"INBOX": 1, "Archive": 1}},
		"the other is moved": {func(h *home, _ *server, files []string) { h.moveFile("INBOX", files[1], "Archive", false) },
			map[string][]string{"INBOX": {saved}, "Archive": {saved}}, map[string]int{"INBOX": 1, "Archive": 1}},
		"a rule moves it": {func(h *home, _ *server, _ []string) {
			h.notmuchNew()
			h.tag("m1@example.org", []string{"archive"}, nil)
		},
			map[string][]string{"Archive": {saved}}, map[string]int{"Archive": 1}},
		"it is saved a third time": {func(h *home, _ *server, _ []string) { h.put("INBOX", saved, "S") },
			map[string][]string{"INBOX": {saved}}, map[string]int{"INBOX": 3}},
	} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, later), func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				boxes := []string{"INBOX", "Archive", "Trash"}
				for i, box := range boxes {
					s.box(box).add(plainMail(90+i), `\Seen`)
				}
				h.sync(s, moves)
				h.put("INBOX", saved, "S")
				h.put("INBOX", saved, "S")
				if rep := h.sync(s, moves); rep.Uploaded != 1 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
				if later {
					h.sync(s, moves)
				}
				var files []string
				for f, raw := range h.files("INBOX") {
					if strings.Contains(raw, "m1@") {
						files = append(files, f)
					}
				}
				slices.Sort(files)
				tc.do(h, s, files)
				for range 3 {
					if rep := h.sync(s, moves); !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				h.quiet(s, moves)
				for _, m := range s.box("Archive").msgs {
					if flagged := slices.Contains(m.flags, `\Flagged`); flagged != (m.raw == saved && strings.HasPrefix(name, "flagged")) {
						t.Errorf("its flags are %v", m.flags)
					}
				}
				for i, box := range boxes {
					want := slices.Sorted(slices.Values(append([]string{plainMail(90 + i)}, tc.want[box]...)))
					if got := s.box(box).raws(); !slices.Equal(got, want) {
						t.Errorf("%s on the server: %q", box, got)
					}
					n := 0
					for _, raw := range h.files(box) {
						if strings.Contains(raw, "m1@") {
							n++
						}
					}
					if n != tc.here[box] {
						t.Errorf("%d files of it in %s, want %d", n, box, tc.here[box])
					}
				}
			})
		}
	}
}

// The other file of a message is not taken for one that its owner moved on, where a run was
// killed that followed a move on the server: it leaves with the message.
func TestAMailThatWasSavedTwiceFollowsAKilledRun(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for at := 1; ; at++ {
		s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
		for i, box := range []string{"INBOX", "Archive", "Trash"} {
			s.box(box).add(plainMail(90+i), `\Seen`)
		}
		h.sync(s)
		h.put("INBOX", plainMail(1), "S")
		h.put("INBOX", plainMail(1), "S")
		h.sync(s)
		m := s.box("INBOX").expunge(2)
		s.box("Archive").msgs[s.box("Archive").add(m.raw, m.flags...)].date = m.date
		stopped := h.stopAt(s, at)
		for range 3 {
			h.sync(s)
		}
		if in, archive, trash := len(s.box("INBOX").msgs), len(s.box("Archive").msgs), len(s.box("Trash").msgs); in != 1 || archive != 2 || trash != 1 {
			t.Errorf("stopped at %d: %d in INBOX, %d in Archive, %d in Trash", at, in, archive, trash)
		}
		h.check(s)
		if !stopped {
			return
		}
	}
}

// What the server changes of a message's flags is in the names of both files of it: where its
// owner removes either of them, the other says nothing else.
func TestTheFlagsOfAMailThatWasSavedTwiceStay(t *testing.T) {
	for name, flags := range map[string][]string{
		"flagged":   {`\Seen`, `\Flagged`},
		"unread":    nil,
		"answered":  {`\Answered`},
		"unflagged": {`\Seen`},
	} {
		for removed := range 2 {
			t.Run(fmt.Sprintf("%s/%d", name, removed), func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				in := s.box("INBOX")
				letters := "S"
				if name == "unflagged" {
					letters = "FS"
				}
				in.add(plainMail(90), `\Seen`)
				h.sync(s)
				h.put("INBOX", plainMail(1), letters)
				h.put("INBOX", plainMail(1), letters)
				h.sync(s)
				in.flag(2, flags...)
				h.sync(s)
				var files []string
				for f, raw := range h.files("INBOX") {
					if strings.Contains(raw, "m1@") {
						files = append(files, f)
					}
				}
				slices.Sort(files)
				h.do(os.Remove(h.path("INBOX", files[removed])))
				for range 2 {
					h.sync(s)
				}
				if !plan.SameFlags(in.msgs[2].flags, flags) {
					t.Errorf("its flags on the server are %v, want %v", in.msgs[2].flags, flags)
				}
				h.quiet(s)
			})
		}
	}
}

// So they are after a run that was killed at any place.
func TestTheFlagsOfAMailThatWasSavedTwiceFollowAKilledRun(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	for at := 1; ; at++ {
		s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
		in := s.box("INBOX")
		in.add(plainMail(90), `\Seen`)
		h.sync(s)
		h.put("INBOX", plainMail(1), "S")
		h.put("INBOX", plainMail(1), "S")
		h.sync(s)
		in.flag(2, `\Flagged`)
		stopped := h.stopAt(s, at)
		h.sync(s)
		for f, raw := range h.files("INBOX") {
			if _, letters := maildir.ParseName(f); strings.Contains(raw, "m1@") && letters != "F" {
				t.Errorf("stopped at %d: %s", at, f)
			}
		}
		h.quiet(s)
		if !plan.SameFlags(in.msgs[2].flags, []string{`\Flagged`}) {
			t.Errorf("stopped at %d: its flags on the server are %v", at, in.msgs[2].flags)
		}
		if !stopped {
			return
		}
	}
}
