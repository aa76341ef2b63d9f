package cmd

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// Several messages are asked for again, and deleted, by one sign-in to look and one to
// delete; and new mail that comes with it meets the user's hooks, as in any sync.
func TestSeveralMessagesTakeOneSignIn(t *testing.T) {
	t.Parallel()
	const failing = 5
	inbox := imaptest.Box("INBOX")
	for i := range failing {
		inbox.Add(faultMail(i+1), "")
		inbox.Mails[i].Rungs = imaptest.RungTable(imaptest.NoData(), nil)
	}
	inbox.Add(faultMail(100), "")
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS LIST-STATUS", nil, inbox)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	n.write("password", "secret\n")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\nconnections = 1\n"+
		"[[hook]]\nname = \"mark\"\nbuiltin = \"tag\"\nheader = \"Subject\"\nmatch = \"^mail\"\ntags = [\"+hooked\"]\n", server.Port(), filepath.Join(n.home, "password")))
	n.does(exitPartly, "sync")
	var targets []string
	for i := range failing {
		targets = append(targets, fmt.Sprintf("work/INBOX/%d", i+1))
	}
	signIns := func() (count int) {
		for _, line := range server.Log() {
			if strings.Contains(line, "LOGIN") || strings.Contains(line, "AUTHENTICATE") {
				count++
			}
		}
		return count
	}
	hooked := func(want string) {
		t.Helper()
		if got := n.run(0, "", "notmuch", "count", "tag:hooked"); got != want+"\n" {
			t.Errorf("%s mails met the hook, want %s", got, want)
		}
	}
	hooked("1")
	for i, c := range []struct {
		args   []string
		status int
		most   int
	}{{append([]string{"retry"}, targets...), exitPartly, 1}, {append([]string{"drop", "--remote", "--yes"}, targets...), exitDone, 2}} {
		server.With(func(boxes []*imaptest.ScriptBox) { boxes[0].Add(faultMail(101+i), "") })
		before := signIns()
		out := n.does(c.status, c.args...)
		if got := signIns() - before; got > c.most {
			t.Errorf("%s: %d sign-ins for %d messages: %s", c.args[0], got, failing, out)
		}
		if got := strings.Count(out, "work/INBOX/"); got != failing {
			t.Errorf("%s tells of %d messages: %s", c.args[0], got, out)
		}
		hooked(fmt.Sprint(2 + i))
	}
	server.With(func(boxes []*imaptest.ScriptBox) {
		if got := len(boxes[0].Mails); got != 3 {
			t.Errorf("%d mails are on the server", got)
		}
	})
}
