package cmd

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/contrib"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func (p *program) completionCommand() *cli.Command {
	shell := func(name, line string) *cli.Command {
		return &cli.Command{
			Name: name, Usage: "for " + name, Description: line,
			Action: func(*cli.Context) error {
				_, err := io.WriteString(p.stdout, contrib.Completion(name))
				return err
			},
		}
	}
	return &cli.Command{
		Name:        "completion",
		Usage:       "print what makes a shell complete these commands",
		Description: "Commands, options, accounts, mailboxes and failed messages are completed, from what is configured and what the last sync saw: no server is asked.",
		Subcommands: []*cli.Command{
			shell("bash", "In ~/.bashrc: source <(notmuch-imap completion bash)"),
			shell("zsh", "In ~/.zshrc, behind compinit: source <(notmuch-imap completion zsh)"),
			shell("fish", "In config.fish: notmuch-imap completion fish | source"),
		},
	}
}

// completeCommand is what those scripts call: the words typed so far, the last of which
// is to be completed, behind --. The answer is a line that says what is wanted (words, or
// files that the shell knows best), then a line for each candidate, with a tab and
// words about it if there are any. What cannot be read has no candidates, and is no error.
func (p *program) completeCommand(app *cli.App) *cli.Command {
	return &cli.Command{
		Name:   "complete",
		Usage:  "be called by a shell's completion",
		Hidden: true,
		Action: func(c *cli.Context) error {
			l := typedLine(app, c.Args().Slice())
			var b strings.Builder
			if l.wants(fileWords) {
				b.WriteString("files\n")
			} else {
				b.WriteString("words\n")
				for _, w := range p.candidates(c.Context, l) {
					b.WriteString(w + "\n")
				}
			}
			_, err := io.WriteString(p.stdout, b.String())
			return err
		},
	}
}

// commandLine is what was typed, as far as completion has to understand it.
type commandLine struct {
	commands []*cli.Command // that may come next
	flags    []cli.Flag     // that may stand there
	config   string         // the value of --config
	usage    string         // how the help calls what comes next: "[ACCOUNT]...", "FILE"
	prefix   string         // of the last word, and no part of what is completed: "--mailbox="
	last     string         // the word to be completed, without the prefix
}

// What the help calls words of which completion knows something.
var (
	fileWords    = regexp.MustCompile(`\b(FILE|DIR|PATH)\b`)
	accountWords = regexp.MustCompile(`\bACCOUNT\b($|[^/])`)
	mailboxWords = regexp.MustCompile(`\bACCOUNT/MAILBOX\b`)
	serverWords  = regexp.MustCompile(`(^|[^/])\bMAILBOX\b`)
	messageWords = regexp.MustCompile(`\bMESSAGE\b`)
	commandWords = regexp.MustCompile(`\bCOMMAND\b`)
	kindWords    = regexp.MustCompile(`^KIND$`)
)

func (l *commandLine) wants(words *regexp.Regexp) bool { return words.MatchString(l.usage) }

// typedLine reads the words behind the program's name.
func typedLine(app *cli.App, typed []string) *commandLine {
	l := &commandLine{commands: app.Commands, flags: app.Flags}
	if len(typed) == 0 {
		return l
	}
	optional := true // an option may stand here
	for i := 0; i < len(typed)-1; i++ {
		word := typed[i]
		flag, value, joined := strings.Cut(strings.TrimLeft(word, "-"), "=")
		switch {
		case !optional || len(word) < 2 || word[0] != '-':
			if c := find(l.commands, word); c != nil && optional {
				l.commands, l.flags, l.usage = c.Subcommands, flagsOf(app, c), c.ArgsUsage
			} else {
				l.commands = nil
			}
			continue
		case word == "--":
			optional = false
			continue
		}
		f := valued(l.flags, flag)
		if f == nil {
			continue
		}
		if !joined {
			if i++; i == len(typed)-1 {
				l.value(f, typed[i], "")
				return l
			}
			value = typed[i]
		}
		if has(f, "config") {
			l.config = value
		}
	}
	l.last = typed[len(typed)-1]
	if optional && strings.HasPrefix(l.last, "-") {
		name, value, joined := strings.Cut(l.last, "=")
		f := valued(l.flags, strings.TrimLeft(name, "-"))
		switch {
		case joined && f != nil:
			l.value(f, value, name+"=")
		default:
			l.commands, l.usage = nil, ""
		}
		return l
	}
	l.flags = nil
	return l
}

// value says that it is the value of an option that is to be completed.
func (l *commandLine) value(f cli.Flag, typed, prefix string) {
	_, l.usage = usageOf(f.(cli.DocGenerationFlag)) // it takes a value, by that
	l.commands, l.flags, l.last, l.prefix = nil, nil, typed, prefix
}

// valued finds an option that takes a value.
func valued(flags []cli.Flag, name string) cli.Flag {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return has(f, name) && takesValue(f) })
	if i < 0 {
		return nil
	}
	return flags[i]
}

// candidates gives what the last word may become.
func (p *program) candidates(ctx context.Context, l *commandLine) (out []string) {
	add := func(word, about string) {
		// A server may call a mailbox as it likes; a name that is no one line cannot be offered.
		if strings.HasPrefix(word, l.last) && !strings.ContainsFunc(word, unicode.IsControl) {
			out = append(out, strings.TrimRight(l.prefix+word+"\t"+plain(about), "\t"))
		}
	}
	for _, c := range l.commands {
		if !c.Hidden {
			add(c.Name, c.Usage)
		}
	}
	for _, f := range l.flags {
		if d, ok := f.(cli.DocGenerationFlag); ok {
			text, _ := usageOf(d)
			for _, n := range f.Names() {
				add(dashes(n), text)
			}
		}
	}
	if l.flags != nil {
		add("--help", "say how to use this")
	}
	if len(l.commands) == 0 && l.wants(commandWords) {
		for _, c := range p.commands() {
			add(c.Name, c.Usage)
		}
	}
	if l.wants(kindWords) {
		for _, k := range mail.ActionKinds() {
			add(string(k), "")
		}
	}
	if l.usage == "" {
		return out
	}
	file, err := config.Find(l.config, p.getenv)
	if err != nil {
		return out
	}
	conf, err := config.Load(file, p.getenv)
	if err != nil {
		return out
	}
	for _, a := range conf.Accounts {
		if l.wants(accountWords) {
			add(a.Name, "")
		}
		// A ledger that cannot be read offers nothing; the command itself will say why.
		_, _ = inLedger(ctx, p, &a, func(ctx context.Context, db *ledger.Ledger) (struct{}, error) {
			return struct{}{}, l.inLedger(ctx, a.Name, db, add)
		})
	}
	return out
}

// inLedger offers the mailboxes or the failed messages of an account, if they are wanted.
func (l *commandLine) inLedger(ctx context.Context, account string, db *ledger.Ledger, add func(word, about string)) error {
	if l.wants(messageWords) {
		failed, err := failures(ctx, db)
		for _, m := range failed {
			add(fmt.Sprintf("%s/%s/%d", account, m.Mailbox, m.UID), m.Reason)
		}
		return err
	}
	if !l.wants(mailboxWords) && !l.wants(serverWords) {
		return nil
	}
	boxes, err := db.Mailboxes(ctx)
	for _, b := range boxes {
		if l.wants(mailboxWords) {
			add(account+"/"+b.Name, "")
		} else {
			add(b.Name, account)
		}
	}
	return err
}
