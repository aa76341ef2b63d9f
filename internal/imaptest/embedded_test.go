package imaptest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"go.uber.org/goleak"
)

// seedSession signs in to a new server that holds the seed's mailbox.
func seedSession(t *testing.T, extensions ...imap.Cap) (*Server, *dialogue) {
	t.Helper()
	s, err := NewSeed(extensions...)
	if err != nil {
		t.Fatal(err)
	}
	d := signInTo(t, s)
	t.Cleanup(func() {
		_ = d.Close() // the server may have closed it
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, d
}

func signInTo(t *testing.T, s *Server) *dialogue {
	t.Helper()
	c, err := tls.Dial("tcp", net.JoinHostPort(s.Host(), strconv.Itoa(s.Port())), &tls.Config{RootCAs: s.Certificate.Pool(), ServerName: s.Host()})
	if err != nil {
		t.Fatal(err)
	}
	d := &dialogue{Conn: c, r: bufio.NewReader(c), patient: true}
	if got, end := d.say("", ""); end != answered {
		t.Fatalf("greeting: %q (%s)", got, end)
	}
	d.must(t, fmt.Sprintf("LOGIN %q %q", User, Password))
	return d
}

// must gives the answer to a command that succeeds.
func (d *dialogue) must(t *testing.T, command string) string {
	t.Helper()
	got, end := d.say("x", command)
	if end != answered || !strings.Contains(got, "x OK") {
		t.Fatalf("%s: %q (%s)", command, got, end)
	}
	return got
}

// untagged gives the untagged answer to a command.
func (d *dialogue) untagged(t *testing.T, command string) string {
	t.Helper()
	got := d.must(t, command)
	return got[:strings.LastIndex(strings.TrimSuffix(got, "\r\n"), "\n")+1]
}

func TestSeedHasTheNumbersOfThatEvening(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, err := NewSeed()
	if err != nil {
		t.Fatal(err)
	}
	d := signInTo(t, s)
	examined := d.must(t, "EXAMINE INBOX")
	for _, want := range []string{"* 1233 EXISTS\r\n", "[UIDVALIDITY 14]", "[UIDNEXT 16124]", `[PERMANENTFLAGS (\Seen \Answered \Flagged \Deleted \Draft $MDNSent)]`} {
		if !strings.Contains(examined, want) {
			t.Errorf("no %q in\n%s", want, examined)
		}
	}
	want := ""
	for i, uid := range []int{15500, 15507, 15514, 15516, 15523, 15541, 15544, 15545, 15553, 15561, 15562} {
		want += fmt.Sprintf("* %d FETCH (UID %d)\r\n", 1040+i, uid)
	}
	if got := d.untagged(t, "FETCH 1040:1050 (UID)"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	capabilities := d.must(t, "CAPABILITY")
	for _, c := range []string{"LIST-STATUS", "CONDSTORE", "UIDPLUS", "ESEARCH", "MOVE", "rev2"} {
		if strings.Contains(capabilities, c) {
			t.Errorf("the seed's Exchange had no %s: %s", c, capabilities)
		}
	}
	if n := strings.Count(d.must(t, "UID FETCH 1:* (UID RFC822.SIZE)"), " FETCH ("); n != SeedMessages-1 {
		t.Errorf("%d messages with a size, want all but one", n)
	}
	if err := errors.Join(d.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

// TestSeedMessageIsOutOfReach asks what was asked on that evening, by sequence
// number and by UID.
func TestSeedMessageIsOutOfReach(t *testing.T) {
	t.Parallel()
	_, d := seedSession(t)
	d.must(t, "EXAMINE INBOX")
	const header = "From: Microsoft Exchange Server 2010\r\nSubject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 15541\r\n\r\n"
	if len(header) != 127 {
		t.Errorf("the substitute's header has %d bytes, the seed's had 127", len(header))
	}
	for _, address := range []string{"UID FETCH 15541", "FETCH 1045"} {
		for items, want := range map[string]string{
			"(BODY.PEEK[])":         "",
			"(BODY.PEEK[HEADER])":   "",
			"(BODY.PEEK[TEXT])":     "",
			"(BODY.PEEK[]<0.1024>)": "",
			"(RFC822.SIZE)":         "",
			"(UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (DATE TO CC FROM SUBJECT)])": "",
			"(BODY)": `BODY ("TEXT" "PLAIN" ("charset" "iso-8859-1") NIL NIL "quoted-printable" 1 1)`,
			"(BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)])": "BODY[HEADER.FIELDS (FROM SUBJECT)] {127}\r\n" + header,
		} {
			got := strings.ReplaceAll(d.untagged(t, address+" "+items), `("FROM" "SUBJECT")`, "(FROM SUBJECT)")
			if want == "" && got != "" || !strings.Contains(strings.ToLower(got), strings.ToLower(want)) || strings.Count(got, "FETCH (") > 1 {
				t.Errorf("%s %s\n got %.600q\nwant %q", address, items, got, want)
			}
		}
		substitute := d.untagged(t, address+" (BODY[])")
		for _, want := range []string{"From: Microsoft Exchange Server 2010\r\n", `Subject: "Minutes of the meeting on Tuesday"`, `From: "Jane Doe"`, "Sent date: 11/1/2013 8:00:00 PM", "The server couldn't retrieve the following message:"} {
			if !strings.Contains(substitute, want) {
				t.Errorf("%s (BODY[]): no %q in %q", address, want, substitute)
			}
		}
		if strings.Count(substitute, "FETCH (") != 1 {
			t.Errorf("%s (BODY[]) is answered more than once: %q", address, substitute)
		}
	}
	// The others of a batch come, and what is asked beside the body does too.
	batch := d.untagged(t, "UID FETCH 15523:15544 (UID BODY.PEEK[])")
	if !strings.Contains(batch, "UID 15523 ") || !strings.Contains(batch, "UID 15544 ") || strings.Contains(batch, "UID 15541") {
		t.Errorf("batch: %.300q", batch)
	}
	if got := d.untagged(t, "UID FETCH 15541 (UID FLAGS)"); !strings.Contains(got, "* 1045 FETCH (UID 15541 FLAGS ())") && !strings.Contains(got, "* 1045 FETCH (FLAGS () UID 15541)") {
		t.Errorf("flags: %q", got)
	}
	if got := d.untagged(t, "UID SEARCH UID 15541"); got != "* SEARCH 15541\r\n" {
		t.Errorf("search: %q", got)
	}
}

func TestSeedHealsAndTakesMail(t *testing.T) {
	t.Parallel()
	s, d := seedSession(t)
	d.must(t, "EXAMINE INBOX")
	s.Heal(SeedBadUID)
	got := d.untagged(t, "UID FETCH 15541 (BODY.PEEK[])")
	if !strings.Contains(got, "Subject: Minutes of the meeting on Tuesday\r\n") || !strings.Contains(got, "Message-ID: <seed-15541@example.org>\r\n") {
		t.Errorf("healed: %.400q", got)
	}
	date := time.Date(2013, 11, 5, 9, 0, 0, 0, time.UTC)
	uid, err := s.Append("INBOX", []byte("Subject: new\r\n\r\nx\r\n"), date, imap.FlagFlagged)
	if err != nil || uid != SeedUIDNext {
		t.Fatalf("UID %d, %v; want %d", uid, err, SeedUIDNext)
	}
	d.must(t, "NOOP") // brings EXISTS
	got = d.untagged(t, "UID FETCH 16124 (FLAGS INTERNALDATE BODY.PEEK[])")
	for _, want := range []string{"05-Nov-2013 09:00:00 +0000", `\flagged`, "{19}\r\nSubject: new\r\n\r\nx\r\n"} {
		if !strings.Contains(strings.ReplaceAll(got, `" 5-`, `"05-`), want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if _, err := s.Append("Entwürfe/2024", []byte("Subject: draft\r\n\r\n"), date); err != nil {
		t.Fatal(err)
	}
	list := d.untagged(t, `LIST "" "*"`)
	for _, want := range []string{`"Archive"`, `"Entw&APw-rfe/2024"`} {
		if !strings.Contains(strings.ReplaceAll(list, " Archive\r", ` "Archive"`), want) {
			t.Errorf("no %s in %q", want, list)
		}
	}
}

// TestSeedMarksAsSeenAsServersDo, so that a client that asks without PEEK
// outside EXAMINE shows.
func TestSeedMarksAsSeenAsServersDo(t *testing.T) {
	t.Parallel()
	s, d := seedSession(t)
	s.Heal(SeedBadUID) // it is unseen
	const ask = "UID FETCH 15541 (FLAGS)"
	for _, tt := range []struct {
		select_, fetch string
		seen           bool
	}{
		{"EXAMINE INBOX", "BODY.PEEK[]", false},
		{"EXAMINE INBOX", "BODY[]", false},
		{"SELECT INBOX", "BODY.PEEK[]", false},
		{"SELECT INBOX", "BODY[]", true},
	} {
		d.must(t, tt.select_)
		d.must(t, "UID FETCH 15541 ("+tt.fetch+")")
		if got := d.untagged(t, ask); strings.Contains(strings.ToLower(got), `\seen`) != tt.seen {
			t.Errorf("%s, %s: %q, want seen: %v", tt.select_, tt.fetch, got, tt.seen)
		}
	}
}

// TestSeedLosesTheMessage has the broken message deleted and moved, with what
// the seed's server had and with what it lacked.
func TestSeedLosesTheMessage(t *testing.T) {
	t.Parallel()
	const ok, no, bad = "x OK", "x NO The mailbox is read-only\r\n", "x BAD Unknown command\r\n"
	converse := func(t *testing.T, d *dialogue, exchanges []exchange) {
		t.Helper()
		for _, e := range exchanges {
			if got, end := d.say("x", e.command); end != answered || !strings.HasPrefix(got, e.want) {
				t.Errorf("%s\n got %q (%s)\nwant %q", e.command, got, end, e.want)
			}
		}
	}
	t.Run("bare", func(t *testing.T) {
		t.Parallel()
		_, d := seedSession(t)
		d.must(t, "EXAMINE INBOX")
		converse(t, d, []exchange{
			{`UID STORE 15541 +FLAGS (\Deleted)`, no}, {"EXPUNGE", no}, {"CLOSE", ok}, {"SELECT INBOX", "* 1233 EXISTS\r\n"},
			{`UID STORE 15541 +FLAGS (\Deleted)`, "* 1045 FETCH (UID 15541 FLAGS (\\deleted))\r\n" + ok},
			{"UID SEARCH DELETED", "* SEARCH 15541\r\n" + ok},
			{"UID EXPUNGE 15541", bad}, {"UID MOVE 15541 Archive", bad},
			{"UID COPY 15545 Archive", "x OK COPY completed\r\n"},
			{"EXPUNGE", "* 1045 EXPUNGE\r\n" + ok},
			{"UID SEARCH UID 15541:15544", "* SEARCH 15544\r\n" + ok},
			{"UID FETCH 15523:15544 (UID)", "* 1044 FETCH (UID 15523)\r\n* 1045 FETCH (UID 15544)\r\n" + ok},
		})
	})
	t.Run("UIDPLUS", func(t *testing.T) {
		t.Parallel()
		_, d := seedSession(t, imap.CapUIDPlus, imap.CapMove)
		if got := d.must(t, "CAPABILITY"); !strings.Contains(got, " UIDPLUS MOVE") {
			t.Errorf("capabilities: %q", got)
		}
		d.must(t, "EXAMINE INBOX")
		converse(t, d, []exchange{
			{"UID EXPUNGE 15541", no}, {"UID MOVE 15541 Archive", no}, {"SELECT INBOX", "* OK [CLOSED]"},
			{`UID STORE 15500,15553 +FLAGS.SILENT (\Deleted)`, ok},
			{"UID MOVE 15541 Nowhere", "x NO [TRYCREATE]"},
			{"UID MOVE 15541,15544 Archive", "* OK [COPYUID 15 15541,15544 1:2] COPY completed\r\n* 1046 EXPUNGE\r\n* 1045 EXPUNGE\r\n" + ok},
			{"UID MOVE 15541 Archive", ok},
			{"UID EXPUNGE 15553", "* 1046 EXPUNGE\r\n" + ok},
			{"UID SEARCH DELETED", "* SEARCH 15500\r\n" + ok},
			{"SELECT Archive", "* OK [CLOSED]"},
			{"UID FETCH 1:2 (FLAGS)", "* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH (UID 2 FLAGS (\\seen))\r\n" + ok},
			{"UID FETCH 1 (BODY.PEEK[])", "x OK"}, // it is as broken there
		})
	})
}

func TestCertificatePin(t *testing.T) {
	t.Parallel()
	c, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	if pin := c.Pin(); !strings.HasPrefix(pin, "sha256:") || len(pin) != 7+64 {
		t.Errorf("pin %q", pin)
	}
	if !strings.HasPrefix(string(c.PEM), "-----BEGIN CERTIFICATE-----\n") || strings.Contains(string(c.PEM), "PRIVATE") {
		t.Errorf("%s", c.PEM)
	}
}
