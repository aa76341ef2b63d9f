package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// upload makes a file.
func upload(tb testing.TB, text string, flags ...string) mail.Upload {
	tb.Helper()
	f, err := os.CreateTemp(tb.TempDir(), "mail")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	size, err := maildir.WireSize(f.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return mail.Upload{Path: f.Name(), Size: size, Flags: flags}
}

// letter is a mail of about so many bytes, with LF.
func letter(n, size int) string {
	line := fmt.Sprintf("line of letter %d, bare\n", n)
	return fmt.Sprintf("From: a@example.org\nSubject: letter %d\nMessage-ID: <l%d@example.org>\n\n", n, n) + strings.Repeat(line, 1+size/len(line))
}

// onWire is a text as it goes over the wire.
func onWire(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}

func script(tb testing.TB, caps string, boxes ...*imaptest.ScriptBox) *imaptest.Script {
	tb.Helper()
	s, err := imaptest.NewScript(caps, nil, boxes...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// oddMails are mails whose lines end in all ways.
func oddMails() []string {
	return []string{
		letter(1, 100), onWire(letter(2, 100)), "Subject: mixed\r\n\nbare\nboth\r\n\r\r\nalone\rhere\n", "Subject: no end\n\nof the line", "\n", "\r\n",
		"Subject: 8 bits\n\n\xff\xc3\xa4\n", "Subject: commands\n\nx LOGOUT\n+ {5}\nx2 APPEND INBOX {3+}\nabc\n", letter(3, 4200), letter(4, 40_000), letter(5, 3<<20),
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", -(7*60+30)*60)
	date := time.Date(1996, 7, 4, 2, 44, 25, 0, zone)
	for _, caps := range []string{
		"IMAP4rev1", "IMAP4rev1 LITERAL- UIDPLUS", "IMAP4rev1 LITERAL+ UIDPLUS",
		"IMAP4rev1 MULTIAPPEND", "IMAP4rev1 LITERAL- UIDPLUS MULTIAPPEND", "IMAP4rev1 LITERAL+ UIDPLUS MULTIAPPEND",
	} {
		server := script(t, caps, imaptest.Box("INBOX", "before"), imaptest.Box("Sent &- back"))
		var h heard
		s := dialed(t, h.options(plain(server.Port())))
		if _, err := s.Select(t.Context(), "INBOX"); err != nil {
			t.Fatal(err)
		}
		for _, box := range []string{"INBOX", "Sent & back"} {
			var uploads []mail.Upload
			for _, text := range oddMails() {
				u := upload(t, text, `\Seen`, `\recent`, "$Forwarded")
				u.InternalDate = date
				uploads = append(uploads, u)
			}
			told := make([]mail.Appended, len(uploads))
			results, err := s.Append(t.Context(), box, uploads, func(i int, as mail.Appended) { told[i] = as }, nil)
			if err != nil || len(results) != len(uploads) || !slices.Equal(told, results) {
				t.Fatalf("%s: %d results, %v; told were %v", caps, len(results), err, told)
			}
			first := uint32(1)
			if box == "INBOX" {
				first = 2
			}
			server.With(func(boxes []*imaptest.ScriptBox) {
				b := boxes[0]
				if box != "INBOX" {
					b = boxes[1]
				}
				if len(b.Mails) != len(uploads)+int(first)-1 {
					t.Fatalf("%s: %d mails", caps, len(b.Mails))
				}
				for i, text := range oddMails() {
					want := mail.Appended{UIDValidity: 14, UID: imap.UID(first) + imap.UID(i)}
					if !strings.Contains(caps, "UIDPLUS") {
						want = mail.Appended{}
					}
					if results[i] != want {
						t.Errorf("%s: mail %d: %+v, want %+v", caps, i, results[i], want)
					}
					m := b.Mails[i+int(first)-1]
					if i == 2 {
						text = "Subject: mixed\r\n\r\nbare\r\nboth\r\n\r\r\nalone\rhere\r\n"
					} else {
						text = onWire(text)
					}
					if m.Raw != text {
						t.Errorf("%s: mail %d arrives as %.200q, not %.200q", caps, i, m.Raw, text)
					}
					if m.Flags != `\Seen $Forwarded` || !m.Date.Equal(date) {
						t.Errorf("%s: mail %d: flags %q, date %v", caps, i, m.Flags, m.Date)
					}
				}
			})
		}
		if s.exists != uint32(1+len(oddMails())) {
			t.Errorf("%s: %d messages exist", caps, s.exists)
		}
		if _, err := s.Exchange(t.Context(), "NOOP"); err != nil {
			t.Errorf("%s: afterwards: %v", caps, err)
		}
		_ = s.Close() // the last line
		text := h.String(t)
		if n := strings.Count(text, ` APPEND "Sent`); (n < len(oddMails())) != (strings.HasSuffix(caps, "MULTIAPPEND") && strings.Contains(caps, "LITERAL")) {
			t.Errorf("%s: %d commands", caps, n)
		}
		for _, want := range []string{` APPEND "Sent &- back" (\Seen $Forwarded) " 4-Jul-1996 02:44:25 -0730" {`, ` (\Seen $Forwarded) " 4-Jul-1996 02:44:25 -0730" {2`, "\nC: (2 bytes)\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in the transcript\n%.3000s", caps, want, text)
			}
		}
		if strings.Contains(text, "of letter") {
			t.Errorf("%s: mail is in the transcript", caps)
		}
	}
}

func TestAppendWithoutFlagsAndDate(t *testing.T) {
	t.Parallel()
	server := script(t, "IMAP4rev1 LITERAL+", imaptest.Box("INBOX"))
	s := dialed(t, plain(server.Port()))
	server.Log()
	results, err := s.Append(t.Context(), "INBOX", []mail.Upload{upload(t, "\n", `\Recent`)}, nil, nil)
	if err != nil || results[0].Err != nil {
		t.Fatal(results, err)
	}
	if log := server.Log(); !reflect.DeepEqual(log, []string{`APPEND "INBOX" {2+}`}) {
		t.Errorf("sent %q", log)
	}
	if results, err := s.Append(t.Context(), "INBOX", nil, nil, nil); err != nil || len(results) > 0 {
		t.Error(results, err)
	}
}

// TestAppendRefused has mails refused that stand between others.
func TestAppendRefused(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]mail.Fault{
		"NO [TOOBIG] too large":                                       {Kind: mail.KindNo, Code: "TOOBIG", Text: "too large"},
		"NO [OVERQUOTA] Quota exceeded":                               {Kind: mail.KindNo, Code: "OVERQUOTA", Text: "Quota exceeded"},
		"NO [OVERQUOTA] Account exceeded command or bandwidth limits": {Kind: mail.KindThrottled, Code: "OVERQUOTA", Text: "Account exceeded command or bandwidth limits", RetryAfter: time.Hour},
		"NO [LIMIT 5] too many":                                       {Kind: mail.KindNo, Code: "LIMIT", Text: "too many"},
		"BAD [CLIENTBUG] Additional arguments":                        {Kind: mail.KindBad, Code: "CLIENTBUG", Text: "Additional arguments"},
	} {
		for _, caps := range []string{"IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS LITERAL- ", "IMAP4rev1 UIDPLUS LITERAL+"} {
			box := imaptest.Box("INBOX")
			box.Refuse = func(size int) string {
				if size > 50_000 {
					return answer
				}
				return ""
			}
			locked := imaptest.Box("Locked")
			locked.ReadOnly = true
			s := dialed(t, plain(script(t, caps, box, locked).Port()))
			gone := upload(t, "\n")
			if err := os.Remove(gone.Path); err != nil {
				t.Fatal(err)
			}
			changed := upload(t, "\n")
			changed.Size = 5
			results, err := s.Append(t.Context(), "INBOX", []mail.Upload{
				upload(t, letter(1, 10)), upload(t, letter(2, 60_000)), gone, upload(t, letter(3, 2<<20)), changed,
				upload(t, "\n", "two words"), upload(t, "\n", `\`), upload(t, letter(4, 5000), `\*`), upload(t, letter(5, 5000), "kept]")}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := want
			want.Op, want.Mailbox = "APPEND", "INBOX"
			for _, i := range []int{1, 3} {
				if f, ok := errors.AsType[*mail.Fault](results[i].Err); !ok || *f != want {
					t.Errorf("%s, %s: %+v", answer, caps, results[i].Err)
				}
			}
			if !errors.Is(results[2].Err, fs.ErrNotExist) || !errors.Is(results[4].Err, errChanged) {
				t.Errorf("%v; %v", results[2].Err, results[4].Err)
			}
			for _, i := range []int{5, 6, 7} {
				wantFault(t, results[i].Err, mail.KindBad)
			}
			for i, uid := range map[int]imap.UID{0: 1, 8: 2} {
				if results[i] != (mail.Appended{UIDValidity: 14, UID: uid}) {
					t.Errorf("%s, %s: mail %d: %+v", answer, caps, i, results[i])
				}
			}
			for name, code := range map[string]string{"Nowhere": "TRYCREATE", "Locked": ""} {
				results, err := s.Append(t.Context(), name, []mail.Upload{upload(t, "\n")}, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				if f := wantFault(t, results[0].Err, mail.KindNo); f.Code != code || f.Mailbox != name || results[0].UID != 0 {
					t.Errorf("%s: %+v", name, f)
				}
			}
			if !s.Alive() {
				t.Error("the session is over")
			}
		}
	}
}

// TestAppendRefusedTogether has a mail refused that came with others. None of
// them is stored, and each is on its own.
func TestAppendRefusedTogether(t *testing.T) {
	t.Parallel()
	const caps = "IMAP4rev1 UIDPLUS LITERAL+ MULTIAPPEND"
	for answer, together := range map[string]bool{
		"NO [TOOBIG] too large": true, "BAD several mails": true, "NO [OVERQUOTA] Account exceeded command or bandwidth limits": false,
	} {
		box := imaptest.Box("INBOX")
		box.Refuse = func(size int) string {
			if size > 50_000 {
				return answer
			}
			return ""
		}
		server := script(t, caps, box)
		s := dialed(t, plain(server.Port()))
		uploads := []mail.Upload{upload(t, letter(1, 10)), upload(t, letter(2, 60_000)), upload(t, letter(3, 10)), upload(t, letter(4, 10))}
		uploads[3].Alone = true
		var told []int
		results, err := s.Append(t.Context(), "INBOX", uploads, func(i int, _ mail.Appended) { told = append(told, i) }, nil)
		if err != nil || results[3] != (mail.Appended{UIDValidity: 14, UID: 1}) || !slices.Equal(told, []int{3}) {
			t.Fatalf("%s: %+v, %v; told: %v", answer, results, err, told)
		}
		for i, r := range results[:3] {
			if r.Err == nil || r.Together != together {
				t.Errorf("%s: mail %d: %+v", answer, i, r)
			}
			uploads[i].Alone = true
		}
		results, err = s.Append(t.Context(), "INBOX", uploads[:3], nil, nil)
		if err != nil || results[0].UID != 2 || results[1].Err == nil || results[1].Together || results[2].UID != 3 {
			t.Errorf("%s: %+v, %v", answer, results, err)
		}
		if log := server.Log(); len(log) < 5 || strings.Count(log[len(log)-5], "{") != 3 || strings.Count(log[len(log)-1], "{") != 1 {
			t.Errorf("%s: sent %q", answer, log)
		}
	}
}

// TestAppendCut hangs up after it has stored a mail.
func TestAppendCut(t *testing.T) {
	t.Parallel()
	for caps, want := range map[string]struct{ known, stored int }{
		"IMAP4rev1 UIDPLUS": {2, 3}, "IMAP4rev1 UIDPLUS LITERAL+": {2, 3}, "IMAP4rev1 UIDPLUS LITERAL+ MULTIAPPEND": {0, 5},
	} {
		box := imaptest.Box("INBOX")
		box.HangUpAt = 3
		server := script(t, caps, box)
		s := dialed(t, plain(server.Port()))
		var uploads []mail.Upload
		for i := range 5 {
			uploads = append(uploads, upload(t, letter(i, 10_000)))
		}
		results, err := s.Append(t.Context(), "INBOX", uploads, nil, nil)
		if f := wantFault(t, err, mail.KindCut); f.Op != "APPEND" || f.Mailbox != "INBOX" || s.Alive() || len(results) != 5 {
			t.Fatalf("%+v, alive: %v, %d results", f, s.Alive(), len(results))
		}
		for i, r := range results {
			if i < want.known && r != (mail.Appended{UIDValidity: 14, UID: imap.UID(i + 1)}) || i >= want.known && r != (mail.Appended{Err: err}) {
				t.Errorf("%s: mail %d: %+v", caps, i, r)
			}
		}
		server.With(func(boxes []*imaptest.ScriptBox) {
			if n := len(boxes[0].Mails); n != want.stored {
				t.Errorf("%s: %d mails are stored", caps, n)
			}
		})
		results, err = s.Append(t.Context(), "INBOX", uploads[:1], nil, nil)
		wantFault(t, err, mail.KindCut)
		if len(results) != 1 || results[0].Err == nil {
			t.Error(results)
		}
	}
}

// TestAppendTakesFewRoundTrips counts them over a link of 50 ms, which is slow, so
// that 4 MB go at once, or as fast as any. A busy machine may read more answers at
// once, and so need fewer.
func TestAppendTakesFewRoundTrips(t *testing.T) {
	t.Parallel()
	for _, want := range []struct {
		caps              string
		unheard           time.Duration
		flights, commands int
	}{
		{"IMAP4rev1 UIDPLUS LITERAL+", 0, 3, 500},
		{"IMAP4rev1 UIDPLUS LITERAL+ MULTIAPPEND", 0, 3, 16},
		{"IMAP4rev1 UIDPLUS LITERAL+ MULTIAPPEND", time.Hour, 1, 16},
	} {
		caps := want.caps
		server := script(t, caps, imaptest.Box("INBOX"))
		p, err := imaptest.NewProxy(server.Addr(), 25*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		var n atomic.Int32
		o := plain(p.Port())
		o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &flights{Conn: conn, n: &n}, err
		}
		s := dialed(t, o)
		var uploads []mail.Upload
		for i := range 500 {
			uploads = append(uploads, upload(t, letter(i, 14_000)))
		}
		n.Store(0)
		server.Log()
		s.unheard = want.unheard
		results, err := s.Append(t.Context(), "INBOX", uploads, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if commands := len(server.Log()); int(n.Load()) > want.flights || commands != want.commands {
			t.Errorf("%s: %d round trips and %d commands, want at most %+v", caps, n.Load(), commands, want)
		}
		for i, r := range results {
			if r != (mail.Appended{UIDValidity: 14, UID: imap.UID(i + 1)}) {
				t.Fatalf("%s: mail %d: %+v", caps, i, r)
			}
		}
	}
}

// TestLookInTheFlightOfAppend: the server hears all of it before it says anything,
// and Examine has the answer then, unless something else was asked meanwhile.
func TestLookInTheFlightOfAppend(t *testing.T) {
	t.Parallel()
	const (
		told    = "* 5 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [HIGHESTMODSEQ 9] x\r\n* 5 FETCH (UID 8 FLAGS () MODSEQ (8))\r\n"
		message = "* 5 FETCH (UID 8 FLAGS () RFC822.SIZE 10 BODY[HEADER.FIELDS (MESSAGE-ID)] {27}\r\nMessage-Id: <a@x.example>\r\n)\r\n"
	)
	known := mail.Known{UIDValidity: 3, HighestModSeq: 4}
	for _, c := range []struct {
		name, append, examine string
		between               bool // another command
		ask                   mail.Known
		ahead                 bool
	}{
		{"as it should be", "{tag} OK [APPENDUID 3 8] done", told, false, known, true},
		{"the mail is refused", "{tag} NO [OVERQUOTA] full", told, false, known, true},
		{"something else was asked", "{tag} OK [APPENDUID 3 8] done", told, true, known, false},
		{"of another state", "{tag} OK [APPENDUID 3 8] done", told, false, mail.Known{UIDValidity: 3, HighestModSeq: 5}, false},
		{"the mailbox is refused", "{tag} OK [APPENDUID 3 8] done", "{tag} NO [INUSE] not now\r\n", false, known, false},
		{"QRESYNC is refused", "{tag} OK [APPENDUID 3 8] done", "{tag} BAD what\r\n", false, known, false},
		{"the mailbox is another one", "{tag} OK [APPENDUID 3 8] done", strings.Replace(told, " 3]", " 4]", 1), false, known, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			answer := func(p *peer, tag, text string) {
				if !strings.Contains(text, "{tag}") {
					text += "{tag} OK done\r\n"
				}
				p.send("%s", strings.ReplaceAll(text, "{tag}", tag))
			}
			again := make(chan bool, 1)
			s := dialed(t, plain(serve(t, func(p *peer) {
				p.greet("IMAP4rev1 LITERAL+ UIDPLUS QRESYNC")
				var tags []string
				for range 4 {
					tag, _ := p.command()
					tags = append(tags, tag)
				}
				answer(p, tags[0], c.append+"\r\n")
				answer(p, tags[1], "* ENABLED QRESYNC\r\n")
				answer(p, tags[2], c.examine)
				answer(p, tags[3], message)
				examined := false
				for tag, command := p.command(); tag != ""; tag, command = p.command() {
					examined = examined || strings.HasPrefix(command, "EXAMINE")
					answer(p, tag, told)
				}
				again <- examined
			})))
			then := known
			then.Identify = imap.UIDSet{{Start: 8, Stop: maxUID}}
			results, err := s.Append(t.Context(), "INBOX", []mail.Upload{upload(t, letter(1, 10))}, nil, &then)
			if err != nil || (results[0].Err == nil) != strings.Contains(c.append, "OK") {
				t.Fatalf("%v: %+v", err, results)
			}
			if c.between {
				if _, err := s.List(t.Context(), mail.Listing{}); err != nil {
					t.Fatal(err)
				}
			}
			sel, err := s.Examine(t.Context(), "INBOX", &c.ask)
			if err != nil || sel.Messages != 5 || s.Mailbox() != "INBOX" || c.ahead != (len(sel.Identified) == 1) {
				t.Errorf("%v: %+v", err, sel)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if examined := <-again; examined == c.ahead {
				t.Errorf("asked again: %v", examined)
			}
		})
	}
}

func TestAppendUIDsOfSeveralMails(t *testing.T) {
	t.Parallel()
	for code, want := range map[string][]imap.UID{
		"APPENDUID 14 5:7": {5, 6, 7}, "APPENDUID 14 9,5:6": {9, 5, 6}, "APPENDUID 14 5,6,7": {5, 6, 7},
		"APPENDUID 14 5:6": nil, "APPENDUID 14 5:8": nil, "APPENDUID 14 5,6,7,8": nil, "APPENDUID 14 1:4294967295": nil,
		"APPENDUID 0 5:7": nil, "APPENDUID 14 5,0,7": nil, "APPENDUID 14 5:*": nil, "APPENDUID 14": nil, "COPYUID 14 5:7": nil, "": nil,
	} {
		if validity, uids := appendUID(code, 3); !slices.Equal(uids, want) || (validity == 14) != (want != nil) {
			t.Errorf("%q: %d %v, want %v", code, validity, uids, want)
		}
	}
}

// TestAppendAnswers are odd ones to two mails.
func TestAppendAnswers(t *testing.T) {
	t.Parallel()
	fine := mail.Appended{UIDValidity: 14, UID: 5}
	for answer, want := range map[string]mail.Appended{
		"* 3 EXISTS\r\n* 1 RECENT\r\n* OK Hang in there..\r\n* 1 FETCH (FLAGS ())\r\n{tag} OK [APPENDUID 14 5] done\r\n": fine,
		"{tag} OK [appenduid 14 5]\r\n":                                              fine,
		"\r\nwhat\r\n* XYZZY {3}\r\nabc\r\n+ go on\r\n{tag} OK [APPENDUID 14 5]\r\n": fine,
		"{tag} OK [APPENDUID 1234567890123456 5] done\r\n":                           {UIDValidity: 1234567890123456, UID: 5},
		"{tag} OK [APPENDUID 14 5:6] done\r\n":                                       {},
		"{tag} OK [APPENDUID 14 0] done\r\n":                                         {},
		"{tag} OK [APPENDUID 5] done\r\n":                                            {},
		"{tag} OK done\r\n":                                                          {},
		"* BYE going\r\n{tag} OK [APPENDUID 14 5]\r\n":                               fine,
	} {
		s := answering(t, "IMAP4rev1 LITERAL+", [2]string{"APPEND", answer})
		results, err := s.Append(t.Context(), "INBOX", []mail.Upload{upload(t, "\n"), upload(t, "\n")}, nil, nil)
		if err != nil || results[0] != want || results[1] != want {
			t.Errorf("%q: %+v, %v", answer, results, err)
		}
	}
	// A server that answers all that was sent, and then goes.
	many := make([]mail.Upload, maxFlightCommands+2)
	for i := range many {
		many[i] = upload(t, "\n")
	}
	results, err := answering(t, "IMAP4rev1 LITERAL+", [2]string{"APPEND", "* BYE going\r\n{tag} OK [APPENDUID 14 5]\r\n"}).Append(t.Context(), "INBOX", many, nil, nil)
	if f := wantFault(t, err, mail.KindBye); f.Text != "going" || results[maxFlightCommands-1] != fine || !errors.Is(results[maxFlightCommands].Err, err) {
		t.Errorf("%+v, %+v", f, results)
	}
	// An answer that takes the mail for sent before it was.
	s := dialed(t, plain(serve(t, func(p *peer) {
		p.greet("IMAP4rev1")
		for range 2 {
			tag, _, _ := strings.Cut(p.line(), " ")
			p.send("%s OK [APPENDUID 14 5] done\r\n", tag)
		}
	})))
	results, err = s.Append(t.Context(), "INBOX", []mail.Upload{upload(t, "\n"), upload(t, "\n")}, nil, nil)
	if err != nil || results[0].UID != 0 || results[1].UID != 0 {
		t.Errorf("%+v, %v", results, err)
	}
	wantFault(t, results[0].Err, mail.KindMalformed)
	wantFault(t, results[1].Err, mail.KindMalformed)
}

// TestWireSizes copies mails in pieces of all sizes, as maildir counts them.
func TestWireSizes(t *testing.T) {
	t.Parallel()
	a := new(appending)
	for i := range 200 {
		text := make([]byte, rand.IntN(3*len(a.buf)))
		for j := range text {
			text[j] = "\r\n\r\nab"[rand.IntN(6)]
		}
		u := upload(t, string(text))
		var want []byte
		for j, c := range text {
			if c == '\n' && (j == 0 || text[j-1] != '\r') {
				want = append(want, '\r')
			}
			want = append(want, c)
		}
		var r io.Reader = bytes.NewReader(text)
		switch i % 3 {
		case 1:
			r = iotest.OneByteReader(r)
		case 2:
			r = iotest.DataErrReader(r)
		}
		var got bytes.Buffer
		size, err := a.copy(&got, r)
		if err != nil || size != u.Size || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%d bytes, %v; want %d", size, err, u.Size)
		}
	}
}
