package watch

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// account is one account while it is being watched.
type account struct {
	Account
	times Times
	began time.Time
	wake  chan struct{} // there is something for work
	again chan struct{} // for watch: connect now, or try the connection

	mu        sync.Mutex
	wants     want
	asked     []chan Outcome
	over      bool // nobody is answered any more
	syncing   bool
	ended     time.Time     // of the last sync
	took      time.Duration // the last sync
	wrote     time.Time     // when a sync last wrote something here, as far as it said
	follow    int           // syncs in a row that found nothing and were due to what they themselves had done
	hold      time.Time     // no sync before that, unless somebody asks
	pausing   bool          // that is so since the server is not to be signed in at
	drop      func()        // ends the connection that watches; nil if there is none
	jumped    bool          // the next waits are short
	tried     bool          // there was a connection, or a reason for none
	fails     int           // connections in a row that did not hold
	away      bool          // that was told
	held      bool          // one did
	sure      *time.Timer
	stands    chan struct{} // gets a value when state is another
	state     State
	clean     bool          // the last sync came to its end, without a fault
	busy      string        // what another program has kept the last sync from
	busySince time.Time     // that is so
	did       chan struct{} // is closed when a sync has changed something
}

// want is what is to be synchronised.
type want struct {
	told    map[string]mail.News // these mailboxes, by the last that was told of each
	here    bool                 // all, for changes of files and tags here
	whole   bool                 // all, for another reason
	awaited bool                 // a sync at work is to give way to it
	own     bool                 // a sync may have changed the files itself; and nothing else is wanted
	first   time.Time            // when the first of it came; zero: nothing is wanted
	last    time.Time
}

func newAccount(a Account, times Times, stands chan struct{}) *account {
	times.Poll, times.Mute, times.Stream = max(times.Poll, a.Pause), max(times.Mute, a.Pause), max(times.Stream, a.Pause)
	w := &account{Account: a, times: times, began: time.Now(), stands: stands, wake: make(chan struct{}, 1), again: make(chan struct{}, 1), did: make(chan struct{}), state: State{Account: a.Name, Since: time.Now()}}
	w.sure = time.AfterFunc(times.Sure, w.holds)
	w.sure.Stop() // until there is a connection
	return w
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// at notes when something came to be wanted. a.mu is held, as for the next.
func (w *want) at(now time.Time, own bool) {
	if w.first.IsZero() {
		w.first, w.own = now, own
	}
	w.last, w.own = now, w.own && own
	w.awaited = w.awaited || !own
}

// add adds what the server tells. Without a mailbox it may be any of them.
func (w *want) add(now time.Time, n mail.News) {
	w.at(now, false)
	if n.Mailbox == "" {
		w.whole = true
		return
	}
	if w.told == nil {
		w.told = make(map[string]mail.News)
	}
	before, had := w.told[n.Mailbox]
	switch {
	case !had || !ofFlags(n.Status):
	case ofFlags(before.Status):
		n.Status.HighestModSeq = max(n.Status.HighestModSeq, before.Status.HighestModSeq)
	default: // it says nothing of what was told before
		n.Status = mail.Status{}
	}
	n.Gone = n.Gone || before.Gone
	w.told[n.Mailbox] = n
}

// ofFlags tells whether a status is that of a change of flags alone.
func ofFlags(st mail.Status) bool { return st.UIDNext == 0 && st.HighestModSeq != 0 }

// then adds what came to be wanted later.
func (w want) then(later want) want {
	if later.first.IsZero() {
		return w
	}
	for _, n := range later.told {
		w.add(later.last, n)
	}
	w.last, w.own = later.last, w.own && later.own
	w.here, w.whole, w.awaited = w.here || later.here, w.whole || later.whole, w.awaited || later.awaited
	return w
}

// maxOnly is how many mailboxes are synchronised by name: more than these are as much work
// as all.
const maxOnly = 20

// names gives the mailboxes that are wanted; nil for all.
//
// Mail that left a mailbox may be in another one: only a look at all of them sees that it was
// moved.
func (w *want) names() []string {
	if w.whole || w.here || len(w.told) > maxOnly {
		return nil
	}
	for _, n := range w.told {
		if n.Gone {
			return nil
		}
	}
	return slices.Sorted(maps.Keys(w.told))
}

// news takes what the server tells.
func (a *account) news(n mail.News) {
	if n.Mailbox != "" && a.Selects != nil && !a.Selects(n.Mailbox) {
		return
	}
	a.mu.Lock()
	a.wants.add(time.Now(), n)
	a.mu.Unlock()
	signal(a.wake)
}

// look wants the whole account looked at.
func (a *account) look() { a.news(mail.News{}) }

// changed says that something changed here: mail or tags, or else folders.
func (a *account) changed(folders bool) {
	a.mu.Lock()
	now := time.Now()
	a.wants.at(now, a.syncing || now.Before(a.ended.Add(a.times.Own)))
	a.wants.here, a.wants.whole = true, a.wants.whole || folders
	// Its own hooks may write at any time, but then it is not kept from more than large mail.
	a.wants.awaited = a.wants.awaited || !now.Before(a.wrote.Add(a.times.Own))
	a.mu.Unlock()
	signal(a.wake)
}

// ask wants it now, and gives where the outcome comes.
func (a *account) ask() chan Outcome {
	c := make(chan Outcome, 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		c <- ended()
		return c
	}
	a.asked = append(a.asked, c)
	signal(a.wake)
	return c
}

// due gives how long to wait until the next sync; ok is false if none is wanted.
func (a *account) due() (d time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) > 0 {
		return 0, true
	}
	if a.wants.first.IsZero() {
		return 0, false
	}
	at := a.wants.last.Add(a.times.Quiet)
	// What comes without a pause is not synchronised without a pause.
	if latest := a.wants.first.Add(min(max(a.times.Stream, 4*a.took), a.times.Longest)); latest.Before(at) {
		at = latest
	}
	if a.wants.own {
		// A hook that writes after each sync would else keep us at it for ever.
		if later := a.ended.Add(min(a.times.Quiet<<min(a.follow, 20), a.times.RetryMax)); later.After(at) {
			at = later
		}
	}
	if a.hold.After(at) {
		at = a.hold
	}
	if begin := a.began.Add(a.times.Begin); !a.tried && begin.After(at) {
		at = begin // a sign-in that is refused is refused once
	}
	return time.Until(at), true
}

// work runs the syncs, one after the other.
func (a *account) work(ctx context.Context) {
	defer a.leave()
	failing := waits{times: a.times}
	busy := waits{times: Times{Retry: a.times.Busy, RetryMax: 2 * a.times.Busy}}
	full := time.NewTimer(0)
	defer full.Stop()
	for {
		var timer <-chan time.Time
		d, ok := a.due()
		if ok && d <= 0 && a.isKnown(ctx) {
			continue
		}
		if ok && d <= 0 {
			if a.run(ctx, &failing, &busy) {
				full.Reset(a.times.Full)
			}
			if ctx.Err() != nil {
				return
			}
			continue
		}
		var t *time.Timer
		if ok {
			if a.isPaused() {
				d = min(d, a.times.Look) // it may be over before its time
			}
			t = time.NewTimer(d)
			timer = t.C
		}
		select {
		case <-ctx.Done():
		case <-a.wake:
		case <-timer:
			if a.isPaused() && !a.Paused(ctx).After(time.Now()) {
				a.mu.Lock()
				a.hold, a.pausing = time.Time{}, false
				a.mu.Unlock()
			}
		case <-full.C:
			full.Reset(a.times.Full)
			a.look()
		}
		if t != nil {
			t.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// isKnown forgets what of that which is wanted needs no sync, as what a sync itself wrote here
// and what the server tells of that, and tells whether nothing is left.
func (a *account) isKnown(ctx context.Context) bool {
	a.mu.Lock()
	w := a.wants
	may := a.clean && len(a.asked) == 0 && !w.whole
	if may {
		a.wants = want{}
	}
	a.mu.Unlock()
	if !may {
		return false
	}
	if w.here && a.Settled != nil {
		w.here = !a.Settled(ctx)
	}
	a.forgetAgreed(ctx, w.told)
	if !w.here && len(w.told) == 0 {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wants = w.then(a.wants)
	return false
}

// forgetAgreed takes out of what was told the mailboxes that are as they were agreed on.
func (a *account) forgetAgreed(ctx context.Context, told map[string]mail.News) {
	statuses := make(map[string]mail.Status)
	for name, n := range told {
		if n.Status != (mail.Status{}) && (!n.Gone || !ofFlags(n.Status)) {
			statuses[name] = n.Status
		}
	}
	if len(statuses) == 0 || a.Agreed == nil {
		return
	}
	for _, name := range a.Agreed(ctx, statuses) {
		delete(told, name)
	}
}

// hasChanged gives what is closed when a sync has changed something from now on.
func (a *account) hasChanged() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.did
}

// isPaused tells whether there is no sync since the server is not to be signed in at.
func (a *account) isPaused() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pausing
}

// ended is the outcome of a sync that is not begun any more.
func ended() Outcome { return Outcome{Fail: true, Ended: true} }

// leave answers whoever still asks.
func (a *account) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.asked {
		c <- ended()
	}
	a.asked, a.over = nil, true
}

// run runs one sync, and tells whether it was of the whole account.
func (a *account) run(ctx context.Context, failing, busy *waits) (whole bool) {
	a.mu.Lock()
	wants, asked := a.wants, a.asked
	a.wants, a.asked, a.syncing, a.pausing, a.state.Working = want{}, nil, true, false, time.Now()
	a.mu.Unlock()
	only := wants.names()
	if len(asked) > 0 {
		only = nil
	}
	begun := time.Now()
	whole = only == nil
	out := a.Sync(ctx, only, Turn{a})
	back := func() {}
	defer func() { back() }()
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.syncing, a.ended, a.took, a.state.Working, a.busy = false, now, now.Sub(begun), time.Time{}, ""
	a.clean = !out.Busy && !out.Fail && !out.More && out.Text == ""
	if !out.Busy {
		a.busySince = time.Time{}
	}
	for _, c := range asked {
		c <- out
	}
	if out.Did {
		close(a.did)
		a.did = make(chan struct{})
	}
	if ctx.Err() != nil {
		return whole
	}
	switch {
	case out.Busy:
		a.busy = out.Text
		if a.busySince.IsZero() {
			a.busySince = begun
		}
		a.hold = now.Add(busy.next())
	case out.Fail:
		a.away = a.away || out.Unreached
		if a.state.How != "" {
			signal(a.again) // what did not reach the server says that this may lead nowhere, either
		}
		a.hold = now.Add(failing.next())
		if out.Until.After(a.hold) {
			a.hold, a.pausing = out.Until, true
		}
	default:
		a.hold, a.state.Synced = time.Time{}, now
		failing.reset()
		busy.reset()
		if wants.own && !out.Did && len(asked) == 0 {
			a.follow++
		} else {
			a.follow = 0
		}
		if a.away && a.state.How != "" { // the connection may have held all the while
			how, again := a.state.How, a.held
			a.away, a.held = false, true
			back = func() { a.Back(how, again) }
		}
		if out.More {
			a.wants.add(now, mail.News{})
		}
		return whole
	}
	// What was wanted still is. Of what failed as a whole it is not known what is left.
	if out.Fail || wants.first.IsZero() {
		a.wants.add(now, mail.News{})
		return whole
	}
	wants.first, wants.last = now, now
	a.wants = wants.then(a.wants)
	return whole
}

// connected notes how the account is watched from now on. What may have been missed until
// then is looked for.
func (a *account) connected(how string) {
	a.mu.Lock()
	a.state.How, a.state.Since, a.state.Fault = how, time.Now(), ""
	a.hold, a.tried = time.Time{}, true
	a.sure.Reset(a.times.Sure)
	a.mu.Unlock()
	signal(a.stands)
	a.look()
}

// lost notes that it is not watched, and why.
func (a *account) lost(why string) {
	a.mu.Lock()
	if a.state.How != "" || a.state.Fault == "" {
		a.state.Since = time.Now()
	}
	a.state.How, a.state.Fault, a.tried = "", why, true
	a.mu.Unlock()
	signal(a.stands)
	signal(a.wake)
}

// waits notes for what it waits that is not connected.
func (a *account) waits(what string) {
	a.mu.Lock()
	if a.state.How == "" {
		a.state.Fault = what
	}
	a.mu.Unlock()
	signal(a.stands)
}

// failed tells why there is no connection: the first time may be a matter of a moment.
func (a *account) failed(err error) {
	a.lost(err.Error())
	a.mu.Lock()
	a.fails++
	tell := a.fails > 1 && !a.away
	a.away = a.away || tell
	known := a.away
	a.mu.Unlock()
	switch {
	case tell:
		a.Away(err)
	case !known:
		a.Say(err.Error() + "; connecting again")
	}
}

// holds says that the connection is one.
func (a *account) holds() {
	a.mu.Lock()
	if a.state.How == "" {
		a.mu.Unlock()
		return
	}
	tell, how := a.away || !a.held, a.state.How
	again := a.held
	a.fails, a.away, a.held = 0, false, true
	a.mu.Unlock()
	if tell {
		a.Back(how, again)
	}
}

// isAway says why the account cannot be reached, if that is no matter of a moment; "" if it can,
// or is about to be tried.
func (a *account) isAway() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.away || a.state.How != "" {
		return ""
	}
	return "not connected since " + a.state.Since.Local().Format("15:04") + ": " + a.state.Fault
}

func (a *account) now() State {
	var beside []Doing
	if a.Beside != nil {
		beside = a.Beside()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	state := a.state
	if state.Beside = beside; len(beside) == 0 && a.busy != "" {
		state.Beside = []Doing{{What: DoingBusy, Since: a.busySince, Text: a.busy}}
	}
	return state
}

// anew has the connection made anew, or only tried if it is not sure to be dead.
func (a *account) anew(dead bool) {
	a.mu.Lock()
	drop := a.drop
	a.jumped = true
	a.mu.Unlock()
	if dead && drop != nil {
		drop()
	}
	if dead {
		a.look()
	}
	signal(a.again)
}
