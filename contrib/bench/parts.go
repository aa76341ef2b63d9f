//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// server starts a Dovecot whose INBOX holds the mails.
func (b *bench) server(ctx context.Context, mails iter.Seq2[time.Time, []byte]) (*imaptest.DovecotServer, error) {
	dir, err := os.MkdirTemp(b.dir, "dovecot-")
	if err != nil {
		return nil, err
	}
	s, err := imaptest.StartDovecot(ctx, dir, imaptest.DovecotOptions{})
	if err != nil {
		return nil, err
	}
	if err := s.AppendAll("INBOX", mails); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// counted adds to octets those of each mail.
func counted(mails iter.Seq2[time.Time, []byte], octets *int) iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		for date, mail := range mails {
			*octets += len(mail)
			if !yield(date, mail) {
				return
			}
		}
	}
}

// alternate gives the clients in the other order each time, so that neither
// always finds the server's files in memory.
func alternate(clients []*client, i int) []*client {
	if i%2 == 1 {
		clients = slices.Clone(clients)
		slices.Reverse(clients)
	}
	return clients
}

// firstSync is part a.
func (b *bench) firstSync(ctx context.Context) error {
	for _, n := range b.sizes {
		if err := b.firstSyncOf(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) firstSyncOf(ctx context.Context, n int) (err error) {
	octets := 0
	s, err := b.server(ctx, counted(imaptest.Corpus(b.seed, n), &octets))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	took := make(map[string][]usage)
	for i := range b.runs {
		clients, err := b.clients(s)
		if err != nil {
			return err
		}
		for _, c := range alternate(clients, i) {
			u, err := c.firstSync(ctx)
			if err != nil {
				return err
			}
			if err := errors.Join(c.expect(ctx, "*", n), c.remove()); err != nil {
				return err
			}
			took[c.name] = append(took[c.name], u)
		}
	}
	ours, theirs := took[ourName], took[theirName]
	b.table(fmt.Sprintf("(a) first sync and index of %d mails, %d MB", n, octets>>20), []row{
		{"wall", median(ours, wall), median(theirs, wall), "%.2f s", fmt.Sprintf("%.2f + %.2f s", median(theirs, step(0)), median(theirs, step(1)))},
		{"first mail searchable", median(ours, first), median(theirs, first), "%.2f s", ""},
		{"processor time", median(ours, cpu), median(theirs, cpu), "%.2f s", ""},
		{"peak memory", median(ours, rss), median(theirs, rss), "%.0f MB", "of the largest process"},
	})
	return nil
}

// firstSync is one sync, watched for the first mail that can be found.
func (c *client) firstSync(ctx context.Context) (usage, error) {
	watched, stop := context.WithCancel(ctx)
	defer stop()
	seen := make(chan time.Duration, 1)
	start := time.Now()
	go func() { seen <- c.firstMail(watched, start) }()
	u, err := c.sync(ctx)
	total := time.Since(start)
	stop()
	if u.first = <-seen; u.first == 0 {
		u.first = total // it ended between two looks
	}
	return u, err
}

// idleSync are parts b and i: there is nothing to do in so many mailboxes with
// so many mails each.
func (b *bench) idleSync(title string, each int, mails func(seed uint64, n int) iter.Seq2[time.Time, []byte], delay time.Duration) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		s, err := b.server(ctx, mails(b.seed, each))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		for i := range b.mailboxes - 1 {
			if err := s.AppendAll(fmt.Sprintf("box%03d", i), mails(b.seed+1+uint64(i), each)); err != nil {
				return err
			}
		}
		proxy, err := imaptest.NewProxy(s.Addr(), delay)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, proxy.Close()) }()
		clients, err := b.clients(s)
		if err != nil {
			return err
		}
		for _, c := range clients {
			// Twice: what the first sync leaves to the next one is not idle.
			for range 2 {
				if _, err := c.sync(ctx); err != nil {
					return err
				}
			}
			if err := c.expect(ctx, "*", each*b.mailboxes); err != nil {
				return err
			}
			if delay > 0 {
				if err := c.point(proxy.Addr()); err != nil {
					return err
				}
			}
		}
		took := make(map[string][]usage)
		for i := range max(b.runs, idleRuns) {
			for _, c := range alternate(clients, i) {
				proxy.Reset()
				u, err := c.sync(ctx)
				if err != nil {
					return err
				}
				u.flights, u.conns = proxy.Flights(), proxy.Connections()
				took[c.name] = append(took[c.name], u)
			}
		}
		ours, theirs := took[ourName], took[theirName]
		rows := []row{
			{"wall", median(ours, wall), median(theirs, wall), "%.3f s", fmt.Sprintf("%.3f + %.3f s", median(theirs, step(0)), median(theirs, step(1)))},
			{"processor time", median(ours, cpu), median(theirs, cpu), "%.3f s", ""},
		}
		if delay > 0 {
			flights := func(u usage) float64 { return float64(u.flights) }
			conns := func(u usage) float64 { return float64(u.conns) }
			rows = append(rows,
				row{"round trips", median(ours, flights), median(theirs, flights), "%.0f", "sign-in included"},
				row{"connections", median(ours, conns), median(theirs, conns), "%.0f", "connecting is not delayed"})
		}
		b.table(title, rows)
		return removeAll(clients)
	}
}

// idleRuns is how often an idle sync is measured at least: it takes so little
// that whatever else the machine does shows.
const idleRuns = 5

// notes yields n mails of two lines, for parts in which the number counts and
// not the size.
func notes(seed uint64, n int) iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		at := time.Date(2021, 3, 1, 8, 0, 0, 0, time.UTC)
		for i := range n {
			at = at.Add(time.Hour)
			if !yield(at, fmt.Appendf(nil, "From: Alice <alice@example.org>\r\nTo: me@example.org\r\nSubject: note %d\r\nDate: %s\r\nMessage-ID: <note.%d.%d@example.org>\r\n\r\nDear me,\r\nthis is note %d.\r\n",
				i, at.Format(time.RFC1123Z), seed, i, i)) {
				return
			}
		}
	}
}

func removeAll(clients []*client) error {
	var errs []error
	for _, c := range clients {
		errs = append(errs, c.remove())
	}
	return errors.Join(errs...)
}

// largeMail is part c.
func (b *bench) largeMail(ctx context.Context) (err error) {
	s, err := b.server(ctx, func(yield func(time.Time, []byte) bool) {
		yield(time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC), attachment(b.large<<20, b.seed))
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	clients, err := b.clients(s)
	if err != nil {
		return err
	}
	took := make(map[string][]usage)
	for _, c := range clients {
		u, err := c.sync(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(c.expect(ctx, "*", 1), c.remove()); err != nil {
			return err
		}
		took[c.name] = append(took[c.name], u)
	}
	ours, theirs := took[ourName], took[theirName]
	b.table(fmt.Sprintf("(c) a message of %d MB", b.large), []row{
		{"peak memory", median(ours, rss), median(theirs, rss), "%.0f MB", "of the largest process"},
		{"wall", median(ours, wall), median(theirs, wall), "%.2f s", fmt.Sprintf("%.2f + %.2f s", median(theirs, step(0)), median(theirs, step(1)))},
	})
	return nil
}

// attachment is a mail of about size octets with one file in it.
func attachment(size int, seed uint64) []byte {
	var b bytes.Buffer
	b.Grow(size + 4096)
	b.WriteString(strings.ReplaceAll(`From: Alice <alice@example.org>
To: me@example.org
Subject: the recording
Date: Wed, 01 May 2024 12:00:00 +0000
Message-ID: <large@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/plain

Here it is.
--b
Content-Type: video/mp4
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="recording.mp4"

`, "\n", "\r\n"))
	r := rand.New(rand.NewPCG(seed, seed))
	raw := make([]byte, 57)
	for b.Len() < size {
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		b.WriteString(base64.StdEncoding.EncodeToString(raw) + "\r\n")
	}
	b.WriteString("--b--\r\n")
	return b.Bytes()
}

// What happens on the server in part d.
const (
	flagChanges = 200
	deletions   = 20
	newMails    = 20
)

// changes is part d.
func (b *bench) changes(ctx context.Context) (err error) {
	s, err := b.server(ctx, imaptest.Corpus(b.seed, b.changed))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	clients, err := b.clients(s)
	if err != nil {
		return err
	}
	for _, c := range clients {
		for range 2 {
			if _, err := c.sync(ctx); err != nil {
				return err
			}
		}
		if err := c.expect(ctx, "tag:unread", b.changed); err != nil {
			return err
		}
	}
	took := make(map[string][]usage)
	unread := b.changed
	for i := range b.runs {
		// Old mails are deleted, and the next ones that nobody has read yet are
		// read. The very oldest stays: a mailbox of which the oldest mails alone
		// are missing looks like one whose server shows the newest alone.
		from := i*(flagChanges-deletions) + 2
		if _, err := s.Command(
			"SELECT INBOX",
			fmt.Sprintf(`STORE 2:%d +FLAGS (\Deleted)`, deletions+1),
			"EXPUNGE",
			fmt.Sprintf(`STORE %d:%d +FLAGS (\Seen)`, from, from+flagChanges/2-1),
			fmt.Sprintf(`STORE %d:%d +FLAGS (\Seen \Flagged)`, from+flagChanges/2, from+flagChanges-1),
		); err != nil {
			return err
		}
		if err := s.AppendAll("INBOX", imaptest.Corpus(b.seed+1_000_000+uint64(i), newMails)); err != nil {
			return err
		}
		unread += newMails - flagChanges
		if i == 0 {
			unread -= deletions
		}
		for _, c := range alternate(clients, i) {
			u, err := c.sync(ctx)
			if err != nil {
				return err
			}
			if err := errors.Join(c.expect(ctx, "*", b.changed), c.expect(ctx, "tag:unread", unread)); err != nil {
				return err
			}
			took[c.name] = append(took[c.name], u)
		}
	}
	ours, theirs := took[ourName], took[theirName]
	b.table(fmt.Sprintf("(d) %d flag changes, %d deletions and %d new mails among %d", flagChanges, deletions, newMails, b.changed), []row{
		{"wall", median(ours, wall), median(theirs, wall), "%.3f s", fmt.Sprintf("%.3f + %.3f s", median(theirs, step(0)), median(theirs, step(1)))},
		{"processor time", median(ours, cpu), median(theirs, cpu), "%.3f s", ""},
	})
	return removeAll(clients)
}

// fsync is part e: what of part a the disk takes. Both programs flush each mail
// before they say that they have it.
func (b *bench) fsync(ctx context.Context) (err error) {
	const files = 200
	n := slices.Min(b.sizes)
	dir, err := os.MkdirTemp(b.dir, "fsync-")
	if err != nil {
		return err
	}
	body := make([]byte, 4<<10)
	start := time.Now()
	for i := range files {
		if err := writeSynced(filepath.Join(dir, fmt.Sprint(i)), body); err != nil {
			return err
		}
	}
	each := time.Since(start) / files
	s, err := b.server(ctx, imaptest.Corpus(b.seed, n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var took []time.Duration
	for _, extra := range []string{"", "FSync no\n\n"} {
		c, err := b.mbsync(s, extra)
		if err != nil {
			return err
		}
		c.steps = c.steps[:1]
		u, err := c.sync(ctx)
		if err := errors.Join(err, c.remove()); err != nil {
			return err
		}
		took = append(took, u.Wall)
	}
	b.say("\n(e) fsync: %v for a file of 4 kB on this disk, so %.2f s for %d mails one after the other;", each.Round(time.Microsecond), each.Seconds()*float64(n), n)
	b.say("    mbsync alone takes %.2f s for them, %.2f s with FSync no. Both flush each mail in the tables above.", took[0].Seconds(), took[1].Seconds())
	return nil
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
