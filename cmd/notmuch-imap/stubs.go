package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

func (p *program) stubsCommand() *cli.Command {
	return &cli.Command{
		Name:      "stubs",
		Usage:     "list the messages that could not be fetched",
		ArgsUsage: "[ACCOUNT]...",
		Description: `Each is named ACCOUNT/MAILBOX/UID. In notmuch they are the mails tagged fetch-failed. The network is not
needed, and a sync may be under way.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each message"},
		},
		Action: p.stubs,
	}
}

// stub is what is told of a message that could not be fetched.
type stub struct {
	Account     string    `json:"account"`
	Mailbox     string    `json:"mailbox"`
	UIDValidity uint64    `json:"uidvalidity"`
	UID         imap.UID  `json:"uid"`
	ID          string    `json:"id"` // of the stub in notmuch
	Since       time.Time `json:"since"`
	Attempts    int       `json:"attempts"`
	NextTry     time.Time `json:"next_try"`
	Reason      string    `json:"reason"`
}

func (p *program) stubs(c *cli.Context) error {
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	var all []stub
	for _, a := range accounts {
		dir, err := a.StateDir(p.getenv)
		if err != nil {
			return err
		}
		l, err := ledger.OpenReadOnly(c.Context, dir)
		if errors.Is(err, ledger.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		rows, err := l.InState(c.Context, ledger.Stub)
		if err = errors.Join(err, l.Close()); err != nil {
			return err
		}
		var found []stub
		for _, m := range rows {
			found = append(found, stub{
				Account: a.Name, Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID,
				ID:    pipeline.NewStubKey(a.Name, m.Mailbox, m.UIDValidity, m.UID).MessageID(),
				Since: m.Since, Attempts: m.Attempts, NextTry: m.NextTry, Reason: m.Reason,
			})
		}
		slices.SortStableFunc(found, func(x, y stub) int { return x.Since.Compare(y.Since) })
		all = append(all, found...)
	}
	if c.Bool("json") {
		for _, s := range all {
			if _, err := fmt.Fprintln(p.stdout, jsonLine(s)); err != nil {
				return err
			}
		}
		return nil
	}
	_, err = io.WriteString(p.stdout, listStubs(all, time.Now()))
	return err
}

// listStubs is the list for a person.
func listStubs(all []stub, now time.Time) string {
	if len(all) == 0 {
		return "no message failed\n"
	}
	var b strings.Builder
	for _, s := range all {
		times := fmt.Sprintf("asked %d times", s.Attempts)
		if s.Attempts == 1 {
			times = "asked once"
		}
		next := "due with the next sync"
		if s.NextTry.After(now) {
			next = "next time " + s.NextTry.Local().Format("2006-01-02 15:04")
		}
		fmt.Fprintf(&b, "%s\n", plain(fmt.Sprintf("%s/%s/%d", s.Account, s.Mailbox, s.UID)))
		for _, l := range wrap(plain(s.Reason), width-4) {
			fmt.Fprintf(&b, "    %s\n", l)
		}
		fmt.Fprintf(&b, "    since %s, %s, %s\n", s.Since.Local().Format("2006-01-02 15:04"), times, next)
		fmt.Fprintf(&b, "    notmuch show id:%s\n", s.ID)
	}
	return b.String()
}
