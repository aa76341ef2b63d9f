package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

func (p *program) stubsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stubs",
		Usage:     "list the messages that could not be fetched",
		ArgsUsage: "[ACCOUNT]...",
		Description: `Each is named ACCOUNT/MAILBOX/UID. In notmuch they are the mails tagged fetch-failed. With --all it is the one
list of what failed, in either direction: why, and when it is tried again. The network is not needed, and a sync may be under way.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "all that failed or waits: also what was given up, or deleted on the server, or left there by hooks, what the server refused, and mailboxes that cannot be synchronised"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each"},
			&cli.StringFlag{Name: "maildir", Usage: "print nothing, but make `DIR` a maildir that holds the stubs, for Mutt"},
		},
		Action: p.stubs,
	}
}

// failedIn is what is told of something that failed.
type failedIn struct {
	Account string `json:"account"`
	pipeline.Failed
	Kept string `json:"kept,omitempty"` // of what was deleted on the server: the file in the morgue
}

// deleted is the state of a message that `drop --remote` deleted on the server.
const deleted pipeline.FailedState = "deleted"

func (p *program) stubs(c *cli.Context) error {
	if c.IsSet("maildir") && (c.Bool("json") || c.Bool("all") || c.String("maildir") == "") {
		return &usageError{"--maildir needs a directory, and goes neither with --json nor with --all", c.Command.HelpName}
	}
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	var all []failedIn
	var broken error
	for i := range accounts {
		found, err := p.stubsOf(c.Context, &accounts[i], c.Bool("all") || c.IsSet("maildir"))
		if err != nil {
			if err := c.Err(); err != nil {
				return err
			}
			// What is wrong with one account says nothing of the others.
			p.complain(accounts[i].Name, err)
			broken = errTold
		}
		all = append(all, found...)
	}
	if c.IsSet("maildir") {
		idx, err := index.Open(c.Context, index.Options{Existing: true})
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(f failedIn) bool { return !inNotmuch(f.State) })
		err = listInMaildir(c.Context, idx, c.String("maildir"), all)
		if errors.Is(err, errNotOurs) {
			return &usageError{err.Error(), c.Command.HelpName}
		}
		return errors.Join(err, broken)
	}
	if c.Bool("json") {
		for _, s := range all {
			if _, err := fmt.Fprintln(p.stdout, jsonLine(s)); err != nil {
				return err
			}
		}
		return broken
	}
	_, err = io.WriteString(p.stdout, fold(listStubs(all, time.Now()), columns(p.stdout), hang))
	return errors.Join(err, broken)
}

// inNotmuch tells whether what failed is a mail in notmuch, with the keys of stubs: a stub, the note
// beside a mail that notmuch does not take, or new mail that the server refused.
func inNotmuch(s pipeline.FailedState) bool {
	return s == pipeline.FailedStub || s == pipeline.FailedNotMail || s == pipeline.FailedUnsent
}

// stubsOf gives an account's stubs, or all that failed, the oldest first.
func (p *program) stubsOf(ctx context.Context, a *config.Account, all bool) (found []failedIn, err error) {
	failed, err := inLedger(ctx, p, a, func(ctx context.Context, l *ledger.Ledger) ([]pipeline.Failed, error) {
		return pipeline.FailedOf(ctx, a.Name, l)
	})
	if err != nil {
		return nil, err
	}
	for _, f := range failed {
		if all || f.State == pipeline.FailedStub {
			found = append(found, failedIn{Account: a.Name, Failed: f})
		}
	}
	if !all {
		return found, nil
	}
	dead, err := p.archivedStubs(a)
	return append(found, dead...), err
}

// archivedStubs gives what lies in an account's morgue.
func (p *program) archivedStubs(a *config.Account) (found []failedIn, err error) {
	dir, err := p.archiveDir(a)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		s, err := readArchived(path)
		if errors.Is(err, stub.ErrNotStub) {
			continue // not put there by us
		}
		if err != nil {
			return nil, err
		}
		s.Account = a.Name
		found = append(found, s)
	}
	return found, nil
}

func readArchived(path string) (failedIn, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return failedIn{}, err
	}
	key, err := stub.ReadKey(bytes.NewReader(raw))
	if err != nil {
		return failedIn{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return failedIn{}, err
	}
	h := headerOf(path)
	return failedIn{Kept: path, Failed: pipeline.Failed{
		State: deleted, Mailbox: field(h, "X-Notmuch-Imap-Mailbox"), UIDValidity: key.UIDValidity, UID: key.UID, ID: key.MessageID(), Since: fi.ModTime(),
		Reason: field(h, "Subject"),
	}}, nil
}

// listStubs is the list for a person.
func listStubs(all []failedIn, now time.Time) string {
	if len(all) == 0 {
		return "no message failed\n"
	}
	var b strings.Builder
	for _, s := range all {
		name := nameOf(s.Account, s.Failed)
		fmt.Fprintf(&b, "%s\n", name)
		line := func(text string) {
			for _, l := range wrap(plain(text), width-4) {
				fmt.Fprintf(&b, "    %s\n", l)
			}
		}
		switch s.State {
		case deleted:
			fmt.Fprintf(&b, "    deleted on the server %s; its stub is kept in\n    %s\n", minute(s.Since), plain(s.Kept))
			continue
		case pipeline.FailedGivenUp:
			if s.UID == 0 {
				line(s.Reason)
			}
		default:
			line(s.Reason)
		}
		if text := outlook(s.Account, s.Failed, now); text != "" {
			fmt.Fprintf(&b, "    %s\n", plain(text))
		}
		if s.ID != "" && s.State != pipeline.FailedGivenUp {
			fmt.Fprintf(&b, "    notmuch show id:%s\n", s.ID)
		}
	}
	return b.String()
}

// nameOf is what something that failed is called in the list, and by what retry and drop
// take it.
func nameOf(account string, f pipeline.Failed) string {
	name := account
	if f.Mailbox != "" {
		name += "/" + f.Mailbox
	}
	switch {
	case f.UID != 0:
		name += fmt.Sprintf("/%d", f.UID)
	case f.File != "":
		name += ": " + f.File
	}
	return plain(name)
}

// minute gives a time to a person.
func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// outlook says since when something fails, how often it was tried, and when it is tried
// again, as far as that is known.
func outlook(account string, f pipeline.Failed, now time.Time) string {
	since := ""
	if !f.Since.IsZero() {
		since = "since " + minute(f.Since)
	}
	parts := []string{since}
	retry := "notmuch imap retry " + mail.Typed(nameOf(account, f))
	switch f.State {
	case pipeline.FailedGivenUp:
		return "given up, not asked for; " + retry + " asks again"
	case pipeline.FailedSkipped:
		return strings.TrimSpace("left on the server "+since) + ", not asked for; " + retry + " fetches it"
	case pipeline.FailedDeferred:
		return strings.TrimSpace("put off "+since) + ", due with the next sync"
	}
	if f.Attempts > 0 {
		times := fmt.Sprintf("asked %d times", f.Attempts)
		if f.Attempts == 1 {
			times = "asked once"
		}
		if f.State == pipeline.FailedUnsent {
			times = strings.Replace(times, "asked", "sent", 1) + " and refused"
		}
		parts = append(parts, times)
	}
	switch {
	case f.Tried() && f.NextTry.After(now):
		parts = append(parts, "next time "+minute(f.NextTry))
	case f.Tried() && f.State != pipeline.FailedAccount: // whose reason is all that was said of it
		parts = append(parts, "due with the next sync")
	}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}
