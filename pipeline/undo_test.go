package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// undo undoes what the last run of the log did, and syncs.
func (h *home) undo(s *server, options func(*Options)) (p UndoPlan) {
	h.t.Helper()
	h.now = h.now.Add(time.Minute) // a run has a name of its own
	h.edit(func(l *ledger.Ledger) error {
		o := h.options(s, l)
		options(&o)
		p = h.planUndo(o)
		left, err := Undo(h.t.Context(), o, p)
		if h.do(err); len(left) > 0 {
			h.t.Errorf("left: %q", left)
		}
		h.events = nil
		for range 2 { // the second has the keywords of mail that is new on the server
			rep, err := Sync(h.t.Context(), o)
			if h.do(err); !rep.Clean() {
				h.t.Errorf("%+v", rep)
			}
		}
		return nil
	})
	return p
}

// planUndo looks what is to be done to undo what the last run of the log has changed, or what it did of
// these kinds.
func (h *home) planUndo(o Options, kinds ...mail.ActionKind) UndoPlan {
	h.t.Helper()
	var log plan.Log
	h.do(o.Ledger.Log(h.t.Context(), time.Time{}, func(line mail.Logged) error {
		log = append(log, line)
		return nil
	}))
	is := log.Last()
	if len(kinds) > 0 {
		last := log[len(log)-1].Run
		is = func(l *mail.Logged) bool { return l.Run == last && slices.Contains(kinds, l.Kind) }
	}
	lines := log.Whole(is)
	p, err := PlanUndo(h.t.Context(), o, lines)
	h.do(err)
	return p
}

// state is what both sides have: the server's mail with its flags, and notmuch's with its tags.
func (h *home) state(s *server, without ...string) (out []string) {
	h.t.Helper()
	for name, b := range s.boxes {
		for _, u := range b.uids() {
			m := b.msgs[u]
			subject := mail.ParseHeader([]byte(m.raw), "Subject").Get("Subject")
			out = append(out, fmt.Sprint(name, " ", subject, " ", slices.Sorted(slices.Values(m.flags))))
		}
	}
	db, err := h.index.load()
	h.do(err)
	for id, m := range db {
		if len(m.Files) > 0 {
			tags := slices.DeleteFunc(slices.Clone(m.Tags), func(t string) bool { return slices.Contains(without, t) })
			out = append(out, fmt.Sprint(id, " ", slices.Sorted(slices.Values(tags))))
		}
	}
	slices.Sort(out)
	return out
}

// What a sync did is undone, on both sides, whichever of them it came from; and that is undone.
func TestWhatWasDoneIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(h *home, s *server)
		free string // a tag that may be another one when it was undone
	}{
		"a flag here":         {do: func(h *home, _ *server) { h.flag("INBOX", 1, "FS") }},
		"a flag there":        {do: func(_ *home, s *server) { s.box("INBOX").flag(1, `\Flagged`, `\Seen`) }},
		"flags off there":     {do: func(_ *home, s *server) { s.box("INBOX").flag(2) }},
		"a keyword here":      {do: func(h *home, _ *server) { h.tag(id(1), []string{"todo"}, nil) }},
		"a keyword there":     {do: func(_ *home, s *server) { s.box("INBOX").flag(1, "todo") }},
		"a move here":         {do: func(h *home, _ *server) { h.move("INBOX", 2, "Archive", false) }},
		"a move here in mutt": {do: func(h *home, _ *server) { h.move("INBOX", 2, "Archive", true) }},
		"a move there":        {do: func(_ *home, s *server) { s.relocate("INBOX", 2, "Archive") }},
		"a flag and a move there": {do: func(_ *home, s *server) {
			s.box("INBOX").flag(1, `\Seen`, "todo")
			s.relocate("INBOX", 1, "Archive")
		}},
		"flags off and a move there": {do: func(_ *home, s *server) {
			s.box("INBOX").flag(2)
			s.relocate("INBOX", 2, "Archive")
		}},
		"a move by a tag":        {do: func(h *home, _ *server) { h.tag(id(1), []string{"filed"}, nil) }, free: "filed"},
		"a deletion here":        {do: func(h *home, _ *server) { h.remove("INBOX", 2) }},
		"a deletion by T":        {do: func(h *home, _ *server) { h.flag("INBOX", 2, "ST") }},
		"a deletion by a tag":    {do: func(h *home, _ *server) { h.tag(id(2), []string{"gone"}, nil) }, free: "gone"},
		"a deletion there":       {do: func(_ *home, s *server) { s.box("INBOX").expunge(2) }},
		"a flag, and a move":     {do: func(h *home, _ *server) { h.flag("INBOX", 1, "F"); h.move("INBOX", 1, "Archive", true) }},
		"flags here and there":   {do: func(h *home, s *server) { h.flag("INBOX", 1, "F"); s.box("INBOX").flag(3, `\Answered`) }},
		"a move and a deletion":  {do: func(h *home, s *server) { h.move("INBOX", 1, "Archive", false); s.box("INBOX").expunge(2) }},
		"two moves of two mails": {do: func(h *home, s *server) { h.move("INBOX", 1, "Archive", false); s.relocate("INBOX", 2, "Work") }},
	} {
		for wire, caps := range wires() {
			if spared(name, wire) {
				continue
			}
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				options := func(o *Options) {
					o.Keywords, o.DeletedTag = []string{"todo"}, "gone"
					o.Moves = []Move{{From: "INBOX", With: "filed", To: "Archive"}}
				}
				s, h := newServer(caps...), newHome(t)
				s.box("INBOX").add(plainMail(1))
				s.box("INBOX").add(plainMail(2), `\Seen`, `\Flagged`, "todo")
				s.box("INBOX").add(plainMail(3))
				for i, box := range []string{"Archive", "Work", "Trash"} {
					s.box(box).add(plainMail(90 + i))
				}
				h.sync(s, options)
				h.tag(id(2), []string{"mine"}, []string{"inbox"})
				h.sync(s, options)
				before := h.state(s, c.free)
				h.now = h.now.Add(time.Minute)
				c.do(h, s)
				h.sync(s, options)
				after := h.state(s, c.free)
				if slices.Equal(before, after) {
					t.Fatal("nothing was done")
				}
				p := h.undo(s, options)
				if got := h.state(s, c.free); !slices.Equal(got, before) || len(p.Stays) > 0 {
					t.Errorf("undone, not undone %+v, and there is\n%s\nwant\n%s", p.Stays, strings.Join(got, "\n"), strings.Join(before, "\n"))
				}
				h.check(s)
				h.quiet(s, options)

				p = h.undo(s, options)
				if strings.Contains(name, "deletion there") || strings.Contains(name, "and a deletion") {
					// What was brought back stays.
					if len(p.Stays) != 1 || !slices.Equal(s.holding(id(2)), []string{"INBOX"}) {
						t.Errorf("undone again: %+v, and it is in %q", p, s.holding(id(2)))
					}
				} else if got := h.state(s, c.free); !slices.Equal(got, after) || len(p.Stays) > 0 {
					t.Errorf("undone again, not undone %+v, and there is\n%s\nwant\n%s", p.Stays, strings.Join(got, "\n"), strings.Join(after, "\n"))
				}
				h.check(s)
				h.quiet(s, options)
			})
		}
	}
}

// A mail that comes from the attic, and goes there again, has its keywords whatever the server has of them.
func TestKeywordsOfMailThatIsUndoneAgainAndAgain(t *testing.T) {
	t.Parallel()
	s, h, _ := few(t, wires()["all"]...)
	s.box("Trash")
	h.sync(s, keepsTodo)
	h.tag(id(1), []string{"todo"}, nil)
	h.sync(s, keepsTodo)
	s.box("INBOX").expunge(1)
	h.now = h.now.Add(time.Minute)
	h.sync(s, keepsTodo)
	for i := range 4 {
		h.now = h.now.Add(time.Minute)
		h.edit(func(l *ledger.Ledger) error {
			o := h.options(s, l)
			keepsTodo(&o)
			_, err := Undo(t.Context(), o, h.planUndo(o))
			h.do(err)
			_, err = Sync(t.Context(), o)
			return err
		})
		if tags := h.tags(id(1)); !slices.Contains(tags, "todo") {
			t.Errorf("undone %d times it has %q", i+1, tags)
		}
	}
	h.sync(s, keepsTodo)
	h.check(s)
}

// What was done in a mailbox that has another name since is undone all the same.
func TestUndoneInARenamedMailbox(t *testing.T) {
	for name, do := range map[string]func(h *home, s *server){
		"a flag":           func(h *home, _ *server) { h.flag("Old", 1, "FS") },
		"a move out of it": func(h *home, _ *server) { h.move("Old", 1, "Keep", false) },
		"a move into it":   func(h *home, _ *server) { h.move("INBOX", 1, "Old", true) },
		"a move there":     func(_ *home, s *server) { s.relocate("Old", 1, "Keep") },
		"a deletion":       func(h *home, _ *server) { h.remove("Old", 1) },
		"a removal":        func(_ *home, s *server) { s.box("Old").expunge(1) },
		"one below it":     func(_ *home, s *server) { s.box("Old/Sub").expunge(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(wires()["all"]...), newHome(t)
			s.box("INBOX").add(plainMail(20))
			s.box("Keep").validity = 17
			s.box("Keep").add(plainMail(21))
			s.box("Keep").add(plainMail(22))
			s.box("Trash").add(plainMail(23))
			s.box("Old").add(plainMail(1))
			s.box("Old").add(plainMail(2))
			s.box("Old/Sub").validity = 18
			s.box("Old/Sub").add(plainMail(11))
			s.box("Old/Sub").add(plainMail(12))
			h.sync(s)
			before := h.state(s)
			h.now = h.now.Add(time.Minute)
			do(h, s)
			h.sync(s)
			s.rename("Old", "New")
			h.sync(s)
			p := h.undo(s, func(*Options) {})
			got := h.state(s)
			for i := range got {
				got[i] = strings.Replace(got[i], "New", "Old", 1)
			}
			if slices.Sort(got); !slices.Equal(got, before) || len(p.Stays) > 0 {
				t.Errorf("not undone %+v, and there is\n%s\nwant\n%s", p.Stays, strings.Join(got, "\n"), strings.Join(before, "\n"))
			}
			h.check(s)
		})
	}
}

// What is not as the log has left it is not touched, and that is said.
func TestWhatIsNotUndone(t *testing.T) {
	for name, c := range map[string]struct {
		do, then func(h *home, s *server)
		why      string
	}{
		"a deletion for good":   {func(h *home, _ *server) { h.remove("Trash", 1) }, nil, "the server has deleted it for good"},
		"new mail":              {func(_ *home, s *server) { s.box("INBOX").add(plainMail(5)) }, nil, "what came stays"},
		"an upload":             {func(h *home, _ *server) { h.put("INBOX", plainMail(5), "S") }, nil, "what was sent stays; delete it, if it is to go"},
		"a copy":                {func(_ *home, s *server) { s.box("Archive").add(plainMail(1)) }, nil, ""},
		"moved on here":         {func(h *home, _ *server) { h.move("INBOX", 1, "Archive", false) }, func(h *home, _ *server) { h.moveFile("Archive", h.mailFile("Archive", plainMail(1)), "Work", false) }, "its file was moved or deleted since the last sync; sync first"},
		"a flag, and no file":   {func(h *home, _ *server) { h.flag("INBOX", 1, "F") }, func(h *home, _ *server) { h.remove("INBOX", 1) }, "its file was moved or deleted since the last sync; sync first"},
		"elsewhere by now":      {func(_ *home, s *server) { s.box("INBOX").expunge(1) }, func(h *home, s *server) { s.box("Archive").add(plainMail(1)); h.sync(s) }, "its mail is in Archive by now; move it, if it is to be in INBOX"},
		"not in the attic":      {func(_ *home, s *server) { s.box("INBOX").expunge(1) }, func(h *home, s *server) { h.now = h.now.AddDate(0, 0, 40); h.sync(s) }, "its file is not in the attic any more"},
		"the mark for deletion": {func(_ *home, s *server) { s.box("INBOX").flag(1, `\Deleted`) }, nil, `\Deleted does not go from here to the server`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h, _ := few(t, wires()["all"]...)
			h.sync(s)
			h.now = h.now.Add(time.Minute)
			c.do(h, s)
			h.sync(s)
			if c.then != nil {
				c.then(h, s)
			}
			before := h.state(s)
			var p UndoPlan
			h.edit(func(l *ledger.Ledger) error { p = h.planUndo(h.options(s, l), mail.ActionKinds()...); return nil })
			if len(p.Actions) > 0 || c.why != "" && (len(p.Stays) == 0 || !slices.ContainsFunc(p.Stays, func(n plan.NotUndone) bool { return n.Reason == c.why })) {
				t.Errorf("%+v, %+v", p.Actions, p.Stays)
			}
			if got := h.state(s); !slices.Equal(got, before) {
				t.Errorf("%q, want %q", got, before)
			}
		})
	}
}

// killedUndo undoes what the last run has changed, and is killed behind the effect of this number. It
// tells whether there was one.
func (h *home) killedUndo(s *server, at int) (killed bool) {
	h.t.Helper()
	type kill struct{}
	h.edit(func(l *ledger.Ledger) error {
		o := h.options(s, l)
		keepsTodo(&o)
		p := h.planUndo(o)
		n := 0
		o.Step = func(string) {
			if n++; n == at {
				panic(kill{})
			}
		}
		defer func() {
			if r := recover(); r != nil {
				killed = r == any(kill{})
			}
		}()
		_, err := Undo(h.t.Context(), o, p)
		return err
	})
	return killed
}

// Wherever an undo is killed, the next run does the rest of it, and the log says what was done: mail
// comes with its tags, and once, also where `notmuch new` came in between.
func TestAStopBehindEachEffectOfAnUndo(t *testing.T) {
	for name, between := range map[string]func(h *home){
		"a sync":               func(*home) {},
		"notmuch, then a sync": func(h *home) { h.notmuchNew() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := 1
			for killed := true; killed && !t.Failed(); at++ {
				s, h := newServer(wires()["all"]...), newHome(t)
				for i := range 6 {
					s.box("INBOX").add(plainMail(i + 1))
				}
				s.box("Archive").add(plainMail(50))
				s.box("Trash").add(plainMail(60))
				h.sync(s, keepsTodo)
				for i := 1; i <= 4; i++ {
					h.tag(id(i), []string{"mine", "todo"}, []string{"inbox"})
				}
				h.sync(s, keepsTodo)
				before := h.state(s)
				h.now = h.now.Add(time.Minute)
				s.box("INBOX").expunge(1)
				s.box("INBOX").expunge(2)
				h.remove("INBOX", 3)
				h.move("INBOX", 4, "Archive", true)
				h.flag("INBOX", 5, "F")
				h.sync(s, keepsTodo)
				h.now = h.now.Add(time.Minute)
				killed = h.killedUndo(s, at)
				between(h)
				h.sync(s, keepsTodo)
				h.sync(s, keepsTodo) // the keywords of mail that is new on the server
				if got := h.state(s); !slices.Equal(got, before) {
					t.Errorf("killed behind %d there is\n%s\nwant\n%s", at, strings.Join(got, "\n"), strings.Join(before, "\n"))
				}
				h.check(s)
				h.atRest(s)
				undone := 0
				h.edit(func(l *ledger.Ledger) error {
					return l.Log(t.Context(), time.Time{}, func(line mail.Logged) error {
						if line.Outcome == mail.IsBegun {
							t.Errorf("killed behind %d the log has %+v", at, line)
						}
						if line.Kind == mail.ActUndo && line.Outcome == mail.IsDone {
							undone++
						}
						return nil
					})
				})
				if undone != 5 {
					t.Errorf("killed behind %d the log has %d mails of which something was undone", at, undone)
				}
			}
			if at < 8 { // the note, tags, four files, places and the end
				t.Errorf("it was killed behind %d effects", at)
			}
		})
	}
}

// What this machine could not undo, a sync that cannot do it either leaves as an undo that is under way:
// "last" goes on with it, and turns nothing else back.
func TestAnUndoThatASyncCannotEndIsUnderWay(t *testing.T) {
	t.Parallel()
	s, h, in := few(t, wires()["all"]...)
	in.flag(1, `\Flagged`)
	h.sync(s)
	h.edit(func(l *ledger.Ledger) error {
		o := h.options(s, l)
		sync := func(clean bool) {
			rep, err := Sync(t.Context(), o)
			if h.do(err); rep.Clean() != clean {
				t.Errorf("%+v", rep)
			}
			some, undo, err := Interrupted(t.Context(), l)
			if h.do(err); some == clean || undo == clean {
				t.Errorf("something is left: %v, an undo: %v", some, undo)
			}
		}
		h.index.refuses = errors.New("read-only file system")
		if _, err := Undo(t.Context(), o, h.planUndo(o)); err == nil {
			t.Error("the undo met no fault")
		}
		sync(false)
		h.index.refuses = nil
		sync(true)
		return nil
	})
	if len(in.msgs[1].flags) > 0 {
		t.Errorf("the server has the flags %q", in.msgs[1].flags)
	}
	h.check(s)
	h.quiet(s)
}
