package cmd

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
)

// notifySend is the program that notifies the desktop (libnotify).
const notifySend = "notify-send"

// hookList is every hook of the configuration, in its order: executables, and
// built-in ones.
func hookList(conf []config.Hook, idx *index.Index, own []string) []hooks.Hook {
	var list []hooks.Hook
	for _, c := range conf {
		h := hooks.Hook{Name: c.Name}
		switch {
		case c.Builtin != nil:
			h = builtIn(c, idx, own)
		case c.Stream:
			h.Run, h.Close = hooks.Stream(c.Name, c.Command)
		default:
			h.Run = hooks.Command(c.Command)
		}
		if c.Builtin == nil {
			h.Doc = "runs " + strings.Join(c.Command, " ")
			for _, p := range c.Points {
				h.Points = append(h.Points, hooks.Point(p))
			}
		}
		h.Required, h.Timeout = c.Required, c.Timeout
		list = append(list, h)
	}
	return list
}

// builtIn is a built-in hook as the configuration sets it. own are the user's
// addresses.
func builtIn(c config.Hook, idx *index.Index, own []string) hooks.Hook {
	b := c.Builtin
	var tags hooks.Tags
	tags.Add, tags.Remove = b.Changes()
	switch b.Kind {
	case config.BuiltinTag:
		rule := hooks.TagRule{Mailboxes: b.Selects, Header: b.Header, Match: b.Match, ListID: b.ListID, Tags: tags}
		if b.FromMe {
			rule.Own = append([]string{}, own...) // not nil, if there are none
		}
		return hooks.Tag(c.Name, rule)
	case config.BuiltinLists:
		return hooks.Lists(c.Name, b.Selects, b.Prefix, tags)
	case config.BuiltinLimit:
		return hooks.Limit(c.Name, hooks.Limits{Mailboxes: b.Selects, Size: b.Size, Age: b.Age, Tags: tags, Silent: !b.Placeholder})
	case config.BuiltinSpam:
		return hooks.Spam(c.Name, b.Selects, b.Score, tags)
	case config.BuiltinMute:
		return hooks.Mute(c.Name, b.Selects, func(ctx context.Context, ids []string) (bool, error) { return muted(ctx, idx, b.Tag, ids) }, tags)
	case config.BuiltinAddresses:
		return hooks.Addresses(c.Name, hooks.Book{Mailboxes: b.Selects, File: b.File, Alias: b.Format == "alias", Most: b.Most, Own: own})
	case config.BuiltinNotify:
		return hooks.Notify(c.Name, b.Selects, []string{notifySend, "--app-name=" + name, "--"}, b.Show)
	}
	return hooks.Hook{Name: c.Name} // refused, since it has nothing to run
}

// muted tells whether a thread that has one of these mails has one with the tag.
// The ids hold nothing but letters that mean themselves in a query.
func muted(ctx context.Context, idx *index.Index, tag string, ids []string) (bool, error) {
	word := `tag:"` + strings.ReplaceAll(tag, `"`, `""`) + `"`
	// Mostly there is none at all, and that is soon found.
	if n, err := idx.Count(ctx, word); n == 0 || err != nil {
		return false, err
	}
	n, err := idx.Count(ctx, word+` and thread:"{id:""`+strings.Join(ids, `"" or id:""`)+`""}"`)
	return n > 0, err
}

// addressesOf are the user's own: those that notmuch knows, and those by which
// the accounts are signed in to.
func addressesOf(idx *index.Index, accounts []config.Account) []string {
	own := idx.Addresses()
	for _, a := range accounts {
		if strings.Contains(a.User, "@") {
			own = append(own, a.User)
		}
	}
	return own
}

// runner gives what asks the hooks during one run; nil if there are none.
func (p *program) runner(idx *index.Index, accounts ...config.Account) (*hooks.Runner, error) {
	var list []hooks.Hook
	if len(accounts) > 0 {
		list = hookList(accounts[0].Hooks, idx, addressesOf(idx, accounts)) // the same for all
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

// hooks looks whether the programs are there, and says what each hook does.
func (c *checker) hooks(list []config.Hook, idx *index.Index, accounts []config.Account) {
	all := append(hookList(list, idx, addressesOf(idx, accounts)), c.p.own...)
	if err := hooks.Validate(all); err != nil {
		c.fail("hooks", "", err)
		return
	}
	for i, h := range all {
		var points []string
		for _, p := range h.Points {
			points = append(points, string(p))
		}
		at := " at " + strings.Join(points, ", ")
		program := ""
		switch {
		case i < len(list) && list[i].Builtin == nil:
			program = list[i].Command[0]
		case i < len(list) && list[i].Builtin.Kind == config.BuiltinNotify:
			program = notifySend
		}
		if program == "" {
			c.ok("hook "+h.Name, "%s%s", h.Doc, at)
			continue
		}
		path, err := exec.LookPath(program)
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("there is no program %q on the PATH", program)
		}
		if err != nil {
			c.fail("hook "+h.Name, "see this hook in the configuration", err)
			continue
		}
		c.ok("hook "+h.Name, "%s%s", path, at)
	}
}
