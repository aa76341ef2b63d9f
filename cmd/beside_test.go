package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// scriptedMember is somebody with an account on a scripted server that has these mailboxes,
// with a mail in each, which is here.
func scriptedMember(t *testing.T, mailboxes ...string) (*member, *imaptest.Script) {
	t.Helper()
	var boxes []*imaptest.ScriptBox
	for i, name := range mailboxes {
		b := imaptest.Box(name)
		b.Add(faultMail(100*i+1), `\Seen`)
		boxes = append(boxes, b)
	}
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS MOVE", nil, boxes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	n.write("password", "secret\n")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\n",
		server.Port(), filepath.Join(n.home, "password")))
	n.does(exitDone, "sync")
	server.Log()
	return n, server
}

// A mailbox that the server refuses to open is told once, listed, and asked again ever less;
// retry asks at once, and drop lets it be, until it is retried.
func TestAMailboxThatIsRefusedIsRememberedRetriedAndDropped(t *testing.T) {
	t.Parallel()
	n, server := scriptedMember(t, "INBOX", "Work")
	server.Break(imaptest.Refused("EXAMINE", "Work", "NO [NOPERM] not for you"))
	came(server, "Work", 500)
	round := func(status int, asks bool, args ...string) string {
		t.Helper()
		server.Log()
		out := n.does(status, args...)
		if got := asked(server.Log(), "EXAMINE", "Work"); got != asks {
			t.Errorf("%v: asked %v:\n%s", args, got, out)
		}
		return out
	}
	told := func(out string, want bool) {
		t.Helper()
		if got := strings.Contains(out, "not for you"); got != want {
			t.Errorf("told %v:\n%s", got, out)
		}
	}
	told(round(exitPartly, true, "sync"), true)
	told(round(exitDone, true, "sync"), false) // once it may be so for a moment
	told(round(exitDone, false, "sync"), false)
	told(n.does(exitPartly, "status"), true)
	told(n.does(exitDone, "stubs", "--all"), true)
	told(round(exitPartly, true, "sync", "--full"), true)
	told(round(exitPartly, true, "retry", "work/Work"), true)

	if out := n.does(exitDone, "drop", "work/Work"); !strings.Contains(out, "notmuch imap retry work/Work") {
		t.Errorf("no way back:\n%s", out)
	}
	told(round(exitDone, false, "sync", "--full"), false)
	if out := n.does(exitDone, "status"); !strings.Contains(out, "given up") || !strings.Contains(out, "not for you") {
		t.Errorf("not listed:\n%s", out)
	}
	server.Heal()
	round(exitDone, false, "sync")
	if out := round(exitDone, true, "retry", "work/Work"); !strings.Contains(out, "work/Work: done") {
		t.Errorf("retried:\n%s", out)
	}
	if got := n.run(0, "", "notmuch", "count", "*"); got != "3\n" {
		t.Errorf("%s mails", got)
	}
	if out := n.does(exitDone, "stubs", "--all"); out != "no message failed\n" {
		t.Errorf("left:\n%s", out)
	}
	if out := n.does(exitUsage, "drop", "work/Work"); !strings.Contains(out, "work/Work") {
		t.Errorf("nothing failed in it:\n%s", out)
	}
}

// A folder of which the server makes no mailbox is told once, listed, and tried again ever less.
func TestAMailboxThatTheServerDoesNotMakeIsRemembered(t *testing.T) {
	t.Parallel()
	n, server := scriptedMember(t, "INBOX")
	n.write("mail/work/New/new/.keep", "")
	n.write("mail/work/New/tmp/.keep", "")
	n.write("mail/work/New/cur/1.new:2,S", "Subject: new\nMessage-ID: <new@example.org>\n\nnew\n")
	server.Break(imaptest.Refused("CREATE", "New", "NO no more mailboxes"))
	tries := func(status int, args ...string) (out string, n2 int) {
		t.Helper()
		server.Log()
		out = n.does(status, args...)
		for _, l := range server.Log() {
			if strings.HasPrefix(l, "CREATE") {
				n2++
			}
		}
		return out, n2
	}
	for i, c := range []struct {
		status, tries int
		told          bool
	}{{exitPartly, 1, true}, {exitDone, 1, false}, {exitDone, 0, false}} {
		if out, got := tries(c.status, "sync"); got != c.tries || strings.Contains(out, "no more mailboxes") != c.told {
			t.Errorf("%d: tried %d times:\n%s", i, got, out)
		}
	}
	if out := n.does(exitPartly, "status"); !strings.Contains(strings.Join(strings.Fields(out), " "), "no more mailboxes") {
		t.Errorf("not listed:\n%s", out)
	}
	if _, got := tries(exitPartly, "retry", "work/New"); got != 1 {
		t.Errorf("retry tried %d times", got)
	}
	server.Heal()
	if out, got := tries(exitDone, "retry", "work/New"); got != 1 {
		t.Errorf("retry tried %d times:\n%s", got, out)
	}
	server.With(func(boxes []*imaptest.ScriptBox) {
		if i := slices.IndexFunc(boxes, func(b *imaptest.ScriptBox) bool { return b.Name == "New" }); i < 0 || len(boxes[i].Mails) != 1 {
			t.Errorf("it was not made: %d", i)
		}
	})
	if out := n.does(exitDone, "stubs", "--all"); out != "no message failed\n" {
		t.Errorf("left:\n%s", out)
	}
}

// New mail that the server refuses is sent at once when its owner says so, and sent no more
// when he gives it up, until he retries it; each alone, or all of a mailbox.
func TestRefusedMailIsRetriedAndDropped(t *testing.T) {
	t.Parallel()
	n, server := scriptedMember(t, "INBOX")
	for i := range 3 {
		n.write(fmt.Sprintf("mail/work/INBOX/cur/%d.new:2,S", i), fmt.Sprintf("Subject: new\nMessage-ID: <new%d@example.org>\n\nnew %d\n", i, i))
	}
	refuse := func(answer string) {
		server.With(func(boxes []*imaptest.ScriptBox) {
			if boxes[0].Refuse = nil; answer != "" {
				boxes[0].Refuse = func(int) string { return answer }
			}
		})
	}
	refuse("NO [LIMIT] a virus")
	sent := func(status, uploads int, args ...string) string {
		t.Helper()
		server.Log()
		out, got := n.does(status, args...), 0
		for _, l := range server.Log() {
			if strings.HasPrefix(l, "APPEND") {
				got++
			}
		}
		if got != uploads {
			t.Errorf("%v: %d uploads, want %d:\n%s", args, got, uploads, out)
		}
		return out
	}
	sent(exitPartly, 3, "sync")
	n.run(0, "", "notmuch", "new", "--quiet")
	sent(exitDone, 0, "sync")
	if out := sent(exitPartly, 1, "retry", "id:new0@example.org"); !strings.Contains(out, "work/INBOX: cur/0.new:2,S: ") || !strings.Contains(out, "a virus") {
		t.Errorf("retried:\n%s", out)
	}
	if out := sent(exitDone, 0, "drop", "work/INBOX: cur/1.new:2,S"); !strings.Contains(out, "notmuch imap retry 'work/INBOX: cur/1.new:2,S'") {
		t.Errorf("no way back:\n%s", out)
	}
	sent(exitDone, 2, "sync", "--full")
	refuse("")
	if out := sent(exitDone, 3, "retry", "work/INBOX"); !strings.Contains(out, "work/INBOX: done") {
		t.Errorf("retried:\n%s", out)
	}
}

// Changes that the server refuses are told once, listed, and asked for ever less; retry asks at
// once, and drop lets them be, until they are retried. Each kind of them by one mechanism.
func TestRefusedChangesAreRetriedAndDropped(t *testing.T) {
	t.Parallel()
	for verb, change := range map[string]string{"UID STORE": "cur/%s:2,FS", "UID MOVE": "../Work/cur/1.moved:2,S"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			n, server := scriptedMember(t, "INBOX", "Work")
			files, err := filepath.Glob(filepath.Join(n.home, "mail/work/INBOX/cur/*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("%q, %v", files, err)
			}
			key, _, _ := strings.Cut(filepath.Base(files[0]), ":")
			if err := os.Rename(files[0], filepath.Join(n.home, "mail/work/INBOX", strings.ReplaceAll(change, "%s", key))); err != nil {
				t.Fatal(err)
			}
			server.Break(imaptest.Refused(verb, "", "NO [NOPERM] not for you"))
			round := func(status int, asks, tells bool, args ...string) {
				t.Helper()
				server.Log()
				out := n.does(status, args...)
				if got := asked(server.Log(), verb, ""); got != asks || strings.Contains(out, "not for you") != tells {
					t.Errorf("%v: asked %v:\n%s", args, got, out)
				}
			}
			round(exitPartly, true, true, "sync")
			round(exitDone, true, false, "sync") // once it may be so for a moment
			round(exitDone, false, false, "sync")
			round(exitPartly, false, true, "status")
			round(exitDone, false, true, "stubs", "--all")
			round(exitPartly, true, true, "retry", "work/INBOX")
			round(exitDone, false, true, "drop", "work/INBOX")
			round(exitDone, false, false, "sync", "--full")
			server.Heal()
			round(exitDone, false, false, "sync")
			if out := n.does(exitDone, "retry", "work/INBOX"); !strings.Contains(out, "work/INBOX: done") {
				t.Errorf("retried:\n%s", out)
			}
			if out := n.does(exitDone, "stubs", "--all"); out != "no message failed\n" {
				t.Errorf("left:\n%s", out)
			}
			server.With(func(boxes []*imaptest.ScriptBox) {
				if left := len(boxes[0].Mails); left == 1 && verb == "UID MOVE" || left == 1 && !strings.Contains(boxes[0].Mails[0].Flags, `\Flagged`) {
					t.Errorf("it was not done: %d", left)
				}
			})
		})
	}
}
