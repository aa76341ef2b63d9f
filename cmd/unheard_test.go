package cmd

import (
	"strings"
	"testing"
)

// What is told once was told when somebody could read it: not by a quiet run, nor by one
// whose output cannot be written.
func TestWhatIsToldOnceWasReadBySomebody(t *testing.T) {
	t.Parallel()
	n, _ := scriptedMember(t, "INBOX")
	for _, f := range []string{"cur/1.old:2,S", "new/.keep", "tmp/.keep"} {
		n.write("mail/work/a\x01b/"+f, "Subject: old\nMessage-ID: <old@example.org>\n\nold\n")
	}
	const words = "does not go to the server"
	for _, c := range []struct {
		line   string
		status int
		told   bool
	}{
		{"sync -q", exitDone, false}, {"sync --dry-run", exitDone, true}, {"retry -q work/INBOX/1", exitDone, false}, {"sync >/dev/full", exitBroken, false}, {"hook pre-new", exitDone, false},
		{"sync", exitDone, true}, {"sync", exitDone, false}, {"sync -v", exitDone, false},
	} {
		out := n.run(c.status, "", "sh", "-c", name+" "+c.line)
		if strings.Contains(out, words) != c.told {
			t.Errorf("%s: told %v:\n%s", c.line, !c.told, out)
		}
		if out := n.does(exitDone, "stubs", "--all"); c.line != "sync --dry-run" && !strings.Contains(out, words) {
			t.Errorf("after %s it is not listed:\n%s", c.line, out)
		}
	}
}

// A command whose output is lost has failed, whatever it is.
func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	n, _ := scriptedMember(t, "INBOX")
	for _, line := range []string{
		"sync", "sync --json", "sync -n", "status", "status --json", "status --line", "stubs", "stubs --all", "verify", "verify --json", "check", "check --json", "check -v",
		"version", "--version", "help", "help sync", "sync --help", "completion bash", "complete -- sync ''", "setup mutt", "setup systemd --print",
		"retry work/INBOX/1", "folder create work/New",
	} {
		if out := n.run(exitBroken, "", "sh", "-c", name+" "+line+" >/dev/full"); !strings.Contains(out, "no space left") {
			t.Errorf("%s: %s", line, out)
		}
	}
	// Where there is nothing to say, nothing is lost.
	for _, line := range []string{"sync -q", "retry -q work/INBOX/1", "stubs --json"} {
		n.run(exitDone, "", "sh", "-c", name+" "+line+" >/dev/full")
	}
}
