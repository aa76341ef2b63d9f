package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// many is an account with mail that is the same on both sides, of which the user
// changed the first twenty in one way.
func many(t *testing.T, caps []string, change func(h *home, uid imap.UID)) (*server, *home) {
	t.Helper()
	s, h := newServer(caps...), newHome(t)
	for n := 1; n <= 60; n++ {
		s.box("INBOX").add(plainMail(n))
	}
	s.box("Work").add(plainMail(100))
	s.box("Trash").add(plainMail(101))
	h.sync(s)
	for uid := imap.UID(1); uid <= 20; uid++ {
		change(h, uid)
	}
	return s, h
}

// manyChanges are those that take one command, by what it is called.
func manyChanges() map[string]struct {
	change  func(h *home, uid imap.UID)
	options func(*Options)
	did     func(*report.Report) int
	caps    []string
} {
	flag := func(h *home, uid imap.UID) { h.flag("INBOX", uid, "F") }
	move := func(h *home, uid imap.UID) { h.move("INBOX", uid, "Work", true) }
	remove := func(h *home, uid imap.UID) { h.remove("INBOX", uid) }
	plain := func(*Options) {}
	expunge := func(o *Options) { o.Deletions = DeletionsExpunge }
	pushed := func(r *report.Report) int { return r.Pushed }
	moved := func(r *report.Report) int { return r.Moved }
	deleted := func(r *report.Report) int { return r.Deleted }
	all, bare := []string{"MOVE", "UIDPLUS", "CONDSTORE"}, []string{"UIDPLUS", "CONDSTORE"}
	return map[string]struct {
		change  func(h *home, uid imap.UID)
		options func(*Options)
		did     func(*report.Report) int
		caps    []string
	}{
		"UID STORE":          {flag, plain, pushed, all},
		"UID MOVE":           {move, plain, moved, all},
		"UID COPY":           {move, plain, moved, bare},
		"UID MOVE to Trash":  {remove, plain, deleted, all},
		"UID COPY to Trash":  {remove, plain, deleted, bare},
		"UID EXPUNGE":        {remove, expunge, deleted, all},
		"UID STORE, expunge": {remove, expunge, deleted, all},
	}
}

func verbOf(name string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(name, ",", ""))[:2], " ")
}

// A message that the server refuses to change keeps no other from being changed, and
// is told alone; when the server thinks better of it, it is changed, too.
func TestOneThatIsRefusedKeepsNoOtherFromIt(t *testing.T) {
	t.Parallel()
	for name, c := range manyChanges() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			s, h := many(t, c.caps, c.change)
			s.unwilling = map[string]imap.UID{verbOf(name): 7}
			rep := h.sync(s, c.options)
			if c.did(rep) != 19 || len(rep.Faults) != 1 || !strings.Contains(rep.Faults[0].Text, "UID 7: ") || !strings.Contains(rep.Faults[0].Text, "not this one") {
				t.Errorf("%+v", rep)
			}
			if rep := h.sync(s, c.options); c.did(rep) != 0 || len(rep.Faults) != 1 || rep.Removed+rep.New > 0 {
				t.Errorf("again: %+v", rep)
			}
			s.unwilling, h.now = nil, h.now.Add(time.Hour)
			if rep := h.sync(s, c.options); c.did(rep) != 1 || !rep.Clean() {
				t.Errorf("then: %+v", rep)
			}
			h.sync(s, c.options)
			h.quiet(s, c.options)
			h.notmuchNew()
			h.check(s)
		})
	}
}

// A server that refuses all is not asked for each for ever, and what it refuses is
// done when it does no more.
func TestAllThatIsRefusedIsNotAskedForOneByOne(t *testing.T) {
	t.Parallel()
	for name, c := range manyChanges() {
		for _, code := range []string{"", "NOPERM", "OVERQUOTA"} {
			if testing.Short() && name != "UID MOVE" {
				continue
			}
			t.Run(strings.ReplaceAll(name, " ", "_")+code, func(t *testing.T) {
				t.Parallel()
				s, h := many(t, c.caps, c.change)
				verb := verbOf(name)
				s.refuses = map[string]*mail.Fault{verb: {Kind: mail.KindNo, Code: code, Text: "none of these"}}
				rep := h.sync(s, c.options)
				asked := 0
				for _, command := range s.asked {
					if strings.HasPrefix(command, verb) {
						asked++
					}
				}
				if most := map[bool]int{true: push.MostRefusals, false: 1}[code == ""]; c.did(rep) != 0 || len(rep.Faults) != 1 || asked > most {
					t.Errorf("asked %d times: %+v", asked, rep)
				}
				s.refuses = nil
				if rep := h.sync(s, c.options); c.did(rep) != 20 || !rep.Clean() {
					t.Errorf("then: %+v", rep)
				}
				h.sync(s, c.options)
				h.quiet(s, c.options)
				h.notmuchNew()
				h.check(s)
			})
		}
	}
}
