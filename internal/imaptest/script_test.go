package imaptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// How an answer may end.
const (
	answered = "answered" // with the command's own tagged line
	closed   = "closed"
	reset    = "reset"
	silent   = "silent"
	endless  = "endless" // more than a megabyte
)

// silence is what is taken for one where a fault ends with it. Elsewhere a slow
// machine has all the time it wants.
const silence = time.Second

// dialogue speaks with a server by hand.
type dialogue struct {
	net.Conn
	r       *bufio.Reader
	patient bool
}

func speak(t *testing.T, addr string, patient bool) *dialogue {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the server may have closed it
	return &dialogue{Conn: c, r: bufio.NewReader(c), patient: patient}
}

func (d *dialogue) send(format string, args ...any) {
	_, _ = fmt.Fprintf(d, format, args...) // the answer tells
}

// say sends a command, if any, and gives every byte up to the end of the
// answer, and what the end was. Without a command it reads one line.
func (d *dialogue) say(tag, command string) (answer, end string) {
	if command != "" {
		d.send("%s %s\r\n", tag, command)
	}
	var b strings.Builder
	for {
		wait := silence
		if d.patient {
			wait = 5 * time.Minute
		}
		_ = d.SetReadDeadline(time.Now().Add(wait)) // else the test ends at its own timeout
		line, err := d.r.ReadSlice('\n')
		b.Write(line)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return b.String(), silent
		case errors.Is(err, syscall.ECONNRESET):
			return b.String(), reset
		case b.Len() > 1<<20:
			return b.String(), endless
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return b.String(), closed
		case err == nil && (command == "" || strings.HasPrefix(string(line), tag+" ")):
			return b.String(), answered
		}
	}
}

func scriptMail(n int) string {
	return fmt.Sprintf("From: a@example.org\r\nSubject: mail %d\r\nMessage-ID: <%d@example.org>\r\n\r\nbody of %d\r\n", n, n, n)
}

func scriptBoxes() []*ScriptBox {
	inbox := Box("INBOX")
	for i := range 32 {
		inbox.Add(scriptMail(i+1), "")
	}
	return []*ScriptBox{inbox, Box("Other", scriptMail(1001), scriptMail(1002))}
}

func startScript(t *testing.T, caps string, fault *Fault, boxes ...*ScriptBox) *Script {
	t.Helper()
	s, err := NewScript(caps, fault, boxes...)
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

// TestScriptDialogue speaks with a server that breaks no rule.
func TestScriptDialogue(t *testing.T) {
	t.Parallel()
	b := Box("INBOX", scriptMail(1), scriptMail(2), scriptMail(3))
	b.Mails[1].Flags = `\Seen todo`
	b.Expunge(1)
	caps := "IMAP4rev1 LIST-STATUS ESEARCH ENABLE CONDSTORE QRESYNC"
	s := startScript(t, caps, nil, b, Box("Archive/2024"))
	d := speak(t, s.Addr(), true)
	raw := scriptMail(3)
	head := "From: a@example.org\r\nSubject: mail 3\r\nMessage-ID: <3@example.org>\r\n\r\n"
	tests := []struct{ command, want string }{
		{"", "* OK [CAPABILITY " + caps + " AUTH=PLAIN] ready\r\n"},
		{"CAPABILITY", "* CAPABILITY " + caps + "\r\nx OK done\r\n"},
		{"LOGIN {4+}\r\nuser {4+}\r\npass", "x OK [CAPABILITY " + caps + "] signed in\r\n"},
		{`LIST "" "*"`, "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n* LIST (\\HasNoChildren) \"/\" \"Archive/2024\"\r\nx OK done\r\n"},
		{`LIST "" "*" RETURN (STATUS (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ))`,
			"* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n* STATUS \"INBOX\" (MESSAGES 2 UIDNEXT 4 UIDVALIDITY 14 HIGHESTMODSEQ 5)\r\n" +
				"* LIST (\\HasNoChildren) \"/\" \"Archive/2024\"\r\n* STATUS \"Archive/2024\" (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 14 HIGHESTMODSEQ 1)\r\nx OK done\r\n"},
		{`STATUS "INBOX" (MESSAGES)`, "* STATUS \"INBOX\" (MESSAGES 2 UIDNEXT 4 UIDVALIDITY 14 HIGHESTMODSEQ 5)\r\nx OK done\r\n"},
		{`STATUS "nowhere" (MESSAGES)`, "x NO no such mailbox\r\n"},
		{"ENABLE QRESYNC", "x OK done\r\n"},
		{`EXAMINE "INBOX" (QRESYNC (14 3))`, "* 2 EXISTS\r\n* 0 RECENT\r\n* OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft $MDNSent)] flags\r\n" +
			"* OK [UIDNEXT 4] next\r\n* OK [UIDVALIDITY 14] ids\r\n* OK [HIGHESTMODSEQ 5] highest\r\n* VANISHED (EARLIER) 1\r\n" +
			"* 2 FETCH (UID 3 FLAGS () MODSEQ (4))\r\nx OK [READ-ONLY] examined\r\n"},
		{"UID SEARCH RETURN (ALL) UID 1:*", "* ESEARCH (TAG \"x\") UID ALL 2,3\r\nx OK done\r\n"},
		{"UID SEARCH UID 1:2", "* SEARCH 2\r\nx OK done\r\n"},
		{"UID FETCH 1:* (UID FLAGS) (CHANGEDSINCE 3)", "* 2 FETCH (UID 3 FLAGS ())\r\nx OK done\r\n"},
		{"UID FETCH 2:3 (UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ)",
			"* 1 FETCH (UID 2 FLAGS (\\Seen todo) INTERNALDATE \" 1-Jan-2020 00:00:02 +0000\" RFC822.SIZE 80 MODSEQ (3))\r\n" +
				"* 2 FETCH (UID 3 FLAGS () INTERNALDATE \" 1-Jan-2020 00:00:03 +0000\" RFC822.SIZE 80 MODSEQ (4))\r\nx OK done\r\n"},
		{"UID FETCH * (UID BODY.PEEK[])", fmt.Sprintf("* 2 FETCH (UID 3 BODY[] {%d}\r\n%s)\r\nx OK done\r\n", len(raw), raw)},
		{"UID FETCH 3 (BODY.PEEK[HEADER])", fmt.Sprintf("* 2 FETCH (UID 3 BODY[HEADER] {%d}\r\n%s)\r\nx OK done\r\n", len(head), head)},
		{"UID FETCH 3 (BODY.PEEK[TEXT])", "* 2 FETCH (UID 3 BODY[TEXT] {11}\r\nbody of 3\r\n)\r\nx OK done\r\n"},
		{"UID FETCH 3 (BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)])",
			"* 2 FETCH (UID 3 BODY[HEADER.FIELDS (FROM SUBJECT)] {40}\r\nFrom: a@example.org\r\nSubject: mail 3\r\n\r\n)\r\nx OK done\r\n"},
		{"UID FETCH 3 (BODY.PEEK[]<6.3>)", "* 2 FETCH (UID 3 BODY[]<6> {3}\r\na@e)\r\nx OK done\r\n"},
		{"UID FETCH 3 (BODY.PEEK[]<9999.3>)", "* 2 FETCH (UID 3 BODY[]<9999> {0}\r\n)\r\nx OK done\r\n"},
		{"UID FETCH 1 (UID FLAGS)", "x OK done\r\n"},
		{"FROB", "x BAD unknown command\r\n"},
		{"LOGOUT", "* BYE see you\r\nx OK done\r\n"},
	}
	for _, tt := range tests {
		if got, end := d.say("x", tt.command); got != tt.want || end != answered {
			t.Errorf("%s\n got %q (%s)\nwant %q", tt.command, got, end, tt.want)
		}
	}
	log := s.Log()
	if len(log) != len(tests)-1 || log[0] != "CAPABILITY" || log[1] != "LOGIN" || log[7] != `EXAMINE "INBOX" (QRESYNC (14 3))` {
		t.Errorf("log %q", log)
	}
	if again := s.Log(); len(again) != 0 {
		t.Errorf("the log is told twice: %q", again)
	}
}

func TestScriptTakesPlainSignIn(t *testing.T) {
	t.Parallel()
	s := startScript(t, "IMAP4rev1 SASL-IR", nil, Box("INBOX"))
	for _, command := range []string{"AUTHENTICATE PLAIN AHVzZXIAcGFzcw==", "AUTHENTICATE PLAIN\r\nAHVzZXIAcGFzcw=="} {
		d := speak(t, s.Addr(), true)
		d.say("", "")
		if got, _ := d.say("x", command); !strings.HasSuffix(got, "x OK [CAPABILITY IMAP4rev1 SASL-IR] signed in\r\n") {
			t.Errorf("%q: %q", command, got)
		}
		_ = d.Close() // the next one is another
	}
	if log := s.Log(); !slices.Equal(log, []string{"AUTHENTICATE", "AUTHENTICATE"}) {
		t.Errorf("log %q, want no secret in it", log)
	}
}

// TestScriptCloseWaitsForNobody closes servers whose clients are still there:
// idle, waiting for a server that is silent, and not reading what it sends.
func TestScriptCloseWaitsForNobody(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, name := range []string{"", "silence before any byte", "a line of 200 MB"} {
		var fault *Fault
		for _, f := range Faults() {
			if f.Name == name {
				fault = &f
			}
		}
		s, err := NewScript("IMAP4rev1", fault, scriptBoxes()...)
		if err != nil {
			t.Fatal(err)
		}
		d := speak(t, s.Addr(), true)
		d.say("", "")
		d.say("x", `EXAMINE "INBOX"`)
		d.send("x UID FETCH %d (BODY.PEEK[])\r\n", BadUID)
		if name != "silence before any byte" {
			if _, err := d.r.ReadByte(); err != nil { // the answer has begun
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- s.Close() }()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%q: %v", name, err)
			}
		case <-time.After(5 * time.Minute):
			t.Fatalf("%q: Close hangs", name)
		}
		_ = d.Close() // it is dead
	}
}

// TestASilenceIsOverAtOnceForWhoDials: all that came before it is read, and a server that hangs up is not
// taken for one that is silent.
func TestASilenceIsOverAtOnceForWhoDials(t *testing.T) {
	t.Parallel()
	for want, f := range map[error]*Fault{
		os.ErrDeadlineExceeded: SilentAbout("INBOX", "EXAMINE"),
		io.EOF:                 {Name: "hangs up", Command: func(_ *scriptConn, command, _ string) (bool, error) { return command == "EXAMINE", errHangUp }},
	} {
		s, err := NewScript("IMAP4rev1", f, Box("INBOX"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := s.Dial(t.Context(), "tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "a EXAMINE \"INBOX\"\r\n"); err != nil {
			t.Fatal(err)
		}
		all, err := io.ReadAll(conn)
		if errors.Is(want, io.EOF) {
			want = nil // which ReadAll does not tell
		}
		if !errors.Is(err, want) || !strings.HasPrefix(string(all), "* OK [CAPABILITY") {
			t.Errorf("%q, %v; want %v", all, err, want)
		}
		if err := errors.Join(conn.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}
