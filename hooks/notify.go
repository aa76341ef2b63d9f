package hooks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// What a notification shows of mail.
const (
	ShowCount    = "count"
	ShowSenders  = "senders"
	ShowSubjects = "subjects"
)

// maxShown bounds how many mails a notification names.
const maxShown = 5

// Notify tells the desktop of new mail (Event.News) when an account's run is over, by the
// command, which gets a title and a text behind its arguments. Unless it is to show more
// it says how many mails came; else it names the first.
func Notify(name string, mailboxes Mailboxes, command []string, show string) Hook {
	n := &notifier{command: command, show: show, news: make(map[string]*news)}
	h := Hook{Name: name, Doc: "notifies the desktop of new mail", Points: []Point{PostSync}, Run: mailboxes.only(n.run)}
	if show != ShowCount {
		h.Points = []Point{PostIndex, PostSync}
	}
	return h
}

type notifier struct {
	command []string
	show    string
	news    map[string]*news // by account
}

// news is the unread mail of a run.
type news struct {
	count int
	lines []string // of the first ones
}

func (n *notifier) run(ctx context.Context, e *Event) (Verdict, error) {
	if e.Point == PostIndex {
		if e.News > 0 {
			if n.news[e.Account] == nil {
				n.news[e.Account] = &news{}
			}
			n.news[e.Account].add(n.line(e))
		}
		return Verdict{}, nil
	}
	what := n.news[e.Account]
	delete(n.news, e.Account)
	if n.show == ShowCount {
		what = &news{count: e.News}
	}
	if what == nil || what.count == 0 {
		return Verdict{}, nil
	}
	title := fmt.Sprintf("%d new mails in %s", what.count, e.Account)
	if what.count == 1 {
		title = "1 new mail in " + e.Account
	}
	if more := what.count - len(what.lines); more > 0 && len(what.lines) > 0 {
		what.lines = append(what.lines, fmt.Sprintf("and %d more", more))
	}
	return Verdict{}, start(ctx, append(slices.Clone(n.command), title, strings.Join(what.lines, "\n")))
}

func (n *news) add(line string) {
	if n.count++; len(n.lines) < maxShown {
		n.lines = append(n.lines, line)
	}
}

// line names a mail. Notification servers read markup (the desktop
// notifications' specification, "Markup").
func (n *notifier) line(e *Event) string {
	text := e.From
	if list := addresses(e.From); len(list) > 0 {
		text = list[0].Name
		if text == "" {
			text = list[0].Address
		}
	}
	if n.show == ShowSubjects {
		text += ": " + e.Subject
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(bound(text, 100))
}

// start runs a program of which nothing but its success is asked.
func start(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	group(cmd)
	cmd.WaitDelay = holdOn
	cmd.Env = append(os.Environ(), EnvInside+"=notify")
	stderr := &bounded{most: maxStderr}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	err := cmd.Run()
	switch exit, exited := errors.AsType[*exec.ExitError](err); {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("there is no program %q on the PATH", argv[0])
	case errors.Is(err, exec.ErrWaitDelay):
		_ = kill(cmd)
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case exited:
		return fmt.Errorf("%s: %w%s", argv[0], exit, after(stderr.words()))
	}
	return err
}
