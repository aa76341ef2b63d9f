package cmd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// found asserts what the one search for all that failed finds.
func (n *member) found(want int) []string {
	n.t.Helper()
	out := n.run(0, "", "notmuch", "search", "--output=files", "tag:fetch-failed or tag:upload-failed")
	files := strings.Fields(out)
	if len(files) != want {
		n.t.Errorf("the search finds %d mails, want %d:\n%s", len(files), want, n.run(0, "", "notmuch", "search", "*"))
	}
	return files
}

// piped runs a command as Mutt's keys do: with the mail that is shown as its input.
func (n *member) piped(status int, mail string, args ...string) string {
	n.t.Helper()
	return n.run(status, mail, append([]string{name}, args...)...)
}

// A mail that notmuch does not take for one is shown by a note that stands beside it, which is
// listed, retried and dropped as every stub, and goes when the mail goes.
func TestAMailThatNotmuchDoesNotTakeHasANote(t *testing.T) {
	t.Parallel()
	n, server := scriptedMember(t, "INBOX")
	server.With(func(boxes []*imaptest.ScriptBox) { boxes[0].Add("X-Nothing: of use\r\n\r\nbody\r\n", "") })
	n.does(exitDone, "sync")
	note := n.found(1)
	text := n.run(0, "", "cat", note[0])
	if !strings.Contains(text, "Subject: [not in notmuch] INBOX UID 2\n") || !strings.Contains(text, "does not take its file for a mail") {
		t.Errorf("the note:\n%s", text)
	}
	if out := n.does(exitDone, "sync"); !strings.Contains(out, "nothing new") || strings.Join(n.found(1), "") != note[0] {
		t.Errorf("a second sync:\n%s", out)
	}
	n.run(0, "", "notmuch", "new", "--quiet")
	n.does(exitDone, "verify")
	if out := n.piped(exitPartly, text, "retry", "-"); !strings.Contains(out, "its stub stays") {
		t.Errorf("retried:\n%s", out)
	}
	list := filepath.Join(n.home, "list")
	n.does(exitDone, "stubs", "--maildir", list)
	if out := n.run(0, "", "ls", filepath.Join(list, "new")); len(strings.Fields(out)) != 1 {
		t.Errorf("listed: %s", out)
	}
	n.piped(exitDone, text, "drop", "-")
	n.found(0)
	n.does(exitDone, "sync")
	n.found(0)
	n.does(exitPartly, "retry", "work/INBOX/2") // it stands again
	n.found(1)
	server.With(func(boxes []*imaptest.ScriptBox) { boxes[0].Expunge(2) })
	n.does(exitDone, "sync")
	n.found(0)
	if out := n.does(exitDone, "stubs", "--all"); out != "no message failed\n" {
		t.Errorf("left:\n%s", out)
	}
}

// New mail that the server refused has a tag, by which it is found beside the stubs, and is
// retried and dropped from Mutt with the same keys, or by the same tags.
func TestRefusedNewMailIsFoundAndAnswersToTheKeys(t *testing.T) {
	t.Parallel()
	n, server := scriptedMember(t, "INBOX")
	const raw = "From: me@example.org\nSubject: new\nMessage-ID: <new@example.org>\n\nnew\n"
	n.write("mail/work/INBOX/cur/1.new:2,S", raw)
	refuse := func(answer string) {
		server.With(func(boxes []*imaptest.ScriptBox) {
			boxes[0].Refuse = func(int) string { return answer }
		})
	}
	refuse("NO [LIMIT] a virus")
	sent := func(want bool, out func() string) {
		t.Helper()
		server.Log()
		text := out()
		if got := asked(server.Log(), "APPEND", ""); got != want {
			t.Errorf("sent %v:\n%s", got, text)
		}
	}
	sent(true, func() string { return n.does(exitPartly, "sync") })
	n.found(1)
	if got := n.run(0, "", "notmuch", "search", "--output=tags", "id:new@example.org"); got != "inbox\nupload-failed\n" {
		t.Errorf("its tags: %q", got)
	}
	list := filepath.Join(n.home, "list")
	n.does(exitDone, "stubs", "--maildir", list)
	if out := n.run(0, "", "ls", filepath.Join(list, "cur")); strings.TrimSpace(out) != "1.new:2,S" {
		t.Errorf("listed: %q", out)
	}
	sent(true, func() string { return n.piped(exitPartly, raw, "retry", "-") })
	sent(false, func() string { return n.does(exitDone, "sync") })
	n.run(0, "", "notmuch", "tag", "+fetch-retry", "id:new@example.org")
	sent(true, func() string { return n.does(exitDone, "sync") })
	sent(false, func() string { return n.does(exitDone, "sync") })
	sent(true, func() string { return n.does(exitPartly, "retry", "tag:upload-failed") })
	n.run(0, "", "notmuch", "tag", "+fetch-drop", "id:new@example.org")
	n.does(exitDone, "sync")
	n.found(0)
	n.does(exitDone, "stubs", "--maildir", list)
	if out := n.run(0, "", "ls", filepath.Join(list, "cur")); out != "" {
		t.Errorf("listed: %q", out)
	}
	sent(false, func() string { return n.does(exitDone, "sync", "--full") })
	if got := n.run(0, "", "notmuch", "search", "--output=tags", "id:new@example.org"); got != "inbox\n" {
		t.Errorf("its tags: %q", got)
	}
	refuse("")
	sent(true, func() string { return n.piped(exitDone, raw, "retry", "-") })
	n.found(0)
	n.does(exitDone, "verify")
}
