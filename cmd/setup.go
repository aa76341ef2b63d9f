package cmd

import (
	"io"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/contrib"
)

func (p *program) setupCommand() *cli.Command {
	show := func(text string) cli.ActionFunc {
		return func(*cli.Context) error {
			_, err := io.WriteString(p.stdout, text)
			return err
		}
	}
	return &cli.Command{
		Name:  "setup",
		Usage: "make an account; connect notmuch and a mail reader",
		Description: `account makes an account of a mail address. hooks installs notmuch's hooks, systemd a watch. The others print the file of contrib for the mail reader: keys that list, inspect, retry and
drop what could not be fetched. In a muttrc: source 'notmuch-imap setup mutt|'`,
		Subcommands: []*cli.Command{
			p.setupAccountCommand(),
			p.setupHooksCommand(),
			p.setupSystemdCommand(),
			{Name: "mutt", Usage: "print keys for Mutt", Description: "For the muttrc: source 'notmuch-imap setup mutt|'", Action: show(contrib.Mutt())},
			{Name: "neomutt", Usage: "print keys for NeoMutt", Description: "For the neomuttrc: source 'notmuch-imap setup neomutt|'", Action: show(contrib.NeoMutt())},
		},
	}
}
