package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
)

func (p *program) hookCommand() *cli.Command {
	return &cli.Command{
		Name:  "hook",
		Usage: "be called by notmuch's own hooks",
		Description: `notmuch runs hooks/pre-new before it looks for new mail, and indexes nothing if that hook fails. A line
` + "`exec notmuch-imap hook pre-new`" + ` in it synchronises first, and never keeps notmuch from its work.`,
		Subcommands: []*cli.Command{{
			Name:      "pre-new",
			Usage:     "synchronise before notmuch new",
			ArgsUsage: "[ACCOUNT]...",
			Description: `A sync of all accounts, or of those that are named, that says little and ends with status 0 whatever
happens to a message, a server or the network. Only a wrong configuration gives status 2, and an interruption 130.`,
			Action: func(c *cli.Context) error {
				accounts, err := p.accounts(c)
				if err != nil {
					return err
				}
				out := p.hookOutput()
				return inHook(c.Context, out, p.sync(c.Context, out, request{accounts: accounts}))
			},
		}},
	}
}

// inHook makes nothing of an error that must not keep notmuch new from indexing
// what is there.
func inHook(ctx context.Context, out *output, err error) error {
	_, wrong := errors.AsType[*config.Error](err)
	switch {
	case err == nil, ctx.Err() != nil, wrong:
		return err
	case errors.Is(err, errPartly), errors.Is(err, errLater), errors.Is(err, errTold):
		return nil
	}
	out.fault(err.Error())
	return nil
}
