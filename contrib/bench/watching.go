//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

const (
	watchLook    = 30 * time.Millisecond  // how exactly it is seen that a mail came, or a tag went
	watchPause   = 500 * time.Millisecond // between two of them, at most
	watchSettle  = 20 * time.Second       // until a watch is at rest
	restAccounts = 5
)

// watching is part w: how long a mail takes from the server to notmuch, and a tag the other
// way, and what a watch costs that has nothing to do.
func (b *bench) watching(ctx context.Context) (err error) {
	if b.binary == "" {
		return errors.New("it is about notmuch-imap alone")
	}
	s, err := b.server(ctx, imaptest.Corpus(b.seed, 200))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c, err := b.notmuchImap(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.remove()) }()
	if _, err := c.sync(ctx); err != nil {
		return err
	}
	var came, went []float64
	if err := c.watched(ctx, func(*os.Process) error {
		came, went, err = b.latencies(ctx, s, c)
		return err
	}); err != nil {
		return err
	}
	b.say("\n(w) watch: %d mails one by one, %d tags between them\n  %-36s p50 %.2f s   p99 %.2f s   at most %.2f s\n  %-36s p50 %.2f s   p99 %.2f s   at most %.2f s", b.watch, len(went),
		"delivered until notmuch finds it", quantile(came, 50), quantile(came, 99), slices.Max(came), "notmuch tag until the server has it", quantile(went, 50), quantile(went, 99), slices.Max(went))

	config := filepath.Join(c.dir, "config.toml")
	account, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var all bytes.Buffer
	for i := range restAccounts {
		all.Write(bytes.Replace(account, []byte("[account.bench]"), fmt.Appendf(nil, "[account.bench%d]", i), 1))
	}
	if err := os.WriteFile(config, all.Bytes(), 0o600); err != nil {
		return err
	}
	if _, err := c.sync(ctx); err != nil {
		return err
	}
	return c.watched(ctx, func(p *os.Process) error {
		awake, begun := 0, time.Now()
		for before := 0; time.Since(begun) < b.rest; {
			now, err := switches(p.Pid)
			if err != nil {
				return err
			}
			if before > 0 && now != before {
				awake++
			}
			before = now
			if !pause(ctx, watchLook) {
				return ctx.Err()
			}
		}
		b.say("  %-36s %.1f a minute, over %v", fmt.Sprintf("wake-ups at rest, %d accounts", restAccounts), float64(awake)/b.rest.Minutes(), b.rest)
		return nil
	})
}

// watched lets f work beside a watch that is at rest.
func (c *client) watched(ctx context.Context, f func(*os.Process) error) error {
	cmd := exec.CommandContext(ctx, c.steps[0][0], "watch", "--quiet")
	cmd.Env = c.env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	err := ctx.Err()
	if pause(ctx, watchSettle) {
		err = f(cmd.Process)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	if ended := cmd.Wait(); err != nil {
		return fmt.Errorf("%w (the watch: %w: %s)", err, ended, said.String())
	}
	return nil
}

// latencies are of mails that come, and of a tag that goes between each five of them, in
// seconds: one after the other, at random times.
func (b *bench) latencies(ctx context.Context, s *imaptest.DovecotServer, c *client) (came, went []float64, err error) {
	chance := rand.New(rand.NewPCG(b.seed, 0)) //nolint:gosec // what is measured is to be the same again
	for i := range b.watch {
		id := fmt.Sprintf("watch%d@example.org", i)
		text := fmt.Sprintf("From: a@example.org\r\nTo: me@example.org\r\nSubject: mail %d\r\nMessage-ID: <%s>\r\n\r\nbody\r\n", i, id)
		if err := s.AppendAll("INBOX", func(yield func(time.Time, []byte) bool) { yield(time.Now(), []byte(text)) }); err != nil {
			return nil, nil, err
		}
		took, err := until(ctx, func() (bool, error) {
			n, err := c.count(ctx, "id:"+id)
			return n > 0, err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("mail %d of %d does not come: %w", i, b.watch, err)
		}
		came = append(came, took)
		if i%5 == 0 {
			if _, err := c.notmuch("tag", "+flagged", "--", "id:"+id); err != nil {
				return nil, nil, err
			}
			took, err := until(ctx, func() (bool, error) {
				out, err := s.Command("EXAMINE INBOX", "SEARCH FLAGGED HEADER MESSAGE-ID "+id)
				return strings.Contains(strings.Join(out, "\n")+"\n", fmt.Sprintf("* SEARCH %d\n", 200+i+1)), err
			})
			if err != nil {
				return nil, nil, fmt.Errorf("tag %d does not go: %w", i, err)
			}
			went = append(went, took)
		}
		if !pause(ctx, time.Duration(chance.Int64N(int64(watchPause)))) {
			return nil, nil, ctx.Err()
		}
	}
	return came, went, nil
}

// until waits until something is so, and gives the seconds that it took.
func until(ctx context.Context, is func() (bool, error)) (float64, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if ok, err := is(); err != nil || ok {
			return time.Since(start).Seconds(), err
		}
		if !pause(ctx, watchLook) {
			return 0, ctx.Err()
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// quantile gives the figure below which so many of a hundred are.
func quantile(of []float64, percent int) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[min(len(of)-1, len(of)*percent/100)]
}

// switches is how often the threads of a process gave up the processor. One time that it is
// woken is several of them, within a few milliseconds.
func switches(pid int) (sum int, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		number, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.Atoi(strings.TrimSpace(number))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += n
	}
	return sum, err
}
