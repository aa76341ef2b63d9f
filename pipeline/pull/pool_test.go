package pull

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"
)

func batches(uids ...imap.UID) (out [][]imap.UID) {
	for _, u := range uids {
		out = append(out, []imap.UID{u})
	}
	return out
}

// What a connection gets next: what it has selected, else what nobody has looked into,
// else of that which has most.
func TestAPoolPrefersWhatIsSelected(t *testing.T) {
	p := NewPool([]string{"a", "b", "c"})
	next := func(selected, mailbox string, batch ...imap.UID) Unit[string] {
		t.Helper()
		u, ok := p.Next(selected, false)
		if !ok || u.Mailbox != mailbox || !slices.Equal(u.Batch, batch) {
			t.Fatalf("with %q selected came %v, %v, not %s %v", selected, u, ok, mailbox, batch)
		}
		return u
	}
	a := next("", "a")
	p.Give("a", Usual, batches(3, 2))
	p.Finish(a, 0)
	next("a", "a", 3)
	b := next("", "b")
	p.Give("b", Usual, batches(9, 8, 7))
	p.Finish(b, 0)
	c := next("", "c")
	p.GiveBack(c)
	next("", "c")
	next("c", "b", 9)
	next("", "b", 8)
	next("", "a", 2) // it has as many as b, and was there before
}

// What ranks first comes first, whatever is selected; and nothing large comes before all
// mailboxes are known. What is given back keeps its place.
func TestAPoolGivesByRank(t *testing.T) {
	p := NewPool([]string{"INBOX", "b", "c"})
	next := func(selected, mailbox string, batch ...imap.UID) Unit[string] {
		t.Helper()
		u, ok := p.Next(selected, false)
		if !ok || u.Mailbox != mailbox || !slices.Equal(u.Batch, batch) {
			t.Fatalf("with %q selected came %v, %v, not %s %v", selected, u, ok, mailbox, batch)
		}
		return u
	}
	inbox := next("", "INBOX")
	p.Give("INBOX", Last, batches(1))
	p.Give("INBOX", Large, batches(3))
	p.Give("INBOX", Awaited, batches(9, 8))
	p.Finish(inbox, 0)
	next("INBOX", "INBOX", 9)
	p.GiveBack(next("INBOX", "INBOX", 8))
	next("INBOX", "INBOX", 8)
	b := next("INBOX", "b")
	p.Give("b", Large, batches(7))
	p.Give("b", Usual, batches(6, 5))
	p.Finish(b, 0)
	next("b", "b", 6)
	p.GiveBack(next("b", "b", 5))
	next("INBOX", "c")
	next("INBOX", "b", 5)
	next("b", "b", 7)
	next("b", "INBOX", 3)
	next("b", "INBOX", 1)
}

// Where it is to be known first how much comes, no batch is given out while a mailbox may
// have more; but the slowest of them does not keep all waiting for ever.
func TestAPoolLooksFirst(t *testing.T) {
	for _, slow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := NewPool([]string{"a", "b"})
			defer p.LookFirst(10 * time.Second)()
			begun := time.Now()
			a, _ := p.Next("", false)
			p.Give("a", Usual, batches(2, 1))
			p.Finish(a, 0)
			b, _ := p.Next("a", false)
			if b.Mailbox != "b" || b.Batch != nil {
				t.Fatalf("%v came before all were looked into", b)
			}
			given := make(chan Unit[string], 1)
			go func() {
				u, _ := p.Next("a", false)
				given <- u
			}()
			synctest.Wait()
			if len(given) > 0 {
				t.Error("a batch was given out during a look")
			}
			if !slow {
				p.Finish(b, 0)
			}
			u := <-given
			if took := time.Since(begun); u.Batch == nil || slow != (took >= 10*time.Second) {
				t.Errorf("slow is %v: %v after %v", slow, u, took)
			}
		})
	}
}

// Where a sign-in would be needed for the last piece, it is left to who is signed in.
func TestAPoolSparesASignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool([]string{"a"})
		idle := false
		go func() {
			_, idle = p.Next("", true)
		}()
		synctest.Wait()
		u, ok := p.Next("", false)
		if idle || !ok || u.Mailbox != "a" {
			t.Fatalf("the idle one got it: %v, %v", u, ok)
		}
		p.Give("a", Usual, batches(2, 1))
		synctest.Wait()
		if !idle {
			t.Error("two pieces are left, and the idle one waits")
		}
	})
}

// Who waits is let go when the run is over.
func TestAPoolLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool([]string{"a"})
		p.Next("", false)
		gone := false
		go func() {
			_, ok := p.Next("", false)
			gone = !ok
		}()
		synctest.Wait()
		if gone {
			t.Error("who may get more did not wait for it")
		}
		p.End()
		synctest.Wait()
		if !gone {
			t.Error("the run is over, and one waits")
		}
	})
}

// What was not brought is told by mailbox, once.
func TestAPoolTellsWhatIsLeft(t *testing.T) {
	p := NewPool([]string{"a", "b", "c", "d", "e"})
	for range 4 {
		u, _ := p.Next("", false)
		switch u.Mailbox {
		case "a", "b", "c":
			p.Give(u.Mailbox, Usual, [][]imap.UID{{5, 4}, {3}})
		}
		p.Finish(u, 0)
	}
	u, _ := p.Next("a", false)
	p.Finish(u, 1) // one of two came
	p.Drop("b")
	for range 2 {
		u, _ = p.Next("c", false)
		p.Finish(u, 0)
	}
	if got := p.End(); !slices.Equal(got, []string{"e", "a"}) {
		t.Errorf("not taken: %v", got)
	}
	if _, ok := p.Next("a", false); ok || !p.Ended() {
		t.Error("work was given out after the end")
	}
	want := []Left[string]{{Mailbox: "a", Messages: 2}, {Mailbox: "b", Messages: 3}, {Mailbox: "e", Unseen: true}}
	if got := p.Left(); !slices.Equal(got, want) {
		t.Errorf("left: %v, not %v", got, want)
	}
}

// What becomes of a unit.
const (
	well    = iota
	faulty  // its mailbox's fault: nothing of it is done
	halved  // the connection is lost in the middle; of another one it would go on
	lost    // the connection is lost, and stays so
	refused // the account is left
	outcomes
)

// player is a connection that plays a script: it waits with each unit until it is told
// what becomes of it.
type player struct {
	*Pool[string]
	per   int // batches of two messages in a mailbox
	first bool
	turn  chan int // outcomes

	given, came map[imap.UID]int
	gaveUp      int
	holds       bool // it has a unit
	over        bool
}

func (p *player) run() {
	defer func() { p.over = true }()
	signedIn, selected := p.first, ""
	for {
		u, ok := p.Next(selected, !signedIn)
		if !ok {
			return
		}
		p.holds, signedIn, selected = true, true, u.Mailbox
		o := <-p.turn
		p.holds = false
		done := u.Batch
		switch o {
		case faulty, lost, refused:
			done = nil
		case halved:
			done = u.Batch[:len(u.Batch)/2]
		}
		for _, uid := range done {
			p.came[uid]++
		}
		rest := u.Batch[len(done):]
		if !p.first && (o == lost || o == halved) {
			if u.Batch == nil || len(rest) > 0 {
				p.GiveBack(Unit[string]{u.Mailbox, rest, u.Rank})
			} else {
				p.Finish(u, 0)
			}
			return
		}
		if u.Batch == nil && o == well {
			var bs [][]imap.UID
			for i := range p.per {
				uid := imap.UID(1000*int(u.Mailbox[0]) + 2*i + 1)
				bs = append(bs, []imap.UID{uid, uid + 1})
				p.given[uid]++
				p.given[uid+1]++
			}
			p.Give(u.Mailbox, Usual, bs)
		}
		p.gaveUp += len(rest)
		p.Finish(u, len(rest))
		if o == refused || p.first && o == lost {
			p.End()
			return
		}
	}
}

// A run always ends, whatever becomes of each unit, in whatever order and whoever has it,
// and all that was there came once or is told as left. The players wait for their turns,
// so that what is tried does not depend on any clock or scheduler.
func TestAPoolAlwaysEnds(t *testing.T) {
	const turns = 2 * outcomes // whose turn it is, and what becomes of the unit
	for _, c := range []struct{ mailboxes, per, players, length int }{
		{1, 1, 1, 2}, {1, 1, 2, 3}, {1, 3, 2, 3}, {2, 1, 2, 4}, {2, 2, 3, 4}, {3, 0, 2, 3}, {3, 1, 4, 4},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			scripts := 1
			for range c.length {
				scripts *= turns
			}
			for n := range scripts {
				var script []int
				for i, k := 0, n; i < c.length; i, k = i+1, k/turns {
					script = append(script, k%turns)
				}
				synctest.Test(t, func(t *testing.T) { play(t, c.mailboxes, c.per, c.players, script) })
				if t.Failed() {
					t.Fatalf("script %v", script)
				}
			}
		})
	}
}

func play(t *testing.T, mailboxes, per, players int, script []int) {
	pool := NewPool([]string{"a", "b", "c"}[:mailboxes])
	given, came := make(map[imap.UID]int), make(map[imap.UID]int)
	var all []*player
	for i := range players {
		all = append(all, &player{Pool: pool, per: per, first: i == 0, turn: make(chan int), given: given, came: came})
		go all[i].run()
	}
	for {
		synctest.Wait()
		var holding []*player
		for _, p := range all {
			if p.holds {
				holding = append(holding, p)
			}
		}
		if len(holding) == 0 {
			break
		}
		who, what := 0, well
		if len(script) > 0 {
			who, what, script = script[0]/outcomes, script[0]%outcomes, script[1:]
		}
		holding[who%len(holding)].turn <- what
	}
	ended, gaveUp := pool.Ended(), 0
	for i, p := range all {
		gaveUp += p.gaveUp
		if !p.over {
			t.Errorf("player %d waits, and nobody has anything in hand", i)
		}
	}
	pool.End() // lets them go
	left := 0
	for _, l := range pool.Left() {
		left += l.Messages
		if l.Unseen && !ended {
			t.Errorf("nobody looked into %s", l.Mailbox)
		}
	}
	if left != gaveUp && !ended {
		t.Errorf("%d left, of which %d were given up", left, gaveUp)
	}
	for uid, n := range came {
		if n != 1 {
			t.Errorf("UID %d came %d times", uid, n)
		}
	}
	if len(came)+left != len(given) {
		t.Errorf("%d given, %d came, %d left", len(given), len(came), left)
	}
}
