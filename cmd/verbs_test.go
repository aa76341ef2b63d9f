package cmd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Whatever deletes on the server asks before, and says the same where nobody can be asked.
func TestWhatDeletesOnTheServerAsksAlike(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	if _, err := o.server.Append("Other", ownMail(1), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"drop", "--remote", "work/INBOX/15541"}, {"folder", "delete", "--with-mail", "work/Other"}} {
		cmd := exec.CommandContext(t.Context(), "setsid", append([]string{"-w", filepath.Join(o.dir, "bin", name)}, args...)...)
		cmd.Env = o.env
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitUsage || !strings.Contains(string(out), "there is no terminal to ask on; --yes does without") {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	if got := o.rows(); len(got) != 1 {
		t.Errorf("something is gone: %v", got)
	}
}

// A folder is made only where a sync takes its mailbox: the separator is the server's, or, as
// long as that has said nothing, the one that is typed.
func TestAFolderIsNotMadeWhereNoSyncTakesIt(t *testing.T) {
	t.Parallel()
	for _, synced := range []bool{false, true} {
		m := newMachine(t)
		file := filepath.Join(m.dir, "config.toml")
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, append(text, "mailboxes = [\"%\"]\n"...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if synced {
			m.deliver("INBOX", 1)
			m.sync()
		}
		if out, status := m.run(name, "folder", "create", "work/A/B"); status == exitDone || !strings.Contains(out, "mailboxes") {
			t.Errorf("synced %v: status %d\n%s", synced, status, out)
		}
		if _, err := os.Stat(filepath.Join(m.dir, "mail", "work", "A", "B")); err == nil {
			t.Errorf("synced %v: there is a folder", synced)
		}
		if !synced {
			continue // before the first sync no folder is made at all
		}
		if out, status := m.run(name, "folder", "create", "work/A"); status != exitDone {
			t.Errorf("of what is taken: status %d\n%s", status, out)
		}
	}
}
