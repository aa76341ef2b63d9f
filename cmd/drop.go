package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

func (p *program) dropCommand() *cli.Command {
	return &cli.Command{
		Name:      "drop",
		Usage:     "give a failed message up, or delete it on the server",
		ArgsUsage: targetArgs,
		Description: `Without options the message is not asked for any more and its stub goes away; nothing happens on the server, and
` + "`notmuch imap retry`" + ` asks for it again. New mail that the server refused stays here and is not sent any more; a mailbox that cannot be
synchronised is left out. With --remote exactly this one message is deleted on the server, after a question
on the terminal, and it is verified that all others are still there; its stub is kept in the morgue (notmuch imap stubs --all).

` + targetHelp + targetsBeside,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "remote", Usage: "delete the message on the server"},
			&cli.StringFlag{Name: "to", Usage: "with --remote: move it to this `MAILBOX` of the server instead"},
			&cli.BoolFlag{Name: "protect-others", Usage: "with --remote, on a server without UIDPLUS: take \\Deleted off other messages meanwhile"},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
			quietFlag(),
		},
		Action: p.drop,
	}
}

func (p *program) drop(c *cli.Context) error {
	remote := c.Bool("remote")
	if !remote && (c.IsSet("to") || c.Bool("protect-others")) {
		return &usageError{"--to and --protect-others go with --remote", c.Command.HelpName}
	}
	if c.IsSet("to") && c.String("to") == "" {
		return &usageError{"--to needs the name of a mailbox", c.Command.HelpName}
	}
	all, err := p.choose(c, !remote)
	if err != nil {
		return err
	}
	out := p.wordsOutput(c.Bool("quiet"))
	keys := p.newSecrets(out.account)
	var ends []error
	for i := range all {
		if !remote {
			ends = append(ends, p.giveUp(c.Context, &all[i], keys, out))
			continue
		}
		k := &remover{program: p, out: out, account: &all[i].account, to: c.String("to"), protect: c.Bool("protect-others"), yes: c.Bool("yes")}
		ends = append(ends, p.withAccount(c.Context, &all[i].account, keys, out, func(h *hold) error {
			targets, left, err := k.failing(c.Context, h, all[i].targets)
			if err != nil {
				return err
			}
			// A mail that can be had is not to be killed for having been hard to get.
			answers, err := askAgain(c.Context, h, targets)
			if err != nil {
				return err
			}
			k.conn = conn.New(h.options.Dial, nil)
			defer k.conn.Close()
			for j, t := range targets {
				if err := k.remove(c.Context, h, t, answers[j]); err != nil {
					if !errors.Is(err, errPartly) && !errors.Is(err, errLater) {
						return err
					}
					left = err
				}
			}
			return left
		}))
	}
	return worst(ends)
}

// giveUp stops asking for the messages of one account.
func (p *program) giveUp(ctx context.Context, ch *chosen, keys *secrets, out *output) error {
	return p.withAccount(ctx, &ch.account, keys, out, func(h *hold) error {
		messages, beside := parted(ch.targets)
		left := p.giveUpBeside(ctx, ch, beside, h, out)
		if left != nil && !errors.Is(left, errPartly) || len(messages) == 0 {
			return left
		}
		rows, err := pipeline.GiveUp(ctx, h.options, messages)
		if err != nil {
			return err
		}
		for _, m := range rows {
			out.say(label(ch.account.Name, pipeline.TargetOf(m)) + ": not asked for any more; nothing happened on the server")
		}
		if len(rows) < len(messages) {
			out.account(ch.account.Name, fmt.Sprintf("%d of the messages named have no stub; see `notmuch imap stubs`", len(messages)-len(rows)))
			return errPartly
		}
		return left
	})
}

// remover deletes single messages on the server.
type remover struct {
	*program
	out     *output
	account *config.Account
	to      string
	protect bool
	yes     bool
	conn    *conn.Conn[pipeline.Session] // for all of its messages
}

// dial gives the one connection of all messages, or another one if that is cut. Whoever
// gets it does not close it.
func (k *remover) dial(ctx context.Context) (probe.Deleter, error) {
	if err := k.conn.Try(ctx); err != nil {
		return probe.Deleter{}, err
	}
	d := k.conn.Session().Deleter()
	d.Opener = shared{d.Opener}
	return d, nil
}

// shared is a connection that somebody else closes.
type shared struct{ probe.Opener }

func (shared) Close() error { return nil }

// failing gives those of the messages that hooks have not left on the server; of the
// others it says so, and left is then errPartly.
func (k *remover) failing(ctx context.Context, h *hold, targets []pipeline.Target) (out []pipeline.Target, left, err error) {
	for _, t := range targets {
		row, ok, err := rowOf(ctx, h.options.Ledger, t)
		switch {
		case err != nil:
			return nil, nil, err
		case ok && (row.State == ledger.Skipped || row.State == ledger.Deferred):
			k.out.account(k.account.Name, label(k.account.Name, t)+": a hook left this mail on the server, where nothing is wrong with it; only messages that fail are deleted there. "+
				"`notmuch imap retry` fetches it")
			left = errPartly
		default:
			out = append(out, t)
		}
	}
	return out, left, nil
}

// remove deletes one message, if it still fails and its owner says yes.
func (k *remover) remove(ctx context.Context, h *hold, t pipeline.Target, a answer) error {
	row, name := a.row, label(k.account.Name, t)
	switch a.end {
	case notKnown:
		k.out.account(k.account.Name, name+notKnownText)
		return errPartly
	case wasHere:
		k.out.account(k.account.Name, name+": this mail was fetched; only messages that fail are dropped")
		return errPartly
	case cameNow:
		k.out.say(name + ": the mail came now and took its stub's place; nothing was deleted")
		return nil
	case goneNow:
		k.out.say(name + ": the server has it no more; nothing was left to delete")
		return nil
	case notAsked:
		k.out.account(k.account.Name, name+": nothing was deleted")
		return errLater
	}
	t.UIDValidity = row.UIDValidity
	note, err := stubFile(ctx, h.idx, pipeline.KeyOf(k.account.Name, row).MessageID())
	if err != nil {
		return err
	}
	var kept string
	ledgerOf := h.options.Ledger
	done, err := probe.Expunge(ctx, probe.ExpungeOptions{
		Target: t, Dial: k.dial, Notes: journal.Of(h.options.Ledger).Expunge, Protect: k.protect, To: k.to,
		Confirm: func(plan probe.ExpungePlan) (bool, error) { return k.confirm(ctx, name, note, plan) },
		Keep: func() (err error) {
			if kept, err = k.keep(row, note); err != nil {
				return err
			}
			h := headerOf(note)
			who, what := mail.Brief(h.Get("From"), strings.TrimPrefix(field(h, "Subject"), stub.SubjectPrefix))
			return pipeline.Dropping(ctx, ledgerOf, row, k.to, who, what)
		},
	})
	switch usage, wrong := errors.AsType[*usageError](err); {
	case ctx.Err() != nil:
		return ctx.Err()
	case wrong:
		return usage
	case err != nil:
		k.out.account(k.account.Name, name+": "+err.Error())
		if _, refused := mail.Refused(err); refused {
			if err := pipeline.NotDropped(ctx, ledgerOf, row, err.Error()); err != nil {
				return err
			}
		}
		return errPartly
	case !done.Listed:
		k.out.say(name + ": the server has it no more; nothing was left to delete")
	case !done.Done:
		k.out.say(name + ": nothing was done")
		return nil
	default:
		k.out.say(name + ": " + told(k.to, done))
		k.out.say("what could be had of it is in " + kept)
	}
	if done.Moved != 0 {
		if err := k.recordGivenUp(ctx, h, done, row); err != nil {
			return err
		}
	}
	return pipeline.Forget(ctx, h.options, row)
}

// told says what happened on the server, and that it was looked at afterwards.
func told(to string, done *probe.Expunged) string {
	text := "deleted on the server"
	if to != "" {
		text = "moved to " + to + " on the server"
	}
	text += fmt.Sprintf("; it is gone from the mailbox, and all %d others are still there", done.Left)
	if n := len(done.Missing); n > 0 {
		text = strings.Replace(text, "all ", "", 1) + fmt.Sprintf("; %d went at the same time, by somebody else's hand (first UID %d)", n, done.Missing[0])
	}
	if done.Restored > 0 {
		text += fmt.Sprintf("; %d that were marked \\Deleted are marked again", done.Restored)
	}
	return text
}

// recordGivenUp records that the message is not asked for where it was moved to.
func (k *remover) recordGivenUp(ctx context.Context, h *hold, done *probe.Expunged, row ledger.Message) error {
	boxes, err := h.options.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, b := range boxes {
		if b.Name == k.to && b.UIDValidity == done.MovedTo {
			return h.options.Ledger.Save(ctx, ledger.Message{
				Mailbox: k.to, UIDValidity: done.MovedTo, UID: done.Moved, State: ledger.GivenUp, Size: row.Size, Date: row.Date, Flags: row.Flags,
				Attempts: row.Attempts, Since: row.Since, Reason: row.Reason,
			})
		}
	}
	return nil
}

// confirm asks on the terminal, since standard input may be the mail.
func (k *remover) confirm(ctx context.Context, name, note string, plan probe.ExpungePlan) (bool, error) {
	if k.yes {
		return true, nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n  message  %s\n", name)
	fmt.Fprintf(&b, "  mailbox  %s, %s\n", plain(plan.Mailbox), mail.Number(int(plan.Messages), "message", "messages"))
	fmt.Fprintf(&b, "  UID      %d\n", plan.UID)
	fmt.Fprintf(&b, "  subject  %s\n\n", plain(strings.TrimPrefix(field(headerOf(note), "Subject"), stub.SubjectPrefix)))
	for _, line := range will(plan) {
		for _, l := range wrap(plain(line), width-2) {
			b.WriteString("  " + l + "\n")
		}
	}
	question := "delete it on the server"
	if plan.To != "" {
		question = "move it to " + plain(plan.To) + " on the server"
	}
	fmt.Fprintf(&b, "\n%s? [y/N] ", question)
	return ask(ctx, b.String(), name+" drop")
}

// ask shows a text that ends in a question on the terminal, and reads the answer.
func ask(ctx context.Context, text, command string) (bool, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false, &usageError{"there is no terminal to ask on; --yes does without", command}
	}
	defer tty.Close() //nolint:errcheck // nothing of it is kept
	if _, err := io.WriteString(tty, fold(text, columns(tty), hang)); err != nil {
		return false, err
	}
	return yes(ctx, tty)
}

// headerOf reads a stub's header; it is empty if it cannot be read.
func headerOf(note string) mail.Header {
	f, err := os.Open(note)
	if err != nil {
		return nil
	}
	defer f.Close()                                    //nolint:errcheck // only read
	h, _ := mail.ReadHeader(io.LimitReader(f, 64<<10)) // what can be read of it
	return h
}

// field is one of a stub's header, decoded.
func field(h mail.Header, name string) string {
	text, err := new(mime.WordDecoder).DecodeHeader(h.Get(name))
	if err != nil {
		return h.Get(name)
	}
	return text
}

// yes reads an answer. An interruption ends the waiting.
func yes(ctx context.Context, tty *os.File) (bool, error) {
	stop := context.AfterFunc(ctx, func() { _ = tty.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(tty).ReadString('\n')
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// will says what is going to happen.
func will(plan probe.ExpungePlan) []string {
	switch {
	case plan.To != "" && plan.Move:
		return []string{"This one message is moved; no other message is touched."}
	case plan.UIDPlus:
		return []string{"This one message is marked \\Deleted and expunged by its UID; no other message is touched."}
	case len(plan.Others) > 0:
		return []string{fmt.Sprintf("This server expunges whatever is marked \\Deleted. %d other messages are: their mark is taken off first and put back afterwards.", len(plan.Others))}
	}
	return []string{"This server expunges whatever is marked \\Deleted. No other message is; that is looked at again right before."}
}

// keep puts the stub, with all that could be had of the message, into the
// morgue, and gives the path.
func (k *remover) keep(row ledger.Message, note string) (string, error) {
	dir, err := k.archiveDir(k.account)
	if err != nil {
		return "", err
	}
	if note == "" {
		return "", errors.New("its stub is gone; run `notmuch imap retry` first")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, pipeline.KeyOf(k.account.Name, row).String()+".eml")
	return path, copyDurably(note, path)
}

// archiveDir is where the stubs are kept of messages that were deleted on the
// server.
func (p *program) archiveDir(account *config.Account) (string, error) {
	state, err := account.StateDir(p.getenv)
	return filepath.Join(state, "morgue"), err
}

// copyDurably copies a file and makes sure that it is on the disk.
func copyDurably(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(out.Name(), to); err != nil {
		return err
	}
	return maildir.SyncDir(filepath.Dir(to))
}
