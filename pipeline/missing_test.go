package pipeline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// What is missing because a folder is, or many at once, is not deleted on the
// server until somebody says so; and can be had back.
func TestWhatIsMissingInDoubtIsNotDeleted(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(h *home)
		held int
		bad  bool // the whole run is refused
	}{
		"the folder is gone": {do: func(h *home) { h.do(os.RemoveAll(h.path("INBOX", ""))) }, held: 60},
		"the folder is empty": {do: func(h *home) {
			h.do(os.RemoveAll(h.path("INBOX", "cur")))
			h.do(os.RemoveAll(h.path("INBOX", "new")))
			h.do(os.MkdirAll(h.path("INBOX", "cur"), 0o700))
			h.do(os.MkdirAll(h.path("INBOX", "new"), 0o700))
		}, held: 60},
		"many are gone": {do: func(h *home) {
			for u := range imap.UID(55) {
				h.remove("INBOX", u+1)
			}
		}, held: 55},
		"the folder is a copy that lacks some": {do: func(h *home) {
			h.do(os.Rename(h.path("INBOX", ""), filepath.Join(h.dir, "old")))
			h.do(os.CopyFS(h.path("INBOX", ""), os.DirFS(filepath.Join(h.dir, "old"))))
			for u := range imap.UID(8) {
				h.remove("INBOX", u+1)
			}
		}, held: 8},
		"all folders are gone": {do: func(h *home) {
			h.do(os.RemoveAll(filepath.Join(h.dir, "mail")))
			h.do(os.MkdirAll(filepath.Join(h.dir, "mail"), 0o700))
		}, bad: true},
	} {
		for _, answer := range []string{"restore", "delete"} {
			t.Run(name+"/"+answer, func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				for i := range 60 {
					s.box("INBOX").add(plainMail(i))
				}
				s.box("Other").add(plainMail(100))
				s.box("Trash").add(plainMail(101))
				h.sync(s)
				tc.do(h)
				if tc.bad {
					if _, err := h.try(s); err == nil || !strings.Contains(err.Error(), "mounted") || s.writes > 0 {
						t.Errorf("%v, %d writes", err, s.writes)
					}
					return
				}
				for range 2 {
					if rep := h.sync(s); rep.Held != tc.held || len(rep.Faults) != 1 || s.writes > 0 {
						t.Errorf("%+v, %d writes", rep, s.writes)
					}
				}
				left := 60
				if answer == "restore" {
					if rep := h.sync(s, func(o *Options) { o.Restore = true }); rep.New != tc.held || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				} else {
					left -= tc.held
					if rep := h.sync(s, func(o *Options) { o.YesDelete = true }); rep.Deleted != tc.held || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				if n := len(s.box("INBOX").msgs); n != left {
					t.Errorf("%d left on the server", n)
				}
				h.notmuchNew()
				h.check(s)
				h.sync(s)
				h.quiet(s)
			})
		}
	}
}

// A folder that was restored from a backup has flags and mails as they were: it
// does not undo what was done since.
func TestARestoredBackupUndoesNothing(t *testing.T) {
	for _, answer := range []string{"restore", "yes"} {
		t.Run(answer, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			in := s.box("INBOX")
			for i := range 6 {
				in.add(plainMail(i))
			}
			s.box("Trash")
			h.sync(s)
			backup := filepath.Join(h.dir, "backup")
			h.do(os.CopyFS(backup, os.DirFS(h.path("INBOX", ""))))
			in.flag(1, `\Seen`, `\Flagged`)
			in.expunge(2)
			in.add(plainMail(10))
			h.sync(s)
			h.sync(s)
			h.do(os.RemoveAll(h.path("INBOX", "")))
			h.do(os.Rename(backup, h.path("INBOX", "")))
			h.notmuchNew()
			for range 2 {
				rep := h.sync(s)
				if len(rep.Faults) != 2 || s.writes > 0 || rep.Held != 1 {
					t.Errorf("%+v, %d writes", rep, s.writes)
				}
			}
			if answer == "restore" {
				h.sync(s, func(o *Options) { o.Restore = true })
				if !plan.SameFlags(in.msgs[1].flags, []string{`\Seen`, `\Flagged`}) {
					t.Errorf("flags %v", in.msgs[1].flags)
				}
			} else {
				h.sync(s, func(o *Options) { o.YesDelete = true })
				if !plan.SameFlags(in.msgs[1].flags, nil) {
					t.Errorf("flags %v", in.msgs[1].flags)
				}
			}
			h.sync(s)
			h.sync(s)
			h.notmuchNew()
			h.check(s)
			h.quiet(s)
		})
	}
}

// Without MOVE, only a copy in every respect is taken for one that a run left
// behind: what is taken for copied is expunged.
func TestAnotherCopyInTheTrashIsNotTheOneThatWasDeleted(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	in.add(plainMail(1))
	in.add(plainMail(3))
	trash.add(plainMail(2))
	h.sync(s)
	h.remove("INBOX", 1)
	trash.add(plainMail(1) + "-- list\r\n") // the list's copy, which somebody else deletes now
	if rep := h.sync(s); rep.Deleted != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	if len(trash.msgs) != 3 || len(in.msgs) != 1 {
		t.Errorf("the Trash has %d, INBOX %d", len(trash.msgs), len(in.msgs))
	}
}

// A run with --mailbox does what is of that mailbox alone; what may have come from
// another one, or gone there, comes with the next run.
func TestWhatOneMailboxAloneLeavesComesWithTheNextRun(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	in.add(plainMail(4))
	s.box("Archive").add(plainMail(8))
	s.box("Trash")
	h.sync(s)
	h.flag("INBOX", 1, "F")
	h.remove("INBOX", 2)
	h.put("INBOX", plainMail(7), "S")
	h.move("INBOX", 3, "Archive", true)
	h.move("Archive", 1, "INBOX", false)
	h.maildir("Made")
	h.move("INBOX", 4, "Made", false)
	if rep := h.sync(s, func(o *Options) { o.Only = []string{"INBOX"} }); rep.Pushed != 1 || rep.Uploaded != 1 || rep.Deleted != 1 || rep.Moved != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	if rep := h.sync(s); rep.Uploaded+rep.Deleted != 0 || rep.Moved != 3 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.has(s, map[string]string{"INBOX": "0 7 8", "Archive": "2", "Made": "4", "Trash": "1"})
}

// Without UIDPLUS nothing is expunged on the word of a server that does not even
// list what it was told to mark: others may be marked there, too.
func TestAnAnswerThatCannotBeTrueExpungesNothing(t *testing.T) {
	for name, blind := range map[string]imap.UIDSet{"empty": {}, "without an end": {{Start: 1, Stop: 0}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(), newHome(t)
			in := s.box("INBOX")
			for i := range 3 {
				in.add(plainMail(i))
			}
			h.sync(s)
			h.remove("INBOX", 1)
			in.flag(2, `\Deleted`)
			s.blind = blind
			h.sync(s, func(o *Options) { o.Deletions = DeletionsExpunge })
			if slices.Contains(s.asked, "EXPUNGE") || len(in.msgs) != 3 {
				t.Errorf("the server has %d messages", len(in.msgs))
			}
		})
	}
}

// A file that is not uploaded, because the server has its mail, is that mail's
// file when the other one is gone.
func TestOneOfTwoFilesOfAMailMayGo(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	s.box("Trash")
	h.sync(s)
	h.put("INBOX", plainMail(1), "S")
	h.sync(s)
	h.quiet(s)
	h.remove("INBOX", 2)
	if rep := h.sync(s); rep.Deleted+rep.Uploaded != 0 || len(in.msgs) != 3 || len(s.box("Trash").msgs) != 0 || !rep.Clean() {
		t.Errorf("%+v, the server has %d", rep, len(in.msgs))
	}
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// The user deletes and flags one mail, and the connection dies in between: what
// this run told the server is not what somebody else changed.
func TestAFlagOfOursIsNoReasonToKeepAMail(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(1))
	in.add(plainMail(2))
	s.box("Trash")
	h.sync(s)
	h.flag("INBOX", 1, "FT")
	s.box("Trash").add(plainMail(3))
	s.cutExamine = 2 // of the Trash, to see whether a copy is there
	if rep := h.sync(s); rep.Deleted != 1 || len(in.msgs) != 1 || len(s.box("Trash").msgs) != 2 {
		t.Errorf("%+v, INBOX has %d", rep, len(in.msgs))
	}
	h.sync(s)
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A copy that a killed run left in a Trash that is not synchronised is found.
func TestACopyThatWasLeftInATrashThatIsNotSynchronised(t *testing.T) {
	t.Parallel()
	s, h := newServer("UIDPLUS", "CONDSTORE"), newHome(t)
	in, trash := s.box("INBOX"), s.box("Trash")
	for i := range 3 {
		in.add(plainMail(i))
	}
	for i := range 2000 {
		trash.add(plainMail(100 + i))
	}
	noTrash := func(o *Options) { o.Selects = func(name string, _ rune) bool { return name != "Trash" } }
	h.sync(s, noTrash)
	h.remove("INBOX", 1)
	s.refuses = map[string]*mail.Fault{"UID STORE": {Kind: mail.KindCut}}
	h.sync(s, noTrash)
	s.refuses = nil
	if rep := h.sync(s, noTrash); rep.Deleted != 1 || len(in.msgs) != 2 || len(trash.msgs) != 2001 {
		t.Errorf("%+v, the Trash has %d", rep, len(trash.msgs))
	}
	h.quiet(s, noTrash)
}

// A folder that cannot be read costs the other mailboxes nothing, and what is
// missing in them may be in it.
func TestAFolderThatCannotBeReadCostsOnlyItself(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in, archive := s.box("INBOX"), s.box("Archive")
	for i := range 3 {
		in.add(plainMail(i))
	}
	archive.add(plainMail(5))
	s.box("Trash")
	h.sync(s)
	h.move("INBOX", 1, "Archive", false)
	h.do(os.Rename(h.path("Archive", "cur"), h.path("Archive", "away")))
	h.do(os.WriteFile(h.path("Archive", "cur"), nil, 0o600))
	h.flag("INBOX", 2, "S")
	in.add(plainMail(6))
	rep, err := h.try(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Faults) != 1 || rep.Faults[0].Mailbox != "Archive" || !rep.Broken() || rep.New != 1 || rep.Pushed != 1 || rep.Deleted+rep.Moved != 0 {
		t.Errorf("%+v", rep)
	}
	h.do(os.Remove(h.path("Archive", "cur")))
	h.do(os.Rename(h.path("Archive", "away"), h.path("Archive", "cur")))
	if rep := h.sync(s); rep.Moved != 1 || rep.Deleted != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.quiet(s)
	h.notmuchNew()
	h.check(s)
}

// A folder that came back with --restore is the right one from then on.
func TestAFolderThatCameBackIsBelieved(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i))
	}
	s.box("Trash").add(plainMail(9))
	h.sync(s)
	h.do(os.RemoveAll(h.path("INBOX", "")))
	h.sync(s, func(o *Options) { o.Restore = true })
	h.remove("INBOX", 1)
	if rep := h.sync(s); rep.Deleted != 1 || rep.Held != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
}
