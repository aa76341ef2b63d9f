package cmd

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

const (
	meterTick  = time.Second      // it is drawn anew
	meterPlain = 30 * time.Second // between two lines where it cannot stay in its place
	meterPast  = 30 * time.Second // by which the rate goes
	meterSure  = 3 * time.Second  // before that there is none
	meterBar   = 24               // columns of a bar, at most
)

// meter is how far a run has come, for a person: a line that keeps its place on a terminal,
// and elsewhere a line now and then. Its methods are not called at once.
type meter struct {
	w     io.Writer
	stays bool // it can keep its place
	// accounts are those under way, by what was last told of them.
	accounts map[string]pipeline.Event
	past     []mark
	drawn    int // columns of what stands there
	said     time.Time
	stop     chan struct{} // nil: no clock
	stopped  chan struct{}
}

// mark is how far it had come at a time.
type mark struct {
	at    time.Time
	done  int
	bytes int64
}

func newMeter(w io.Writer, stays bool) *meter {
	return &meter{w: w, stays: stays, accounts: make(map[string]pipeline.Event)}
}

// run has tick called as time goes by, and when the terminal gets another size, until halt.
func (m *meter) run(tick func()) {
	m.stop, m.stopped = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(m.stopped)
		t := time.NewTicker(meterTick)
		defer t.Stop()
		resized := make(chan os.Signal, 1)
		signal.Notify(resized, syscall.SIGWINCH)
		defer signal.Stop(resized)
		for {
			select {
			case <-m.stop:
				return
			case <-t.C:
			case <-resized:
			}
			tick()
		}
	}()
}

// halt ends that.
func (m *meter) halt() {
	if m.stop != nil {
		close(m.stop)
		<-m.stopped
	}
}

// event takes what is told of an account.
func (m *meter) event(e pipeline.Event, now time.Time) {
	if e.Type == pipeline.EventDone || e.Done >= e.Total {
		delete(m.accounts, e.Account)
	} else {
		m.accounts[e.Account] = e
	}
	if len(m.accounts) == 0 {
		m.past = nil
		m.clear()
		return
	}
	if m.said.IsZero() {
		m.said = now
	}
	m.show(now)
}

// sum is that of all accounts under way.
func (m *meter) sum() (s pipeline.Event) {
	for _, e := range m.accounts {
		s.Done, s.Total = s.Done+e.Done, s.Total+e.Total
		s.DoneBytes, s.TotalBytes = s.DoneBytes+e.DoneBytes, s.TotalBytes+e.TotalBytes
	}
	return s
}

// show draws it as it is now, or says it, if it is time.
func (m *meter) show(now time.Time) {
	if len(m.accounts) == 0 {
		return
	}
	s := m.sum()
	if n := len(m.past); n == 0 || now.Sub(m.past[n-1].at) >= meterTick/2 {
		m.past = append(m.past, mark{now, s.Done, s.DoneBytes})
	}
	m.past = slices.DeleteFunc(m.past, func(p mark) bool { return now.Sub(p.at) > meterPast || p.done > s.Done })
	switch {
	case m.stays:
		m.draw(m.line(s, now, columns(m.w)-3))
	case now.Sub(m.said) >= meterPlain:
		m.said = now
		fmt.Fprintln(m.w, name+": "+m.line(s, now, 0)) //nolint:errcheck // as output.print
	}
}

// line says it in so many columns; 0 is as many as it takes, and no bar.
func (m *meter) line(s pipeline.Event, now time.Time, most int) string {
	messages := fmt.Sprintf("%d/%d messages", s.Done, s.Total)
	var amount, rate, left string
	if s.TotalBytes > 0 {
		amount = ", " + amountOf(s.DoneBytes, s.TotalBytes)
	}
	if len(m.past) > 0 && now.Sub(m.past[0].at) >= meterSure {
		took, from := now.Sub(m.past[0].at).Seconds(), m.past[0]
		messages, bytes := float64(s.Done-from.done)/took, float64(s.DoneBytes-from.bytes)/took
		takes := 0.0 // what is slower, the line or notmuch
		if messages > 0 {
			takes = float64(s.Total-s.Done) / messages
		}
		rate = fmt.Sprintf(", %.0f/s", messages)
		if s.DoneBytes < s.TotalBytes { // else all is here, and is being indexed
			rate = ", " + amountOf(0, int64(bytes))[len("0.0 of "):] + "/s"
			if bytes > 0 {
				takes = max(takes, float64(s.TotalBytes-s.DoneBytes)/bytes)
			} else {
				takes = 0
			}
		}
		if takes > 0 {
			left = ", " + timeLeft(takes)
		}
	}
	// What there is no room for is left out, the least first.
	for _, line := range []string{messages + amount + rate + left, messages + amount + left, messages + left, messages, fmt.Sprintf("%d/%d", s.Done, s.Total)} {
		room := most - len(line)
		switch {
		case most == 0:
			return line
		case room < 0:
			continue
		case room >= meterBar/2:
			n := min(room, meterBar+3) - 3
			full := min(n, n*s.Done/s.Total)
			if s.TotalBytes > 0 {
				full = min(n, int(int64(n)*s.DoneBytes/s.TotalBytes))
			}
			return "[" + strings.Repeat("#", full) + strings.Repeat(".", n-full) + "] " + line
		}
		return line
	}
	return ""
}

// amountOf gives a part and the whole of it, in the unit of the whole.
func amountOf(part, whole int64) string {
	unit, div := "KB", float64(1000)
	for _, u := range []string{"MB", "GB", "TB"} {
		if float64(whole) < 1000*div {
			break
		}
		unit, div = u, 1000*div
	}
	return fmt.Sprintf("%.1f of %.1f %s", float64(part)/div, float64(whole)/div, unit)
}

// timeLeft gives seconds as a person counts them.
func timeLeft(seconds float64) string {
	switch m := int(seconds/60 + 0.5); {
	case seconds < 55:
		return fmt.Sprintf("%d s left", max(1, int(seconds/5+0.5)*5))
	case m < 60:
		return fmt.Sprintf("%d min left", m)
	case m < 48*60:
		return fmt.Sprintf("%d h %d min left", m/60, m%60)
	default:
		return fmt.Sprintf("%d days left", m/60/24)
	}
}

// draw puts a line into the place of the one that stands there.
func (m *meter) draw(line string) {
	m.narrowed()
	m.put("\r" + line + eraseLine)
	m.drawn = len(line)
}

// clear takes it away; the cursor stands where it stood.
func (m *meter) clear() {
	if m.drawn == 0 {
		return
	}
	m.narrowed()
	m.put("\r" + eraseLine)
	m.drawn = 0
}

// eraseLine takes away what stands behind the cursor, with the ^C of who interrupts.
const eraseLine = "\x1b[K"

// narrowed takes away what a terminal that became narrower has broken into several lines.
func (m *meter) narrowed() {
	if c := columns(m.w); c > 0 && m.drawn >= c {
		m.put(fmt.Sprintf("\x1b[%dA\r\x1b[J", (m.drawn-1)/c))
		m.drawn = 0
	}
}

func (m *meter) put(text string) {
	_, _ = io.WriteString(m.w, text) // one that cannot be drawn costs nothing
}
