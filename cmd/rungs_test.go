package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// rungWorld is a world whose INBOX has three mails, of which UID 2 answers as
// rungs say.
func rungWorld(t *testing.T, raw string, rungs imaptest.Rungs) (*world, *imaptest.ScriptMail, *imaptest.Script) {
	t.Helper()
	b := imaptest.Box("INBOX", faultMail(1), raw, faultMail(3))
	b.Mails[1].Rungs = rungs
	s := newScript(t, "IMAP4rev1 UIDPLUS", nil, b)
	w := newWorld(t, s.Addr(), "user", "pass phrase")
	w.remote.DialContext = s.Dial
	return w, b.Mails[1], s
}

func rungMail() string {
	return "From: a@example.org\r\nMessage-ID: <rungs@example.org>\r\nSubject: of many parts\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nzanzibar\r\n--b\r\n" +
		"Content-Type: text/plain\r\n\r\nkilimanjaro\r\n--b--\r\n" + strings.Repeat("epilogue\r\n", 40_000)
}

// Whatever single road leads to the whole mail, it is delivered byte for byte;
// where none does, what came is in the stub, and notmuch finds its words.
func TestEveryRoadToAMail(t *testing.T) {
	for name, tc := range map[string]struct {
		rungs imaptest.Rungs
		whole bool
		finds string // a word that is found by what came
		says  string // by its greeting
	}{
		"HEADER and TEXT": {rungs: imaptest.OnlyRungs(imaptest.NoData(), "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]"), whole: true},
		"pieces":          {rungs: imaptest.RungTable(imaptest.NoData(), map[string]imaptest.Answer{"BODY.PEEK[]<*": nil}), whole: true},
		"no PEEK":         {rungs: imaptest.OnlyRungs(imaptest.Refuse("NO [UNAVAILABLE] not now"), "BODY[]"), whole: true},
		"each on a connection of its own": {whole: true, rungs: imaptest.RungTable(imaptest.NoData(), map[string]imaptest.Answer{
			"BODY.PEEK[HEADER]": imaptest.ThenHangUp(nil), "BODY.PEEK[TEXT]": imaptest.ThenHangUp(nil),
		})},
		"the first piece": {rungs: imaptest.PiecesBefore(300_000, imaptest.NoData()), finds: "kilimanjaro"},
		"a piece, a cut":  {rungs: imaptest.PiecesBefore(300_000, imaptest.HangUp("")), finds: ""}, // too many connections die before
		"one part":        {rungs: imaptest.OnlyRungs(imaptest.NoData(), "BODYSTRUCTURE", "BODY.PEEK[2]"), finds: "kilimanjaro"},
		"a header":        {rungs: imaptest.OnlyRungs(imaptest.NoData(), "BODY.PEEK[HEADER]"), finds: "subject:many"},
		"one field":       {rungs: imaptest.OnlyRungs(imaptest.NoData(), "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"), finds: "subject:many"},
		"nothing":         {rungs: imaptest.OnlyRungs(imaptest.NoData())},
		"NIL":             {rungs: imaptest.OnlyRungs(imaptest.Value("NIL"), "FLAGS", "INTERNALDATE", "RFC822.SIZE")},
		"empty":           {rungs: imaptest.OnlyRungs(imaptest.Value("{0}\r\n"), "FLAGS", "INTERNALDATE", "RFC822.SIZE")},
		"BAD":             {rungs: imaptest.OnlyRungs(imaptest.Refuse("BAD Command Argument Error. 11"))},
		"silence":         {rungs: imaptest.OnlyRungs(imaptest.Silence())},
		"hanging up":      {rungs: imaptest.OnlyRungs(imaptest.HangUp("Connection closed"))},
		"cut short":       {rungs: imaptest.OnlyRungs(imaptest.CutShort())},
		"a substitute":    {rungs: imaptest.OnlyRungs(imaptest.Substitute{Subject: "real subject", From: "Jane Doe", Sent: "11/1/2013 8:00:00 PM"}.Answer(), "FLAGS"), finds: "subject:real", says: "The Microsoft Exchange IMAP4 service is ready."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, m, s := rungWorld(t, rungMail(), tc.rungs)
			s.With(func([]*imaptest.ScriptBox) { s.Greeting = tc.says })
			rep := w.sync()
			mails := []string{faultMail(1), faultMail(3)}
			if tc.whole {
				mails = append(mails, m.Raw)
			}
			w.holds("INBOX", mails)
			if got, want := w.notmuch("count", "tag:fetch-salvaged"), map[bool]string{true: "1", false: "0"}[tc.whole]; got != want {
				t.Errorf("%s salvaged: %+v", got, rep)
			}
			_, stubs := w.mails("INBOX")
			if (len(stubs) == 1) == tc.whole {
				t.Errorf("%d stubs", len(stubs))
			}
			if tc.finds != "" && w.notmuch("count", "tag:fetch-failed and "+tc.finds) != "1" {
				t.Errorf("%q finds no stub: %v", tc.finds, stubs)
			}
			if m.Flags != "" {
				t.Errorf("flags are %q", m.Flags)
			}
		})
	}
}

// What front ends read of a stub that has parts: the note first, then each part
// with its own type, charset and name.
func TestStubWithPartsAsNotmuchShowsIt(t *testing.T) {
	t.Parallel()
	raw := "From: =?utf-8?q?J=C3=BCrgen?= <a@example.org>\r\nMessage-ID: <rungs@example.org>\r\nSubject: of many parts\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>kilimanjaro =C3=BC</p>\r\n" +
		"--b\r\nContent-Type: application/pdf; name=\"=?utf-8?q?=2E=2E=2FBl=C3=A4tter=2Epdf?=\"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n" +
		"--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Disposition: inline; filename=words.txt\r\nContent-Transfer-Encoding: 8bit\r\n\r\nna\xefve\r\n--b--\r\n"
	w, _, _ := rungWorld(t, raw, imaptest.OnlyRungs(imaptest.NoData(), "BODYSTRUCTURE", "BODY.PEEK[HEADER]", "BODY.PEEK[1]", "BODY.PEEK[2]", "BODY.PEEK[3]"))
	w.sync()
	type part struct {
		Type        string          `json:"content-type"`
		Disposition string          `json:"content-disposition"`
		Filename    string          `json:"filename"`
		Content     json.RawMessage `json:"content"`
	}
	var threads [][][]json.RawMessage
	var message struct {
		Tags    []string          `json:"tags"`
		Headers map[string]string `json:"headers"`
		Body    []part            `json:"body"`
	}
	var parts []part
	decode := func(text []byte, into any) {
		t.Helper()
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
	}
	decode([]byte(w.notmuch("show", "--format=json", "--include-html", "tag:fetch-failed")), &threads)
	decode(threads[0][0][0], &message)
	if h := message.Headers; h["From"] != "Jürgen <a@example.org>" || h["Subject"] != "[not fetched] of many parts" {
		t.Errorf("%v", h)
	}
	if !slices.Contains(message.Tags, "attachment") || len(message.Body) != 1 || message.Body[0].Type != "multipart/mixed" {
		t.Fatalf("%+v", message)
	}
	decode(message.Body[0].Content, &parts)
	var got []string
	for _, p := range parts {
		var text string
		if len(p.Content) > 0 {
			decode(p.Content, &text)
		}
		text, _, _ = strings.Cut(strings.TrimSpace(text), " It is a note")
		got = append(got, strings.Join([]string{p.Type, p.Disposition, p.Filename, text}, "|"))
	}
	want := []string{
		"text/plain|||This is not the mail itself.", "text/html|inline||<p>kilimanjaro ü</p>",
		"application/pdf|attachment|Blätter.pdf|", "text/plain|inline|words.txt|naïve",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if reply := w.notmuch("reply", "tag:fetch-failed"); !strings.Contains(reply, "References: <rungs@example.org> <") {
		t.Errorf("a reply is not in the mail's thread:\n%s", reply)
	}
}

func (w *world) inspect(uid imap.UID) *probe.Inspection {
	w.t.Helper()
	in, err := probe.Inspect(w.t.Context(), probe.InspectOptions{
		Target: pipeline.Target{Mailbox: "INBOX", UID: uid}, Timeout: w.remote.Timeout, Now: time.Now,
		Dial: func(ctx context.Context) (probe.Session, error) {
			s, err := remote.Dial(ctx, w.remote)
			if err != nil {
				return probe.Session{}, err
			}
			return probe.Session{Speaker: s, Searcher: s, Greeting: s.Greeting()}, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// An inspection goes on to the last rung, whatever the server does on the way,
// and says of each what it gave.
func TestInspectionOfEveryAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		answer imaptest.Answer
		want   probe.Answer
	}{
		"nothing":           {imaptest.NoData(), probe.AnswerNothing},
		"NIL":               {imaptest.Value("NIL"), probe.AnswerNil},
		"empty string":      {imaptest.Value(`""`), probe.AnswerEmpty},
		"empty literal":     {imaptest.Value("{0}\r\n"), probe.AnswerEmpty},
		"NO":                {imaptest.Refuse("NO [UNAVAILABLE] sorry"), probe.AnswerNo},
		"BAD":               {imaptest.Refuse("BAD Command Argument Error. 11"), probe.AnswerBad},
		"BYE":               {imaptest.HangUp("Connection closed"), probe.AnswerCut},
		"cut":               {imaptest.HangUp(""), probe.AnswerCut},
		"data, then hangup": {imaptest.ThenHangUp(nil), probe.AnswerData},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, m, _ := rungWorld(t, faultMail(2), imaptest.OnlyRungs(tc.answer, "FLAGS", "INTERNALDATE"))
			in := w.inspect(2)
			items := 0
			for _, r := range in.Probes {
				want := tc.want
				if r.Item == "FLAGS" || r.Item == "INTERNALDATE" {
					want = probe.AnswerData
				}
				if r.Answer != want {
					t.Errorf("%s gave %s, want %s", r.Item, r.Answer, want)
				}
				items++
			}
			if items < 16 || in.Stopped != "" || !in.ControlCame || in.Control != 3 || in.Seq != 2 {
				t.Errorf("%d items; %+v", items, in)
			}
			if m.Flags != "" {
				t.Errorf("flags are %q", m.Flags)
			}
		})
	}
}

// A server that marks what was only looked at gets that put back, and it is
// said.
func TestInspectionPutsSeenBack(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{"", `\Flagged`, `\Seen`} {
		w, m, s := rungWorld(t, faultMail(2), imaptest.OnlyRungs(imaptest.NoData(), "FLAGS", "BODY[]"))
		s.With(func(boxes []*imaptest.ScriptBox) {
			boxes[0].SeenOnExamine = true
			m.Flags = flags
		})
		in := w.inspect(2)
		s.With(func([]*imaptest.ScriptBox) {
			if m.Flags != flags {
				t.Errorf("flags were %q and are %q", flags, m.Flags)
			}
		})
		if said := strings.Contains(in.Seen, "put back"); said == (flags == `\Seen`) {
			t.Errorf("%q: said %q", flags, in.Seen)
		}
	}
}

// The seed's mailbox, byte for byte as in its transcripts.
func TestSeedIsInspectedAndDropped(t *testing.T) {
	t.Parallel()
	for _, deleted := range [][]uint32{nil, {15500, 15562}} {
		box := imaptest.SeedScript(deleted...)
		s, err := imaptest.NewScript("IMAP4rev1", nil, box)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, s.Addr(), "user", "pass phrase")
		in := w.inspect(imaptest.SeedBadUID)
		gave := make(map[string]probe.Answer)
		for _, r := range in.Probes {
			gave[r.Item] = r.Answer
		}
		for item, want := range map[string]probe.Answer{
			"BODY": probe.AnswerData, "RFC822.SIZE": probe.AnswerNothing, "BODY.PEEK[]": probe.AnswerNothing,
			"BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]": probe.AnswerSubstitute, "BODY[]": probe.AnswerSubstitute,
		} {
			if gave[item] != want {
				t.Errorf("%s gave %q, want %q", item, gave[item], want)
			}
		}
		var uids []imap.UID
		for _, n := range in.Neighbours {
			uids = append(uids, n.UID)
		}
		if in.Seq != 1045 || !slices.Equal(uids, []imap.UID{15516, 15523, 15541, 15544, 15545}) || in.Control != 15544 || !in.ControlCame {
			t.Errorf("number %d among %v", in.Seq, uids)
		}
		kill := func(protect bool) (*probe.Expunged, error) {
			return w.expunge(func(o *probe.ExpungeOptions) { o.UID, o.Protect = imaptest.SeedBadUID, protect })
		}
		if len(deleted) > 0 {
			if _, err := kill(false); err == nil {
				t.Error("others are in danger, and it was not refused")
			}
		}
		done, err := kill(true)
		if err != nil {
			t.Fatal(err)
		}
		if done.Left != imaptest.SeedMessages-1 || len(done.Missing) > 0 || done.Restored != len(deleted) {
			t.Errorf("%+v", done)
		}
		s.With(func(boxes []*imaptest.ScriptBox) {
			if n := len(boxes[0].Mails); n != imaptest.SeedMessages-1 {
				t.Errorf("%d messages left", n)
			}
			var marked []uint32
			for _, m := range boxes[0].Mails {
				if strings.Contains(m.Flags, `\Deleted`) {
					marked = append(marked, m.UID)
				}
				if m.UID == imaptest.SeedBadUID {
					t.Error("it is still there")
				}
			}
			if fmt.Sprint(marked) != fmt.Sprint(deleted) {
				t.Errorf("marked %v, want %v", marked, deleted)
			}
		})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
