package cmd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
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
		}, {
			Name:      "offlineimap",
			Usage:     "take over Maildirs of OfflineIMAP as they are",
			ArgsUsage: "[ACCOUNT]...",
			Description: `Does for Maildirs of OfflineIMAP what import mbsync does for those of mbsync: what OfflineIMAP remembers becomes what is agreed with the
server. Its account is that whose localfolders is the account's folder.`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "from", Usage: "the .offlineimaprc, if it is not where OfflineIMAP looks for it: `FILE`"},
				&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be taken over, and do nothing"},
				&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each mailbox"},
			},
			Action: p.importOfflineIMAP,
		}},
	}
}

// predecessor is a program whose Maildirs are taken over.
type predecessor struct {
	name string
	at   string // the word for its setting that names the folder
	// read gives what it remembers of a folder below root.
	read func(ctx context.Context, root, folder string, levels []string) (*takeover.Agreement, error)
}

func (p *program) importOfflineIMAP(c *cli.Context) error {
	file := p.atHome(c.String("from"))
	if file == "" {
		file = filepath.Join(cmp.Or(p.getenv("XDG_CONFIG_HOME"), filepath.Join(p.getenv("HOME"), ".config")), "offlineimap", "config")
		if _, err := os.Stat(file); err != nil {
			file = filepath.Join(p.getenv("HOME"), ".offlineimaprc")
		}
	}
	theirs, err := takeover.OfflineIMAPAccounts(file, p.getenv("HOME"))
	if err != nil {
		return &usageError{fmt.Sprintf("--from: %v", err), c.Command.HelpName}
	}
	return p.importFrom(c, predecessor{"OfflineIMAP", "localfolders", func(ctx context.Context, root, folder string, levels []string) (*takeover.Agreement, error) {
		for _, t := range theirs {
			if !sameDirectory(t.LocalFolders, root) {
				continue
			}
			local, err := filepath.Rel(root, folder)
			if err != nil {
				return nil, err
			}
			return takeover.OfflineIMAP(ctx, folder, t.State, levels, strings.Split(filepath.ToSlash(local), "/"))
		}
		return nil, takeover.ErrNone
	}})
}

// sameDirectory tells whether two paths are of one directory.
func sameDirectory(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// atHome gives a path that may begin with ~.
func (p *program) atHome(path string) string {
	rest, home := strings.CutPrefix(path, "~/")
	if !home {
		return path
	}
	// A prefix may end with a slash.
	return filepath.Join(p.getenv("HOME"), rest) + strings.Repeat("/", len(rest)-len(strings.TrimRight(rest, "/")))
}

func (p *program) importMbsync(c *cli.Context) error {
	from := p.atHome(c.String("from"))
	// A prefix may end within a name; what it is in must be there.
	if dir := filepath.Dir(from); from != "" {
		if _, err := os.Stat(dir); err != nil {
			return &usageError{fmt.Sprintf("--from: %v", err), c.Command.HelpName}
		}
	}
	return p.importFrom(c, predecessor{"mbsync", "Path", func(_ context.Context, _, folder string, levels []string) (*takeover.Agreement, error) {
		return takeover.Mbsync(folder, p.statesOf(from, levels)...)
	}})
}

// importFrom takes the accounts over that the arguments name.
func (p *program) importFrom(c *cli.Context, from predecessor) error {
	accounts, err := p.accounts(c)
	if err != nil {
		return err
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

// foldersOf are the folders in which a program may have a mailbox, ours first.
func foldersOf(mailbox string, delim rune) []string {
	others := takeover.Folders(mailbox, delim, remote.EncodeName)
	if ours, err := maildir.Folder(mailbox, delim); err == nil {
		return slices.Insert(others, 0, ours)
	}
	return others
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

func (p *program) importAccount(c *cli.Context, a *config.Account, from predecessor, keys *secrets, out *output) error {
	sum := importSum{account: a.Name, from: from}
	err := p.withAccount(c.Context, a, keys, out, func(h *hold) error {
		account := taking.Account{
			Root: h.options.Root, Ledger: h.options.Ledger, Selects: h.options.Selects, Folders: foldersOf, DryRun: c.Bool("dry-run"),
			Read: func(folder string, levels []string) (*takeover.Agreement, error) {
				return from.read(c.Context, h.options.Root, folder, levels)
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
				out.say(a.Name + "/" + b.Mailbox + ": " + importText(from.name, b))
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
func importText(program string, b taking.Box) string {
	switch {
	case b.Known:
		return "is synchronised already"
	case b.None:
		return program + " does not have it; the first sync fetches what is not here"
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
	add(b.Left, "was left there by "+program+", and stays there", "were left there by "+program+", and stay there")
	return strings.Join(parts, "; ")
}

// importSum adds the mailboxes of an account up.
type importSum struct {
	account                       string
	from                          predecessor
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
		return fmt.Sprintf("%s: nothing was taken over; is `folder` in the configuration where %s's %s is?", s.account, s.from.name, s.from.at)
	case dry:
		return fmt.Sprintf("%s: would pair %s in %s", s.account, count(s.paired, "message", "messages"), count(s.boxes, "mailbox", "mailboxes"))
	}
	return fmt.Sprintf("%s: paired %s in %s; next: %s sync -n %s", s.account, count(s.paired, "message", "messages"), count(s.boxes, "mailbox", "mailboxes"), name, s.account)
}
