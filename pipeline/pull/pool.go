// Package pull is what comes from the server: who fetches what (Pool), and how it is fetched
// over one connection (Worker). What came, and the stubs of what did not, go onto the line.
package pull

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Rank is which messages come before which, whatever mailbox they are in.
type Rank int

// The ranks.
const (
	Awaited Rank = iota // their owner waits for them
	Usual
	Large             // none of these is to keep others waiting
	Last  Rank = 1000 // those that did not come before
)

// RankOfHuge is that of one of so many bytes, of which each would have all others wait: one that
// is twice as large comes later, whatever mailbox it is in.
func RankOfHuge(size int64) Rank { return Large + Rank(bits.Len64(uint64(size/plan.Huge))) }

// Unit is one piece of work: a mailbox to look into, or messages of it to fetch.
type Unit[M comparable] struct {
	Mailbox M
	Batch   []imap.UID // nil: look into the mailbox
	Rank    Rank       // of the batch
}

// Pool gives the work of a run out to its connections. M is a mailbox; the zero M is none.
// All methods may be called from any goroutine.
type Pool[M comparable] struct {
	mu      sync.Mutex
	changed *sync.Cond
	all     []M
	work    map[M]*work
	unseen  []M // nobody has looked into them yet
	open    []M // looked into, with batches that nobody has taken
	busy    int // units under way: of each more batches may come, or what is left of it
	looking int // of these, looks
	census  bool
	ended   bool
}

// work is what there is to do in one mailbox.
type work struct {
	batches []batch // by rank
	looked  bool
	left    int // messages that this run does not bring
}

type batch struct {
	uids []imap.UID
	rank Rank
}

// add puts a batch behind those of its rank, or before them.
func (w *work) add(b batch, before bool) {
	at := slices.IndexFunc(w.batches, func(o batch) bool { return o.rank > b.rank || before && o.rank == b.rank })
	if at < 0 {
		at = len(w.batches)
	}
	w.batches = slices.Insert(w.batches, at, b)
}

// NewPool gives a pool in which nobody has looked into the mailboxes. They are looked
// into in this order.
func NewPool[M comparable](mailboxes []M) *Pool[M] {
	p := &Pool[M]{all: slices.Clone(mailboxes), unseen: slices.Clone(mailboxes), work: make(map[M]*work, len(mailboxes))}
	p.changed = sync.NewCond(&p.mu)
	for _, m := range mailboxes {
		p.work[m] = new(work)
	}
	return p
}

// LookFirst has no batch given out before all mailboxes are looked into, so that it is
// known from the start how much is to come; but nobody waits longer than that for the
// slowest of them. stop ends the clock.
func (p *Pool[M]) LookFirst(most time.Duration) (stop func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.census = true
	return time.AfterFunc(most, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.census = false
		p.changed.Broadcast()
	}).Stop
}

// Next gives out a unit, which then must be given to Finish or GiveBack: a batch of the
// mailbox that is selected, if none ranks before it and it keeps none waiting that is not
// known yet; else a mailbox nobody has looked into; else a batch of the first rank that
// there is. It waits while more may come, and ok is false when nothing comes any more. Who would have to sign in for it (idle) takes part only if there is more than
// one unit: a sign-in costs more than a small batch. Therefore one who calls Next must
// not be idle. That one waits for nothing but work that another one has in hand, and of
// which more may come, or come back: so what is left over is always somebody's.
func (p *Pool[M]) Next(selected M, idle bool) (u Unit[M], ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended {
		units, first := len(p.unseen), Last
		for _, m := range p.open {
			units += len(p.work[m].batches)
			first = min(first, p.rank(m))
		}
		if len(p.unseen)+p.looking == 0 {
			p.census = false
		}
		w := p.work[selected]
		at := w != nil && len(w.batches) > 0 && w.batches[0].rank == first // it goes on where it is
		switch {
		case at && !p.census && (first < Large || len(p.unseen) == 0):
			return p.take(selected), true
		case units == 0 && p.busy == 0:
			return u, false
		case units == 0 || units == 1 && idle:
			p.changed.Wait()
		case len(p.unseen) > 0:
			u.Mailbox, p.unseen = p.unseen[0], p.unseen[1:]
			p.busy++
			p.looking++
			return u, true
		case p.census:
			p.changed.Wait()
		default:
			return p.take(slices.MaxFunc(p.open, func(a, b M) int {
				return cmp.Or(cmp.Compare(p.rank(b), p.rank(a)), len(p.work[a].batches)-len(p.work[b].batches))
			})), true
		}
	}
	return u, false
}

// rank is that of the next batch of an open mailbox; the caller holds mu.
func (p *Pool[M]) rank(m M) Rank { return p.work[m].batches[0].rank }

// take takes a batch of a mailbox that has one; the caller holds mu.
func (p *Pool[M]) take(m M) Unit[M] {
	w := p.work[m]
	u := Unit[M]{m, w.batches[0].uids, w.batches[0].rank}
	w.batches = w.batches[1:]
	p.busy++
	p.reopen(m)
	return u
}

// reopen puts a mailbox among the open ones, or takes it out, by whether it has batches;
// the caller holds mu.
func (p *Pool[M]) reopen(m M) {
	is := slices.Contains(p.open, m)
	switch has := len(p.work[m].batches) > 0; {
	case has && !is:
		p.open = append(p.open, m)
	case !has && is:
		p.open = slices.DeleteFunc(p.open, func(o M) bool { return o == m })
	}
}

// Give adds batches of a mailbox that was looked into.
func (p *Pool[M]) Give(m M, r Rank, batches [][]imap.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range batches {
		p.work[m].add(batch{b, r}, false)
	}
	p.reopen(m)
	p.changed.Broadcast()
}

// GiveBack leaves a unit, or what is not done of it, to the others.
func (p *Pool[M]) GiveBack(u Unit[M]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if u.Batch == nil {
		p.looking--
		p.unseen = slices.Insert(p.unseen, 0, u.Mailbox)
	} else {
		p.work[u.Mailbox].add(batch{u.Batch, u.Rank}, true)
		p.reopen(u.Mailbox)
	}
	p.changed.Broadcast()
}

// Finish says that nothing more comes of a unit. left is how many of its messages this
// run does not bring.
func (p *Pool[M]) Finish(u Unit[M], left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	w := p.work[u.Mailbox]
	w.left += left
	if u.Batch == nil {
		p.looking--
		w.looked = true
	}
	p.changed.Broadcast()
}

// Drop leaves what nobody has taken of a mailbox.
func (p *Pool[M]) Drop(m M) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.work[m]
	for _, b := range w.batches {
		w.left += len(b.uids)
	}
	w.batches = nil
	p.reopen(m)
}

// End stops giving out work, and gives the mailboxes of which there was some that nobody
// had taken.
func (p *Pool[M]) End() []M {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.changed.Broadcast()
	return slices.Concat(p.unseen, p.open)
}

// Ended tells whether End was called.
func (p *Pool[M]) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Left is what this run did not bring of a mailbox.
type Left[M comparable] struct {
	Mailbox  M
	Messages int
	Unseen   bool // it was not looked into, so that it is not known what that is
}

// Left gives the mailboxes of which something is left, in their order.
func (p *Pool[M]) Left() (out []Left[M]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.all {
		w := p.work[m]
		l := Left[M]{Mailbox: m, Messages: w.left}
		for _, b := range w.batches {
			l.Messages += len(b.uids)
		}
		l.Unseen = !w.looked && l.Messages == 0
		if l.Messages > 0 || l.Unseen {
			out = append(out, l)
		}
	}
	return out
}
