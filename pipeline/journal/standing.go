package journal

import (
	"context"
	"sync"
	"time"
)

// StandingFaults are faults of mailboxes that stay until a person does something. Where nobody
// reads along one is told once, and again after a while or in other words; until then it is
// known, and no news.
type StandingFaults struct {
	journal *Journal
	now     func() time.Time
	remind  time.Duration

	mu  sync.Mutex
	met map[string]bool // in this run
}

// NewStandingFaults starts a run's. remind is after how long a fault is told again; 0 tells it
// in every run.
func NewStandingFaults(j *Journal, now func() time.Time, remind time.Duration) *StandingFaults {
	return &StandingFaults{journal: j, now: now, remind: remind, met: make(map[string]bool)}
}

// Meet tells whether a fault of this kind was told in these words not long ago. If not, it is
// told now, which Told notes.
func (s *StandingFaults) Meet(ctx context.Context, kind, mailbox, text string) (known bool, err error) {
	about := AboutWord(kind, mailbox)
	last, ok, err := s.journal.Standing.Get(ctx, about)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.met[about] = true
	return s.remind > 0 && ok && last.Text == text && s.now().Before(last.Told.Add(s.remind)), nil
}

// Told lets a change note that a fault is told now, in these words.
func (s *StandingFaults) Told(c *Change, kind, mailbox, text string) {
	about := AboutWord(kind, mailbox)
	s.mu.Lock()
	s.met[about] = true
	s.mu.Unlock()
	s.journal.Standing.Put(c, about, Standing{Told: s.now(), Text: text})
}

// Met is how many of them this run has met.
func (s *StandingFaults) Met() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.met)
}

// ForgetOthers forgets the faults that a whole run did not meet again: if they come back, they
// are news.
func (s *StandingFaults) ForgetOthers(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.Standing.DropWhere(ctx, func(about string, _ Standing) bool { return !s.met[about] })
}
