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
	if len(words) > 0 && !isOfLog(words[0]) {
		if _, err := conf.Select(words[:1]); err != nil {
			return wrong("%v", err)
		}
		i := slices.IndexFunc(conf.Accounts, func(a config.Account) bool { return a.Name == words[0] })
		a, words = &conf.Accounts[i], words[1:]
	} else if len(words) > 0 && len(conf.Accounts) > 1 {
		return wrong("of which account? each has numbers of its own: notmuch imap undo ACCOUNT NUMBER...")
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
		return p.planUndo(c.Context, a, keys, out, slices.Contains(words, "last"), choose)
	}
	return p.withAccount(c.Context, a, keys, out, func(h *hold) error {
		sync := func() error {
			_, end, err := p.syncLocked(c.Context, a, h.options, h.idx, out, request{accounts: []config.Account{*a}, hooks: h.options.Hooks})
			if err != nil {
				return err
			}
			return verdict([]ending{end})
		}
		left, undoing, err := pipeline.Interrupted(c.Context, h.options.Ledger)
		if err != nil {
			return err
		}
		if left {
			out.account(a.Name, interrupted(undoing))
			if err := sync(); err != nil {
				return err
			}
		}
		if undoing {
			if slices.Contains(words, "last") {
				return nil // that was it
			}
			if _, still, err := pipeline.Interrupted(c.Context, h.options.Ledger); err != nil || still {
				return errors.Join(err, errPartly)
			}
		}
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
			return undoVerdict(plan)
		}
		if c.Bool("yes") {
			sayAll(out, lines)
		} else if ok, err := ask(c.Context, strings.Join(lines, "\n")+"\n\nundo this in "+plain(a.Name)+", here and on the server? [y/N] ", c.Command.HelpName); err != nil || !ok {
			if err == nil {
				out.say("nothing was done")
			}
			return err
		}
		not, err := pipeline.Undo(c.Context, h.options, plan)
		for _, text := range not {
			out.account(a.Name, "not undone: "+text)
		}
		if err != nil {
			return err
		}
		err = sync()
		if err != nil {
			out.account(a.Name, "what was undone is undone here; the next sync takes to the server what is left of it")
		} else if len(not) > 0 {
			err = errPartly
		}
		return err
	})
}

// interrupted says that a sync comes before anything is undone, and why.
func interrupted(undo bool) string {
	if undo {
		return "an undo was interrupted, or its sync; that is done to the end first"
	}
	return "a sync was interrupted; that is done to the end first"
}

// planUndo says what would be done.
func (p *program) planUndo(ctx context.Context, a *config.Account, keys *secrets, out *output, last bool, choose func(context.Context, *ledger.Ledger) ([]mail.Logged, error)) error {
	idx, err := p.lookedInto(ctx, out)
	if err != nil {
		return err
	}
	plan, err := inLedger(ctx, p, a, func(ctx context.Context, l *ledger.Ledger) (none pipeline.UndoPlan, err error) {
		left, undoing, err := pipeline.Interrupted(ctx, l)
		if err != nil {
			return none, err
		}
		if left {
			out.account(a.Name, interrupted(undoing))
		}
		if undoing && last {
			return none, nil // that is all
		}
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
	if len(plan.Actions)+len(plan.Stays)+len(plan.Before) > 0 {
		sayAll(out, undoLines(plan))
	}
	return undoVerdict(plan)
}

// undoVerdict is the error of a plan of which nothing is left but to be carried out.
func undoVerdict(p pipeline.UndoPlan) error {
	if len(p.Actions) == 0 && len(p.Stays) > 0 {
		return errPartly
	}
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
	switch {
	case len(lines) == 0:
		lines = []string{"nothing is left to be undone: all is as it was before"}
	case len(p.Before) > 0:
		var numbers []string
		for _, line := range p.Before {
			numbers = append(numbers, strconv.FormatInt(line.Number, 10))
		}
		lines = append(lines, "as it was before already: "+strings.Join(numbers, " "))
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

// isOfLog tells whether a word is to name something in the log, and no account.
func isOfLog(word string) bool {
	return word == "last" || word != "" && (word[0] >= '0' && word[0] <= '9' || word[0] == '-')
}

// numbers is what a word names of the log: from one number to another.
type numbers struct {
	word     string
	from, to int64
	found    bool
}

// numbersOf reads the words that are numbers.
func numbersOf(words []string) (spans []numbers, err error) {
	for _, w := range words {
		if w == "last" {
			continue
		}
		from, to, isSpan := strings.Cut(w, "-")
		if !isSpan {
			to = from
		}
		first, err := strconv.ParseInt(from, 10, 64)
		end, err2 := strconv.ParseInt(to, 10, 64)
		switch {
		case err != nil || err2 != nil:
			return nil, fmt.Errorf("%w: %q is no number of it, such as 381, no two such as 375-381, and not \"last\"", errNoNumber, w)
		case first > end:
			return nil, fmt.Errorf("%w: of %q the first number is the greater one", errNoNumber, w)
		}
		spans = append(spans, numbers{word: w, from: first, to: end})
	}
	return spans, nil
}

// chosenLines gives the lines of the log that words name, as they are undone.
func chosenLines(ctx context.Context, l *ledger.Ledger, words []string) ([]mail.Logged, error) {
	spans, err := numbersOf(words)
	if err != nil {
		return nil, err
	}
	var log plan.Log
	if err := l.Log(ctx, time.Time{}, func(line mail.Logged) error {
		log = append(log, line)
		return nil
	}); err != nil {
		return nil, err
	}
	last := func(*mail.Logged) bool { return false }
	if slices.Contains(words, "last") {
		last = log.Last()
	}
	some := false
	chosen := log.Whole(func(line *mail.Logged) bool {
		is := last(line)
		some = some || is
		for i := range spans {
			if s := &spans[i]; line.Number >= s.from && line.Number <= s.to {
				s.found, is = true, true
			}
		}
		return is
	})
	for _, s := range spans {
		if !s.found {
			return nil, fmt.Errorf("%w: %s", errNoNumber, s.word)
		}
	}
	if slices.Contains(words, "last") && !some {
		return nil, fmt.Errorf("%w: no run has changed anything yet", errNoNumber)
	}
	return chosen, nil
}

// noAttic says why no mail goes to the attic of an account whose state is in a directory: notmuch reads
// all that is below its mail root. "" where it is elsewhere, or there is none by the configuration.
func noAttic(a *config.Account, state, root string) string {
	// The directory may not be there yet: it is below what is.
	if _, inside := below(resolved(root), resolved(state)); a.AtticDays <= 0 || !inside {
		return ""
	}
	return fmt.Sprintf("notmuch would find it, since %s is below its mail root %s (XDG_STATE_HOME, or notmuch config set database.mail_root, puts one of them elsewhere)", state, root)
}
