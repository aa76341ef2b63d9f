package cmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// together is how many accounts are synchronised at once: enough that a server
// that does not answer keeps nobody waiting.
const together = 4

func (p *program) syncCommand() *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "fetch what is new, and take changes to the server",
		ArgsUsage: "[ACCOUNT]...",
		Description: `Brings to the server what was done to the mail here: flags, moves, deletions, new mail; then what is new on
the server here; for all accounts or for those that are named. The newest mail comes first and is searchable while the rest is
still on its way.

A message that the server lists but does not hand over keeps nothing else from coming: a mail tagged fetch-failed stands for it.`,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "mailbox", Aliases: []string{"m"}, Usage: "only this `MAILBOX`, by the server's name for it; may be given again"},
			&cli.BoolFlag{Name: "full", Usage: "compare every mailbox as a whole, even if nothing seems to have changed, and ask again for all that failed"},
			&cli.GenericFlag{Name: "yes-delete", Value: &answers{}, Usage: "delete also when very much of a mailbox is gone on one side, or its folder is in doubt; with =ACCOUNT/MAILBOX only there; may be given again"},
			&cli.BoolFlag{Name: "rules", Usage: "have moves in the configuration move also mail that had its tags before it came to where it is"},
			&cli.BoolFlag{Name: "restore", Usage: "bring back what is missing here, instead of deleting it on the server"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be done, and do nothing"},
		}, slices.Concat(shareFlags(), outputFlags(), recordFlags())...),
		Action: p.syncAction,
	}
}

func (p *program) syncAction(c *cli.Context) error {
	accounts, err := p.share(c)
	if err != nil {
		return err
	}
	out, err := p.output(c)
	if err != nil {
		return err
	}
	if len(accounts) == 0 {
		if !out.json && !c.Bool("quiet") {
			out.say("no account is in this share: nothing was done")
		}
		out.close()
		return nil
	}
	req := request{accounts: accounts, full: c.Bool("full"), restore: c.Bool("restore"), rules: c.Bool("rules"), dryRun: c.Bool("dry-run")}
	if a, ok := c.Generic("yes-delete").(*answers); ok {
		if req.yesDelete, req.yesIn, err = a.of(accounts); err != nil {
			return &usageError{err.Error(), c.Command.HelpName}
		}
	}
	for _, m := range c.StringSlice("mailbox") {
		req.only = append(req.only, mail.InboxName(m))
	}
	req.held = &held{}
	err = p.sync(c.Context, out, req)
	if err != nil && !errors.Is(err, errPartly) || len(req.held.in) == 0 || req.dryRun || out.json || out.quiet || !p.terminal(p.stdout) || !p.terminal(p.stderr) {
		return err
	}
	return p.askHeld(c, req, err)
}

// accounts are those of the configuration that the arguments name.
func (p *program) accounts(c *cli.Context) ([]config.Account, error) {
	conf, err := p.load(c)
	if err != nil {
		return nil, err
	}
	accounts, err := conf.Select(c.Args().Slice())
	if err != nil {
		return nil, &usageError{err.Error(), c.Command.HelpName}
	}
	return accounts, nil
}

// load reads the configuration.
func (p *program) load(c *cli.Context) (*config.Config, error) {
	file, err := config.Find(c.String("config"), p.getenv)
	if err != nil {
		return nil, &config.Error{Text: err.Error(), Err: err}
	}
	conf, err := config.Load(file, p.getenv)
	if err == nil {
		p.configured = conf.Accounts
	}
	return conf, err
}

// request is what a sync is asked to do.
type request struct {
	accounts  []config.Account
	only      []string
	full      bool
	yesDelete bool
	yesIn     map[string][]string // mailboxes in which it is so, by account
	restore   bool
	rules     bool // tags of before move mail, too
	upload    bool // also what was here before the first sync
	uploaded  *int // takes how many were uploaded; nil: nobody asks
	dryRun    bool
	hooks     *hooks.Runner // of this run
	held      *held         // takes what waits for a person; nil: nobody asks
	locked    *error        // takes that another program has kept notmuch's database; nil: that is told
	// unattended: nobody looks at it, though there may be a terminal.
	unattended bool
	watchedAs  string // the configuration whose watch is asked first; "": none is
}

// ending is how one account's sync ended.
type ending int

const (
	endDone    ending = iota
	endPartly         // something is left, and was told
	endNothing        // nothing could be done
	endRefused        // nor will it be by itself: the sign-in was refused
	endBroken         // this machine failed, and it was told
)

// sync synchronises the accounts, some at once. What one of them comes to costs
// no other anything.
func (p *program) sync(ctx context.Context, out *output, req request) (err error) {
	defer out.close()
	if p.inside(out) {
		return nil
	}
	if req.watchedAs != "" {
		req.accounts, err = p.syncByWatch(ctx, req.watchedAs, req.accounts, out)
		if err != nil {
			return &notDone{req.accounts, err}
		}
		if len(req.accounts) == 0 {
			return nil
		}
	}
	idx, err := p.indexOf(ctx, req, out)
	if err != nil {
		return err
	}
	roots := make([]string, len(req.accounts))
	for i, a := range req.accounts {
		// What is wrong with the configuration is told before anything is done.
		if _, err := a.CertPool(); err != nil {
			return err
		}
		if _, err := a.Certificate(); err != nil {
			return err
		}
		roots[i] = filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder))
	}
	if req.hooks, err = p.runner(idx, req.accounts...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, req.hooks.Close()) }()
	keys := p.newSecrets(out.account)
	ends := make([]ending, len(req.accounts))
	errs := make([]error, len(req.accounts))
	turn := make(chan struct{}, together)
	var wg sync.WaitGroup
	for i := range req.accounts {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			a := &req.accounts[i]
			ends[i], errs[i] = p.syncAccount(ctx, a, roots[i], idx, keys, out, req)
			if errs[i] != nil && ctx.Err() == nil {
				ends[i] = endBroken
				out.broken(a.Name, errs[i])
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		left := &notDone{err: context.Cause(ctx)}
		for i, a := range req.accounts {
			if errs[i] != nil {
				left.accounts = append(left.accounts, a)
			}
		}
		return left
	}
	return verdict(ends)
}

// notDone is the end of a sync before it was done with these accounts.
type notDone struct {
	accounts []config.Account
	err      error
}

func (e *notDone) Error() string { return e.err.Error() }
func (e *notDone) Unwrap() error { return e.err }

// indexOf opens the notmuch database. A run that only looks makes none; a sync makes a new
// one also where there was one, and says so.
func (p *program) indexOf(ctx context.Context, req request, out *output) (*index.Index, error) {
	if req.dryRun {
		return p.lookedInto(ctx, out)
	}
	idx, err := p.openIndex(ctx, req.accounts, out)
	if errors.Is(err, errDatabaseGone) {
		out.fault("the notmuch database is gone: a new one is made, and `notmuch new` puts the mail into it that is here, without the tags that the old one alone had; `notmuch restore` has them from a dump")
		idx, err = index.Open(ctx, p.indexOptions(out))
	}
	return idx, err
}

// verdict sums the accounts' endings up.
func verdict(ends []ending) error {
	count := make(map[ending]int)
	for _, e := range ends {
		count[e]++
	}
	switch {
	case count[endBroken] > 0:
		return errTold
	case count[endRefused] > 0:
		return errRefused
	case count[endNothing] == len(ends):
		return errLater
	case count[endNothing]+count[endPartly] > 0:
		return errPartly
	}
	return nil
}

// isRefused tells whether a server refused the sign-in, or there is no token until somebody
// signs in anew.
func isRefused(err error) bool {
	f, ok := errors.AsType[*mail.Fault](err)
	if !ok || f.Kind != mail.KindSecret {
		return ok && f.Kind == mail.KindAuth
	}
	e, ok := errors.AsType[*noToken](f.Err)
	return ok && !e.why.Passing
}

// syncAccount synchronises one account. An error is one of this machine, or the
// context's.
func (p *program) syncAccount(ctx context.Context, a *config.Account, root string, idx *index.Index, keys *secrets, out *output, req request) (end ending, err error) {
	state, err := a.StateDir(p.getenv)
	if err != nil {
		return endBroken, err
	}
	l, done, err := openLedger(ctx, state, req.dryRun)
	if errors.Is(err, ledger.ErrBusy) {
		out.account(a.Name, err.Error()+"; nothing was done")
		return endNothing, nil
	}
	if err != nil {
		return endBroken, err
	}
	defer func() { err = errors.Join(err, done()) }()
	o, err := p.pipelineOptions(ctx, a, root, idx, l, keys, out)
	if err != nil {
		return endBroken, err
	}
	if !req.dryRun {
		o.Carrier = pipeline.NewTaker(state, time.Now)
	}
	_, end, err = p.syncLocked(ctx, a, o, idx, out, req)
	return end, err
}

// syncLocked synchronises an account whose ledger is open, by options that are as the
// configuration has them. The report may be nil beside an error.
func (p *program) syncLocked(ctx context.Context, a *config.Account, o pipeline.Options, idx *index.Index, out *output, req request) (report *pipeline.Report, end ending, err error) {
	l := o.Ledger
	o.Hooks = req.hooks
	o.Only, o.Full, o.DryRun, o.YesDelete = req.only, req.full, req.dryRun, req.yesDelete
	o.Rules, o.Plan = req.rules, req.dryRun && out.most >= showNotes
	o.Restore, o.YesDeleteIn = req.restore, req.yesIn[a.Name]
	if o.UploadHere = req.upload; req.upload {
		if err := p.inherit(ctx, a, &o); err != nil {
			return nil, endBroken, err
		}
	}
	if o.Attended = p.terminal(p.stderr) && !req.unattended; !o.Attended {
		o.Remind = reminded
	}
	var asked orders
	if !req.dryRun {
		if asked, err = p.orders(ctx, a, l, idx); err != nil {
			return nil, endBroken, err
		}
		o.Retry, o.GiveUp = asked.retry, asked.giveUp
	}
	report, err = pipeline.Sync(ctx, o)
	req.held.add(a, report)
	if req.uploaded != nil && report != nil {
		*req.uploaded = report.Uploaded
	}
	if err == nil {
		err = obeyed(ctx, idx, l, asked)
	}
	switch {
	case errors.Is(err, index.ErrLocked):
		// What came is on disk, and the next run tells notmuch.
		if req.locked != nil {
			*req.locked = err
			return report, endPartly, nil
		}
		out.account(a.Name, err.Error()+"; the next sync goes on from here")
		if report.New+report.NewStubs+report.Flagged+report.Removed > 0 {
			return report, endPartly, nil
		}
		return report, endNothing, nil
	case err != nil:
		return report, endBroken, err
	case report.Broken():
		return report, endBroken, nil
	case report.Nothing() && slices.ContainsFunc(report.Faults, func(f pipeline.Failure) bool { return isRefused(f.Err) }):
		return report, endRefused, nil
	case report.Nothing():
		return report, endNothing, nil
	case !report.Clean():
		return report, endPartly, nil
	}
	return report, endDone, nil
}

// indexOptions finds the notmuch database as notmuch does, and tells what is
// odd about it.
func (p *program) indexOptions(out *output) index.Options {
	return index.Options{
		Note:  func(text string) { out.remark("notmuch", text) },
		Waits: func(text string) { out.result("notmuch", text) },
	}
}

// pipelineOptions is an account's sync as the configuration has it.
func (p *program) pipelineOptions(ctx context.Context, a *config.Account, root string, idx *index.Index, l *ledger.Ledger, keys *secrets, out *output) (o pipeline.Options, err error) {
	names := &remote.Names{}
	l.KeepLog(ledger.Keeping{Now: time.Now, For: time.Duration(a.LogDays) * 24 * time.Hour})
	o = pipeline.Options{
		Account: pipeline.Account{
			Name:     a.Name,
			Address:  a.User,
			Root:     root,
			Dial:     p.dialer(a, keys, names, out),
			Refusals: &names.Refusals,
			SignIn:   keys.fingerprints(a),
			Index:    idx,
			Ahead:    indexAhead(a, idx),
			Ledger:   l,
			Now:      time.Now,
			Emit:     out.event,
		},
		Policy: pipeline.Policy{
			Tags: plan.Tags{
				NewTags:    idx.NewTags(),
				Keywords:   a.Keywords,
				TagFlags:   !idx.SyncFlags(),
				Moves:      moves(a),
				DeletedTag: a.DeletedTag,
				Orders:     []string{a.RetryTag, a.DropTag},
				OrderTags:  a.OrderTags,
			},
			Folders:     foldersOf,
			Layout:      maildir.Layout(a.Layout),
			Selects:     a.Selects,
			TagRules:    a.TagRules,
			Connections: a.Connections,
			Timeout:     a.Timeout,
			ReadOnly:    a.ReadOnly,
			Deletions:   pipeline.Deletions(a.Deletions),
			Trash:       a.Trash,
			AtticDays:   a.AtticDays,
			AtticSize:   a.AtticSize,
			NoAttic:     noAttic(a, l.Dir(), idx.MailRoot()),
		},
	}
	if o.OpenSpelling() {
		o.Known, err = idx.AllTags(ctx)
	}
	return o, err
}

// moves are the rules by which tags move mail.
func moves(a *config.Account) []pipeline.Move {
	var out []pipeline.Move
	for _, m := range a.Moves {
		out = append(out, pipeline.Move{From: m.From, To: m.To, With: m.With, Without: m.Without})
	}
	return out
}

// openLedger opens the account's ledger. A dry run looks into it without its
// lock, and into an empty one if there is none.
func openLedger(ctx context.Context, dir string, dryRun bool) (l *ledger.Ledger, done func() error, err error) {
	if dryRun {
		l, err = ledger.OpenReadOnly(ctx, dir)
		if !errors.Is(err, ledger.ErrNotExist) {
			if err != nil {
				return nil, nil, err
			}
			return l, l.Close, nil
		}
		if dir, err = os.MkdirTemp("", name); err != nil {
			return nil, nil, err
		}
	}
	if l, err = ledger.Open(ctx, dir); err != nil {
		return nil, nil, err
	}
	return l, func() error {
		err := l.Close()
		if dryRun {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return err
	}, nil
}

// dialer gives what opens a signed-in connection for the pipeline.
func (p *program) dialer(a *config.Account, keys *secrets, names *remote.Names, out *output) func(context.Context) (pipeline.Session, error) {
	return func(ctx context.Context) (pipeline.Session, error) {
		o, err := toldOptions(a, keys, names, out)
		if err != nil {
			return pipeline.Session{}, err
		}
		s, err := keys.dial(ctx, a, o)
		if err != nil {
			return pipeline.Session{}, err
		}
		return sessionOf(s), nil
	}
}

// toldOptions are remoteOptions of one connection of a run, whose output is told what is
// said on it.
func toldOptions(a *config.Account, keys *secrets, names *remote.Names, out *output) (remote.Options, error) {
	o, err := remoteOptions(a, keys)
	o.Names = names
	o.Record = out.records.connection(a.Name)
	o.Note = func(s string) { out.remark(a.Name, s) }
	o.Alert = func(s string) { out.alert(a.Name, s) }
	return o, err
}

// sessionOf is a connection as the pipeline has it.
func sessionOf(s *remote.Session) pipeline.Session {
	return pipeline.Session{Opener: s, Lister: s, Folders: s, Describer: s, Fetcher: s, Writer: s, Greeting: s.Greeting()}
}

// remoteOptions says what the configuration says in internal/remote's words.
func remoteOptions(a *config.Account, keys *secrets) (remote.Options, error) {
	pool, err := a.CertPool()
	if err != nil {
		return remote.Options{}, err
	}
	cert, err := a.Certificate()
	if err != nil {
		return remote.Options{}, err
	}
	o := remote.Options{
		Host:           a.Host,
		Port:           a.Port,
		TLS:            string(a.TLS),
		AllowPlaintext: a.AllowPlaintext,
		RootCAs:        pool,
		Pin:            a.TLSPin,
		ServerName:     a.TLSServerName,
		Legacy:         a.TLSLegacy,
		Certificate:    cert,
		Tunnel:         a.Tunnel,
		Proxy:          a.Proxy,
		Version:        version(),
		User:           a.User,
		Auth:           a.Auth,
		Timeout:        a.Timeout,
		Disable:        a.Disable,
	}
	if a.HasPassword() {
		o.Password = func(ctx context.Context) (string, error) { return keys.password(ctx, a) }
	}
	if a.OAuth != nil {
		source, err := keys.source(a)
		if err != nil {
			return remote.Options{}, err
		}
		o.Token, o.Explain = tokens(source), explain(source.Explain, a, loginOf(a))
	}
	return o, nil
}
