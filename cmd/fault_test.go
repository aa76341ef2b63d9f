package cmd

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/share"
)

func faultMail(n int) string {
	return fmt.Sprintf("From: a@example.org\r\nMessage-ID: <f%d@example.org>\r\nSubject: mail %d\r\n\r\nbody %d\r\n%s", n, n, n, strings.Repeat("x", n*7%900)+"\r\n")
}

// TestEveryFault lets a server break one rule, each that is known of one, and
// asserts that the run ends and all other mail is there byte for byte; that a
// second run finds nothing new; and that a server that heals gets its mail
// delivered in the stub's place.
func TestEveryFault(t *testing.T) {
	for _, caps := range []string{"IMAP4rev1", "IMAP4rev1 ESEARCH LIST-STATUS ENABLE CONDSTORE QRESYNC UIDPLUS"} {
		for _, fault := range imaptest.Faults() {
			kind := "bare"
			if strings.Contains(caps, "QRESYNC") {
				kind = "QRESYNC"
			}
			if kind == "QRESYNC" && strings.Contains(fault.Name, "STATUS") {
				continue // these say themselves what the server can do
			}
			if share.Spares(fault.Name, kind) {
				continue
			}
			t.Run(fault.Name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				testFault(t, caps, fault)
			})
		}
	}
}

func testFault(t *testing.T, caps string, fault imaptest.Fault) {
	var inbox []string
	for i := range 60 {
		inbox = append(inbox, faultMail(i+1))
	}
	other := []string{faultMail(1001), faultMail(1002)}
	s, err := imaptest.NewScript(caps, &fault, imaptest.Box("INBOX", inbox...), imaptest.Box("Other", other...))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	otherFolder := "Other"
	s.With(func(boxes []*imaptest.ScriptBox) {
		inbox = inbox[:0] // as the fault prepared it
		for _, m := range boxes[0].Mails {
			inbox = append(inbox, m.Raw)
		}
		switch boxes[1].Name {
		case "Entw\xfcrfe":
			otherFolder = "Entw%25FCrfe"
		case "A&b":
			otherFolder = "A&b"
		}
	})
	w := newWorld(t, s.Addr(), "user", "pass phrase")
	w.remote.DialContext = s.Dial
	w.remote.Note = func(n string) { w.notes = append(w.notes, n) }

	rep := w.sync()
	without := append(append([]string{}, inbox[:imaptest.BadUID-1]...), inbox[imaptest.BadUID:]...)
	stubs, notes := 0, 0
	switch fault.Outcome {
	case imaptest.Delivered, imaptest.Noted:
		w.holds("INBOX", inbox)
		w.holds(otherFolder, other)
	case imaptest.Stubbed:
		w.holds("INBOX", without)
		w.holds("Other", other)
		stubs = 1
	case imaptest.Vanished:
		w.holds("INBOX", without)
		w.holds("Other", other)
	case imaptest.MailboxLeft:
		w.holds("INBOX", inbox)
	case imaptest.AccountLeft:
	}
	if fault.Outcome == imaptest.Noted {
		notes = 1 // beside the mail, for as long as notmuch does not take that
	}
	left := 0
	if fault.Outcome == imaptest.MailboxLeft || fault.Outcome == imaptest.AccountLeft {
		left = 1
	}
	if len(rep.Faults) != left || rep.NewStubs != stubs {
		t.Errorf("%d faults, %d new stubs, want %d and %d: %+v; notes %q", len(rep.Faults), rep.NewStubs, left, stubs, rep, w.notes)
	}
	if _, found := w.mails("INBOX"); len(found) != stubs+notes {
		t.Errorf("%d stub files, want %d", len(found), stubs+notes)
	}
	if n := w.notmuch("count", "tag:fetch-failed"); n != strconv.Itoa(stubs+notes) {
		t.Errorf("notmuch knows %s stubs, want %d", n, stubs+notes)
	}

	// The second run converges: nothing is new, known stubs are quiet.
	if left == 0 {
		if again := w.sync(); again.New+again.NewStubs+again.Removed != 0 || again.Stubs != stubs || !again.Clean() {
			t.Errorf("second run: %+v", again)
		}
	}

	// The server heals.
	s.Heal()
	w.now = w.now.Add(time.Hour)
	healed := w.sync()
	if healed.Healed != stubs || !healed.Clean() {
		t.Errorf("healed: %+v", healed)
	}
	if fault.Outcome != imaptest.Vanished {
		w.holds("INBOX", inbox)
	}
	w.holds(otherFolder, other)
	if _, found := w.mails("INBOX"); len(found) != notes {
		t.Errorf("%d stub files after the server healed, want %d", len(found), notes)
	}
	if n := w.notmuch("count", "tag:fetch-failed"); n != strconv.Itoa(notes) {
		t.Errorf("notmuch knows %s stubs after the server healed, want %d", n, notes)
	}
	if out := w.notmuch("new"); !strings.Contains(out, "No new mail") {
		t.Errorf("notmuch new after us: %s", out)
	}
}
