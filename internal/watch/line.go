package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// watch keeps a watching connection until the context ends.
func (a *account) watch(ctx context.Context) {
	wait := waits{times: a.times}
	for {
		if until := a.Paused(ctx); until.After(time.Now()) {
			a.lost("not signed in before " + until.Local().Format("15:04:05"))
			a.mu.Lock()
			a.away = true // as who refused it, or the sync, has told
			a.mu.Unlock()
			if !a.paused(ctx, until) {
				return
			}
			continue
		}
		begun := time.Now()
		err := a.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		if f, ok := errors.AsType[*mail.Fault](err); ok && (f.Kind == mail.KindAuth || f.Kind == mail.KindThrottled) {
			a.Refused(ctx, err)
			a.lost(err.Error())
		} else {
			a.failed(why(err))
		}
		if time.Since(begun) > a.times.RetryMax {
			wait.reset() // it was a good one
		}
		a.mu.Lock()
		if a.jumped {
			a.jumped = false
			wait.reset()
			wait.hurry = time.Now().Add(a.times.Hurry)
		}
		a.mu.Unlock()
		if !sleep(ctx, wait.next(), a.again) {
			return
		}
	}
}

// paused waits until the server may be tried again, or what forbade it is over: others signed
// in meanwhile, or the password is another one. False if the context ended.
func (a *account) paused(ctx context.Context, until time.Time) bool {
	for {
		begun, d := time.Now(), min(time.Until(until), a.times.Look)
		if !sleep(ctx, d, a.again) {
			return false
		}
		if woken := time.Since(begun) < d; woken || !time.Now().Before(until) {
			return a.synced(ctx) // the sync tries first, and remembers what comes of it
		}
		if !a.Paused(ctx).Equal(until) {
			return true
		}
	}
}

// synced has the account synchronised at once; false if the context ended first.
func (a *account) synced(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-a.ask():
		return true
	}
}

// errAsleep is why a connection was dropped.
var errAsleep = errors.New("the machine was asleep")

func why(err error) error {
	if errors.Is(err, context.Canceled) {
		return errAsleep
	}
	return err
}

// connection watches over one connection, and gives why it ended.
func (a *account) connection(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.drop = cancel
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.drop = nil
		a.sure.Stop()
		a.mu.Unlock()
	}()
	l, err := a.Dial(ctx)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // what it was for is over
	w := &line{account: a, Line: l}
	switch {
	case !l.Has("IDLE"):
		return w.polling(ctx)
	case l.Has("NOTIFY"):
		err := w.notified(ctx)
		if _, refused := mail.Refused(err); !refused {
			return err
		}
	}
	// Beside it the other mailboxes of Boxes, as many as the server likes.
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, box := range a.Boxes[min(1, len(a.Boxes)):] {
		wg.Go(func() { a.beside(ctx, box) })
	}
	box := "INBOX"
	if len(a.Boxes) > 0 {
		box = a.Boxes[0]
	}
	err = w.idling(ctx, box)
	if _, refused := mail.Refused(err); refused {
		a.Say(fmt.Sprintf("%v; the server is asked every %v instead", err, a.times.Poll))
		return w.polling(ctx)
	}
	return err
}

// beside keeps an IDLE on one more mailbox. Without it, that is polled like all others.
func (a *account) beside(ctx context.Context, box string) {
	wait := waits{times: a.times}
	for told := false; ; {
		err := func() error {
			l, err := a.Dial(ctx)
			if err != nil {
				return err
			}
			defer l.Close() //nolint:errcheck // what it was for is over
			return (&line{account: a, Line: l, alone: true}).idling(ctx, box)
		}()
		if ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			a.Say(fmt.Sprintf("%s is not watched for now, and asked for every %v instead: %v", box, a.times.Poll, err))
		}
		if !sleep(ctx, max(wait.next(), a.times.HurryMax), nil) {
			return
		}
	}
}

// line is a connection that watches.
type line struct {
	*account
	Line
	alone bool                   // another one polls
	known map[string]mail.Status // of the mailboxes when they were listed last, without those that news came of; nil: not known
	box   string                 // that has the IDLE; "" for NOTIFY
	boxes int                    // how many there were
	heard bool                   // news came by IDLE since the last look
	mute  bool                   // IDLE missed something
}

// notified watches by NOTIFY.
func (l *line) notified(ctx context.Context) error {
	for first, over := true, false; ; first = false {
		before := over
		over = false
		heed := func(n mail.News) bool {
			over = over || n.Over
			l.tell(n)
			return n.Over // the server tells no more until it is asked again
		}
		if err := l.Notify(ctx, func(n mail.News) { heed(n) }); err != nil {
			return err
		}
		if first {
			l.connected("notify")
		}
		// What it does not hear of itself shows at the next look.
		if err := l.poll(ctx); err != nil {
			return err
		}
		if err := l.wait(ctx, l.times.Renew, heed); err != nil {
			return err
		}
		if over && before {
			// It has more to tell than it can.
			return &mail.Fault{Kind: mail.KindNo, Op: "NOTIFY", Text: "NOTIFICATIONOVERFLOW"}
		}
	}
}

// idling watches one mailbox by IDLE, and polls the others.
func (l *line) idling(ctx context.Context, box string) error {
	l.box = box
	var known *mail.Status
	for first := true; ; first = false {
		if err := l.poll(ctx); err != nil {
			return err
		}
		sel, err := l.Examine(ctx, box, nil)
		if err != nil {
			return err
		}
		switch {
		case first && !l.alone:
			l.connected("idle")
		case first:
			l.news(mail.News{Mailbox: box})
		case sel.Status != *known:
			l.news(mail.News{Mailbox: box, Status: sel.Status, Gone: true})
			// Beside a busy mailbox the last of the news may have been on its way.
			if !l.heard && !l.mute {
				l.mute = true
				l.Say(fmt.Sprintf("IDLE tells nothing of %s; the server is asked every %v", box, l.times.Mute))
			}
		}
		known, l.heard = &sel.Status, false
		every := l.times.Poll
		if l.mute {
			every = l.times.Mute
		}
		if err := l.wait(ctx, every, func(n mail.News) bool {
			l.heard = true
			l.tell(n)
			return false
		}); err != nil {
			return err
		}
	}
}

// tell passes news on. What is told need not be found out by asking.
func (l *line) tell(n mail.News) {
	if n.Mailbox == "" {
		l.known = nil
	}
	delete(l.known, n.Mailbox)
	l.news(n)
}

// polling asks how the mailboxes are, now and then.
func (l *line) polling(ctx context.Context) error {
	for first := true; ; first = false {
		if err := l.poll(ctx); err != nil {
			return err
		}
		if first {
			l.connected("poll")
		}
		if !sleep(ctx, l.times.Poll, l.again) {
			return ctx.Err()
		}
	}
}

// wait hears news for a while, or until somebody wants the connection tried. heed tells
// whether that is enough.
//
// After a sync that changed something the server is asked anew. Dovecot watches the log of a
// mailbox, and goes on to watch the old one when it begins another (all five minutes, if there
// is traffic): then it looks twice a minute, and tells nothing at once any more.
func (l *line) wait(ctx context.Context, d time.Duration, heed func(mail.News) bool) error {
	enough := make(chan struct{}, 1)
	hear := func(n mail.News) {
		if heed(n) {
			signal(enough)
		}
	}
	until, took, changed := time.Now().Add(d), time.Duration(0), l.hasChanged()
	for {
		stale, err := l.idle(ctx, time.Until(until), changed, max(l.times.Quiet, renewalShare*took), enough, hear)
		if err != nil || !stale {
			return err
		}
		changed = l.hasChanged()
		if l.box != "" {
			continue // it watches anew with each IDLE
		}
		begun := time.Now()
		if err := l.Notify(ctx, hear); err != nil {
			return err
		}
		took = time.Since(begun)
	}
}

// renewalShare has NOTIFY asked anew at most for one part in so many of the time: with many
// mailboxes the answer is long.
const renewalShare = 20

// idle is one IDLE, of d at most. stale tells that it was ended so long after changed as settle says.
func (l *line) idle(ctx context.Context, d time.Duration, changed <-chan struct{}, settle time.Duration, enough <-chan struct{}, hear func(mail.News)) (stale bool, err error) {
	end, over := make(chan struct{}), make(chan struct{})
	again := l.again
	if l.alone {
		again = nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(end)
		t := time.NewTimer(d)
		defer t.Stop()
		var settled <-chan time.Time
		for {
			select {
			case <-changed:
				changed, settled = nil, time.After(settle)
				continue
			case <-settled:
				stale = true
			case <-t.C:
			case <-again:
			case <-enough:
			case <-over:
			}
			return
		}
	})
	err = l.Idle(ctx, end, hear)
	close(over)
	wg.Wait()
	return stale, err
}

// poll asks how all mailboxes are, and makes news of what is not as it was.
func (l *line) poll(ctx context.Context) error {
	if l.alone {
		return nil
	}
	list, err := l.List(ctx, mail.Listing{Skip: func(m mail.Mailbox) bool { return l.Selects != nil && !l.Selects(m.Name) }})
	if _, refused := mail.Refused(err); refused {
		return nil // the next look at all will say so
	}
	if err != nil {
		return err
	}
	now := make(map[string]mail.Status, len(list))
	for _, m := range list {
		if m.Status == nil || m.Odd {
			continue
		}
		now[m.Name] = *m.Status
		if before, ok := l.known[m.Name]; ok && before != *m.Status && m.Name != l.box {
			l.news(mail.News{Mailbox: m.Name, Status: *m.Status, Gone: m.Status.Messages < before.Messages})
		}
	}
	if l.boxes > 0 && l.boxes != len(now) {
		l.look() // some were made or deleted
	}
	l.known, l.boxes = now, len(now)
	return nil
}
