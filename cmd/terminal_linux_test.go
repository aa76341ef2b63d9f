package cmd

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// terminal opens a pseudo-terminal: what the program writes to tty comes out of
// the screen's end.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// shown plays what was written: what stands in each line at the end.
func shown(written string) []string {
	var lines []string
	line, at := []rune{}, 0
	const erase = '\x00'
	written = strings.ReplaceAll(written, eraseLine, string(erase))
	for _, r := range written {
		switch r {
		case erase:
			line = line[:min(at, len(line))]
		case '\r':
			at = 0
		case '\n':
			lines = append(lines, strings.TrimRight(string(line), " "))
			line, at = nil, 0
		default:
			if at < len(line) {
				line[at] = r
			} else {
				line = append(line, r)
			}
			at++
		}
	}
	return append(lines, strings.TrimRight(string(line), " "))
}

func TestATerminalGetsColoursAndABarThatLeavesNoTrace(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		env    map[string]string
		colour bool
		bar    bool
	}{
		{"terminal", map[string]string{"TERM": "xterm"}, true, true},
		{"NO_COLOR", map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false, true},
		{"dumb", map[string]string{"TERM": "dumb"}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			screen, tty := terminal(t)
			p := &program{stdout: tty, stderr: tty, getenv: func(n string) string { return tc.env[n] }}
			c := cli.NewContext(p.app(), flag.NewFlagSet("", flag.ContinueOnError), nil)
			o, err := p.output(c)
			if err != nil {
				t.Fatal(err)
			}
			o.event(pipeline.Event{Type: pipeline.EventProgress, Account: "work", Done: 250, Total: 1000})
			o.event(pipeline.Event{Type: pipeline.EventFault, Account: "work", Mailbox: "Shared", Text: "refused"})
			o.event(pipeline.Event{Type: pipeline.EventProgress, Account: "work", Done: 500, Total: 1000})
			o.event(pipeline.Event{Type: pipeline.EventProgress, Account: "work", Done: 1000, Total: 1000})
			o.event(pipeline.Event{Type: pipeline.EventDone, Account: "work", Report: &pipeline.Report{Mailboxes: 1, New: 1000}})
			o.close()
			if _, err := tty.WriteString("end"); err != nil {
				t.Fatal(err)
			}
			var written strings.Builder
			buf := make([]byte, 4096)
			for !strings.HasSuffix(written.String(), "end") {
				n, err := screen.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				written.Write(buf[:n])
			}
			got := written.String()
			if strings.Contains(got, "\x1b[31m") != tc.colour {
				t.Errorf("colour: %q", got)
			}
			if strings.Contains(got, "250/1000 messages") != tc.bar {
				t.Errorf("bar: %q", got)
			}
			got = strings.NewReplacer("\x1b[31m", "", "\x1b[0m", "").Replace(got)
			if lines := strings.Join(shown(got), "|"); lines != "work/Shared: refused|work: 1000 new|end" {
				t.Errorf("at the end there stands %q, of %q", lines, got)
			}
		})
	}
}

// TestTheMeterFitsItsTerminal, also one that becomes narrower: what that has broken into two
// lines is taken away, and nothing of the lines above it.
func TestTheMeterFitsItsTerminal(t *testing.T) {
	t.Parallel()
	screen, tty := terminal(t)
	m := newMeter(tty, true)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(columns uint16, want string) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
			t.Fatal(err)
		}
		m.show(now)
		if _, err := tty.WriteString("\x00"); err != nil {
			t.Fatal(err)
		}
		var written []byte
		for buf := make([]byte, 4096); !bytes.HasSuffix(written, []byte{0}); {
			n, err := screen.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			written = append(written, buf[:n]...)
		}
		if got := strings.TrimRight(string(written), "\x00"); got != want+eraseLine {
			t.Errorf("at %d columns there is written\n%q, not\n%q", columns, got, want)
		}
	}
	e := pipeline.Event{Type: pipeline.EventProgress, Account: "work", Done: 12000, Total: 56789, DoneBytes: 100e6, TotalBytes: 4000e6}
	m.accounts["work"] = e
	at(200, "\r[........................] 12000/56789 messages, 0.1 of 4.0 GB")
	now = now.Add(20 * time.Second)
	e.Done, e.DoneBytes = 13000, 150e6
	m.accounts["work"] = e
	at(200, "\r[................] 13000/56789 messages, 0.1 of 4.0 GB, 2.5 MB/s, 26 min left")
	at(80, "\r[................] 13000/56789 messages, 0.1 of 4.0 GB, 2.5 MB/s, 26 min left")
	at(70, "\x1b[1A\r\x1b[J\r13000/56789 messages, 0.1 of 4.0 GB, 2.5 MB/s, 26 min left")
	at(40, "\x1b[1A\r\x1b[J\r13000/56789 messages, 26 min left")
	at(20, "\x1b[1A\r\x1b[J\r13000/56789")
}

// TestTheMeterGoesByWhatIsSlower: the line, on which a large mail comes, or notmuch, that
// indexes what is here.
func TestTheMeterGoesByWhatIsSlower(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		past mark
		sum  pipeline.Event
		want string
	}{
		{mark{done: 10, bytes: 1e6}, pipeline.Event{Done: 10, Total: 11, DoneBytes: 11e6, TotalBytes: 41e6}, "10/11 messages, 11.0 of 41.0 MB, 1.0 MB/s, 30 s left"},
		{mark{done: 10, bytes: 1e6}, pipeline.Event{Done: 110, Total: 1310, DoneBytes: 5e6, TotalBytes: 5e6}, "110/1310 messages, 5.0 of 5.0 MB, 10/s, 2 min left"},
		{mark{done: 10, bytes: 1e6}, pipeline.Event{Done: 110, Total: 1310, DoneBytes: 5e6, TotalBytes: 6e6}, "110/1310 messages, 5.0 of 6.0 MB, 400.0 KB/s, 2 min left"},
		{mark{done: 10, bytes: 5e6}, pipeline.Event{Done: 110, Total: 1310, DoneBytes: 5e6, TotalBytes: 6e6}, "110/1310 messages, 5.0 of 6.0 MB, 0.0 KB/s"},
		{mark{done: 10}, pipeline.Event{Done: 110, Total: 1310}, "110/1310 messages, 10/s, 2 min left"},
	} {
		c.past.at = now.Add(-10 * time.Second)
		m := &meter{past: []mark{c.past}}
		if got := m.line(c.sum, now, 0); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// TestAnInterruptLeavesNoTrace of the meter, nor of what the terminal shows of the key.
func TestAnInterruptLeavesNoTrace(t *testing.T) {
	t.Parallel()
	var written strings.Builder
	m := newMeter(&written, true)
	m.draw("[##......] 250/1000 messages")
	written.WriteString("^C")
	m.clear()
	written.WriteString("interrupted")
	if got := shown(written.String()); len(got) != 1 || got[0] != "interrupted" {
		t.Errorf("%q", got)
	}
}

// Where no line can keep its place there is one now and then.
func TestWithoutATerminalProgressIsSaidNowAndThen(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	m := newMeter(&out, false)
	begun := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for s := range 100 {
		m.event(pipeline.Event{Type: pipeline.EventProgress, Account: "work", Done: 10 * s, Total: 1000, DoneBytes: int64(s) * 1e5, TotalBytes: 1e7}, begun.Add(time.Duration(s)*time.Second))
	}
	m.event(pipeline.Event{Type: pipeline.EventDone, Account: "work"}, begun.Add(time.Hour))
	const want = "notmuch-imap: 300/1000 messages, 3.0 of 10.0 MB, 100.0 KB/s, 1 min left\n" +
		"notmuch-imap: 600/1000 messages, 6.0 of 10.0 MB, 100.0 KB/s, 40 s left\n" +
		"notmuch-imap: 900/1000 messages, 9.0 of 10.0 MB, 100.0 KB/s, 10 s left\n"
	if out.String() != want {
		t.Errorf("it said\n%s", out.String())
	}
}
