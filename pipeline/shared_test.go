package pipeline

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// Mailboxes whose folders are one directory, by a symbolic link or a mount, are left alone on both
// sides, whatever is asked for, and the others go on.
func TestTwoMailboxesHaveOneDirectory(t *testing.T) {
	for _, sub := range []string{"", "cur", "new"} { // what of the folder is a link
		for name, change := range map[string]func(*Options){
			"sync":    func(*Options) {},
			"one":     func(o *Options) { o.Only = []string{"Old"} },
			"full":    func(o *Options) { o.Full, o.YesDelete = true, true },
			"restore": func(o *Options) { o.Restore = true },
			"upload":  func(o *Options) { o.UploadHere = true },
			"dry":     func(o *Options) { o.DryRun = true },
		} {
			for _, first := range []bool{true, false} {
				if first && name == "restore" {
					continue // there is nothing that it could be restored to
				}
				t.Run(strings.Join([]string{"link" + sub, name, map[bool]string{true: "first", false: "later"}[first]}, " "), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(wires()["all"]...), newHome(t)
					for i, box := range []string{"INBOX", "Old", "Work", "Trash"} {
						s.box(box).add(plainMail(2*i + 1))
						s.box(box).add(plainMail(2*i + 2))
					}
					if !first {
						h.sync(s)
						h.do(os.RemoveAll(h.path("Old", sub)))
					}
					h.maildir("Work")
					h.maildir("Old")
					h.do(os.RemoveAll(h.path("Old", sub)))
					h.do(os.Symlink(h.path("Work", sub), h.path("Old", sub)))
					h.put("Work", plainMail(20), "S")
					s.box("Old").add(plainMail(21))
					s.box("Work").expunge(1)
					inbox := 2
					if !first && name != "restore" && sub == "" { // its owner moves a mail there
						h.move("INBOX", 1, "Work", true)
						inbox = 1
					}
					here, there := h.files("Work"), maps.Clone(s.boxes)
					for range 2 {
						rep := h.sync(s, change)
						said := h.said("one directory")
						// A first upload is two runs.
						if want := map[bool]int{true: 1, false: 2}[name == "one"]; said != want && (said != 2*want || !first || name != "upload") || len(rep.Faults) != said || rep.Clean() {
							t.Errorf("said %d times, %+v %v", said, rep.Faults, h.events)
						}
					}
					if got := h.files("Work"); !maps.Equal(got, here) {
						t.Errorf("Work has %q, had %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(here)))
					}
					if !maps.Equal(there, s.boxes) || s.writes > 0 || len(s.box("INBOX").msgs) != 2 || len(s.box("Old").msgs) != 3 || len(s.box("Work").msgs) != 1 {
						t.Errorf("the server has %q and %q", s.box("Old").subjects(), s.box("Work").subjects())
					}
					if n := len(h.files("INBOX")); n != inbox && name != "one" && name != "dry" {
						t.Errorf("%d files in INBOX", n)
					}
				})
			}
		}
	}
}
