package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What the guard has held back waits for its owner's word, however little of it is left when
// others, or its owner, have dealt with some of it: it is not judged anew by that.
func TestWhatIsHeldWaitsForAWordHoweverLittleIsLeft(t *testing.T) {
	type side struct {
		how  string
		gone func(h *home, s *server, box string, n int) // a mail of it, which has 70 or more
	}
	here := side{"removed here", func(h *home, _ *server, box string, n int) { h.removeText(box, plainMail(n)) }}
	there := side{"gone there", func(_ *home, s *server, box string, n int) {
		for _, u := range s.box(box).uids() {
			if s.box(box).msgs[u].raw == plainMail(n) {
				s.box(box).expunge(u)
			}
		}
	}}
	tagged := side{"tagged here", func(h *home, _ *server, _ string, n int) { h.tag(id(n), []string{"deleted"}, nil) }}
	phone := func(_ *home, s *server) {
		for u := range imap.UID(10) {
			s.relocate("Lists", u+1, "Archive")
		}
	}
	for i, c := range []struct {
		side
		what string
		some func(h *home, s *server)
		as   string // Lists is called so afterwards
	}{
		{here, "a phone moved some", phone, ""},
		{tagged, "a phone moved some", phone, ""},
		{here, "a phone deleted some", func(_ *home, s *server) {
			for u := range imap.UID(10) {
				s.box("Lists").expunge(u + 1)
			}
		}, ""},
		{here, "a phone moved all but one", func(_ *home, s *server) {
			for u := range imap.UID(54) {
				s.relocate("Lists", u+1, "Archive")
			}
		}, ""},
		{here, "a phone moved some, and renamed the mailbox", func(h *home, s *server) {
			phone(h, s)
			s.rename("Lists", "Letters")
		}, "Letters"},
		{here, "a phone moved some, and all have other UIDs", func(h *home, s *server) {
			phone(h, s)
			b := s.box("Lists")
			b.validity += 99
			b.next += 200
			for _, u := range b.uids() {
				b.msgs[u+200] = b.expunge(u)
			}
		}, ""},
		{there, "some were moved here", func(h *home, _ *server) {
			for u := range imap.UID(10) {
				h.move("Lists", u+1, "Archive", u%2 == 0)
			}
		}, ""},
		{there, "some were removed here", func(h *home, _ *server) {
			for u := range imap.UID(10) {
				h.remove("Lists", u+1)
			}
		}, ""},
		{there, "some were moved here, and the mailbox is renamed", func(h *home, s *server) {
			for u := range imap.UID(10) {
				h.move("Lists", u+1, "Archive", true)
			}
			s.rename("Lists", "Letters")
		}, "Letters"},
	} {
		answer := []string{"yes", "restore", "yes to it alone"}[i%3]
		if c.how == there.how && answer == "restore" { // that brings back what is gone here
			answer = "yes"
		}
		t.Run(fmt.Sprintf("%s, %s: %s", c.how, c.what, answer), func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			mails := 70
			if c.as != "" {
				mails = 120 // most of it is there to know it by
			}
			for i := range mails {
				s.box("Lists").add(plainMail(i + 1))
			}
			s.box("INBOX").add(plainMail(500))
			s.box("Archive").add(plainMail(501))
			s.box("Trash")
			h.sync(s, afew)
			h.sync(s, afew)
			for i := range 55 {
				c.gone(h, s, "Lists", i+1)
			}
			if rep := h.sync(s, afew); rep.Held != 55 || rep.Clean() {
				t.Fatalf("%+v", rep)
			}
			c.some(h, s)
			box, left := "Lists", 45
			if c.as != "" {
				box = c.as
			}
			if c.what == "a phone moved all but one" {
				left = 1
			}
			some := func(what string, change ...func(*Options)) { // what is known of some of it is gone by now
				t.Helper()
				rep := h.sync(s, append(change, afew)...)
				if rep.Held < left || rep.Deleted > 0 || rep.Removed > 55-left {
					t.Fatalf("%s: %+v: %v", what, rep, h.events)
				}
			}
			none := func(what string, change ...func(*Options)) {
				t.Helper()
				rep := h.sync(s, append(change, afew)...)
				if rep.Held != left || rep.Deleted > 0 || len(rep.HeldIn) != 1 || rep.HeldIn[0].Messages != left {
					t.Fatalf("%s: %+v: %v", what, rep, h.events)
				}
			}
			some("a dry run", func(o *Options) { o.DryRun = true })
			some("the next run")
			none("another one")
			none("a dry run again", func(o *Options) { o.DryRun = true })
			none("alone", func(o *Options) { o.Only = []string{box} })
			if c.how != there.how { // one more is none that may go
				h.removeText(box, plainMail(60))
				left++
			}
			none("the last one")
			n := len(h.files(box))
			rep := h.sync(s, afew, func(o *Options) {
				switch o.Restore = answer == "restore"; answer {
				case "yes":
					o.YesDelete = true
				case "yes to it alone":
					o.YesDeleteIn = []string{box}
				}
			})
			switch {
			case !rep.Clean() || rep.Held > 0:
				t.Errorf("%+v", rep)
			case answer == "restore" && len(h.files(box)) != len(s.box(box).msgs):
				t.Errorf("%d files of %d: %+v", len(h.files(box)), len(s.box(box).msgs), rep)
			case answer != "restore" && c.how == there.how && (rep.Removed < left || len(h.files(box)) != n-left):
				t.Errorf("%d files of %d: %+v", len(h.files(box)), n, rep)
			case answer != "restore" && c.how != there.how && rep.Deleted != left:
				t.Errorf("%+v", rep)
			}
			h.sync(s, afew)
			h.quiet(s, afew)
			h.notmuchNew()
			h.check(s)
			// It was answered: a few are daily life again.
			for i := range 3 {
				c.gone(h, s, box, 65+i)
			}
			if rep := h.sync(s, afew); !rep.Clean() || rep.Deleted+rep.Removed != 3 {
				t.Errorf("%+v", rep)
			}
		})
	}
}

// It waits through runs that could not judge, and an answer is one for its mailbox alone; only where
// nothing is missing any more it is over by itself.
func TestWhatIsHeldIsHeldUntilNothingOfItLacks(t *testing.T) {
	away := func(alter func(m mail.Mailbox) (mail.Mailbox, bool)) func(*server, *Options) {
		return func(s *server, o *Options) {
			o.Dial = func(ctx context.Context) (Session, error) {
				d, err := s.dial(ctx)
				if err != nil {
					return Session{}, err
				}
				return sessionOf(&partial{d.Opener.(*session), alter}, d.Greeting), nil
			}
		}
	}
	for name, meanwhile := range map[string]func(*server, *Options){
		"nothing":          nil,
		"all come back":    nil,
		"deletions = keep": func(_ *server, o *Options) { o.Deletions = DeletionsKeep },
		"read_only":        func(_ *server, o *Options) { o.ReadOnly = true },
		"left out of LIST": away(func(m mail.Mailbox) (mail.Mailbox, bool) { return m, m.Name != "Lists" }),
		"STATUS refused": away(func(m mail.Mailbox) (mail.Mailbox, bool) {
			if m.Name == "Lists" {
				m.Status, m.Err = nil, &mail.Fault{Kind: mail.KindNo, Op: "STATUS", Text: "in use"}
			}
			return m, true
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("MOVE", "UIDPLUS", "CONDSTORE"), newHome(t)
			for i := range 4 {
				s.box("Lists").add(plainMail(i))
				s.box("Mine").add(plainMail(10 + i))
			}
			s.box("INBOX").add(plainMail(20))
			s.box("Archive").add(plainMail(21))
			s.box("Trash")
			h.sync(s)
			h.sync(s)
			aside := filepath.Join(h.dir, "aside")
			h.do(os.Mkdir(aside, 0o700))
			for _, box := range []string{"Lists", "Mine"} { // each less than a handful, and both more
				for file := range h.files(box) {
					h.do(os.Rename(h.path(box, file), filepath.Join(aside, box+filepath.Base(file))))
				}
			}
			if rep := h.sync(s); rep.Held != 8 {
				t.Fatalf("%+v", rep)
			}
			for u := range imap.UID(3) {
				s.relocate("Lists", u+1, "Archive")
			}
			if meanwhile != nil {
				if rep := h.sync(s, func(o *Options) { meanwhile(s, o) }); rep.Deleted > 0 {
					t.Errorf("%+v", rep)
				}
			}
			h.sync(s)
			if rep := h.sync(s); rep.Held != 5 || rep.Deleted > 0 || len(rep.HeldIn) != 2 {
				t.Fatalf("%+v", rep)
			}
			mine := 4
			if name == "all come back" {
				mine = 0
				files, err := filepath.Glob(filepath.Join(aside, "*"))
				h.do(err)
				for _, file := range files {
					if box := filepath.Base(file)[:5]; box == "Lists" {
						h.do(os.Remove(file))
					} else {
						h.do(os.Rename(file, h.path("Mine", "cur/"+filepath.Base(file)[4:])))
					}
				}
				if rep := h.sync(s); rep.Held != 1 || rep.Deleted > 0 {
					t.Errorf("%+v", rep)
				}
			}
			if rep := h.sync(s, func(o *Options) { o.YesDeleteIn = []string{"Lists"} }); rep.Deleted != 1 || rep.Held != mine || rep.Clean() != (mine == 0) {
				t.Errorf("%+v", rep)
			}
			h.sync(s)
			if mine > 0 {
				if rep := h.sync(s); rep.Held != mine || rep.Deleted > 0 {
					t.Errorf("%+v", rep)
				}
				if rep := h.sync(s, func(o *Options) { o.Restore, o.Only = true, []string{"Mine"} }); !rep.Clean() {
					t.Errorf("%+v", rep)
				}
			}
			h.removeText("Mine", plainMail(10))
			if rep := h.sync(s); rep.Deleted != 1 || rep.Held > 0 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			h.sync(s)
			h.quiet(s)
			h.notmuchNew()
			h.check(s)
		})
	}
}
