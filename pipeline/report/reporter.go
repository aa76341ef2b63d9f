package report

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Reporter tells what happens in one account's run while it happens, and sums it up.
// All stages share it, each in goroutines of its own.
type Reporter struct {
	account string
	now     func() time.Time
	listen  func(Event)
	effect  func(string)
	telling sync.Mutex // held while somebody listens, so that events come one at a time

	mu    sync.Mutex
	sum   Report
	done  int // messages recorded
	total int // messages to come
}

// NewReporter starts from a report in which nothing happened yet. listen is told of
// every event, one at a time; step is called after every durable effect with its name.
// Both may be nil.
func NewReporter(start Report, now func() time.Time, listen func(Event), step func(effect string)) *Reporter {
	return &Reporter{account: start.Account, sum: start, now: now, listen: listen, effect: step}
}

// Emit tells of an event; its time and account are filled in.
func (r *Reporter) Emit(e Event) {
	if r.listen == nil {
		return
	}
	e.Time, e.Account = r.now(), r.account
	r.telling.Lock()
	defer r.telling.Unlock()
	r.listen(e)
}

// Note tells what is worth knowing of a mailbox, and no fault.
func (r *Reporter) Note(mailbox, format string, args ...any) {
	r.Emit(Event{Type: EventNote, Mailbox: mailbox, Text: fmt.Sprintf(format, args...)})
}

// Fault puts a fault into the report and tells of it.
func (r *Reporter) Fault(f Failure) {
	r.Tally(func(rep *Report) { rep.Faults = append(rep.Faults, f) })
	r.Emit(Event{Type: EventFault, Mailbox: f.Mailbox, Text: f.Text})
}

// Tally changes the report. change calls nothing of the reporter.
func (r *Reporter) Tally(change func(*Report)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.sum)
}

// Report gives the report as it stands.
func (r *Reporter) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.sum
	rep.Faults, rep.HeldIn = slices.Clone(rep.Faults), slices.Clone(rep.HeldIn)
	return rep
}

// Step says that an effect is durable.
func (r *Reporter) Step(effect string) {
	if r.effect != nil {
		r.effect(effect)
	}
}

// Expect adds messages to those that are to come.
func (r *Reporter) Expect(messages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total += messages
}

// Came counts a message that was to come and needs nothing more.
func (r *Reporter) Came() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
}

// Progress tells how many of the messages that were to come are dealt with.
func (r *Reporter) Progress() {
	r.mu.Lock()
	done, total := r.done, r.total
	r.mu.Unlock()
	r.Emit(Event{Type: EventProgress, Done: done, Total: total})
}
