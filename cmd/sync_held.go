package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// reminded is after how long what waits for a person is told again where no terminal
// is, as by cron.
const reminded = 24 * time.Hour

// answers are the values of --yes-delete: alone it is for all mailboxes, and else for
// those that are named.
type answers struct {
	all   bool
	named []string // ACCOUNT/MAILBOX
}

// IsBoolFlag lets the option stand without a value (package flag).
func (*answers) IsBoolFlag() bool { return true }

// String gives the values as they were set.
func (a *answers) String() string { return strings.Join(a.named, " ") }

// Set takes one value; the option alone has the value true.
func (a *answers) Set(value string) error {
	if all, err := strconv.ParseBool(value); err == nil {
		a.all = all
		return nil
	}
	if account, mailbox, ok := strings.Cut(value, "/"); !ok || account == "" || mailbox == "" {
		return fmt.Errorf("%q names no mailbox; write ACCOUNT/MAILBOX, as in work/Trash", value)
	}
	a.named = append(a.named, value)
	return nil
}

// of sorts the named mailboxes by account.
func (a *answers) of(accounts []config.Account) (all bool, in map[string][]string, err error) {
	in = make(map[string][]string)
	for _, value := range a.named {
		account, mailbox, _ := strings.Cut(value, "/")
		if !slices.ContainsFunc(accounts, func(c config.Account) bool { return c.Name == account }) {
			return false, nil, fmt.Errorf("--yes-delete=%s: no account %q is synchronised now", value, account)
		}
		in[account] = append(in[account], mail.InboxName(mailbox))
	}
	return a.all, in, nil
}

// held collects what the guard held back in the accounts of a run.
type held struct {
	mu sync.Mutex
	in []heldIn
}

type heldIn struct {
	account config.Account
	pipeline.Held
}

func (h *held) add(a *config.Account, r *pipeline.Report) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, in := range r.HeldIn {
		h.in = append(h.in, heldIn{*a, in})
	}
}

// askHeld asks the person at the terminal about each mailbox in which the guard held
// something back, and does what is said. What is left for later stands as it was told.
func (p *program) askHeld(c *cli.Context, req request, told error) error {
	who := newPerson(false, c.Command.HelpName)
	defer who.close()
	if !who.there() {
		return told
	}
	yes, restore := make(map[string][]string), make(map[string][]string)
	later := false
	for _, h := range req.held.in {
		there := h.account.Name + "/" + h.Mailbox
		count := mail.Number(h.Messages, "message", "messages")
		question := fmt.Sprintf("\n%s: %s gone here or in doubt. What is right?", plain(there), count)
		choices := []choice{{"later", "leave it as it is, and ask again"}, {"delete", "what is here: delete on the server, too"}, {"restore", "what is on the server: bring it back here"}}
		if h.There {
			question = fmt.Sprintf("\n%s: %s gone on the server. What is right?", plain(there), count)
			choices = []choice{{"later", "leave it as it is, and ask again"}, {"delete", "what is on the server: remove them here, too"}}
		}
		answer, err := who.chooses(c.Context, question, "--yes-delete="+there, choices)
		if errors.Is(err, errClosed) {
			later = true // as all that was not asked any more
			break
		}
		if err != nil {
			return err
		}
		switch answer {
		case "delete":
			yes[h.account.Name] = append(yes[h.account.Name], h.Mailbox)
		case "restore":
			restore[h.account.Name] = append(restore[h.account.Name], h.Mailbox)
		default:
			later = true
		}
	}
	var errs []error
	if later {
		errs = append(errs, told)
	}
	again := func(req request) error {
		out, err := p.output(c)
		if err != nil {
			return err
		}
		return p.sync(c.Context, out, req)
	}
	for _, a := range req.accounts {
		if mailboxes := restore[a.Name]; len(mailboxes) > 0 {
			errs = append(errs, again(request{accounts: []config.Account{a}, only: mailboxes, restore: true}))
		}
		if len(yes[a.Name]) > 0 {
			errs = append(errs, again(request{accounts: []config.Account{a}, only: req.only, yesIn: yes}))
		}
	}
	return errors.Join(errs...)
}
