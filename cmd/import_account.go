package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/takeover"
)

// importable are accounts of ours that are taken over, and those that the other program has and
// our configuration has not.
type importable struct {
	file     string // our configuration
	accounts []config.Account
	of       map[string]*takeover.Proposal // what the other program has of them
	missing  []entry
	not      []string // why some are neither
}

// importable sorts out which accounts the arguments name. Without any they are all; but where
// the other program's configuration is known, those whose mail it has.
func (p *program) importable(c *cli.Context, from predecessor) (*importable, error) {
	if len(from.proposals) == 0 {
		accounts, err := p.accounts(c)
		if errors.Is(err, fs.ErrNotExist) && from.lacks != "" {
			err = &usageError{fmt.Sprintf("there is neither %s nor a configuration of ours: name the one with --from, or make an account by notmuch imap setup account", from.lacks), c.Command.HelpName}
		}
		return &importable{accounts: accounts}, err
	}
	file, err := config.Find(c.String("config"), p.getenv)
	if err != nil {
		return nil, &config.Error{Text: err.Error(), Err: err}
	}
	all, err := accountsIn(file, p.getenv)
	if err != nil {
		return nil, err
	}
	look := p.indexOptions(p.wordsOutput(false))
	look.Existing = true
	idx, err := index.Open(c.Context, look)
	if err != nil {
		return nil, err
	}
	out := &importable{file: file, of: make(map[string]*takeover.Proposal)}
	names := c.Args().Slice()
	wanted := func(ours, theirs string) bool {
		return len(names) == 0 || slices.Contains(names, ours) || theirs != "" && slices.Contains(names, theirs)
	}
	known := make(map[string]bool) // names that mean something
	var offered []entry
	not := func(format string, args ...any) { out.not = append(out.not, fmt.Sprintf(format, args...)) }
	for i := range from.proposals {
		t := &from.proposals[i]
		k := slices.IndexFunc(all, func(a config.Account) bool {
			return takeover.SameDirectory(t.Root, filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder)))
		})
		known[t.Name] = true
		asked := wanted(t.Name, "")
		if k >= 0 {
			known[all[k].Name] = true
			asked = wanted(all[k].Name, t.Name)
		}
		if j := slices.IndexFunc(from.proposals[:i], func(o takeover.Proposal) bool { return takeover.SameDirectory(o.Root, t.Root) }); j >= 0 {
			if len(names) == 0 || slices.Contains(names, t.Name) { // one of ours there is the other one
				not("%s has the mail of %s in %s, where that of %s is: which is whose is not known from that. Only %[4]s is taken over; give each a directory of its own first, neither in the other's",
					from.name, t.Name, t.Root, from.proposals[j].Name)
			}
			continue
		}
		// What of the outer one's folders is the inner one's would go to the wrong server.
		if j := slices.IndexFunc(from.proposals, func(o takeover.Proposal) bool { return nested(o.Root, t.Root) || nested(t.Root, o.Root) }); j >= 0 {
			if asked {
				not("%s has the mail of %s in %s, and that of %s in %s: one lies in the other, and neither is taken over; give each a directory of its own first",
					from.name, t.Name, t.Root, from.proposals[j].Name, from.proposals[j].Root)
			}
			continue
		}
		if j := slices.IndexFunc(all, func(a config.Account) bool {
			ours := filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder))
			return nested(ours, t.Root) || nested(t.Root, ours)
		}); j >= 0 {
			if asked {
				not("%s has the mail of %s in %s, and the configuration has that of %s in %s: one lies in the other, and it is not taken over; give each a directory of its own first",
					from.name, t.Name, t.Root, all[j].Name, filepath.Join(idx.MailRoot(), filepath.FromSlash(all[j].Folder)))
			}
			continue
		}
		if k >= 0 {
			if asked {
				out.accounts, out.of[all[k].Name] = append(out.accounts, all[k]), t
			}
			continue
		}
		if _, inside := below(idx.MailRoot(), t.Root); !inside {
			if asked {
				not("%s has the mail of %s in %s, which is not below notmuch's mail root %s: move it there first", from.name, t.Name, t.Root, idx.MailRoot())
			}
			continue
		}
		e := proposed(t, from, idx.MailRoot(), all, offered)
		offered = append(offered, e)
		known[e.Name] = true
		if wanted(e.Name, t.Name) {
			out.missing = append(out.missing, e)
		}
	}
	for _, n := range names {
		i := slices.IndexFunc(all, func(a config.Account) bool { return a.Name == n })
		switch {
		case known[n]:
		case i >= 0:
			out.accounts = append(out.accounts, all[i])
		default:
			return nil, &usageError{fmt.Sprintf("no account %q, neither in %s nor in %s", n, file, from.file), c.Command.HelpName}
		}
	}
	return out, nil
}

// proposed is an account as we would have it.
func proposed(t *takeover.Proposal, from predecessor, mailRoot string, accounts []config.Account, others []entry) entry {
	base := strings.Trim(regexp.MustCompile(`[^\pL\pN._@+-]+`).ReplaceAllString(t.Name, "-"), ".-")
	e := entry{
		Name: cmp.Or(base, "mail"), Host: t.Host, Port: t.Port, TLS: t.TLS, User: t.User, CAFile: t.CAFile, Pin: t.Pin,
		Command: t.Password, File: t.PasswordFile, Mailboxes: t.Mailboxes, Trash: t.Trash,
		imported: imported{Auth: t.Auth, Cert: t.Cert, Key: t.Key, Tunnel: t.Tunnel, ReadOnly: t.ReadOnly, Deletions: t.Deletions},
	}
	if t.MaildirPP {
		e.Layout = string(maildir.MaildirPP)
	}
	for n := 2; taken(accounts, e.Name) || slices.ContainsFunc(others, func(o entry) bool { return strings.EqualFold(o.Name, e.Name) }); n++ {
		e.Name = cmp.Or(base, "mail") + strconv.Itoa(n)
	}
	e.Plaintext = t.TLS == string(config.TLSNone) && len(t.Tunnel) == 0
	if t.Timeout > 0 {
		e.Timeout = strconv.Itoa(t.Timeout) + "s"
	}
	if slices.Equal(e.Mailboxes, []string{"*"}) {
		e.Mailboxes = nil
	}
	e.Comments = append(e.Comments, plain(fmt.Sprintf("%s's account %s, of %s", from.name, t.Name, from.file)))
	for _, left := range t.NotCarriedOver {
		e.Comments = append(e.Comments, "not carried over: "+plain(left))
	}
	if e.keptNowhere() && t.Cert == "" && len(t.Tunnel) == 0 {
		e.Keyring = true
		if !slices.ContainsFunc(t.NotCarriedOver, func(s string) bool { return strings.Contains(s, "assword") || strings.Contains(s, "sign in") }) {
			e.Comments = append(e.Comments, "not carried over: the password, which stands nowhere in it: keep it with your keyring, or name a program that prints it (password_command)")
		}
		e.Comments = append(e.Comments, plain("your keyring asks you for it by: secret-tool store --label=mail service notmuch-imap username "+mail.Typed(t.User+"@"+t.Host)))
	}
	if e.Folder, _ = below(mailRoot, t.Root); e.Folder == e.Name {
		e.Folder = ""
	}
	return e
}

// nested tells whether a directory lies below another one, and is not the same.
func nested(root, dir string) bool {
	rel, inside := below(root, dir)
	return inside && rel != "."
}

// below gives the path of a directory below another one, also where links lead there.
func below(root, dir string) (string, bool) {
	rel, err := filepath.Rel(root, dir)
	if err != nil || !filepath.IsLocal(rel) {
		r, err := filepath.EvalSymlinks(root)
		d, err2 := filepath.EvalSymlinks(dir)
		if err != nil || err2 != nil {
			return "", false
		}
		rel, err = filepath.Rel(r, d)
		if err != nil {
			return "", false
		}
	}
	return filepath.ToSlash(rel), filepath.IsLocal(rel)
}

// propose shows the lines of accounts that our configuration has not, or adds them to it.
func (p *program) propose(c *cli.Context, from predecessor, found *importable) error {
	file, missing := found.file, found.missing
	say := func(format string, args ...any) {
		fmt.Fprintln(p.stderr, fold(plain(fmt.Sprintf(format, args...)), columns(p.stderr), hang)) //nolint:errcheck // nowhere left to tell
	}
	var partly error
	for _, why := range found.not {
		say("%s", why)
		partly = errPartly
	}
	if len(missing) == 0 {
		return partly
	}
	if c.Bool("json") {
		for _, e := range missing {
			p.verbatim(jsonLine(map[string]string{"account": e.Name, "proposal": e.text()}))
		}
		return partly
	}
	for i, e := range missing {
		if i > 0 {
			p.verbatim("")
		}
		for line := range strings.Lines(e.text()) {
			p.verbatim(strings.TrimRight(line, "\n"))
		}
	}
	missing, text, lacking := p.fitting(file, missing)
	for _, why := range lacking {
		say("%s", why)
		partly = errPartly
	}
	if len(missing) == 0 {
		return partly
	}
	names := make([]string, len(missing))
	for i, e := range missing {
		names[i] = e.Name
	}
	command := "import " + from.command
	if given := c.String("from"); given != "" {
		command += " --from " + mail.ShellQuoted(given)
	}
	if !c.Bool("write") || c.Bool("dry-run") {
		say("%s has no account for that mail yet: these lines go there, with what is wrong in them changed; %s adds them as they are", file, p.typed(file, command+" --write "+strings.Join(names, " ")))
		return partly
	}
	if err := p.append(c.Context, file, text, names); err != nil {
		return err
	}
	say("%s: %s added; next: %s, then %s", file, strings.Join(names, ", "), p.typed(file, "check "+strings.Join(names, " ")), p.typed(file, command+" -n "+strings.Join(names, " ")))
	return partly
}

// fitting gives those accounts that our configuration can have as they are, one behind the other,
// with their text, and why it cannot have the others.
func (p *program) fitting(file string, entries []entry) (fit []entry, text string, why []string) {
	for _, e := range entries {
		with := text + e.text()
		if len(fit) > 0 {
			with = text + "\n" + e.text()
		}
		if _, err := config.NewDraft(file, with, p.getenv); err != nil {
			why = append(why, fmt.Sprintf("%s cannot be added as it is (%s): put its lines into %s yourself, with that mended", e.Name, strings.ReplaceAll(err.Error(), "\n", "; "), file))
			continue
		}
		fit, text = append(fit, e), with
	}
	return fit, text, why
}

// append adds accounts to our configuration, all or nothing.
func (p *program) append(ctx context.Context, file, text string, names []string) error {
	unlock, err := config.Lock(ctx, file)
	if err != nil {
		return err
	}
	defer unlock()
	accounts, err := accountsIn(file, p.getenv)
	if err != nil {
		return err
	}
	for _, n := range names {
		if taken(accounts, n) {
			return fmt.Errorf("the configuration has an account %q by now; nothing was changed: begin again", n)
		}
	}
	d, err := config.NewDraft(file, text, p.getenv)
	if err != nil {
		return err
	}
	return d.Append()
}
