package cmd

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	taking "github.com/notmuch-imap/notmuch-imap/pipeline/takeover"
)

func (p *program) importCommand() *cli.Command {
	return &cli.Command{
		Name:  "import",
		Usage: "take over mail that another program synchronised",
		Subcommands: []*cli.Command{{
			Name:      "mbsync",
			Usage:     "take over Maildirs of mbsync (isync) as they are",
			ArgsUsage: "[ACCOUNT]...",
			Description: `Reads what mbsync remembers of the account's folders, and makes it what is agreed with the server: each file is that message, with the flags
that it had then. Nothing is fetched, sent, renamed, or written into what is mbsync's; what was changed on either side since is for the next sync. It
is believed only where the server says the same of the mail. The account stands in the configuration, with folder where mbsync's Path is.`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "from", Usage: "mbsync's SyncState, if it is neither * nor left out: `PATH`"},
				&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be taken over, and do nothing"},
				&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each mailbox"},
			},
			Action: p.importMbsync,
		}},
	}
}

func (p *program) importMbsync(c *cli.Context) error {
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	from := c.String("from")
	if rest, home := strings.CutPrefix(from, "~/"); home {
		from = filepath.Join(p.getenv("HOME"), rest) + strings.Repeat("/", len(rest)-len(strings.TrimRight(rest, "/")))
	}
	// A prefix may end within a name; what it is in must be there.
	if dir := filepath.Dir(from); from != "" {
		if _, err := os.Stat(dir); err != nil {
			return &usageError{fmt.Sprintf("--from: %v", err), c.Command.HelpName}
		}
	}
	keys := p.newSecrets()
	out := p.wordsOutput(false)
	var ends []error
	for i := range accounts {
		err := p.importAccount(c, &accounts[i], from, keys, out)
		if err != nil && !isEnding(err) {
			return err
		}
		ends = append(ends, err)
	}
	return worst(ends)
}

// foldersOf are the folders in which a program may have a mailbox.
func foldersOf(mailbox string, delim rune) []string {
	return takeover.Folders(mailbox, delim, remote.EncodeName)
}

// statesOf are the files that may be mbsync's state of a mailbox.
func (p *program) statesOf(from string, levels []string) []string {
	home := p.getenv("HOME")
	wire := make([]string, len(levels))
	for i, l := range levels {
		wire[i] = remote.EncodeName(l)
	}
	var dirs []string
	if from == "" {
		dirs = []string{filepath.Join(cmp.Or(p.getenv("XDG_STATE_HOME"), filepath.Join(home, ".local", "state")), "isync"), filepath.Join(home, ".mbsync")}
	}
	return takeover.MbsyncStates(from, dirs, levels, wire)
}

func (p *program) importAccount(c *cli.Context, a *config.Account, from string, keys *secrets, out *output) error {
	sum := importSum{account: a.Name}
	err := p.withAccount(c.Context, a, keys, out, func(h *hold) error {
		account := taking.Account{
			Root: h.options.Root, Ledger: h.options.Ledger, Selects: h.options.Selects, Folders: foldersOf, DryRun: c.Bool("dry-run"),
			Read: func(folder string, levels []string) (*takeover.Agreement, error) {
				return takeover.Mbsync(folder, p.statesOf(from, levels)...)
			},
			Tell: func(b taking.Box) {
				sum.add(b)
				if c.Bool("json") {
					p.verbatim(jsonLine(struct {
						Account string `json:"account"`
						taking.Box
					}{a.Name, b}))
					return
				}
				out.say(a.Name + "/" + b.Mailbox + ": " + importText(b))
			},
		}
		return p.reach(c.Context, a, h.options.Dial, out, func(s pipeline.Session) error { return taking.Take(c.Context, account, s) })
	})
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		out.say(sum.text(c.Bool("dry-run")))
	}
	if sum.refused > 0 || sum.boxes == 0 {
		return errPartly
	}
	return nil
}

// importText says what became of a mailbox.
func importText(b taking.Box) string {
	switch {
	case b.Known:
		return "is synchronised already"
	case b.None:
		return "mbsync does not have it; the first sync fetches what is not here"
	case b.Refused != "":
		return "not taken over, the first sync pairs it by what the mail is: " + b.Refused
	}
	parts := []string{count(b.Paired, "message is paired", "messages are paired")}
	add := func(n int, one, many string) {
		if n > 0 {
			parts = append(parts, count(n, one, many))
		}
	}
	add(b.Here, "is only here: a sync uploads or moves it", "are only here: a sync uploads or moves them")
	add(b.There, "is only there: a sync fetches it", "are only there: a sync fetches them")
	add(b.Gone, "was removed here since: a sync deletes it there", "were removed here since: a sync deletes them there")
	add(b.Removed, "is gone there since: a sync removes it here", "are gone there since: a sync removes them here")
	add(b.Left, "was left there by mbsync, and stays there", "were left there by mbsync, and stay there")
	return strings.Join(parts, "; ")
}

// importSum adds the mailboxes of an account up.
type importSum struct {
	account                       string
	boxes, known, refused, paired int
}

func (s *importSum) add(b taking.Box) {
	switch {
	case b.Refused != "":
		s.refused++
	case b.Known:
		s.known++
	case !b.None:
		s.boxes++
		s.paired += b.Paired
	}
}

func (s *importSum) text(dry bool) string {
	switch {
	case s.boxes == 0 && s.known+s.refused > 0:
		return s.account + ": nothing more was taken over"
	case s.boxes == 0:
		return fmt.Sprintf("%s: nothing was taken over; is `folder` in the configuration where mbsync's Path is?", s.account)
	case dry:
		return fmt.Sprintf("%s: would pair %s in %s", s.account, count(s.paired, "message", "messages"), count(s.boxes, "mailbox", "mailboxes"))
	}
	return fmt.Sprintf("%s: paired %s in %s; next: %s sync -n %s", s.account, count(s.paired, "message", "messages"), count(s.boxes, "mailbox", "mailboxes"), name, s.account)
}
