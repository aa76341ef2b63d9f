package pipeline

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// archive moves messages on the server as a phone does.
func (s *server) archive(t *testing.T, from, to string, uids ...imap.UID) {
	t.Helper()
	for _, u := range uids {
		raw := s.box(from).msgs[u].raw
		at := s.box(from).msgs[u].date
		s.box(from).expunge(u)
		n := s.box(to).add(raw)
		s.box(to).msgs[n].date = at
	}
}

// What another client moved is no deletion, however much it is; only what nothing
// explains counts, and the rest does not wait for it.
func TestWhatWasMovedOnTheServerIsNoDeletion(t *testing.T) {
	for wire, caps := range wires() {
		for _, lost := range []int{0, 10, 60} {
			t.Run(fmt.Sprintf("%s/%d", wire, lost), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(append([]string{"CONDSTORE"}, caps...)...), newHome(t)
				in := s.box("INBOX")
				for i := range 160 {
					in.add(plainMail(i))
				}
				s.box("Archive").add(plainMail(500))
				h.sync(s)
				for u := range imap.UID(90) {
					s.archive(t, "INBOX", "Archive", u+1)
				}
				for u := range imap.UID(lost) {
					in.expunge(u + 100)
				}
				dry := h.sync(s, func(o *Options) { o.DryRun = true })
				// Who asks for one mailbox does not see where its mail went, and is not
				// told to delete that.
				const look = "run sync without -m, which finds what was moved to other mailboxes"
				one := h.sync(s, func(o *Options) { o.Only = []string{"INBOX"} })
				if len(one.Faults) != 1 || !strings.Contains(one.Faults[0].Text, look) || one.Removed != 0 {
					t.Errorf("INBOX alone: %+v", one)
				}
				rep := h.sync(s)
				if len(rep.Faults) > 0 && strings.Contains(rep.Faults[0].Text, look) {
					t.Errorf("%+v", rep.Faults)
				}
				held := 0
				if lost > plan.GuardCount {
					held = lost
				}
				if rep.Held != held || rep.Clean() != (held == 0) || rep.Linked != 90 || rep.Removed != 90+lost-held {
					t.Errorf("%+v", rep)
				}
				if dry.Held != held || dry.Removed != rep.Removed {
					t.Errorf("the dry run said %+v", dry)
				}
				if n := len(h.files("INBOX")); n != 160-90-lost+held {
					t.Errorf("%d files in INBOX", n)
				}
				if held > 0 {
					if !strings.Contains(rep.Faults[0].Text, fmt.Sprintf("lists %d of 160", held)) || !strings.Contains(rep.Faults[0].Text, "--yes-delete=work/INBOX") {
						t.Errorf("%+v", rep.Faults)
					}
					if rep := h.sync(s, func(o *Options) { o.YesDeleteIn = []string{"Archive"} }); rep.Removed != 0 {
						t.Errorf("%+v", rep)
					}
					if rep := h.sync(s, func(o *Options) { o.YesDeleteIn = []string{"INBOX"} }); rep.Removed != held || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				}
				h.check(s)
				h.sync(s)
				h.quiet(s)
			})
		}
	}
}

// That a folder or a mailbox is empty is no doubt where it held a handful, or is one that is
// emptied in daily life, and nothing else is in doubt: on either side.
func TestWhatIsEmptiedInDailyLifeIsNoDoubt(t *testing.T) {
	type folders map[string]int // mails by mailbox
	for name, c := range map[string]struct {
		mails, removed folders
		gone           string // a folder that is gone as such, which a server does not show
		held           int
	}{
		"the only draft was sent":                  {folders{"Drafts": 1, "INBOX": 9}, folders{"Drafts": 1}, "", 0},
		"the last mail of a folder":                {folders{"Lists": 1, "INBOX": 9}, folders{"Lists": 1}, "", 0},
		"the only mail":                            {folders{"INBOX": 1}, folders{"INBOX": 1}, "", 0},
		"a handful in two folders":                 {folders{"Lists": 2, "INBOX": 3, "Archive": 2}, folders{"Lists": 2, "INBOX": 3}, "", 0},
		"more than a handful in two folders":       {folders{"Lists": 3, "INBOX": 3, "Archive": 2}, folders{"Lists": 3, "INBOX": 3}, "", 6},
		"six of a folder":                          {folders{"Lists": 6, "INBOX": 9}, folders{"Lists": 6}, "", 6},
		"the Trash":                                {folders{"Trash": 70, "INBOX": 9}, folders{"Trash": 70}, "", 0},
		"most of the Trash":                        {folders{"Trash": 70, "INBOX": 9}, folders{"Trash": 60}, "", 0},
		"junk, drafts and the Trash":               {folders{"Trash": 7, "Junk": 60, "Drafts": 8, "INBOX": 2}, folders{"Trash": 7, "Junk": 60, "Drafts": 8}, "", 0},
		"the Trash, with a folder gone":            {folders{"Trash": 7, "Lists": 2, "INBOX": 2}, folders{"Trash": 7}, "Lists", 9},
		"the Trash, with another that was emptied": {folders{"Trash": 7, "Lists": 6, "INBOX": 2}, folders{"Trash": 7, "Lists": 6}, "", 13},
		"most of a folder":                         {folders{"Lists": 70, "INBOX": 2}, folders{"Lists": 60}, "", 60},
		"most of junk":                             {folders{"Junk": 70, "INBOX": 9}, folders{"Junk": 60}, "", 0},
		"the Trash and much of INBOX":              {folders{"Trash": 70, "INBOX": 80}, folders{"Trash": 70, "INBOX": 60}, "", 130},
	} {
		for _, there := range []bool{false, true} { // here, or on the server by another client
			if there && c.gone != "" || spared(name, there) {
				continue
			}
			t.Run(fmt.Sprint(name, there), func(t *testing.T) {
				t.Parallel()
				s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
				s.box("Trash")
				n := 0
				for box, mails := range c.mails {
					for range mails {
						n++
						s.box(box).add(plainMail(n))
					}
				}
				h.sync(s)
				h.sync(s)
				removed := 0
				for box, mails := range c.removed {
					for u := range imap.UID(mails) {
						if there {
							s.box(box).expunge(u + 1)
						} else {
							h.remove(box, u+1)
						}
						removed++
					}
				}
				if c.gone != "" {
					h.do(os.RemoveAll(h.path(c.gone, "")))
				}
				rep := h.sync(s)
				if rep.Held != c.held || rep.Clean() != (c.held == 0) || c.held == 0 && rep.Removed+rep.Deleted != removed || c.held > 0 && rep.Removed+rep.Deleted != 0 {
					t.Errorf("%d removed: %+v", removed, rep)
				}
				total := 0
				for _, held := range rep.HeldIn {
					total += held.Messages
					if held.There != there {
						t.Errorf("%+v", held)
					}
				}
				if total != c.held {
					t.Errorf("%+v", rep.HeldIn)
				}
				if c.held == 0 {
					h.sync(s)
					h.quiet(s)
					h.notmuchNew()
					h.check(s)
				}
			})
		}
	}
}

// A folder that was emptied in daily life is in no doubt when mail comes into it again.
func TestAFolderThatWasEmptiedTakesMailAgain(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"moved", "deleted"} {
		s, h, in := few(t, "MOVE", "UIDPLUS", "CONDSTORE")
		s.box("Mine").add(plainMail(30))
		s.box("Mine").add(plainMail(31))
		h.sync(s)
		for uid := imap.UID(1); uid <= 2; uid++ {
			if how == "moved" {
				h.move("Mine", uid, "Archive", true)
			} else {
				h.remove("Mine", uid)
			}
		}
		h.sync(s)
		h.move("INBOX", in.uids()[0], "Mine", true)
		h.sync(s)
		h.put("Mine", plainMail(40), "S")
		if rep := h.sync(s); rep.Uploaded != 1 || !rep.Clean() {
			t.Errorf("%s: %+v", how, rep)
		}
		h.notmuchNew()
		h.check(s)
		h.sync(s)
		h.quiet(s)
	}
}

// A Maildir of another day, put in the place of today's, moves nothing back on the
// server, and brings nothing back; --restore makes it today's again.
func TestAMaildirOfAnotherDayMovesNothing(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	for i := range 30 {
		s.box("INBOX").add(plainMail(i))
	}
	s.box("Archive").add(plainMail(50))
	s.box("Trash").add(plainMail(51))
	h.sync(s)
	h.do(os.CopyFS(h.dir+"/backup", os.DirFS(h.dir+"/mail")))
	for u := range imap.UID(20) {
		h.move("INBOX", u+1, "Archive", u%2 == 0)
	}
	h.move("Archive", 1, "INBOX", false)
	if rep := h.sync(s); rep.Moved != 21 {
		t.Fatalf("%+v", rep)
	}
	h.sync(s)
	h.do(os.RemoveAll(h.dir + "/mail"))
	h.do(os.Rename(h.dir+"/backup", h.dir+"/mail"))
	before := s.writes
	for range 2 {
		if rep := h.sync(s); rep.Held != 21 || rep.Clean() || rep.Moved+rep.Deleted+rep.Uploaded != 0 {
			t.Errorf("%+v", rep)
		}
	}
	if s.writes != before {
		t.Errorf("%d writes", s.writes-before)
	}
	restore := func(o *Options) { o.Restore = true }
	h.sync(s, restore, func(o *Options) { o.DryRun = true })
	said := h.said("would: move the files of 20 messages back here")
	if rep := h.sync(s, restore); !rep.Clean() || said != 1 {
		t.Errorf("%+v, said %+v", rep, h.events)
	}
	h.notmuchNew()
	h.check(s)
	h.sync(s)
	h.quiet(s)
}

// Where nobody reads along, what waits for a person is told once, and again when a day
// is over, or when it is another matter.
func TestWhatWaitsForAPersonIsToldOnce(t *testing.T) {
	t.Parallel()
	s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
	for i := range 100 {
		s.box("INBOX").add(plainMail(i))
		s.box("Lists").add(plainMail(1000 + i))
	}
	s.box("Trash")
	h.sync(s)
	for u := range imap.UID(60) {
		h.remove("INBOX", u+1)
	}
	for u := range imap.UID(60) {
		s.box("Lists").expunge(u + 10)
	}
	now := time.Now()
	cron := func(o *Options) { o.Remind = 24 * time.Hour; o.Now = func() time.Time { return now } }
	for i, c := range []struct {
		after time.Duration
		do    func()
		told  int
	}{
		{0, nil, 2},
		{time.Hour, nil, 0},
		{22 * time.Hour, nil, 0},
		{2 * time.Hour, nil, 2},
		{time.Hour, func() { h.remove("INBOX", 61) }, 1},
		{time.Hour, nil, 0},
	} {
		now = now.Add(c.after)
		if c.do != nil {
			c.do()
		}
		rep := h.sync(s, cron)
		told := 0
		for _, f := range rep.Faults {
			if !f.Known {
				told++
			}
		}
		if len(rep.Faults) != 2 || told != c.told || rep.Clean() != (c.told == 0) || rep.Deleted+rep.Removed > 0 {
			t.Errorf("run %d: %+v", i, rep)
		}
	}
	if rep := h.sync(s); rep.Clean() || len(rep.Faults) != 2 || rep.Faults[0].Known || rep.Faults[1].Known {
		t.Errorf("at a terminal: %+v", rep)
	}
	// Once it is answered, the same again is news.
	if rep := h.sync(s, cron, func(o *Options) { o.YesDelete = true }); !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s)
}
