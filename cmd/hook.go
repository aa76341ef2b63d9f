package cmd

import (
	"context"
	"errors"
	"fmt"
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
			p.newHook("pre-new", "synchronise before notmuch new", ""),
			p.newHook("post-new", "tell servers what notmuch new and its hooks changed", `
What tagging after notmuch new changed, such as unread, reaches the servers.`),
		},
	}
}

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
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(within), errTimeUp) {
		return fmt.Errorf("not done after %v; the next run goes on from here", d)
	}
	return err
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
