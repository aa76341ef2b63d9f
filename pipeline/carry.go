package pipeline

import (
	"context"
	"errors"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Carrier brings large messages beside an account's runs.
type Carrier = pull.Carrier

// NewCarrier gives the carrier of an account whose state lies in this directory.
func NewCarrier(stateDir string, now func() time.Time) *Carrier {
	return pull.NewCarrier(stateDir, now)
}

// NewTaker gives what a run beside a watch takes large messages from that the watch has carried;
// nil if there are none.
func NewTaker(stateDir string, now func() time.Time) *Carrier { return pull.NewTaker(stateDir, now) }

// arrivalsApart is how much time lies between two runs that take what was carried, while more is
// on its way.
const arrivalsApart = 5 * time.Second

// Carry brings what an account's runs have ordered, until nothing is ordered, over a connection
// of its own. arrived is told the mailboxes of messages that are here, and of those that did
// not come: a run takes it from there. The error says why one did not.
func Carry(ctx context.Context, a Account, arrived func(mailboxes []string)) (err error) {
	c := conn.New(a.Dial, a.Pause)
	defer c.Close()
	var some []string
	tell := func() {
		if len(some) > 0 {
			arrived(some)
		}
		some = nil
	}
	defer tell()
	for told := (time.Time{}); ; {
		p, ok := a.Carrier.Next()
		if !ok {
			return err
		}
		c.Leave() // on a mailbox that was opened before, the server may not show what came since
		e := c.Enter(ctx, p.Mailbox, p.UIDValidity)
		if e == nil {
			e = a.Carrier.Carry(ctx, c.Session(), p)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e != nil {
			a.Carrier.Failed(p)
			err = e
		}
		some = append(some, p.Mailbox)
		if _, lost := errors.AsType[*report.ConnectError](e); lost {
			return e // the next run finds out
		}
		if a.Now().Sub(told) > arrivalsApart {
			told = a.Now()
			tell()
		}
	}
}
