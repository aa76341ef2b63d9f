package pipeline

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// maildir makes a folder, as Mutt does.
func (h *home) maildir(folder string) {
	h.t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		h.do(os.MkdirAll(h.path(folder, sub), 0o700))
	}
}

func (s *server) names() []string { return slices.Sorted(maps.Keys(s.boxes)) }

// said counts the events whose text has the words.
func (h *home) said(words string) (n int) {
	for _, e := range h.events {
		if strings.Contains(e.Text, words) {
			n++
		}
	}
	return n
}

// A folder that is made here becomes a mailbox, and its mail is uploaded, or
// moved there from where it is on the server.
func TestANewFolderBecomesAMailbox(t *testing.T) {
	type boxes map[string]string
	for name, tc := range map[string]struct {
		do      func(h *home, s *server)
		want    boxes
		absent  []string
		options func(*Options)
		rep     report.Report
		faults  int
		note    string
	}{
		"empty":     {do: func(h *home, _ *server) { h.maildir("Projects") }, want: boxes{"INBOX": "1 2 3 4", "Projects": ""}},
		"with mail": {do: func(h *home, _ *server) { h.maildir("Projects"); h.put("Projects", plainMail(7), "S") }, want: boxes{"INBOX": "1 2 3 4", "Projects": "7"}, rep: report.Report{Uploaded: 1}},
		"with cur alone": {
			do: func(h *home, _ *server) {
				h.do(os.MkdirAll(h.path("Projects", "cur"), 0o700))
				h.put("Projects", plainMail(7), "S")
			},
			want: boxes{"INBOX": "1 2 3 4", "Projects": "7"}, rep: report.Report{Uploaded: 1},
		},
		"with mail that was moved": {
			do: func(h *home, _ *server) {
				h.maildir("Projects/2024 é")
				h.move("INBOX", 1, "Projects/2024 é", false)
				h.flag("INBOX", 2, "FS")
				h.move("INBOX", 2, "Projects/2024 é", true)
			},
			want: boxes{"INBOX": "3 4", "Projects/2024 é": "1 2"}, rep: report.Report{Moved: 2, Pushed: 1},
		},
		"a folder in another": {
			do: func(h *home, s *server) {
				s.shallow = true
				h.maildir("A/B/C")
				h.move("INBOX", 1, "A/B/C", true)
			},
			want: boxes{"INBOX": "2 3 4", "A": "", "A/B": "", "A/B/C": "1"}, rep: report.Report{Moved: 1},
		},
		"a folder that got another name": {
			do:   func(h *home, _ *server) { h.do(os.Rename(h.path("Archive", ""), h.path("Old", ""))) },
			want: boxes{"INBOX": "1 2 3 4", "Archive": "", "Old": "5"}, rep: report.Report{Moved: 1},
		},
		"below INBOX": {
			do: func(h *home, s *server) {
				s.prefix = "INBOX/"
				h.maildir("Projects")
				h.move("INBOX", 1, "Projects", true)
			},
			want: boxes{"INBOX": "2 3 4", "INBOX/Projects": "1"}, rep: report.Report{Moved: 1},
		},
		"where a mailbox cannot hold mail": {
			do: func(h *home, s *server) {
				s.holders = map[string]bool{"[Gmail]": true, "Lists": true}
				h.maildir("[Gmail]")
				h.maildir("Lists")
				h.put("Lists", plainMail(7), "")
			},
			want: boxes{"INBOX": "1 2 3 4", "Lists": "7"}, absent: []string{"[Gmail]"}, rep: report.Report{Uploaded: 1},
		},
		"excluded": {
			do:      func(h *home, _ *server) { h.maildir("Local"); h.put("Local", plainMail(7), "") },
			options: func(o *Options) { o.Selects = func(name string, _ rune) bool { return name != "Local" } },
			want:    boxes{"INBOX": "1 2 3 4"}, absent: []string{"Local"},
		},
		"of a name that no mailbox can have": {
			do: func(h *home, _ *server) {
				h.maildir("A:B")
				h.maildir("\xff")
				h.move("INBOX", 1, "A:B", true)
				h.move("INBOX", 2, "\xff", false)
			},
			want: boxes{"INBOX": "1 2 3 4"}, absent: []string{"A:B", "\xff"}, note: "no mailbox of this name",
		},
		"refused": {
			do: func(h *home, s *server) {
				s.refuses = map[string]*mail.Fault{"CREATE": {Text: "[NOPERM] no"}}
				h.maildir("Projects")
				h.move("INBOX", 1, "Projects", true)
				h.remove("INBOX", 2)
				h.put("Archive", plainMail(7), "")
			},
			want: boxes{"INBOX": "1 3 4", "Archive": "5 7", "Trash": "2"}, absent: []string{"Projects"}, rep: report.Report{Deleted: 1, Uploaded: 1}, faults: 1,
		},
		"read only": {
			do:      func(h *home, _ *server) { h.maildir("Projects"); h.put("Projects", plainMail(7), "") },
			options: func(o *Options) { o.ReadOnly = true },
			want:    boxes{"INBOX": "1 2 3 4"}, absent: []string{"Projects"},
		},
		"one mailbox alone": {
			do:      func(h *home, _ *server) { h.maildir("Projects"); h.put("Projects", plainMail(7), "") },
			options: func(o *Options) { o.Only = []string{"INBOX"} },
			want:    boxes{"INBOX": "1 2 3 4"}, absent: []string{"Projects"},
		},
	} {
		for wire, caps := range wires() {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				if wire == "all" {
					s.caps = append(slices.Clone(caps), "NAMESPACE")
				}
				mute := wire == "UIDPLUS" || wire == "all"
				s.mute = mute
				for i := range 4 {
					s.box("INBOX").add(plainMail(i + 1))
				}
				for name, i := range map[string]int{"Archive": 5, "Trash": 0} {
					if name != "Archive" && tc.want["INBOX/Projects"] != "" || tc.want["INBOX/Projects"] != "" {
						name = "INBOX/" + name
					}
					b := s.box(name)
					if i > 0 {
						b.add(plainMail(i))
					}
				}
				h.sync(s)
				tc.do(h, s)
				options := tc.options
				if options == nil {
					options = func(*Options) {}
				}
				before := len(s.boxes)
				dry := h.sync(s, options, func(o *Options) { o.DryRun = true })
				if s.writes > 0 || len(s.boxes) != before {
					t.Fatalf("the dry run made %q", s.names())
				}
				made := h.said("would: new folder: ")
				rep := h.sync(s, options)
				if n := h.said("new folder: "); n != made || tc.note != "" && h.said(tc.note) == 0 {
					t.Errorf("said %v", h.events)
				}
				if len(rep.Faults) != tc.faults {
					t.Errorf("%+v", rep)
				}
				got := []int{rep.Deleted, rep.Moved, rep.Uploaded, rep.Pushed}
				want := []int{tc.rep.Deleted, tc.rep.Moved, tc.rep.Uploaded, tc.rep.Pushed}
				if !slices.Equal(got, want) {
					t.Errorf("deleted, moved, uploaded, pushed: %v, want %v", got, want)
				}
				if got := []int{dry.Deleted, dry.Moved, dry.Uploaded, dry.Pushed}; tc.faults == 0 && !slices.Equal(got, want) {
					t.Errorf("the dry run said %v, want %v", got, want)
				}
				if rep.New != tc.rep.Deleted && !mute {
					t.Errorf("%d came", rep.New)
				}
				for range 2 {
					if rep := h.sync(s, options); rep.Uploaded+rep.Moved+rep.Deleted+rep.New != 0 || len(rep.Faults) != tc.faults || tc.note != "" && h.said(tc.note) != 0 {
						t.Errorf("then: %+v %v", rep, h.events)
					}
				}
				for box, mails := range tc.want {
					var want []string
					for n := range strings.FieldsSeq(mails) {
						want = append(want, "mail "+n)
					}
					if s.boxes[box] == nil {
						t.Errorf("there is no %s, but %q", box, s.names())
					} else if got := s.boxes[box].subjects(); !slices.Equal(got, want) {
						t.Errorf("%s has %q, want %q", box, got, want)
					} else if before := []string{"INBOX", "Archive", "Trash"}; !slices.Contains(before, box) && !s.subscribed[box] {
						t.Errorf("%s is not subscribed", box)
					}
				}
				for _, box := range tc.absent {
					if s.boxes[box] != nil {
						t.Errorf("there is a mailbox %s", box)
					}
				}
				if len(tc.absent) == 0 && tc.want["INBOX/Projects"] == "" {
					h.notmuchNew()
					h.check(s)
				}
			})
		}
	}
}

// What was here before the first sync is not taken for a new folder, whatever its
// name; its owner may say so.
func TestAFolderFromBeforeTheFirstSyncStays(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	s.box("INBOX").add(plainMail(1))
	s.box("Trash")
	h.maildir("Sent Mail")
	h.put("Sent Mail", plainMail(7), "S")
	for i := range 3 {
		h.sync(s)
		if n := h.said("was here before"); n != map[bool]int{true: 1}[i == 0] {
			t.Errorf("run %d says so %d times", i, n)
		}
	}
	if s.writes > 0 || s.boxes["Sent Mail"] != nil {
		t.Fatalf("%d writes, %q", s.writes, s.names())
	}
	// Mail that is moved there is not deleted.
	h.move("INBOX", 1, "Sent Mail", true)
	if rep := h.sync(s); rep.Deleted != 0 || len(s.box("INBOX").msgs) != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.withLedger(s, func(o Options) {
		if err := NewFolder(t.Context(), o, "Sent Mail"); err != nil {
			t.Error(err)
		}
		if err := NewFolder(t.Context(), o, "INBOX"); err == nil {
			t.Error("INBOX was made anew")
		}
	})
	if rep := h.sync(s); rep.Uploaded != 1 || rep.Moved != 1 || rep.Deleted != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

func (h *home) withLedger(s *server, f func(Options)) {
	h.t.Helper()
	l, done := h.open()
	defer done()
	f(h.options(s, l))
}

// A mailbox that was deleted on the server keeps its mail here, and is not made
// anew, until its owner decides.
func TestAMailboxThatTheServerHasNoMore(t *testing.T) {
	for _, then := range []string{"move", "delete", "create", "by hand", "anew"} {
		t.Run(then, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE", "NAMESPACE"), newHome(t)
			in, old := s.box("INBOX"), s.box("Old")
			for i := range 3 {
				in.add(plainMail(i))
				old.add(plainMail(10 + i))
			}
			s.box("Trash")
			h.sync(s)
			// Mail that is on its way there when it is deleted is not deleted.
			h.move("INBOX", 3, "Old", true)
			s.drop("Old")
			for i := range 3 {
				rep := h.sync(s)
				if n := h.said("no more"); n != map[bool]int{true: 1}[i == 0] || !rep.Clean() {
					t.Errorf("run %d says so %d times, %+v", i, n, rep)
				}
			}
			if s.writes > 0 || s.boxes["Old"] != nil || len(h.files("Old")) != 4 || len(in.msgs) != 3 {
				t.Fatalf("%d writes, %q, %d files", s.writes, s.names(), len(h.files("Old")))
			}
			switch then {
			case "move":
				h.move("Old", 1, "INBOX", true)
				h.move("Old", 2, "INBOX", false)
				if rep := h.sync(s); rep.Uploaded != 2 || rep.Moved != 0 || !rep.Clean() || len(in.msgs) != 5 {
					t.Errorf("%+v", rep)
				}
				if n := len(h.files("Old")); n != 2 {
					t.Errorf("%d files left", n)
				}
				return
			case "by hand":
				h.do(os.Rename(h.path("Old", "cur"), h.path("INBOX", "old")))
				h.do(os.RemoveAll(h.path("Old", "")))
				h.sync(s)
				// A folder of that name is a new one.
				h.maildir("Old")
				h.put("Old", plainMail(20), "S")
				if rep := h.sync(s); rep.Uploaded != 1 || len(s.box("Old").msgs) != 1 {
					t.Errorf("%+v", rep)
				}
				return
			case "anew": // by another program; what was deleted there does not come back
				s.create(&mail.Exchange{}, "Old")
				would := h.sync(s, func(o *Options) { o.DryRun = true })
				rep := h.sync(s)
				if rep.Uploaded != 0 || rep.Moved != 1 || would.Moved != 1 || !rep.Clean() || len(s.box("Old").msgs) != 1 || len(in.msgs) != 2 {
					t.Errorf("%+v, %+v", would, rep)
				}
				h.quiet(s)
				return
			case "delete":
				h.withLedger(s, func(o Options) {
					var told FolderPlan
					done, err := DeleteFolder(t.Context(), o, "Old", func(p FolderPlan) (bool, error) { told = p; return true, nil })
					if want := (FolderPlan{Mailbox: "Old", Files: 4, Alone: 1}); !done || err != nil || told != want {
						t.Errorf("%v %v %+v", done, err, told)
					}
				})
				if _, err := os.Stat(h.path("Old", "")); err == nil {
					t.Error("the folder is still there")
				}
				// Its fourth was INBOX's.
				if rep := h.sync(s); rep.Deleted != 1 || len(in.msgs) != 2 {
					t.Errorf("%+v", rep)
				}
			case "create":
				h.withLedger(s, func(o Options) { h.do(NewFolder(t.Context(), o, "Old")) })
				if rep := h.sync(s); rep.Uploaded != 3 || rep.Moved != 1 || !rep.Clean() || len(s.box("Old").msgs) != 4 {
					t.Errorf("%+v", rep)
				}
			}
			h.sync(s)
			h.quiet(s)
			h.notmuchNew()
			h.check(s)
		})
	}
}

func TestAMailboxIsDeletedWhereItsOwnerSaysSo(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, old := s.box("INBOX"), s.box("Old")
	for i := range 3 {
		in.add(plainMail(i))
		old.add(plainMail(10 + i))
	}
	old.add(plainMail(1)) // INBOX has it, too
	old.msgs[2].fault = &serverFault{}
	s.box("Old/Sub").add(plainMail(20))
	h.sync(s)
	h.put("Old", plainMail(30), "S")
	del := func(mailbox string, confirm func(FolderPlan) (bool, error)) (done bool, err error) {
		h.withLedger(s, func(o Options) { done, err = DeleteFolder(t.Context(), o, mailbox, confirm) })
		return done, err
	}
	yes := func(FolderPlan) (bool, error) { return true, nil }
	if _, err := del("inbox", yes); err == nil {
		t.Error("INBOX was deleted")
	}
	if _, err := del("Nowhere", yes); err == nil {
		t.Error("what is not there was deleted")
	}
	want := FolderPlan{Mailbox: "Old", OnServer: true, Messages: 4, Files: 5, Alone: 1}
	if done, err := del("Old", func(p FolderPlan) (bool, error) {
		if p != want {
			t.Errorf("%+v", p)
		}
		return false, nil
	}); done || err != nil {
		t.Errorf("%v %v", done, err)
	}
	if done, err := del("Old", func(FolderPlan) (bool, error) { old.add(plainMail(40)); return true, nil }); done || err == nil {
		t.Error("mail that came meanwhile was deleted")
	}
	s.refuses = map[string]*mail.Fault{"DELETE": {Text: "in use"}}
	if _, err := del("Old", yes); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
	s.refuses = nil
	if n := len(h.files("Old")); n != 5 || s.boxes["Old"] == nil {
		t.Fatalf("%d files, %q", n, s.names())
	}
	if rep := h.sync(s); rep.Uploaded != 1 || rep.New != 1 || h.said("interrupted") > 0 {
		t.Errorf("%+v", rep)
	}
	if done, err := del("Old", yes); !done || err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.names(), []string{"INBOX", "Old/Sub"}) || s.subscribed["Old"] {
		t.Errorf("the server has %q", s.names())
	}
	if entries, _ := os.ReadDir(h.path("Old", "")); len(entries) != 1 {
		t.Errorf("left is %v", entries)
	}
	h.quiet(s)
	h.check(s)
}

// A deletion that dies at any point is ended by the next sync, if the server had
// deleted the mailbox, or never was.
func TestTheDeletionOfAMailboxMayBeInterrupted(t *testing.T) {
	t.Parallel()
	share.Sweep(t)
	type dead struct{}
	for at := 1; ; at++ {
		s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
		s.box("INBOX").add(plainMail(0))
		for i := range 3 {
			s.box("Old").add(plainMail(10 + i))
		}
		h.sync(s)
		h.put("Old", plainMail(30), "S")
		h.notmuchNew()
		ended := true
		h.withLedger(s, func(o Options) {
			n := 0
			o.Step = func(string) {
				if n++; n == at {
					panic(dead{})
				}
			}
			defer func() {
				if recover() != nil {
					ended = false
				}
			}()
			_, err := DeleteFolder(t.Context(), o, "Old", func(FolderPlan) (bool, error) { return true, nil })
			h.do(err)
		})
		if ended {
			if at < 6 {
				t.Errorf("only %d steps", at)
			}
			return
		}
		deleted := s.boxes["Old"] == nil
		h.sync(s)
		h.sync(s)
		if deleted == (len(h.files("Old")) > 0) || deleted != (s.boxes["Old"] == nil) {
			t.Errorf("interrupted at %d: deleted %v, %d files, %q", at, deleted, len(h.files("Old")), s.names())
		}
		h.notmuchNew()
		h.quiet(s)
		h.check(s)
	}
}

// A run that dies between the making of a mailbox and the moving of its mail
// deletes nothing in the next one.
func TestAMailboxThatWasMadeByAKilledRun(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for cut := 1; cut <= 6; cut++ {
			s, h := newServer(caps...), newHome(t)
			s.box("Trash")
			for i := range 4 {
				s.box("INBOX").add(plainMail(i))
			}
			h.sync(s)
			h.maildir("Projects")
			h.move("INBOX", 1, "Projects", true)
			h.move("INBOX", 2, "Projects", false)
			h.put("Projects", plainMail(7), "S")
			s.cutAt = s.writes + cut
			for range 4 {
				h.sync(s)
			}
			if in, made, trash := s.box("INBOX").subjects(), s.box("Projects").subjects(), s.box("Trash").subjects(); !slices.Equal(in, []string{"mail 2", "mail 3"}) ||
				!slices.Equal(made, []string{"mail 0", "mail 1", "mail 7"}) || len(trash) > 0 {
				t.Errorf("%s, cut %d: %q %q %q", wire, cut, in, made, trash)
			}
			h.notmuchNew()
			h.check(s)
			h.quiet(s)
		}
	}
}

// With a lost ledger the short folder of a mailbox below INBOX is found again.
func TestTheShortFolderOfAMailboxBelowInbox(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "NAMESPACE"), newHome(t)
	s.prefix, s.delim = "INBOX.", '.'
	s.box("INBOX").add(plainMail(1))
	s.box("INBOX.Sent").add(plainMail(2))
	h.sync(s)
	h.maildir("Work/Old")
	h.put("Work/Old", plainMail(7), "S")
	if rep := h.sync(s); rep.Uploaded != 1 || len(s.box("INBOX.Work.Old").msgs) != 1 {
		t.Errorf("%+v, %q", rep, s.names())
	}
	h.do(os.RemoveAll(filepath.Join(h.dir, "state")))
	for range 3 {
		if rep := h.sync(s); rep.New+rep.Uploaded != 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	if n := len(h.files("Work/Old")); n != 1 || len(s.boxes) != 3 {
		t.Errorf("%d files, %q", n, s.names())
	}
}

// Mail that went to a mailbox that is new is linked, also where the one that it was in is gone, in
// whose folder it is no more; that of a mailbox that has another name goes with its folder.
func TestMailInANewMailboxIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		s, h := newServer(caps...), newHome(t)
		for i := range 4 {
			s.box("INBOX").add(plainMail(i))
			s.box("Old").add(plainMail(10 + i))
			s.box("Gone").add(plainMail(20 + i))
		}
		h.sync(s)
		for i := range 2 {
			m := s.box("INBOX").expunge(imap.UID(i + 1))
			s.box("New").msgs[s.box("New").add(m.raw, m.flags...)].date = m.date
		}
		for i := range 3 {
			m := s.box("Gone").expunge(imap.UID(i + 1))
			s.box("Copy").msgs[s.box("Copy").add(m.raw, m.flags...)].date = m.date
		}
		s.drop("Gone")
		s.boxes["Other"] = s.boxes["Old"]
		s.drop("Old")
		if rep := h.sync(s); rep.Linked != 5 || !rep.Clean() || slices.Contains(s.asked, "FETCH") {
			t.Errorf("%s: %+v", wire, rep)
		}
		h.quiet(s)
		for folder, n := range map[string]int{"Old": 0, "Other": 4, "New": 2, "Gone": 1, "Copy": 3} {
			if len(h.files(folder)) != n {
				t.Errorf("%s: %s has %d files, want %d", wire, folder, len(h.files(folder)), n)
			}
		}
	}
}

// Mail that is missing in one folder and lies in another that is not in step with
// the server is moved there, not deleted.
func TestMailMovedToAMailboxThatIsNotInStep(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, archive := s.box("INBOX"), s.box("Archive")
	for i := range 4 {
		in.add(plainMail(i))
	}
	archive.add(plainMail(10))
	s.box("Trash")
	h.sync(s)
	h.move("INBOX", imap.UID(1), "Archive", true)
	archive.validity++
	for range 3 {
		h.sync(s)
	}
	if len(in.msgs) != 3 || !slices.Equal(archive.subjects(), []string{"mail 0", "mail 10"}) || len(s.box("Trash").msgs) != 0 {
		t.Errorf("INBOX %q, Archive %q, Trash %q", in.subjects(), archive.subjects(), s.box("Trash").subjects())
	}
	h.quiet(s)
}

// What is said of a new folder counts what goes there, and no file that is no mail of its own.
func TestANewFolderIsSaidWithWhatGoesThere(t *testing.T) {
	t.Parallel()
	s, h, _ := few(t)
	h.maildir("New")
	h.put("New", plainMail(5), "S")
	h.put("New", "", "S")
	h.put("New", "X-TUID: 123456789012\r\nMessage-ID: <large@example.org>\r\nSubject: [placeholder] a large one\r\n\r\ntext\r\n", "S")
	for _, dry := range []bool{true, false} {
		h.sync(s, func(o *Options) { o.DryRun = dry })
		if h.said("new folder: New (1 message)") != 1 {
			t.Errorf("dry %v: %v", dry, h.events)
		}
	}
	if got := s.box("New").subjects(); len(got) != 1 {
		t.Errorf("New has %q", got)
	}
}
