package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// heldText has libnotmuch held at the mail with this id, in the midst of it, until release is
// called: the mail is encrypted, its reader is told to decrypt, and the program that GPGME asks for
// what is installed before it does waits.
func (w *watching) heldText(id string) (text string, release func()) {
	w.t.Helper()
	hold := filepath.Join(w.dir, "hold")
	config := filepath.Join(w.dir, "notmuch")
	before, err := os.ReadFile(config)
	if err != nil {
		w.t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec 2>/dev/null\nwhile [ -e %s ]; do sleep 0.1; done\nexit 1\n", hold)
	if err := errors.Join(
		os.WriteFile(config, append(before, "[index]\ndecrypt=true\n"...), 0o600),
		os.WriteFile(filepath.Join(w.dir, "bin/gpgconf"), []byte(script), 0o700),
		os.WriteFile(hold, nil, 0o600),
	); err != nil {
		w.t.Fatal(err)
	}
	text = "From: a@example.org\nSubject: " + id + "\nMessage-ID: <" + id + "@example.org>\nMIME-Version: 1.0\n" +
		"Content-Type: multipart/encrypted; boundary=x; protocol=\"application/pgp-encrypted\"\n" +
		"\n--x\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n" +
		"\n--x\nContent-Type: application/octet-stream\n\n-----BEGIN PGP MESSAGE-----\n\naaaa\n-----END PGP MESSAGE-----\n\n--x--\n"
	return strings.ReplaceAll(text, "\n", "\r\n"), func() {
		w.t.Helper()
		if err := os.Remove(hold); err != nil {
			w.t.Fatal(err)
		}
	}
}

// untilHeld waits for status to say that libnotmuch is at one mail.
func (w *watching) untilHeld() {
	w.t.Helper()
	w.until("status says what notmuch is at", func() bool {
		out, _ := w.run(name, "status", "work")
		return strings.Contains(strings.Join(strings.Fields(out), " "), "notmuch is indexing")
	})
}

// TestWatchIsAtOneMail: while libnotmuch is at one mail, which nothing interrupts, status says
// so, mail of another account comes to its folder, and a signal ends the watch; nothing is lost by
// that, nor left locked.
func TestWatchIsAtOneMail(t *testing.T) {
	t.Parallel()
	w := newWatching(t, `mailboxes = ["INBOX"]`)
	config := filepath.Join(w.dir, "config.toml")
	one, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.NewReplacer("[account.work]", "[account.other]", `["INBOX"]`, `["Lists"]`).Replace(string(one))
	if err := os.WriteFile(config, []byte(string(one)+other), 0o600); err != nil {
		t.Fatal(err)
	}
	appendAll(t, w.server, "INBOX", watchMail("first"))
	appendAll(t, w.server, "Lists", watchMail("second"))
	text, release := w.heldText("long")
	w.start()
	w.until("all is here", w.here("id:first@example.org or id:second@example.org", 2))
	appendAll(t, w.server, "INBOX", text)
	w.untilHeld()
	appendAll(t, w.server, "Lists", watchMail("third"))
	w.until("other mail is in its folder", func() bool {
		files, err := filepath.Glob(filepath.Join(w.dir, "mail/other/Lists/new/*"))
		return err == nil && len(files) == 2
	})
	if status := w.stop(syscall.SIGTERM); status != exitInterrupted || !w.said("interrupted; notmuch is indexing ")() {
		t.Errorf("exit status %d", status)
	}
	release()
	if out, status := w.run("notmuch", "tag", "+seen-by-me", "id:first@example.org"); status != 0 {
		t.Errorf("the database is locked: %s", out)
	}
	if out, status := w.run("notmuch-imap", "sync"); status != 0 {
		t.Errorf("a sync afterwards: %d %s", status, out)
	}
	for _, id := range []string{"first", "second", "third", "long"} {
		if !w.here("id:"+id+"@example.org", 1)() {
			t.Errorf("%s is not here", id)
		}
	}
}

// TestWatchWaitsForNotmuch: status tells that another program keeps notmuch's database, and with
// what of the mail that is on disk; the mail is there when that program has ended.
func TestWatchWaitsForNotmuch(t *testing.T) {
	t.Parallel()
	w := newWatching(t, "")
	appendAll(t, w.server, "INBOX", watchMail("first"))
	w.start()
	w.until("mail is here", w.here("id:first@example.org", 1))
	w.until("it watches", w.said("work: connected, by NOTIFY"))
	f, err := os.OpenFile(filepath.Join(w.dir, "mail/.notmuch/xapian/flintlock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w.until("the lock is free", func() bool {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 1}) == nil
	})
	appendAll(t, w.server, "INBOX", watchMail("second"))
	w.until("status tells of it", func() bool {
		out, _ := w.run(name, "status")
		text := strings.Join(strings.Fields(out), " ")
		return strings.Contains(text, "another program is writing to notmuch's database, and is waited for since ") && strings.Contains(text, "1 message in 1 mailbox, and 1 more that notmuch is yet to be told of")
	})
	w.until("it tells a program", func() bool {
		out, _ := w.run(name, "status", "--json")
		return strings.Contains(out, `"beside":[{"what":"locked","since":"`) && strings.Contains(out, `"not_in_notmuch":1`)
	})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	w.until("mail is here afterwards", w.here("id:second@example.org", 1))
	if status := w.stop(os.Interrupt); status != exitInterrupted {
		t.Errorf("exit status %d", status)
	}
}
