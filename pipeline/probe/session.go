// Package probe deals with one message by hand: it asks for it item by item when it
// does not come as a whole (the ladder), says what the server does with it and whose
// fault that is (the inspection), and deletes exactly that message. It needs no run: it
// works on a session of its own, or on one that it is lent.
package probe

import (
	"context"
	"errors"
	"fmt"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Opener is a connection that can be made to have a mailbox selected. Its methods are
// called from one goroutine at a time. Errors are *mail.Fault or the context's. Once Alive
// is false, only Close may be called.
type Opener interface {
	// Examine selects a mailbox read-only. Known may be nil.
	Examine(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error)
	// Select selects a mailbox for reading and writing.
	Select(ctx context.Context, name string) (*mail.Selected, error)
	// Mailbox is the selected mailbox, "" if there is none.
	Mailbox() string
	Alive() bool
	Close() error
}

// Searcher tells which messages a mailbox has.
type Searcher interface {
	// Search tells which of uids exist.
	Search(ctx context.Context, uids imap.UIDSet) (imap.UIDSet, error)
}

// manual is a session that is renewed when the server hangs up.
type manual[S Opener] struct {
	mail.Target
	dial     func(context.Context) (S, error)
	session  S
	open     bool           // there is a session
	selected *mail.Selected // as the mailbox was first opened
	writing  bool
}

// ErrUIDValidity says that the mailbox is not the one any more in which the
// message had its UID.
var ErrUIDValidity = errors.New("the mailbox has a new UIDVALIDITY")

// enter gives a live session in which the mailbox is open.
func (m *manual[S]) enter(ctx context.Context) (S, error) {
	var none S
	if !m.open || !m.session.Alive() {
		m.close()
		s, err := m.dial(ctx)
		if err != nil {
			return none, err
		}
		m.session, m.open = s, true
	}
	// A connection may come with a mailbox that somebody else has selected.
	if m.selected != nil && m.session.Mailbox() == m.Mailbox {
		return m.session, nil
	}
	var sel *mail.Selected
	var err error
	if m.writing {
		sel, err = m.session.Select(ctx, m.Mailbox)
	} else {
		sel, err = m.session.Examine(ctx, m.Mailbox, nil)
	}
	if err != nil {
		return none, err
	}
	if m.UIDValidity == 0 {
		m.UIDValidity = sel.UIDValidity
	}
	if sel.UIDValidity != m.UIDValidity {
		return none, fmt.Errorf("%w (%d, it was %d): UID %d may be another message now; run a sync first, then look at `notmuch imap stubs`",
			ErrUIDValidity, sel.UIDValidity, m.UIDValidity, m.UID)
	}
	if m.selected == nil {
		m.selected = sel
	}
	return m.session, nil
}

func (m *manual[S]) close() {
	if !m.open {
		return
	}
	_ = m.session.Close() // a server that is gone has nothing more to say
	m.open = false
}

// void takes a body that nobody wants.
type void struct{}

func (void) Write(p []byte) (int, error) { return len(p), nil }
func (void) Discard()                    {}
