package cmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/verify"
)

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare both sides, and change nothing",
		ArgsUsage: "[ACCOUNT | ACCOUNT/MAILBOX]...",
		Description: `Asks the server for all its messages, and compares them with the files here and with notmuch: which there are, flags,
keywords, Message-IDs, sizes. Each difference is a line. What a sync would bring or send is one; so sync first. The exit status is 3 if
there is a difference.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "deep", Usage: "fetch every message, and compare its text, too; goes on where it was stopped"},
			&cli.BoolFlag{Name: "anew", Usage: "with --deep: begin at the beginning"},
		}, outputFlags()...),
		Action: p.verify,
	}
}

// verification is what is compared of one account.
type verification struct {
	account config.Account
	only    []string
	deep    bool
	anew    bool
}

func (p *program) verify(c *cli.Context) error {
	wanted, err := p.verifications(c)
	if err != nil {
		return err
	}
	out, err := p.output(c)
	if err != nil {
		return err
	}
	defer out.close()
	keys := p.newSecrets(out.account)
	var ends []error
	for _, v := range wanted {
		v.deep, v.anew = c.Bool("deep"), c.Bool("anew")
		err := p.verifyAccount(c.Context, &v, keys, out)
		if err != nil && !isEnding(err) {
			return err
		}
		ends = append(ends, err)
	}
	return worst(ends)
}

// verifications reads the arguments.
func (p *program) verifications(c *cli.Context) ([]verification, error) {
	wrong := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
	}
	if c.Bool("anew") && !c.Bool("deep") {
		return nil, wrong("--anew is for --deep")
	}
	conf, err := p.load(c)
	if err != nil {
		return nil, err
	}
	var out []verification
	for _, arg := range c.Args().Slice() {
		account, mailbox, one := strings.Cut(arg, "/")
		selected, err := conf.Select([]string{account})
		if err != nil {
			return nil, wrong("%v", err)
		}
		mailbox = mail.InboxName(mailbox)
		if one && mailbox == "" {
			return nil, wrong("%q names no mailbox", arg)
		}
		i := slices.IndexFunc(out, func(v verification) bool { return v.account.Name == account })
		switch {
		case i < 0 && one:
			out = append(out, verification{account: selected[0], only: []string{mailbox}})
		case i < 0:
			out = append(out, verification{account: selected[0]})
		case !one:
			out[i].only = nil
		case len(out[i].only) > 0 && !slices.Contains(out[i].only, mailbox):
			out[i].only = append(out[i].only, mailbox)
		}
	}
	if len(out) == 0 {
		for _, a := range conf.Accounts {
			out = append(out, verification{account: a})
		}
	}
	return out, nil
}

// deepName is the file of the account's state with what was compared by its text.
const deepName = "verified"

// verifyAccount compares one account.
func (p *program) verifyAccount(ctx context.Context, v *verification, keys *secrets, out *output) error {
	a := &v.account
	known, err := inLedger(ctx, p, a, func(ctx context.Context, l *ledger.Ledger) ([]ledger.Mailbox, error) { return l.Mailboxes(ctx) })
	if err != nil {
		return err
	}
	if len(known) == 0 {
		out.account(a.Name, "it was never synchronised; run: "+name+" sync "+a.Name)
		return errPartly
	}
	var result *verify.Result
	var bodies []verify.Body
	lines := &differences{out: out, all: out.json || out.most >= showNotes, told: make(map[string]int)}
	var of verify.Account
	err = p.withAccount(ctx, a, keys, out, func(h *hold) error {
		o := h.options
		memory, err := pipeline.Remembered(ctx, a.Name, o.Root, o.Ledger, o.Index)
		if err != nil {
			return err
		}
		of = verify.Account{
			Name: a.Name, Root: o.Root, Layout: o.Layout, Ledger: o.Ledger, Index: o.Index, Selects: o.Selects, Only: v.only, Tags: &o.Tags, Tell: lines.tell, Memory: memory,
			NamesHaveFlags: !o.TagFlags, ReadOnly: a.ReadOnly, Deletions: o.Deletions, Trash: o.Trash, Deep: v.deep,
			Progress: func(done, total int) {
				if out.json {
					return
				}
				out.event(pipeline.Event{Time: time.Now(), Type: pipeline.EventProgress, Account: a.Name, Done: done, Total: total})
			},
		}
		return p.reach(ctx, a, o.Dial, out, func(s pipeline.Session) error {
			of.Strays = pipeline.Strays(o, s)
			result, bodies, err = verify.Sides(ctx, of, s)
			return err
		})
	})
	if err == nil && v.deep {
		err = p.verifyBytes(ctx, v, of, keys, out, result, bodies)
	}
	lines.rest()
	if err != nil {
		return err
	}
	return p.sayVerified(out, v, result)
}

// verifyBytes compares the texts. Others may work on the account meanwhile.
func (p *program) verifyBytes(ctx context.Context, v *verification, of verify.Account, keys *secrets, out *output, result *verify.Result, bodies []verify.Body) error {
	a := &v.account
	dir, err := a.StateDir(p.getenv)
	if err != nil {
		return err
	}
	done, err := verify.OpenDone(filepath.Join(dir, deepName))
	if err != nil {
		return err
	}
	if v.anew {
		if err := done.Forget(); err != nil {
			return err
		}
	}
	l, err := ledger.OpenReadOnly(ctx, dir)
	if err != nil {
		return err
	}
	of.Ledger = l
	if done.Len() > 0 {
		out.say(fmt.Sprintf("%s: %d were compared before; --anew begins at the beginning", a.Name, done.Len()))
	}
	err = p.reach(ctx, a, p.dialer(a, keys, &remote.Names{}, out), out, func(s pipeline.Session) error {
		return verify.Bytes(ctx, of, s, bodies, done, result)
	})
	if err == nil && len(v.only) == 0 {
		err = done.Forget() // the next one is a new one
	}
	return errors.Join(err, l.Close())
}

// reach does something with a signed-in connection. What the server or the network
// does to it is told, and gives the status.
func (p *program) reach(ctx context.Context, a *config.Account, dial func(context.Context) (pipeline.Session, error), out *output, do func(pipeline.Session) error) error {
	s, err := dial(ctx)
	if err == nil {
		err = do(s)
		_ = s.Close() // a server that hangs up on LOGOUT has cost nothing
	}
	_, server := errors.AsType[*mail.Fault](err)
	if ctx.Err() != nil || !server && !isRefused(err) {
		return err
	}
	text := err.Error()
	if next := advice(err); next != "" {
		text += "; " + next
	}
	out.account(a.Name, text)
	if isRefused(err) {
		return errRefused
	}
	return errLater
}

// sayVerified sums an account up.
func (p *program) sayVerified(out *output, v *verification, r *verify.Result) error {
	if out.json {
		out.mu.Lock()
		out.print(out.stdout, jsonLine(r))
		out.mu.Unlock()
	} else if out.most > showFaults {
		out.say(v.account.Name + ": " + verifiedText(r, v.deep))
	}
	if !r.Equal() {
		return errPartly
	}
	return nil
}

// verifiedText is a result in one line.
func verifiedText(r *verify.Result, deep bool) string {
	what := "are here"
	if deep {
		what = "are here, equal in every word"
	}
	text := fmt.Sprintf("all %s messages %s", thousands(r.Messages), what)
	if !r.Equal() {
		var parts []string
		n := 0
		for _, k := range []struct {
			kind  verify.Kind
			words string
		}{
			{verify.NotHere, "not here"}, {verify.NotThere, "not there"}, {verify.NotFetched, "not to be had"}, {verify.Flags, "with other flags"},
			{verify.Identity, "with another Message-ID"}, {verify.Size, "with another size"}, {verify.Leaving, "about to leave their mailbox"}, {verify.Content, "with another text"},
			{verify.NotIndexed, "not in notmuch"}, {verify.Mailbox, "about a whole mailbox"},
		} {
			if d := r.Differences[k.kind]; d > 0 {
				n += d
				parts = append(parts, thousands(d)+" "+k.words)
			}
		}
		text = fmt.Sprintf("%s messages are on both sides; %s: %s", thousands(r.Messages), count(n, "difference", "differences"), strings.Join(parts, ", "))
	}
	if r.Copies > 0 {
		text += "; " + count(r.Copies, "file is one more of a mail", "files are one more of a mail each")
	}
	if r.Unsized > 0 {
		text += fmt.Sprintf("; %s another size on the server than here, as where a server does not count exactly: --deep compares their texts", count(r.Unsized, "has", "have"))
	}
	if r.Left > 0 {
		text += fmt.Sprintf("; %s on the server, see: %s stubs --all", count(r.Left, "stays", "stay"), name)
	}
	return text
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands writes a number as a person reads it: 18,204.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// maxDifferences is how many lines a mailbox has for one kind of difference, unless all
// are asked for.
const maxDifferences = 20

// differences shows them.
type differences struct {
	out  *output
	all  bool
	told map[string]int // by place and kind
}

func place(d verify.Difference) string {
	if d.Mailbox == "" {
		return d.Account
	}
	return d.Account + "/" + d.Mailbox
}

func (l *differences) tell(d verify.Difference) {
	if l.out.json {
		l.out.mu.Lock()
		defer l.out.mu.Unlock()
		l.out.print(l.out.stdout, jsonLine(d))
		return
	}
	key := place(d) + ": " + string(d.Kind)
	if l.told[key]++; l.told[key] > maxDifferences && !l.all {
		return
	}
	where := place(d)
	if d.UID != 0 {
		where += fmt.Sprintf("/%d", d.UID)
	}
	text := d.Text
	if d.File != "" {
		text = d.File + ": " + text
	}
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	l.out.print(l.out.stdout, plain(where+": "+string(d.Kind)+": "+text))
}

// rest says how many were not shown.
func (l *differences) rest() {
	for _, key := range slices.Sorted(maps.Keys(l.told)) {
		if n := l.told[key] - maxDifferences; n > 0 && !l.all {
			l.out.mu.Lock()
			l.out.print(l.out.stdout, plain(fmt.Sprintf("%s: and %s more; -v lists all", key, thousands(n))))
			l.out.mu.Unlock()
		}
	}
}
