package cmd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// maildirDovecot starts a real server that keeps its mail in a Maildir.
func maildirDovecot(t *testing.T, hide ...string) *imaptest.DovecotServer {
	t.Helper()
	otherPrograms(t)
	s, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{Hide: hide, Maildir: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Without its index files a Dovecot begins its mod-sequences anew: what came, went and
// changed since is found all the same.
func TestDovecotLosesItsIndex(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := maildirDovecot(t, hide...)
			raws := rawsDovecot(12)
			appendAll(t, s, "INBOX", raws...)
			for range 20 {
				command(t, s, "SELECT INBOX", `UID STORE 1:3 +FLAGS (\Flagged)`, `UID STORE 1:3 -FLAGS (\Flagged)`)
			}
			w := newWorld(t, s.Addr(), s.User, s.Password)
			w.sync()
			w.sync()
			indexes, err := filepath.Glob(filepath.Join(s.MailDir(), "dovecot.index*"))
			if err != nil || len(indexes) == 0 {
				t.Fatalf("%q, %v", indexes, err)
			}
			for _, f := range indexes {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
			command(t, s, "SELECT INBOX", `UID STORE 4 +FLAGS (\Deleted)`, "EXPUNGE", `UID STORE 5 +FLAGS (\Flagged)`)
			appendAll(t, s, "INBOX", rawDovecot(20))
			if rep := w.sync(); rep.New != 1 || rep.Removed != 1 || rep.Flagged != 1 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			w.holds("INBOX", append(append([]string{}, raws[:3]...), append(raws[4:], rawDovecot(20))...))
			if got := w.notmuch("search", "--output=messages", "tag:flagged"); got != "id:d4@example.org" {
				t.Errorf("flagged is %q", got)
			}
			if rep := w.sync(); rep.New+rep.Removed+rep.Flagged != 0 || !rep.Clean() {
				t.Errorf("then: %+v", rep)
			}
		})
	}
}

// A Dovecot that was restored from a backup gives UIDs that were of other messages to
// new ones. All come, none that is here goes, and no flag reaches another mail.
func TestDovecotIsRestoredFromABackup(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := maildirDovecot(t, hide...)
			raws := rawsDovecot(10)
			appendAll(t, s, "INBOX", raws[:6]...)
			backup := filepath.Join(t.TempDir(), "backup")
			copyAll := func(from, to string) {
				t.Helper()
				if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			copyAll(s.MailDir(), backup)
			appendAll(t, s, "INBOX", raws[6:]...)
			w := newWorld(t, s.Addr(), s.User, s.Password)
			w.sync()
			w.sync()
			if err := removeAll(s.MailDir()); err != nil {
				t.Fatal(err)
			}
			copyAll(backup, s.MailDir())
			fresh := []string{rawDovecot(30), rawDovecot(31)}
			appendAll(t, s, "INBOX", fresh...)
			w.notmuch("tag", "+flagged", "--", "id:d6@example.org") // UID 7, which is another mail's now
			for range 2 {
				if rep := w.sync(); rep.Removed+rep.Pushed+rep.Uploaded+rep.Deleted != 0 || !rep.Clean() {
					t.Errorf("%+v", rep)
				}
			}
			w.holds("INBOX", append(append([]string{}, raws...), fresh...))
			out, err := s.Command("EXAMINE INBOX", "UID SEARCH FLAGGED")
			if err != nil || len(strings.Fields(searchLine(out))) != 2 {
				t.Errorf("flagged on the server: %q, %v", out, err)
			}
			if rep := w.sync(); rep.New+rep.Removed+rep.Flagged+rep.Pushed != 0 || !rep.Clean() {
				t.Errorf("then: %+v", rep)
			}
		})
	}
}

// A real server's keywords, and a mail with a Message-ID that is known, give no orders
// by way of a real notmuch; nor is a mail a stub that only says so.
func TestNobodyElseGivesOrders(t *testing.T) {
	t.Parallel()
	s, other := dovecot(t), dovecot(t)
	appendAll(t, s, "INBOX", rawDovecot(1), rawDovecot(2), rawDovecot(3))
	appendAll(t, s, "Trash", rawDovecot(9))
	command(t, s, "CREATE Spam", "CREATE Archive")
	w := newWorld(t, s.Addr(), s.User, s.Password)
	rules := func(o *pipeline.Options) {
		o.DeletedTag, o.Deletions = "zap", pipeline.DeletionsExpunge
		o.Moves = []pipeline.Move{{From: "INBOX", With: "spam", To: "Spam"}}
		o.OrderTags = []string{"zap", "spam"}
	}
	w.sync(rules)
	w.sync(rules)
	count := func(mailbox string) int {
		out, err := s.Command("EXAMINE "+mailbox, "UID SEARCH ALL")
		if err != nil {
			t.Fatal(err)
		}
		return len(strings.Fields(searchLine(out))) - 2
	}

	command(t, s, "SELECT INBOX", "UID STORE 1 +FLAGS (zap $Junk)")
	// The second account has its own ledger and folder, and the same notmuch.
	forged := strings.Replace(rawDovecot(2), "\r\n\r\n", "\r\n\r\nbuy this\r\n", 1)
	appendAll(t, other, "INBOX", forged)
	command(t, other, "SELECT INBOX", "UID STORE 1 +FLAGS (zap $Junk)")
	theirs := *w
	theirs.dir = t.TempDir()
	theirs.remote = newWorld(t, other.Addr(), other.User, other.Password).remote
	for range 2 {
		if rep := theirs.sync(rules, func(o *pipeline.Options) {
			o.Name, o.Root, o.Moves, o.DeletedTag = "home", filepath.Join(w.index.MailRoot(), "home"), nil, ""
		}); !rep.Clean() {
			t.Errorf("%+v", rep)
		}
		if rep := w.sync(rules); rep.Moved+rep.Deleted > 0 || !rep.Clean() {
			t.Errorf("%+v", rep)
		}
	}
	if got := w.notmuch("count", "tag:zap or tag:spam"); got != "0" {
		t.Errorf("%s mails have a tag that orders something", got)
	}
	// Its owner's word is about both, and so about neither; about another it holds.
	w.notmuch("tag", "+spam", "--", "id:d2@example.org", "or", "id:d3@example.org")
	if rep := w.sync(rules); rep.Moved != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	said := false
	for _, e := range w.events {
		said = said || strings.Contains(e.Text, "id:d2@example.org")
	}
	if !said || count("INBOX") != 2 || count("Spam") != 1 {
		t.Errorf("said %v, INBOX %d, Spam %d", said, count("INBOX"), count("Spam"))
	}

	key := stub.NewKey("work", "INBOX", 1, 1)
	stub := fmt.Sprintf("From: a@example.org\r\nMessage-ID: <%s>\r\n%s: v=1; key=%s\r\nSubject: forged\r\n\r\nbuy this\r\n", key.MessageID(), stub.Field, key)
	appendAll(t, s, "INBOX", stub)
	w.sync(rules)
	w.sync(rules)
	w.mv(key.MessageID(), "Archive", true)
	if rep := w.sync(rules); rep.Moved != 1 || rep.Deleted > 0 || !rep.Clean() || count("Archive") != 1 || count("Trash") != 1 {
		t.Errorf("%+v, Archive %d, Trash %d", rep, count("Archive"), count("Trash"))
	}
}
