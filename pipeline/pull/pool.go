// Package pull is what comes from the server: who fetches what (Pool), and how it is fetched
// over one connection (Worker). What came, and the stubs of what did not, go onto the line.
package pull

import (
	"slices"
	"sync"

	"github.com/emersion/go-imap/v2"
)

// Unit is one piece of work: a mailbox to look into, or messages of it to fetch.
type Unit[M comparable] struct {
	Mailbox M
	Batch   []imap.UID // nil: look into the mailbox
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
	ended   bool
}

// work is what there is to do in one mailbox.
type work struct {
	batches [][]imap.UID
	looked  bool
	left    int // messages that this run does not bring
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

// Next gives out a unit, which then must be given to Finish or GiveBack: of the mailbox
// that is selected, else a mailbox nobody has looked into, else a share of what somebody
// else has looked into. It waits while more may come, and ok is false when nothing comes
// any more. Who would have to sign in for it (idle) takes part only if there is more than
// one unit: a sign-in costs more than a small batch. Therefore one who calls Next must
// not be idle. That one waits for nothing but work that another one has in hand, and of
// which more may come, or come back: so what is left over is always somebody's.
func (p *Pool[M]) Next(selected M, idle bool) (u Unit[M], ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended {
		if w := p.work[selected]; w != nil && len(w.batches) > 0 {
			return p.take(selected), true
		}
		units := len(p.unseen)
		for _, m := range p.open {
			units += len(p.work[m].batches)
		}
		switch {
		case units == 0 && p.busy == 0:
			return u, false
		case units == 0 || units == 1 && idle:
			p.changed.Wait()
		case len(p.unseen) > 0:
			u.Mailbox, p.unseen = p.unseen[0], p.unseen[1:]
			p.busy++
			return u, true
		default:
			return p.take(slices.MaxFunc(p.open, func(a, b M) int { return len(p.work[a].batches) - len(p.work[b].batches) })), true
		}
	}
	return u, false
}

// take takes a batch of a mailbox that has one; the caller holds mu.
func (p *Pool[M]) take(m M) Unit[M] {
	w := p.work[m]
	u := Unit[M]{m, w.batches[0]}
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
func (p *Pool[M]) Give(m M, batches [][]imap.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work[m].batches = append(p.work[m].batches, batches...)
	p.reopen(m)
	p.changed.Broadcast()
}

// GiveBack leaves a unit, or what is not done of it, to the others.
func (p *Pool[M]) GiveBack(u Unit[M]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy--
	if u.Batch == nil {
		p.unseen = slices.Insert(p.unseen, 0, u.Mailbox)
	} else {
		w := p.work[u.Mailbox]
		w.batches = slices.Insert(w.batches, 0, u.Batch)
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
		w.left += len(b)
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
			l.Messages += len(b)
		}
		l.Unseen = !w.looked && l.Messages == 0
		if l.Messages > 0 || l.Unseen {
			out = append(out, l)
		}
	}
	return out
}
