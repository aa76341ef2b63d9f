package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	taking "github.com/notmuch-imap/notmuch-imap/pipeline/takeover"
)

func (p *program) importCommand() *cli.Command {
	flags := func(from string) []cli.Flag { // from is what --from is; "" has none, nor accounts of its own
		out := []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be taken over, and do nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each mailbox"},
		}
		if from != "" {
			out = append([]cli.Flag{&cli.StringFlag{Name: "from", Usage: from}, &cli.BoolFlag{Name: "write", Usage: "add accounts that are missing in the configuration, in place of showing their lines"}}, out...)
		}
		return out
	}
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
			Flags:  flags("the .mbsyncrc, if it is not where mbsync looks for it; or, without one, its SyncState: `PATH`"),
			Action: p.importMbsync,
		}, {
			Name:      "offlineimap",
			Usage:     "take over Maildirs of OfflineIMAP as they are",
			ArgsUsage: "[ACCOUNT]...",
			Description: `Does for Maildirs of OfflineIMAP what import mbsync does for those of mbsync: what OfflineIMAP remembers becomes what is agreed with the
server. Its account is that whose localfolders is the account's folder.`,
			Flags:  flags("the .offlineimaprc, if it is not where OfflineIMAP looks for it: `FILE`"),
			Action: p.importOfflineIMAP,
		}, {
			Name:      "lieer",
			Usage:     "take over the Maildir of lieer (gmi) as it is",
			ArgsUsage: "[ACCOUNT]...",
			Description: `Pairs the files of lieer's Maildir with the messages of Gmail's All Mail by their numbers, which are the files' names. The account stands in
the configuration, with folder where gmi runs. Tags stay as they are; labels are nothing that IMAP synchronises, so that tags that stand for
labels do not go to Gmail any more.`,
			Flags:  flags("the directory where gmi runs, to have an account proposed: `DIR`"),
			Action: p.importLieer,
		}, {
			Name:      "maildir",
			Usage:     "pair other Maildirs with the server's mail",
			ArgsUsage: "[ACCOUNT]...",
			Description: `Pairs the mail in the account's folders with that on the server by what it is, as the first sync does: no mail is fetched, and nothing is sent.
Flags that only the server has come into the names of files here, and to the tags: what was read there is not unread any more.
Where Message-ID and size are the same, the texts are not compared; verify --deep does that.`,
			Flags:  flags(""),
			Action: p.importMaildir,
		}},
	}
}

// predecessor is a program whose Maildirs are taken over.
type predecessor struct {
	name    string
	command string
	at      string // the word for its setting that names the folder
	none    string // what there is to say of a mailbox that it does not have
	file    string // its configuration; "" if that is not known
	lacks   string // what there is not where that is not there
	// proposals are the accounts of its configuration.
	proposals []takeover.Proposal
	// why, if not nil, says why it has none of an account's mailboxes, "" if that is not known.
	why func() string
	// folders are those below root in which it may have a mailbox of an account that is one of
	// proposals, or nil; elsewhere is one that is not below it.
	folders func(of *takeover.Proposal, root string, m mail.Mailbox) (folders []string, elsewhere string)
	// read gives what it remembers of a folder below root.
	read func(ctx context.Context, of *takeover.Proposal, root, folder string, m mail.Mailbox) (*takeover.Agreement, error)
}

// alone tells whether an account has its directory for itself.
func (from *predecessor) alone(of *takeover.Proposal) bool {
	return !slices.ContainsFunc(from.proposals, func(o takeover.Proposal) bool {
		return o.Name != of.Name && takeover.SameDirectory(o.Root, of.Root)
	})
}

const fetchedFirst = "the first sync fetches what is not here"

// anyFolders are those in which any program may have a mailbox.
func anyFolders(_ *takeover.Proposal, _ string, m mail.Mailbox) ([]string, string) {
	return foldersOf(m.Name, m.Delim), ""
}

func (p *program) importOfflineIMAP(c *cli.Context) error {
	file := p.atHome(c.String("from"))
	if file == "" {
		file = p.firstOf(filepath.Join(p.configHome(), "offlineimap", "config"), filepath.Join(p.getenv("HOME"), ".offlineimaprc"))
	}
	if err := noDirectory(file, "an .offlineimaprc"); err != nil {
		return &usageError{err.Error(), c.Command.HelpName}
	}
	theirs, err := takeover.OfflineIMAPAccounts(file, p.getenv("HOME"))
	if errors.Is(err, fs.ErrNotExist) {
		return &usageError{fmt.Sprintf("%s is not there: name the .offlineimaprc with --from", file), c.Command.HelpName}
	}
	if err != nil {
		return &usageError{err.Error(), c.Command.HelpName}
	}
	from := predecessor{name: "OfflineIMAP", command: "offlineimap", at: "localfolders", none: fetchedFirst, file: file, folders: anyFolders}
	for _, t := range theirs {
		from.proposals = append(from.proposals, t.Proposal)
	}
	from.read = func(ctx context.Context, of *takeover.Proposal, root, folder string, m mail.Mailbox) (*takeover.Agreement, error) {
		for _, t := range theirs {
			if of == nil || t.Proposal.Name != of.Name {
				continue
			}
			local, err := filepath.Rel(root, folder)
			if err != nil {
				return nil, err
			}
			return takeover.OfflineIMAP(ctx, folder, t.State, takeover.Levels(m.Name, m.Delim), strings.Split(filepath.ToSlash(local), "/"))
		}
		return nil, takeover.ErrNone
	}
	return p.importFrom(c, from)
}

// configHome is where programs have their configuration.
func (p *program) configHome() string {
	return cmp.Or(p.getenv("XDG_CONFIG_HOME"), filepath.Join(p.getenv("HOME"), ".config"))
}

// firstOf gives the first of files that is there; the last if none is.
func (p *program) firstOf(files ...string) string {
	for _, f := range files {
		if isFile(f) {
			return f
		}
	}
	return files[len(files)-1]
}

// noDirectory refuses a directory in the place of a configuration.
func noDirectory(path, what string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory, and not %s: name the file with --from", path, what)
	}
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
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
	state, file := p.atHome(c.String("from")), ""
	switch {
	case isFile(state):
		state, file = "", state
	case state != "":
		// A prefix may end within a name; what it is in must be there.
		if _, err := os.Stat(filepath.Dir(state)); err != nil {
			return &usageError{fmt.Sprintf("--from: %s is neither an .mbsyncrc nor where a SyncState can be: %v", state, err), c.Command.HelpName}
		}
	default:
		file = p.firstOf(filepath.Join(p.configHome(), "isyncrc"), filepath.Join(p.getenv("HOME"), ".mbsyncrc"))
		if err := noDirectory(file, "an .mbsyncrc"); err != nil {
			return &usageError{err.Error(), c.Command.HelpName}
		}
	}
	from := predecessor{name: "mbsync", command: "mbsync", at: "Path", none: fetchedFirst, file: file, lacks: cmp.Or(file, state)}
	var theirs *takeover.MbsyncConfig
	if isFile(file) {
		var err error
		if theirs, err = takeover.ReadMbsyncConfig(file, p.getenv("HOME")); err != nil {
			return &usageError{err.Error(), c.Command.HelpName}
		}
		if from.proposals = theirs.Proposals(); len(from.proposals) == 0 {
			from.lacks = "a channel in " + file + " whose Far is an IMAPStore and whose Near is a MaildirStore"
		}
	}
	places := func(of *takeover.Proposal, m mail.Mailbox) []takeover.MbsyncPlace {
		if of == nil {
			return nil
		}
		return theirs.Places(of, m.Name, m.Delim)
	}
	from.folders = func(of *takeover.Proposal, root string, m mail.Mailbox) (folders []string, elsewhere string) {
		for _, place := range places(of, m) {
			if f, inside := below(root, place.Folder); inside {
				folders = append(folders, f)
			} else if maildir.Dir(place.Folder).Exists() {
				elsewhere = place.Folder
			}
		}
		return append(folders, foldersOf(m.Name, m.Delim)...), elsewhere
	}
	from.read = func(_ context.Context, of *takeover.Proposal, root, folder string, m mail.Mailbox) (*takeover.Agreement, error) {
		if of == nil {
			return p.mbsyncAlone(state, root, folder, m)
		}
		var states []string // those of other accounts are called almost the same
		for _, place := range places(of, m) {
			if takeover.SameDirectory(place.Folder, folder) {
				states = append(states, place.States...)
			}
		}
		if len(states) == 0 { // the mailbox has another name now
			states = theirs.StatesAt(of, folder)
		}
		return takeover.Mbsync(folder, states...)
	}
	return p.importFrom(c, from)
}

// foldersOf are the folders in which a program may have a mailbox, ours first.
func foldersOf(mailbox string, delim rune) []string {
	others := takeover.Folders(mailbox, delim)
	if ours, err := maildir.Folder(mailbox, delim); err == nil {
		return slices.Insert(others, 0, ours)
	}
	return others
}

// mbsyncAlone gives what mbsync remembers of a folder below root where its configuration is not
// known. from is where its states are, if not where it has them by itself.
func (p *program) mbsyncAlone(from, root, folder string, m mail.Mailbox) (*takeover.Agreement, error) {
	home := p.getenv("HOME")
	var dirs []string
	if from == "" {
		dirs = []string{filepath.Join(cmp.Or(p.getenv("XDG_STATE_HOME"), filepath.Join(home, ".local", "state")), "isync"), filepath.Join(home, ".mbsync")}
	}
	levels := takeover.Levels(m.Name, m.Delim)
	wire := make([]string, len(levels))
	for i, l := range levels {
		wire[i] = mail.EncodeName(l)
	}
	agreed, err := takeover.Mbsync(folder, takeover.MbsyncStates(from, dirs, levels, wire)...)
	if !errors.Is(err, takeover.ErrNone) {
		return agreed, err
	}
	at, err := filepath.Rel(root, folder)
	if err != nil {
		return nil, err
	}
	return takeover.Mbsync(folder, takeover.MbsyncStatesAt(from, dirs, at)...)
}

func (p *program) importLieer(c *cli.Context) error {
	from := predecessor{name: "lieer", command: "lieer", at: "directory", lacks: "a directory of lieer's", none: "lieer has all mail in one folder, which All Mail is like; `mailboxes` can leave this out"}
	if dir := p.atHome(c.String("from")); dir != "" {
		proposal, err := takeover.LieerProposal(dir)
		if err != nil {
			return &usageError{fmt.Sprintf("--from: %v", err), c.Command.HelpName}
		}
		from.file, from.proposals = dir, []takeover.Proposal{*proposal}
	}
	var listed, all bool
	from.why = func() string {
		if !listed || all {
			return ""
		}
		return "no mailbox of the server is marked as All Mail, which is what lieer has: is it Gmail, and does it show All Mail in IMAP (in its settings, under Labels)?"
	}
	from.folders = func(_ *takeover.Proposal, _ string, m mail.Mailbox) ([]string, string) {
		listed = true
		if m.For(`\All`, "[Gmail]/All Mail", "[Google Mail]/All Mail") {
			all = true
			return []string{takeover.LieerFolder}, ""
		}
		return nil, ""
	}
	from.read = func(_ context.Context, _ *takeover.Proposal, root, _ string, _ mail.Mailbox) (*takeover.Agreement, error) {
		return takeover.Lieer(root)
	}
	return p.importFrom(c, from)
}

// importFrom takes the accounts over that the arguments name, and proposes those that our
// configuration does not have.
func (p *program) importFrom(c *cli.Context, from predecessor) error {
	found, err := p.importable(c, from)
	if err != nil {
		return err
	}
	if len(found.accounts) > 0 && !c.Bool("write") { // which only adds
		err = p.importEach(c, found.accounts, func(a *config.Account, keys *secrets, out *output) error {
			return p.importAccount(c, a, found.of[a.Name], from, keys, out)
		})
	}
	if c.Bool("write") && len(found.missing)+len(found.not) == 0 {
		p.say("%s has all these accounts; next: %s import %s -n", cmp.Or(found.file, "the configuration"), p.typed(c.String("config"), ""), from.command)
	}
	if err != nil && !isEnding(err) || len(found.missing)+len(found.not) == 0 {
		return err
	}
	return worst([]error{err, p.propose(c, from, found)})
}

// importMaildir pairs what is here by what it is.
func (p *program) importMaildir(c *cli.Context) error {
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	return p.importEach(c, accounts, func(a *config.Account, keys *secrets, out *output) error {
		return p.withAccount(c.Context, a, keys, out, func(h *hold) error {
			sum := importSum{account: a.Name, program: p.typed(c.String("config"), "")}
			emit := h.options.Emit
			h.options.Emit = func(e pipeline.Event) bool {
				switch {
				case e.Type == pipeline.EventMailbox:
					sum.add(taking.Box{Paired: e.Total})
				case e.Type == pipeline.EventDone && !out.json:
					return false // it would say that there is nothing new
				}
				return emit(e)
			}
			h.options.Hooks = nil // nothing comes and nothing goes
			h.options.PairOnly, h.options.DryRun = true, c.Bool("dry-run")
			report, err := pipeline.Sync(c.Context, h.options)
			switch {
			case err != nil:
				return err
			case report.Nothing() && slices.ContainsFunc(report.Faults, func(f pipeline.Failure) bool { return isRefused(f.Err) }):
				return errRefused
			case report.Nothing():
				return errLater
			}
			switch {
			case out.json:
			case sum.boxes == 0:
				out.say(a.Name + ": there was nothing to pair: all is synchronised already, or the Maildirs are not where `folder` in the configuration is")
			default:
				out.say(sum.text(c.Bool("dry-run")))
				if !c.Bool("dry-run") && sum.paired > 0 {
					out.say(fmt.Sprintf("%s: where Message-ID and size are the same, the texts were not compared; %s verify --deep %[1]s does, after the sync", a.Name, sum.program))
				}
			}
			if !report.Clean() {
				return errPartly
			}
			return nil
		})
	})
}

// importEach does something with each account.
func (p *program) importEach(c *cli.Context, accounts []config.Account, do func(*config.Account, *secrets, *output) error) error {
	keys := p.newSecrets(nil)
	out := p.wordsOutput(false)
	out.most, out.json = showAll, c.Bool("json")
	var ends []error
	for i := range accounts {
		err := do(&accounts[i], keys, out)
		if err != nil && !isEnding(err) {
			return err
		}
		ends = append(ends, err)
	}
	return worst(ends)
}

func (p *program) importAccount(c *cli.Context, a *config.Account, of *takeover.Proposal, from predecessor, keys *secrets, out *output) error {
	sum := importSum{account: a.Name, from: from, program: p.typed(c.String("config"), "")}
	elsewhere := make(map[string]string) // folders that are not below the account's, by mailbox
	err := p.withAccount(c.Context, a, keys, out, func(h *hold) error {
		account := taking.Account{
			Root: h.options.Root, Ledger: h.options.Ledger, Program: from.command, Selects: h.options.Selects, DryRun: c.Bool("dry-run"),
			Folders: func(m mail.Mailbox) (folders []string) {
				folders, elsewhere[m.Name] = from.folders(of, h.options.Root, m)
				return folders
			},
			Tags: &h.options.Tags, Deletions: cmp.Or(h.options.Deletions, pipeline.DeletionsTrash), Trash: h.options.Trash,
			Messages: func(ctx context.Context, ids []string) (map[string]mail.Tagged, error) {
				return h.options.Index.Messages(ctx, ids, h.options.Root)
			},
			Read: func(folder string, m mail.Mailbox) (*takeover.Agreement, error) {
				return from.read(c.Context, of, h.options.Root, folder, m)
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
				text := importText(from, a, b)
				if at := elsewhere[b.Mailbox]; b.None && at != "" {
					text = fmt.Sprintf("%s has it in %s, which is not below the account's folder %s: move it there, and set %[1]s so, or the first sync fetches it", from.name, at, h.options.Root)
				}
				p.say("%s", plain(a.Name+"/"+cmp.Or(b.Mailbox, b.Folder)+": "+text))
			},
		}
		if of == nil || from.alone(of) {
			account.Called = h.options.Layout.Mailbox
		}
		return p.reach(c.Context, a, h.options.Dial, out, func(s pipeline.Session) error { return taking.Take(c.Context, account, s) })
	})
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		p.say("%s", sum.text(c.Bool("dry-run")))
	}
	if sum.refused > 0 || sum.boxes+sum.known == 0 {
		return errPartly
	}
	return nil
}

// importText says what became of a mailbox.
func importText(from predecessor, a *config.Account, b taking.Box) string {
	switch {
	case b.Known:
		return "is synchronised already"
	case b.Again:
		return from.name + " has gone on with it since it was taken over, and that is not taken over: " + b.Refused
	case b.Deleted:
		return "the server has it no more: " + count(b.Removed, "message stays", "messages stay") + " here, in " + b.Folder
	case b.None && b.Folder != "":
		return from.name + " does not have it; the first sync pairs what is in " + b.Folder + " by what the mail is"
	case b.None:
		return from.name + " does not have it; " + from.none
	case b.Long:
		return "not taken over: " + b.Refused
	case b.Refused != "" && b.Mailbox == "":
		return "not taken over: " + b.Refused + "; move it where the mailbox's folder is, or away, before a sync"
	case b.Refused != "":
		return "not taken over, the first sync pairs it by what the mail is: " + b.Refused
	}
	parts := []string{count(b.Paired, "message is paired", "messages are paired")}
	add := func(n int, one, many string) {
		if n > 0 {
			parts = append(parts, count(n, one, many))
		}
	}
	if a.ReadOnly {
		add(b.Here, "is only here, and stays here (read_only)", "are only here, and stay here (read_only)")
	} else {
		add(b.Here, "is only here: a sync uploads or moves it", "are only here: a sync uploads or moves them")
	}
	if a.ReadOnly {
		add(b.Stay, "is only here, and stays here (read_only)", "are only here, and stay here (read_only)")
	} else {
		add(b.Stay, "is only here, and stays here: `upload` sends it", "are only here, and stay here: `upload` sends them")
	}
	add(b.Both, "came on both sides since: a sync pairs it", "came on both sides since: a sync pairs them")
	if b.Marked > 0 && !a.ReadOnly {
		parts = append(parts, plan.DeletingText(b.Marked))
	}
	if b.Tagged > 0 && !a.ReadOnly {
		parts = append(parts, plan.StayingText(b.Tagged, a.Name))
	}
	add(b.There, "is only there: a sync fetches it", "are only there: a sync fetches them")
	add(b.Unsure, "is unsure: its file here has no whole header; a sync fetches that, too, and uploads none", "are unsure: their files here have no whole header; a sync fetches those, too, and uploads none")
	switch {
	case a.ReadOnly:
		add(b.Gone, "was removed here since, and stays there (read_only)", "were removed here since, and stay there (read_only)")
	case a.Deletions == "keep":
		add(b.Gone, "was removed here since, and stays there (deletions = \"keep\")", "were removed here since, and stay there (deletions = \"keep\")")
	default:
		add(b.Gone, "was removed here since: a sync deletes it there", "were removed here since: a sync deletes them there")
	}
	add(b.Removed, "is gone there since: a sync removes it here", "are gone there since: a sync removes them here")
	add(b.Left, "was left there by "+from.name+", and stays there", "were left there by "+from.name+", and stay there")
	return strings.Join(parts, "; ")
}

// importSum adds the mailboxes of an account up.
type importSum struct {
	account                       string
	program                       string // as it is typed
	from                          predecessor
	boxes, known, refused, paired int
	final                         int // of those that are refused: nothing mends that
}

func (s *importSum) add(b taking.Box) {
	switch {
	case b.Refused != "":
		if s.refused++; b.Final {
			s.final++
		}
	case b.Known:
		s.known++
	case !b.None:
		s.boxes++
		s.paired += b.Paired
	}
}

func (s *importSum) text(dry bool) string {
	const comesBack = " brings back what was deleted here since"
	next := fmt.Sprintf("%s sync -n %s", s.program, s.account)
	switch s.refused {
	case 0:
	case s.final:
		next += "; of what is not taken over a sync" + comesBack
	default:
		next = fmt.Sprintf("%s import %s %s, when what is said above is mended; a sync in place of it%s", s.program, s.from.command, s.account, comesBack)
	}
	switch {
	case s.boxes+s.known == 0 && s.refused > 0:
		return fmt.Sprintf("%s: nothing was taken over; next: %s", s.account, next)
	case s.boxes == 0 && s.refused > 0:
		return fmt.Sprintf("%s: nothing more was taken over; next: %s", s.account, next)
	case s.boxes == 0 && s.known > 0:
		return s.account + ": nothing more was taken over"
	case s.boxes == 0 && s.from.why != nil && s.from.why() != "":
		return s.account + ": nothing was taken over: " + s.from.why()
	case s.boxes == 0:
		return fmt.Sprintf("%s: nothing was taken over; is `folder` in the configuration where %s's %s is?", s.account, s.from.name, s.from.at)
	case dry:
		text := fmt.Sprintf("%s: would pair %s in %s", s.account, count(s.paired, "message", "messages"), count(s.boxes, "mailbox", "mailboxes"))
		if s.from.name == "" {
			text += "; flags that the server alone has would come to their files and tags"
		}
		return text
	}
	return fmt.Sprintf("%s: paired %s in %s; next: %s", s.account, count(s.paired, "message", "messages"), count(s.boxes, "mailbox", "mailboxes"), next)
}
