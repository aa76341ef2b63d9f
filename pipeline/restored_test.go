package pipeline

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// A server is restored from a backup and takes new mail under UIDs that it had given
// before, until its counters are those that are known or beyond: all of its mail comes,
// nothing that is ordered here lands on another mail, and what is here alone is said.
func TestARestoredServerThatDealsUIDsAgain(t *testing.T) {
	for wire, caps := range wires() {
		for _, came := range []int{5, 6, 9} {
			for what, do := range map[string]func(*home){
				"nothing": func(*home) {},
				"flag":    func(h *home) { h.flag("INBOX", 6, "FS") },
				"delete":  func(h *home) { h.remove("INBOX", 6) },
				"move":    func(h *home) { h.move("INBOX", 6, "Archive", false) },
			} {
				if spared(fmt.Sprintf("%s/%d/%s", wire, came, what)) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%s", wire, came, what), func(t *testing.T) {
					t.Parallel()
					s, h := newServer(caps...), newHome(t)
					in := s.box("INBOX")
					s.box("Archive")
					s.box("Trash")
					for i := range 8 {
						in.add(plainMail(i), `\Seen`)
					}
					h.sync(s)
					h.quiet(s)
					for u := imap.UID(5); u <= 8; u++ {
						delete(in.msgs, u)
					}
					in.next = 5
					want := map[string]bool{}
					for i := range came {
						raw := strings.Replace(plainMail(100+i), "body", "another body", 1)
						in.add(raw, `\Answered`)
						want[strings.ReplaceAll(raw, "\r\n", "\n")] = true
					}
					do(h)
					for range 3 {
						h.sync(s)
					}
					here := h.files("INBOX")
					for raw := range want {
						if !slices.Contains(slices.Collect(maps.Values(here)), raw) {
							t.Errorf("did not come: %s", raw)
						}
					}
					for u, m := range in.msgs {
						if u >= 5 && u < imap.UID(5+came) && !plan.SameFlags(m.flags, []string{`\Answered`}) {
							t.Errorf("UID %d has the flags %v", u, m.flags)
						}
					}
					if n := len(in.msgs); n != 4+came || len(s.box("Trash").msgs) > 0 {
						t.Errorf("the server has %d messages, and %d in its Trash", n, len(s.box("Trash").msgs))
					}
					if alone := 4; what == "nothing" && len(here) != 4+came+alone {
						t.Errorf("%d files", len(here))
					}
					if what == "nothing" { // as was said
						for name, raw := range here {
							if strings.Contains(raw, "mail 7") {
								h.do(os.Rename(h.path("INBOX", name), h.path("Archive", name)))
							}
						}
						if rep := h.sync(s); rep.Uploaded != 1 || len(s.box("Archive").msgs) != 1 {
							t.Errorf("%+v", rep)
						}
					}
					if rep := h.sync(s); rep.New+rep.Removed+rep.Pushed+rep.Deleted+rep.Uploaded != 0 || !rep.Clean() {
						t.Errorf("%+v", rep)
					}
				})
			}
		}
	}
}
