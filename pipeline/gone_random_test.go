package pipeline

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Mail is moved at random on the server and in the folders of two machines, twins too, while mailboxes are deleted, made again and given other UIDs, and runs are stopped. Whatever comes of it,
// what nobody has deleted is there, nothing is there twice, and both machines have what the server has: a file
// stays beside that only if the server has its mail nowhere, or was put beside its twin by its owner.
func TestMailMovesWhileMailboxesLoseTheirUIDs(t *testing.T) {
	t.Parallel()
	seeds := 24
	if testing.Short() {
		seeds = 3
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // the same scripts in each run
			s := newServer(wires()[[]string{"bare", "UIDPLUS", "MOVE", "all"}[seed%4]]...)
			losing := &losing{t: t, r: r, s: s, homes: []*home{newHome(t), newHome(t)}, copies: make(map[string]int), ever: make(map[string]int), validity: 100}
			losing.begin()
			for range 5 {
				if losing.round(); t.Failed() {
					break
				}
			}
		})
	}
}

// losing is one such account. Its words are those of who reads a failure.
type losing struct {
	t        *testing.T
	r        *rand.Rand
	s        *server
	homes    []*home
	copies   map[string]int // of each mail, as often as nobody has deleted it
	ever     map[string]int // of each mail, as often as it was put there
	script   []string
	validity uint64
	next     int
}

func (l *losing) boxes() []string { return []string{"INBOX", "A", "B", "C"} }

func (l *losing) begin() {
	l.s.box("Trash")
	for i, name := range l.boxes() {
		l.s.box(name).validity = uint64(20 + i)
		for range 3 {
			l.add(name)
		}
	}
	for _, h := range l.homes {
		h.sync(l.s)
		h.sync(l.s)
	}
}

func (l *losing) say(format string, args ...any) {
	l.script = append(l.script, fmt.Sprintf(format, args...))
}

// add puts a mail into a mailbox on the server: a new one, or one more of an older one.
func (l *losing) add(box string) {
	n := l.next
	if l.next == 0 || l.r.IntN(3) > 0 {
		l.next++
	} else {
		n = l.r.IntN(l.next)
	}
	raw := plainMail(n)
	b := l.s.box(box)
	b.msgs[b.add(raw)].date = time.Date(2021, 1, 1, 0, 0, n, 0, time.UTC)
	l.copies[raw]++
	l.ever[raw]++
	l.say("%s gets %d", box, n)
}

// any gives a mailbox that there is.
func (l *losing) any() string {
	names := slices.DeleteFunc(l.s.names(), func(n string) bool { return n == "Trash" })
	return names[l.r.IntN(len(names))]
}

func (l *losing) op() {
	from, to := l.any(), l.any()
	switch b := l.s.boxes[from]; l.r.IntN(8) {
	case 0:
		l.add(to)
	case 1, 2, 3:
		if uids := b.uids(); len(uids) > 0 && from != to {
			u := uids[l.r.IntN(len(uids))]
			l.say("there %s goes from %s to %s", numbers([]string{b.msgs[u].raw}), from, to)
			l.s.relocate(from, u, to)
		}
	case 4, 5:
		i := l.r.IntN(len(l.homes))
		h := l.homes[i]
		if files := slices.Sorted(maps.Keys(h.files(from))); len(files) > 0 && from != to {
			f := files[l.r.IntN(len(files))]
			l.say("machine %d moves %s from %s to %s", i, numbers([]string{h.files(from)[f]}), from, to)
			h.moveFile(from, f, to, l.r.IntN(2) == 0)
		}
	default:
		l.end(from)
	}
}

// end has a mailbox lose its UIDs, in one of the ways.
func (l *losing) end(name string) {
	how := ends()[l.r.IntN(len(ends()))]
	if name == "INBOX" && how == "deleted" {
		return
	}
	l.say("%s is %s", name, how)
	old := l.s.box(name)
	delete(l.s.boxes, name)
	l.validity++
	if how != "renumbered" {
		for _, m := range old.msgs {
			l.copies[m.raw]--
		}
	}
	if how == "deleted" {
		return
	}
	b := l.s.box(name)
	b.validity, b.next, b.modseq = l.validity, imap.UID(l.r.IntN(30)+1), old.modseq
	if how == "renumbered" {
		for _, u := range old.uids() {
			b.msgs[b.add(old.msgs[u].raw, old.msgs[u].flags...)].date = old.msgs[u].date
		}
	}
}

func (l *losing) round() {
	for range 2 + l.r.IntN(6) {
		l.op()
		if l.r.IntN(4) == 0 {
			i := l.r.IntN(len(l.homes))
			at := 1 + l.r.IntN(30)
			l.say("machine %d syncs, and stops at %d", i, at)
			l.homes[i].stopAt(l.s, at)
		}
	}
	for range 3 {
		for _, h := range l.homes {
			h.now = h.now.Add(time.Hour)
			h.sync(l.s)
		}
	}
	for i, h := range l.homes {
		h.quiet(l.s)
		l.compare(i, h)
	}
	if l.t.Failed() {
		l.t.Logf("after:\n%s", strings.Join(l.script, "\n"))
	}
	l.say("-- all have synced")
}

// compare wants what is here to be what is there.
func (l *losing) compare(i int, h *home) {
	there := make(map[string]int)
	for _, b := range l.s.boxes {
		for _, m := range b.msgs {
			there[m.raw]++
		}
	}
	for raw, n := range there {
		if n > l.ever[raw] {
			l.t.Errorf("the server has %d of %s, and there were %d", n, numbers([]string{raw}), l.ever[raw])
		}
	}
	for raw, n := range l.copies {
		if n > 0 && there[raw] == 0 {
			l.t.Errorf("the server has %s no more, and nobody has deleted it", numbers([]string{raw}))
		}
		l.copies[raw] = there[raw] // as of equal ones some may be gone, or back
	}
	for _, name := range append(l.boxes(), "Trash") {
		count, twin := make(map[string]int), make(map[string]bool)
		for _, text := range h.files(name) {
			count[strings.ReplaceAll(text, "\n", "\r\n")]++
		}
		if b := l.s.boxes[name]; b != nil {
			for _, m := range b.msgs {
				count[m.raw]--
				twin[m.raw] = true
			}
		}
		for raw, n := range count {
			if n < 0 || n > 0 && there[raw] > 0 && !twin[raw] {
				l.t.Errorf("machine %d has %d too many of %s in %s", i, n, numbers([]string{raw}), name)
			}
		}
	}
}
