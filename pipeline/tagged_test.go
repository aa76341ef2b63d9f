package pipeline

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// afew is what users of afew's MailMover have, and the tag that deletes.
func afew(o *Options) {
	o.Moves = []Move{
		{From: "INBOX", With: "spam", To: "Junk"},
		{From: "INBOX", Without: "inbox", To: "Archive"},
		{From: "Archive", With: "inbox", To: "INBOX"},
	}
	o.DeletedTag = "deleted"
}

// id is the Message-ID of plainMail.
func id(n int) string { return fmt.Sprintf("m%d@example.org", n) }

// untouched asserts that no mail travelled as a whole in the last sync.
func (h *home) untouched(s *server) {
	h.t.Helper()
	for _, c := range s.asked {
		if c == "FETCH" || strings.HasPrefix(c, "APPEND") {
			h.t.Errorf("mail travelled: %q", s.asked)
		}
	}
}

// Tags move mail and delete it, once, without fetching or uploading it.
func TestTagsMoveAndDeleteMail(t *testing.T) {
	type boxes map[string]string
	for name, tc := range map[string]struct {
		do      func(h *home, s *server)
		options func(*Options)
		want    boxes
		rep     report.Report
		faults  int
		travels bool // something else does
		plan    string
	}{
		"archived": {
			do:   func(h *home, _ *server) { h.tag(id(1), nil, []string{"inbox"}); h.tag(id(2), nil, []string{"inbox"}) },
			want: boxes{"INBOX": "3 4", "Archive": "1 2 5"}, rep: report.Report{Moved: 2}, plan: "archive 2 messages: INBOX -> Archive",
		},
		"the first rule counts": {
			do:   func(h *home, _ *server) { h.tag(id(1), []string{"spam"}, []string{"inbox"}) },
			want: boxes{"INBOX": "2 3 4", "Archive": "5", "Junk": "1"}, rep: report.Report{Moved: 1}, plan: "move 1 message: INBOX -> Junk",
		},
		"and back": {
			do:   func(h *home, _ *server) { h.tag(id(5), []string{"inbox"}, nil) },
			want: boxes{"INBOX": "1 2 3 4 5", "Archive": ""}, rep: report.Report{Moved: 1},
		},
		"a mail without Message-ID": {
			do: func(h *home, s *server) {
				s.box("INBOX").add(strings.Replace(plainMail(6), "Message-ID", "X-ID", 1))
				h.sync(s)
				db, err := h.index.load()
				h.do(err)
				for id := range db {
					if strings.HasPrefix(id, "notmuch-sha1") {
						h.tag(id, nil, []string{"inbox"})
					}
				}
			},
			want: boxes{"INBOX": "1 2 3 4", "Archive": "5 6"}, rep: report.Report{Moved: 1},
		},
		"with flags that changed, too": {
			do: func(h *home, s *server) {
				h.tag(id(1), nil, []string{"inbox"})
				h.flag("INBOX", 1, "FS")
				s.box("INBOX").flag(1, "$Forwarded")
			},
			want: boxes{"INBOX": "2 3 4", "Archive": "1 5"}, rep: report.Report{Moved: 1, Pushed: 1},
		},
		"in two folders": {
			do: func(h *home, s *server) {
				s.box("Lists").add(plainMail(1))
				h.sync(s)
				h.tag(id(1), nil, []string{"inbox"})
			},
			want: boxes{"INBOX": "2 3 4", "Archive": "1 5", "Lists": "1"}, rep: report.Report{Moved: 1},
		},
		"not tagged by its owner yet": {
			do:      func(h *home, _ *server) { h.tag(id(1), []string{"new"}, []string{"inbox"}) },
			options: func(o *Options) { o.NewTags = []string{"new"} },
			want:    boxes{"INBOX": "1 2 3 4", "Archive": "5"},
		},
		"its owner moved the file": {
			do:   func(h *home, _ *server) { h.tag(id(1), nil, []string{"inbox"}); h.move("INBOX", 1, "Lists", true) },
			want: boxes{"INBOX": "2 3 4", "Archive": "5", "Lists": "1"}, rep: report.Report{Moved: 1},
		},
		"its owner moved the file against the rules": {
			do:   func(h *home, _ *server) { h.move("INBOX", 1, "Archive", true); h.move("Archive", 1, "INBOX", false) },
			want: boxes{"INBOX": "2 3 4 5", "Archive": "1"}, rep: report.Report{Moved: 2},
		},
		"moved on the server against the rules": {
			do: func(h *home, s *server) {
				h.tag(id(2), []string{"spam"}, nil)
				h.sync(s, afew)
				for from, to := range map[string]string{"INBOX": "Archive", "Junk": "INBOX"} {
					m := s.box(from).expunge(1)
					s.box(to).msgs[s.box(to).add(m.raw, m.flags...)].date = m.date
				}
			},
			want: boxes{"INBOX": "2 3 4", "Archive": "1 5", "Junk": ""},
		},
		"its owner removed the file": {
			do:   func(h *home, _ *server) { h.tag(id(1), nil, []string{"inbox"}); h.remove("INBOX", 1) },
			want: boxes{"INBOX": "2 3 4", "Archive": "5", "Trash": "1 9"}, rep: report.Report{Deleted: 1}, travels: true,
		},
		"moved on the server": {
			do: func(h *home, s *server) {
				h.tag(id(1), nil, []string{"inbox"})
				m := s.box("INBOX").expunge(1)
				s.box("Lists").msgs[s.box("Lists").add(m.raw, m.flags...)].date = m.date
			},
			want: boxes{"INBOX": "2 3 4", "Archive": "5", "Lists": "1"}, // nothing is left to move
		},
		"deleted on the server": {
			do:   func(h *home, s *server) { h.tag(id(1), nil, []string{"inbox"}); s.box("INBOX").expunge(1) },
			want: boxes{"INBOX": "2 3 4", "Archive": "5"},
		},
		"to a mailbox that is not there": {
			do:      func(h *home, _ *server) { h.tag(id(1), nil, []string{"inbox"}) },
			options: func(o *Options) { o.Moves = []Move{{From: "INBOX", Without: "inbox", To: "Archives/2026"}} },
			want:    boxes{"INBOX": "2 3 4", "Archive": "5", "Archives/2026": "1"}, rep: report.Report{Moved: 1},
		},
		"refused": {
			do: func(h *home, s *server) {
				h.tag(id(1), nil, []string{"inbox"})
				h.put("INBOX", plainMail(7), "S")
				s.refuses = map[string]*mail.Fault{"UID MOVE": {Text: "no"}, "UID COPY": {Text: "no"}}
			},
			want: boxes{"INBOX": "1 2 3 4 7", "Archive": "5"}, rep: report.Report{Uploaded: 1}, faults: 1, travels: true,
		},
		"deleted by the tag": {
			do: func(h *home, _ *server) {
				h.tag(id(1), []string{"deleted"}, nil)
				h.tag(id(5), []string{"deleted", "inbox"}, nil)
			},
			want: boxes{"INBOX": "2 3 4", "Archive": "", "Trash": "1 5 9"}, rep: report.Report{Deleted: 2},
		},
		"deleted by the tag and by the letter": {
			do:   func(h *home, _ *server) { h.tag(id(1), []string{"deleted"}, nil); h.flag("INBOX", 1, "T") },
			want: boxes{"INBOX": "2 3 4", "Archive": "5", "Trash": "1 9"}, rep: report.Report{Deleted: 1},
		},
		"deleted by the tag, and the file removed": {
			do:   func(h *home, _ *server) { h.tag(id(1), []string{"deleted"}, nil); h.remove("INBOX", 1) },
			want: boxes{"INBOX": "2 3 4", "Archive": "5", "Trash": "1 9"}, rep: report.Report{Deleted: 1}, travels: true,
		},
		"expunged by the tag": {
			do:      func(h *home, _ *server) { h.tag(id(1), []string{"deleted"}, nil) },
			options: func(o *Options) { o.Deletions = DeletionsExpunge },
			want:    boxes{"INBOX": "2 3 4", "Archive": "5", "Trash": "9"}, rep: report.Report{Deleted: 1},
		},
		"deletions are kept": {
			do:      func(h *home, _ *server) { h.tag(id(1), []string{"deleted"}, nil) },
			options: func(o *Options) { o.Deletions = DeletionsKeep },
			want:    boxes{"INBOX": "1 2 3 4", "Archive": "5", "Trash": "9"},
		},
		"tagged in the Trash": {
			do:   func(h *home, _ *server) { h.tag(id(9), []string{"deleted"}, nil) },
			want: boxes{"INBOX": "1 2 3 4", "Archive": "5", "Trash": "9"},
		},
		"deleted by the tag, changed on the server": {
			do:   func(h *home, s *server) { h.tag(id(1), []string{"deleted"}, nil); s.box("INBOX").flag(1, `\Flagged`) },
			want: boxes{"INBOX": "1 2 3 4", "Archive": "5", "Trash": "9"},
		},
		"the tag was taken off again": {
			do: func(h *home, _ *server) {
				h.tag(id(1), []string{"deleted"}, nil)
				h.tag(id(1), nil, []string{"deleted"})
			},
			want: boxes{"INBOX": "1 2 3 4", "Archive": "5", "Trash": "9"},
		},
		"one mailbox alone": {
			do:      func(h *home, _ *server) { h.tag(id(1), nil, []string{"inbox"}); h.tag(id(2), []string{"deleted"}, nil) },
			options: func(o *Options) { o.Only = []string{"INBOX"} },
			want:    boxes{"INBOX": "1 3 4", "Archive": "5", "Trash": "2 9"}, rep: report.Report{Deleted: 1},
		},
		"read only": {
			do:      func(h *home, _ *server) { h.tag(id(1), nil, []string{"inbox"}); h.tag(id(2), []string{"deleted"}, nil) },
			options: func(o *Options) { o.ReadOnly = true },
			want:    boxes{"INBOX": "1 2 3 4", "Archive": "5", "Trash": "9"},
		},
	} {
		for wire, caps := range wires() {
			variant := map[string]string{"UIDPLUS": "mute", "MOVE": "tags alone"}[wire]
			if spared(name, wire) {
				continue
			}
			t.Run(name+"/"+wire+"/"+variant, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.mute = variant == "mute"
				if s.mute && name == "a mail without Message-ID" {
					return // nothing tells where it went
				}
				options := []func(*Options){afew, func(o *Options) { o.TagFlags = variant == "tags alone" }}
				if tc.options != nil {
					options = append(options, tc.options)
				}
				for i := range 4 {
					s.box("INBOX").add(plainMail(i + 1))
				}
				s.box("Archive").add(plainMail(5))
				s.box("Trash").add(plainMail(9))
				s.box("Junk")
				s.box("Lists")
				h.sync(s)
				h.tag(id(5), nil, []string{"inbox"})
				h.sync(s, afew)
				h.sync(s, afew)
				tc.do(h, s)
				s.writes = 0
				dry := h.sync(s, append(options, func(o *Options) { o.DryRun = true })...)
				if s.writes > 0 || tc.plan != "" && h.said("would: "+tc.plan) != 1 {
					t.Errorf("%d writes, said %+v", s.writes, h.events)
				}
				rep := h.sync(s, options...)
				if len(rep.Faults) != tc.faults {
					t.Errorf("%+v", rep)
				}
				// A mail without Message-ID is compared with its copy by the text before it is expunged, where the
				// server does not tell which the copy is.
				if compared := name == "a mail without Message-ID" && wire == "bare"; !tc.travels && !compared {
					h.untouched(s)
				}
				got := []int{rep.Deleted, rep.Moved, rep.Uploaded, rep.Pushed}
				want := []int{tc.rep.Deleted, tc.rep.Moved, tc.rep.Uploaded, tc.rep.Pushed}
				if !slices.Equal(got, want) {
					t.Errorf("deleted, moved, uploaded, pushed: %v, want %v", got, want)
				}
				if got := []int{dry.Deleted, dry.Moved, dry.Uploaded, dry.Pushed}; tc.faults == 0 && name != "deleted by the tag, changed on the server" && !slices.Equal(got, want) {
					t.Errorf("the dry run said %v, want %v", got, want)
				}
				for range 2 {
					if rep := h.sync(s, options...); rep.Moved+rep.Deleted+rep.Uploaded+rep.Pushed != 0 || len(rep.Faults) != tc.faults {
						t.Errorf("then: %+v", rep)
					}
				}
				for box, mails := range tc.want {
					var want []string
					for n := range strings.FieldsSeq(mails) {
						want = append(want, "mail "+n)
					}
					if got := s.box(box).subjects(); !slices.Equal(got, want) {
						t.Errorf("%s has %q, want %q", box, got, want)
					}
				}
				if tc.faults == 0 && (tc.options == nil || name == "to a mailbox that is not there") {
					h.notmuchNew()
					h.check(s)
				}
			})
		}
	}
}

// What tags say of a great part of a mailbox waits for a word, like what is gone.
func TestManyDeletionsByTagAreHeld(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	for i := range 80 {
		in.add(plainMail(i))
	}
	in.msgs[80].fault = &serverFault{}
	h.sync(s, afew)
	h.sync(s, afew)
	db, err := h.index.load()
	h.do(err)
	for id := range db {
		h.tag(id, []string{"deleted"}, nil)
	}
	for range 3 {
		if rep := h.sync(s, afew); rep.Held != 79 || len(rep.Faults) != 1 || len(in.msgs) != 80 || !strings.Contains(rep.Faults[0].Text, "marked for deletion") {
			t.Errorf("%+v", rep)
		}
	}
	if rep := h.sync(s, afew, func(o *Options) { o.YesDelete = true }); rep.Deleted != 79 || len(trash.msgs) != 79 || len(in.msgs) != 1 {
		t.Errorf("%+v", rep) // a stub never goes
	}
	h.sync(s, afew)
	h.quiet(s, afew)
}

// A few of many are deleted, though the folder was not read.
func TestAFewDeletionsByTagAreNotHeld(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	for i := range 700 {
		in.add(plainMail(i))
	}
	h.sync(s, afew)
	h.sync(s, afew)
	h.sync(s, afew)
	for i := range 60 {
		h.tag(id(i), []string{"deleted"}, nil)
	}
	if rep := h.sync(s, afew); rep.Deleted != 60 || len(trash.msgs) != 60 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
}

// Mail that somebody takes out of the Trash again, on the server, is not deleted
// once more for the tag that it still has here.
func TestMailThatComesBackFromTheTrashIsNotDeletedAgain(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	for i := range 3 {
		in.add(plainMail(i))
	}
	h.sync(s, afew)
	h.sync(s, afew)
	h.tag(id(0), []string{"deleted"}, nil)
	h.sync(s, afew)
	if !slices.Contains(h.tags(id(0)), "deleted") {
		t.Errorf("in the Trash it has the tags %v", h.tags(id(0)))
	}
	m := trash.expunge(1)
	in.msgs[in.add(m.raw, m.flags...)].date = m.date
	for range 3 {
		h.sync(s, afew)
	}
	if len(in.msgs) != 3 || len(trash.msgs) != 0 || slices.Contains(h.tags(id(0)), "deleted") {
		t.Errorf("INBOX has %q, the Trash %q, tags %v", in.subjects(), trash.subjects(), h.tags(id(0)))
	}
	h.quiet(s, afew)
}

// A rule that is new is about all mail; a database that was made anew lacks tags
// that nobody took off.
func TestRulesAndDatabasesThatAreNew(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 4 {
		in.add(plainMail(i))
	}
	keywords := func(o *Options) { o.Keywords = []string{"todo"} }
	s.box("Archive")
	h.sync(s, keywords)
	h.tag(id(0), nil, []string{"inbox"})
	h.sync(s, keywords)
	h.sync(s, keywords)
	if rep := h.sync(s, keywords, afew); rep.Moved != 1 {
		t.Errorf("%+v", rep)
	}
	h.sync(s, keywords, afew)
	h.quiet(s, keywords, afew)
	for i := 1; i < 4; i++ {
		h.tag(id(i), nil, []string{"inbox", "unread"})
	}
	h.index.another()
	h.quiet(s, keywords, afew)
	h.quiet(s, keywords, afew)
	if len(in.msgs) != 3 {
		t.Errorf("INBOX has %q", in.subjects())
	}
}

// With --restore the server is right, and a mail that is tagged as deleted stays.
func TestRestoreTakesTheTagOff(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	for i := range 3 {
		s.box("INBOX").add(plainMail(i))
	}
	s.box("Trash")
	h.sync(s, afew)
	h.sync(s, afew)
	h.tag(id(1), []string{"deleted"}, nil)
	h.do(os.Remove(h.path("INBOX", h.file("INBOX", 3))))
	h.sync(s, afew, func(o *Options) { o.Restore = true })
	h.quiet(s, afew)
	if len(s.box("INBOX").msgs) != 3 || slices.Contains(h.tags(id(1)), "deleted") || len(h.files("INBOX")) != 3 {
		t.Errorf("%d on the server, %d here, tags %v", len(s.box("INBOX").msgs), len(h.files("INBOX")), h.tags(id(1)))
	}
}
