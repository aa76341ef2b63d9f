//go:build linux

package remote

import (
	"context"
	"fmt"
	"iter"
	"sync"
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
// the old one when it begins another, until it is asked anew. On a busy machine another session begins
// one between the question and the mail: then the next question tells of it.
func TestDovecotTellsOfWhatItLoggedAnew(t *testing.T) {
	t.Parallel()
	srv, s := watched(t, imaptest.DovecotOptions{Rotates: true})
	const often, seldom = 4, 8 // so often each is told of in IDLE, and so often at most one is not
	n, missed, heard := 0, 0, map[string]int{}
	for heard["INBOX"] < often || heard["Archive"] < often {
		for _, box := range []string{"INBOX", "Archive"} {
			told := false
			tell := func(n mail.News) { told = told || n.Mailbox == box && !n.Gone }
			if err := s.Notify(t.Context(), func(mail.News) {}); err != nil {
				t.Fatal(err)
			}
			if err := srv.AppendAll(box, oneMail(fmt.Sprint(box, n))); err != nil {
				t.Fatal(err)
			}
			n++
			end := make(chan struct{})
			enough := sync.OnceFunc(func() { close(end) })
			patience := time.AfterFunc(20*time.Second, enough)
			err := s.Idle(t.Context(), end, func(n mail.News) {
				if tell(n); told {
					enough()
				}
			})
			patience.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if told {
				heard[box]++
				continue
			}
			if missed++; missed > seldom {
				t.Fatalf("not told of %d mails in IDLE, and of %v", missed, heard)
			}
			if err := s.Notify(t.Context(), tell); err != nil || !told {
				t.Fatalf("asked anew it does not tell of the mail in %s: %v", box, err)
			}
		}
	}
}
