package pipeline

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Flags of a mail that was moved here as well are put to the hooks like others.
func TestHookIsAskedAboutFlagsOfMovedMail(t *testing.T) {
	t.Parallel()
	for name, caps := range wires() {
		for _, action := range []hooks.Action{hooks.Pass, hooks.Skip, hooks.Defer} {
			t.Run(fmt.Sprintf("%s %s", name, action), func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in, archive := s.box("INBOX"), s.box("Archive")
				in.add(plainMail(1))
				in.add(plainMail(2), `\Seen`)
				in.add(plainMail(3))
				in.add(plainMail(4))
				h.sync(s)
				for uid, letters := range map[int]string{1: "FS", 2: "", 3: ""} {
					h.flag("INBOX", imap.UID(uid), letters)
				}
				h.move("INBOX", 1, "Archive", false)
				h.move("INBOX", 2, "Archive", true)
				h.move("INBOX", 3, "Archive", false)
				h.notmuchNew()
				var got []string
				judge := with(hook(func(_ context.Context, e *hooks.Event) (hooks.Verdict, error) {
					got = append(got, fmt.Sprintf("%s %d %s %v %v %s", e.Mailbox, e.UID, e.ID, e.Set, e.Clear, e.Subject))
					if slices.Contains(e.Set, `\Flagged`) || slices.Contains(e.Clear, `\Seen`) {
						return hooks.Verdict{Action: action, Add: []string{"judged"}}, nil
					}
					return hooks.Verdict{}, nil
				}, hooks.PrePush))
				rep := h.sync(s, judge)
				slices.Sort(got)
				want := []string{`INBOX 1 m1@example.org [\Seen \Flagged] [] mail 1`, `INBOX 2 m2@example.org [] [\Seen] mail 2`}
				if !slices.Equal(got, want) {
					t.Errorf("asked %q, want %q", got, want)
				}
				for _, id := range []string{"m1@example.org", "m2@example.org"} {
					if tags := h.tags(id); !slices.Contains(tags, "judged") {
						t.Errorf("%s has %q", id, tags)
					}
				}
				moved := map[hooks.Action]int{hooks.Pass: 3, hooks.Skip: 3, hooks.Defer: 1}[action]
				pushed := map[hooks.Action]int{hooks.Pass: 2}[action]
				if rep.Moved != moved || rep.Pushed != pushed || !rep.Clean() || rep.Deleted+rep.Uploaded+rep.New != 0 {
					t.Errorf("%+v", rep)
				}
				// Whatever the hook said, nothing of it is lost: later, all of it
				// is as its user made it.
				letters := func() map[string]string {
					out := map[string]string{}
					for name, raw := range h.files("Archive") {
						out[mail.ParseEnvelope([]byte(raw)).Subject] = name[len(name)-2:]
					}
					return out
				}
				if l := letters(); l["mail 1"] != "FS" || l["mail 2"] != "2," {
					t.Errorf("the files are %v", l)
				}
				h.sync(s, judge)
				if l := letters(); l["mail 1"] != "FS" || l["mail 2"] != "2," {
					t.Errorf("the files are %v", l)
				}
				for range 2 {
					h.sync(s)
				}
				if !slices.Equal(in.subjects(), []string{"mail 4"}) || !slices.Equal(archive.subjects(), []string{"mail 1", "mail 2", "mail 3"}) {
					t.Errorf("INBOX has %q, Archive %q", in.subjects(), archive.subjects())
				}
				h.quiet(s)
				if action != hooks.Skip {
					h.check(s)
				}
			})
		}
	}
}

// A run that ends between two mailboxes, one of which mail was moved to, leaves
// the move for the next run: the folder it went to is looked at again.
func TestMoveIsNotForgottenByTheFolderItWentTo(t *testing.T) {
	t.Parallel()
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			s.box("INBOX").add(plainMail(1))
			s.box("INBOX").add(plainMail(3))
			s.box("Archive").add(plainMail(2))
			s.box("Trash")
			h.sync(s)
			h.flag("Archive", 1, "S")
			h.move("INBOX", 1, "Archive", false)
			// The connection dies for good behind the flags of Archive.
			cut := &mail.Fault{Kind: mail.KindCut}
			s.refuses = map[string]*mail.Fault{"UID MOVE": cut, "UID COPY": cut}
			dials := s.dials
			s.dialErr = func(n int) error {
				if n > dials+1 {
					return &mail.Fault{Kind: mail.KindDial}
				}
				return nil
			}
			if rep := h.sync(s); rep.Pushed != 1 || rep.Clean() {
				t.Errorf("%+v", rep)
			}
			s.dialErr, s.refuses = nil, nil
			for range 2 {
				h.sync(s)
			}
			if got := s.box("Archive").subjects(); !slices.Equal(got, []string{"mail 1", "mail 2"}) || !slices.Equal(s.box("INBOX").subjects(), []string{"mail 3"}) || s.box("Trash").subjects() != nil {
				t.Errorf("Archive has %q, INBOX %q, Trash %q", got, s.box("INBOX").subjects(), s.box("Trash").subjects())
			}
			h.check(s)
		})
	}
}

// Whoever empties the folder by moving its mail has done nothing odd, though a
// flag was taken off one of them on the way.
func TestEmptiedFolderIsNoReasonToDoubtFlagsOfMovedMail(t *testing.T) {
	t.Parallel()
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			s.box("INBOX").add(plainMail(1), `\Seen`)
			s.box("INBOX").add(plainMail(2), `\Seen`)
			s.box("Archive")
			h.sync(s)
			h.flag("INBOX", 1, "")
			h.move("INBOX", 1, "Archive", false)
			h.move("INBOX", 2, "Archive", true)
			h.notmuchNew()
			if rep := h.sync(s); rep.Moved != 2 || rep.Pushed != 1 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			h.quiet(s)
			h.check(s)
			if got := s.box("Archive").subjects(); !slices.Equal(got, []string{"mail 1", "mail 2"}) {
				t.Errorf("Archive has %q", got)
			}
		})
	}
}
