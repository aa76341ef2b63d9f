package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/internal/watch"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

const watchName = "watch"

func (p *program) watchCommand() *cli.Command {
	return &cli.Command{
		Name:      watchName,
		Usage:     "stay, and synchronise whenever something changes",
		ArgsUsage: "[ACCOUNT]...",
		Description: `Synchronises all accounts, or those that are named, and then whatever changes, as soon as it does: on the servers,
which tell it over one connection for each account, and here, in the folders and in notmuch's tags. Every account is looked at as a whole once an
hour, and after a time asleep.

Other commands work beside it. It runs until it is interrupted; a hang-up has it read the configuration again.`,
		Flags:  append(outputFlags(), recordFlags()...),
		Action: p.watchAction,
	}
}

// errReload ends a watch that begins anew with the configuration of now.
var errReload = errors.New("reload")

func (p *program) watchAction(c *cli.Context) error {
	out, err := p.output(c)
	if err != nil {
		return err
	}
	defer out.close()
	out.meter = nil // it would never end
	if out.most == showAll && !out.json {
		out.most = showResults
	}
	if p.inside(out) {
		return nil
	}
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	conf, err := config.Find(c.String("config"), p.getenv)
	if err != nil {
		return err
	}
	var lock *os.File
	err = p.patiently(c.Context, out, func() (err error) {
		lock, err = p.lockWatch(conf)
		return err
	})
	if errors.Is(err, errWatched) {
		out.fault(err.Error())
		return errLater
	}
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // which ends it
	d, err := openDoor(p.watchSocket(conf))
	if err != nil {
		out.fault(fmt.Sprintf("others cannot ask this watch: %v", err))
	}
	ctx, cancel := context.WithCancel(c.Context)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if d != nil {
		wg.Go(func() { d.serve(ctx) })
	}
	stopping := func() { p.manager().tell("STOPPING=1") }
	defer stopping()
	defer context.AfterFunc(c.Context, stopping)() // what is under way may take its time
	reached := make(map[string]*remote.Names)
	for {
		var v *vigil
		if err := p.patiently(c.Context, out, func() (err error) {
			v, err = p.vigil(c.Context, accounts, out)
			return err
		}); err != nil {
			return err
		}
		v.reached = reached
		err = v.watch(c.Context, watch.Usual(), d, func() error {
			// What is wrong now must not end what was right before.
			now, err := p.accounts(c)
			if err == nil {
				_, err = p.vigil(c.Context, now, out)
			}
			if err == nil {
				accounts = now
			}
			return err
		})
		if !errors.Is(err, errReload) {
			return err
		}
		// It may be another one by now: who was at work then was let end.
		if now, err := p.accounts(c); err == nil {
			accounts = now
		}
	}
}

// patiently does what the watch cannot begin without, and again while there is no room for it:
// that passes, as it does for a watch at work.
func (p *program) patiently(ctx context.Context, out *output, begin func() error) error {
	for told := false; ; told = true {
		err := begin()
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return err
		}
		if !told {
			out.fault(err.Error() + "; " + pipeline.Remedy(err))
		}
		p.manager().tell("READY=1", "STATUS="+inLine(err.Error()), "WATCHDOG=1")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(beginAgain):
		}
	}
}

// beginAgain is after how long what there was no room for is begun again.
const beginAgain = 5 * time.Second

// vigil begins to watch accounts, and tells what is wrong with their configuration before
// anything is done.
func (p *program) vigil(ctx context.Context, accounts []config.Account, out *output) (*vigil, error) {
	idx, err := p.openIndex(ctx, accounts, out)
	if err != nil {
		return nil, err
	}
	v := &vigil{program: p, idx: idx, out: out, all: accounts, carriers: make(map[string]*pipeline.Carrier)}
	v.keys = p.newSecrets(v.waits)
	for i := range accounts {
		if _, err := remoteOptions(&accounts[i], v.keys); err != nil {
			return nil, err
		}
	}
	runner, err := p.runner(idx, accounts...)
	if err != nil {
		return nil, err
	}
	return v, runner.Close()
}

// watch watches until the context ends, or until a hang-up after which reload reads the
// configuration again: errReload.
func (v *vigil) watch(ctx context.Context, times watch.Times, d *door, reload func() error) error {
	p, out, idx := v.program, v.out, v.idx
	var watched []watch.Account
	var roots []string
	for i := range v.all {
		a := &v.all[i]
		root := filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder))
		roots = append(roots, root)
		state, err := a.StateDir(p.getenv)
		if err != nil {
			return err
		}
		v.carriers[a.Name] = pipeline.NewCarrier(state, time.Now)
		watched = append(watched, v.account(ctx, a, root))
	}
	w := watch.New(times, watched...)
	v.w = w
	remark := func(text string) { out.remark(name, text) }
	if err := w.Files(roots, idx.DatabasePath(), func(text string) { out.fault(text) }); err != nil {
		out.fault(fmt.Sprintf("changes here are not seen at once, but within the hour: %v", err))
	}
	d.now(w)
	defer d.now(nil)
	running, cancel := context.WithCancelCause(ctx)
	v.end = cancel
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		for {
			select {
			case <-running.Done():
				return
			case <-p.hangUp:
			}
			err := reload()
			switch {
			case running.Err() != nil: // that is what it met
				return
			case err == nil:
				p.manager().tell("RELOADING=1")
				out.result(name, "the configuration is read again as soon as what is under way has ended")
				cancel(errReload)
				return
			}
			out.fault("the configuration is not read again: " + err.Error() + "; that of before holds")
		}
	})
	for i := range v.all {
		wg.Go(func() { v.carry(running, &v.all[i]) })
	}
	wg.Go(func() { watch.Machine(running, w, remark) })
	// A hang-up has it wait for what is under way, and the manager still hear from it.
	told, silent := context.WithCancel(context.WithoutCancel(ctx))
	defer silent()
	wg.Go(func() { p.manager().serve(told, w) })
	w.Run(running)
	return context.Cause(running)
}

// vigil is what the accounts that are watched have in common.
type vigil struct {
	*program
	idx *index.Index
	out *output
	all []config.Account

	reached map[string]*remote.Names // by how a server is reached, also before the configuration was read again

	carriers map[string]*pipeline.Carrier // of large messages, by account

	end context.CancelCauseFunc // of what is watched

	keys *secrets
	w    *watch.Watcher // nil before it watches

	mu   sync.Mutex
	held map[string]int       // deletions in the last sync, by account
	said map[string]time.Time // faults, by what was said of what, until when they are not said again
}

// waits tells what an account waits for before it is connected.
func (v *vigil) waits(account, text string) {
	if v.w != nil {
		v.w.Waits(account, text)
	}
	v.event(pipeline.Event{Time: time.Now(), Type: pipeline.EventFault, Account: account, Text: text})
}

// account gives what is done with an account that is watched.
func (v *vigil) account(ctx context.Context, a *config.Account, root string) watch.Account {
	names := v.namesOf(a)
	var seen mail.Revision
	if uuid, n, err := v.idx.Revision(ctx); err == nil {
		seen = mail.Revision{UUID: uuid, N: n}
	}
	preset, _ := provider.ByHost(a.Host)
	return watch.Account{
		Name:  a.Name,
		Boxes: a.Watch,
		Pause: preset.Poll,
		// The mark between levels is not known here; what either takes is looked at.
		Selects: func(mailbox string) bool { return a.Selects(mailbox, '/') || a.Selects(mailbox, '.') },
		Dial: func(ctx context.Context) (watch.Line, error) {
			o, err := toldOptions(a, v.keys, names, v.out)
			if err != nil {
				return nil, err
			}
			s, err := v.keys.dial(ctx, a, o)
			if err != nil {
				return nil, err // not s: a nil *Session is no nil Line
			}
			return s, nil
		},
		Sync: func(ctx context.Context, only []string, turn watch.Turn) watch.Outcome {
			return v.sync(ctx, a, root, names, only, turn)
		},
		Settled: func(ctx context.Context) bool { return v.settled(ctx, a, root) },
		Agreed:  func(ctx context.Context, told map[string]mail.Status) []string { return v.agreed(ctx, a, told) },
		Beside:  func() []watch.Doing { return beside(v.carriers[a.Name]) },
		Paused:  func(ctx context.Context) time.Time { return v.paused(ctx, a) },
		Tagged:  func(ctx context.Context) bool { return v.tagged(ctx, a, &seen) },
		Refused: func(ctx context.Context, err error) { v.refused(ctx, a, err) },
		Away:    func(err error) { v.event(awayEvent(a, err)) },
		Back: func(how string, again bool) {
			v.forget(a.Name)
			text := "connected, by " + watchedBy(how)
			if again {
				text = "connected again"
			}
			v.out.result(a.Name, text)
		},
		Say: func(text string) { v.out.remark(a.Name, text) },
	}
}

// namesOf are the names by which an account's server was reached.
func (v *vigil) namesOf(a *config.Account) *remote.Names {
	how := fmt.Sprintf("%q %q %d %q %q %q", a.Name, a.Host, a.Port, a.TLS, a.Tunnel, a.Proxy)
	v.mu.Lock()
	defer v.mu.Unlock()
	names := v.reached[how]
	if names == nil {
		names = &remote.Names{}
		v.reached[how] = names
	}
	return names
}

// awayEvent is what a sync says that cannot connect, so that it is said once.
func awayEvent(a *config.Account, err error) pipeline.Event {
	text := err.Error()
	if do := report.Hint(err).String(); do != "" {
		text += "; " + do
	}
	return pipeline.Event{Time: time.Now(), Type: pipeline.EventFault, Account: a.Name, Text: text}
}

// refused remembers a refused sign-in, unless somebody else is at work on the account: that
// one meets it, too.
func (v *vigil) refused(ctx context.Context, a *config.Account, refusal error) {
	err := func() error {
		state, err := a.StateDir(v.getenv)
		if err != nil {
			return err
		}
		l, done, err := openLedger(ctx, state, false)
		if err != nil {
			return err
		}
		o := pipeline.Options{Account: pipeline.Account{Name: a.Name, Ledger: l, SignIn: v.keys.fingerprints(a), Now: time.Now, Emit: v.event}}
		return errors.Join(pipeline.Meet(ctx, o, refusal), done())
	}()
	if err != nil && !errors.Is(err, ledger.ErrBusy) && ctx.Err() == nil {
		v.event(awayEvent(a, err))
	}
	v.keys.forget(a.Name) // it may be another one when it is tried again
}

// sync is the ordinary sync of some mailboxes of an account, or of all.
func (v *vigil) sync(ctx context.Context, a *config.Account, root string, names *remote.Names, only []string, turn watch.Turn) watch.Outcome {
	failed := func(err error) watch.Outcome {
		if errors.Is(err, index.ErrNoDatabase) {
			v.end(errDatabaseGone)
		} else if ctx.Err() == nil {
			v.event(awayEvent(a, err))
		}
		return watch.Outcome{Fail: true, Text: err.Error()}
	}
	state, err := a.StateDir(v.getenv)
	if err != nil {
		return failed(err)
	}
	l, done, err := openLedger(ctx, state, false)
	if errors.Is(err, ledger.ErrBusy) {
		return watch.Outcome{Busy: true, Text: err.Error()}
	}
	if err != nil {
		return failed(err)
	}
	var locked error
	report, end, err := v.locked(ctx, a, root, names, l, request{only: only, unattended: true, locked: &locked}, turn)
	until, paused := v.pausedBy(ctx, a, l)
	if err = errors.Join(err, paused, done()); err != nil {
		return failed(err)
	}
	if locked != nil {
		return watch.Outcome{Busy: true, Text: locked.Error(), Did: did(report)}
	}
	o := watch.Outcome{Until: until, More: report.GaveWay}
	switch end {
	case endRefused:
		v.keys.forget(a.Name) // it may be another one when it is tried again
		o.Fail, o.Text = true, "the server refused the sign-in"
	case endNothing:
		o.Fail, o.Text = true, "the server could not be reached"
		o.Unreached = slices.ContainsFunc(report.Faults, func(f pipeline.Failure) bool { return isUnreached(f.Err) })
	case endBroken:
		o.Fail, o.Text = true, "this machine failed"
	default:
		o.Did = did(report)
		if end == endPartly {
			o.Text = "something was left for now"
		}
	}
	return o
}

// settled tells whether the server needs not hear of anything that is here.
func (v *vigil) settled(ctx context.Context, a *config.Account, root string) bool {
	is, err := inLedger(ctx, v.program, a, func(ctx context.Context, l *ledger.Ledger) (bool, error) {
		if asked, err := v.orders(ctx, a, l, v.idx); err != nil || len(asked.retry)+len(asked.giveUp) > 0 {
			return false, err
		}
		o, err := v.pipelineOptions(ctx, a, root, v.idx, l, v.keys, v.out)
		if err != nil {
			return false, err
		}
		return pipeline.Settled(ctx, o)
	})
	if err != nil {
		return false // the sync finds out
	}
	if is {
		v.out.remark(a.Name, "what changed here needs no sync")
	}
	return is
}

// agreed gives which of the mailboxes that the server told of are as they were agreed on.
func (v *vigil) agreed(ctx context.Context, a *config.Account, told map[string]mail.Status) []string {
	names, err := inLedger(ctx, v.program, a, func(ctx context.Context, l *ledger.Ledger) ([]string, error) {
		return pipeline.Agreed(ctx, pipeline.Options{Account: pipeline.Account{Ledger: l, Now: time.Now}}, told)
	})
	if err != nil {
		return nil // the sync finds out
	}
	if len(names) > 0 {
		v.out.remark(a.Name, "what the server tells of "+strings.Join(names, ", ")+" is known")
	}
	return names
}

// did tells whether something came, went there, or was changed here.
func did(r *pipeline.Report) bool {
	return r.New+r.Flagged+r.Pushed+r.Moved+r.Deleted+r.Uploaded+r.Removed+r.Healed+r.NewStubs > 0
}

// beside tells what goes on beside an account's syncs, or holds them up.
func beside(c *pipeline.Carrier) (all []watch.Doing) {
	if w, ok := c.UnderWay(); ok {
		all = append(all, watch.Doing{What: watch.DoingFetch, Since: w.Begun, Mailbox: w.Mailbox, Bytes: w.Size, Came: w.Came, Text: w.String()})
	}
	until := func(what, text string, since time.Time) {
		if text != "" && !since.IsZero() && time.Since(since) > longIndexing {
			text += " since " + since.Local().Format("15:04:05") + ": until that has ended nothing else gets into its database"
			all = append(all, watch.Doing{What: what, Since: since, Text: text})
		}
	}
	text, since := index.Busy()
	until(watch.DoingIndex, text, since)
	until(watch.DoingLocked, "another program is writing to notmuch's database, and is waited for", index.Waiting())
	return all
}

// longIndexing is from when on it is worth telling.
const longIndexing = 5 * time.Second

// takeAgain is after how long a sync is to take again what there was no room for.
const takeAgain = 40 * time.Second

// carry brings an account's large messages beside its syncs, until the context ends.
func (v *vigil) carry(ctx context.Context, a *config.Account) {
	c := v.carriers[a.Name]
	for {
		var again <-chan time.Time
		if len(c.Sweep()) > 0 {
			again = time.After(takeAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			v.w.News(a.Name, c.Sweep())
			continue
		case <-c.Ordered():
		}
		o := pipeline.Account{Carrier: c, Now: time.Now, Dial: v.dialer(a, v.keys, v.namesOf(a), v.out)}
		err := pipeline.Carry(ctx, o, func(mailboxes []string) { v.w.News(a.Name, mailboxes) })
		if err != nil && ctx.Err() == nil {
			v.out.remark(a.Name, "a large message did not come: "+err.Error())
		}
	}
}

// isUnreached tells of a failure to connect.
func isUnreached(err error) bool {
	_, is := errors.AsType[*report.ConnectError](err)
	return is
}

func (v *vigil) locked(ctx context.Context, a *config.Account, root string, names *remote.Names, l *ledger.Ledger, req request, turn watch.Turn) (report *pipeline.Report, end ending, err error) {
	var runner *hooks.Runner
	if runner, err = v.runner(v.idx, v.all...); err != nil {
		return nil, endBroken, err
	}
	defer func() { err = errors.Join(err, runner.Close()) }()
	o, err := v.pipelineOptions(ctx, a, root, v.idx, l, v.keys, v.out)
	if err != nil {
		return nil, endBroken, err
	}
	o.Emit, o.Dial, o.Refusals = v.event, v.dialer(a, v.keys, names, v.out), &names.Refusals
	o.Carrier, o.GiveWay = v.carriers[a.Name], turn.Awaited
	o.Step = func(string) { turn.Wrote() }
	req.hooks = runner
	return v.syncLocked(ctx, a, o, v.idx, v.out, req)
}

// sayAgain is after how long a fault is said again that every sync meets.
const sayAgain = time.Hour

// forget forgets what was said of an account as a whole: that is over.
func (v *vigil) forget(account string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.said, func(key string, _ time.Time) bool { return strings.HasPrefix(key, account+"\x00\x00") })
}

// event shows an event, but not the same fault with every sync, which was shown, nor what is
// held back as before.
func (v *vigil) event(e pipeline.Event) bool {
	if e.Type == pipeline.EventDone && e.Report != nil && v.heldAsBefore(e.Report) {
		rep := *e.Report
		rep.Held, e.Report = 0, &rep
	}
	if e.Type == pipeline.EventFault {
		// The same fault has other ports, other times, and other names of temporary files.
		same := slices.DeleteFunc(strings.Fields(e.Text), func(word string) bool { return strings.ContainsFunc(word, unicode.IsDigit) })
		key := e.Account + "\x00" + e.Mailbox + "\x00" + strings.Join(same, " ")
		v.mu.Lock()
		now := time.Now()
		for k, until := range v.said {
			if now.After(until) {
				delete(v.said, k)
			}
		}
		_, again := v.said[key]
		if !again {
			if v.said == nil {
				v.said = make(map[string]time.Time)
			}
			v.said[key] = now.Add(sayAgain)
		}
		v.mu.Unlock()
		if again {
			return true
		}
	}
	return v.out.event(e)
}

// heldAsBefore tells whether so many deletions were held back in the account's last sync, too.
func (v *vigil) heldAsBefore(r *pipeline.Report) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held == nil {
		v.held = make(map[string]int)
	}
	before := v.held[r.Account]
	v.held[r.Account] = r.Held
	return r.Held == before
}

// paused tells until when the account is not to be signed in at.
func (v *vigil) paused(ctx context.Context, a *config.Account) time.Time {
	until, err := inLedger(ctx, v.program, a, func(ctx context.Context, l *ledger.Ledger) (time.Time, error) {
		return v.pausedBy(ctx, a, l)
	})
	if err != nil {
		return time.Time{} // the sync says what is wrong
	}
	return until
}

func (v *vigil) pausedBy(ctx context.Context, a *config.Account, l *ledger.Ledger) (time.Time, error) {
	return pipeline.Paused(ctx, pipeline.Options{Account: pipeline.Account{Ledger: l, SignIn: v.keys.fingerprints(a), Now: time.Now}})
}

// tagged tells whether notmuch has changes of the account's mail since it was asked last.
func (v *vigil) tagged(ctx context.Context, a *config.Account, seen *mail.Revision) bool {
	uuid, n, err := v.idx.Revision(ctx)
	if errors.Is(err, index.ErrNoDatabase) {
		v.end(errDatabaseGone)
	}
	if err != nil {
		return true // the sync finds out
	}
	before := *seen
	*seen = mail.Revision{UUID: uuid, N: n}
	switch {
	case before == *seen:
		return false
	case before.UUID != uuid:
		return true
	}
	path := strings.ReplaceAll(strings.TrimPrefix(a.Folder+"/**", "./"), `"`, `""`)
	count, err := v.idx.Count(ctx, fmt.Sprintf(`path:"%s" and lastmod:%d..%d`, path, before.N+1, n))
	return err != nil || count > 0
}
