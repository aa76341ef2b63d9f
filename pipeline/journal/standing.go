package journal

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"
)

// StandingFaults are the faults of mailboxes that a run meets. One that stays until a person
// does something is told once where nobody reads along, and again after a while or in other
// words; until then it is known, and no news. What nobody could read was not told.
type StandingFaults struct {
	journal *Journal
	now     func() time.Time
	remind  time.Duration

	mu     sync.Mutex
	before map[string]Standing // as earlier runs left them
	met    map[string]Standing // in this run
	over   map[string]bool     // this run has seen that they are
}

// NewStandingFaults starts a run's. remind is after how long a fault is told again; 0 tells it
// in every run.
func NewStandingFaults(j *Journal, now func() time.Time, remind time.Duration) *StandingFaults {
	return &StandingFaults{journal: j, now: now, remind: remind, met: make(map[string]Standing), over: make(map[string]bool)}
}

// Recall reads what earlier runs have met.
func (s *StandingFaults) Recall(ctx context.Context) error {
	all, err := s.journal.Standing.All(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = all
	return err
}

// Before gives the mailboxes of which earlier runs have met a fault of this kind.
func (s *StandingFaults) Before(kind string) map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]bool)
	for about := range s.before {
		if k, mailbox, _ := strings.Cut(about, "/"); k == kind {
			out[mailbox] = true
		}
	}
	return out
}

// Over notes that a fault of this kind is over, unless this run meets it all the same.
func (s *StandingFaults) Over(kind, mailbox string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over[AboutWord(kind, mailbox)] = true
}

// Meet notes a fault of this kind, and tells whether it was told in these words not long ago.
// If not, it is told now, and Told notes that somebody could read it.
func (s *StandingFaults) Meet(kind, mailbox, text string) (known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	about := AboutWord(kind, mailbox)
	last, ok := s.before[about]
	if m, again := s.met[about]; again {
		last, ok = m, true
	}
	m := Standing{Since: s.now(), Text: text}
	if ok {
		m.Since = last.Since
	}
	if ok && last.Text == text {
		m.Told = last.Told
	}
	s.met[about] = m
	return s.remind > 0 && !m.Told.IsZero() && s.now().Before(m.Told.Add(s.remind))
}

// Told notes that a fault that was met is told now.
func (s *StandingFaults) Told(kind, mailbox string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	about := AboutWord(kind, mailbox)
	m := s.met[about]
	m.Told = s.now()
	s.met[about] = m
}

// Note lets a change record what this run has met. Which other faults are forgotten, beside those that
// were said to be over, over tells: if they come back, they are news.
func (s *StandingFaults) Note(c *Change, over func(kind, mailbox string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for about, m := range s.met {
		if last, ok := s.before[about]; !ok || last.Text != m.Text || !last.Told.Equal(m.Told) {
			s.journal.Standing.Put(c, about, m)
		}
	}
	for about := range maps.Keys(s.before) {
		kind, mailbox, _ := strings.Cut(about, "/")
		if _, ok := s.met[about]; !ok && (s.over[about] || over(kind, mailbox)) {
			s.journal.Standing.Forget(c, about)
		}
	}
}
