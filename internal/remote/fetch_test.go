package remote

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

const testBody = "Subject: x\r\n\r\n) A1 OK\r\n* BYE {7}\r\n"

// lit is testBody as a literal.
func lit() string { return fmt.Sprintf("{%d}\r\n%s", len(testBody), testBody) }

// TestFetchForms fetches UID 5 from servers that tell it in odd ways.
func TestFetchForms(t *testing.T) {
	t.Parallel()
	date := time.Date(2020, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	bare := mail.Message{UID: 5, Seq: 1, Flags: []string{}}
	with := func(change func(*mail.Message)) *mail.Message {
		m := bare
		change(&m)
		return &m
	}
	seen := with(func(m *mail.Message) { m.Flags = []string{`\Seen`} })
	for _, c := range []struct {
		name, answer string
		want         *mail.Message // but for BodySize; nil: no body
	}{
		{"as it should be", `* 1 FETCH (UID 5 FLAGS (\Seen todo) INTERNALDATE " 2-Jan-2020 03:04:05 +0100" RFC822.SIZE 33 MODSEQ (7) BODY[] {lit})`,
			&mail.Message{UID: 5, Seq: 1, Flags: []string{`\Seen`, "todo"}, InternalDate: date, Size: 33, ModSeq: 7}},
		{"UID behind the literal", `* 1 FETCH (BODY[] {lit} FLAGS (\Seen) UID 5)`, seen},
		{"lower case", `* 1 fetch (uid 5 flags (\Seen) body[] {lit})`, seen},
		{"no space before the list", `* 1 FETCH(UID 5 FLAGS(\Seen)BODY[] {lit})`, seen},
		{"spaces", `* 1 FETCH ( UID  5  FLAGS ( \Seen )  BODY[]  {lit} ) `, seen},
		{"labels", `* 1 FETCH (X-GM-MSGID 1278455344230334865 X-GM-LABELS ("\\Inbox" "a b" \\Sent) UID 5 FLAGS (\Seen) BODY[] {lit})`, with(func(m *mail.Message) { m.Flags, m.GmailID = []string{`\Seen`}, 1278455344230334865 })},
		{"quotes that are not escaped", `* 1 FETCH (ENVELOPE ("say "hi", now" NIL) UID 5 FLAGS (\Seen) BODY[] {lit})`, seen},
		{"brackets in quotes", `* 1 FETCH (ENVELOPE ("a) (b" NIL) UID 5 FLAGS (\Seen) BODY[] {lit})`, seen},
		{"literal in a list", "* 1 FETCH (ENVELOPE ({5}\r\na) (b NIL) UID 5 FLAGS (\\Seen) BODY[] {lit})", seen},
		{"literal of an unknown item", "* 1 FETCH (X-NOTE {8}\r\n) {3}\r\nx UID 5 FLAGS (\\Seen) BODY[] {lit})", seen},
		{"atom with a tilde", `* 1 FETCH (X-HOME ~jane UID 5 FLAGS (\Seen) BODY[] {lit})`, seen},
		{"literal8", `* 1 FETCH (UID 5 FLAGS (\Seen) BODY[] ~{lit})`, seen},
		{"section with spaces", "* 1 FETCH (BODY[HEADER.FIELDS (FROM TO)] \"From: x\" UID 5 FLAGS (\\Seen) BODY[] {lit})", seen},
		{"NIL of an unknown item", `* 1 FETCH (PREVIEW NIL UID 5 FLAGS (\Seen) BODY[] {lit})`, seen},
		{"nonsense as date and size", `* 1 FETCH (UID 5 FLAGS () INTERNALDATE "yesterday" RFC822.SIZE -1 BODY[] {lit})`, &bare},
		{"size beyond 64 bits", `* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 99999999999999999999 BODY[] {lit})`, &bare},
		{"date and size NIL", `* 1 FETCH (UID 5 FLAGS () INTERNALDATE NIL RFC822.SIZE NIL BODY[] {lit})`, &bare},
		{"large size", `* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 5000000000 BODY[] {lit})`, with(func(m *mail.Message) { m.Size = 5_000_000_000 })},
		{"MODSEQ without brackets is none", `* 1 FETCH (UID 5 FLAGS () MODSEQ (x) BODY[] {lit})`, &bare},
		{"odd flags", `* 1 FETCH (UID 5 FLAGS (a]b \Recent $Junk NonJunk) BODY[] {lit})`, with(func(m *mail.Message) { m.Flags = []string{"a]b", "$Junk", "NonJunk"} })},
		{"flags first", "* 1 FETCH (UID 5 FLAGS (\\Seen))\r\n* 1 FETCH (UID 5 BODY[] {lit})", seen},
		{"flags last", "* 1 FETCH (UID 5 BODY[] {lit})\r\n* 1 FETCH (UID 5 FLAGS (\\Seen))", seen},
		{"flags never", "* 1 FETCH (UID 5 BODY[] {lit})", with(func(m *mail.Message) { m.Flags = nil })},
		{"twice", "* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[] {lit})\r\n* 1 FETCH (UID 5 FLAGS () BODY[] {lit})", seen},
		{"a broken line before", "* 1 FETCH (ENVELOPE (NIL NIL ((((\r\n* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[] {lit})", seen},
		{"a broken line behind", "* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[] {lit})\r\n* 1 FETCH (UID x FLAGS ()", seen},
		{"another message before", "* 2 FETCH (UID 6 FLAGS () BODY[] {lit})\r\n* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[] {lit})", seen},
		{"garbage before", "\x00\x01\xff garbage ) ( \" {\r\n\r\n+ go on\r\nA9 OK x\r\n* VANISHED 1:5\r\n* OK [XYZZY a]b\"c] plugh\r\n* XYZZY (a b) {3}\r\nabc\r\n* 1 FETCH (UID 5 FLAGS (\\Seen) BODY[] {lit})", seen},
		{"no body", "* 1 FETCH (UID 5 FLAGS ())", nil},
		{"NIL", "* 1 FETCH (UID 5 FLAGS () BODY[] NIL)", nil},
		{"empty string", `* 1 FETCH (UID 5 FLAGS () BODY[] "")`, nil},
		{"empty literal", "* 1 FETCH (UID 5 FLAGS () BODY[] {0}\r\n)", nil},
		{"no UID", "* 1 FETCH (FLAGS () BODY[] {lit})", nil},
		{"UID 0", "* 1 FETCH (UID 0 FLAGS () BODY[] {lit})", nil},
		{"UID of another", "* 1 FETCH (UID 995 FLAGS () BODY[] {lit})", nil},
		{"UID beyond 32 bits", "* 1 FETCH (UID 4294967301 FLAGS () BODY[] {lit})", nil},
		{"literal with a negative size", "* 1 FETCH (UID 5 FLAGS () BODY[] {-5})", nil},
		{"nothing", "* OK hello", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := examined(t, "IMAP4rev1", [2]string{"UID FETCH", strings.ReplaceAll(c.answer, "{lit}", lit()) + "\r\n"}, [2]string{"NOOP", ""})
			var b basket
			if err := s.Fetch(t.Context(), imap.UIDSet{{Start: 5, Stop: 5}}, b.sink()); err != nil {
				t.Fatalf("Fetch: %v", err)
			}
			if c.want == nil {
				if len(b.got) != 0 {
					t.Fatalf("a message came: %+v", b.got)
				}
				return
			}
			if len(b.got) != 1 || b.bodies[0] != testBody {
				t.Fatalf("%d messages came, bodies %q", len(b.got), b.bodies)
			}
			got, want := b.got[0], *c.want
			want.BodySize = int64(len(testBody))
			if !got.InternalDate.Equal(want.InternalDate) {
				t.Errorf("date %v, want %v", got.InternalDate, want.InternalDate)
			}
			got.InternalDate, want.InternalDate = time.Time{}, time.Time{}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if !s.Alive() {
				t.Error("the session is dead")
			}
		})
	}
}

// TestFetchQuotedBody takes a body that is a quoted string.
func TestFetchQuotedBody(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"UID FETCH", `* 1 FETCH (UID 5 FLAGS () BODY[] "Subject: \"short\"")` + "\r\n"})
	var b basket
	if err := s.Fetch(t.Context(), imap.UIDSet{{Start: 5, Stop: 5}}, b.sink()); err != nil {
		t.Fatal(err)
	}
	if len(b.bodies) != 1 || b.bodies[0] != `Subject: "short"` || b.got[0].BodySize != 16 {
		t.Errorf("%q, %+v", b.bodies, b.got)
	}
}

// TestFetchFails shows what of a batch arrives, and in which kind of fault it
// ends.
func TestFetchFails(t *testing.T) {
	t.Parallel()
	whole := "* 1 FETCH (UID 5 FLAGS () BODY[] " + lit() + ")\r\n"
	for _, c := range []struct {
		name, answer string
		want         mail.Kind
		alive        bool
	}{
		{"NO", whole + "{tag} NO [UNAVAILABLE] Server error while fetching messages\r\n", mail.KindNo, true},
		{"BAD", whole + "{tag} BAD Command Argument Error. 11\r\n", mail.KindBad, true},
		{"throttled", whole + "{tag} BAD Request is throttled. Suggested Backoff Time: 5 seconds\r\n", mail.KindThrottled, true},
		{"end within a literal", whole + "* 2 FETCH (UID 6 BODY[] {100}\r\nabc{hangup}", mail.KindCut, false},
		{"end within a line", whole + "* 2 FETCH (UID{hangup}", mail.KindCut, false},
		{"BYE", whole + "* BYE Session expired\r\n{hangup}", mail.KindBye, false},
		{"literal beyond the bound", whole + "* 2 FETCH (UID 6 BODY[] {4294967295}\r\nabc", mail.KindTooLarge, false},
		{"a line beyond the bound", whole + "* 2 FETCH (UID 6 X \"" + strings.Repeat("x", maxData+10) + "\")\r\n", mail.KindTooLarge, false},
		{"unreadable bytes beyond the bound", whole + strings.Repeat("* 2 FETCH (UID x "+strings.Repeat("y", 1<<20)+"\r\n", 2+maxJunk>>20), mail.KindTooLarge, false},
		{"lists in memory beyond the bound", whole + "* 2 FETCH (ENVELOPE (" + strings.Repeat("{65536}\r\n"+strings.Repeat("z", 1<<16), 2+maxData>>16) + "))\r\n", mail.KindTooLarge, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, func(p *peer) {
				p.greet("IMAP4rev1")
				for {
					tag, command := p.command()
					if tag == "" {
						return
					}
					if strings.HasPrefix(command, "EXAMINE") {
						p.send("* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n%s OK x\r\n", tag)
						continue
					}
					answer, hangUp := strings.CutSuffix(strings.ReplaceAll(c.answer, "{tag}", tag), "{hangup}")
					p.send("%s", answer)
					if hangUp {
						return
					}
				}
			}))
			o.MaxLiteral = 1 << 20
			s := dialed(t, o)
			if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
				t.Fatal(err)
			}
			var b basket
			err := s.Fetch(t.Context(), imap.UIDSet{{Start: 5, Stop: 6}}, b.sink())
			f := wantFault(t, err, c.want)
			if f.Op != "UID FETCH" || f.Mailbox != "INBOX" {
				t.Errorf("fault in %q of %q", f.Op, f.Mailbox)
			}
			if len(b.bodies) != 1 || b.bodies[0] != testBody {
				t.Errorf("bodies %q; the whole one is delivered", b.bodies)
			}
			if s.Alive() != c.alive {
				t.Errorf("alive %v, want %v", s.Alive(), c.alive)
			}
		})
	}
}

// TestFetchSinkFails gives the sink's own errors back.
func TestFetchSinkFails(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	for name, sink := range map[string]mail.Sink{
		"open": {Open: func(int64) (mail.Spool, error) { return nil, full }},
		"done": {Open: func(int64) (mail.Spool, error) { return &memory{b: &basket{}}, nil }, Done: func(mail.Message, mail.Spool) error { return full }},
	} {
		s := examined(t, "IMAP4rev1", [2]string{"UID FETCH", "* 1 FETCH (UID 5 FLAGS () BODY[] " + lit() + ")\r\n"})
		if err := s.Fetch(t.Context(), imap.UIDSet{{Start: 5, Stop: 5}}, sink); !errors.Is(err, full) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFetchOne takes a body without a UID for the only message that was asked
// for, and keeps the transcript.
func TestFetchOne(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"UID FETCH 5", "* 1 FETCH (FLAGS () BODY[] " + lit() + ")\r\n"},
		[2]string{"UID FETCH 6", "* 1 FETCH (UID 0 FLAGS () BODY[] " + lit() + ")\r\n"},
		[2]string{"UID FETCH 7", "{tag} NO [UNAVAILABLE] not now\r\n"}, [2]string{"UID FETCH 8", ""})
	var b basket
	ex, err := s.FetchOne(t.Context(), 5, b.sink())
	if err != nil || len(b.got) != 1 || b.got[0].UID != 5 || ex.Status != "OK" || len(ex.Fetched) != 1 {
		t.Fatalf("%v: %+v, %+v", err, b.got, ex)
	}
	var lines []string
	for _, l := range ex.Lines {
		lines = append(lines, fmt.Sprint(l.Client, " ", l.Text))
	}
	if all := strings.Join(lines, "\n"); !strings.Contains(all, "UID FETCH 5 (UID FLAGS") || !strings.Contains(all, "false ) A1 OK") || !strings.Contains(all, "OK done") {
		t.Errorf("the transcript is\n%s", all)
	} else if strings.Contains(all, `\x0d`) {
		t.Errorf("line ends are shown:\n%s", all)
	}
	ex, err = s.FetchOne(t.Context(), 6, b.sink())
	if f := wantFault(t, err, mail.KindNoData); f.UID != 6 || f.Mailbox != "INBOX" || ex.Status != "OK" {
		t.Errorf("%+v, %+v", f, ex)
	}
	ex, err = s.FetchOne(t.Context(), 7, b.sink())
	if f := wantFault(t, err, mail.KindNo); f.UID != 7 || f.Code != "UNAVAILABLE" || f.Text != "not now" || ex.Code != "UNAVAILABLE" {
		t.Errorf("%+v, %+v", f, ex)
	}
	ex, err = s.FetchOne(t.Context(), 8, b.sink())
	if f := wantFault(t, err, mail.KindCut); f.UID != 8 || ex.Status != "" || len(ex.Lines) == 0 {
		t.Errorf("%+v, %+v", f, ex)
	}
	if len(b.got) != 1 {
		t.Errorf("%d messages came", len(b.got))
	}
}

// Of a message whose beginning is here the rest comes, and nothing that is something else.
func TestFetchRest(t *testing.T) {
	t.Parallel()
	const about = "* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 9 "
	for body, want := range map[string]string{
		"BODY[]<4> {5}\r\n56789)\r\n": "56789",
		"BODY[]<4> \"56789\")\r\n":    "56789",
		"BODY[]<4> \"\")\r\n":         "", // it has no more
		"BODY[]<0> {5}\r\n12345)\r\n": "",
		"BODY[] {5}\r\n12345)\r\n":    "",
		"BODY[]<4> NIL)\r\n":          "",
	} {
		s := examined(t, "IMAP4rev1", [2]string{"UID FETCH 5 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[]<4.2147483647>)", about + body})
		var b basket
		err := s.FetchRest(t.Context(), 5, 4, b.sink())
		if err != nil || strings.Join(b.bodies, "|") != want || want != "" && b.got[0].Size != 9 {
			t.Errorf("%q: %v, %q, %+v", body, err, b.bodies, b.got)
		}
	}
	s := examined(t, "IMAP4rev1", [2]string{"UID FETCH 5", "{tag} NO not that\r\n"})
	var b basket
	wantFault(t, s.FetchRest(t.Context(), 5, 4, b.sink()), mail.KindNo)
}

func TestFlagsAndIdentify(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1 CONDSTORE",
		[2]string{"UID FETCH 5:7 (UID FLAGS) (CHANGEDSINCE 9)", "* 2 FETCH (UID 6 FLAGS (\\Recent) MODSEQ (12))\r\n* 9 FETCH (UID 60 FLAGS ())\r\n"},
		[2]string{"UID FETCH 5:7 (UID FLAGS)", "* 1 FETCH (UID 5 FLAGS ())\r\n* 1 FETCH (FLAGS (\\Deleted))\r\n* 2 FETCH (UID 6 FLAGS (a))\r\n* 2 FETCH (UID 6 FLAGS (b))\r\n* 3 FETCH (UID 7 FLAGS (((\r\n"},
		[2]string{"UID FETCH 5:7 (UID FLAGS INTERNALDATE", "* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 10 BODY[HEADER.FIELDS (MESSAGE-ID)] {31}\r\nMessage-Id:\r\n <a@example.org>\r\n)\r\n" +
			"* 2 FETCH (UID 6 FLAGS () BODY[HEADER.FIELDS (\"MESSAGE-ID\")] \"\")\r\n* 3 FETCH (BODY[HEADER.FIELDS (MESSAGE-ID)] \"Message-ID: bare@x \" UID 7 FLAGS ())\r\n"})
	uids := imap.UIDSet{{Start: 5, Stop: 7}}
	got, err := s.Flags(t.Context(), uids, 9)
	if want := []mail.Message{{UID: 6, Seq: 2, Flags: []string{}, ModSeq: 12}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("changed: %v: %+v", err, got)
	}
	got, err = s.Flags(t.Context(), uids, 0)
	if want := []mail.Message{{UID: 5, Seq: 1, Flags: []string{}}, {UID: 6, Seq: 2, Flags: []string{"b"}}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("all: %v: %+v", err, got)
	}
	got, err = s.Identify(t.Context(), uids)
	if err != nil || len(got) != 3 || got[0].MessageID != "a@example.org" || got[0].Size != 10 || got[1].MessageID != "" || got[2].MessageID != "bare@x" {
		t.Errorf("identify: %v: %+v", err, got)
	}
}

// TestExchange gives an answer that is not OK as it is.
func TestExchange(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"UID FETCH 5 BODY", "* NO [ALERT] quota\r\n* 1 FETCH (UID 5 BODY[]<0> \"abc\" BODYSTRUCTURE (\"text\" (NIL)))\r\n{tag} NO [x y] sorry\x1b[2J\r\n"})
	ex, err := s.Exchange(t.Context(), "UID FETCH 5 BODY.PEEK[]<0.100>")
	if err != nil || ex.Status != "NO" || ex.Code != "X Y" || ex.Text != `sorry\x1b[2J` {
		t.Fatalf("%v: %+v", err, ex)
	}
	if !reflect.DeepEqual(ex.Untagged, []string{"NO [ALERT] quota"}) || len(ex.Fetched) != 1 ||
		string(ex.Fetched[0].Items["BODY[]<0>"].Text) != "abc" || string(ex.Fetched[0].Items["BODYSTRUCTURE"].Text) != `("text" (NIL))` {
		t.Errorf("%+v", ex)
	}
	if _, err := s.Exchange(t.Context(), "NOOP\r\na DELETE INBOX"); err == nil {
		t.Error("two commands in one are sent")
	}
}

// BenchmarkFetch fetches 5,000 small messages in one batch.
func BenchmarkFetch(b *testing.B) {
	const n = 5000
	body := "Subject: x\r\n\r\n" + strings.Repeat("All work and no play makes Jack a dull boy.\r\n", 100)
	var answer strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&answer, "* %d FETCH (UID %d FLAGS (\\Seen) INTERNALDATE \" 2-Jan-2020 03:04:05 +0100\" RFC822.SIZE %d BODY[] {%d}\r\n%s)\r\n", i, i, len(body), len(body), body)
	}
	raw := []byte(answer.String())
	s := dialed(b, plain(serve(b, func(p *peer) {
		p.greet("IMAP4rev1")
		for {
			tag, command := p.command()
			if tag == "" {
				return
			}
			if strings.HasPrefix(command, "UID FETCH") {
				_, _ = p.Write(raw) // the client tells
			} else {
				p.send("* 5000 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n")
			}
			p.send("%s OK done\r\n", tag)
		}
	})))
	if _, err := s.Examine(b.Context(), "INBOX", nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(answer.Len()))
	b.ReportAllocs()
	for b.Loop() {
		got := 0
		sink := mail.Sink{
			Open: func(int64) (mail.Spool, error) { return nowhere{}, nil },
			Done: func(mail.Message, mail.Spool) error { got++; return nil },
		}
		if err := s.Fetch(b.Context(), imap.UIDSet{{Start: 1, Stop: n}}, sink); err != nil || got != n {
			b.Fatalf("%d messages, %v", got, err)
		}
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Discard()                    {}
