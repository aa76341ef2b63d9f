package pipeline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// few brings a home with three mails in INBOX, one in Archive and one in the Trash
// to agree with a server.
func few(t *testing.T, caps ...string) (*server, *home, *serverBox) {
	t.Helper()
	s, h := newServer(caps...), newHome(t)
	for i := range 3 {
		s.box("INBOX").add(plainMail(i + 1))
	}
	s.box("Archive").add(plainMail(8))
	s.box("Trash").add(plainMail(9))
	h.sync(s)
	return s, h, s.box("INBOX")
}

// has asserts what the server has, and that all is so here.
func (h *home) has(s *server, want map[string]string) {
	h.t.Helper()
	for box, numbers := range want {
		var subjects []string
		for n := range strings.FieldsSeq(numbers) {
			subjects = append(subjects, "mail "+n)
		}
		if got := s.box(box).subjects(); !slices.Equal(got, subjects) {
			h.t.Errorf("%s has %q, want %q", box, got, subjects)
		}
	}
	h.notmuchNew()
	h.check(s)
}

// An EXPUNGE that is refused today is tried again tomorrow, whatever it was for,
// and the copy that was made before it is not made again.
func TestARefusedExpungeIsTriedAgain(t *testing.T) {
	for what, do := range map[string]func(*home){
		"moved":   func(h *home) { h.move("INBOX", 1, "Archive", true) },
		"deleted": func(h *home) { h.remove("INBOX", 1) },
		"marked":  func(h *home) { h.flag("INBOX", 1, "T") },
		"expunge": func(h *home) { h.remove("INBOX", 1) },
		"trashed": func(h *home) { h.flag("INBOX", 1, "T") },
	} {
		for verb, caps := range map[string][]string{"UID EXPUNGE": {"UIDPLUS", "CONDSTORE"}, "EXPUNGE": nil} {
			t.Run(what+"/"+verb, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				options := func(o *Options) {
					if what == "expunge" || what == "trashed" {
						o.Deletions = DeletionsExpunge
					}
				}
				do(h)
				s.refuses = map[string]*mail.Fault{verb: {Text: "not now"}}
				for range 3 {
					if rep := h.sync(s, options); len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "not now") {
						t.Errorf("%+v", rep)
					}
				}
				s.refuses, h.now = nil, h.now.Add(time.Hour)
				h.sync(s, options)
				h.quiet(s, options)
				want := map[string]string{"INBOX": "2 3", "Archive": "8", "Trash": "9"}
				switch what {
				case "moved":
					want["Archive"] = "1 8"
				case "deleted", "marked":
					want["Trash"] = "1 9"
				}
				h.has(s, want)
				if len(in.msgs) != 2 {
					t.Errorf("INBOX has %v", in.uids())
				}
			})
		}
	}
}

// The other mailbox is looked into, and its mail adopted, before the original could
// be expunged: that is not taken for a second mail, which was deleted.
func TestACopyIsNoReasonForAnother(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 3; at++ {
		s, h, in := few(t, "UIDPLUS", "CONDSTORE")
		h.move("INBOX", 1, "Archive", true)
		s.cutAt = s.writes + at // COPY, STORE, EXPUNGE: the answer is lost
		dials := s.dials
		s.dialErr = func(n int) error {
			if n > dials+1 {
				in.refuse = &mail.Fault{Kind: mail.KindNo, Text: "in use"}
			}
			return nil
		}
		h.sync(s)
		if s.writes < s.cutAt {
			t.Errorf("no cut at %d", at)
		}
		h.sync(s, func(o *Options) { o.Only = []string{"Archive"} })
		in.refuse, s.dialErr, s.cutAt = nil, nil, 0
		h.sync(s)
		h.sync(s)
		h.quiet(s)
		h.has(s, map[string]string{"INBOX": "2 3", "Archive": "1 8", "Trash": "9"})
	}
}

// What COPYUID and APPENDUID say is looked at before it is believed.
func TestUIDsThatAreNotTrue(t *testing.T) {
	for name, lie := range map[string]func(validity, uid *uint64){
		"another message": func(_, uid *uint64) { *uid = 2 },
		"the next":        func(_, uid *uint64) { *uid++ },
		"none":            func(_, uid *uint64) { *uid += 1000 },
		"validity":        func(validity, _ *uint64) { *validity = 99 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h, _ := few(t, "UIDPLUS", "MOVE", "CONDSTORE")
			s.lies = lie
			h.move("INBOX", 1, "Archive", true)
			h.put("Archive", plainMail(6), "S")
			s.box("Archive").add(plainMail(7))
			s.box("Archive").add(plainMail(5))
			h.sync(s)
			h.sync(s)
			h.quiet(s)
			h.has(s, map[string]string{"INBOX": "2 3", "Archive": "1 5 6 7 8", "Trash": "9"})
			l, err := ledger.OpenReadOnly(t.Context(), filepath.Join(h.dir, "state"))
			h.do(err)
			defer func() { h.do(l.Close()) }()
			for _, u := range s.box("Archive").uids() {
				row, ok, err := l.Get(t.Context(), "Archive", 14, u)
				h.do(err)
				want := mail.ParseEnvelope([]byte(s.box("Archive").msgs[u].raw)).Subject
				if raw := h.files("Archive")[row.Name]; !ok || !strings.Contains(raw, want+"\n") {
					t.Errorf("UID %d, %s, is the file %q", u, want, raw)
				}
			}
		})
	}
}

// A server that gives a UID to another message loses none by what was deleted or
// moved here.
func TestAUIDThatIsAnotherMessageNow(t *testing.T) {
	for name, do := range map[string]func(*home){
		"deleted": func(h *home) { h.remove("INBOX", 2) },
		"moved":   func(h *home) { h.move("INBOX", 2, "Archive", false) },
	} {
		for wire, caps := range wires() {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				in.msgs[2].raw = strings.Replace(plainMail(77), "body", "another body", 1)
				do(h)
				rep := h.sync(s)
				if in.msgs[2] == nil || rep.Moved+rep.Deleted != 0 || rep.Clean() {
					t.Errorf("%+v", rep)
				}
			})
		}
	}
}

// A file that went into a folder whose mailbox is not whole in the ledger waits; so
// does what may have gone into a folder that cannot be read. The others do not.
func TestWhatMayHaveGoneToAFolderThatIsNotKnownWaits(t *testing.T) {
	for _, how := range []string{"interrupted", "new", "unreadable"} {
		for wire, caps := range wires() {
			t.Run(how+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				in.add(plainMail(4))
				in.add(plainMail(10))
				in.add(plainMail(12))
				h.sync(s)
				to := "Archive"
				switch how {
				case "interrupted":
					s.box("Archive").add(plainMail(5))
					h.edit(func(l *ledger.Ledger) error {
						return l.SaveMailbox(t.Context(), ledger.Mailbox{Name: "Archive", Folder: "Archive", Delim: '/', UIDValidity: 14})
					})
				case "new":
					to = "Later"
					s.box(to).add(plainMail(5))
				}
				h.move("INBOX", 1, to, true)
				if how == "unreadable" {
					h.do(os.Rename(h.path(to, "cur"), h.path(to, "away")))
					h.do(os.WriteFile(h.path(to, "cur"), nil, 0o600))
				}
				h.remove("INBOX", 2)
				h.flag("INBOX", 3, "T")
				h.move("INBOX", 4, "Trash", true)
				h.put("Trash", plainMail(11), "S")
				s.box(to).refuse = &mail.Fault{Kind: mail.KindNo, Text: "in use"} // what is decided shows
				rep := h.sync(s)
				gone := map[string]string{"INBOX": "1 10 12", "Trash": "11 2 3 4 9"}
				if how == "unreadable" { // the second may be there
					gone = map[string]string{"INBOX": "1 10 12 2", "Trash": "11 3 4 9"}
				}
				for box, want := range gone {
					if got := strings.ReplaceAll(strings.Join(s.box(box).subjects(), " "), "mail ", ""); got != want {
						t.Errorf("%s has %s, want %s: %+v", box, got, want, rep)
					}
				}
				s.box(to).refuse = nil
				if how == "unreadable" {
					h.do(os.Remove(h.path(to, "cur")))
					h.do(os.Rename(h.path(to, "away"), h.path(to, "cur")))
				}
				h.sync(s)
				h.sync(s)
				h.sync(s)
				h.quiet(s)
				want := map[string]string{"INBOX": "10 12", "Trash": "11 2 3 4 9", "Archive": "1 5 8"}
				switch how {
				case "new":
					want["Archive"], want["Later"] = "8", "1 5"
				case "unreadable":
					want["Archive"] = "1 8"
				}
				h.has(s, want)
			})
		}
	}
}

// edit changes the ledger, as a run that was interrupted left it.
func (h *home) edit(f func(*ledger.Ledger) error) {
	h.t.Helper()
	l, done := h.open()
	defer done()
	h.do(f(l))
}

// A small folder that was emptied, or that vanished, does not look well again
// because new mail came into it.
func TestNewMailDoesNotMakeAnEmptyFolderWell(t *testing.T) {
	for name, do := range map[string]func(h *home){
		"emptied": func(h *home) {
			for u := range imap.UID(plan.Handful + 1) {
				h.remove("INBOX", u+1)
			}
		},
		"gone":        func(h *home) { h.do(os.RemoveAll(h.path("INBOX", ""))) },
		"half gone":   func(h *home) { h.do(os.RemoveAll(h.path("INBOX", "new"))); h.put("INBOX", plainMail(7), "") },
		"other half":  func(h *home) { h.do(os.RemoveAll(h.path("INBOX", "cur"))) },
		"cur emptied": func(h *home) { h.do(os.RemoveAll(h.path("INBOX", "cur"))); h.put("INBOX", plainMail(7), "") },
	} {
		for _, answer := range []string{"restore", "yes"} {
			t.Run(name+"/"+answer, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, "MOVE", "UIDPLUS", "CONDSTORE")
				const had = plan.Handful + 1
				for i := range had - 3 {
					in.add(plainMail(40 + i))
				}
				h.sync(s)
				if name == "other half" || name == "cur emptied" {
					for u := range imap.UID(plan.Handful + 1) {
						in.flag(u+1, `\Seen`)
					}
					h.sync(s)
				}
				do(h)
				for i := range 3 {
					in.add(plainMail(20 + i))
					if rep := h.sync(s); rep.Deleted != 0 || rep.Held != had || len(s.box("Trash").msgs) != 1 {
						t.Fatalf("sync %d: %+v", i+1, rep)
					}
				}
				if answer == "restore" {
					h.sync(s, func(o *Options) { o.Restore = true })
				} else if rep := h.sync(s, func(o *Options) { o.YesDelete = true }); rep.Deleted != had {
					t.Errorf("%+v", rep)
				}
				for range 3 {
					h.sync(s)
				}
				h.quiet(s)
				if answer == "restore" != (len(s.box("Trash").msgs) == 1) {
					t.Errorf("the Trash has %d", len(s.box("Trash").msgs))
				}
				h.notmuchNew()
				h.check(s)
			})
		}
	}
}

// A file that goes from one folder to another while they are scanned was in
// neither, or in both: it is moved, now or later.
func TestAMoveBetweenTwoScans(t *testing.T) {
	for name, way := range map[string][2]string{"into what was scanned": {"INBOX", "Archive"}, "out of what was scanned": {"Archive", "INBOX"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h, _ := few(t, "MOVE", "UIDPLUS", "CONDSTORE")
			file := h.file(way[0], 1)
			// Folders are scanned by name: Archive, INBOX, Trash. The mail of INBOX
			// that is marked makes it, and that of Archive, be read.
			h.do(os.Chtimes(h.path("INBOX", "cur"), h.now, h.now))
			h.do(os.Chtimes(h.path("Archive", "cur"), h.now, h.now))
			var moved atomic.Bool
			rep := h.sync(s, func(o *Options) {
				o.Selects = func(name string, _ rune) bool {
					if name == "INBOX" && moved.CompareAndSwap(false, true) {
						h.do(os.Rename(h.path(way[0], file), h.path(way[1], file)))
					}
					return true
				}
			})
			if !moved.Load() || rep.Uploaded+rep.Deleted != 0 {
				t.Errorf("%+v", rep)
			}
			h.sync(s)
			h.quiet(s)
			want := map[string]string{"INBOX": "2 3", "Archive": "1 8", "Trash": "9"}
			if way[0] == "Archive" {
				want = map[string]string{"INBOX": "1 2 3 8", "Archive": "", "Trash": "9"}
			}
			h.has(s, want)
		})
	}
}

// What one could not tell the server of stays to be told: that it was deleted here
// and changed there is seen also by the run after the next.
func TestAChangeThatKeepsAMailIsNotForgottenMeanwhile(t *testing.T) {
	for wire, caps := range wires() {
		for _, how := range []string{"removed", "marked"} {
			for _, why := range []string{"refused", "alone"} {
				t.Run(strings.Join([]string{wire, how, why}, "/"), func(t *testing.T) {
					t.Parallel()
					s, h, in := few(t, caps...)
					if how == "removed" {
						h.remove("INBOX", 1)
					} else {
						h.flag("INBOX", 1, "T")
					}
					in.flag(1, `\Flagged`)
					if why == "refused" {
						s.noSelect = true
						h.sync(s)
						s.noSelect = false
					} else {
						h.sync(s, func(o *Options) { o.Only = []string{"INBOX"} })
					}
					if rep := h.sync(s); rep.Deleted != 0 {
						t.Errorf("%+v", rep)
					}
					h.sync(s)
					h.quiet(s)
					h.has(s, map[string]string{"INBOX": "1 2 3", "Archive": "8", "Trash": "9"})
				})
			}
		}
	}
}

// A tag that was changed while its mailbox was not whole is told later.
func TestATagInAMailboxThatIsNotWholeIsToldLater(t *testing.T) {
	t.Parallel()
	s, h, in := few(t, "MOVE", "UIDPLUS", "CONDSTORE")
	keywords := func(o *Options) { o.Keywords = []string{"work"} }
	h.sync(s, keywords)
	h.edit(func(l *ledger.Ledger) error {
		return l.SaveMailbox(t.Context(), ledger.Mailbox{Name: "INBOX", Folder: "INBOX", Delim: '/', UIDValidity: 14})
	})
	h.tag("m1@example.org", []string{"work"}, nil)
	h.sync(s, keywords)
	h.sync(s, keywords)
	if !plan.HasFlag(in.msgs[1].flags, "work") {
		t.Errorf("the server has %v", in.msgs[1].flags)
	}
}

// A notmuch database that was made anew, by a configuration that tags nothing
// unread, does not make all mail read on the server.
func TestANewDatabaseReadsNothing(t *testing.T) {
	t.Parallel()
	s, h, in := few(t, "CONDSTORE")
	tagged := func(o *Options) { o.TagFlags = true }
	h.sync(s, tagged)
	db, err := h.index.load()
	h.do(err)
	for _, m := range db {
		m.Tags = []string{"inbox"}
	}
	h.do(h.index.save(db))
	h.index.another()
	for range 2 {
		h.sync(s, tagged)
	}
	for u, m := range in.msgs {
		if len(m.flags) > 0 {
			t.Errorf("UID %d has %v", u, m.flags)
		}
	}
}

// With a lost ledger the flags of both sides come together, and nothing is taken
// off on the server because a file does not have it.
func TestALostLedgerTakesNoFlagOff(t *testing.T) {
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h, in := few(t, caps...)
			h.flag("INBOX", 2, "F")
			in.flag(1, `\Seen`)
			h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
			for range 3 {
				h.sync(s)
			}
			if !plan.SameFlags(in.msgs[1].flags, []string{`\Seen`}) || !plan.SameFlags(in.msgs[2].flags, []string{`\Flagged`}) {
				t.Errorf("the server has %v and %v", in.msgs[1].flags, in.msgs[2].flags)
			}
			h.quiet(s)
			h.has(s, map[string]string{"INBOX": "1 2 3", "Archive": "8", "Trash": "9"})
		})
	}
}

// What is marked for deletion here and gone on the server both sides have deleted: that waits for
// no fault of its mailbox, as that there is no Trash for another mail.
func TestWhatBothSidesDeletedWaitsForNoFault(t *testing.T) {
	t.Parallel()
	for what, delete := range map[string]func(*home){"removed": func(h *home) { h.remove("INBOX", 2) }, "marked": func(h *home) { h.flag("INBOX", 2, "T") }} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(wires()["all"]...), newHome(t)
			for i := range 3 {
				s.box("INBOX").add(plainMail(i + 1))
			}
			h.sync(s)
			h.flag("INBOX", 1, "T")
			delete(h)
			s.box("INBOX").expunge(1)
			if rep := h.sync(s); rep.Removed != 1 || rep.Clean() || len(h.files("INBOX")) != len(s.box("INBOX").uids())-strings.Count(what, "removed") {
				t.Errorf("%+v\n%v\n%v", rep, h.events, h.files("INBOX"))
			}
			if h.sync(s); h.said("1 deletion") != 0 {
				t.Errorf("it is said again: %v", h.events)
			}
		})
	}
}
