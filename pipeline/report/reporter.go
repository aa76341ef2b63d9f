package report

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Reporter tells what happens in one account's run while it happens, and sums it up.
// All stages share it, each in goroutines of its own.
type Reporter struct {
	account string
	now     func() time.Time
	listen  func(Event) bool
	effect  func(string)
	telling sync.Mutex // held while somebody listens, so that events come one at a time

	mu    sync.Mutex
	sum   Report
	done  Amount // recorded
	total Amount // to come
	flown int64  // bytes that came of messages that are not recorded
	shown int64  // of these
	ahead int64  // bytes of the total that belong to messages whose size was not known to Expect
	// indexed is how many are recorded, or will be soon, since notmuch has them.
	indexed int
	names   map[string]string  // of mailboxes, as a plan has them, by those that a dry run knows them by
	noted   map[[2]string]bool // by mailbox and format, what was told once
	read    map[[2]string]bool // by mailbox and text, the faults that were told, and whether somebody could read that
}

// NewReporter starts from a report in which nothing happened yet. listen is told of
// every event, one at a time, and tells whether somebody could read it; step is called after
// every durable effect with its name. Both may be nil.
func NewReporter(start Report, now func() time.Time, listen func(Event) bool, step func(effect string)) *Reporter {
	return &Reporter{account: start.Account, sum: start, now: now, listen: listen, effect: step, noted: make(map[[2]string]bool), read: make(map[[2]string]bool)}
}

// Emit tells of an event; its time and account are filled in. It tells whether somebody
// could read that.
func (r *Reporter) Emit(e Event) bool {
	if r.listen == nil {
		return true
	}
	e.Time, e.Account = r.now(), r.account
	r.telling.Lock()
	defer r.telling.Unlock()
	return r.listen(e)
}

// Note tells what is worth knowing of a mailbox, and no fault. It tells whether somebody
// could read that.
func (r *Reporter) Note(mailbox, format string, args ...any) bool {
	return r.Emit(Event{Type: EventNote, Mailbox: mailbox, Text: fmt.Sprintf(format, args...)})
}

// Calls gives mailboxes the names that they would have, as a plan tells of them. The map may be filled
// until there is something to be told.
func (r *Reporter) Calls(names map[string]string) { r.names = names }

// Plan tells of actions that a run would do.
func (r *Reporter) Plan(as ...mail.Action) {
	for _, a := range as {
		if a.Kind != mail.ActRename {
			a.Mailbox, a.Other = cmp.Or(r.names[a.Mailbox], a.Mailbox), cmp.Or(r.names[a.Other], a.Other)
		}
		r.Emit(Event{Type: EventAction, Mailbox: a.Mailbox, UID: a.UID, Text: a.Plan(), Action: &a})
	}
}

// NoteOnce is Note, of each mailbox once, whatever the arguments.
func (r *Reporter) NoteOnce(mailbox, format string, args ...any) {
	about := [2]string{mailbox, format}
	r.mu.Lock()
	noted := r.noted[about]
	r.noted[about] = true
	r.mu.Unlock()
	if !noted {
		r.Note(mailbox, format, args...)
	}
}

// Fault puts a fault into the report and tells of it, and whether somebody could read that.
// One that two stages meet is told once.
func (r *Reporter) Fault(f Failure) bool {
	about := [2]string{f.Mailbox, f.Text}
	r.mu.Lock()
	read, again := r.read[about]
	r.mu.Unlock()
	if again {
		return read
	}
	f.Text = r.Known(f)
	read = r.Emit(Event{Type: EventFault, Mailbox: f.Mailbox, Text: f.Text})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read[about] = read
	return read
}

// Known puts a fault into the report and does not tell of it. It gives its whole text.
func (r *Reporter) Known(f Failure) string {
	if f.Again {
		f.Text += "; " + nextRun
	}
	r.Tally(func(rep *Report) { rep.Faults = append(rep.Faults, f) })
	return f.Text
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

// Amount is so many messages, and their bytes as far as these are known.
type Amount struct {
	Messages int
	Bytes    int64
}

// Expect adds to what is to come.
func (r *Reporter) Expect(a Amount) {
	r.mu.Lock()
	r.total.Messages += a.Messages
	r.total.Bytes += a.Bytes
	r.mu.Unlock()
	r.Progress()
}

// Came counts a message that was to come and needs nothing more. expected are the bytes
// that Expect had of it; 0 if its size was not known, and then it has these.
func (r *Reporter) Came(expected, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.Messages++
	if expected == 0 {
		expected = bytes
		known := min(r.ahead, bytes)
		r.ahead -= known
		r.total.Bytes += bytes - known
	}
	r.done.Bytes += expected
	r.flown = max(0, r.flown-bytes)
	r.shown = min(r.shown, r.flown)
}

// Announced says how large a message is that begins to come, and whose size Expect had not.
func (r *Reporter) Announced(bytes int64) {
	r.mu.Lock()
	r.total.Bytes += bytes
	r.ahead += bytes
	r.mu.Unlock()
	if bytes >= flow {
		r.Progress()
	}
}

// flow is after how many bytes it is shown that a message is on its way.
const flow = 256 << 10

// Flown counts bytes that came of a message, or that were thrown away.
func (r *Reporter) Flown(bytes int) {
	r.mu.Lock()
	r.flown = max(0, r.flown+int64(bytes))
	show := r.flown-r.shown >= flow
	if show || r.flown < r.shown {
		r.shown = r.flown
	}
	r.mu.Unlock()
	if show {
		r.Progress()
	}
}

// Left is how many messages are to come, or under way.
func (r *Reporter) Left() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total.Messages - r.done.Messages
}

// Indexing gives a function that tells how many more messages than are dealt with by now notmuch has
// already.
func (r *Reporter) Indexing() func(messages int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	base := r.done.Messages
	return func(messages int) {
		r.mu.Lock()
		r.indexed = max(r.indexed, base+messages)
		r.mu.Unlock()
		r.Progress()
	}
}

// Progress tells how much of what was to come is dealt with.
func (r *Reporter) Progress() {
	r.mu.Lock()
	done, total := r.done, r.total
	done.Messages = min(max(done.Messages, r.indexed), max(done.Messages, total.Messages-1))
	done.Bytes = min(done.Bytes+r.flown, total.Bytes)
	r.mu.Unlock()
	r.Emit(Event{Type: EventProgress, Done: done.Messages, Total: total.Messages, DoneBytes: done.Bytes, TotalBytes: total.Bytes})
}
