package cmd

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text    string
		most    int
		further int
		want    string
	}{
		{"short", 20, 2, "short"},
		{"a text of several words that is long", 20, 2, "a text of several\n  words that is long"},
		{"  led by blanks, and too long", 20, 3, "  led by blanks, and\n     too long"},
		{"one\ntwo of these lines are too long\nthree", 20, 2, "one\ntwo of these lines\n  are too long\nthree"},
		{"what is it, and to whom? [Y/n] ", 20, 2, "what is it, and to\n  whom? [Y/n] "},
		{"  f  file     a file of yours", 20, 2, "  f  file     a file\n    of yours"},
		{"see https://example.org/a/long/way now", 20, 2, "see\n  https://example.org/a/long/way\n  now"},
		{"a text of several words that is long", 0, 2, "a text of several words that is long"},
		{"very narrow, and far in", 4, 6, "very\n      narrow,\n      and\n      far\n      in"},
		{"", 20, 2, ""},
	} {
		if got := fold(c.text, c.most, c.further); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

// What a terminal would break in the middle of a word is folded, and what goes into a
// file or to a program has a line each.
func TestLongLinesAreFoldedOnATerminal(t *testing.T) {
	t.Parallel()
	const long = "the server's certificate hangs on one that this machine does not trust, since nobody vouches for it"
	tell := func(p *program, colour bool) {
		p.say("%s", long)
		p.complain("work", errors.New(long))
		_ = p.exit(t.Context(), errors.New(long))
		c := &checker{p: p, account: "work", colour: colour}
		c.warn("tls", long, "%s", long)
		prose(p.stdout, long+"\n\n"+long)
	}
	for _, wide := range []uint16{40, 80, 200, 0} {
		screen, tty := terminal(t)
		if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: wide}); err != nil {
			t.Fatal(err)
		}
		tell(&program{stdout: tty, stderr: tty, getenv: func(string) string { return "" }}, true)
		if _, err := tty.WriteString("end"); err != nil {
			t.Fatal(err)
		}
		most := int(wide)
		if wide == 0 || wide > 80 {
			most = 80
		}
		text := strings.NewReplacer("\x1b[33m", "", "\x1b[0m", "", "\r", "").Replace(readUntil(t, screen, "end"))
		for l := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > most {
				t.Errorf("%d columns: %d: %q", wide, n, l)
			}
		}
		if got := strings.Count(strings.Join(strings.Fields(text), " "), long); got != 7 {
			t.Errorf("%d columns: the text is there %d times, want 7: %s", wide, got, text)
		}
		if !strings.Contains(text, "\nwarn  work: tls: the") || !strings.Contains(text, "\n      -> the server") {
			t.Errorf("%d columns: %s", wide, text)
		}
	}
	var out bytes.Buffer
	tell(&program{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}, false)
	if !strings.HasPrefix(out.String(), long+"\nwork: "+long+"\nnotmuch-imap: "+long+"\nwarn  work: tls: "+long+"\n      -> "+long+"\n") {
		t.Error(out.String())
	}
}

// readUntil reads what was written on a terminal, up to an end.
func readUntil(t *testing.T, screen *os.File, end string) string {
	t.Helper()
	var written strings.Builder
	buf := make([]byte, 4096)
	for !strings.HasSuffix(written.String(), end) {
		n, err := screen.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		written.Write(buf[:n])
	}
	return written.String()
}
