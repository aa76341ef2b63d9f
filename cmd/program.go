// Package cmd is the command notmuch-imap: flags -> configuration -> pipeline ->
// exit status. It is a package so that a third party's main can be as short as
// ours (contrib/example-main).
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
)

const name = "notmuch-imap"

// The exit statuses, as the help and the manual page list them.
const (
	exitDone        = 0
	exitBroken      = 1  // this machine: disk, notmuch, ledger
	exitUsage       = 2  // command line or configuration
	exitPartly      = 3  // something new could not be fetched, or was left for now
	exitLater       = 75 // EX_TEMPFAIL: nothing could be done for now
	exitRefused     = 77 // EX_NOPERM: a server refused a sign-in, which does not heal by itself
	exitInterrupted = 130
)

// What a command has to say about its end beside an error of this machine. The
// details were told when they happened.
var (
	errPartly = errors.New("some mail or mailboxes were left for now")
	errLater  = errors.New("nothing could be done for now")
	errTold   = errors.New("failed")

	errRefused = errors.New("a server refused the sign-in")
)

// usageError is a mistake on the command line.
type usageError struct {
	text    string
	command string // whose help to see: "notmuch-imap sync"
}

func (e *usageError) Error() string { return e.text }

// program is one run of the command.
type program struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	getenv func(string) string
	own    []hooks.Hook // beside those of the configuration

	configured []config.Account // all of the configuration that was read last

	hangUp chan os.Signal // has a watch read its configuration again; nil: nothing does
}

// Main is the whole command: it reads os.Args and gives the exit status. The
// hooks are asked behind those of the configuration, in this order; one that is
// not valid (hooks.Validate) fails every command that would ask it.
func Main(own ...hooks.Hook) int {
	// Passwords and mail are in memory, and must not be in a core. One byte keeps it also from a
	// program that the kernel pipes it to, for which 0 says nothing (Linux, fs/coredump.c).
	var core unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &core) == nil {
		core.Cur = min(1, core.Max)
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &core) // a lower limit is always allowed
	}
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, own: own}
	return p.run(context.Background(), os.Args)
}

// run does what the arguments say and gives the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	out := &written{Writer: p.stdout}
	p.stdout = out
	app := p.app()
	args, err := arrange(app, args)
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP}
	if slices.Contains(words(args), watchName) && !p.terminal(p.stderr) {
		// A hang-up is for the command itself, and must not end it before it hears of that, nor between
		// two configurations.
		signals = signals[:3]
		p.hangUp = make(chan os.Signal, 1)
		signal.Notify(p.hangUp, syscall.SIGHUP)
		defer signal.Stop(p.hangUp)
	}
	outer := ctx
	ctx, stop := signal.NotifyContext(ctx, signals...)
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	defer context.AfterFunc(ctx, func() {
		if outer.Err() == nil {
			p.leave(ended)
		}
	})()
	// The first signal ends the run in order, a second one at once.
	defer context.AfterFunc(ctx, stop)()
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if lost := out.lost(); lost != nil && (err == nil || isEnding(err)) {
		err = fmt.Errorf("what there was to say could not be written: %w", lost)
	}
	return p.exit(ctx, err)
}

// leave ends the process in the midst of what libnotmuch is at, which may take minutes and
// cannot be interrupted, unless the run ends soon by itself.
func (p *program) leave(ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-time.After(endsSoon):
		}
		if at, since := index.Busy(); at != "" {
			text := fmt.Sprintf("interrupted; %s since %s: that is taken back, and the next run goes on from here", at, since.Local().Format("15:04:05"))
			fmt.Fprintln(p.stderr, fold(name+": "+plain(text), columns(p.stderr), hang)) //nolint:errcheck // nowhere left to tell
			os.Exit(exitInterrupted)
		}
	}
}

// endsSoon is how long a run has to end after a signal.
const endsSoon = 3 * time.Second

// isEnding tells of an error that says only how one account ended, which was told.
func isEnding(err error) bool {
	return errors.Is(err, errPartly) || errors.Is(err, errLater) || errors.Is(err, errRefused)
}

// exit says what there is to say about the end, and gives the exit status.
func (p *program) exit(ctx context.Context, err error) int {
	say := func(format string, args ...any) {
		for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
			fmt.Fprintln(p.stderr, fold(name+": "+plain(line), columns(p.stderr), hang)) //nolint:errcheck // nowhere left to tell
		}
	}
	var usage *usageError
	var wrong *config.Error
	var wrongs config.Errors
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		if errors.Is(err, errUnchanged) {
			say("interrupted; %v", errUnchanged)
		} else {
			say("interrupted; the next run goes on from here")
		}
		return exitInterrupted
	case errors.As(err, &usage):
		say("%s (see %s --help)", usage.text, usage.command)
		return exitUsage
	case errors.As(err, &wrongs), errors.As(err, &wrong):
		say("%v", err)
		return exitUsage
	case errors.Is(err, errRefused):
		return exitRefused
	case errors.Is(err, errPartly):
		return exitPartly
	case errors.Is(err, errLater):
		return exitLater
	case errors.Is(err, errTold):
		return exitBroken
	default:
		say("%v", err)
		return exitBroken
	}
}

// commands is what the program can do, in the order of the help.
func (p *program) commands() []*cli.Command {
	return []*cli.Command{
		p.syncCommand(),
		p.watchCommand(),
		p.statusCommand(),
		p.stubsCommand(),
		p.logCommand(),
		p.undoCommand(),
		p.verifyCommand(),
		p.inspectCommand(),
		p.retryCommand(),
		p.dropCommand(),
		p.folderCommand(),
		p.importCommand(),
		p.uploadCommand(),
		p.indexCommand(),
		p.checkCommand(),
		p.loginCommand(),
		p.logoutCommand(),
		p.hookCommand(),
		p.setupCommand(),
		p.demoCommand(),
		p.completionCommand(),
		p.versionCommand(),
	}
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:     name,
		HelpName: name,
		Usage:    "bring the mail of IMAP accounts into Maildir and notmuch",
		Commands: p.commands(),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE`"},
			&cli.BoolFlag{Name: "version", Usage: "say which version this is"},
		},
		Writer:    p.stdout,
		ErrWriter: p.stderr,
		Reader:    p.stdin,
		// Help and its words are ours: urfave's neither fits 80 columns nor
		// has room for exit statuses.
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // a mailbox's name may hold a comma
		ExitErrHandler:            func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			switch {
			case c.Bool("version"):
				return p.printVersion()
			case c.Args().Present():
				return &usageError{fmt.Sprintf("there is no command %q", c.Args().First()), name}
			}
			return &usageError{"no command", name}
		},
	}
	help := &cli.Command{Name: "help", Usage: "say how to use a command", ArgsUsage: "[COMMAND]"}
	help.Action = func(c *cli.Context) error {
		return p.help(app, c.Args().Slice())
	}
	app.Commands = append(app.Commands, help, p.completeCommand(app), p.shardCommand())
	p.finish(app)
	return app
}

// finish gives every command errors in our words.
func (p *program) finish(app *cli.App) {
	wrong := func(c *cli.Context, err error, _ bool) error {
		text := strings.TrimPrefix(err.Error(), "flag provided but not defined: ")
		if text != err.Error() {
			text = "there is no option " + dashes(text)
		}
		return &usageError{text, c.Command.HelpName}
	}
	app.OnUsageError = func(_ *cli.Context, err error, sub bool) error {
		return wrong(&cli.Context{Command: &cli.Command{HelpName: name}}, err, sub)
	}
	var each func(cs []*cli.Command)
	each = func(cs []*cli.Command) {
		for _, c := range cs {
			c.HideHelp = true
			c.OnUsageError = wrong
			if len(c.Subcommands) > 0 {
				var names []string
				for _, s := range c.Subcommands {
					names = append(names, s.Name)
				}
				there := "there is: " + strings.Join(names, ", ")
				c.Action = func(cc *cli.Context) error {
					if cc.Args().Present() {
						return &usageError{fmt.Sprintf("there is no %s %q; %s", c.Name, cc.Args().First(), there), name + " " + c.Name}
					}
					return &usageError{c.Name + " what? " + there, name + " " + c.Name}
				}
			}
			each(c.Subcommands)
		}
	}
	each(app.Commands)
}

// dashes writes an option's name as one types it.
func dashes(flag string) string {
	flag = strings.TrimLeft(flag, "-")
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}

// arrange puts options where package flag looks for them, which is before all
// other arguments: `sync work --quiet` is as good as `sync --quiet work`. A
// --help, wherever it stands, becomes the command of that name.
func arrange(app *cli.App, args []string) ([]string, error) {
	var global, path, options, rest []string
	commands, flags := app.Commands, []cli.Flag(nil)
	// place tells where an option goes, and whether it takes a value.
	place := func(flag string) (list *[]string, value bool) {
		for _, f := range flags {
			if has(f, flag) {
				return &options, takesValue(f)
			}
		}
		for _, f := range app.Flags {
			if has(f, flag) && (len(path) == 0 || flag == "config") {
				return &global, takesValue(f)
			}
		}
		if len(path) == 0 {
			return &global, false
		}
		return &options, false
	}
	for i := 1; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if single := apart(append(slices.Clip(flags), app.Flags...), a); single != nil {
			args = slices.Replace(slices.Clone(args), i, i+1, single...)
			a = single[0]
		}
		if len(a) > 1 && a[0] == '-' {
			flag, _, joined := strings.Cut(strings.TrimLeft(a, "-"), "=")
			if flag == "help" || flag == "h" {
				return append([]string{args[0], "help"}, path...), nil
			}
			list, value := place(flag)
			*list = append(*list, a)
			if value && !joined {
				if i++; i == len(args) {
					return nil, &usageError{"option " + dashes(flag) + " needs a value", strings.Join(append([]string{name}, path...), " ")}
				}
				*list = append(*list, args[i])
			}
			continue
		}
		if c := find(commands, a); c != nil && len(rest) == 0 {
			path, commands, flags = append(path, a), c.Subcommands, c.Flags
			continue
		}
		rest = append(rest, a)
	}
	out := append(args[:1:1], global...)
	out = append(append(out, path...), options...)
	if len(rest) > 0 {
		out = append(append(out, "--"), rest...)
	}
	return out, nil
}

// apart gives short options that are joined in one argument, as -nq, as one each; nil if
// it is none such. Only the last of them may want a value.
func apart(flags []cli.Flag, arg string) (single []string) {
	letters, value, joined := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
	if len(letters) < 2 || arg[0] != '-' || letters[0] == '-' || slices.ContainsFunc(flags, func(f cli.Flag) bool { return has(f, letters) }) {
		return nil
	}
	for i, letter := range letters {
		last := i == len(letters)-1
		known := letter == 'h' || slices.ContainsFunc(flags, func(f cli.Flag) bool {
			return has(f, string(letter)) && (last || !takesValue(f))
		})
		if !known {
			return nil
		}
		single = append(single, "-"+string(letter))
	}
	if joined {
		single[len(single)-1] += "=" + value
	}
	return single
}

// words gives arranged arguments without those that the command is about.
func words(args []string) []string {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i]
	}
	return args
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func has(f cli.Flag, name string) bool { return slices.Contains(f.Names(), name) }

// takesValue tells whether the word behind an option is its value. One that may stand alone has a
// value only behind "=" (package flag).
func takesValue(f cli.Flag) bool {
	if g, ok := f.(*cli.GenericFlag); ok {
		if alone, ok := g.Value.(interface{ IsBoolFlag() bool }); ok && alone.IsBoolFlag() {
			return false
		}
	}
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
