package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// unkept is a change of flags that a server says it makes, and does not.
type unkept struct {
	before []string // flags of the mail
	change func(h *home)
	want   []string // what its owner wants them to be
	in     string   // where the mail is then
}

func everyUnkept() map[string]unkept {
	const in, work = "INBOX", "Work"
	tag := func(add, remove []string) func(h *home) { return func(h *home) { h.tag(id(0), add, remove) } }
	return map[string]unkept{
		"a flag is set":          {nil, func(h *home) { h.flag(in, 1, "F") }, []string{`\Flagged`}, in},
		"a flag is taken off":    {[]string{`\Flagged`, `\Seen`}, func(h *home) { h.flag(in, 1, "S") }, []string{`\Seen`}, in},
		"one for another":        {[]string{`\Flagged`}, func(h *home) { h.flag(in, 1, "P") }, []string{`$Forwarded`}, in},
		"a keyword is set":       {nil, tag([]string{"todo"}, nil), []string{"todo"}, in},
		"a keyword is taken off": {[]string{"todo", `\Seen`}, tag(nil, []string{"todo"}), []string{`\Seen`}, in},
		"both": {[]string{"todo"}, func(h *home) {
			h.tag(id(0), nil, []string{"todo"})
			h.flag(in, 1, "FS")
		}, []string{`\Flagged`, `\Seen`}, in},
		"set with a move": {nil, func(h *home) {
			h.flag(in, 1, "F")
			h.move(in, 1, work, true)
		}, []string{`\Flagged`}, work},
		"taken off with a move": {[]string{`\Flagged`, `\Seen`}, func(h *home) {
			h.flag(in, 1, "S")
			h.move(in, 1, work, true)
		}, []string{`\Seen`}, work},
	}
}

// What a server says it has changed of flags, and has not, stays here as its owner has it. It is
// told once and listed, told the server ever more seldom, and done when it does it at last.
func TestFlagsThatTheServerSaysItHasChangedAndHasNot(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for what, c := range everyUnkept() {
			if spared(wire + "/" + what) {
				continue
			}
			t.Run(wire+"/"+what, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				s.box("INBOX").add(plainMail(0), c.before...)
				s.box("INBOX").add(plainMail(1))
				s.box("Work").add(plainMail(2), `\Seen`)
				use := func(o *Options) { o.Keywords, o.Remind = []string{"todo"}, 24*time.Hour }
				h.sync(s, use)
				h.sync(s, use)
				c.change(h)
				h.flag("INBOX", 2, "R") // what it does make is seen
				s.forgets = func(_ imap.UID, flag string) bool { return flag != `\Deleted` && flag != `\Answered` }
				said, sent, pushed := 0, 0, 0
				const runs = 48 // of a day
				for n := range runs {
					rep := h.sync(s, use)
					h.withLedger(s, func(o Options) {
						// What waits for a person is what the sync has told of.
						if st, err := StatusOf(t.Context(), o); err != nil || st.Waits() != (len(rep.Faults) > 0) {
							t.Errorf("run %d: %v; %+v, after a sync with the faults %+v", n, err, st, rep.Faults)
						}
					})
					for _, f := range rep.Faults {
						if !f.Known {
							said++
						}
						if !strings.Contains(f.Text, "said that it has changed them, and has not") {
							t.Errorf("said: %s", f.Text)
						}
					}
					pushed += rep.Pushed
					if slices.ContainsFunc(s.asked, func(a string) bool { return strings.HasPrefix(a, "UID STORE") && !strings.Contains(a, `\Deleted`) }) {
						sent++
					}
					if n == runs/2 { // folders that are read again, and tags, are no reason to send it again
						h.put("INBOX", plainMail(60), "S")
						h.tag(id(1), []string{"x"}, nil)
					}
					h.now = h.now.Add(30 * time.Minute)
				}
				if said != 1 || sent < 2 || sent > 8 {
					t.Errorf("said %d times, sent in %d of %d runs", said, sent, runs)
				}
				if failed := h.failures(); len(failed) != 1 || failed[0].State != FailedRefused || failed[0].Mailbox != c.in || !failed[0].Tried() || failed[0].Untold {
					t.Errorf("listed: %+v", failed)
				}
				s.forgets = nil
				h.now = h.now.Add(8 * 24 * time.Hour)
				if rep := h.sync(s, use); rep.Pushed != 1 || !rep.Clean() {
					t.Errorf("when it does it: %+v", rep)
				}
				if failed := h.failures(); len(failed) > 0 {
					t.Errorf("left: %+v", failed)
				}
				var got []string
				for _, m := range s.box(c.in).msgs {
					if strings.Contains(m.raw, "<"+id(0)+">") {
						got = m.flags
					}
				}
				if !plan.SameFlags(got, c.want) {
					t.Errorf("flags %v, want %v", got, c.want)
				}
				h.sync(s, use)
				h.quiet(s, use)
				h.notmuchNew()
				h.check(s)
			})
		}
	}
}

// Of several messages each is by itself; a change that its owner takes back is wanted no more, and
// another one is asked for at once.
func TestOneOfManyWhoseFlagsTheServerDoesNotChange(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		for _, then := range []string{"back", "another", "deleted there", "deleted here"} {
			if spared(wire + "/" + then) {
				continue
			}
			t.Run(wire+"/"+then, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				for i := range 6 {
					in.add(plainMail(i))
				}
				s.box("Trash")
				h.sync(s)
				for u := range imap.UID(4) {
					h.flag("INBOX", u+1, "F")
				}
				s.forgets = func(uid imap.UID, flag string) bool { return uid == 2 && flag == `\Flagged` }
				rep := h.sync(s)
				h.sync(s)
				if rep.Pushed != 3 || len(h.failures()) != 1 {
					t.Errorf("%+v, listed %+v", rep, h.failures())
				}
				var want string
				switch then {
				case "back":
					h.flag("INBOX", 2, "")
					want = "[F  F F  ]"
				case "another":
					h.flag("INBOX", 2, "S")
					want = "[F S F F  ]"
				case "deleted there":
					in.expunge(2)
					want = "[F F F  ]"
				case "deleted here":
					h.remove("INBOX", 2)
					want = "[F F F  ]"
				}
				h.sync(s)
				h.sync(s)
				var letters []string
				for _, u := range in.uids() {
					letters = append(letters, plan.Letters(in.msgs[u].flags))
				}
				if fmt.Sprint(letters) != want || len(h.failures()) > 0 {
					t.Errorf("flags %v, want %s; listed %+v", letters, want, h.failures())
				}
				h.sync(s)
				h.quiet(s)
				h.notmuchNew()
				h.check(s)
			})
		}
	}
}

// A server whose mod-sequences do not move with flags has them all the same.
func TestFlagsWhoseModSequencesDoNotMove(t *testing.T) {
	t.Parallel()
	for wire, caps := range wires() {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			in.add(plainMail(0))
			in.add(plainMail(1))
			h.sync(s)
			s.stuck = true
			h.flag("INBOX", 1, "FS")
			if rep := h.sync(s); rep.Pushed != 1 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			if failed := h.failures(); len(failed) > 0 {
				t.Errorf("listed: %+v", failed)
			}
			h.put("INBOX", plainMail(2), "S") // the folder is read again
			if rep := h.sync(s); rep.Pushed != 0 || !rep.Clean() {
				t.Errorf("again: %+v", rep)
			}
			h.sync(s)
			h.quiet(s)
			h.check(s)
		})
	}
}
