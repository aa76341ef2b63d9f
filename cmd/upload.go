package cmd

import (
	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
)

func (p *program) uploadCommand() *cli.Command {
	return &cli.Command{
		Name:      "upload",
		Usage:     "send the server the mail that was here before",
		ArgsUsage: "ACCOUNT | ACCOUNT/MAILBOX...",
		Description: `A sync uploads mail that is new here, and leaves that alone which lay in the folders before the first one: it may have been deleted on
the server long ago. This uploads it, with its flags, dates, and the tags that the configuration has as keywords, and makes mailboxes of the
folders that have none; what the server has already is paired, and not sent. So mail moves to a new, empty server: give that an account
of another name with the same folder, in place of the old one. What was interrupted goes on with the next run, and nothing is sent twice.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be done, and do nothing"},
		}, outputFlags()...),
		Action: p.upload,
	}
}

func (p *program) upload(c *cli.Context) error {
	if !c.Args().Present() {
		return &usageError{"which account, or mailbox? ACCOUNT or ACCOUNT/MAILBOX", c.Command.HelpName}
	}
	wanted, err := p.verifications(c)
	if err != nil {
		return err
	}
	var ends []error
	for _, v := range wanted {
		err := p.uploadAccount(c, v.account, v.only)
		if err != nil && !isEnding(err) {
			return err
		}
		ends = append(ends, err)
	}
	return worst(ends)
}

// uploadAccount uploads what is here of an account, or of some of its mailboxes. What has a
// UID then can have keywords; another run sends these.
func (p *program) uploadAccount(c *cli.Context, a config.Account, only []string) error {
	req := request{accounts: []config.Account{a}, only: only, upload: true, dryRun: c.Bool("dry-run"), held: &held{}, uploaded: new(int)}
	for {
		out, err := p.output(c)
		if err != nil {
			return err
		}
		if err := p.sync(c.Context, out, req); err != nil || len(a.Keywords) == 0 || *req.uploaded == 0 {
			return err
		}
		if req.dryRun {
			p.say("%s: would send the tags of that, too, which are keywords", a.Name)
			return nil
		}
		*req.uploaded, req.upload = 0, false
	}
}
