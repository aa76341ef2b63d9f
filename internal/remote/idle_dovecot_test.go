//go:build linux

package remote

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// awaiting idles on s until the news that want names has come, and calls do first.
func awaiting(t *testing.T, s *Session, want mail.News, do func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	do()
	end, ended := make(chan struct{}), false
	var got []mail.News
	err := s.Idle(ctx, end, func(n mail.News) {
		got = append(got, n)
		if n.Status = (mail.Status{}); n == want && !ended {
			ended = true
			close(end)
		}
	})
	if err != nil || !ended {
		t.Fatalf("%v; news %+v, want %+v", err, got, want)
	}
}

// oneMail is a mail for AppendAll.
func oneMail(text string) iter.Seq2[time.Time, []byte] {
	return func(yield func(time.Time, []byte) bool) {
		yield(time.Now(), []byte("Subject: x\r\nMessage-ID: <"+text+"@example.org>\r\n\r\n"+text+"\r\n"))
	}
}

func watched(t *testing.T, o imaptest.DovecotOptions) (*imaptest.DovecotServer, *Session) {
	t.Helper()
	srv, err := imaptest.StartDovecot(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	for _, name := range []string{"INBOX", "Archive"} {
		if err := srv.AppendAll(name, oneMail("first in "+name)); err != nil {
			t.Fatal(err)
		}
	}
	r := plain(srv.Port)
	r.User, r.Timeout = srv.User, 5*time.Minute
	r.Password = func(context.Context) (string, error) { return srv.Password, nil }
	return srv, dialed(t, r)
}

func TestDovecotIdles(t *testing.T) {
	t.Parallel()
	srv, s := watched(t, imaptest.DovecotOptions{})
	if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
		t.Fatal(err)
	}
	awaiting(t, s, mail.News{Mailbox: "INBOX"}, func() {
		if err := srv.AppendAll("INBOX", oneMail("second")); err != nil {
			t.Fatal(err)
		}
	})
	awaiting(t, s, mail.News{Mailbox: "INBOX", Gone: true}, func() {
		if _, err := srv.Command("SELECT INBOX", `STORE 1 +FLAGS (\Deleted)`, "EXPUNGE"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDovecotNotifies(t *testing.T) {
	t.Parallel()
	srv, s := watched(t, imaptest.DovecotOptions{})
	if !s.Has("NOTIFY") {
		t.Fatal("this Dovecot has no NOTIFY")
	}
	if err := s.Notify(t.Context(), func(mail.News) {}); err != nil {
		t.Fatal(err)
	}
	awaiting(t, s, mail.News{Mailbox: "Archive"}, func() {
		if err := srv.AppendAll("Archive", oneMail("second")); err != nil {
			t.Fatal(err)
		}
	})
	awaiting(t, s, mail.News{Mailbox: "INBOX"}, func() {
		if _, err := srv.Command("SELECT INBOX", `STORE 1 +FLAGS (\Seen)`); err != nil {
			t.Fatal(err)
		}
	})
	awaiting(t, s, mail.News{Mailbox: "Archive", Gone: true}, func() {
		if _, err := srv.Command("SELECT Archive", `STORE 1 +FLAGS (\Deleted)`, "EXPUNGE"); err != nil {
			t.Fatal(err)
		}
	})
	awaiting(t, s, mail.News{Gone: true}, func() {
		if _, err := srv.Command("CREATE Fresh"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDovecotTellsOfWhatItLoggedAnew: Dovecot watches the log of a mailbox, and goes on to watch
// the old one when it begins another, until it is asked anew.
func TestDovecotTellsOfWhatItLoggedAnew(t *testing.T) {
	t.Parallel()
	srv, s := watched(t, imaptest.DovecotOptions{Rotates: true})
	for i := range 4 {
		for _, box := range []string{"INBOX", "Archive"} {
			if err := s.Notify(t.Context(), func(mail.News) {}); err != nil {
				t.Fatal(err)
			}
			awaiting(t, s, mail.News{Mailbox: box}, func() {
				if err := srv.AppendAll(box, oneMail(fmt.Sprint(box, i))); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
