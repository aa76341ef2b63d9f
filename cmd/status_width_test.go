package cmd

import (
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// TestStatusFitsANarrowTerminal: no line is wider, so that none is broken in a word.
func TestStatusFitsANarrowTerminal(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := &accountStatus{Status: pipeline.Status{Account: "work", Contact: now, Change: now, Mailboxes: []pipeline.MailboxStatus{{Mailbox: "INBOX", Messages: 3, Gone: 1, New: 2, Failed: 3}}},
		Watch: &watched{Running: now, How: "notify", Since: now}}
	text := statusText(s, now, true, 40)
	if !strings.Contains(strings.Join(strings.Fields(text), " "), "by NOTIFY since") {
		t.Errorf("it says nothing of the watch:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if len(strings.TrimSuffix(line, "\n")) > 40 {
			t.Errorf("wider than 40 columns: %s", line)
		}
	}
}

// TestWhatIsHeldIsToldOnce: it is not on its way as well.
func TestWhatIsHeldIsToldOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := &accountStatus{Status: pipeline.Status{Account: "work", Contact: now, Change: now,
		Mailboxes: []pipeline.MailboxStatus{{Mailbox: "INBOX", Messages: 3, Gone: 3}, {Mailbox: "Lists", Messages: 3, Gone: 1}},
		Failed:    []pipeline.Failed{{State: pipeline.FailedHeld, Mailbox: "INBOX", Reason: "3 of 3 are gone here"}}}}
	text := statusText(s, now, false, 80)
	if strings.Count(text, "3 of 3 are gone here") != 1 || !strings.Contains(text, "  to the server   1 gone") {
		t.Errorf("%s", text)
	}
	if line := barLine([]*accountStatus{s}, now); line != "work: 1 undone, 1 to send" {
		t.Errorf("%q", line)
	}
}
