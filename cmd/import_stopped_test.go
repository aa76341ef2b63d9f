package cmd

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// killedAfter runs a command and kills it when it has said so many lines.
func (m *mover) killedAfter(lines int, args ...string) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), args[0], args[1:]...)
	cmd.Env, cmd.Dir = m.env, m.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	for range lines {
		if !in.Scan() {
			m.t.Errorf("%q ended before it said %d lines", args, lines)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		m.t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// TestATakeOverThatWasStopped by SIGKILL leaves whole mailboxes, and those of which nothing is
// known: the next one goes on, as if nothing had been, and so does a sync.
func TestATakeOverThatWasStopped(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	const boxes = 5
	want := map[string]int{}
	for b := range boxes {
		var raws []string
		for i := range 40 {
			raws = append(raws, rawDovecot(100*b+i))
		}
		appendAll(t, s, fmt.Sprint("box", b), raws...)
		want[fmt.Sprint("box", b)] = 40
	}
	m := newMover(t, s, "Verbatim", "*")
	before := m.must("notmuch", "dump", "--include=properties", "--include=tags")
	for lines := range boxes + 1 {
		m.must("rm", "-rf", "state")
		m.killedAfter(lines, name, "import", "mbsync")
		if lines%2 == 0 {
			out, _ := m.run(name, "import", "mbsync")
			for b := range boxes {
				if !strings.Contains(out, fmt.Sprintf("work/box%d: 40 messages are paired\n", b)) && !strings.Contains(out, fmt.Sprintf("work/box%d: is synchronised already\n", b)) {
					t.Errorf("killed after %d lines: box%d is not there in\n%s", lines, b, out)
				}
			}
			says(t, m.must(name, "sync"), "work: nothing new")
		} else {
			m.must(name, "sync")
			says(t, m.must(name, "sync"), "work: nothing new")
		}
		says(t, m.must(name, "verify"), "work: all 200 messages are here")
		m.hasTags(before)
		m.holds(want)
		if n := strings.TrimSpace(m.must("notmuch", "count", "--output=files", "*")); n != "200" {
			t.Errorf("killed after %d lines: %s files", lines, n)
		}
	}
}
