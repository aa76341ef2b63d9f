package push

import (
	"context"
	"time"
)

// lingers is how long a server may be silent and yet be at what it was given over a connection
// that is lost: it has read that already, and does it all the same. So does Dovecot with APPENDs
// that were sent without waiting for each answer (RFC 7888), and with a long COPY or MOVE.
const lingers = 30 * time.Second

// lingersSince is how long ago that may have been given.
const lingersSince = 10 * time.Minute

// firstLook is after how long it is looked for what the server may be at, for the second time.
const firstLook = lingers / 128

// mayLinger tells whether a server may still be at what a run gave it at that time, and never
// heard of. Of what an earlier version has noted it is not known when that was.
func (p *Pusher) mayLinger(at time.Time) bool {
	return !at.IsZero() && p.Now().Sub(at).Abs() < lingersSince
}

// linger looks, until what the server may be at in a mailbox is all done, which is want of
// something, or until nothing more of it has come for as long as a server lingers. What is given
// anew before that would be there twice. look tells how much is done.
func (p *Pusher) linger(ctx context.Context, mailbox string, want int, look func() (done int, err error)) error {
	told, last := false, -1
	var waited, wait time.Duration
	for {
		done, err := look()
		if err != nil || done >= want {
			return err
		}
		if done > last {
			last, waited, wait = done, 0, firstLook
		}
		if waited >= lingers {
			return nil
		}
		if !told && waited >= time.Second {
			told = true
			p.Report.Note(mailbox, "the connection was lost while this mailbox was changed on the server, which may still be at it: waiting until that is over, for %v at most", lingers)
		}
		if err := p.Pause(ctx, wait); err != nil {
			return err
		}
		waited += wait
		wait = min(2*wait, lingers-waited)
	}
}
