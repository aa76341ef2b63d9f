package pipeline

import (
	"slices"
	"testing"
	"time"
)

// refusing is what the sessions of an account share: in each run the server refuses one
// argument, unless it is known that it does.
type refusing struct {
	server    string
	arguments []string
}

func (r *refusing) Recall(server string, arguments []string) {
	r.server, r.arguments = server, arguments
}
func (r *refusing) Refused() (string, []string) { return r.server, r.arguments }

// What the server has refused is known to later runs for thirty days, or until it is another
// server.
func TestWhatTheServerRefusesIsRemembered(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(plainMail(1))
	name, asked := "one", 0
	run := func(want int, change ...func(*Options)) {
		t.Helper()
		shared := &refusing{}
		s.dialErr = func(int) error {
			if shared.server != name {
				shared.server, shared.arguments = name, nil
			}
			if !slices.Contains(shared.arguments, "FETCH x") {
				asked++
				shared.arguments = append(shared.arguments, "FETCH x")
			}
			return nil
		}
		if rep := h.sync(s, append(change, func(o *Options) { o.Refusals, o.Connections = shared, 1 })...); !rep.Clean() || asked != want {
			t.Errorf("%v: asked %d times, want %d: %+v", h.now, asked, want, rep.Faults)
		}
	}
	run(1)
	run(1)
	h.now = h.now.Add(29 * 24 * time.Hour)
	run(1)
	h.now = h.now.Add(25 * time.Hour)
	run(2, func(o *Options) { o.DryRun = true })
	run(3)
	run(3)
	h.now = h.now.Add(29 * 24 * time.Hour)
	run(3)
	name = "two"
	run(4)
	run(4)
}
