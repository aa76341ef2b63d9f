package cmd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

func (p *program) undoCommand() *cli.Command {
	return &cli.Command{
		Name:      "undo",
		Usage:     "turn back what was done, on the server and here",
		ArgsUsage: "[ACCOUNT] NUMBER... | NUMBER-NUMBER | last",
		Description: `What is undone is named by its numbers in "notmuch imap log", several by the first and the last one, and what the last
sync did that can be undone by "last". Flags, keywords and their tags become as they were, mail goes back to the mailbox that it was in, also
out of the Trash, and mail that was removed here since it was gone on the server comes back from the attic, with its tags. What cannot be
undone is said before: mail that the server has deleted for good, mail that came or was sent.

It is shown, and asked about; then it is done here, and a sync takes it to the server. It is in the log, too, and can be undone.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be done, and do nothing"},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say also what is odd about the server's answers"},
			quietFlag(),
		},
		Action: p.undo,
	}
}

func (p *program) undo(c *cli.Context) error {
	wrong := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
	}
	conf, err := p.load(c)
	if err != nil {
		return err
	}
	a, words := &conf.Accounts[0], c.Args().Slice()
	if len(words) > 0 {
		if i := slices.IndexFunc(conf.Accounts, func(a config.Account) bool { return a.Name == words[0] }); i >= 0 {
			a, words = &conf.Accounts[i], words[1:]
		} else if len(conf.Accounts) > 1 {
			return wrong("of which account? each has numbers of its own: notmuch imap undo ACCOUNT NUMBER...")
		}
	}
	if len(words) == 0 {
		return wrong("undo what? the numbers are those of `notmuch imap log`")
	}
	if a.ReadOnly {
		return wrong("nothing of %s goes to the server (read_only), so that nothing can be undone there", a.Name)
	}
	choose := func(ctx context.Context, l *ledger.Ledger) ([]mail.Logged, error) {
		lines, err := chosenLines(ctx, l, words)
		if errors.Is(err, errNoNumber) {
			return nil, wrong("%v", err)
		}
		return lines, err
	}
	out, err := p.output(c)
	if err != nil {
		return err
	}
	defer out.close()
	keys := p.newSecrets(out.account)
	if c.Bool("dry-run") {
		return p.planUndo(c.Context, a, keys, out, choose)
	}
	return p.withAccount(c.Context, a, keys, out, func(h *hold) error {
		chosen, err := choose(c.Context, h.options.Ledger)
		if err != nil {
			return err
		}
		plan, err := pipeline.PlanUndo(c.Context, h.options, chosen)
		if err != nil {
			return err
		}
		lines := undoLines(plan)
		if len(plan.Actions) == 0 {
			sayAll(out, lines)
			if len(plan.Stays) > 0 {
				return errPartly
			}
			return nil
		}
		if c.Bool("yes") {
			sayAll(out, lines)
		} else if ok, err := ask(c.Context, strings.Join(lines, "\n")+"\n\nundo this in "+plain(a.Name)+", here and on the server? [y/N] ", c.Command.HelpName); err != nil || !ok {
			if err == nil {
				out.say("nothing was done")
			}
			return err
		}
		done, err := pipeline.Undo(c.Context, h.options, plan)
		for _, text := range done.Left {
			out.account(a.Name, "not undone: "+text)
		}
		if err != nil {
			return err
		}
		_, end, err := p.syncLocked(c.Context, a, h.options, h.idx, out, request{accounts: []config.Account{*a}, hooks: h.options.Hooks})
		if err != nil {
			return err
		}
		err = verdict([]ending{end})
		if err != nil {
			out.account(a.Name, "what was undone is undone here; the next sync takes to the server what is left of it")
		} else if len(done.Left) > 0 {
			err = errPartly
		}
		return err
	})
}

// planUndo says what would be done.
func (p *program) planUndo(ctx context.Context, a *config.Account, keys *secrets, out *output, choose func(context.Context, *ledger.Ledger) ([]mail.Logged, error)) error {
	idx, err := p.lookedInto(ctx, out)
	if err != nil {
		return err
	}
	plan, err := inLedger(ctx, p, a, func(ctx context.Context, l *ledger.Ledger) (none pipeline.UndoPlan, err error) {
		lines, err := choose(ctx, l)
		if err != nil {
			return none, err
		}
		o, err := p.pipelineOptions(ctx, a, filepath.Join(idx.MailRoot(), filepath.FromSlash(a.Folder)), idx, l, keys, out)
		if err != nil {
			return none, err
		}
		o.DryRun = true
		return pipeline.PlanUndo(ctx, o, lines)
	})
	if err != nil {
		return err
	}
	sayAll(out, undoLines(plan))
	return nil
}

func sayAll(out *output, lines []string) {
	for _, l := range lines {
		out.say(l)
	}
}

// undoLines say what would be done, and what cannot be.
func undoLines(p pipeline.UndoPlan) (lines []string) {
	for _, a := range p.Actions {
		lines = append(lines, a.Plan()+"  ("+a.Words()+", "+strings.TrimPrefix(a.Why, "you ")+")")
	}
	var reasons []string
	by := make(map[string][]plan.NotUndone)
	for _, n := range p.Stays {
		if by[n.Reason] == nil {
			reasons = append(reasons, n.Reason)
		}
		by[n.Reason] = append(by[n.Reason], n)
	}
	for _, reason := range reasons {
		all := by[reason]
		if len(all) > shownAlone {
			lines = append(lines, fmt.Sprintf("not undone: %d actions from %d to %d: %s", len(all), all[0].Number, all[len(all)-1].Number, reason))
			continue
		}
		for _, n := range all {
			lines = append(lines, fmt.Sprintf("not undone: %d  %s: %s", n.Number, n.Plan(), reason))
		}
	}
	if len(lines) == 0 {
		return []string{"nothing is left to be undone: all is as it was before"}
	}
	for i, l := range lines {
		lines[i] = plain(l)
	}
	return lines
}

// shownAlone is how many actions that cannot be undone for one reason are named.
const shownAlone = 3

// errNoNumber says that a word names nothing in the log.
var errNoNumber = errors.New("that is not in the log")

// chosenLines gives the lines of the log that words name, each once.
func chosenLines(ctx context.Context, l *ledger.Ledger, words []string) ([]mail.Logged, error) {
	type span struct {
		word     string
		from, to int64
		found    bool
	}
	var spans []span
	last := false
	for _, w := range words {
		if w == "last" {
			last = true
			continue
		}
		from, to, isSpan := strings.Cut(w, "-")
		if !isSpan {
			to = from
		}
		first, err := strconv.ParseInt(from, 10, 64)
		end, err2 := strconv.ParseInt(to, 10, 64)
		if err != nil || err2 != nil || first > end {
			return nil, fmt.Errorf("%w: %q is no number of it, such as 381, no two such as 375-381, and not \"last\"", errNoNumber, w)
		}
		spans = append(spans, span{word: w, from: first, to: end})
	}
	var lines, run, newest []mail.Logged // run is that of the line before, newest the last with something to undo
	some := false                        // there is that in run
	err := l.Log(ctx, time.Time{}, func(line mail.Logged) error {
		if len(run) > 0 && run[0].Run != line.Run {
			run, some = nil, false
		}
		if last {
			run = append(run, line)
		}
		if some = some || undoable(line); some {
			newest = run
		}
		for i := range spans {
			if s := &spans[i]; line.Number >= s.from && line.Number <= s.to {
				if !s.found || lines[len(lines)-1].Number != line.Number {
					lines = append(lines, line)
				}
				s.found = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range spans {
		if !s.found {
			return nil, fmt.Errorf("%w: %s", errNoNumber, s.word)
		}
	}
	if last && len(newest) == 0 {
		return nil, fmt.Errorf("%w: nothing of it can be undone", errNoNumber)
	}
	lines = append(lines, newest...)
	slices.SortFunc(lines, func(a, b mail.Logged) int { return int(a.Number - b.Number) })
	return slices.CompactFunc(lines, func(a, b mail.Logged) bool { return a.Number == b.Number }), nil
}

// undoable tells whether a line is one that "last" may mean.
func undoable(line mail.Logged) bool {
	switch line.Kind {
	case mail.ActStore, mail.ActFlag, mail.ActMove, mail.ActFollow, mail.ActUndo:
	case mail.ActDelete:
		return line.Outcome == mail.IsDone && line.Other != ""
	case mail.ActRemove:
		return line.Outcome == mail.IsDone && line.Attic
	default:
		return false
	}
	return line.Outcome == mail.IsDone
}
