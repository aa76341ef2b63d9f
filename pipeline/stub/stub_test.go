package stub

import (
	"bytes"
	"errors"
	"net/mail"
	"strings"
	"testing"
	"time"

	wire "github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func testOrigin() Origin {
	return Origin{Account: "work", Address: "me@example.org", Mailbox: "INBOX", UIDValidity: 14}
}

func seedFailure() Salvaged {
	return Salvaged{
		UID: 15541,
		Err: &wire.Fault{Kind: wire.KindNoData, Op: "UID FETCH", UID: 15541},
		Told: wire.Message{
			UID: 15541, Flags: []string{`\Seen`}, InternalDate: time.Date(2013, 11, 4, 9, 24, 42, 0, time.UTC), Size: 4711,
		},
		Lines: []wire.Line{
			{At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Client: true, Text: "T1 UID FETCH 15541 (BODY.PEEK[])"},
			{At: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC), Text: "T1 OK FETCH completed."},
		},
	}
}

func TestStubIsAMailThatAPersonUnderstands(t *testing.T) {
	sub, _ := ParseSubstitute([]byte(exchangeSubstitute))
	f := seedFailure()
	f.Substitute = &sub
	raw := Failed(testOrigin(), f, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Subject":    "[not fetched] Meeting on Tuesday",
		"Date":       "Mon, 04 Nov 2013 09:24:42 +0000",
		"X-Label":    "fetch-failed",
		"Message-Id": "<15541.14." + NewKey("work", "INBOX", 14, 15541).Hash + "@imap-stub.invalid>",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if from := m.Header.Get("From"); !strings.Contains(from, "Jane Doe") {
		t.Errorf("From: %q", from)
	}
	for _, want := range []string{"UID 15541", "UIDVALIDITY 14", "Outlook", "C: T1 UID FETCH 15541", "S: T1 OK", "The fault is the server's"} {
		if !strings.Contains(wire.FoldSpace(string(raw)), want) {
			t.Errorf("the stub does not say %q", want)
		}
	}
	for line := range strings.Lines(string(raw)) {
		if len([]rune(line)) > 81 && !strings.Contains(line, ": ") {
			t.Errorf("wider than 80 columns: %q", line)
		}
	}
}

func TestStubKeyIsReadBack(t *testing.T) {
	raw := Failed(testOrigin(), seedFailure(), time.Unix(0, 0))
	got, err := ReadKey(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if want := NewKey("work", "INBOX", 14, 15541); got != want {
		t.Errorf("read %v, want %v", got, want)
	}
}

// What the server reveals of the mail is hostile: it must not become a header
// of ours, or a second stub key.
func TestServerTextCannotForgeHeaders(t *testing.T) {
	f := seedFailure()
	f.Substitute = &Substitute{
		Subject: "x\r\nX-Notmuch-Imap-Stub: v=1; key=0000000000000000.1.1\r\nBcc: a@b",
		From:    "a\"\r\nX-Evil: 1 <e@\r\nX-Evil: 2>",
	}
	f.Header = []byte("Subject: \x1b[2J\nX-Notmuch-Imap-Stub: v=1; key=1111111111111111.1.1\nMessage-ID: <a\x00 b@c>\r\n\r\n")
	f.Lines = []wire.Line{{Text: "\x1b]0;title\a\r\nFrom nobody"}}
	raw := Failed(testOrigin(), f, time.Unix(0, 0))
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.Header[Field]); n != 1 {
		t.Errorf("%d stub headers", n)
	}
	for _, name := range []string{"X-Evil", "Bcc", "References"} {
		if v := m.Header.Get(name); v != "" {
			t.Errorf("%s: %q came from the server", name, v)
		}
	}
	if i := bytes.IndexFunc(raw, func(r rune) bool { return r < ' ' && r != '\n' }); i >= 0 {
		t.Errorf("control byte %q at %d", raw[i], i)
	}
}

func TestMailThatIsNoStub(t *testing.T) {
	for _, raw := range []string{
		"", "From: a@b\n\nbody", Field + ": v=2; key=0000000000000000.1.1\n\n", Field + ": v=1; key=zz.1.1\n\n",
		Field + ": v=1; key=0000000000000000.1.0\n\n", Field + ": v=1; key=0000000000000000.1.99999999999\n\n",
		Field + ": v=1\n\n", "\n" + Field + ": v=1; key=0000000000000000.1.1\n",
	} {
		if k, err := ReadKey(strings.NewReader(raw)); !errors.Is(err, ErrNotStub) {
			t.Errorf("%q gave %v, %v", raw, k, err)
		}
	}
}

func FuzzReadStub(f *testing.F) {
	f.Add(Failed(testOrigin(), seedFailure(), time.Unix(0, 0)))
	f.Add([]byte(Field + ": v=1; key=0123456789abcdef.18446744073709551615.4294967295\n\n"))
	f.Add([]byte("From a\n: x\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := ReadKey(bytes.NewReader(raw))
		if err != nil {
			if !errors.Is(err, ErrNotStub) {
				t.Errorf("%v is not ErrNotStub", err)
			}
			return
		}
		again, err := ReadKey(strings.NewReader(Field + ": v=1; key=" + k.String() + "\n\n"))
		if err != nil || again != k {
			t.Errorf("%v does not read back: %v, %v", k, again, err)
		}
	})
}
