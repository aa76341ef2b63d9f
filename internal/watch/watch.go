// Package watch says when to synchronise: it has the events of servers (one watching
// connection for each account) and of this machine (files, notmuch, a resume) and makes of
// them the least that must be done. What a sync is, and what it is made of, it does not know.
//
// An event says only that something changed. It is never acted upon by itself: the ordinary
// sync finds what it was, so that an event which is lost, doubled or wrong costs time and no
// mail. And each account is looked at as a whole at the start, once an hour, and whenever
// events may have been lost.
package watch

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Line is a signed-in connection, as internal/remote has it.
type Line interface {
	Has(capability string) bool
	List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error)
	Examine(ctx context.Context, mailbox string, known *mail.Known) (*mail.Selected, error)
	Notify(ctx context.Context, tell func(mail.News)) error
	Idle(ctx context.Context, end <-chan struct{}, tell func(mail.News)) error
	Close() error
}

// Account is one account, and what is done with it. The functions are called from several
// goroutines, but Sync never twice at once.
type Account struct {
	Name string
	// Boxes are the mailboxes that have an IDLE each where the server has no NOTIFY.
	Boxes []string
	// Selects tells whether a mailbox is synchronised.
	Selects func(mailbox string) bool
	// Pause is the shortest time between two questions of a timer that the server's
	// provider suffers; 0 if none is known.
	Pause time.Duration
	Dial  func(ctx context.Context) (Line, error)
	// Sync is the ordinary sync of these mailboxes; of the whole account if there are none.
	Sync func(ctx context.Context, only []string, turn Turn) Outcome
	// Settled tells whether it is known of all that is here that the server needs not hear of it:
	// a change was a sync's own doing, or is none that a sync takes there. May be nil.
	Settled func(ctx context.Context) bool
	// Agreed gives which of these mailboxes are as they were agreed on with the server: what it
	// told of them was a sync's own doing, or has come already. May be nil.
	Agreed func(ctx context.Context, told map[string]mail.Status) []string
	// Paused gives the time until when the server is not to be signed in at; zero if it may.
	Paused func(ctx context.Context) time.Time
	// Tagged tells whether notmuch has changes of the account's mail that it had not when
	// Tagged was called last.
	Tagged func(ctx context.Context) bool
	// Refused remembers that the server refused the sign-in or wants to be left alone, so
	// that Paused and Sync know it, and tells it to a person.
	Refused func(ctx context.Context, err error)
	// Away tells a person why there is no connection, when that is no matter of a moment, and
	// Back that there is one, for the first time or again. They are called in turn.
	Away func(err error)
	Back func(how string, again bool)
	// Beside tells what goes on beside the syncs, or holds them up. May be nil.
	Beside func() []Doing
	// Say notes what is odd about the watching.
	Say func(text string)
}

// Turn is one sync while it is at work.
type Turn struct{ a *account }

// Wrote says that it has just written something here: what changes now may be its own doing.
func (t Turn) Wrote() {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	t.a.wrote = time.Now()
}

// Awaited tells whether something waits for its end.
func (t Turn) Awaited() bool {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	return len(t.a.asked) > 0 || t.a.wants.awaited
}

// Outcome is what a sync came to.
type Outcome struct {
	Did       bool // something came, went there, or was changed here
	Busy      bool // another program is at work on the account
	Fail      bool // the server could not be reached, or this machine failed: try again later
	Unreached bool // the server could not be reached, which was told
	Ended     bool // the watch ended before it was begun
	More      bool // it left some for another one, which may begin at once
	// Until is when the server may be tried again; zero if it may at once.
	Until time.Time
	Text  string // in words, what became of it; "" for a sync without a fault
}

// Times are how long things take. The zero value of each is that of Usual.
type Times struct {
	Quiet    time.Duration // an event waits for so long without another one
	Stream   time.Duration // while others keep coming, for so long in all, or four times as long as a sync takes
	Longest  time.Duration // and never longer than that
	Renew    time.Duration // NOTIFY is heard so long before the connection is tried
	Poll     time.Duration // IDLE likewise; then the other mailboxes are asked for
	Mute     time.Duration // the same once IDLE missed something
	Full     time.Duration // between two looks at a whole account
	Busy     time.Duration // another program is at work
	Retry    time.Duration // the first wait after a fault; doubled up to RetryMax
	RetryMax time.Duration
	Look     time.Duration // between two looks whether a pause is over before its time
	Hurry    time.Duration // after a resume or a change of the network no wait is longer than HurryMax for so long
	HurryMax time.Duration
	Own      time.Duration // what changes here so soon after a sync may be its own doing
	Begin    time.Duration // the first sync waits so long for the first connection
	Sure     time.Duration // a connection that holds so long is one
}

// Usual are the times for real servers: they log out after 30 minutes, and routers forget a
// connection that is silent for 15.
func Usual() Times {
	return Times{
		Quiet: 800 * time.Millisecond, Stream: 2 * time.Second, Longest: 30 * time.Second, Renew: 9 * time.Minute, Poll: 5 * time.Minute, Mute: 2 * time.Minute,
		Full: time.Hour, Busy: 2 * time.Second, Retry: time.Second, RetryMax: 5 * time.Minute,
		Look: 10 * time.Second, Hurry: time.Minute, HurryMax: time.Second, Own: 2 * time.Second,
		Begin: 5 * time.Second, Sure: 2 * time.Second,
	}
}

// State is how an account is being watched.
type State struct {
	Account string    `json:"account"`
	How     string    `json:"how"`              // "notify", "idle", "poll"; "" while there is no connection
	Since   time.Time `json:"since,omitzero"`   // that is so
	Fault   string    `json:"fault,omitempty"`  // why there is none
	Synced  time.Time `json:"synced,omitzero"`  // the last sync's end
	Working time.Time `json:"working,omitzero"` // since when a sync is at work; zero while none is
	Beside  []Doing   `json:"beside,omitempty"` // what goes on beside the syncs, or holds them up
}

// Doing is one thing that goes on beside the syncs, or holds them up.
type Doing struct {
	What    string    `json:"what"`           // DoingFetch, DoingIndex, DoingLocked or DoingBusy
	Since   time.Time `json:"since,omitzero"` // zero: not known
	Mailbox string    `json:"mailbox,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"` // of the message
	Came    int64     `json:"came,omitempty"`  // of these
	Text    string    `json:"text"`            // in words
}

// What a Doing may be.
const (
	DoingFetch  = "fetch"  // a large message is on its way
	DoingIndex  = "index"  // libnotmuch is at one thing for long
	DoingLocked = "locked" // another program writes to notmuch's database
	DoingBusy   = "busy"   // another program is at work on the account
)

// Watcher watches accounts. Its methods may be called from several goroutines.
type Watcher struct {
	times    Times
	accounts []*account
	files    *files // nil: nothing here is watched
	changed  chan struct{}
}

// New makes a watcher. Run runs it.
func New(times Times, accounts ...Account) *Watcher {
	w := &Watcher{times: times, changed: make(chan struct{}, 1)}
	for _, a := range accounts {
		w.accounts = append(w.accounts, newAccount(a, times, w.changed))
	}
	return w
}

// Run watches until the context ends, and returns when nothing of it is left.
func (w *Watcher) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, a := range w.accounts {
		wg.Go(func() { a.work(ctx) })
		wg.Go(func() { a.watch(ctx) })
	}
	if w.files != nil {
		wg.Go(func() { w.files.run(ctx) })
	}
	wg.Wait()
}

// Waits says for what an account waits that is not connected yet.
func (w *Watcher) Waits(account, what string) {
	for _, a := range w.accounts {
		if a.Name == account {
			a.waits(what)
		}
	}
}

// News says that something is to be had from mailboxes of an account.
func (w *Watcher) News(account string, mailboxes []string) {
	for _, a := range w.accounts {
		for _, m := range mailboxes {
			if a.Name == account {
				a.news(mail.News{Mailbox: m})
			}
		}
	}
}

// Resumed says that the machine was asleep, or that its clock jumped: no connection is
// worth anything, and anything may have changed.
func (w *Watcher) Resumed() {
	for _, a := range w.accounts {
		a.anew(true)
	}
}

// NetworkChanged says that the machine has other addresses: who waits for the network tries
// at once, and who has a connection finds out whether it still leads anywhere.
func (w *Watcher) NetworkChanged() {
	for _, a := range w.accounts {
		a.anew(false)
	}
}

// Sync has the accounts of these names synchronised at once (all, without names), and waits
// for it. Of a name that is not watched there is no outcome, and of an account that is away
// it is that, at once: it is being tried again anyway.
func (w *Watcher) Sync(ctx context.Context, names []string) (map[string]Outcome, error) {
	out := make(map[string]Outcome)
	waiting := make(map[string]chan Outcome)
	for _, a := range w.accounts {
		if len(names) > 0 && !slices.Contains(names, a.Name) {
			continue
		}
		if fault := a.isAway(); fault != "" {
			out[a.Name] = Outcome{Fail: true, Text: fault}
			continue
		}
		waiting[a.Name] = a.ask()
	}
	for name, c := range waiting {
		select {
		case out[name] = <-c:
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
	return out, nil
}

// Changed gets a value when States tells something else than before.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// States tells how each account is being watched, in their order.
func (w *Watcher) States() []State {
	var out []State
	for _, a := range w.accounts {
		out = append(out, a.now())
	}
	return out
}

// waits is a wait that doubles, from Retry to RetryMax.
type waits struct {
	times Times
	n     int
	hurry time.Time // until then it is HurryMax at most
}

// next gives the next wait, with a share of chance: clients that were cut off together must
// not come back together.
func (b *waits) next() time.Duration {
	d := min(b.times.Retry<<min(b.n, 20), b.times.RetryMax)
	b.n++
	if time.Now().Before(b.hurry) {
		d = min(d, b.times.HurryMax)
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1)) //nolint:gosec // no secret hangs on it
}

func (b *waits) reset() { b.n = 0 }

// sleep waits; false if the context ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return true
}
