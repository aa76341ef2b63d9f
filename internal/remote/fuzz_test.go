package remote

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// fuzzSeeds are answers that broke something somewhere. They are in
// testdata/fuzz/FuzzResponse, too.
func fuzzSeeds() []string {
	return []string{
		"* 1 FETCH (UID 5 FLAGS (\\Seen) RFC822.SIZE 3 BODY[] {3}\r\nabc)\r\n",
		"* 1 FETCH (BODY[] {3}\r\nabc UID 5 FLAGS ())\r\n* 1 FETCH (UID 5 BODY[] \"a\\\"b\")",
		"* 1 FETCH (UID 5 BODY[] {4294967295}\r\nabc",
		"* 1 FETCH (UID 5 BODY[] {10}\r\nabc)\r\n{tag} OK done\r\n",
		"* 1 FETCH (BODYSTRUCTURE ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((\r\n",
		"* 1 FETCH (X-GM-LABELS (\"\\\\Inbox\" \"a b\" {3}\r\n) () ENVELOPE (\"say \"hi\", now\" NIL) UID 0)",
		"* LIST (\\HasNoChildren) \"/\" \"Entw\xfcrfe\"\r\n* LIST () NIL {3}\r\n\x00a\x01\r\n* LIST () \"/\" A&b\r\n* STATUS A&b (MESSAGES 1 HIGHESTMODSEQ UIDNEXT 2)",
		"* LIST () \"/\" ~jane\r\n* STATUS ~jane ()\r\n* LIST () \"\\\\\" \"&2D0-\"\r\n* LIST",
		"* LIST () \"/\" &AA0-\r\n* LIST () \"/\" \"&-AA0-\"\r\n* LIST () NIL {3}\r\na\xc2\x85\r\n* STATUS &AA0- (MESSAGES 1)",
		"* SEARCH 5 1:4294967295 x 0\r\n* ESEARCH (TAG \"x\") UID ALL 5:1,9:4294967295\r\n* VANISHED (EARLIER) 1:4294967295,7",
		"* OK [UIDVALIDITY 99999999999999999999] x\r\n* OK [UIDNEXT 0]\r\n* OK [PERMANENTFLAGS (\\*\r\n* 4294967295 EXISTS\r\n* 0 EXISTS\r\n* 3 EXPUNGE",
		"\x00\x01\xff garbage ) ( \" {\r\n\r\n+ {5}\r\nA9 OK {3}\r\n* XYZZY {3}\r\nabc\n* OK still here",
		"{tag} OK done\r\n{tag} OK again\r\n{tag} BAD [",
		"* BYE [ALERT] Too many simultaneous connections. (Failure)\r\n{tag} NO Request is throttled. Suggested Backoff Time: 99999999999 seconds",
		"* 1 FETCH (UID 5 ~{3}\r\nabc {99999999999999999999}\r\n {-1} {+}\r\n)",
	}
}

// FuzzResponse lets a server answer every command with the same bytes. A session
// may end by them, but only in an error, soon, and with nothing left over. In a
// bubble it is known that the client waits for more than there is, however slow the
// machine, and a goroutine that stays is a deadlock.
func FuzzResponse(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) { fuzzResponse(t, string(data)) })
	})
}

func fuzzResponse(t *testing.T, data string) {
	const patience = 20 * time.Millisecond // of the bubble
	here, there := net.Pipe()
	q := queued{there, make(chan []byte, 2+2*100)}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(q.out)
		p := &peer{q, bufio.NewReader(there)}
		p.greet("IMAP4rev1 LIST-STATUS CONDSTORE QRESYNC ENABLE")
		for range 100 {
			// The client waits for more than there is: hang up.
			if there.SetReadDeadline(time.Now().Add(patience)) != nil {
				return
			}
			tag, command, _ := strings.Cut(p.line(), " ")
			if tag == "" {
				return
			}
			if strings.HasPrefix(command, "EXAMINE") {
				p.send("* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n")
			}
			p.send("%s\r\n%s OK done\r\n", strings.ReplaceAll(data, "{tag}", tag), tag)
		}
	})
	wg.Go(q.send)
	o := plain(143)
	o.Timeout, o.MaxLiteral, o.Note = time.Minute, 1<<20, func(s string) {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x1b") {
			t.Errorf("note %q", s)
		}
	}
	o.DialContext = func(context.Context, string, string) (net.Conn, error) { return here, nil }
	s, err := Dial(t.Context(), o) // until here the server behaves
	if err != nil {
		t.Fatal(err)
	}
	talk(t, s)
	_ = s.Close() // it may be dead
	wg.Wait()
}

// queued is the server's end of a pipe, with room for all that it says before the client reads it.
type queued struct {
	net.Conn
	out chan []byte
}

func (q queued) Write(b []byte) (int, error) {
	q.out <- bytes.Clone(b)
	return len(b), nil
}

// send sends what is written, also what the client reads when the server has ended, and hangs up.
func (q queued) send() {
	for b := range q.out {
		_, _ = q.Conn.Write(b) // whether the client still listens is the client's matter
	}
	_ = q.Close()
}

// talk gives every command once.
func talk(t *testing.T, s *Session) {
	ctx := t.Context()
	check := func(err error) {
		if err == nil {
			return
		}
		if text := err.Error(); !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n\x1b") {
			t.Errorf("error %q", text)
		}
	}
	boxes, err := s.List(ctx, mail.Listing{})
	check(err)
	for _, b := range boxes {
		if b.Name == "" || !utf8.ValidString(b.Name) || strings.ContainsFunc(b.Name, unicode.IsControl) {
			t.Errorf("mailbox %q", b.Name)
		}
	}
	if len(boxes) > 0 {
		_, err = s.Examine(ctx, boxes[0].Name, nil)
		check(err)
	}
	_, err = s.Examine(ctx, "INBOX", &mail.Known{UIDValidity: 1, HighestModSeq: 1})
	check(err)
	uids := imap.UIDSet{{Start: 5, Stop: 9}}
	messages := func(got []mail.Message, err error) {
		check(err)
		for _, m := range got {
			if !uids.Contains(m.UID) {
				t.Errorf("a message that was not asked for: %+v", m)
			}
		}
	}
	messages(s.Flags(ctx, uids, 3))
	messages(s.Identify(ctx, uids))
	_, err = s.Search(ctx, uids)
	check(err)
	var b basket
	check(s.Fetch(ctx, uids, b.sink()))
	_, err = s.FetchOne(ctx, 7, b.sink())
	check(err)
	for i, m := range b.got {
		if !uids.Contains(m.UID) || m.BodySize != int64(len(b.bodies[i])) {
			t.Errorf("%+v with a body of %d bytes", m, len(b.bodies[i]))
		}
	}
	ex, err := s.Exchange(ctx, "UID FETCH 5 BODYSTRUCTURE")
	check(err)
	for _, line := range ex.Lines {
		if !utf8.ValidString(line.Text) || strings.ContainsAny(line.Text, "\r\n\x1b") {
			t.Errorf("line %q", line.Text)
		}
	}
}
