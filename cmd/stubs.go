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

	"github.com/emersion/go-imap/v2"
	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

func (p *program) stubsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stubs",
		Usage:     "list the messages that could not be fetched",
		ArgsUsage: "[ACCOUNT]...",
		Description: `Each is named ACCOUNT/MAILBOX/UID. In notmuch they are the mails tagged fetch-failed. The network is not
needed, and a sync may be under way.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also those that were given up, or deleted on the server, or that hooks left there, and new mail that the server refused"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each message"},
			&cli.StringFlag{Name: "maildir", Usage: "print nothing, but make `DIR` a maildir that holds the stubs, for Mutt"},
		},
		Action: p.stubs,
	}
}

// listedStub is what is told of a message that could not be fetched.
type listedStub struct {
	Account     string    `json:"account"`
	Mailbox     string    `json:"mailbox"`
	UIDValidity uint64    `json:"uidvalidity"`
	UID         imap.UID  `json:"uid"`
	ID          string    `json:"id,omitempty"` // of the stub in notmuch, if there is one
	Since       time.Time `json:"since"`
	Attempts    int       `json:"attempts"`
	NextTry     time.Time `json:"next_try,omitzero"`
	Reason      string    `json:"reason"`
	State       string    `json:"state"`          // stub, givenup, skipped, deferred, deleted on the server, or unsent
	File        string    `json:"file,omitempty"` // unsent: the mail's, below the mailbox's folder
	Kept        string    `json:"kept,omitempty"` // deleted: the file in the morgue
}

const (
	deleted = "deleted"
	unsent  = "unsent"
)

func (p *program) stubs(c *cli.Context) error {
	if c.IsSet("maildir") && (c.Bool("json") || c.Bool("all") || c.String("maildir") == "") {
		return &usageError{"--maildir needs a directory, and goes neither with --json nor with --all", c.Command.HelpName}
	}
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	var all []listedStub
	var broken error
	for i := range accounts {
		found, err := p.stubsOf(c.Context, &accounts[i], c.Bool("all"))
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
	_, err = io.WriteString(p.stdout, listStubs(all, time.Now()))
	return errors.Join(err, broken)
}

// stubsOf gives an account's failed messages, the oldest failure first.
func (p *program) stubsOf(ctx context.Context, a *config.Account, all bool) ([]listedStub, error) {
	states := []ledger.State{ledger.Stub}
	if all {
		states = append(states, ledger.GivenUp, ledger.Skipped, ledger.Deferred)
	}
	rows, err := inLedger(ctx, p, a, func(ctx context.Context, l *ledger.Ledger) ([]ledger.Message, error) {
		return l.InState(ctx, states...)
	})
	if err != nil {
		return nil, err
	}
	var found []listedStub
	for _, m := range rows {
		s := listedStub{
			Account: a.Name, Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID,
			Since: m.Since, Attempts: m.Attempts, NextTry: m.NextTry, Reason: m.Reason, State: string(m.State),
		}
		if m.StubKey != "" || m.State == ledger.Stub || m.State == ledger.GivenUp {
			s.ID = pipeline.KeyOf(a.Name, m).MessageID()
		}
		found = append(found, s)
	}
	if all {
		waiting, err := p.unsentOf(ctx, a)
		if err != nil {
			return nil, err
		}
		found = append(found, waiting...)
		dead, err := p.buried(a)
		if err != nil {
			return nil, err
		}
		found = append(found, dead...)
	}
	slices.SortStableFunc(found, func(x, y listedStub) int { return x.Since.Compare(y.Since) })
	return found, nil
}

// unsentOf gives new mail that an account's server refused.
func (p *program) unsentOf(ctx context.Context, a *config.Account) (found []listedStub, err error) {
	notes, err := inLedger(ctx, p, a, pipeline.UnsentOf)
	for _, u := range notes {
		found = append(found, listedStub{Account: a.Name, Mailbox: u.Mailbox, ID: u.ID, Since: u.Since, Attempts: u.Attempts, NextTry: u.NextTry, Reason: u.Reason, State: unsent, File: u.Name})
	}
	return found, err
}

// buried gives what lies in an account's morgue.
func (p *program) buried(a *config.Account) (found []listedStub, err error) {
	dir, err := p.morgue(a)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		s, err := unearth(path)
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

func unearth(path string) (listedStub, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return listedStub{}, err
	}
	key, err := stub.ReadKey(bytes.NewReader(raw))
	if err != nil {
		return listedStub{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return listedStub{}, err
	}
	h := headerOf(path)
	return listedStub{
		Mailbox: field(h, "X-Notmuch-Imap-Mailbox"), UIDValidity: key.UIDValidity, UID: key.UID, ID: key.MessageID(), Since: fi.ModTime(),
		Reason: field(h, "Subject"), State: deleted, Kept: path,
	}, nil
}

// listStubs is the list for a person.
func listStubs(all []listedStub, now time.Time) string {
	if len(all) == 0 {
		return "no message failed\n"
	}
	var b strings.Builder
	for _, s := range all {
		name := label(s.Account, pipeline.Target{Mailbox: s.Mailbox, UID: s.UID})
		if s.State == unsent {
			name = plain(s.Account + "/" + s.Mailbox + ": " + s.File)
		}
		fmt.Fprintf(&b, "%s\n", name)
		times := fmt.Sprintf("asked %d times", s.Attempts)
		if s.Attempts == 1 {
			times = "asked once"
		}
		since := s.Since.Local().Format("2006-01-02 15:04")
		switch s.State {
		case string(ledger.Skipped), string(ledger.Deferred):
			for _, l := range wrap(plain(s.Reason), width-4) {
				fmt.Fprintf(&b, "    %s\n", l)
			}
			if s.State == string(ledger.Deferred) {
				fmt.Fprintf(&b, "    put off since %s, due with the next sync\n", since)
			} else {
				fmt.Fprintf(&b, "    left on the server since %s, not asked for; notmuch imap retry %s fetches it\n", since, name)
			}
			if s.ID != "" {
				fmt.Fprintf(&b, "    notmuch show id:%s\n", s.ID)
			}
			continue
		case string(ledger.GivenUp):
			fmt.Fprintf(&b, "    given up, not asked for; notmuch imap retry %s asks again\n", name)
			continue
		case deleted:
			fmt.Fprintf(&b, "    deleted on the server %s; its stub is kept in\n    %s\n", s.Since.Local().Format("2006-01-02 15:04"), plain(s.Kept))
			continue
		}
		next := "due with the next sync"
		if s.NextTry.After(now) {
			next = "next time " + s.NextTry.Local().Format("2006-01-02 15:04")
		}
		for _, l := range wrap(plain(s.Reason), width-4) {
			fmt.Fprintf(&b, "    %s\n", l)
		}
		if s.State == unsent {
			times = strings.Replace(times, "asked", "sent", 1) + " and refused"
		}
		fmt.Fprintf(&b, "    since %s, %s, %s\n", since, times, next)
		fmt.Fprintf(&b, "    notmuch show id:%s\n", s.ID)
	}
	return b.String()
}
