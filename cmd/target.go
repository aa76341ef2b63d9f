package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/show"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// targetHelp says how a message is named on the command line.
const targetHelp = `A message is named by the notmuch id of its stub, by a notmuch query, as ACCOUNT/MAILBOX/UID, or by "-": then
the stub itself is read from standard input, as Mutt pipes it.`

const targetArgs = "MESSAGE... | -"

// targetsBeside says what retry and drop take beside messages.
const targetsBeside = ` New mail that the server refused is named by its notmuch id or as "stubs --all" lists
it, a mailbox as ACCOUNT/MAILBOX.`

// maxTargets bounds what one query may name: a slip must not ask a server for
// ten thousand messages.
const maxTargets = 1000

// chosen are the messages of one account that the command line names.
type chosen struct {
	account config.Account
	targets []pipeline.Target
}

// chooser finds out what messages are meant.
type chooser struct {
	*program
	accounts []config.Account
	beside   bool         // also what is no message of the server's
	idx      *index.Index // nil until it is needed
	out      []chosen
}

// choose reads the arguments. With beside they may also name mail that is not on the server,
// and mailboxes.
func (p *program) choose(c *cli.Context, beside bool) ([]chosen, error) {
	wrong := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
	}
	if !c.Args().Present() {
		return nil, wrong("%s which message? %s", c.Command.Name, targetArgs)
	}
	conf, err := p.load(c)
	if err != nil {
		return nil, err
	}
	ch := &chooser{program: p, accounts: conf.Accounts, beside: beside}
	for _, arg := range c.Args().Slice() {
		err := ch.add(c.Context, arg)
		if errors.Is(err, errNoTarget) {
			return nil, wrong("%v", err)
		}
		if err != nil {
			return nil, err
		}
	}
	return ch.out, nil
}

// errNoTarget says that an argument names no message that could be meant.
var errNoTarget = errors.New("no such message")

func noTarget(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNoTarget, fmt.Sprintf(format, args...))
}

func (ch *chooser) add(ctx context.Context, arg string) error {
	if arg == "-" {
		var head bytes.Buffer
		key, err := stub.ReadKey(io.TeeReader(ch.stdin, &head))
		// The rest of it is read, so that who pipes does not get SIGPIPE.
		_, _ = io.Copy(io.Discard, ch.stdin)
		if err != nil && ch.beside {
			h, _ := mail.ReadHeader(bytes.NewReader(head.Bytes()), "Message-ID") // what can be read of it
			if id := h.MessageID(); id != "" {
				if ok, err := ch.besides(ctx, "id:"+id); ok || err != nil {
					return err
				}
			}
		}
		if err != nil {
			return noTarget("%v (a mail reader must pipe the mail as it is: in Mutt, pipe_decode=no)", err)
		}
		return ch.key(ctx, key, func(l *ledger.Ledger) (bool, error) {
			return pipeline.VerifyStub(ctx, l, bytes.NewReader(head.Bytes()))
		})
	}
	if key, ok := stub.ParseMessageID(strings.TrimPrefix(arg, "id:")); ok {
		return ch.key(ctx, key, nil)
	}
	if ch.beside {
		if ok, err := ch.besides(ctx, arg); ok || err != nil {
			return err
		}
	}
	if a, t, ok := ch.path(arg); ok {
		ch.take(a, t)
		return nil
	}
	return ch.query(ctx, arg)
}

// path reads ACCOUNT/MAILBOX/UID.
func (ch *chooser) path(arg string) (config.Account, pipeline.Target, bool) {
	account, rest, ok := strings.Cut(arg, "/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i <= 0 {
		return config.Account{}, pipeline.Target{}, false
	}
	uid, err := strconv.ParseUint(rest[i+1:], 10, 32)
	n := slices.IndexFunc(ch.accounts, func(a config.Account) bool { return a.Name == account })
	if err != nil || uid == 0 || n < 0 {
		return config.Account{}, pipeline.Target{}, false
	}
	return ch.accounts[n], pipeline.Target{Mailbox: mail.InboxName(rest[:i]), UID: imap.UID(uid)}, true
}

// besides finds what is no message of the server's: a mailbox in which something failed, or
// new mail that the server refused, by its name in the list or its id in notmuch.
func (ch *chooser) besides(ctx context.Context, arg string) (found bool, err error) {
	id, isID := strings.CutPrefix(arg, "id:")
	for _, a := range ch.accounts {
		if !isID && !strings.HasPrefix(arg, a.Name+"/") {
			continue
		}
		failed, err := inLedger(ctx, ch.program, &a, func(ctx context.Context, l *ledger.Ledger) ([]pipeline.Failed, error) {
			return pipeline.FailedOf(ctx, a.Name, l)
		})
		if err != nil {
			return false, err
		}
		for _, f := range failed {
			switch t := f.Target(); {
			case t.File != "" && (isID && f.ID == id || arg == nameOf(a.Name, f)):
				ch.take(a, t)
				found = true
			case f.Mailbox != "" && arg == a.Name+"/"+f.Mailbox:
				ch.take(a, pipeline.Target{Mailbox: f.Mailbox})
				found = true
			}
		}
	}
	return found, nil
}

// query takes every message that notmuch finds, if they are stubs.
func (ch *chooser) query(ctx context.Context, query string) error {
	if ch.idx == nil {
		var err error
		if ch.idx, err = index.Open(ctx, index.Options{Existing: true}); err != nil {
			return err
		}
	}
	ids, err := ch.idx.Search(ctx, query, maxTargets+1)
	switch {
	case err != nil:
		return err
	case len(ids) == 0:
		return noTarget("%q finds nothing in notmuch, and is no ACCOUNT/MAILBOX/UID of a configured account", query)
	case len(ids) > maxTargets:
		return noTarget("%q finds more than %d messages", query, maxTargets)
	}
	for _, id := range ids {
		key, ok := stub.ParseMessageID(id)
		if !ok && ch.beside {
			if found, err := ch.besides(ctx, "id:"+id); err != nil {
				return err
			} else if found {
				continue
			}
		}
		if !ok {
			return noTarget("%q finds mail that is no stub, such as id:%s; add \"and tag:%s\"", query, plain(id), pipeline.TagFailed)
		}
		if err := ch.key(ctx, key, nil); err != nil {
			return err
		}
	}
	return nil
}

// key finds the message of a stub. Anybody can send a mail that looks like one:
// the ledger must know it, and verify what else there is of it.
func (ch *chooser) key(ctx context.Context, key stub.Key, verify func(*ledger.Ledger) (bool, error)) error {
	var unread []error
	for _, a := range ch.accounts {
		rows, err := inLedger(ctx, ch.program, &a, func(ctx context.Context, l *ledger.Ledger) ([]ledger.Message, error) {
			if verify != nil {
				if ok, err := verify(l); err != nil || !ok {
					return nil, err
				}
			}
			return failures(ctx, l)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			unread = append(unread, fmt.Errorf("%s: %w", a.Name, err))
		}
		if m, ok := withKey(rows, a.Name, key); ok {
			ch.take(a, pipeline.TargetOf(m))
			return nil
		}
	}
	if len(unread) > 0 {
		return errors.Join(unread...) // it may be in one of those
	}
	return noTarget("UID %d of this stub is not among the messages that failed: it came meanwhile, or went; see `notmuch imap stubs --all`", key.UID)
}

// withKey finds the row of a stub.
func withKey(rows []ledger.Message, account string, key stub.Key) (ledger.Message, bool) {
	i := slices.IndexFunc(rows, func(m ledger.Message) bool { return pipeline.KeyOf(account, m) == key })
	if i < 0 {
		return ledger.Message{}, false
	}
	return rows[i], true
}

// inLedger gives what some query finds in an account's ledger; nothing if there is none
// yet.
func inLedger[T any](ctx context.Context, p *program, a *config.Account, query func(context.Context, *ledger.Ledger) (T, error)) (found T, err error) {
	dir, err := a.StateDir(p.getenv)
	if err != nil {
		return found, err
	}
	l, err := ledger.OpenReadOnly(ctx, dir)
	if errors.Is(err, ledger.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	found, err = query(ctx, l)
	return found, errors.Join(err, l.Close())
}

func failures(ctx context.Context, l *ledger.Ledger) ([]ledger.Message, error) {
	rows, err := l.InState(ctx, ledger.Stub, ledger.GivenUp, ledger.Skipped)
	if err != nil {
		return nil, err
	}
	none, err := show.NotMail(ctx, l)
	return append(slices.DeleteFunc(rows, func(m ledger.Message) bool { return m.State == ledger.Skipped && m.StubKey == "" }), none...), err
}

func (ch *chooser) take(a config.Account, t pipeline.Target) {
	i := slices.IndexFunc(ch.out, func(c chosen) bool { return c.account.Name == a.Name })
	if i < 0 {
		i = len(ch.out)
		ch.out = append(ch.out, chosen{account: a})
	}
	if !slices.Contains(ch.out[i].targets, t) {
		ch.out[i].targets = append(ch.out[i].targets, t)
	}
}

// parted gives the messages of the server among targets, and what else there is.
func parted(targets []pipeline.Target) (messages, beside []pipeline.Target) {
	for _, t := range targets {
		if t.UID != 0 {
			messages = append(messages, t)
		} else {
			beside = append(beside, t)
		}
	}
	return messages, beside
}

// label names a message as it is named on the command line.
func label(account string, t pipeline.Target) string {
	return plain(fmt.Sprintf("%s/%s/%d", account, t.Mailbox, t.UID))
}

// hold is an account held by this run: what a sync of it needs.
type hold struct {
	options pipeline.Options // with its ledger, locked
	idx     *index.Index
}

// lockWait is how long a person who pressed a key waits for another run to end.
const lockWait = 30 * time.Second

// withAccount lets f work on an account that no other run works on meanwhile.
func (p *program) withAccount(ctx context.Context, a *config.Account, keys *secrets, out *output, f func(*hold) error) (err error) {
	if p.inside(out) {
		return nil
	}
	idx, err := p.openIndex(ctx, []config.Account{*a}, out)
	if err != nil {
		return err
	}
	if _, err := a.CertPool(); err != nil {
		return err
	}
	dir, err := a.StateDir(p.getenv)
	if err != nil {
		return err
	}
	l, err := p.waitForLedger(ctx, dir, a.Name, out)
	if errors.Is(err, ledger.ErrBusy) {
		out.account(a.Name, err.Error()+"; nothing was done")
		return errLater
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.EndRun(context.WithoutCancel(ctx)), l.Close()) }()
	runner, err := p.runner(idx, *a)
	if err != nil {
		return err
	}
	defer func() { _ = runner.Close() }() // what the hooks failed at was told
	root := filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder))
	o, err := p.pipelineOptions(ctx, a, root, idx, l, keys, out)
	if err != nil {
		return err
	}
	h := &hold{o, idx}
	h.options.Hooks = runner // whatever comes meanwhile is mail as in any other sync
	return f(h)
}

// waitForLedger waits for another run on the account to end.
func (p *program) waitForLedger(ctx context.Context, dir, account string, out *output) (*ledger.Ledger, error) {
	l, err := ledger.Open(ctx, dir)
	if !errors.Is(err, ledger.ErrBusy) {
		return l, err
	}
	out.say(account + ": waiting for another notmuch-imap to end ...")
	within, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-within.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-again.C:
		}
		if l, err = ledger.Open(ctx, dir); !errors.Is(err, ledger.ErrBusy) {
			return l, err
		}
	}
}
