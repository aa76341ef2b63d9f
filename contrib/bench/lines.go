//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// slowLine is what lies between a client and a server far away.
type slowLine struct {
	name   string
	oneWay time.Duration
	rate   int // octets a second in each direction, shared by all connections; 0: as many as come
}

// slowLines is part l: the first sync on loopback, and over lines.
func (b *bench) slowLines(ctx context.Context) (err error) {
	octets := 0
	s, err := b.server(ctx, counted(imaptest.Corpus(b.seed, b.far), &octets))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	lines := []slowLine{{"loopback", 0, 0}, {"1 Gbit/s, 20 ms", 10 * time.Millisecond, 1e9 / 8}, {"10 Mbit/s, 100 ms", 50 * time.Millisecond, 1e7 / 8}}
	var rows []row
	near := make(map[string]float64) // wall on loopback
	for _, l := range lines {
		took := make(map[string][]usage)
		for i := range b.runs {
			if err := b.overLine(ctx, s, l, i, took); err != nil {
				return err
			}
		}
		ours, theirs := median(took[ourName], wall), median(took[theirName], wall)
		rows = append(rows, row{l.name, ours, theirs, "%.2f s", fmt.Sprintf("%.2f + %.2f s", median(took[theirName], step(0)), median(took[theirName], step(1)))})
		if l.rate == 0 {
			near[ourName], near[theirName] = ours, theirs
			continue
		}
		alone := float64(octets) / float64(l.rate)
		rows = append(rows, row{"  of what is possible", ours / max(alone, near[ourName]), theirs / max(alone, near[theirName]), "%.2f", fmt.Sprintf("the line alone takes %.2f s", alone)})
	}
	b.table(fmt.Sprintf("(l) first sync and index of %d mails, %d MB, over a line", b.far, octets>>20), rows)
	return nil
}

// overLine adds a first sync of each client.
func (b *bench) overLine(ctx context.Context, s *imaptest.DovecotServer, l slowLine, turn int, took map[string][]usage) (err error) {
	proxy, err := imaptest.NewProxy(s.Addr(), l.oneWay)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, proxy.Close()) }()
	proxy.Slow(l.rate)
	clients, err := b.clients(s)
	if err != nil {
		return err
	}
	for _, c := range alternate(clients, turn) {
		if err := c.point(proxy.Addr()); err != nil {
			return err
		}
		u, err := c.sync(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(c.expect(ctx, "*", b.far), c.remove()); err != nil {
			return err
		}
		took[c.name] = append(took[c.name], u)
	}
	return nil
}
