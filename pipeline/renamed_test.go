package pipeline

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// rename renames mailboxes on the server, all at once, with those below them: from a name to
// one, and so on.
func (s *server) rename(names ...string) {
	before := maps.Clone(s.boxes)
	for i := 0; i < len(names); i += 2 {
		for name := range before {
			if rest, ok := strings.CutPrefix(name, names[i]); ok && (rest == "" || rest[0] == '/') {
				delete(s.boxes, name)
			}
		}
	}
	for i := 0; i < len(names); i += 2 {
		for name, b := range before {
			if rest, ok := strings.CutPrefix(name, names[i]); ok && (rest == "" || rest[0] == '/') {
				s.boxes[names[i+1]+rest] = b
			}
		}
	}
}

// renaming is an account of whose mailbox Old much waits here to be told to the server, while that
// gets another name there.
func renaming(t *testing.T, wire string) (*server, *home) {
	t.Helper()
	s, h := newServer(wires()[wire]...), newHome(t)
	s.mute = wire == "bare"
	s.box("INBOX").add(plainMail(20))
	s.box("Keep").validity = 17
	s.box("Keep").add(plainMail(21))
	s.box("Trash")
	for i := range 7 {
		s.box("Old").add(plainMail(i + 1))
	}
	s.box("Old/Sub").add(plainMail(11))
	s.box("Old/Sub").add(plainMail(12))
	h.sync(s, keepsTodo)
	h.sync(s, keepsTodo)
	h.flag("Old", 1, "S")
	h.tag("m2@example.org", []string{"todo", "mine"}, nil)
	h.remove("Old", 3)
	h.move("Old", 4, "Keep", wire == "all")
	h.move("INBOX", 1, "Old", true)
	h.put("Old", plainMail(30), "S")
	h.remove("Old/Sub", 1)
	return s, h
}

func keepsTodo(o *Options) { o.Keywords = []string{"todo"} }

// A mailbox that is renamed on the server is the same one: its folder, its rows, what waits and
// the tags go along, also if a run is stopped in the middle of that, and if another one has, or had,
// its name.
func TestAMailboxIsRenamedOnTheServer(t *testing.T) {
	for name, tc := range map[string]struct {
		names     []string
		old, keep string // what Old and Keep are called
		anew      string // a mailbox that is made then
	}{
		"anew":          {names: []string{"Old", "New/Name"}, old: "New/Name", keep: "Keep"},
		"exchanged":     {names: []string{"Old", "Keep", "Keep", "Old"}, old: "Keep", keep: "Old"},
		"one after one": {names: []string{"Old", "Keep", "Keep", "Kept"}, old: "Keep", keep: "Kept", anew: "Old"},
	} {
		for _, wire := range []string{"all", "bare"} {
			for at := 0; at < 16; at += pace() { // behind each effect of the renaming, and some more
				t.Run(fmt.Sprint(name, " ", wire, " stopped at ", at), func(t *testing.T) {
					t.Parallel()
					s, h := renaming(t, wire)
					s.rename(tc.names...)
					want := map[string]string{"INBOX": "", tc.old + "/Sub": "12", tc.keep: "21 4", "Trash": "11 3"}
					if tc.anew != "" && at > 0 {
						s.box(tc.anew).validity = 99
						s.box(tc.anew).add(plainMail(50))
						want[tc.anew] = "50"
					}
					counts := func(rep *Report) [7]int {
						return [...]int{rep.New, rep.Flagged, rep.Pushed, rep.Moved, rep.Deleted, rep.Uploaded, rep.Removed}
					}
					var would [7]int
					var plan []mail.Action
					if at == 0 {
						s.box(tc.old).add(plainMail(9))
						s.box(tc.old).flag(6, `\Seen`, `\Flagged`)
						var rep *Report
						plan, rep = h.planned(s, keepsTodo)
						would = counts(rep)
						if s.writes > 0 || h.said("would: work/Old is called so on the server now") != 1 || len(h.files("Old")) != 7 {
							t.Errorf("the dry run said %v", h.events)
						}
					} else {
						h.stopAt(s, at, keepsTodo)
					}
					for i := range 2 {
						rep := h.sync(s, keepsTodo)
						if !rep.Clean() || rep.Held > 0 {
							t.Errorf("%+v %v", rep, h.events)
						}
						if did := counts(rep); at == 0 && i == 0 && did != would {
							t.Errorf("the dry run said %v, the run did %v", would, did)
						}
						if at == 0 && i == 0 {
							if d := h.notAsPlanned(plan); d != "" {
								t.Errorf("the log differs from the plan:\n%s", d)
							}
						}
					}
					want[tc.old] = "1 2 20 30 5 6 7"
					if at == 0 {
						want[tc.old] += " 9"
					}
					h.named() // before notmuch looks
					h.has(s, want)
					h.named()
					h.quiet(s, keepsTodo)
					for _, m := range s.box(tc.old).msgs {
						if strings.Contains(m.raw, "<m2@") != slices.Contains(m.flags, "todo") || strings.Contains(m.raw, "<m1@") && !slices.Contains(m.flags, `\Seen`) {
							t.Errorf("%.50q has %q", m.raw, m.flags)
						}
					}
					if tags := h.tags("m2@example.org"); !slices.Contains(tags, "mine") {
						t.Errorf("tags %q", tags)
					}
					folders, err := maildir.Folders(h.path("", ""))
					h.do(err)
					slices.Sort(folders)
					if want := slices.Sorted(maps.Keys(want)); !slices.Equal(s.names(), want) || !slices.Equal(folders, want) {
						t.Errorf("there are %q, and here %q", s.names(), folders)
					}
				})
			}
		}
	}
}

// What else may look like another name, and what does not.
func TestWhatIsARenamedMailbox(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(h *home, s *server)
		want map[string]string
		old  bool // the folder of before is there, with what was in it
	}{
		"another one has the name of before": {
			do: func(h *home, s *server) {
				s.rename("Old", "2025")
				s.box("Old").validity = 15
				s.box("Old").add(plainMail(40))
			},
			want: map[string]string{"2025": "1 2 20 30 5 6 7", "2025/Sub": "12", "Old": "40", "Keep": "21 4", "Trash": "11 3"}, old: true,
		},
		"its messages have other UIDs": {
			do: func(h *home, s *server) {
				s.rename("Old", "New")
				b := s.box("New")
				b.validity, b.next = 99, 20
				for _, u := range b.uids() {
					b.msgs[u+10] = b.expunge(u)
				}
			},
			want: map[string]string{"New": "1 2 20 30 5 6 7", "New/Sub": "12", "Keep": "21 4", "Trash": "11 3"},
		},
		"its folder has the name, too": {
			do: func(h *home, s *server) {
				s.rename("Old", "New")
				h.do(os.Rename(h.path("Old", ""), h.path("New", "")))
			},
			want: map[string]string{"New": "1 2 20 30 5 6 7", "New/Sub": "12", "Keep": "21 4", "Trash": "11 3"},
		},
		"there is a folder of the name": {
			do:   func(h *home, s *server) { s.rename("Old", "New"); h.maildir("New"); h.put("New", plainMail(31), "") },
			want: map[string]string{"New": "1 2 20 30 31 5 6 7", "New/Sub": "12", "Keep": "21 4", "Trash": "11 3"},
		},
		"some of it is gone, and some came": {
			do: func(h *home, s *server) {
				s.rename("Old", "New")
				s.box("New").expunge(5)
				s.box("New").add(plainMail(41))
			},
			want: map[string]string{"New": "1 2 20 30 41 6 7", "New/Sub": "12", "Keep": "21 4", "Trash": "11 3"},
		},
	} {
		for _, wire := range []string{"all", "bare"} {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := renaming(t, wire)
				tc.do(h, s)
				for range 3 {
					if rep := h.sync(s, keepsTodo); !rep.Clean() || rep.Held > 0 {
						t.Errorf("%+v %v", rep, h.events)
					}
				}
				h.has(s, tc.want)
				h.quiet(s, keepsTodo)
				if _, err := os.Lstat(h.path("Old", "")); (err == nil) != tc.old {
					t.Errorf("the folder Old: %v", err)
				}
			})
		}
	}
}

// Where a mailbox is gone, and another one has some of its mail, nothing goes that is not here in that one.
func TestAMailboxWithSomeMailOfAnotherIsNotThatOne(t *testing.T) {
	for _, wire := range []string{"all", "bare"} {
		t.Run(wire, func(t *testing.T) {
			t.Parallel()
			s, h, _ := few(t, wires()[wire]...)
			for i := range 6 {
				s.box("Old").add(plainMail(i + 30))
			}
			h.sync(s)
			for i := range 2 {
				s.box("Some").add(plainMail(i + 30))
			}
			s.drop("Old")
			for i := range 2 {
				if rep := h.sync(s); !rep.Clean() || rep.Deleted > 0 || rep.Removed != 2-2*i {
					t.Errorf("%+v %v", rep, h.events)
				}
			}
			old, some := slices.Collect(maps.Values(h.files("Old"))), slices.Collect(maps.Values(h.files("Some")))
			for i := range 6 {
				is := func(text string) bool { return strings.Contains(text, fmt.Sprintf("<m%d@", i+30)) }
				if slices.ContainsFunc(old, is) == slices.ContainsFunc(some, is) || slices.ContainsFunc(some, is) != (i < 2) {
					t.Errorf("mail %d is not where the server has it", i)
				}
			}
			if n := len(h.files("Old")); n != 4 || h.said("is called so") > 0 {
				t.Errorf("%d files in Old, %v", n, h.events)
			}
			if got := s.box("Some").subjects(); len(got) != 2 || len(h.files("Some")) != 2 {
				t.Errorf("Some has %q, and here %d", got, len(h.files("Some")))
			}
			h.named()
		})
	}
}
