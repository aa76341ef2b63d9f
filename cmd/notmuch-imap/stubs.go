package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
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
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also those that were given up or deleted on the server"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line for each message"},
			&cli.StringFlag{Name: "maildir", Usage: "print nothing, but make `DIR` a maildir that holds the stubs, for Mutt"},
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
	State       string    `json:"state"`          // stub, givenup, or deleted on the server
	Kept        string    `json:"kept,omitempty"` // deleted: the file in the morgue
}

const deleted = "deleted"

func (p *program) stubs(c *cli.Context) error {
	if c.IsSet("maildir") && (c.Bool("json") || c.Bool("all") || c.String("maildir") == "") {
		return &usageError{"--maildir needs a directory, and goes neither with --json nor with --all", c.Command.HelpName}
	}
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	var all []stub
	for i := range accounts {
		found, err := p.stubsOf(c.Context, &accounts[i], c.Bool("all"))
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if c.IsSet("maildir") {
		idx, err := index.Open(c.Context, index.Options{})
		if err != nil {
			return err
		}
		err = listInMaildir(c.Context, idx, c.String("maildir"), all)
		if errors.Is(err, errNotOurs) {
			return &usageError{err.Error(), c.Command.HelpName}
		}
		return err
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

// stubsOf gives an account's failed messages, the oldest failure first.
func (p *program) stubsOf(ctx context.Context, a *config.Account, all bool) ([]stub, error) {
	rows, err := p.failed(ctx, *a)
	if err != nil {
		return nil, err
	}
	var found []stub
	for _, m := range rows {
		if m.State != ledger.Stub && !all {
			continue
		}
		found = append(found, stub{
			Account: a.Name, Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID,
			ID:    pipeline.NewStubKey(a.Name, m.Mailbox, m.UIDValidity, m.UID).MessageID(),
			Since: m.Since, Attempts: m.Attempts, NextTry: m.NextTry, Reason: m.Reason, State: string(m.State),
		})
	}
	if all {
		dead, err := p.buried(a)
		if err != nil {
			return nil, err
		}
		found = append(found, dead...)
	}
	slices.SortStableFunc(found, func(x, y stub) int { return x.Since.Compare(y.Since) })
	return found, nil
}

// buried gives what lies in an account's morgue.
func (p *program) buried(a *config.Account) (found []stub, err error) {
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
		if errors.Is(err, pipeline.ErrNotStub) {
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

func unearth(path string) (stub, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return stub{}, err
	}
	key, err := pipeline.ReadStub(bytes.NewReader(raw))
	if err != nil {
		return stub{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return stub{}, err
	}
	return stub{
		Mailbox: field(path, "X-Notmuch-Imap-Mailbox"), UIDValidity: key.UIDValidity, UID: key.UID, ID: key.MessageID(), Since: fi.ModTime(),
		Reason: field(path, "Subject"), State: deleted, Kept: path,
	}, nil
}

// listStubs is the list for a person.
func listStubs(all []stub, now time.Time) string {
	if len(all) == 0 {
		return "no message failed\n"
	}
	var b strings.Builder
	for _, s := range all {
		name := label(s.Account, pipeline.Target{Mailbox: s.Mailbox, UID: s.UID})
		fmt.Fprintf(&b, "%s\n", name)
		times := fmt.Sprintf("asked %d times", s.Attempts)
		if s.Attempts == 1 {
			times = "asked once"
		}
		switch s.State {
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
		fmt.Fprintf(&b, "    since %s, %s, %s\n", s.Since.Local().Format("2006-01-02 15:04"), times, next)
		fmt.Fprintf(&b, "    notmuch show id:%s\n", s.ID)
	}
	return b.String()
}

// listMark is the file by which a maildir is known to be a list of stubs.
const listMark = "." + name

// errNotOurs says that a directory is not for us to change.
var errNotOurs = errors.New("no directory for a list")

// listInMaildir makes dir a maildir that holds the stubs' files. They are hard
// links, or copies where there can be none: symbolic ones would lead nowhere as
// soon as a mail reader marks a stub as read, which renames its file. What is
// right there already stays as it is, since Mutt may look at it.
func listInMaildir(ctx context.Context, idx *index.Index, dir string, all []stub) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(idx.MailRoot(), dir); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("%w: %s is below notmuch's mail root, and would be indexed", errNotOurs, dir)
	}
	if err := takeForList(dir); err != nil {
		return err
	}
	wanted := make(map[string]string) // key -> path
	for _, s := range all {
		path, err := stubFile(ctx, idx, s.ID)
		if err != nil {
			return err
		}
		if path != "" {
			key, _ := maildir.ParseName(path)
			wanted[key] = path
		}
	}
	list := maildir.Dir(dir)
	there, err := list.Scan()
	if err != nil {
		return err
	}
	for _, f := range there.Files() {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil {
			return err
		}
		if now, err := os.ReadFile(wanted[f.Key]); err == nil && bytes.Equal(raw, now) {
			delete(wanted, f.Key)
			continue
		}
		if _, err := pipeline.ReadStub(bytes.NewReader(raw)); err != nil {
			continue // put there by the user
		}
		if err := list.Remove(f.Name); err != nil {
			return err
		}
	}
	for key, path := range wanted {
		_, flags := maildir.ParseName(path)
		_, err := list.Link(path, key, flags)
		// Another Mutt was quicker, or the stub is gone just now.
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// stubFile gives the path of a stub, "" if it has no file. A mail reader may have
// renamed it, and notmuch not know yet.
func stubFile(ctx context.Context, idx *index.Index, id string) (string, error) {
	files, err := idx.Files(ctx, id)
	if err != nil || len(files) == 0 {
		return "", err
	}
	key, _ := maildir.ParseName(files[0])
	folder := maildir.Dir(filepath.Dir(filepath.Dir(files[0])))
	name, ok, err := folder.Find(key)
	if err != nil || !ok {
		return "", err
	}
	return filepath.Join(string(folder), name), nil
}

// takeForList makes dir a maildir, unless it is there and not ours.
func takeForList(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNotOurs, err)
	}
	ours := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == listMark && e.Type().IsRegular() })
	if len(entries) > 0 && !ours {
		return fmt.Errorf("%w: %s holds other things", errNotOurs, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if !ours {
		text := "What is in this maildir comes and goes: notmuch imap stubs --maildir makes it.\n"
		if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(filepath.Join(dir, listMark), []byte(text), 0o600)); err != nil {
			return err
		}
	}
	return maildir.Dir(dir).Create()
}
