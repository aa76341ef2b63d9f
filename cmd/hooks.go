package cmd

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
)

// hookList is every hook that there is, in the order in which they are asked:
// those of the configuration, as it has them.
func hookList(conf []config.Hook) []hooks.Hook {
	var list []hooks.Hook
	for _, c := range conf {
		h := hooks.Hook{Name: c.Name, Doc: "runs " + strings.Join(c.Command, " "), Required: c.Required, Timeout: c.Timeout}
		for _, p := range c.Points {
			h.Points = append(h.Points, hooks.Point(p))
		}
		if c.Stream {
			h.Run, h.Close = hooks.Stream(c.Name, c.Command)
		} else {
			h.Run = hooks.Command(c.Command)
		}
		list = append(list, h)
	}
	return list
}

// runner gives what asks the hooks during one run; nil if there are none.
func (p *program) runner(accounts ...config.Account) (*hooks.Runner, error) {
	var list []hooks.Hook
	if len(accounts) > 0 {
		list = hookList(accounts[0].Hooks) // the same for all
	}
	if list = append(list, p.own...); len(list) == 0 {
		return nil, nil //nolint:nilnil // a nil Runner has no hooks
	}
	return hooks.NewRunner(list)
}

// inside tells whether a hook called us: the run that waits for that hook holds
// the account.
func (p *program) inside(out *output) bool {
	hook := p.getenv(hooks.EnvInside)
	if hook != "" {
		out.fault(fmt.Sprintf("called by the hook %s of a sync that goes on: nothing was done", hook))
	}
	return hook != ""
}

// hooks looks whether the programs are there.
func (c *checker) hooks(list []config.Hook) {
	for _, h := range list {
		what := "hook " + h.Name
		path, err := exec.LookPath(h.Command[0])
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("there is no program %q on the PATH", h.Command[0])
		}
		if err != nil {
			c.fail(what, "see command of this hook in the configuration", err)
			continue
		}
		c.ok(what, "%s at %s", path, strings.Join(h.Points, ", "))
	}
}
