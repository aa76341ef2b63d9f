package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What of this machine costs one mailbox, or the sign-in, leaves the others alone,
// and is no success: the status is 1, and one line says what, where and what to do.
func TestAnErrorOfThisMachineInOneMailbox(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin()
	m.sync()
	m.deliver("INBOX", 20)
	cur := filepath.Join(m.dir, "mail", "work", "Work", "cur")
	do := func(errs ...error) {
		t.Helper()
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	do(os.Rename(cur, cur+".away"), os.WriteFile(cur, nil, 0o600))
	out, status := m.run(name, "sync")
	if status != exitBroken || strings.Count(out, "work/Work:") != 1 || !strings.Contains(out, "not a directory; put that right") || !strings.Contains(out, "1 new") {
		t.Errorf("status %d: %s", status, out)
	}
	do(os.Remove(cur), os.Rename(cur+".away", cur), os.Rename(filepath.Join(m.dir, "secret"), filepath.Join(m.dir, "away")))
	out, status = m.run(name, "sync")
	if status != exitBroken || !strings.Contains(out, "password_file") {
		t.Errorf("status %d: %s", status, out)
	}
	do(os.Rename(filepath.Join(m.dir, "away"), filepath.Join(m.dir, "secret")))
	m.sync()
}
