package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
)

func (p *program) hookCommand() *cli.Command {
	return &cli.Command{
		Name:  "hook",
		Usage: "be called by notmuch's own hooks",
		Description: `notmuch runs hooks/pre-new before it looks for new mail, and indexes nothing if that hook fails; hooks/post-new
comes after. ` + "`notmuch imap setup hooks`" + ` installs both. They synchronise, and never keep notmuch from its work.`,
		Subcommands: []*cli.Command{
			p.newHook(preNew, "synchronise before notmuch new", ""),
			p.newHook(postNew, "tell servers what notmuch new and its hooks changed", `
What tagging after notmuch new changed, such as unread, reaches the servers.`),
		},
	}
}

// The hooks of notmuch's.
const (
	preNew  = "pre-new"
	postNew = "post-new"
)

// newHookTime is how long notmuch new is kept waiting at most.
const newHookTime = 30 * time.Second

// errTimeUp ends a hook's sync.
var errTimeUp = errors.New("the time is up")

func (p *program) newHook(hook, usage, more string) *cli.Command {
	return &cli.Command{
		Name:      hook,
		Usage:     usage,
		ArgsUsage: "[ACCOUNT]...",
		Description: `A sync of all accounts, or of those that are named, that says little and ends with status 0 whatever
happens to a message, a server or the network. Only a wrong configuration gives status 2, and an interruption 130.` + more,
		Flags: append([]cli.Flag{
			&cli.DurationFlag{Name: "timeout", Value: newHookTime, Usage: "leave what is not done after this `TIME` to the next run; 0: never"},
		}, recordFlags()...),
		Action: func(c *cli.Context) error {
			index.BreakOff(exitDone)
			accounts, err := p.accounts(c)
			if err != nil {
				return err
			}
			conf, err := config.Find(c.String("config"), p.getenv)
			if err != nil {
				return err
			}
			out := p.hookOutput()
			if err := p.keepRecords(c, out); err != nil {
				return err
			}
			if hook == postNew {
				accounts = slices.DeleteFunc(accounts, func(a config.Account) bool {
					late := p.isLate(&a)
					if late {
						out.account(a.Name, "left to the next run, since "+preNew+" was not done with it")
					}
					return late
				})
				if len(accounts) == 0 {
					return nil
				}
			}
			return inHook(c.Context, out, p.syncWithin(c.Context, c.Duration("timeout"), out, request{accounts: accounts, watchedAs: conf}))
		},
	}
}

// syncWithin synchronises until the time is up. Nothing goes on in the background
// then: notmuch new would wait for its write lock, and whoever started that for
// its output.
func (p *program) syncWithin(ctx context.Context, d time.Duration, out *output, req request) error {
	if d <= 0 {
		return p.sync(ctx, out, req)
	}
	within, cancel := context.WithTimeoutCause(ctx, d, errTimeUp)
	defer cancel()
	err := p.sync(within, out, req)
	var late []config.Account
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(within), errTimeUp) {
		left, ok := errors.AsType[*notDone](err)
		if !ok {
			return fmt.Errorf("not done after %v; the next run goes on from here", d)
		}
		late = left.accounts
		for _, a := range late {
			out.account(a.Name, fmt.Sprintf("not done after %v; the next run goes on from here", d))
		}
		err = errPartly
	}
	for _, a := range req.accounts {
		p.noteLate(&a, slices.ContainsFunc(late, func(l config.Account) bool { return l.Name == a.Name }))
	}
	return err
}

// lateFor is for how long an account is left alone with which a hook was not done: the other hook
// of the same notmuch new would wait for it once more.
const lateFor = 2 * time.Minute

// lateFile tells by its time that a hook was not done with an account; "" if it can be nowhere.
func (p *program) lateFile(a *config.Account) string {
	state, err := a.StateDir(p.getenv)
	if err != nil {
		return ""
	}
	return filepath.Join(state, "not-done")
}

// noteLate notes whether a hook was not done with an account. It may fail: that costs time only.
func (p *program) noteLate(a *config.Account, late bool) {
	file := p.lateFile(a)
	if !late {
		_ = os.Remove(file)
		return
	}
	if f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err == nil {
		_ = f.Close() // nothing was written
		now := time.Now()
		_ = os.Chtimes(file, now, now) // or it is new
	}
}

// isLate tells whether a hook was not done with an account just now.
func (p *program) isLate(a *config.Account) bool {
	fi, err := os.Stat(p.lateFile(a))
	return err == nil && time.Since(fi.ModTime()).Abs() < lateFor
}

// inHook makes nothing of an error that must not keep notmuch new from indexing
// what is there.
func inHook(ctx context.Context, out *output, err error) error {
	_, wrong := errors.AsType[*config.Error](err)
	switch {
	case err == nil, ctx.Err() != nil, wrong:
		return err
	case errors.Is(err, errPartly), errors.Is(err, errLater), errors.Is(err, errRefused), errors.Is(err, errTold):
		return nil
	}
	out.fault(err.Error())
	return nil
}
