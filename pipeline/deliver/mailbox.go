package deliver

import (
	"context"
	"sync"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Mailbox is what the line knows of one: where its files lie, and how much of it is
// under way. What a mailbox still owes is counted here and nowhere else.
type Mailbox struct {
	Name  string
	Dir   maildir.Dir
	Quiet bool // what comes into it is no news
	// Sizes are those of its new messages, as far as the server said. Nobody writes to them
	// when the first is on its way.
	Sizes map[imap.UID]int64
	// Ours came into it by our own moves: likewise.
	Ours map[imap.UID]bool
	// TakenOver: its folder was here before the first sync, which is under way, and what comes of
	// mail that notmuch knows changes that mail's tags by its flags alone: likewise.
	TakenOver bool

	settled func(context.Context) error
	failed  func(error)

	mu      sync.Mutex
	pending int
	kept    bool
}

// NewMailbox gives a mailbox with one thing under way: the look into it, which whoever
// looks ends. settled is called when nothing is under way any more and nothing of the
// mailbox was left: all that the server told is dealt with, and its marks may move on.
// failed is told of what this machine could not do for the mailbox now. Both may be nil
// for a mailbox that nobody looks into.
func NewMailbox(name string, dir maildir.Dir, settled func(context.Context) error, failed func(error)) *Mailbox {
	return &Mailbox{Name: name, Dir: dir, settled: settled, failed: failed, pending: 1}
}

// Begin counts one thing more that is under way.
func (m *Mailbox) Begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending++
}

// End takes one thing off the mailbox's books.
func (m *Mailbox) End(ctx context.Context) error {
	m.mu.Lock()
	m.pending--
	whole := m.pending == 0 && !m.kept
	m.mu.Unlock()
	if !whole || m.settled == nil {
		return nil
	}
	return m.settled(ctx)
}

// KeepMarks says that something of the mailbox is left undone: its marks stay where
// they are, so that the next run looks at it as a whole.
func (m *Mailbox) KeepMarks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = true
}

// MarksKept tells whether something of the mailbox was left undone.
func (m *Mailbox) MarksKept() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept
}

// Leave tells of what could not be done for the mailbox now.
func (m *Mailbox) Leave(err error) {
	if m.failed != nil {
		m.failed(err)
	}
}

// Bears leaves what an error kept from being done, and reports true, if the error is of the
// mailbox's folder alone: the others go on without it. Any other is the run's.
func (m *Mailbox) Bears(err error) bool {
	if report.ScopeOf(err, report.AtMailbox) != report.ScopeMailbox {
		return false
	}
	m.Leave(err)
	return true
}
