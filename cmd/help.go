package cmd

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

const width = 78 // columns of the help

const about = `The mail of your IMAP accounts, in Maildir and notmuch. A message that a server
lists but does not hand over becomes a mail too, tagged fetch-failed: it says
what happened, is asked for again later, and gives its place to the real mail.
`

const exits = `Exit status:
    0  all is done; failures known before do not count
    1  this machine failed: disk, notmuch, ledger
    2  the command line or the configuration is wrong
    3  a message could not be fetched for the first time, or a mailbox or
       account was left for now
   75  nothing could be done for now: offline, or another run is at work
   77  a server refused the sign-in of an account
  130  interrupted; the next run goes on from there
`

// help prints how to use the program, or the command at the end of path.
func (p *program) help(app *cli.App, path []string) error {
	if len(path) == 0 {
		return p.appHelp(app)
	}
	commands := app.Commands
	var c *cli.Command
	for _, n := range path {
		if c = find(commands, n); c == nil {
			return &usageError{fmt.Sprintf("there is no command %q", strings.Join(path, " ")), name}
		}
		commands = c.Subcommands
	}
	var b strings.Builder
	full := name + " " + strings.Join(path, " ")
	fmt.Fprintf(&b, "%s - %s\n\nUsage:\n", full, c.Usage)
	if len(c.Subcommands) > 0 {
		for _, s := range c.Subcommands {
			fmt.Fprintf(&b, "  %s\n", strings.TrimRight(full+" "+s.Name+" [OPTION]... "+s.ArgsUsage, " "))
		}
	} else {
		fmt.Fprintf(&b, "  %s\n", strings.TrimRight(full+" [OPTION]... "+c.ArgsUsage, " "))
	}
	if c.Description != "" {
		b.WriteString("\n" + paragraphs(c.Description, width))
	}
	if len(c.Subcommands) > 0 {
		b.WriteString("\nCommands:\n")
		describe(&b, c.Subcommands)
	}
	b.WriteString("\nOptions:\n")
	options(&b, flagsOf(app, c))
	_, err := io.WriteString(p.stdout, b.String())
	return err
}

// flagsOf are the options that may stand behind a command: its own, and the program's
// configuration.
func flagsOf(app *cli.App, c *cli.Command) []cli.Flag {
	global := slices.DeleteFunc(slices.Clone(app.Flags), func(f cli.Flag) bool { return !has(f, "config") })
	return append(global, c.Flags...)
}

// usageOf gives what an option is for, and what its value is called: the word between
// backquotes, "" if it takes none.
func usageOf(f cli.DocGenerationFlag) (text, value string) {
	before, rest, _ := strings.Cut(f.GetUsage(), "`")
	value, after, _ := strings.Cut(rest, "`")
	return before + value + after, value
}

func (p *program) appHelp(app *cli.App) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s - %s\n\nUsage:\n  %s COMMAND [OPTION]... [ARGUMENT]...\n  notmuch imap COMMAND [OPTION]... [ARGUMENT]...\n\n", name, app.Usage, name)
	b.WriteString(about)
	b.WriteString("\nCommands:\n")
	describe(&b, app.Commands)
	b.WriteString("\nOptions:\n")
	options(&b, app.Flags)
	b.WriteString("\n" + exits)
	fmt.Fprintf(&b, "\nMore: %s COMMAND --help, man %s\n", name, name)
	_, err := io.WriteString(p.stdout, b.String())
	return err
}

func describe(b *strings.Builder, commands []*cli.Command) {
	for _, c := range commands {
		if !c.Hidden {
			row(b, 11, strings.TrimRight(c.Name, " "), c.Usage)
		}
	}
}

func options(b *strings.Builder, flags []cli.Flag) {
	help := &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "say how to use this"}
	for _, f := range append(slices.Clip(flags), help) {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		usage, value := usageOf(d)
		if value != "" {
			value = " " + value
		}
		long, short := f.Names()[0], "    "
		if len(f.Names()) > 1 {
			short = "-" + f.Names()[1] + ", "
		}
		row(b, 24, short+"--"+long+value, usage)
	}
}

// row writes a term and its description, wrapped beside it, or below a term that is too
// long for its column.
func row(b *strings.Builder, column int, term, text string) {
	lines := wrap(text, width-column-2)
	if len([]rune(term)) >= column {
		fmt.Fprintf(b, "  %s\n", term)
		term = ""
	}
	fmt.Fprintf(b, "  %-*s%s\n", column, term, lines[0])
	for _, l := range lines[1:] {
		fmt.Fprintf(b, "  %*s%s\n", column, "", l)
	}
}

// paragraphs wraps text whose paragraphs are parted by empty lines.
func paragraphs(text string, most int) string {
	var out []string
	for p := range strings.SplitSeq(text, "\n\n") {
		out = append(out, strings.Join(wrap(p, most), "\n")+"\n")
	}
	return strings.Join(out, "\n")
}

// wrap breaks text into lines of at most most columns; there is one at least.
func wrap(text string, most int) []string {
	lines := []string{""}
	for _, w := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = w
		case len([]rune(*last))+1+len([]rune(w)) <= most:
			*last += " " + w
		default:
			lines = append(lines, w)
		}
	}
	return lines
}
