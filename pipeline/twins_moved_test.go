package pipeline

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// Equal mails, of which some are moved here and some there, before the next sync: nobody has
// deleted one, so none is deleted, none is there once more, and both sides have the same.
func TestTwinsAreMovedOnBothSides(t *testing.T) {
	t.Parallel()
	type move struct{ from, to string }
	type moves = []move
	cases := map[string]struct {
		twins       []string
		here, there moves
	}{
		"one of two, to where one went":      {[]string{"A", "A"}, moves{{"A", "INBOX"}}, moves{{"A", "INBOX"}, {"A", "B"}}},
		"to where its twin was":              {[]string{"INBOX", "B"}, moves{{"B", "INBOX"}}, moves{{"INBOX", "A"}, {"B", "INBOX"}, {"A", "B"}}},
		"exchanged here, and one goes there": {[]string{"A", "B", "B"}, moves{{"A", "B"}, {"B", "A"}}, moves{{"A", "INBOX"}}},
	}
	boxes := []string{"INBOX", "A", "B"}
	seeds := 60
	if testing.Short() {
		seeds = 5
	}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // the same cases in each run
		any := func() string { return boxes[r.IntN(len(boxes))] }
		c := cases[""]
		for range 2 + r.IntN(2) {
			c.twins = append(c.twins, any())
		}
		some := func() (out moves) {
			in := slices.Clone(c.twins)
			for range 1 + r.IntN(2) {
				i, to := r.IntN(len(in)), any()
				if to != in[i] {
					out = append(out, move{in[i], to})
				}
				in[i] = to
			}
			return out
		}
		c.here, c.there = some(), some()
		cases[fmt.Sprint("seed ", seed)] = c
	}
	for name, c := range cases {
		for wire, caps := range map[string][]string{"bare": nil, "all": wires()["all"]} {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h := newServer(caps...), newHome(t)
				for i, box := range append(boxes, "Trash") {
					s.box(box).add(plainMail(90 + i))
				}
				for _, box := range c.twins {
					s.box(box).add(plainMail(1))
				}
				h.sync(s)
				var moved []string // a file is moved once
				for _, m := range c.here {
					for file, raw := range h.files(m.from) {
						if key, _ := maildir.ParseName(file); raw == strings.ReplaceAll(plainMail(1), "\r\n", "\n") && !slices.Contains(moved, filepath.Base(key)) {
							moved = append(moved, filepath.Base(key))
							h.moveFile(m.from, file, m.to, false)
							break
						}
					}
				}
				for _, m := range c.there {
					b := s.box(m.from)
					for _, u := range b.uids() {
						if b.msgs[u].raw == plainMail(1) {
							one := b.expunge(u)
							to := s.box(m.to)
							to.msgs[to.add(one.raw, one.flags...)].date = one.date
							break
						}
					}
				}
				h.sync(s)
				h.sync(s)
				if got := s.holding(id(1)); len(got) != len(c.twins) || slices.Contains(got, "Trash") {
					t.Errorf("of twins in %v, moved here %v and there %v, the server has %v", c.twins, c.here, c.there, got)
				}
				h.quiet(s)
				h.notmuchNew()
				h.check(s)
			})
		}
	}
}
