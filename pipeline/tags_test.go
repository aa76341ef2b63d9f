package pipeline

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// tag changes a message's tags, as a notmuch front end does.
func (h *home) tag(id string, add, remove []string) {
	h.t.Helper()
	db, err := h.index.load()
	h.do(err)
	m := db[id]
	m.Tags = slices.DeleteFunc(append(m.Tags, add...), func(t string) bool { return slices.Contains(remove, t) })
	slices.Sort(m.Tags)
	h.do(h.index.save(db))
}

func TestTagsReachTheServerAsKeywords(t *testing.T) {
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			s.box("Archive")
			for i := range 4 {
				in.add(plainMail(i), [][]string{nil, {"work", "$MDNSent"}}[i%2]...)
			}
			keywords := func(o *Options) { o.Keywords = []string{"work", "todo*", "spam"} }
			h.sync(s, keywords)
			h.sync(s, keywords)
			h.tag("m0@example.org", []string{"work", "todo/x", "private", "todo with space"}, nil)
			h.tag("m1@example.org", []string{"spam"}, []string{"work"})
			h.tag("m2@example.org", []string{"todo1"}, nil)
			in.flag(3, "late")
			h.move("INBOX", 4, "Archive", false)
			h.tag("m3@example.org", []string{"todo2"}, nil)
			if rep := h.sync(s, keywords); rep.Pushed != 4 || rep.Moved != 1 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			h.notmuchNew()
			for range 2 {
				h.sync(s, keywords)
			}
			for u, want := range map[imap.UID][]string{1: {"work", "todo/x"}, 2: {"$MDNSent", "$Junk"}, 3: {"late", "todo1"}} {
				if !plan.SameFlags(in.msgs[u].flags, want) {
					t.Errorf("UID %d has %v, want %v", u, in.msgs[u].flags, want)
				}
			}
			for _, m := range s.box("Archive").msgs {
				if !plan.SameFlags(m.flags, []string{"work", "$MDNSent", "todo2"}) {
					t.Errorf("what was moved has %v", m.flags)
				}
			}
			if tags := h.tags("m2@example.org"); !slices.Contains(tags, "late") || !slices.Contains(tags, "todo1") {
				t.Errorf("tags %v", tags)
			}
			h.check(s)
			h.quiet(s, keywords)

			// A database that was made anew takes nothing away.
			l, err := h.index.load()
			h.do(err)
			for _, m := range l {
				m.Tags = []string{"inbox"}
			}
			h.do(h.index.save(l))
			h.index.another()
			h.sync(s, keywords)
			if !plan.SameFlags(in.msgs[1].flags, []string{"work", "todo/x"}) {
				t.Errorf("a new database: %v", in.msgs[1].flags)
			}
		})
	}
}

// To a server a keyword is the same in any case, and it has the spelling of whoever came first.
// Here the tag has one spelling, and a change of either side reaches the other.
func TestTheServerSpellsAKeywordOtherwise(t *testing.T) {
	for name, pattern := range map[string]string{"named": "work", "by a pattern": "w*"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer("CONDSTORE"), newHome(t)
			in := s.box("INBOX")
			for i := range 4 {
				in.add(plainMail(i))
			}
			keywords := func(o *Options) {
				o.Keywords = []string{pattern}
				if db, err := h.index.load(); o.OpenSpelling() {
					h.do(err)
					for _, m := range db {
						o.Known = append(o.Known, m.Tags...)
					}
				}
			}
			is := func(when string, want ...string) { // of UID 1 and on: spelled by the server, and here
				t.Helper()
				h.sync(s, keywords)
				for i, w := range want {
					is := slices.ContainsFunc(in.msgs[imap.UID(i+1)].flags, func(f string) bool { return strings.EqualFold(f, "work") })
					tags := slices.DeleteFunc(h.tags(id(i)), func(t string) bool { return !strings.EqualFold(t, "work") })
					if is != (w != "") || strings.Join(tags, " ") != w {
						t.Errorf("%s, UID %d: the server has it: %v, the tags are %q, want %q", when, i+1, is, tags, w)
					}
				}
				h.quiet(s, keywords)
			}
			h.sync(s, keywords)
			h.tag(id(0), []string{"work"}, nil)
			h.tag(id(1), []string{"work"}, nil)
			h.tag(id(2), []string{"work"}, nil)
			h.sync(s, keywords)
			for u := range imap.UID(4) {
				in.flag(u+1, "Work") // another client gives it to the fourth, and the server has that spelling for all
			}
			is("given", "work", "work", "work", "work")
			in.flag(1)
			is("taken off on the server", "", "work", "work", "work")
			h.tag(id(1), nil, []string{"work"})
			h.tag(id(3), nil, []string{"work"})
			is("taken off here", "", "", "work", "")
			in.add(plainMail(4), "WORK")
			in.flag(1, "WORK")
			is("come", "work", "", "work", "", "work")
			for _, i := range []int{0, 2, 4} {
				h.tag(id(i), nil, []string{"work"})
			}
			is("taken off all", "", "", "", "", "")
		})
	}
}

// Without maildir.synchronize_flags the flags are in the tags alone.
func TestTagsAreFlagsWhereNotmuchDoesNotRenameFiles(t *testing.T) {
	t.Parallel()
	s, h := newServer("CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	for i := range 3 {
		in.add(plainMail(i), [][]string{nil, {`\Seen`}, {`\Flagged`}}[i]...)
	}
	tagged := func(o *Options) { o.TagFlags = true }
	h.sync(s, tagged)
	h.sync(s, tagged)
	h.tag("m0@example.org", []string{"replied"}, []string{"unread"})
	h.tag("m1@example.org", []string{"unread"}, nil)
	h.tag("m2@example.org", nil, []string{"flagged"})
	if rep := h.sync(s, tagged); rep.Pushed != 3 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	for u, want := range map[imap.UID][]string{1: {`\Seen`, `\Answered`}, 2: {}, 3: {}} {
		if !plan.SameFlags(in.msgs[u].flags, want) {
			t.Errorf("UID %d has %v, want %v", u, in.msgs[u].flags, want)
		}
	}
	h.check(s)
	h.sync(s, tagged)
	h.quiet(s, tagged)
}

func TestTheServerThatKeepsNoKeywords(t *testing.T) {
	t.Parallel()
	s, h := newServer("CONDSTORE"), newHome(t)
	s.permanent = []string{`\Seen`, `\Flagged`, "todo"}
	s.box("INBOX").add(plainMail(0))
	keywords := func(o *Options) { o.Keywords = []string{"*"} }
	h.sync(s, keywords)
	h.sync(s, keywords)
	h.tag("m0@example.org", []string{"work", "todo"}, nil)
	for range 3 {
		h.sync(s, keywords)
	}
	if got := s.box("INBOX").msgs[1].flags; !plan.SameFlags(got, []string{"todo"}) {
		t.Errorf("flags %v", got)
	}
	if tags := h.tags("m0@example.org"); !slices.Contains(tags, "work") {
		t.Errorf("tags %v", tags)
	}
}

// Tags of flags that a rule gives to new mail are in its file's name, too, and the next sync
// tells the server.
func TestATagOfAFlagByRuleIsAFlag(t *testing.T) {
	t.Parallel()
	s, h := newServer("CONDSTORE"), newHome(t)
	in := s.box("INBOX")
	in.add(plainMail(0))
	ruled := func(o *Options) {
		o.TagRules = func(string, rune) (add, remove []string) { return []string{"list", "flagged"}, []string{"unread"} }
	}
	h.sync(s, ruled)
	in.add(plainMail(1), `\Answered`)
	h.sync(s, ruled)
	if rep := h.sync(s, ruled); rep.Flagged != 0 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	for uid, want := range map[imap.UID][]string{1: {`\Seen`, `\Flagged`}, 2: {`\Answered`, `\Seen`, `\Flagged`}} {
		if got := in.msgs[uid].flags; !plan.SameFlags(got, want) {
			t.Errorf("UID %d has the flags %v, want %v", uid, got, want)
		}
	}
	h.quiet(s, ruled)
	h.notmuchNew()
	h.quiet(s, ruled)
	if tags := h.tags("m0@example.org"); slices.Contains(tags, "unread") || !slices.Contains(tags, "flagged") {
		t.Errorf("tags: %v", tags)
	}
}

// A mail that was tagged before it went to the server has the tag there as a keyword, soon.
func TestANewMailGoesUpWithItsTags(t *testing.T) {
	for name, caps := range wires() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, h := newServer(caps...), newHome(t)
			in := s.box("INBOX")
			in.add(plainMail(0))
			keywords := func(o *Options) { o.Keywords = []string{"todo"} }
			h.sync(s, keywords)
			h.put("INBOX", plainMail(1), "S")
			h.notmuchNew()
			h.tag("m1@example.org", []string{"todo"}, nil)
			h.sync(s, keywords)
			h.sync(s, keywords)
			if got := in.msgs[2].flags; !plan.SameFlags(got, []string{`\Seen`, "todo"}) {
				t.Errorf("flags: %v", got)
			}
			if tags := h.tags("m1@example.org"); !slices.Contains(tags, "todo") {
				t.Errorf("tags: %v", tags)
			}
			h.quiet(s, keywords)
		})
	}
}
