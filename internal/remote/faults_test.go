package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// outcome is what becomes of message 5 when it is asked for beside 6 and 7, and
// then alone.
type outcome struct {
	batch   mail.Kind // of Fetch's error; 0: none
	came    bool      // 5 comes with the batch
	others  bool      // 6 and 7 do
	alone   mail.Kind // of FetchOne's error; 0: it comes
	alive   bool      // the connection outlives both
	says    string    // in the text of FetchOne's fault
	dropped bool      // a note is made
}

// faults are the ways in which servers are known to break the rules, by the
// names that they have in the trials of imapclient: what is written there as
// "hangs for ever", "dead" or "nil error, body missing" ends in a fault or in a
// note here. {five} is message 5 as it should be; {hangup}, {reset} and {hang}
// end what the server says.
func faults() map[string]struct {
	answer string
	want   outcome
} {
	type row = struct {
		answer string
		want   outcome
	}
	fine := outcome{came: true, others: true, alive: true}
	noted := outcome{came: true, others: true, alive: true, dropped: true}
	noData := outcome{others: true, alone: mail.KindNoData, alive: true}
	dead := func(kind mail.Kind) outcome { return outcome{batch: kind, alone: kind} }
	body := "BODY[] " + lit()
	return map[string]row{
		"OK with no data":                  {"", noData},
		"attributes without the body":      {"* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 40)\r\n", noData},
		"NO":                               {"{tag} NO [UNAVAILABLE] UID FETCH Server error while fetching messages\r\n", outcome{batch: mail.KindNo, alone: mail.KindNo, alive: true, says: "Server error"}},
		"BAD":                              {"{tag} BAD Command Argument Error. 11\r\n", outcome{batch: mail.KindBad, alone: mail.KindBad, alive: true, says: "Error. 11"}},
		"untagged NO":                      {"* NO message store is broken\r\n", outcome{others: true, alone: mail.KindNoData, alive: true, says: "store is broken"}},
		"untagged BAD":                     {"* BAD Request is throttled. Suggested Backoff Time: 1500 milliseconds\r\n{tag} NO failed\r\n", outcome{batch: mail.KindThrottled, alone: mail.KindThrottled, alive: true, says: "throttled"}},
		"BYE then close":                   {"* BYE [UNAVAILABLE] Cached message size larger than expected\r\n{hangup}", outcome{batch: mail.KindBye, alone: mail.KindBye, says: "Cached message size"}},
		"BYE then silence":                 {"* BYE come back tomorrow\r\n{hang}", outcome{batch: mail.KindBye, alone: mail.KindBye, says: "tomorrow"}},
		"EOF before any byte":              {"{hangup}", dead(mail.KindCut)},
		"EOF inside a line":                {"* 1 FETCH (UID 5 FLA{hangup}", dead(mail.KindCut)},
		"EOF inside a literal":             {"* 1 FETCH (UID 5 FLAGS () BODY[] {5000}\r\nSubject: x{hangup}", dead(mail.KindCut)},
		"RST inside a literal":             {"* 1 FETCH (UID 5 FLAGS () BODY[] {5000}\r\nSubject: x{reset}", dead(mail.KindCut)},
		"literal size unlike RFC822.SIZE":  {"* 1 FETCH (UID 5 FLAGS () RFC822.SIZE 4000000 " + body + ")\r\n", fine},
		"announced literal too small":      {"* 1 FETCH (UID 5 FLAGS () BODY[] {10}\r\n" + testBody + ")\r\n", dead(mail.KindShort)},
		"announced literal too large":      {"* 1 FETCH (UID 5 FLAGS () BODY[] {90000}\r\n" + testBody + ")\r\n", outcome{batch: mail.KindShort, alone: mail.KindShort, says: "fewer come"}},
		"item list without an end":         {"* 1 FETCH (UID 5 FLAGS () " + body + "\r\n", dead(mail.KindShort)},
		"silence before any byte":          {"{hang}", dead(mail.KindSilent)},
		"half a line":                      {"* 1 FETCH (UID {hang}", dead(mail.KindSilent)},
		"silence inside a literal":         {"* 1 FETCH (UID 5 FLAGS () BODY[] {5000}\r\nSubject: x{hang}", dead(mail.KindSilent)},
		"literal of 4 GB":                  {"* 1 FETCH (UID 5 FLAGS () BODY[] {4294967295}\r\nSubject: x{hang}", dead(mail.KindTooLarge)},
		"NIL body":                         {"* 1 FETCH (UID 5 FLAGS () BODY[] NIL)\r\n", noData},
		"empty string":                     {"* 1 FETCH (UID 5 FLAGS () BODY[] \"\")\r\n", noData},
		"empty literal":                    {"* 1 FETCH (UID 5 FLAGS () BODY[] {0}\r\n)\r\n", noData},
		"body as an atom":                  {"* 1 FETCH (UID 5 FLAGS () BODY[] 42)\r\n", noData},
		"no UID":                           {"* 1 FETCH (FLAGS () " + body + ")\r\n", outcome{others: true, alive: true, dropped: true}},
		"no UID, two bodies":               {"* 1 FETCH (FLAGS () " + body + ")\r\n* 2 FETCH (FLAGS () " + body + ")\r\n", outcome{others: true, alone: mail.KindNoData, alive: true, dropped: true}},
		"no UID beside the right one":      {"* 4 FETCH (FLAGS () BODY[] \"another\")\r\n{five}", noted},
		"UID 0":                            {"* 1 FETCH (UID 0 FLAGS () " + body + ")\r\n", outcome{others: true, alone: mail.KindNoData, alive: true, dropped: true}},
		"UID after the literal":            {"* 1 FETCH (FLAGS () " + body + " UID 5)\r\n", fine},
		"UID not asked for":                {"* 1 FETCH (UID 995 FLAGS () " + body + ")\r\n", outcome{others: true, alone: mail.KindNoData, alive: true, dropped: true}},
		"duplicate FETCH":                  {"{five}{five}", fine},
		"flag update before the body":      {"* 1 FETCH (UID 5 FLAGS (\\Deleted))\r\n{five}", fine},
		"flag update without UID":          {"* 9 FETCH (FLAGS (\\Deleted))\r\n* 1 FETCH (UID 5 " + body + ")\r\n* 1 FETCH (FLAGS ())\r\n", fine},
		"split FETCH":                      {"* 1 FETCH (UID 5 FLAGS ())\r\n* 1 FETCH (UID 5 INTERNALDATE \" 2-Jan-2020 03:04:05 +0000\")\r\n* 1 FETCH (UID 5 " + body + ")\r\n", fine},
		"body before its flags":            {"* 1 FETCH (UID 5 " + body + ")\r\n* 1 FETCH (UID 5 FLAGS ())\r\n", fine},
		"unknown response code":            {"* OK [XYZZY (a \"b] c] d\" e)] text\r\n{five}", fine},
		"COPYUID with a star":              {"* OK [COPYUID 124 10 *] x\r\n* [COPYUID 124 10 233]\r\n{five}", noted},
		"unknown untagged line":            {"* XYZZY (a (b \"c\")) {3}\r\n) (\r\n{five}", noted},
		"garbage line":                     {"\x00\xff%$ ( \" \\ )\r\n{five}", noted},
		"empty line":                       {"\r\n\r\n{five}", fine},
		"unknown tag":                      {"A99 OK done\r\n{five}", noted},
		"a continuation nobody waits for":  {"+ go on\r\n{five}", fine},
		"X-GM attributes":                  {"* 1 FETCH (X-GM-MSGID 1278455344230334865 X-GM-LABELS (\"\\\\Inbox\" a]b &AOk-) UID 5 FLAGS () " + body + ")\r\n", fine},
		"bad ENVELOPE":                     {"* 1 FETCH (UID 5 ENVELOPE (\"d\" \"say \"hi\", he said\" (((\"\" NIL x)) 7)) FLAGS () " + body + ")\r\n", fine},
		"ENVELOPE without an end":          {"* 1 FETCH (UID 5 ENVELOPE (\"d\" ((NIL x) FLAGS () " + body + ")\r\n", dead(mail.KindShort)},
		"bad BODYSTRUCTURE on its own":     {"* 1 FETCH (UID 5 BODYSTRUCTURE (\"text\" NIL ((((NIL)\r\n{five}", noted},
		"bad INTERNALDATE, SIZE -1":        {"* 1 FETCH (UID 5 INTERNALDATE \"35-Foo-1900\" RFC822.SIZE -1 FLAGS () " + body + ")\r\n", fine},
		"flags with ] or quotes or 0x85":   {"* 1 FETCH (UID 5 FLAGS (a]b \"c d\" \x85 {x ~y \\) " + body + ")\r\n", fine},
		"NUL, 8-bit, bare LF before":       {"* OK \x00 caf\xe9\n{five}", fine},
		"other people's mail and expunges": {"* 12 EXISTS\r\n* 3 RECENT\r\n* 9 EXPUNGE\r\n* VANISHED 77\r\n* FLAGS (\\Seen)\r\n* 8 FETCH (FLAGS (\\Seen) UID 60)\r\n{five}", fine},
		"10,000 brackets":                  {"* 1 FETCH (UID 5 BODYSTRUCTURE " + strings.Repeat("(", 10_000) + "\r\n{five}", noted},
		"4 MB of brackets":                 {"* 1 FETCH (UID 5 BODYSTRUCTURE " + strings.Repeat("(", 4<<20) + "\r\n{five}", noted},
		"a line of 20 MB":                  {"* 1 FETCH (UID 5 ENVELOPE (\"" + strings.Repeat("x", 20<<20) + "\"))\r\n{five}", dead(mail.KindTooLarge)},
		"a status line of 100 KB":          {"* OK " + strings.Repeat("x", 100<<10) + "\r\n{five}", dead(mail.KindTooLarge)},
		"no end of mails":                  {strings.Repeat("* 1 FETCH (UID 995 FLAGS () BODY[] {65536}\r\n"+strings.Repeat("x", 1<<16)+")\r\n", 40), outcome{batch: mail.KindTooLarge, alone: mail.KindTooLarge, dropped: true}},
		"throttled":                        {"{tag} BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n", outcome{batch: mail.KindThrottled, alone: mail.KindThrottled, alive: true, says: "299961"}},
		"over quota":                       {"{tag} NO [OVERQUOTA] Account exceeded command or bandwidth limits.\r\n", outcome{batch: mail.KindThrottled, alone: mail.KindThrottled, alive: true}},
		"authenticated, not connected":     {"{tag} BAD User is authenticated but not connected.\r\n", outcome{batch: mail.KindNotConnected, alone: mail.KindNotConnected, alive: true}},
		"too many connections":             {"{tag} NO [ALERT] Too many simultaneous connections. (Failure)\r\n", outcome{batch: mail.KindCrowded, alone: mail.KindCrowded, alive: true}},
		"everything there, and NO":         {"{five}{rest}{tag} NO Some of the requested messages no longer exist.\r\n", outcome{batch: mail.KindNo, came: true, others: true, alive: true}},
	}
}

// say sends an answer of the table.
func (p *peer) say(answer, tag, rest string) (goOn bool) {
	five := "* 1 FETCH (UID 5 FLAGS () INTERNALDATE \" 2-Jan-2020 03:04:05 +0000\" RFC822.SIZE 40 BODY[] " + lit() + ")\r\n"
	tagged := strings.Contains(answer, "{tag}")
	placed := strings.Contains(answer, "{rest}")
	answer = strings.NewReplacer("{five}", five, "{tag}", tag, "{rest}", rest).Replace(answer)
	for _, end := range []string{"{hangup}", "{reset}", "{hang}"} {
		before, ok := strings.CutSuffix(answer, end)
		if !ok {
			continue
		}
		p.send("%s", before)
		switch end {
		case "{reset}":
			_ = p.Conn.(*net.TCPConn).SetLinger(0) // else it is an ordinary end
		case "{hang}":
			p.hang()
		}
		return false
	}
	if !placed && !tagged {
		answer += rest
	}
	if !tagged {
		answer += tag + " OK done\r\n"
	}
	p.send("%s", answer)
	return true
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, c := range faults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			notes := 0
			set := func(o *Options) {
				o.MaxLiteral = 1 << 20
				o.Note, o.Alert = func(string) { mu.Lock(); notes++; mu.Unlock() }, func(string) {}
			}
			script := func(p *peer) {
				for {
					tag, command := p.command()
					rest := ""
					switch {
					case tag == "":
						return
					case strings.HasPrefix(command, "EXAMINE"):
						p.send("* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n%s OK x\r\n", tag)
						continue
					case strings.HasPrefix(command, "UID FETCH 5:7"):
						rest = "* 2 FETCH (UID 6 FLAGS () BODY[] \"six\")\r\n* 3 FETCH (UID 7 FLAGS () BODY[] \"seven\")\r\n"
					}
					if !p.say(c.answer, tag, rest) {
						return
					}
				}
			}
			// A silence is over when nobody has more to say: a busy machine is not silent.
			if slices.Contains([]mail.Kind{mail.KindSilent, mail.KindShort, mail.KindBye}, c.want.batch) {
				synctest.Test(t, func(t *testing.T) {
					meets(t, c.answer, c.want, &notes, func() *Session { return pipe(t, time.Minute, "IMAP4rev1", script, set) })
				})
				return
			}
			o := plain(serve(t, func(p *peer) { p.greet("IMAP4rev1"); script(p) }))
			set(&o)
			meets(t, c.answer, c.want, &notes, func() *Session { return dialed(t, o) })
		})
	}
}

// meets asks a server that answers so for message 5, beside others and alone, each time in a session
// of its own.
func meets(t *testing.T, answer string, wanted outcome, notes *int, dial func() *Session) {
	t.Helper()
	try := func(f func(s *Session, b *basket) error) (*Session, basket, error) {
		s := dial()
		if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
			t.Fatal(err)
		}
		var b basket
		err := f(s, &b)
		if opened := len(b.got) + b.discarded; b.opened != opened {
			t.Errorf("%d spools were opened, %d came back", b.opened, opened)
		}
		for i, m := range b.got {
			if m.UID == 5 && (b.bodies[i] != testBody || m.BodySize != int64(len(testBody)) || m.Flags == nil || slices.Contains(m.Flags, `\Deleted`)) {
				t.Errorf("%+v with %q", m, b.bodies[i])
			}
		}
		if s.Alive() != wanted.alive {
			t.Errorf("alive: %v, want %v", s.Alive(), wanted.alive)
		}
		return s, b, err
	}

	_, b, err := try(func(s *Session, b *basket) error {
		return s.Fetch(t.Context(), imap.UIDSet{{Start: 5, Stop: 7}}, b.sink())
	})
	if wanted.batch == 0 && err != nil {
		t.Fatalf("batch: %v", err)
	}
	if wanted.batch != 0 {
		if f := wantFault(t, err, wanted.batch); f.Op != "UID FETCH" || f.Mailbox != "INBOX" {
			t.Errorf("batch: %+v", f)
		}
	}
	var came []imap.UID
	for _, m := range b.got {
		came = append(came, m.UID)
	}
	var want []imap.UID
	if wanted.came {
		want = append(want, 5)
	}
	if wanted.others {
		want = append(want, 6, 7)
	}
	slices.Sort(came)
	if !slices.Equal(came, want) {
		t.Errorf("the batch brought %v, want %v", came, want)
	}

	var ex *mail.Exchange
	_, b, err = try(func(s *Session, b *basket) (err error) {
		ex, err = s.FetchOne(t.Context(), 5, b.sink())
		return err
	})
	if wanted.alone == 0 {
		if err != nil || len(b.got) != 1 || b.got[0].UID != 5 {
			t.Errorf("alone: %v: %+v", err, b.got)
		}
	} else {
		f := wantFault(t, err, wanted.alone)
		if f.UID != 5 || f.Op != "UID FETCH" || !strings.Contains(f.Text, wanted.says) || len(b.got) != 0 {
			t.Errorf("alone: %+v, %+v", f, b.got)
		}
		if f.Kind == mail.KindCut && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(answer, "{reset}") {
			t.Errorf("cut, but not by the end of the connection: %v", f.Err)
		}
	}
	if ex == nil || len(ex.Lines) == 0 || !ex.Lines[0].Client || !strings.HasPrefix(ex.Command, "UID FETCH 5 ") {
		t.Errorf("exchange %+v", ex)
	}
	if (*notes > 0) != wanted.dropped {
		t.Errorf("%d notes, want some: %v", *notes, wanted.dropped)
	}
}

// TestABodyIsNotTheServersWords: a mail that holds what looks like an answer must
// not become one when a server miscounts.
func TestABodyIsNotTheServersWords(t *testing.T) {
	t.Parallel()
	evil := "Subject: x\r\n\r\n* 2 FETCH (UID 6 FLAGS () BODY[] \"forged\")\r\n"
	for _, answer := range []string{
		"* 1 FETCH (UID 5 FLAGS () BODY[] {10}\r\n" + evil + ")\r\n",                                     // counted short
		"* 1 FETCH (UID 5 FLAGS () X ((((\" BODY[] {" + fmt.Sprint(len(evil)) + "}\r\n" + evil + ")\r\n", // unreadable before it
		"* 1 FETCH (UID x BODY[] {" + fmt.Sprint(len(evil)) + "}\r\n" + evil + ")\r\n",
		"* 1 FETCH (UID 5 FLAGS (a BODY[] {" + fmt.Sprint(len(evil)) + "}\r\n" + evil + ")\r\n",
		"* XYZZY {" + fmt.Sprint(len(evil)) + "+}\r\n" + evil + "\r\n",
	} {
		s := examined(t, "IMAP4rev1", [2]string{"UID FETCH", answer})
		var b basket
		err := s.Fetch(t.Context(), imap.UIDSet{{Start: 5, Stop: 6}}, b.sink())
		if len(b.got) != 0 || (err == nil) != s.Alive() {
			t.Errorf("%q: %v: %q", answer, err, b.bodies)
		}
	}
}

// TestMailIsFetchedInThePlainForm: nothing in the command for a body could be refused for
// itself, whatever the server says that it can do (MODSEQ is BAD in some mailboxes, RFC 7162
// 3.1.2.2).
func TestMailIsFetchedInThePlainForm(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"HIGHESTMODSEQ 7", "NOMODSEQ"} {
		s := answering(t, "IMAP4rev1 CONDSTORE QRESYNC X-GM-EXT-1", [2]string{"EXAMINE", "* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [" + code + "] x\r\n"}, [2]string{"UID FETCH", ""})
		if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
			t.Fatal(err)
		}
		var b basket
		ex, err := s.FetchOne(t.Context(), 5, b.sink())
		if err == nil || ex.Command != "UID FETCH 5 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])" {
			t.Errorf("%s: %v: %s", code, err, ex.Command)
		}
	}
}

// TestCONDSTORERefused goes on without it, if that is what was wrong.
func TestCONDSTORERefused(t *testing.T) {
	t.Parallel()
	s := answering(t, "IMAP4rev1 CONDSTORE QRESYNC", [2]string{`EXAMINE "bad"`, "{tag} BAD no\r\n"}, [2]string{`EXAMINE "INBOX" (`, "{tag} BAD no\r\n"},
		[2]string{"EXAMINE", "* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [HIGHESTMODSEQ 4] x\r\n"})
	_, err := s.Examine(t.Context(), "bad", nil)
	if f := wantFault(t, err, mail.KindBad); f.Mailbox != "bad" || !s.Has("QRESYNC") || s.Mailbox() != "" {
		t.Errorf("%+v, %v", f, s.Capabilities())
	}
	sel, err := s.Examine(t.Context(), "INBOX", nil)
	if err != nil || sel.HighestModSeq != 0 || s.Has("CONDSTORE") || s.Has("QRESYNC") {
		t.Errorf("%v: %+v, %v", err, sel, s.Capabilities())
	}
}

// TestOddNamesOfMailboxes: each has a name of its own here, every session finds
// them by it, and nothing in it becomes a command.
func TestOddNamesOfMailboxes(t *testing.T) {
	t.Parallel()
	wires := []string{"Entw\xfcrfe", "Entw%FCrfe", "&AOk-", "\xc3\xa9", "A&b", "A&-b", "a\"b\\c", "tab\there", "&AAo-", "&ZeVnLIqe-", "INBOX", "Inbox"}
	list := ""
	for _, w := range wires {
		list += fmt.Sprintf("* LIST () \"/\" {%d}\r\n%s\r\n", len(w), w)
	}
	var mu sync.Mutex
	var said []string
	port := serve(t, func(p *peer) {
		p.greet("IMAP4rev1")
		for {
			tag, command := p.command()
			if tag == "" {
				return
			}
			name := strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(strings.Trim(strings.TrimPrefix(command, "EXAMINE "), `"`))
			switch {
			case strings.HasPrefix(command, "LIST"):
				p.send("%s", list)
			case strings.HasPrefix(command, "EXAMINE") && !slices.Contains(wires, name):
				p.send("%s NO no such mailbox\r\n", tag)
				continue
			case strings.HasPrefix(command, "EXAMINE"):
				mu.Lock()
				said = append(said, name)
				mu.Unlock()
				p.send("* 0 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n")
			default: // STATUS
				p.send("%s NO not now\r\n", tag)
				continue
			}
			p.send("%s OK done\r\n", tag)
		}
	})
	s := dialed(t, plain(port))
	boxes, err := s.List(t.Context(), mail.Listing{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range boxes {
		names = append(names, b.Name)
		if b.Status != nil || b.Err == nil {
			t.Errorf("%q: %+v, %v", b.Name, b.Status, b.Err)
		}
	}
	want := []string{"Entw%FCrfe%", "Entw%FCrfe", "é", "é%", "A&b%", "A&b", `a"b\c`, "tab%09here", "&AAo-", "日本語", "INBOX"}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("names %q\nwant  %q", names, want)
	}
	other := dialed(t, plain(port)) // it has not listed them
	for _, session := range []*Session{s, other} {
		said = nil
		for _, name := range names {
			if sel, err := session.Examine(t.Context(), name, nil); err != nil || sel.UIDValidity != 1 || session.Mailbox() != name {
				t.Errorf("EXAMINE %q: %v", name, err)
			}
		}
		mu.Lock()
		if session == s && !slices.Equal(said, wires[:len(wires)-1]) {
			t.Errorf("on the wire %q\nwant        %q", said, wires)
		}
		mu.Unlock()
	}
}

// TestAPersonMayTakeTimeForThePassword: the server's silence meanwhile is none.
func TestAPersonMayTakeTimeForThePassword(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := pipe(t, time.Minute, "IMAP4rev1", (*peer).hang, func(o *Options) {
			o.Password = func(context.Context) (string, error) {
				time.Sleep(2 * o.Timeout) // of the bubble
				return testSecret, nil
			}
		})
		if s.Greeting() != "ready" || !s.Alive() {
			t.Errorf("greeting %q", s.Greeting())
		}
	})
}

// TestPasswordThatCannotBeHad is no fault of the server's.
func TestPasswordThatCannotBeHad(t *testing.T) {
	t.Parallel()
	o := plain(serve(t, func(p *peer) {
		p.send("* OK [CAPABILITY IMAP4rev1] x\r\n")
		if line := p.line(); line != "" {
			t.Errorf("the client said %q", line)
		}
	}))
	locked := errors.New("the keyring is locked")
	o.Password = func(context.Context) (string, error) { return "", locked }
	_, err := Dial(t.Context(), o)
	if _ = wantFault(t, err, mail.KindSecret); !errors.Is(err, locked) {
		t.Errorf("%v", err)
	}
}

// TestCapabilitiesAreAskedForOnce, and only where they are not told.
func TestCapabilitiesAreAskedForOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before, code string // before and in the answer to LOGIN
		want               []string
	}{
		{"in the answer", "", "[CAPABILITY IMAP4rev1 IDLE] ", []string{"LOGIN"}},
		{"before the answer", "* CAPABILITY IMAP4rev1 IDLE\r\n", "", []string{"LOGIN"}},
		{"not told", "", "", []string{"LOGIN", "CAPABILITY"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said := make(chan string, 20)
			o := plain(serve(t, func(p *peer) {
				p.send("* OK [CAPABILITY IMAP4rev1 CONDSTORE] ready\r\n")
				for {
					tag, command := p.command()
					word, _, _ := strings.Cut(command, " ")
					said <- word
					switch word {
					case "LOGIN":
						p.send("%s%s OK %sin\r\n", c.before, tag, c.code)
					case "CAPABILITY":
						p.send("* CAPABILITY IMAP4rev1 IDLE\r\n%s OK done\r\n", tag)
					default:
						return
					}
				}
			}))
			s := dialed(t, o)
			if caps := s.Capabilities(); !slices.Equal(caps, []string{"IDLE", "IMAP4REV1"}) {
				t.Errorf("capabilities %v", caps)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			for _, word := range append(c.want, "LOGOUT") {
				if got := <-said; got != word {
					t.Errorf("the client said %s, want %s", got, word)
				}
			}
		})
	}
}

// TestLateLinesOfTheSignIn are the first command's.
func TestLateLinesOfTheSignIn(t *testing.T) {
	t.Parallel()
	o := plain(serve(t, func(p *peer) {
		p.greet("IMAP4rev1 LIST-STATUS")
		// What follows the sign-in comes in pieces.
		p.send("* LIST () \"/\" ")
		tag, _ := p.command()
		p.send("\"Late\"\r\n* STATUS Late (MESSAGES 3)\r\n%s OK done\r\n", tag)
		p.hang()
	}))
	for range 20 {
		boxes, err := dialed(t, o).List(t.Context(), mail.Listing{})
		if err != nil || len(boxes) > 1 {
			t.Fatalf("%v: %+v", err, boxes)
		}
		if len(boxes) == 1 && (boxes[0].Name != "Late" || boxes[0].Status == nil) {
			t.Errorf("%+v", boxes[0])
		}
	}
}

// TestWhatIsAskedForIsChecked before it is sent: the session outlives it.
func TestWhatIsAskedForIsChecked(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"NOOP", "* 5 EXISTS\r\n* STATUS a (MESSAGES 1)\r\n* XYZZY {3}\r\nabc z\r\n"})
	for _, command := range []string{"NOOP\r\nx DELETE INBOX", "NOOP\nx", "NOOP \x00"} {
		if _, err := s.Exchange(t.Context(), command); err == nil || !s.Alive() {
			t.Errorf("%q: %v", command, err)
		}
	}
	var b basket
	if err := s.Fetch(t.Context(), nil, b.sink()); err != nil || len(b.got) != 0 {
		t.Errorf("nothing was asked for, and %v, %v came", err, b.got)
	}
	ex, err := s.Exchange(t.Context(), "NOOP")
	if want := []string{"5 EXISTS", "STATUS a (MESSAGES 1)", "XYZZY {3} z"}; err != nil || !slices.Equal(ex.Untagged, want) {
		t.Errorf("%v: %q", err, ex.Untagged)
	}
}

// TestAfterBYE the session is over, though the answer came.
func TestAfterBYE(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"NOOP", "* BYE Session expired, please login again\r\n{tag} OK done\r\n"})
	if ex, err := s.Exchange(t.Context(), "NOOP"); err != nil || ex.Status != "OK" || s.Alive() {
		t.Errorf("%v: %+v", err, ex)
	}
	_, err := s.List(t.Context(), mail.Listing{})
	_ = wantFault(t, err, mail.KindCut)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSetsAreSentInOrder whatever order they are in, and without a star.
func TestSetsAreSentInOrder(t *testing.T) {
	t.Parallel()
	s := examined(t, "IMAP4rev1", [2]string{"UID FETCH 3:5,9,20:4294967295 (UID FLAGS)", "* 1 FETCH (UID 9 FLAGS ())\r\n* 2 FETCH (UID 7 FLAGS ())\r\n* 3 FETCH (UID 99 FLAGS ())\r\n"},
		[2]string{"UID SEARCH ALL", "* SEARCH 3 2 9\r\n"})
	got, err := s.Flags(t.Context(), imap.UIDSet{{Start: 20, Stop: 0}, {Start: 9, Stop: 9}, {Start: 5, Stop: 3}}, 0)
	if err != nil || len(got) != 2 || got[0].UID != 9 || got[1].UID != 99 {
		t.Errorf("%v: %+v", err, got)
	}
	found, err := s.Search(t.Context(), imap.UIDSet{{Start: 1, Stop: 0}})
	if err != nil || found.String() != "2:3,9" {
		t.Errorf("%v: %v", err, found)
	}
}

// TestManyFlags of a mailbox of 100,000 messages: a reader whose cost grows with the
// square of their number would not end.
func TestManyFlags(t *testing.T) {
	t.Parallel()
	const n = 100_000
	var answer strings.Builder
	for i := range n {
		fmt.Fprintf(&answer, "* %d FETCH (UID %d FLAGS (\\Seen $Forwarded Label%d))\r\n", i+1, 2*i+1, i%10)
	}
	s := answering(t, "IMAP4rev1", [2]string{"EXAMINE", fmt.Sprintf("* %d EXISTS\r\n* OK [UIDVALIDITY 14] ids\r\n", n)}, [2]string{"UID FETCH", answer.String()})
	if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
		t.Fatal(err)
	}
	got, err := s.Flags(t.Context(), imap.UIDSet{{Start: 1, Stop: 0}}, 0)
	if err != nil || len(got) != n || got[n-1].UID != 2*n-1 || !slices.Equal(got[n-1].Flags, []string{`\Seen`, "$Forwarded", "Label9"}) {
		t.Fatalf("%v: %d messages", err, len(got))
	}
}
