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
	s := &accountStatus{Status: pipeline.Status{Account: "work", Contact: now, Change: now, Mailboxes: []pipeline.MailboxStatus{{Mailbox: "INBOX", Messages: 3, Gone: 1}}},
		Watch: &watched{Running: now, How: "notify", Since: now}}
	text := statusText(s, now, false, 40)
	if !strings.Contains(strings.Join(strings.Fields(text), " "), "by NOTIFY since") {
		t.Errorf("it says nothing of the watch:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if len(strings.TrimSuffix(line, "\n")) > 40 {
			t.Errorf("wider than 40 columns: %s", line)
		}
	}
}
