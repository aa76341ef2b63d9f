package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/contrib"
)

const (
	watchUnit = "notmuch-imap-watch.service"
	// unitMark is in every unit that we wrote, and in no other.
	unitMark = "# Installed by `notmuch imap setup systemd`"
)

func (p *program) setupSystemdCommand() *cli.Command {
	return &cli.Command{
		Name:  "systemd",
		Usage: "let the user's systemd keep a watch running",
		Description: `Writes ` + watchUnit + ` to ~/.config/systemd/user, enables and starts it, and shows how it stands: mail is synchronised
from then on, as long as you are logged in. --remove undoes it all.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "print", Usage: "print the unit, and change nothing"},
			&cli.BoolFlag{Name: "remove", Usage: "stop it, and take it away"},
		},
		Action: p.setupSystemd,
	}
}

func (p *program) setupSystemd(c *cli.Context) error {
	if c.Bool("print") && c.Bool("remove") {
		return &usageError{"--print and --remove are opposites", c.Command.HelpName}
	}
	text, err := p.unit(c.String("config"))
	if err != nil {
		return err
	}
	if c.Bool("print") {
		_, err := io.WriteString(p.stdout, text)
		return err
	}
	home := p.getenv("XDG_CONFIG_HOME")
	if home == "" {
		home = filepath.Join(p.getenv("HOME"), ".config")
	}
	file := filepath.Join(home, "systemd", "user", watchUnit)
	had, err := os.ReadFile(file)
	ours := strings.Contains(string(had), unitMark)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && !ours:
		return fmt.Errorf("%s is there already, and not by us: look at it, and move it away", file)
	}
	if c.Bool("remove") {
		return p.removeUnit(c.Context, file, ours)
	}
	// A watch that cannot begin would be started again and again.
	if _, err := p.load(c); err != nil {
		return err
	}
	if string(had) == text {
		p.say("%s: is installed already", file)
	} else if err := replaceFile(file, text, 0o644); err != nil {
		return err
	} else {
		p.say("%s: installed", file)
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", watchUnit}, {"restart", watchUnit}} {
		if err := p.systemctl(c.Context, args...); err != nil {
			p.say("it does not run yet: %v\nwhen that is put right: systemctl --user enable --now %s", err, watchUnit)
			return errTold
		}
	}
	return p.systemctl(c.Context, "--no-pager", "--lines=0", "status", watchUnit)
}

// removeUnit stops the watch and takes its unit away; ours tells whether there is one.
func (p *program) removeUnit(ctx context.Context, file string, ours bool) error {
	if !ours {
		p.say("%s: not installed", file)
		return nil
	}
	// It is to go also where no manager is at work that could stop it.
	stop := p.systemctl(ctx, "disable", "--now", watchUnit)
	if err := os.Remove(file); err != nil {
		return err
	}
	p.say("%s: removed", file)
	if stop != nil {
		p.say("whether it ran is not known: %v", stop)
		return nil
	}
	return p.systemctl(ctx, "daemon-reload")
}

// systemctl has the user's systemd do something, and shows what it says.
func (p *program) systemctl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--user"}, args...)...)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("there is no systemctl on the PATH")
	case err != nil:
		return fmt.Errorf("systemctl --user %s: %w: %s", strings.Join(args, " "), err, inLine(text))
	case text != "":
		p.say("%s", text)
	}
	return nil
}

// unit is contrib's unit as this program, with this configuration and the environment's
// notmuch and state, is to be started by it.
func (p *program) unit(conf string) (string, error) {
	me, err := os.Executable()
	if err != nil {
		return "", err
	}
	start := commandWord(me)
	if conf != "" {
		if conf, err = filepath.Abs(conf); err != nil {
			return "", err
		}
		start += " --config " + commandWord(conf)
	}
	text := "ExecStart=" + start + " watch\n"
	for _, name := range []string{"NOTMUCH_CONFIG", "NOTMUCH_PROFILE", "NOTMUCH_DATABASE", "NOTMUCH_IMAP_CONFIG", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		if value := p.getenv(name); value != "" {
			text += "Environment=" + unitWord(name+"="+value) + "\n"
		}
	}
	_, unit, _ := strings.Cut(contrib.WatchUnit(), "[Unit]")
	return unitMark + "; with --remove that undoes it.\n[Unit]" + strings.Replace(unit, "ExecStart=notmuch-imap watch\n", text, 1), nil
}

// unitWord quotes a word for a unit (systemd.syntax(7), "Quoting", and systemd.unit(5),
// "Specifiers").
func unitWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`).Replace(s) + `"`
}

// commandWord is unitWord where variables are put in (systemd.service(5), "Command lines").
func commandWord(s string) string { return strings.ReplaceAll(unitWord(s), "$", "$$") }

// replaceFile writes a file in one step, so that nobody reads half of it.
func replaceFile(file, text string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	part := file + ".new"
	if err := os.WriteFile(part, []byte(text), mode); err != nil {
		return err
	}
	return os.Rename(part, file)
}
