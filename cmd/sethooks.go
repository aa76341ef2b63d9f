package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// hookMark is in every hook of notmuch's that we wrote, and in no other.
const hookMark = "# Installed by `notmuch imap setup hooks`"

// keptSuffix names the hook that was there before: ours calls it.
const keptSuffix = ".before-notmuch-imap"

func (p *program) setupHooksCommand() *cli.Command {
	return &cli.Command{
		Name:  "hooks",
		Usage: "let notmuch new synchronise by its hooks",
		Description: `Puts pre-new and post-new where notmuch looks for its hooks. A hook that is there already is shown, kept beside
them with the ending ` + keptSuffix + `, and called first: what it refuses is refused. --remove undoes it all.`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "remove", Usage: "take the hooks away, and put back those that were there before"}},
		Action: func(c *cli.Context) error {
			out := p.wordsOutput(false)
			idx, err := index.Open(c.Context, p.indexOptions(out))
			if err != nil {
				return err
			}
			dir := idx.HookDir()
			if dir == "" {
				return errors.New("notmuch does not say where its hooks are; see: notmuch config get database.hook_dir")
			}
			call, err := p.call(c.String("config"))
			if err != nil {
				return err
			}
			for _, hook := range []string{"pre-new", "post-new"} {
				if c.Bool("remove") {
					err = removeHook(out, filepath.Join(dir, hook))
				} else {
					err = installHook(out, filepath.Join(dir, hook), call+" hook "+hook)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// call is how a shell calls us: by the plain name if that finds this very
// program, so that a later version in another place is found, too.
func (p *program) call(conf string) (string, error) {
	me, err := os.Executable()
	if err != nil {
		return "", err
	}
	program := mail.ShellQuoted(me)
	if path, err := exec.LookPath(name); err == nil && sameFile(path, me) {
		program = name
	}
	if conf == "" {
		return program, nil
	}
	conf, err = filepath.Abs(conf)
	return program + " --config " + mail.ShellQuoted(conf), err
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// hookText is a hook of notmuch's that calls us.
func hookText(call string) string {
	return `#!/bin/sh
` + hookMark + `; with --remove that undoes it.
# The hook that was here before, if there was one, comes first.
kept=$0` + keptSuffix + `
if [ -x "$kept" ]; then "$kept" "$@" || exit; fi
exec ` + call + "\n"
}

// installHook makes the file a hook that calls us, and keeps what was there.
func installHook(out *output, file, call string) error {
	text := hookText(call)
	had, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case string(had) == text:
		out.say(file + ": is installed already")
		return nil
	case strings.Contains(string(had), hookMark):
	case strings.Contains(string(had), name+" hook "+filepath.Base(file)):
		out.say(file + ": calls notmuch-imap already, and stays as it is")
		return nil
	default:
		out.say(file + ": this hook was there before:")
		for line := range strings.Lines(string(had)) {
			out.say("    " + strings.TrimRight(line, "\n"))
		}
		kept := file + keptSuffix
		// A link never overwrites.
		if err := os.Link(file, kept); errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already: look at both, and move one of them away", kept)
		} else if err != nil {
			return err
		}
		out.say("it is kept as " + kept + " and called first")
	}
	if err := replaceFile(file, text, 0o755); err != nil {
		return err
	}
	out.say(file + ": installed")
	return nil
}

// removeHook takes our hook away and puts back what was there before.
func removeHook(out *output, file string) error {
	had, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	kept := file + keptSuffix
	if !strings.Contains(string(had), hookMark) { // nor is it if there is none
		out.say(file + ": not installed")
		return nil
	}
	switch err := os.Rename(kept, file); {
	case err == nil:
		out.say(file + ": the hook that was there before is back")
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.Remove(file); err != nil {
		return err
	}
	out.say(file + ": removed")
	return nil
}
