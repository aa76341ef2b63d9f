package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

const folderArgs = "ACCOUNT/MAILBOX"

func (p *program) folderCommand() *cli.Command {
	return &cli.Command{
		Name:  "folder",
		Usage: "make or delete a mailbox",
		Description: `A sync makes mailboxes of the folders that you make, and folders of the server's mailboxes; it never deletes one. A mailbox
is named as the server names it.`,
		Subcommands: []*cli.Command{
			{
				Name:      "create",
				Usage:     "make a folder that becomes a mailbox",
				ArgsUsage: folderArgs,
				Description: `Makes a folder here, of which the next sync makes a mailbox on the server. So it also does with a folder that was there
before the first sync, and with one whose mailbox was deleted on the server: its mail is uploaded then.`,
				Flags:  []cli.Flag{quietFlag()},
				Action: p.folderCreate,
			},
			{
				Name:      "delete",
				Usage:     "delete a mailbox on the server, and its folder here",
				ArgsUsage: folderArgs,
				Description: `Deletes a mailbox on the server, and then its folder here, after a question on the terminal. One that has mail, on
either side, is left alone unless --with-mail says that the mail goes, too. INBOX cannot be deleted.`,
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "with-mail", Usage: "delete it with the mail that is in it"},
					&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
					quietFlag(),
				},
				Action: p.folderDelete,
			},
		},
	}
}

// withFolder lets f work on the mailbox that the one argument names.
func (p *program) withFolder(c *cli.Context, f func(h *hold, out *output, account *config.Account, mailbox string) error) error {
	wrong := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
	}
	if c.Args().Len() != 1 {
		return wrong("which mailbox? %s", folderArgs)
	}
	conf, err := p.load(c)
	if err != nil {
		return err
	}
	name, mailbox, ok := strings.Cut(c.Args().First(), "/")
	if !ok || mailbox == "" {
		return wrong("%q is no %s", c.Args().First(), folderArgs)
	}
	i := slices.IndexFunc(conf.Accounts, func(a config.Account) bool { return a.Name == name })
	if i < 0 {
		_, err := conf.Select([]string{name})
		return wrong("%v", err)
	}
	out := p.wordsOutput(c.Bool("quiet"))
	return p.withAccount(c.Context, &conf.Accounts[i], p.newSecrets(out.account), out, func(h *hold) error {
		return f(h, out, &conf.Accounts[i], mailbox)
	})
}

func (p *program) folderCreate(c *cli.Context) error {
	return p.withFolder(c, func(h *hold, out *output, a *config.Account, mailbox string) error {
		boxes, err := h.options.Ledger.Mailboxes(c.Context)
		if err != nil {
			return err
		}
		delim := '/' // as one writes it, until the server has said how it does
		for _, b := range boxes {
			if b.Delim != 0 {
				delim = b.Delim
			}
		}
		if !a.Selects(mailbox, delim) {
			out.account(a.Name, mailbox+" is not among the mailboxes that the configuration selects; nothing was done")
			return errPartly
		}
		if err := pipeline.NewFolder(c.Context, h.options, mailbox); err != nil {
			out.account(a.Name, mailbox+": "+err.Error())
			return errPartly
		}
		out.say(a.Name + "/" + mailbox + ": the folder is here; the next sync makes the mailbox on the server")
		return nil
	})
}

func (p *program) folderDelete(c *cli.Context) error {
	return p.withFolder(c, func(h *hold, out *output, a *config.Account, mailbox string) error {
		name := a.Name + "/" + mailbox
		done, err := pipeline.DeleteFolder(c.Context, h.options, mailbox, func(plan pipeline.FolderPlan) (bool, error) {
			if plan.Mail() && !c.Bool("with-mail") {
				return false, fmt.Errorf("it has mail: %s; nothing was deleted. Look at it, then say --with-mail to delete that, too", mailIn(plan))
			}
			if c.Bool("yes") {
				return true, nil
			}
			return ask(c.Context, folderQuestion(plain(name), plan), c.Command.HelpName)
		})
		var usage *usageError
		switch {
		case c.Err() != nil:
			return c.Err()
		case errors.As(err, &usage):
			return err
		case err != nil:
			out.account(a.Name, mailbox+": "+err.Error())
			return errPartly
		case done:
			out.say(name + ": deleted")
		default:
			out.say(name + ": nothing was done")
		}
		return nil
	})
}

// mailIn says what mail a mailbox has.
func mailIn(plan pipeline.FolderPlan) string {
	text := fmt.Sprintf("%d on the server, %d in its folder here", plan.Messages, plan.Files)
	if plan.Alone > 0 {
		text += fmt.Sprintf(", of which %d are here alone", plan.Alone)
	}
	return text
}

// folderQuestion says what would be deleted, and asks.
func folderQuestion(name string, plan pipeline.FolderPlan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  mailbox  %s\n", name)
	if !plan.OnServer {
		b.WriteString("           the server has it no more; its folder is here\n")
	}
	fmt.Fprintf(&b, "  mail     %s\n\n", mailIn(plan))
	question := "delete the mailbox"
	if plan.Mail() {
		b.WriteString("  The mail is deleted for good, and goes to no Trash.\n\n")
		question += " with its mail"
	}
	return b.String() + question + "? [y/N] "
}
