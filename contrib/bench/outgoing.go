//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

const uploads = 500

// outgoing are parts f, g and h: what was done here reaches the server. Each
// client has a server of its own, or one would fetch what the other sent.
func (b *bench) outgoing(title string, mails int, delay time.Duration, change func(c *client, run int) error, want func(run int) (messages, unseen int)) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		took := make(map[string][]usage)
		for _, name := range []string{ourName, theirName} {
			if name == ourName && b.binary == "" {
				continue
			}
			us, err := b.outgoingOf(ctx, name, mails, delay, change, want)
			if err != nil {
				return err
			}
			took[name] = us
		}
		ours, theirs := took[ourName], took[theirName]
		rows := []row{
			{"wall", median(ours, wall), median(theirs, wall), "%.3f s", fmt.Sprintf("%.3f + %.3f s", median(theirs, step(0)), median(theirs, step(1)))},
			{"processor time", median(ours, cpu), median(theirs, cpu), "%.3f s", ""},
		}
		if delay > 0 {
			rows = append(rows,
				row{"the same, of mbsync alone", median(ours, wall), median(theirs, step(0)), "%.3f s", "ours with its indexing"},
				row{"round trips", median(ours, roundTrips), median(theirs, roundTrips), "%.0f", "sign-in included"})
		}
		b.table(title, rows)
		return nil
	}
}

func roundTrips(u usage) float64 { return float64(u.flights) }

func (b *bench) outgoingOf(ctx context.Context, name string, mails int, delay time.Duration, change func(*client, int) error, want func(int) (int, int)) (took []usage, err error) {
	s, err := b.server(ctx, imaptest.Corpus(b.seed, mails))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	proxy, err := imaptest.NewProxy(s.Addr(), delay)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proxy.Close()) }()
	c, err := b.mbsync(s, "")
	if name == ourName {
		c, err = b.notmuchImap(s)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.remove()) }()
	for range 2 {
		if _, err := c.sync(ctx); err != nil {
			return nil, err
		}
	}
	if delay > 0 {
		if err := c.point(proxy.Addr()); err != nil {
			return nil, err
		}
	}
	for i := range b.runs {
		if err := change(c, i); err != nil {
			return nil, err
		}
		proxy.Reset()
		u, err := c.sync(ctx)
		if err != nil {
			return nil, err
		}
		u.flights = proxy.Flights()
		took = append(took, u)
		// The server must have it, or the figure is of something else.
		out, err := s.Command("STATUS INBOX (MESSAGES UNSEEN)")
		if err != nil {
			return nil, err
		}
		messages, unseen := want(i)
		if text, want := strings.Join(out, "\n"), fmt.Sprintf("(MESSAGES %d UNSEEN %d)", messages, unseen); !strings.Contains(text, want) {
			return nil, fmt.Errorf("%s: the server says %s, not %s", name, text, want)
		}
	}
	return took, nil
}

// inbox is the client's folder for INBOX.
func (c *client) inbox() string {
	if c.name == ourName {
		return filepath.Join(c.dir, "Mail", "bench", "INBOX")
	}
	return filepath.Join(c.dir, "Mail", "INBOX")
}

// tagAndPut changes tags, as a notmuch front end does, and puts new mails into
// INBOX.
func (b *bench) tagAndPut(c *client, run int) error {
	out, err := c.notmuch("search", "--output=messages", "--sort=oldest-first", "tag:unread")
	if err != nil {
		return err
	}
	ids := strings.Fields(out)
	if _, err := c.notmuch("tag", "-unread", "--", strings.Join(ids[:flagChanges], " or ")); err != nil {
		return err
	}
	return c.put(b.seed+2_000_000+uint64(run), newMails)
}

func (c *client) notmuch(args ...string) (string, error) {
	cmd := exec.Command("notmuch", args...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("notmuch %s: %w: %.500s", args[0], err, out)
	}
	return string(out), nil
}

// put delivers mails that are read.
func (c *client) put(seed uint64, n int) error {
	i := 0
	for at, raw := range imaptest.Corpus(seed, n) {
		i++
		path := filepath.Join(c.inbox(), "cur", fmt.Sprintf("%d.%d_%d.bench:2,S", at.Unix(), seed, i))
		if err := os.WriteFile(path, bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// putKnown is put, and notmuch reads the mails before they are synchronised, as
// it does where the sync is called by its post-new hook.
func (b *bench) putKnown(c *client, run int) error {
	if err := c.put(b.seed+4_000_000+uint64(run), uploads); err != nil {
		return err
	}
	_, err := c.notmuch("new", "--quiet")
	return err
}

// rename gives files the letter S, as Mutt does.
func (c *client) rename(n int) error {
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(c.inbox(), sub))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		for _, e := range entries {
			key, letters, _ := strings.Cut(e.Name(), ":2,")
			if n == 0 || strings.Contains(letters, "S") {
				continue
			}
			n--
			if err := os.Rename(filepath.Join(c.inbox(), sub, e.Name()), filepath.Join(c.inbox(), "cur", key+":2,"+letters+"S")); err != nil {
				return err
			}
		}
	}
	if n > 0 {
		return fmt.Errorf("%d files too few to rename", n)
	}
	return nil
}
