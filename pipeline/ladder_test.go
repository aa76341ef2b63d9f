package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	wire "github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// exchangeSubstitute is what Exchange makes up in the place of a mail (OfflineIMAP#62).
const exchangeSubstitute = "From: Microsoft Exchange Server 2010\r\n" +
	"To: user@example.org\r\n" +
	"Subject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 20004\r\n" +
	"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" +
	"The server couldn't retrieve the following message:\r\n\r\n" +
	"Subject: \"Meeting on Tuesday\"\r\nFrom: \"Jane Doe\" (jane@example.org)\r\nSent date: 11/4/2013 10:24:42 AM\r\n\r\n" +
	"The message hasn't been deleted. You might be able to view it using either Outlook or Outlook Web App. " +
	"You can also contact the sender to find out what the message says.\r\n"

func TestSalvagedMailIsTheRealMail(t *testing.T) {
	raw := rawMail(0)
	cut := strings.Index(raw, "\r\n\r\n") + 4
	for name, items := range map[string]map[string]string{
		"HEADER and TEXT": {"BODY.PEEK[HEADER]": raw[:cut], "BODY.PEEK[TEXT]": raw[cut:]},
		"pieces":          {fmt.Sprintf("BODY.PEEK[]<0.%d>", probe.PieceSize): raw},
		"BODY[]":          {"BODY[]": raw},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := newServer(), newHome(t)
			u := s.box("INBOX").add(raw)
			s.box("INBOX").msgs[u].fault = &serverFault{items: items}
			rep := h.sync(s)
			if rep.Salvaged != 1 || rep.NewStubs != 0 {
				t.Errorf("%+v", rep)
			}
			if tags := h.tags("m0@example.org"); !slices.Contains(tags, TagSalvaged) {
				t.Errorf("tags %v", tags)
			}
			for _, got := range h.files("INBOX") {
				if got != strings.ReplaceAll(raw, "\r\n", "\n") {
					t.Errorf("stored %q", got)
				}
			}
		})
	}
}

// large is a mail of more than one piece.
func large() string {
	return rawMail(0) + strings.Repeat("many words of a long mail\r\n", 3*probe.PieceSize/25)
}

func piecesOf(raw string, most int) map[string]string {
	items := map[string]string{}
	for n, o := 0, 0; o <= len(raw) && n < most; n, o = n+1, o+probe.PieceSize {
		items[fmt.Sprintf("BODY.PEEK[]<%d.%d>", o, probe.PieceSize)] = raw[o:min(o+probe.PieceSize, len(raw))]
	}
	return items
}

func TestPiecesAreJoinedUntilOneIsShort(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{"short end": large(), "no rest": large()[:2*probe.PieceSize]} {
		s, h := newServer(), newHome(t)
		u := s.box("INBOX").add(raw)
		s.box("INBOX").msgs[u].fault = &serverFault{items: piecesOf(raw, 100)}
		if rep := h.sync(s); rep.Salvaged != 1 || rep.NewStubs != 0 {
			t.Errorf("%s: %+v", name, rep)
		}
		for _, got := range h.files("INBOX") {
			if got != strings.ReplaceAll(raw, "\r\n", "\n") {
				t.Errorf("%s: %d bytes stored of %d", name, len(got), len(raw))
			}
		}
	}
}

// A server that stops in the middle has not handed the mail over: what came is
// in the stub, as a mail that readers can show.
func TestWhatCameBeforeItBrokeOffIsInTheStub(t *testing.T) {
	t.Parallel()
	raw := large()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(raw)
	s.box("INBOX").msgs[u].fault = &serverFault{items: piecesOf(raw, 1)}
	if rep := h.sync(s); rep.Salvaged != 0 || rep.NewStubs != 1 {
		t.Errorf("%+v", rep)
	}
	parts := stubParts(t, h)
	if len(parts) != 2 || parts[1].kind != "message/rfc822" {
		t.Fatalf("parts %v", parts)
	}
	if got, want := parts[1].text, strings.ReplaceAll(raw[:probe.PieceSize], "\r\n", "\n"); got != want {
		t.Errorf("%d bytes in the stub, want %d", len(got), len(want))
	}
}

type stubPart struct{ kind, name, text string }

// stubParts reads the one stub of INBOX as a mail reader would.
func stubParts(t *testing.T, h *home) (parts []stubPart) {
	t.Helper()
	for _, raw := range h.files("INBOX") {
		if _, err := stub.ReadKey(strings.NewReader(raw)); err != nil {
			continue
		}
		m, err := mail.ReadMessage(strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(kind, "multipart/") {
			b, err := io.ReadAll(m.Body)
			if err != nil {
				t.Fatal(err)
			}
			return []stubPart{{kind, "", string(b)}}
		}
		for r := multipart.NewReader(m.Body, params["boundary"]); ; {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return parts
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(p)
			if err != nil {
				t.Fatal(err)
			}
			kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, stubPart{kind, p.FileName(), string(b)})
		}
	}
	t.Fatal("no stub")
	return nil
}

func TestPartsThatCameAreInTheStub(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").msgs[u].fault = &serverFault{items: map[string]string{
		"BODYSTRUCTURE": `(("text" "plain" ("charset" "utf-8") NIL NIL "quoted-printable" 20 1)` +
			`("application" "pdf" ("name" "../../etc/x.pdf") NIL NIL "base64" 8 NIL ("attachment" ("filename" "../../etc/x.pdf")) NIL)` +
			`("text" "html\r\nBcc: x" NIL NIL NIL "8bit" 9 1) "mixed")`,
		"BODY.PEEK[1]": "the hidden word: zanzib=C3=A4r\r\n",
		"BODY.PEEK[2]": "JVBERi0x\r\n",
		"BODY.PEEK[3]": "<p>no\r\n",
	}}
	if rep := h.sync(s); rep.NewStubs != 1 {
		t.Errorf("%+v", rep)
	}
	parts := stubParts(t, h)
	if len(parts) != 4 {
		t.Fatalf("parts %v", parts)
	}
	if !strings.Contains(strings.Join(strings.Fields(parts[0].text), " "), "attached to this note: part 1, text/plain, part 2, application/pdf, part 3,") {
		t.Errorf("the note does not name them:\n%s", parts[0].text)
	}
	if want := (stubPart{"text/plain", "", "the hidden word: zanzib=C3=A4r\n"}); parts[1] != want {
		t.Errorf("part 1: %q", parts[1])
	}
	if want := (stubPart{"application/pdf", "x.pdf", "JVBERi0x\n"}); parts[2] != want {
		t.Errorf("part 2: %q", parts[2])
	}
	if want := (stubPart{"application/octet-stream", "", "<p>no\n"}); parts[3] != want {
		t.Errorf("part 3, whose type is no word: %q", parts[3])
	}
}

func TestTextWithoutItsHeaderIsInTheStub(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").msgs[u].fault = &serverFault{items: map[string]string{"BODY.PEEK[TEXT]": "only words\r\n"}}
	h.sync(s)
	if parts := stubParts(t, h); len(parts) != 2 || parts[1] != (stubPart{"text/plain", "", "only words\n"}) {
		t.Errorf("parts %v", parts)
	}
}

// What comes at a later attempt goes into the stub that stands already.
func TestAStubGrowsWithWhatComes(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	m := s.box("INBOX").msgs[u]
	m.fault = &serverFault{}
	h.sync(s)
	before := h.files("INBOX")
	m.fault = &serverFault{items: map[string]string{"BODY.PEEK[TEXT]": "only words\r\n"}}
	h.now = h.now.Add(time.Hour)
	h.sync(s)
	if parts := stubParts(t, h); len(parts) != 2 || parts[1].text != "only words\n" {
		t.Errorf("parts %v", parts)
	}
	after := h.files("INBOX")
	if !slices.Equal(slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(after))) {
		t.Errorf("the file had another name before")
	}
	h.check(s, u)
	m.fault = &serverFault{}
	h.now = h.now.Add(48 * time.Hour)
	h.sync(s)
	if now := h.files("INBOX"); !maps.Equal(now, after) {
		t.Errorf("what had come went again")
	}
}

// A stub that notmuch cannot read costs no other mail anything.
func TestAStubThatNotmuchCannotReadAnewIsNoMatterOfTheRun(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(2))
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").msgs[u].fault = &serverFault{}
	h.sync(s)
	s.box("INBOX").msgs[u].fault = &serverFault{items: map[string]string{"BODY.PEEK[TEXT]": "only words\r\n"}}
	s.box("Other").add(rawMail(1))
	h.now, h.index.refuses = h.now.Add(time.Hour), errors.New("the path is too long for notmuch")
	if rep := h.sync(s); rep.New != 1 || rep.Stubs != 1 || !rep.Clean() {
		t.Errorf("%+v", rep)
	}
	h.check(s, u)
}

// A server that marks a message as read although the mailbox is only examined
// gets it put back.
func TestSeenIsPutBack(t *testing.T) {
	t.Parallel()
	for i, flags := range [][]string{{}, {`\Seen`}, {`\Flagged`}, {}, {`\Seen`}, {`\Flagged`}} {
		leaves := i >= 3 // it hangs up behind each answer for the mail
		s, h := newServer(), newHome(t)
		u := s.box("INBOX").add(rawMail(0), flags...)
		m := s.box("INBOX").msgs[u]
		m.fault = &serverFault{sets: true, leaves: leaves, items: map[string]string{"BODY[]": exchangeSubstitute}}
		h.sync(s)
		if !plan.SameFlags(m.flags, flags) {
			t.Errorf("flags were %v and are %v", flags, m.flags)
		}
		h.check(s, u)
	}
}

// A server that is slow to let the ladder in costs that message its other roads,
// not the run.
func TestTimeThatIsUpWhileConnectingEndsOnlyTheLadder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, h := newServer(), newHome(t)
		u := s.box("INBOX").add(rawMail(0))
		s.box("INBOX").add(rawMail(1))
		s.box("INBOX").msgs[u].fault = &serverFault{death: true}
		rep := h.sync(s, func(o *Options) {
			o.Dial = func(ctx context.Context) (Session, error) {
				if _, bounded := ctx.Deadline(); bounded {
					<-ctx.Done()
					return Session{}, ctx.Err()
				}
				return s.dial(ctx)
			}
		})
		if rep.New != 1 || rep.NewStubs != 1 || len(rep.Faults) != 0 {
			t.Errorf("%+v", rep)
		}
		h.check(s, u)
	})
}

// Also when the time for the whole ladder ends with the rung that set it.
func TestSeenIsPutBackAfterTheTimeIsUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, h := newServer(), newHome(t)
		u := s.box("INBOX").add(rawMail(0))
		m := s.box("INBOX").msgs[u]
		m.fault = &serverFault{sets: true, silent: []string{"BODY", "BODY[]"}, items: map[string]string{"BODY[]": "never seen"}}
		h.sync(s, func(o *Options) { o.Connections = 1 }) // a silent server keeps all others waiting for its mutex
		if !slices.Contains(s.asked, "UID STORE 1 -FLAGS.SILENT (\\Seen)") || len(m.flags) != 0 {
			t.Errorf("flags are %v; asked %q", m.flags, s.asked)
		}
		h.check(s, u)
	})
}

// Also when the mail is too long to be kept in memory, so that it is asked for
// again in pieces, which are no PEEK either.
func TestSeenIsPutBackAfterPieces(t *testing.T) {
	t.Parallel()
	raw := rawMail(0) + strings.Repeat("many words of a long mail\r\n", 50_000)
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(raw)
	m := s.box("INBOX").msgs[u]
	m.fault = &serverFault{sets: true, items: map[string]string{"BODY[]": raw}}
	for item, piece := range piecesOf(raw, 100) {
		m.fault.items[strings.Replace(item, ".PEEK", "", 1)] = piece
	}
	if rep := h.sync(s); rep.Salvaged != 1 || len(m.flags) != 0 {
		t.Errorf("%+v, flags are %v", rep, m.flags)
	}
	h.check(s)
}

// A header beyond what is kept in memory is no beginning for a whole mail.
func TestAHeaderThatWasCutMakesNoMail(t *testing.T) {
	t.Parallel()
	raw := "Subject: long\r\n" + strings.Repeat("X-Word: many words of a long header\r\n", 30_000) + "\r\nbody\r\n"
	cut := strings.Index(raw, "\r\n\r\n") + 4
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(raw)
	s.box("INBOX").msgs[u].fault = &serverFault{items: map[string]string{"BODY.PEEK[HEADER]": raw[:cut], "BODY.PEEK[TEXT]": raw[cut:]}}
	if rep := h.sync(s); rep.Salvaged != 0 || rep.NewStubs != 1 {
		t.Errorf("%+v", rep)
	}
}

// inspecting makes a Dial of an inspection out of that of a run.
func inspecting(dial func(context.Context) (Session, error)) func(context.Context) (probe.Session, error) {
	return func(ctx context.Context) (probe.Session, error) {
		s, err := dial(ctx)
		return probe.Session{Speaker: s, Searcher: s, Greeting: s.Greeting}, err
	}
}

func (h *home) inspect(s *server, uid imap.UID) *probe.Inspection {
	h.t.Helper()
	in, err := probe.Inspect(context.Background(), probe.InspectOptions{Target: Target{Mailbox: "INBOX", UIDValidity: 14, UID: uid}, Dial: inspecting(s.dial), Timeout: watchdog, Now: func() time.Time { return h.now }})
	if err != nil {
		h.t.Fatal(err)
	}
	return in
}

// Each rung may be the one that answers, alone; the others say so.
func TestInspectionTellsWhatEachItemGave(t *testing.T) {
	t.Parallel()
	items := []string{"INTERNALDATE", "RFC822.SIZE", "BODY", "BODYSTRUCTURE", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[]", "BODY.PEEK[]<0.262144>", "BODY[]"}
	for _, f := range []string{"FROM SUBJECT", "FROM", "SUBJECT", "DATE", "TO", "MESSAGE-ID"} {
		items = append(items, "BODY.PEEK[HEADER.FIELDS ("+f+")]")
	}
	for _, item := range items {
		s, h := newServer(), newHome(t)
		u := s.box("INBOX").add(rawMail(0))
		s.box("INBOX").msgs[u].fault = &serverFault{items: map[string]string{item: "x: y\r\n\r\n"}}
		in := h.inspect(s, u)
		for _, r := range in.Probes {
			want := probe.AnswerNothing
			if r.Item == item || r.Item == "FLAGS" {
				want = probe.AnswerData
			}
			if r.Answer != want {
				t.Errorf("%s: %s gave %s", item, r.Item, r.Answer)
			}
		}
		whole := slices.Contains([]string{"BODY.PEEK[]", "BODY.PEEK[]<0.262144>", "BODY[]"}, item)
		if (in.Method != "") != whole {
			t.Errorf("%s: the mail came by %q", item, in.Method)
		}
		if in.Verdict.Finding == "" || in.Verdict.Cause == "" || in.Verdict.Advice == "" {
			t.Errorf("%s: verdict %+v", item, in.Verdict)
		}
	}
}

func TestInspectionOfAMessageOnWhichEveryConnectionDies(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").msgs[u].fault = &serverFault{death: true}
	in := h.inspect(s, u)
	if len(in.Probes) != 16 {
		t.Errorf("%d rungs: %v", len(in.Probes), in.Probes)
	}
	for _, r := range in.Probes {
		if r.Answer != probe.AnswerCut {
			t.Errorf("%s gave %s", r.Item, r.Answer)
		}
	}
}

func TestInspectionOfAMessageThatIsGone(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	s.box("INBOX").add(rawMail(0))
	if in := h.inspect(s, 7); in.Listed || in.Verdict.Finding == "" {
		t.Errorf("%+v", in)
	}
}

func TestNothingIsInspectedUnderAnotherUIDValidity(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").validity = 15
	_, err := probe.Inspect(context.Background(), probe.InspectOptions{Target: Target{Mailbox: "INBOX", UIDValidity: 14, UID: u}, Dial: inspecting(s.dial), Now: func() time.Time { return h.now }})
	if !errors.Is(err, probe.ErrUIDValidity) {
		t.Errorf("%v", err)
	}
}

// That the network went away in the middle is not the server's fault, and says
// nothing about the message.
func TestAnInspectionThatEndedEarlyBlamesNobody(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").msgs[u].fault = &serverFault{death: true}
	s.dialErr = func(n int) error {
		if n > 3 {
			return &wire.Fault{Kind: wire.KindDial, Text: "network is unreachable"}
		}
		return nil
	}
	in := h.inspect(s, u)
	if v := in.Verdict; in.Stopped == "" || strings.Contains(v.Cause, "server") || !strings.Contains(v.Finding, "ended") {
		t.Errorf("%q %+v", in.Stopped, v)
	}
}

// What the flags were before is not known to a session that was not told.
func TestAnInspectionDoesNotVouchForFlagsThatItWasNotTold(t *testing.T) {
	t.Parallel()
	s, h := newServer(), newHome(t)
	u := s.box("INBOX").add(rawMail(0))
	s.box("INBOX").msgs[u].fault = &serverFault{death: true}
	if in := h.inspect(s, u); !strings.Contains(in.Seen, "not known") {
		t.Errorf("%q", in.Seen)
	}
}

// Messages that fail one after the other, before anything else has come, cost no
// other message: they get their stubs as soon as the server is seen to be well.
func TestAFirstSyncThatBeginsWithFailuresGoesOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		older, failing int
		first          int // mails that come in the first run
	}{
		"the newest of a mailbox": {older: 20, failing: 30, first: 21},
		"all of a mailbox":        {failing: 30, first: 1},
	} {
		s, h := newServer(), newHome(t)
		in := s.box("INBOX")
		for i := range tc.older {
			in.add(rawMail(i))
		}
		var bad []imap.UID
		for i := range tc.failing {
			bad = append(bad, in.add(rawMail(100+i)))
			in.msgs[bad[i]].fault = &serverFault{}
		}
		for range tc.older + tc.failing { // UIDs that are no stub's in INBOX
			s.box("Other").next++
		}
		s.box("Other").add(rawMail(1000))
		alone := func(o *Options) { o.Connections = 1 }
		if rep := h.sync(s, alone); rep.New != tc.first {
			t.Errorf("%s: %+v", name, rep)
		}
		h.sync(s, alone)
		h.check(s, bad...)
		if rep := h.sync(s, alone); !rep.Clean() {
			t.Errorf("%s: %+v", name, rep)
		}
	}
}
