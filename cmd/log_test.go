package cmd

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Of a run that was killed the log says where it stood, and what a server or a sender says reaches the
// terminal as words.
func TestTheLogSaysWhereAKilledRunStood(t *testing.T) {
	t.Parallel()
	dir := completionWorld(t)
	state := filepath.Join(dir, "state", "notmuch-imap", "work")
	l, err := ledger.Open(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(-time.Hour)
	l.KeepLog(ledger.Keeping{Now: func() time.Time { return now }, For: time.Hour * 24})
	j := journal.Of(l)
	var c journal.Change
	c.Did(mail.Action{Kind: mail.ActFetch, Mailbox: "INBOX", UID: 3, Subject: "one\x1b[31m two", Why: "it is new on the server"})
	c.Begin(mail.Action{Kind: mail.ActMove, Mailbox: "INBOX", UIDValidity: 1, UID: 4, Other: "Sent Items", From: "Jane", Why: "its file was moved to that folder here"})
	c.Begin(mail.Action{Kind: mail.ActUpload, Mailbox: "INBOX", Key: "k"})
	c.Became(mail.IsRefused, "NO too\x07 large", mail.Action{Kind: mail.ActUpload, Mailbox: "INBOX", Key: "k"})
	j.Moving.Put(&c, "INBOX", journal.Moving{Mailbox: "INBOX"})
	if err := errors.Join(j.Record(t.Context(), c), l.Close()); err != nil { // it has not ended
		t.Fatal(err)
	}
	env := completionEnv(dir)
	out, errs := &strings.Builder{}, &strings.Builder{}
	p := &program{stdin: strings.NewReader(""), stdout: out, stderr: errs, getenv: func(k string) string { return env[k] }}
	if status := p.run(context.Background(), []string{name, "log", "-p"}); status != exitDone || errs.Len() > 0 {
		t.Fatalf("status %d, %s", status, errs)
	}
	for _, want := range []string{
		", killed\n",
		"work/INBOX 3 'one?[31m two' fetched, because it is new on the server\n",
		"work/INBOX 4 from Jane begun to be moved to Sent Items on the server, because its file was moved to that folder here; whether it was done is not known yet\n",
		"work/INBOX not uploaded: NO too large\n",
		"  the server was asked for 1 change of which the answer was not read: the next sync finds out what became of that\n",
		"  it left, and the next sync ends: an interrupted move\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if strings.ContainsAny(out.String(), "\x1b\x07") {
		t.Errorf("%q", out)
	}
}

func TestTimesSinceWhenTheLogIsAskedFor(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 14, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"":                 {},
		"13:30":            now.Add(-30 * time.Minute),
		"14:30":            now.Add(-23*time.Hour - 30*time.Minute),
		"2026-11-01":       time.Date(2026, 11, 1, 0, 0, 0, 0, time.Local),
		"2026-11-01 12:00": time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local),
		"90m":              now.Add(-90 * time.Minute),
		"3d":               now.AddDate(0, 0, -3),
	} {
		if got, err := sinceOf(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1h", "-3d", "25:00", "999999999d"} {
		if got, err := sinceOf(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
