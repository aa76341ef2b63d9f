package cmd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// steering moves the cursor, clears, begins a C1 sequence as a byte and as a rune, turns the
// direction of writing, and rings.
const steering = "odd\x1b[2J\x1b]0;t\x07\x9b1m\u009b1m\u202eback\u2066\x7f\x08\x00\ttab"

// Whatever a server or a mail says, wherever it says it: no command prints what could steer the
// terminal.
func TestNothingSteersTheTerminal(t *testing.T) {
	t.Parallel()
	inWord := strings.NewReplacer("\x00", "", "\t", "", "]", "").Replace(steering)
	header := "From: " + steering + " <a" + inWord + "@example.org>\r\nSubject: " + steering + " =?utf-8?q?=1B[2J=E2=80=AE?=\r\nDate: " + steering + "\r\n"
	inbox := imaptest.Box("INBOX")
	for i := range 3 {
		inbox.Add(header+fmt.Sprintf("Message-ID: <%d%s@example.org>\r\nContent-Type: text/%s; name=%q\r\n\r\n%s\r\n", i, inWord, inWord, inWord, steering), "kw"+inWord)
	}
	inbox.Mails[0].Rungs = imaptest.RungTable(imaptest.NoData(), map[string]imaptest.Answer{"BODY.PEEK[HEADER*": nil, "BODYSTRUCTURE": nil})
	inbox.Mails[1].Rungs = imaptest.RungTable(imaptest.Refuse("NO ["+inWord+"] "+steering), nil)
	boxes := []*imaptest.ScriptBox{inbox, imaptest.Box("raw"+inWord, faultMail(10)), imaptest.Box("utf7 &ABsAmyAu-", faultMail(11)), imaptest.Box("Trash")}
	s, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS LIST-STATUS X"+inWord, imaptest.Says(steering), boxes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	n := &member{newcomer: newNewcomer(t)}
	n.hasNotmuch()
	n.write("password", "secret\n")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = \"127.0.0.1\"\nport = %d\ntls = \"none\"\nallow_plaintext = true\nuser = \"me\"\npassword_file = %q\nkeywords = [\"*\"]\n",
		s.Port(), filepath.Join(n.home, "password")))
	printed := 0
	does := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(n.home, "bin", name), args...)
		cmd.Env = n.env
		raw, err := cmd.CombinedOutput()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			t.Fatal(err)
		}
		out := string(raw)
		printed += strings.Count(out, "odd")
		for _, r := range out {
			if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) || !utf8.ValidString(out) {
				t.Errorf("%s prints %q in %q", strings.Join(args, " "), r, out)
				break
			}
		}
		if n := strings.Count(out, "the server says: "); n > 1 {
			t.Errorf("%s prints %d times what the server says with each answer", args[0], n)
		}
		if strings.Contains(out, "the connection was lost") { // two files have one name, and each its mailbox
			t.Errorf("%s: %s", args[0], out)
		}
	}
	every := func() {
		does("status", "-v")
		does("status", "--line")
		does("stubs")
		does("stubs", "--all")
		does("check", "-v")
		does("verify", "-v")
	}
	does("sync", "-n", "-v")
	does("sync", "-v")
	every()
	does("inspect", "work/INBOX/1", "work/INBOX/2", "work/INBOX/3")
	does("inspect", "--report", "work/INBOX/1")
	does("retry", "work/INBOX/2")
	does("drop", "--remote", "work/INBOX/1")
	does("verify", "--deep")

	// It refuses whatever it is told.
	n.run(0, "", "notmuch", "tag", "+flagged", "+own", "--", "*")
	for _, folder := range []string{"INBOX", "New"} {
		for _, d := range []string{"new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(n.home, "mail", "work", folder, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		n.write(filepath.Join("mail", "work", folder, "cur", "1.own:2,S"), strings.ReplaceAll(header, "\x00", "")+"Message-ID: <own"+folder+"@example.org>\n\nown\n")
	}
	s.Break(imaptest.Says(steering, "UID STORE", "APPEND", "CREATE", "UID EXPUNGE", "UID COPY"))
	does("sync", "-n", "-v")
	does("sync", "-v")
	does("upload", "-v", "work")
	does("drop", "--remote", "--yes", "work/INBOX/1")
	does("folder", "create", "work/Other")
	every()
	for _, refused := range []string{"EXAMINE", "LIST", "STATUS", "UID FETCH", "AUTHENTICATE"} {
		s.Break(imaptest.Says(steering, refused, "LOGIN"))
		does("sync", "-v", "--full")
		does("check")
		does("verify")
	}
	every()
	if printed == 0 {
		t.Error("nothing that the server says was printed")
	}
}
