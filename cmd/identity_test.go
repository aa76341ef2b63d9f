package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// oddHeaders are mails whose header has lines that are no fields, or a Message-ID
// that notmuch writes otherwise, or none.
func oddHeaders(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../internal/mail/testdata/mail/*.eml")
	if err != nil || len(paths) < 18 {
		t.Fatal(paths, err)
	}
	var out []string
	for i, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		// Dovecot replaces NUL; and each is to be of a size of its own.
		out = append(out, strings.ReplaceAll(string(raw), "\x00", "\x80")+strings.Repeat("x", i)+"\r\n")
	}
	for i, line := range []string{"Message-ID: <caf\xe9@x>", "Message-ID: <=?utf-8?q?a=62?=@x>", "Message-ID:\r\n\t<folded@x>", "Message-ID: some words", "Message-ID:", "Message-ID: <first@x>\r\nMessage-ID: <second@x>",
		"X-Long: " + strings.Repeat("x", 70_000) + "\r\nMessage-ID: <behind@x>", strings.Repeat("X-Many: x\r\n", 10_000) + "Message-ID: <deep@x>"} {
		out = append(out, fmt.Sprintf("From: a@example.org\r\nSubject: made up\r\nDate: Tue, 01 Dec 2015 10:00:%02d +0000\r\n%s\r\n\r\nbody %d\r\n", i, line, i))
	}
	return out
}

// oddWorld has them in INBOX, here and there.
func oddWorld(t *testing.T, hide []string) (*imaptest.DovecotServer, *world, []string) {
	t.Helper()
	s := dovecot(t, hide...)
	odd := oddHeaders(t)
	appendAll(t, s, "INBOX", odd...)
	command(t, s, "CREATE Archive")
	w := newWorld(t, s.Addr(), s.User, s.Password)
	if rep := w.sync(); rep.New != len(odd) || !rep.Clean() {
		t.Fatalf("first: %+v", rep)
	}
	w.holds("INBOX", odd)
	return s, w, odd
}

// there counts the messages of a mailbox on the server.
func there(t *testing.T, s *imaptest.DovecotServer, mailbox string) int {
	t.Helper()
	lines, err := s.Command("EXAMINE "+mailbox, "UID SEARCH ALL")
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.Fields(searchLine(lines))) - len([]string{"*", "SEARCH"})
}

// settled asserts that all is where it should be, and that the next sync finds
// nothing to do.
func settled(t *testing.T, s *imaptest.DovecotServer, w *world, boxes map[string][]string) {
	t.Helper()
	if rep := w.sync(); rep.New+rep.Uploaded+rep.Removed+rep.Moved+rep.Deleted+rep.Held != 0 || !rep.Clean() {
		t.Errorf("a sync with nothing to do: %+v\n%v", rep, texts(w.events))
	}
	for name, want := range boxes {
		w.holds(name, want)
		if n := there(t, s, name); n != len(want) {
			t.Errorf("%d messages in %s on the server, not %d", n, name, len(want))
		}
	}
}

func texts(events []pipeline.Event) (out []string) {
	for _, e := range events {
		out = append(out, e.Text)
	}
	return out
}

func eachServer(t *testing.T, test func(t *testing.T, hide []string)) {
	t.Helper()
	for name, hide := range dovecots() {
		if name == "everything" || name == "bare" {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, hide)
			})
		}
	}
}

func TestALostLedgerBringsNoMailDownOrUpAgainWhateverItsHeader(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, hide []string) {
		s, w, odd := oddWorld(t, hide)
		if err := removeAll(w.state()); err != nil {
			t.Fatal(err)
		}
		said := &spoken{}
		w.remote.DialContext = said.dial
		rep := w.sync()
		if log := strings.Join(said.take(), "\n"); rep.New+rep.Uploaded+rep.Removed != 0 || !rep.Clean() || strings.Contains(log, "BODY.PEEK[])") {
			t.Errorf("%+v\n%s", rep, log)
		}
		settled(t, s, w, map[string][]string{"INBOX": odd})
	})
}

func TestANewUIDValidityDoublesNoMailWhateverItsHeader(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, hide []string) {
		s, w, odd := oddWorld(t, hide)
		for _, validity := range []string{"4242", "4243"} {
			if out, err := s.Doveadm("mailbox", "update", "--uid-validity", validity, "INBOX"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			said := &spoken{}
			w.remote.DialContext = said.dial
			rep := w.sync()
			if log := strings.Join(said.take(), "\n"); rep.New+rep.Uploaded+rep.Removed != 0 || !rep.Clean() || strings.Contains(log, "BODY.PEEK[])") {
				t.Errorf("%+v\n%s", rep, log)
			}
			settled(t, s, w, map[string][]string{"INBOX": odd})
		}
	})
}

// asMutt is what Mutt writes of a mail that it copies to another folder.
func asMutt(raw string) string {
	head, body, _ := strings.Cut(strings.ReplaceAll(raw, "\r\n", "\n"), "\n\n")
	return fmt.Sprintf("%s\nContent-Length: %d\n\n%s", head, len(body), body)
}

func TestWhatMuttMovesIsMovedWhateverItsHeader(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, hide []string) {
		s, w, odd := oddWorld(t, hide)
		mails, _ := w.mails("INBOX")
		moved := make(map[string][]string) // by folder
		i := 0
		for path, raw := range mails {
			// Of a file that notmuch refuses nothing is known once it is gone.
			if strings.HasPrefix(raw, "From a@example.org") || strings.HasPrefix(raw, "\n") {
				moved["INBOX"] = append(moved["INBOX"], raw)
				continue
			}
			moved["Archive"] = append(moved["Archive"], asMutt(raw))
			i++
			to := filepath.Join(w.index.MailRoot(), "work/Archive/cur", fmt.Sprintf("%d.mutt:2,S", i))
			// Mutt writes the mail anew, and gives the file the date of its header.
			sent := time.Date(2015, 12, 1, 10, 0, 0, 0, time.UTC)
			if err := errors.Join(os.WriteFile(to, []byte(asMutt(raw)), 0o600), os.Chtimes(to, sent, sent), os.Remove(path)); err != nil {
				t.Fatal(err)
			}
		}
		rep := w.sync(func(o *pipeline.Options) { o.YesDelete = true })
		if rep.Moved != i || i != len(odd)-2 || rep.Uploaded+rep.Deleted+rep.New+rep.Removed != 0 || !rep.Clean() {
			t.Errorf("%+v\n%v", rep, texts(w.events))
		}
		settled(t, s, w, moved)
	})
}

func TestWhatMuttSavesGoesUpOnceWhateverItsHeader(t *testing.T) {
	t.Parallel()
	eachServer(t, func(t *testing.T, hide []string) {
		s := dovecot(t, hide...)
		command(t, s, "CREATE Sent")
		w := newWorld(t, s.Addr(), s.User, s.Password)
		if rep := w.sync(); !rep.Clean() {
			t.Fatalf("first: %+v", rep)
		}
		var saved []string
		for i, raw := range oddHeaders(t) {
			raw = asMutt(raw)
			saved = append(saved, raw)
			path := filepath.Join(w.index.MailRoot(), "work/Sent/cur", fmt.Sprintf("%d.mutt:2,S", i))
			if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		rep := w.sync()
		if rep.Uploaded != len(saved) || rep.New+rep.Deleted+rep.Moved+rep.Removed != 0 || !rep.Clean() {
			t.Errorf("%+v\n%v", rep, texts(w.events))
		}
		settled(t, s, w, map[string][]string{"Sent": saved})
		if err := removeAll(w.state()); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Hour)
		if rep := w.sync(); rep.New+rep.Uploaded != 0 || !rep.Clean() {
			t.Errorf("after the ledger was lost: %+v", rep)
		}
		settled(t, s, w, map[string][]string{"Sent": saved})
	})
}
