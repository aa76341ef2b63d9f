package cmd

import (
	"strings"
	"testing"
)

// TestNothingIsTurnedBackThatTheOtherProgramBrought between the take-over and the first sync, and that
// was changed on the server since: the last word is the server's. What was here before stays here.
func TestNothingIsTurnedBackThatTheOtherProgramBrought(t *testing.T) {
	t.Parallel()
	s := dovecot(t)
	appendAll(t, s, "INBOX", rawsDovecot(4)...)
	appendAll(t, s, "Archiv", rawDovecot(100))
	appendAll(t, s, "Trash", rawDovecot(200))
	m := newMover(t, s, "Verbatim", "*")
	words := []string{name, "import", "mbsync"}
	m.must(words...)

	m.store("1", `+FLAGS (\Flagged)`)
	m.must("mv", m.file("d1@example.org"), strings.ReplaceAll(m.file("d1@example.org"), "/new/", "/cur/")+":2,F")
	m.mbsync()
	m.store("1:2", `-FLAGS (\Flagged)`)
	m.must("rm", m.file("d3@example.org"))
	m.must("notmuch", "new")
	there := m.there()
	for _, words := range [][]string{{name, "sync", "-n"}, {name, "sync"}} {
		if out, status := m.run(words...); status != exitLater || !strings.HasPrefix(out, "work: mbsync has gone on with INBOX since that was taken over, ") {
			t.Errorf("%q: status %d: %s", words, status, out)
		}
	}
	// It is at work: nothing of what was taken over is given up for that.
	m.write("mail/work/INBOX/.mbsyncstate.journal", "x\n")
	if out, status := m.run(words...); status != exitPartly || !strings.Contains(out, "work/INBOX: mbsync has gone on with it since it was taken over, and that is not taken over: a run of mbsync was interrupted") {
		t.Errorf("status %d: %s", status, out)
	}
	m.must("rm", m.root+"/INBOX/.mbsyncstate.journal")
	for _, words := range [][]string{append(words, "-n"), words} {
		says(t, m.must(words...), "work/INBOX: 3 messages are paired; 1 was removed here since: a sync deletes it there", "work/Archiv: is synchronised already")
	}
	if now := m.there(); strings.Join(now, "\n") != strings.Join(there, "\n") {
		t.Errorf("the server had\n%q\nand has\n%q", there, now)
	}
	says(t, m.must(name, "sync"), "work: 2 changes of flags, 1 deleted on the server")
	if flagged := strings.Join(m.there(), "\n"); strings.Contains(flagged, `\Flagged`) {
		t.Errorf("turned back:\n%s", flagged)
	}
	// It goes on once more: this is the sync's by now.
	m.mbsync()
	says(t, m.must(name, "sync"), "work: nothing new")
	says(t, m.must(words...), "work/INBOX: is synchronised already")
}
