package remote

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
)

// What a person asks for by hand: inspect, retry, drop.

func TestSelect(t *testing.T) {
	t.Parallel()
	const box = "* 10 EXISTS\r\n* OK [UIDVALIDITY 14] ids\r\n* OK [UIDNEXT 99] next\r\n"
	for _, c := range []struct {
		name, caps string
		answers    [][2]string
		want       mail.Selected
		has        bool // CONDSTORE, afterwards
	}{
		{"for changes", "IMAP4rev1", [][2]string{{`SELECT "INBOX"`, box + "* OK [PERMANENTFLAGS (\\Deleted \\*)] x\r\n{tag} OK [READ-WRITE] done\r\n"}},
			mail.Selected{PermanentFlags: []string{`\Deleted`, `\*`}}, false},
		{"read-only", "IMAP4rev1", [][2]string{{`SELECT "INBOX"`, box + "{tag} OK [read-only] done\r\n"}}, mail.Selected{ReadOnly: true}, false},
		{"with mod-sequences", "IMAP4rev1 CONDSTORE", [][2]string{{`SELECT "INBOX" (CONDSTORE)`, box + "* OK [HIGHESTMODSEQ 7] x\r\n"}},
			mail.Selected{Status: mail.Status{HighestModSeq: 7}}, true},
		{"CONDSTORE is refused", "IMAP4rev1 CONDSTORE", [][2]string{{`SELECT "INBOX" (CONDSTORE)`, "{tag} BAD what\r\n"}, {`SELECT "INBOX"`, box}},
			mail.Selected{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := answering(t, c.caps, c.answers...)
			c.want.Messages, c.want.UIDValidity, c.want.UIDNext = 10, 14, 99
			got, err := s.Select(t.Context(), "INBOX")
			if err != nil || !reflect.DeepEqual(*got, c.want) || s.Mailbox() != "INBOX" || s.Has("CONDSTORE") != c.has {
				t.Errorf("%v: %+v, want %+v; selected is %q, CONDSTORE %v", err, got, c.want, s.Mailbox(), s.Has("CONDSTORE"))
			}
		})
	}
}

func TestSelectRefused(t *testing.T) {
	t.Parallel()
	s := answering(t, "IMAP4rev1", [2]string{"SELECT", "{tag} NO [NOPERM] not yours\r\n"})
	_, err := s.Select(t.Context(), "box")
	if f := wantFault(t, err, mail.KindNo); f.Op != "SELECT" || f.Mailbox != "box" || f.Code != "NOPERM" || s.Mailbox() != "" || !s.Alive() {
		t.Errorf("%+v; selected is %q", f, s.Mailbox())
	}
}

// TestSelectByAnotherName learns how an odd name is written, as Examine does, and
// then Quote knows it, too.
func TestSelectByAnotherName(t *testing.T) {
	t.Parallel()
	begin := func() *Session {
		return answering(t, "IMAP4rev1",
			[2]string{"LIST", "* LIST () \"/\" {8}\r\nEntw\xfcrfe\r\n"},
			[2]string{"SELECT \"Entw\xfcrfe\"", "* 1 EXISTS\r\n* OK [UIDVALIDITY 14] ids\r\n"},
			[2]string{"SELECT", "{tag} NO no such mailbox\r\n"})
	}
	boxes, err := begin().List(t.Context(), mail.Listing{})
	if err != nil || len(boxes) != 1 {
		t.Fatalf("%v: %+v", err, boxes)
	}
	s, name := begin(), boxes[0].Name // another run
	if sel, err := s.Select(t.Context(), name); err != nil || sel.Messages != 1 || s.Mailbox() != name {
		t.Errorf("%v: %+v", err, sel)
	}
	if got := s.quote(name); got != "\"Entw\xfcrfe\"" {
		t.Errorf("%s is %q", name, got)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	s := answering(t, "IMAP4rev1")
	for name, want := range map[string]string{"INBOX": `"INBOX"`, `a "b" \c`: `"a \"b\" \\c"`, "Müll & more": `"M&APw-ll &- more"`} {
		if got := s.quote(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestExchangeAnswers has what commands by hand are answered with in its place.
func TestExchangeAnswers(t *testing.T) {
	t.Parallel()
	long := " " + strings.TrimSpace(strings.Repeat("1234567 ", 10_000))
	for _, c := range []struct {
		command, answer string
		untagged        []string
		code            string
	}{
		{"UID SEARCH UID 5 DELETED", "* search 5 7\r\n* SEARCH\r\n* SEARCH 9\r\n", []string{"SEARCH 5 7", "SEARCH", "SEARCH 9"}, ""},
		{"SEARCH RETURN (ALL) DELETED", "* ESEARCH (TAG \"x\") ALL 2,10:11\r\n* 11 EXISTS\r\n", []string{`ESEARCH (TAG "x") ALL 2,10:11`, "11 EXISTS"}, ""},
		{"UID SEARCH ALL", "* SEARCH" + long + "\r\n", []string{"SEARCH" + long}, ""},
		{"UID SEARCH ALL", "* SEARCH 1" + strings.Repeat("0", maxKept) + "\r\n", []string{"SEARCH 1" + strings.Repeat("0", maxKept-2) + "..."}, ""},
		{"UID MOVE 10 x", "* OK [COPYUID 14 10 233] Moved.\r\n* 3 EXPUNGE\r\n{tag} OK [HIGHESTMODSEQ 5] done\r\n", []string{"OK [COPYUID 14 10 233] Moved.", "3 EXPUNGE"}, "HIGHESTMODSEQ 5"},
		{"UID COPY 10 x", "{tag} OK [copyuid 14 10 233] done\r\n", nil, "COPYUID 14 10 233"},
		{"UID COPY 10 x", "[COPYUID 14 10 233]\r\n{tag} OK done\r\n", []string{"[COPYUID 14 10 233]"}, ""},         // Exchange 2013
		{"UID COPY 10 x", "* [COPYUID 14 10 233]\r\n{tag} OK done\r\n", []string{"[COPYUID 14 10 233]"}, ""},       // its sister
		{"UID COPY 10 x", "* OK [COPYUID 14  ]\r\n{tag} OK\r\n", []string{"OK [COPYUID 14  ] "}, ""},               // outlook.com
		{"UID COPY 10 x", "A9 OK not ours\r\n" + strings.Repeat("* 1 EXISTS\r\n", 200), many("1 EXISTS", 100), ""}, // the last says that there are more
	} {
		t.Run(c.command, func(t *testing.T) {
			t.Parallel()
			s := examined(t, "IMAP4rev1", [2]string{c.command, c.answer})
			ex, err := s.Exchange(t.Context(), c.command)
			if err != nil || ex.Status != "OK" || ex.Code != c.code || !slices.Equal(ex.Untagged, c.untagged) {
				t.Errorf("%v: %s [%s] %.300q, want %.300q", err, ex.Status, ex.Code, ex.Untagged, c.untagged)
			}
		})
	}
}

func many(line string, n int) []string { return append(slices.Repeat([]string{line}, n), "...") }

func TestExchangeBySequenceNumber(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"FETCH 1040:1050", "* 1040 FETCH (UID 14020)\r\n* 1041 FETCH (FLAGS (\\Seen) UID 14021)\r\n* 7 FETCH (FLAGS ())\r\n"})
	ex, err := s.Exchange(t.Context(), "FETCH 1040:1050 (UID)")
	if err != nil || len(ex.Fetched) != 3 {
		t.Fatalf("%v: %+v", err, ex)
	}
	for i, want := range []mail.Message{{Seq: 1040, UID: 14020}, {Seq: 1041, UID: 14021}, {Seq: 7}} {
		if got := ex.Fetched[i]; got.Seq != want.Seq || got.UID != want.UID {
			t.Errorf("%d: %+v, want %+v", i, got.Message, want)
		}
	}
	if len(ex.Lines) != 5 || !ex.Lines[0].Client || !strings.HasSuffix(ex.Lines[0].Text, " FETCH 1040:1050 (UID)") || ex.Lines[1].Text != "* 1040 FETCH (UID 14020)" {
		t.Fatalf("%+v", ex.Lines)
	}
	for i, l := range ex.Lines {
		if l.At.IsZero() || i > 0 && (l.Client || l.At.Before(ex.Lines[i-1].At)) {
			t.Errorf("line %d: %+v", i, l)
		}
	}
}

// TestStructureWithLiterals comes through the session with its bytes.
func TestStructureWithLiterals(t *testing.T) {
	t.Parallel()
	name := "a \"b\\c\" (\xe4\r\n.pdf"
	s := examined(t, "IMAP4rev1", [2]string{"UID FETCH", fmt.Sprintf("* 1 FETCH (BODYSTRUCTURE (\"application\" {3}\r\npdf NIL NIL NIL \"base64\" 7 NIL (\"attachment\" (\"filename\" {%d}\r\n%s)) NIL) UID 5)\r\n", len(name), name)})
	ex, err := s.Exchange(t.Context(), "UID FETCH 5 (BODYSTRUCTURE)")
	if err != nil || len(ex.Fetched) != 1 || ex.Fetched[0].UID != 5 {
		t.Fatalf("%v: %+v", err, ex)
	}
	parts, err := probe.ParseStructure(ex.Fetched[0].Items["BODYSTRUCTURE"].Text)
	want := []mail.Part{{Path: "1", Type: "application", Subtype: "pdf", Encoding: "base64", Size: 7, Disposition: "attachment", Filename: name}}
	if err != nil || !reflect.DeepEqual(parts, want) {
		t.Errorf("%v: %+v", err, parts)
	}
}

// heard collects what a session lets out.
type heard struct {
	lines []mail.Line
}

func (h *heard) options(o Options) Options {
	o.Record = func(l mail.Line) { h.lines = append(h.lines, l) }
	return o
}

// String is the transcript.
func (h *heard) String(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for i, l := range h.lines {
		who := "S: "
		if l.Client {
			who = "C: "
		}
		b.WriteString(who + l.Text + "\n")
		if l.At.IsZero() || i > 0 && l.At.Before(h.lines[i-1].At) {
			t.Errorf("line %d is of %v", i, l.At)
		}
	}
	return b.String()
}

// TestRecord has everything that is said, from the greeting to the good-bye.
func TestRecord(t *testing.T) {
	t.Parallel()
	cert, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	talk := func(p *peer) {
		for {
			switch tag, command := p.command(); {
			case tag == "":
				return
			case command == "CAPABILITY":
				p.send("* CAPABILITY %s\r\n%s OK done\r\n", testCaps, tag)
			default:
				p.send("%s OK [CAPABILITY %s] done\r\n", tag, testCaps)
			}
		}
	}
	for kind, begin := range map[string]func(*peer){
		"none":     func(p *peer) { p.send("* OK [CAPABILITY %s] hello\r\n", testCaps); talk(p) },
		"implicit": func(p *peer) { q := secured(p, config); q.send("* OK [CAPABILITY %s] hello\r\n", testCaps); talk(q) },
		"starttls": func(p *peer) {
			p.send("* OK hello\r\n")
			tag, _ := p.command()
			p.send("%s OK go on\r\n", tag)
			talk(secured(p, config))
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var h heard
			o := h.options(plain(serve(t, begin)))
			o.TLS, o.RootCAs = kind, cert.Pool()
			s, err := Dial(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Exchange(t.Context(), "NOOP"); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			text := h.String(t)
			words := []string{"S: * OK ", "hello\n", "C: n", " AUTHENTICATE PLAIN [...]\nS: n", "] done\nC: n", " NOOP\nS: n", "z LOGOUT\n"}
			if kind == "starttls" {
				words = slices.Insert(words, 2, "C: n", " STARTTLS\nS: n", " OK go on\n")
			}
			rest := text
			for _, w := range words {
				_, after, ok := strings.Cut(rest, w)
				if !ok {
					t.Fatalf("no %q in its place in\n%s", w, text)
				}
				rest = after
			}
		})
	}
}

func secured(p *peer, config *tls.Config) *peer {
	secure := tls.Server(p.Conn, config)
	return &peer{secure, bufio.NewReader(secure)}
}

// secretForms are what nobody may see: also a part of the secret, and what is
// the secret in base64 wherever it stands in a text.
func secretForms() []string {
	out := []string{"hunter2", `"and\`, b64(testSecret), b64("\x00" + testUser + "\x00" + testSecret), b64("user=" + testUser + "\x01auth=Bearer " + testSecret)[:60]}
	for skip := range 3 {
		out = append(out, base64.StdEncoding.EncodeToString([]byte(strings.Repeat("?", skip) + testSecret))[4:16])
	}
	return out
}

func wantNoSecret(t *testing.T, shown ...string) {
	t.Helper()
	for _, text := range shown {
		for _, form := range secretForms() {
			if i := strings.Index(strings.ToUpper(text), strings.ToUpper(form)); i >= 0 {
				t.Errorf("%q is shown in %.200q", form, text[max(0, i-50):])
				return
			}
		}
	}
}

// TestRecordHasNoSecrets signs in in every way at servers that echo the secret,
// plain and in base64, refuse or not.
func TestRecordHasNoSecrets(t *testing.T) {
	t.Parallel()
	for _, m := range mechanisms() {
		for _, echo := range []bool{false, true} {
			for _, refuse := range []bool{false, true} {
				m := m
				m.echo, m.refuse = echo, refuse
				t.Run(fmt.Sprintf("%s %s echo=%v refused=%v", m.name, m.caps, echo, refuse), func(t *testing.T) {
					t.Parallel()
					var h heard
					o := h.options(plain(serve(t, m.run)))
					o.Auth = m.name
					s, err := Dial(t.Context(), o)
					if (err != nil) != refuse {
						t.Fatalf("Dial: %v", err)
					}
					if err == nil && echo {
						for _, command := range []string{"NOOP", "EXAMINE x", "UID FETCH 1 (BODY.PEEK[TEXT])", "XYZZY " + testSecret} {
							ex, err := s.Exchange(t.Context(), command)
							wantNoSecret(t, append(linesOf(ex), ex.Command, ex.Code, ex.Text, fmt.Sprint(err))...)
							wantNoSecret(t, ex.Untagged...)
						}
					}
					if err == nil {
						_ = s.Close() // whatever became of it
					}
					text := h.String(t)
					if !strings.Contains(text, "ready\n") || !strings.Contains(text, "[...]") || echo && !strings.Contains(text, "[secret]") {
						t.Errorf("the transcript is\n%s", text)
					}
					wantNoSecret(t, text)
				})
			}
		}
	}
}

func linesOf(ex *mail.Exchange) []string {
	var out []string
	for _, l := range ex.Lines {
		out = append(out, l.Text)
	}
	return out
}

// TestNoPartOfASecretIsShown cuts texts within a secret: by what is shown of a
// line, of a literal, and by a connection that ends.
func TestNoPartOfASecretIsShown(t *testing.T) {
	t.Parallel()
	const n = len(testSecret)
	for name, answer := range map[string]func(i int) string{
		"in a line":      func(i int) string { return "* XYZZY " + strings.Repeat("x", maxLineText-n-10+i) + testSecret + "\r\n" },
		"in a long line": func(i int) string { return "* SEARCH " + strings.Repeat("x", maxKept-n-2+i) + testSecret + "\r\n" },
		"in a status":    func(i int) string { return "* OK " + strings.Repeat("x", maxLineText-n-10+i) + testSecret + "\r\n" },
		"in a literal": func(i int) string {
			text := strings.Repeat("x", maxLiteralText-n-4+i) + "\r\n" + testSecret + "x"
			return fmt.Sprintf("* 1 FETCH (BODY[TEXT] {%d}\r\n%s)\r\n", len(text), text)
		},
		"by the end of the connection":              func(i int) string { return "* XYZZY " + testSecret[:min(i, n)] + "{hangup}" },
		"by the end of the connection in a literal": func(i int) string { return "* 1 FETCH (BODY[TEXT] {99}\r\n" + testSecret[:min(i, n)] + "{hangup}" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range n + 20 {
				var h heard
				s := dialed(t, h.options(plain(serve(t, func(p *peer) {
					p.greet("IMAP4rev1")
					tag, _ := p.command()
					text, hangup := strings.CutSuffix(answer(i), "{hangup}")
					if p.send("%s", text); !hangup {
						p.send("%s OK done\r\n", tag)
						p.hang()
					}
				}))))
				ex, err := s.Exchange(context.Background(), "NOOP")
				if f, ok := errors.AsType[*mail.Fault](err); err != nil && (!ok || f.Kind != mail.KindCut) {
					t.Fatal(err)
				}
				for _, text := range append(linesOf(ex), append(ex.Untagged, h.String(t))...) {
					if strings.Contains(text, "hunt") {
						t.Fatalf("%d: %q is shown", i, text[strings.Index(text, "hunt"):])
					}
				}
				_ = s.Close() // it may be dead
			}
		})
	}
}
