package pipeline

import (
	"strings"
	"testing"
)

// A run that finds a mailbox's messages under other UIDs tells the server in the same run what changed
// here of them, and of what was moved out of their folder and into it; a dry run says so. So nothing
// waits for another run.
func TestWhatWaitsInAMailboxThatIsMatchedGoesWithTheSameRun(t *testing.T) {
	t.Parallel()
	renumber := func(s *server, name string) {
		b := s.box(name)
		b.validity += 99
		b.next += 20
		for _, u := range b.uids() {
			b.msgs[u+20] = b.expunge(u)
		}
	}
	for name, tc := range map[string]struct {
		do   func(s *server)
		is   string // what Old is called
		also map[string]string
		anew bool // it is another one, which has nothing
	}{
		"other UIDs": {do: func(s *server) { renumber(s, "Old"); renumber(s, "Old/Sub") }, is: "Old"},
		"other UIDs by another name": {do: func(s *server) {
			s.rename("Old", "New")
			renumber(s, "New")
			renumber(s, "New/Sub")
		}, is: "New"},
		"deleted and made anew": {do: func(s *server) {
			for _, name := range []string{"Old", "Old/Sub"} {
				s.drop(name)
				s.box(name).validity = 99
			}
		}, is: "Old", anew: true},
		"moved to a new mailbox": {do: func(s *server) {
			s.rename("Old", "Empty")
			for _, sub := range []string{"", "/Sub"} {
				from, to := s.box("Empty"+sub), s.box("New"+sub)
				to.validity = from.validity + 99
				for _, u := range from.uids() {
					m := from.msgs[u]
					to.add(m.raw, m.flags...)
					from.expunge(u)
				}
			}
		}, is: "New", also: map[string]string{"Empty": "", "Empty/Sub": ""}},
	} {
		for wire := range wires() {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := renaming(t, wire)
				tc.do(s)
				counts := func(rep *Report) [6]int {
					return [...]int{rep.Flagged, rep.Pushed, rep.Moved, rep.Deleted, rep.Uploaded, rep.Removed}
				}
				plan, would := h.planned(s, keepsTodo)
				rep := h.sync(s, keepsTodo)
				if !rep.Clean() || rep.Held > 0 || counts(rep) != counts(would) {
					t.Errorf("the dry run said %v, the run did %v: %v", counts(would), counts(rep), h.events)
				}
				if d := h.notAsPlanned(plan); d != "" {
					t.Errorf("the log differs from the plan:\n%s", d)
				}
				want := map[string]string{"INBOX": "", tc.is: "1 2 20 30 5 6 7", tc.is + "/Sub": "12", "Keep": "21 4", "Trash": "11 3"}
				for name, mails := range tc.also {
					want[name] = mails
				}
				if tc.anew {
					want[tc.is], want["Old/Sub"], want["Trash"] = "20 30", "", ""
					for name, mails := range want {
						if got := strings.ReplaceAll(strings.Join(s.box(name).subjects(), " "), "mail ", ""); got != mails {
							t.Errorf("%s has %q, want %q", name, got, mails)
						}
					}
				} else {
					h.has(s, want)
				}
				h.quiet(s, keepsTodo)
			})
		}
	}
}
