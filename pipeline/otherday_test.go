package pipeline

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// otherDays are the ways in which the notmuch database becomes one of which nobody knows who
// said what its tags say. before is done when it is in step, and after it when more was agreed
// on since.
func otherDays() map[string]struct{ before, after func(h *home) } {
	files := []string{"", ".revision", ".stamps"}
	copied := func(from, to string) func(h *home) {
		return func(h *home) {
			for _, f := range files {
				b, err := os.ReadFile(h.index.path + from + f)
				h.do(err)
				h.do(os.WriteFile(h.index.path+to+f, b, 0o600))
			}
		}
	}
	anew := func(h *home) {
		h.do(h.index.save(map[string]*indexed{}))
		h.index.another()
		h.do(os.Remove(h.index.path + ".revision"))
	}
	return map[string]struct{ before, after func(h *home) }{
		"made anew":        {func(*home) {}, func(h *home) { anew(h); h.notmuchNew() }},
		"made anew, later": {func(*home) {}, func(h *home) { anew(h) }},
		"restored":         {copied("", ".bak"), copied(".bak", "")},
		"restored, and changed much since": {copied("", ".bak"), func(h *home) {
			copied(".bak", "")(h)
			for i := range 60 {
				h.tag(id(9), []string{fmt.Sprint("tag", i)}, nil)
			}
			h.notmuchNew()
		}},
	}
}

// In a database that is not the one in which tags were last agreed on these order nothing by
// what they are: nothing is moved, deleted or flagged on the server, mail is tagged here as it
// was agreed, and what its owner says after that is done.
func TestTagsOfAnotherDayOrderNothing(t *testing.T) {
	for wire, caps := range wires() {
		for name, day := range otherDays() {
			for _, tagFlags := range []bool{false, true} {
				if spared(fmt.Sprintf("%s/%s/%v", wire, name, tagFlags)) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%v", wire, name, tagFlags), func(t *testing.T) {
					t.Parallel()
					rules := func(o *Options) {
						filing(o)
						o.Keywords, o.TagFlags = []string{"todo", "work"}, tagFlags
					}
					s, h := newServer(caps...), newHome(t)
					in, trash := s.box("INBOX"), s.box("Trash")
					s.box("Archive")
					for i := range 10 {
						in.add(plainMail(i), `\Seen`)
					}
					h.sync(s, rules)
					h.tag(id(4), []string{"work"}, nil)
					h.tag(id(5), []string{"deleted"}, nil)
					h.sync(s, rules)
					h.quiet(s, rules)
					day.before(h)
					// Since then: deleted and brought back, filed here and elsewhere, flagged elsewhere.
					h.tag(id(1), nil, []string{"inbox"})
					h.sync(s, rules)
					s.relocate("INBOX", in.uidOf(2), "Archive")
					s.relocate("Trash", trash.uidOf(5), "INBOX")
					in.flag(in.uidOf(3), `\Flagged`, `\Seen`, "todo")
					in.flag(in.uidOf(4), `\Seen`)
					for range 2 {
						h.sync(s, rules)
					}
					h.quiet(s, rules)
					there := s.told()
					day.after(h)
					if rep := h.sync(s, rules, func(o *Options) { o.DryRun = true }); rep.Moved+rep.Deleted+rep.Flagged > 0 {
						t.Errorf("a dry run: %+v", rep)
					}
					for i := range 4 {
						rep := h.sync(s, rules)
						if got := s.told(); got != there || !rep.Clean() {
							t.Fatalf("run %d: the server has\n%s, want\n%s; %+v", i, got, there, rep)
						}
						if n := h.said("another one than at the last sync"); n != map[bool]int{true: 1}[i == 0] {
							t.Errorf("run %d says so %d times", i, n)
						}
						h.notmuchNew()
					}
					for m, want := range map[int]string{1: "", 2: "", 3: "inbox todo", 4: "inbox", 5: "inbox", 6: "inbox"} {
						got := slices.DeleteFunc(h.tags(id(m)), func(t string) bool { return t != "inbox" && t != "todo" && t != "work" && t != "deleted" })
						if strings.Join(got, " ") != want {
							t.Errorf("mail %d has the tags %v, want %q", m, h.tags(id(m)), want)
						}
						flagged := slices.Contains(h.tags(id(m)), "flagged")
						if tagFlags && (flagged != (m == 3) || slices.Contains(h.tags(id(m)), "unread")) {
							t.Errorf("mail %d has the tags %v", m, h.tags(id(m)))
						}
					}
					h.quiet(s, rules)
					// What is said now is done, also of mail that has it from before.
					h.tag(id(1), []string{"inbox", "work"}, nil)
					h.tag(id(6), []string{"deleted"}, nil)
					h.tag(id(7), nil, []string{"inbox"})
					h.sync(s, rules)
					h.sync(s, rules)
					for m, want := range map[int]string{1: "INBOX", 6: "Trash", 7: "Archive"} {
						if got := s.holding(id(m)); !slices.Equal(got, []string{want}) {
							t.Errorf("mail %d is in %v, want %s", m, got, want)
						}
					}
					if got := in.msgs[in.uidOf(1)].flags; !plan.HasFlag(got, "work") {
						t.Errorf("the server has %v", got)
					}
					h.quiet(s, rules)
				})
			}
		}
	}
}

// A database that notmuch compact has made of the one that there was has another UUID, and its
// tags are what their owner said: what waited is done, and that nothing else was is no news.
func TestACompactedDatabaseIsTheSame(t *testing.T) {
	for wire, caps := range wires() {
		for _, tagFlags := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", wire, tagFlags), func(t *testing.T) {
				t.Parallel()
				rules := func(o *Options) {
					filing(o)
					o.Keywords, o.TagFlags = []string{"todo", "work"}, tagFlags
				}
				s, h := newServer(caps...), newHome(t)
				in := s.box("INBOX")
				s.box("Trash")
				s.box("Archive")
				for i := range 8 {
					in.add(plainMail(i), `\Seen`)
				}
				in.flag(5, `\Seen`, "todo")
				h.sync(s, rules)
				h.tag(id(7), []string{"work"}, nil)
				h.sync(s, rules)
				h.quiet(s, rules)
				h.index.uuid = "compacted"
				h.quiet(s, rules)
				h.tag(id(1), nil, []string{"inbox"})
				h.tag(id(2), []string{"deleted"}, nil)
				h.tag(id(3), []string{"work"}, nil)
				h.tag(id(4), nil, []string{"todo"})
				h.index.uuid = "again"
				h.sync(s, rules)
				h.sync(s, rules)
				for m, want := range map[int]string{0: "INBOX", 1: "Archive", 2: "Trash"} {
					if got := s.holding(id(m)); !slices.Equal(got, []string{want}) {
						t.Errorf("mail %d is in %v, want %s", m, got, want)
					}
				}
				if got := in.msgs[in.uidOf(3)].flags; !plan.HasFlag(got, "work") {
					t.Errorf("what was tagged has %v", got)
				}
				if got := in.msgs[in.uidOf(4)].flags; plan.HasFlag(got, "todo") {
					t.Errorf("what was untagged has %v", got)
				}
				if n := h.said("another one than at the last sync"); n != 0 {
					t.Errorf("it says %d times that the database is another one", n)
				}
				h.quiet(s, rules)
			})
		}
	}
}

// told is all that the server has of mail.
func (s *server) told() string {
	var out strings.Builder
	for _, name := range s.names() {
		b := s.box(name)
		for _, u := range b.uids() {
			fmt.Fprintf(&out, "%s/%d %s %v\n", name, u, notmuchID([]byte(b.msgs[u].raw)), slices.Sorted(slices.Values(b.msgs[u].flags)))
		}
	}
	return out.String()
}
