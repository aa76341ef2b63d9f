// Package conn is a connection that a run works with: it is made anew when it is lost, and
// it is known which mailbox is selected on it.
package conn

import (
	"context"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Session is a signed-in connection on which mailboxes are opened. Its methods are
// called from one goroutine at a time. Errors are *mail.Fault or the context's. Once Alive
// is false, only Close may be called.
type Session interface {
	// Examine selects a mailbox read-only. Known may be nil.
	Examine(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error)
	// Select selects a mailbox for reading and writing.
	Select(ctx context.Context, name string) (*mail.Selected, error)
	// Mailbox is the selected mailbox, "" if there is none.
	Mailbox() string
	Alive() bool
	Close() error
}

// Conn is a connection. It belongs to one goroutine.
type Conn[S Session] struct {
	dial    func(context.Context) (S, error)
	pause   func(context.Context, time.Duration) error
	session S
	open    bool // there is a session, dead or alive
	waits   func(why error, wait time.Duration)
	// examined is the mailbox that messages can be fetched from, with its UIDVALIDITY; "" if
	// there is none.
	examined    string
	uidValidity uint64
}

// New gives a connection that is made when it is needed. pause waits, or gives the context's
// error; nil: it waits by the clock.
func New[S Session](dial func(context.Context) (S, error), pause func(context.Context, time.Duration) error) *Conn[S] {
	if pause == nil {
		pause = report.Pause
	}
	return &Conn[S]{dial: dial, pause: pause}
}

// Session is the session; the zero one if there is none.
func (c *Conn[S]) Session() S { return c.session }

// Open tells whether there is a session, dead or alive.
func (c *Conn[S]) Open() bool { return c.open }

// Alive tells whether there is a live session.
func (c *Conn[S]) Alive() bool { return c.open && c.session.Alive() }

// Lost tells whether there is a session that is dead. There is none after a failed attempt
// at a fresh one.
func (c *Conn[S]) Lost() bool { return c.open && !c.session.Alive() }

// Examined is the mailbox that was opened last to be fetched from, "" if that is none any
// more.
func (c *Conn[S]) Examined() string { return c.examined }

// Connect makes sure that there is a live session. It waits where the server asks for a
// short time, or has no room for one more connection. Its error is a *report.ConnectError, or the context's.
func (c *Conn[S]) Connect(ctx context.Context) error {
	if c.Alive() {
		return nil
	}
	for waited := time.Duration(0); ; {
		err := c.Try(ctx)
		wait, ok := report.Lull(err, waited)
		if !ok {
			return err
		}
		if c.waits != nil {
			c.waits(err, wait)
		}
		if err := c.pause(ctx, wait); err != nil {
			return err
		}
		waited += wait
	}
}

// Try is Connect without waiting, for who can do without.
func (c *Conn[S]) Try(ctx context.Context) error {
	if c.Alive() {
		return nil
	}
	c.Close()
	s, err := c.dial(ctx)
	if err != nil {
		return &report.ConnectError{Err: err}
	}
	c.session, c.open = s, true
	return nil
}

// OnWait has f told of each wait for the server, and why.
func (c *Conn[S]) OnWait(f func(why error, wait time.Duration)) *Conn[S] {
	c.waits = f
	return c
}

// Close ends the connection, if there is one. A server that hangs up on LOGOUT has cost
// nothing.
func (c *Conn[S]) Close() {
	if c.open {
		_ = c.session.Close()
	}
	var none S
	c.session, c.open, c.examined = none, false, ""
}

// Examine opens a mailbox to look into, on a connection that is alive.
func (c *Conn[S]) Examine(ctx context.Context, mailbox string, known *mail.Known) (*mail.Selected, error) {
	c.examined = ""
	sel, err := c.session.Examine(ctx, mailbox, known)
	if err == nil {
		c.examined, c.uidValidity = mailbox, sel.UIDValidity
	}
	return sel, err
}

// Leave has Enter open the mailbox anew.
func (c *Conn[S]) Leave() { c.examined = "" }

// Select opens a mailbox for changes, on a connection that is alive. What fetches wants
// Examine.
func (c *Conn[S]) Select(ctx context.Context, mailbox string) (*mail.Selected, error) {
	c.examined = ""
	return c.session.Select(ctx, mailbox)
}

// Enter makes sure that a mailbox can be fetched from, on a live connection, and that its
// UIDs still mean what they meant.
func (c *Conn[S]) Enter(ctx context.Context, mailbox string, uidValidity uint64) error {
	if err := c.Connect(ctx); err != nil {
		return err
	}
	// A connection may come with a mailbox that somebody else has selected.
	if c.examined != mailbox || c.session.Mailbox() != mailbox {
		if _, err := c.Examine(ctx, mailbox, nil); err != nil {
			return err
		}
	}
	if c.uidValidity != uidValidity {
		c.examined = ""
		return &mail.Fault{Kind: mail.KindMalformed, Op: "EXAMINE", Mailbox: mailbox,
			Text: fmt.Sprintf("UIDVALIDITY changed from %d to %d during the run", uidValidity, c.uidValidity)}
	}
	return nil
}

// StillThere tells which messages a mailbox still has. It opens the mailbox, unless it is asked
// for none.
func StillThere[S interface {
	Session
	// Search tells which of uids exist.
	Search(ctx context.Context, uids imap.UIDSet) (imap.UIDSet, error)
}](ctx context.Context, c *Conn[S], mailbox string, uidValidity uint64, uids []imap.UID) (imap.UIDSet, error) {
	if len(uids) == 0 {
		return nil, nil
	}
	if err := c.Connect(ctx); err != nil {
		return nil, err
	}
	sel, err := c.Examine(ctx, mailbox, nil)
	if err != nil {
		return nil, err
	}
	if sel.Messages == 0 {
		return nil, nil
	}
	if sel.UIDValidity != uidValidity {
		return mail.UIDSet(uids), nil // these numbers are of other messages by now: nothing tells that they went
	}
	return c.session.Search(ctx, mail.UIDSet(uids))
}
