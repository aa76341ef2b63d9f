package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

const logArgs = "[ACCOUNT | ACCOUNT/MAILBOX[/UID] | id:ID]..."

func (p *program) logCommand() *cli.Command {
	kinds := mail.ActionKinds()
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return &cli.Command{
		Name:      "log",
		Usage:     "list what was done, on the server and here",
		ArgsUsage: logArgs,
		Description: `Every mail that was fetched, moved, deleted or sent, every change of flags, and every mailbox that was made or
deleted, one a line: when, which mail, what became of it, and why. With arguments only what was done in these accounts, in these mailboxes,
or to these messages. What is said to be begun was asked for by a run that was killed; the next sync finds out what became of it. The network
is not needed, and a sync may be under way.

The kinds are ` + strings.Join(words, ", ") + `.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "only what was done since `TIME`: 14:02, 2026-11-30, \"2026-11-30 14:02\", or 90m, 12h, 3d ago"},
			&cli.StringSliceFlag{Name: "kind", Aliases: []string{"k"}, Usage: "only what is of this `KIND`; may be given again"},
			&cli.BoolFlag{Name: "runs", Aliases: []string{"p"}, Usage: "tell the runs apart, and say of one that was killed where it stood"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each"},
		},
		Action: p.log,
	}
}

// logged is what is told of one line of the log.
type logged struct {
	Account string `json:"account"`
	mail.Logged
	OnServer bool   `json:"on_server,omitempty"`
	Text     string `json:"text"`
}

// logTerms is what is asked for.
type logTerms struct {
	since time.Time
	kinds []string
	ids   []string
	in    map[string][]string // by account: mailboxes, or MAILBOX/UID; nil: all
}

func (p *program) log(c *cli.Context) error {
	wrong := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), c.Command.HelpName}
	}
	terms := logTerms{kinds: c.StringSlice("kind"), in: make(map[string][]string)}
	for _, k := range terms.kinds {
		if !slices.Contains(mail.ActionKinds(), mail.ActionKind(k)) {
			return wrong("there is no kind %q", k)
		}
	}
	var err error
	if terms.since, err = sinceOf(c.String("since"), time.Now()); err != nil {
		return wrong("%v", err)
	}
	conf, err := p.load(c)
	if err != nil {
		return err
	}
	var names []string
	for _, arg := range c.Args().Slice() {
		if id, is := strings.CutPrefix(arg, "id:"); is {
			terms.ids = append(terms.ids, id)
			continue
		}
		name, in, _ := strings.Cut(arg, "/")
		if names = append(names, name); in != "" {
			terms.in[name] = append(terms.in[name], in)
		}
	}
	slices.Sort(names)
	accounts, err := conf.Select(slices.Compact(names))
	if err != nil {
		return wrong("%v", err)
	}
	out := bufio.NewWriter(p.stdout)
	var broken error
	for i := range accounts {
		a := &accounts[i]
		_, err := inLedger(c.Context, p, a, func(ctx context.Context, l *ledger.Ledger) (none struct{}, err error) {
			if c.Bool("runs") && !c.Bool("json") {
				return none, p.logByRun(ctx, out, a, l, terms)
			}
			return none, l.Log(ctx, terms.since, func(line mail.Logged) error {
				if !terms.match(a.Name, &line) {
					return nil
				}
				text := lineOf(a.Name, &line)
				if c.Bool("json") {
					text = jsonLine(logged{a.Name, line, line.Kind.There(), sentence(&line)})
				}
				_, err := fmt.Fprintln(out, text)
				return err
			})
		})
		if err != nil {
			if err := c.Err(); err != nil {
				return err
			}
			// What is wrong with one account says nothing of the others.
			p.complain(a.Name, err)
			broken = errTold
		}
	}
	return errors.Join(out.Flush(), broken)
}

// match tells whether a line is one of those that are asked for.
func (t *logTerms) match(account string, line *mail.Logged) bool {
	if len(t.kinds) > 0 && !slices.Contains(t.kinds, string(line.Kind)) {
		return false
	}
	if len(t.ids) > 0 && !slices.Contains(t.ids, line.ID) {
		return false
	}
	in := t.in[account]
	return len(in) == 0 || slices.ContainsFunc(in, func(name string) bool {
		name = mail.InboxName(name)
		return name == line.Mailbox || name == line.Other || line.UID != 0 && strings.EqualFold(name, fmt.Sprintf("%s/%d", line.Mailbox, line.UID))
	})
}

// lineOf is a line of the log for a person.
func lineOf(account string, l *mail.Logged) string {
	parts := []string{minute(l.At), fmt.Sprintf("%d:", l.Number), account + "/" + l.Mailbox}
	if l.UID != 0 {
		parts = append(parts, strconv.FormatUint(uint64(l.UID), 10))
	}
	if l.Subject != "" {
		parts = append(parts, "'"+l.Subject+"'")
	} else if l.From != "" {
		parts = append(parts, "from "+l.From)
	}
	return plain(strings.Join(append(parts, sentence(l)), " "))
}

// sentence says what was done, and why, and what became of it.
func sentence(l *mail.Logged) string {
	text := l.Words()
	why := ""
	if l.Why != "" {
		why = ", because " + l.Why
	}
	switch l.Outcome {
	case mail.IsDone:
		text += why
	case mail.IsBegun:
		text = "begun to be " + text + why + "; whether it was done is not known yet"
	default:
		text = "not " + text + why
	}
	if l.Said != "" {
		text += ": " + l.Said
	}
	return text
}

// logByRun tells the runs apart.
func (p *program) logByRun(ctx context.Context, out io.Writer, a *config.Account, l *ledger.Ledger, terms logTerms) error {
	runs, err := l.LogRuns(ctx)
	if err != nil {
		return err
	}
	lines := make(map[int64][]mail.Logged)
	first, last := make(map[int64]int64), make(map[int64]*mail.Logged)
	begun := make(map[int64]int)
	err = l.Log(ctx, terms.since, func(line mail.Logged) error {
		if last[line.Run] == nil {
			first[line.Run] = line.Number
		}
		last[line.Run] = &line
		if line.Outcome == mail.IsBegun && line.Kind.There() {
			begun[line.Run]++
		}
		if terms.match(a.Name, &line) {
			lines[line.Run] = append(lines[line.Run], line)
		}
		return nil
	})
	if err != nil {
		return err
	}
	dir, err := a.StateDir(p.getenv)
	if err != nil {
		return err
	}
	busy := ledger.Busy(dir)
	for i, r := range runs {
		if len(lines[r.ID]) == 0 {
			continue
		}
		head := fmt.Sprintf("%s: run %s of %s", a.Name, span(first[r.ID], last[r.ID].Number), time.UnixMilli(r.ID).Local().Format("2006-01-02 15:04:05"))
		var stood []string
		switch {
		case !r.Ended.IsZero():
			head += ", ended " + r.Ended.Local().Format("15:04:05")
		case busy != nil && i == len(runs)-1:
			head += ", under way"
		default:
			head += ", killed"
			if stood, err = whereItStood(ctx, l, i == len(runs)-1, last[r.ID], begun[r.ID]); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(out, plain(head)); err != nil {
			return err
		}
		for _, line := range lines[r.ID] {
			if _, err := fmt.Fprintln(out, "  "+lineOf(a.Name, &line)); err != nil {
				return err
			}
		}
		for _, text := range stood {
			if _, err := fmt.Fprintln(out, "  "+plain(text)); err != nil {
				return err
			}
		}
	}
	return nil
}

// span gives numbers as undo takes them.
func span(first, last int64) string {
	if first == last {
		return strconv.FormatInt(first, 10)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// whereItStood says where a run stood that was killed: newest, if there is none after it, so that what
// it left is still to be ended.
func whereItStood(ctx context.Context, l *ledger.Ledger, newest bool, last *mail.Logged, begun int) (texts []string, err error) {
	if last != nil {
		texts = append(texts, fmt.Sprintf("it stood at %s, after what is said last of %s", last.At.Local().Format("15:04:05"), last.Mailbox))
	}
	if begun > 0 {
		texts = append(texts, "the server was asked for "+mail.Number(begun, "change of which", "changes of which")+" the answer was not read: the next sync finds out what became of that")
	}
	if !newest {
		return texts, nil
	}
	left, err := journal.Of(l).Left(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := l.InState(ctx, ledger.Intended)
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		left = append(left, mail.Number(len(rows), "mail on its way into its folder", "mails on their way into their folders"))
	}
	if len(left) > 0 {
		texts = append(texts, "it left, and the next sync ends: "+strings.Join(left, "; "))
	}
	return texts, nil
}

// sinceOf reads a time of which something is asked since; zero for "".
func sinceOf(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	now = now.Local()
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.Local)
			if at.After(now) {
				at = at.AddDate(0, 0, -1) // the last time that it was so late
			}
			return at, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 36500 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf(`%q is no time such as 14:02, 2026-11-30, "2026-11-30 14:02", 90m, 12h or 3d`, text)
}
