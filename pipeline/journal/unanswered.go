package journal

import (
	"context"
	"iter"
	"strings"
	"sync"
	"time"
)

// UnansweredCommands are the commands without which a mailbox cannot take part, and that the
// server did not answer, or refused, though it answered others: as earlier runs met them, and
// this one. Of several mailboxes many connections may hear at once.
type UnansweredCommands struct {
	journal *Journal
	ask     Asking
	before  map[string]Unavailable // by command and mailbox

	mu  sync.Mutex
	met map[string]string // in this run, with the refusal; "": there was no answer
}

// Asking is how a run asks for what was not answered before.
type Asking struct {
	Now    func() time.Time
	Pause  func(now time.Time, attempts int) time.Time // gives the time of the next try
	All    bool                                        // whatever the schedule says
	Named  func(mailbox string) bool                   // this one whatever its owner said, too
	DryRun bool                                        // nothing is noted
}

// NewUnansweredCommands starts a run's.
func NewUnansweredCommands(j *Journal, ask Asking) *UnansweredCommands {
	return &UnansweredCommands{journal: j, ask: ask, met: make(map[string]string)}
}

// Recall reads what earlier runs have met.
func (u *UnansweredCommands) Recall(ctx context.Context) (err error) {
	u.before, err = u.journal.Unavailable.All(ctx)
	return err
}

// Before gives what earlier runs met of a command and a mailbox; ok is false if that was nothing.
func (u *UnansweredCommands) Before(op, mailbox string) (tries Tries, ok bool) {
	n, ok := u.before[AboutWord(op, mailbox)]
	return n.Tries, ok
}

// All gives the commands that earlier runs met, each with its mailbox.
func (u *UnansweredCommands) All() iter.Seq2[string, string] {
	return func(yield func(op, mailbox string) bool) {
		for about := range u.before {
			if op, mailbox, _ := strings.Cut(about, "/"); !yield(op, mailbox) {
				return
			}
		}
	}
}

// Waits tells whether a command is not to be tried yet; or, if that was given up, not until
// somebody asks for it.
func (u *UnansweredCommands) Waits(op, mailbox string) bool {
	tries, _ := u.Before(op, mailbox)
	return tries.Waits(u.ask.Now(), u.ask.All) && !u.ask.Named(mailbox)
}

// LeavesOut gives the command for which a mailbox is left out now; "" if it is not.
func (u *UnansweredCommands) LeavesOut(mailbox string) string {
	for _, op := range []string{"STATUS", "EXAMINE"} {
		if u.Waits(op, mailbox) {
			return op
		}
	}
	return ""
}

// Meet notes that a command was not answered, or why it was refused. What is left out already,
// and asked all the same to end what was interrupted, keeps its time.
func (u *UnansweredCommands) Meet(op, mailbox, refusal string) {
	if u.Waits(op, mailbox) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.met[AboutWord(op, mailbox)] = refusal
}

// Silent tells whether a command was not answered in this run.
func (u *UnansweredCommands) Silent(op, mailbox string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	refusal, met := u.met[AboutWord(op, mailbox)]
	return met && refusal == ""
}

// Answered forgets at once that a command was not answered before.
func (u *UnansweredCommands) Answered(ctx context.Context, op, mailbox string) error {
	if _, ok := u.Before(op, mailbox); !ok || u.ask.DryRun {
		return nil
	}
	return u.journal.Unavailable.Drop(ctx, AboutWord(op, mailbox))
}

// Note lets a change remember what this run has met.
func (u *UnansweredCommands) Note(c *Change) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for about, refusal := range u.met {
		n := u.before[about]
		n.Failed(u.ask.Now(), refusal, u.ask.Pause)
		u.journal.Unavailable.Put(c, about, n)
	}
}
