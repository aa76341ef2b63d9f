package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
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

// A folder that may only be read, while mail comes to it, goes from it, and is moved out of it
// on the server, keeps the other mailboxes from nothing: not in the run that meets it, and not
// in those behind that, which have to end what it left. When it can be written to, one run does
// the rest.
func TestAFolderForReadingOnlyCostsItsMailboxAlone(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin()
	m.sync()
	c := m.client()
	if _, err := c.Select("Work", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.UIDSetNum(1), "INBOX").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Logout().Wait(), c.Close()); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		came := 20 + round
		m.deliver("INBOX", came)
		m.deliver("Work", 30+round)
		m.move(1+round, "INBOX", "INBOX", "S")
		out, status := m.readOnly("Work", name, "sync")
		if status != exitBroken || strings.Count(out, "work/Work: ") == 0 || strings.Contains(out, "work: remove") ||
			!strings.Contains(out, "read-only file system; see that it can be written to") || !strings.Contains(out, "1 change of flags sent") {
			t.Errorf("round %d: status %d: %s", round, status, out)
		}
		if found, _ := m.run("notmuch", "count", fmt.Sprintf("id:%d@own.example", came)); found != "1\n" {
			t.Errorf("round %d: mail of INBOX did not come: %s", round, out)
		}
		if log, _ := m.run(name, "log"); strings.Contains(log, "not known yet") || strings.Count(log, " not removed here, because ") < min(round, 1) {
			t.Errorf("round %d: the log says %s", round, log)
		}
	}
	m.sync()
	if out, status := m.run(name, "verify"); status != exitDone {
		t.Errorf("in the end: %s", out)
	}
	if out, _ := m.run("notmuch", "count", "--output=files", "*"); out != "14\n" {
		t.Errorf("in the end notmuch has %s files, not 14", out)
	}
}

// A folder of a mailbox that another client has deleted, and whose mail it had moved before, likewise.
func TestTheFolderOfADeletedMailboxForReadingOnly(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.begin()
	m.sync()
	c := m.client()
	if _, err := c.Select("Work", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.SeqSet{{Start: 1, Stop: 0}}, "INBOX").Wait(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Unselect().Wait(), c.Delete("Work").Wait(), c.Logout().Wait(), c.Close()); err != nil {
		t.Fatal(err)
	}
	m.deliver("INBOX", 20)
	out, status := m.readOnly("Work", name, "sync")
	if status != exitBroken || !strings.Contains(out, "work/Work: remove ") || !strings.Contains(out, "see that it can be written to") {
		t.Errorf("status %d: %s", status, out)
	}
	if found, _ := m.run("notmuch", "count", "folder:work/INBOX"); found != "9\n" {
		t.Errorf("of 9 mails in INBOX these came: %s%s", found, out)
	}
	m.sync()
	if log, _ := m.run(name, "log", "-p"); strings.Contains(log, "begun") {
		t.Errorf("the log says\n%s", log)
	}
}

// readOnly runs a command that can only read one mailbox's folder.
func (m *machine) readOnly(mailbox string, args ...string) (out string, status int) {
	m.t.Helper()
	folder := filepath.Join("mail", "work", mailbox)
	return m.run(append([]string{"unshare", "--map-root-user", "--mount", "sh", "-e", "-c",
		`mount --bind "$0" "$0"; mount -o remount,ro,bind "$0"; exec "$@"`, folder}, args...)...)
}
