package remote

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// endless is a session with a server that answers commands that begin so with this again and
// again, until the connection is cut; taken counts the bytes.
func endless(t *testing.T, caps, command, again string) (s *Session, taken *atomic.Int64) {
	t.Helper()
	taken = new(atomic.Int64)
	again = strings.Repeat(again, max(1, 64<<10/len(again)))
	o := plain(serve(t, func(p *peer) {
		p.greet("IMAP4rev1 " + caps)
		for {
			tag, said := p.command()
			switch {
			case tag == "":
				return
			case strings.HasPrefix(said, command):
				for {
					n, err := p.Write([]byte(again))
					taken.Add(int64(n))
					if err != nil {
						return
					}
				}
			case strings.HasPrefix(said, "EXAMINE"):
				p.send("* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n")
			}
			p.send("%s OK done\r\n", tag)
		}
	}))
	o.Timeout = 5 * time.Minute
	return dialed(t, o), taken
}

// What is never finished ends with a fault, and long before it fills the memory: what a server
// may say is bounded by what it is asked for, and by the size of the mailbox.
func TestNoEndOfAnswers(t *testing.T) {
	t.Parallel()
	all := imap.UIDSet{{Start: 1, Stop: 0}}
	flags := func(s *Session) error {
		_, err := s.Flags(t.Context(), all, 0)
		return err
	}
	search := func(s *Session) error {
		_, err := s.Search(t.Context(), all)
		return err
	}
	list := func(s *Session) error {
		_, err := s.List(t.Context(), mail.Listing{})
		return err
	}
	resync := func(s *Session) error {
		_, err := s.Examine(t.Context(), "Other", &mail.Known{UIDValidity: 1, HighestModSeq: 3})
		return err
	}
	for name, c := range map[string]struct {
		caps, command, again string
		do                   func(*Session) error
		most                 int64 // bytes from the server
	}{
		"SEARCH, one line":     {"", "UID SEARCH", "* SEARCH 1" + strings.Repeat(" 3 5 7 9", 1<<18) + "\r\n", search, 4 << 20},
		"SEARCH, many lines":   {"", "UID SEARCH", "* SEARCH 1 3 5 7 9\r\n", search, 4 << 20},
		"ESEARCH":              {"ESEARCH", "UID SEARCH", "* ESEARCH UID ALL 1,3,5,7,9\r\n", search, 4 << 20},
		"FETCH, one message":   {"", "UID FETCH", "* 1 FETCH (UID 9 FLAGS (\\Seen " + strings.Repeat("x", 500) + "))\r\n", flags, 32 << 20},
		"FETCH with a literal": {"", "UID FETCH", "* 1 FETCH (UID 9 FLAGS () BODY[HEADER.FIELDS (MESSAGE-ID)] {1000}\r\n" + strings.Repeat("x", 1000) + ")\r\n", flags, 32 << 20},
		"FETCH of nobody":      {"", "UID SEARCH", "* 1 FETCH (UID 9 FLAGS (\\Seen))\r\n", search, 4 << 20},
		"VANISHED":             {"ENABLE QRESYNC", "EXAMINE", "* VANISHED (EARLIER) 1" + strings.Repeat(",3000000003,3000000005,3000000007,3000000009", 200) + "\r\n", resync, 32 << 20},
		"FETCH with QRESYNC":   {"ENABLE QRESYNC", "EXAMINE", "* 1 FETCH (UID 9 FLAGS (\\Seen))\r\n", resync, 32 << 20},
		"LIST":                 {"", "LIST", "* LIST () \"/\" a\r\n", list, 128 << 20},
		"STATUS":               {"LIST-STATUS", "LIST", "* STATUS \"" + strings.Repeat("a", 4000) + "\" (MESSAGES 1)\r\n", list, 128 << 20},
		"EXISTS":               {"", "UID SEARCH", "* 9 EXISTS\r\n", search, 4 << 20},
		"OK":                   {"", "UID SEARCH", "* OK Still here\r\n", search, 4 << 20},
		"unknown":              {"", "UID SEARCH", "* XYZZY\r\n", search, 4 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			s, taken := endless(t, c.caps, c.command, c.again)
			if c.command != "EXAMINE" {
				if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
					t.Fatal(err)
				}
			}
			f := wantFault(t, c.do(s), mail.KindTooLarge)
			// The sockets between hold some megabytes.
			if n := taken.Load(); n > c.most+8<<20 || s.Alive() {
				t.Errorf("%d bytes were taken, %v", n, f)
			}
		})
	}
}

// What is kept of answers is no more than there can be messages.
func TestWhatIsKeptOfAnswers(t *testing.T) {
	t.Parallel()
	many := new(strings.Builder)
	many.WriteString("* 9 EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n")
	for range 50_000 {
		many.WriteString("* 1 FETCH (UID 9 FLAGS ())\r\n")
	}
	s := answering(t, "IMAP4rev1", [2]string{"EXAMINE", many.String()})
	var sel selecting
	_, err := s.command(t.Context(), `EXAMINE "INBOX"`, s.selecting(&sel))
	wantFault(t, err, mail.KindTooLarge)
	if n := cap(sel.Changed); n > 4000 {
		t.Errorf("room for %d messages of 9", n)
	}

	other := new(strings.Builder)
	for uid := range 50_000 {
		other.WriteString("* 1 FETCH (UID ")
		other.WriteString(strings.Repeat("1", 1+uid%5))
		other.WriteString(" FLAGS ())\r\n")
	}
	s = examined(t, "IMAP4rev1", [2]string{"UID FETCH", other.String()})
	got, err := s.Flags(t.Context(), imap.UIDSet{{Start: 1, Stop: 0}}, 0)
	if err != nil || len(got) != 5 {
		t.Errorf("%v: %d messages", err, len(got))
	}
}

// Signs of life alone are no answer: they keep a command waiting for an hour, not for ever. A
// server that goes on with its answer between them is waited for.
func TestSignsOfLifeAreNoAnswer(t *testing.T) {
	for name, goesOn := range map[string]bool{"nothing else": false, "an answer between them": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				s := newSession(ours, Options{Timeout: time.Minute})
				s.maxLine, s.maxLiteral, s.maxNoise = maxData, maxData, maxNoise
				var wg sync.WaitGroup
				wg.Go(func() {
					p := &peer{Conn: theirs, r: bufio.NewReader(theirs)}
					tag, _ := p.command()
					for i := range 10_000 {
						if _, err := p.Write([]byte("* OK Still here\r\n")); err != nil {
							return
						}
						if goesOn && i%100 == 0 {
							p.send("* LIST () \"/\" INBOX\r\n")
						}
						time.Sleep(time.Second) // of the bubble
					}
					p.send("%s OK done\r\n", tag)
				})
				begun := time.Now()
				boxes, err := s.list(t.Context(), "", make(statusMap))
				if goesOn {
					if err != nil || len(boxes) != 1 {
						t.Errorf("%v: %+v", err, boxes)
					}
				} else if f := wantFault(t, err, mail.KindSilent); !strings.Contains(f.Error(), "signs of life") || time.Since(begun) > 2*time.Hour {
					t.Errorf("after %v: %v", time.Since(begun), f)
				}
				_ = s.Close() // it was said what came
				_ = theirs.Close()
				wg.Wait()
			})
		})
	}
}

// A server that sends a byte a second, and so is never silent, does not hold up a command for ever,
// in a line or in a mail. One that is slow, and goes on, is waited for.
func TestADripIsNoAnswer(t *testing.T) {
	t.Parallel()
	const size = 9000 // bytes, more than a server must send within the bound
	list := func(ctx context.Context, s *Session) error {
		_, err := s.List(ctx, mail.Listing{})
		return err
	}
	fetch := func(ctx context.Context, s *Session) error {
		return s.Fetch(ctx, imap.UIDSet{{Start: 5, Stop: 5}}, new(basket).sink())
	}
	for name, c := range map[string]struct {
		begin, end string
		do         func(context.Context, *Session) error
	}{
		"a line": {`* LIST () "/" "`, `"`, list},
		"a mail": {fmt.Sprintf("* 1 FETCH (UID 5 FLAGS () BODY[] {%d}\r\n", size), ")", fetch},
	} {
		for _, each := range []int{1, 10} { // bytes a second
			t.Run(fmt.Sprint(name, each), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := pipe(t, time.Minute, "IMAP4rev1 SASL-IR AUTH=PLAIN", func(p *peer) {
						tag, command := p.command()
						if strings.HasPrefix(command, "EXAMINE") {
							p.send("* 10 EXISTS\r\n* OK [UIDVALIDITY 14] ids\r\n%s OK done\r\n", tag)
							tag, _ = p.command()
						}
						p.send("%s", c.begin)
						for range size / each {
							if _, err := p.Write(bytes.Repeat([]byte("x"), each)); err != nil {
								return
							}
							time.Sleep(time.Second) // of the bubble
						}
						p.send("%s\r\n%s OK done\r\n", c.end, tag)
						for tag != "" { // what may be asked then
							if tag, _ = p.command(); tag != "" {
								p.send("%s OK done\r\n", tag)
							}
						}
					})
					if strings.Contains(c.begin, "FETCH") {
						if _, err := s.Examine(t.Context(), "INBOX", nil); err != nil {
							t.Fatal(err)
						}
					}
					begun := time.Now()
					err := c.do(t.Context(), s)
					if took := time.Since(begun); each > 1 && err != nil {
						t.Errorf("a slow server, after %v: %v", took, err)
					} else if each == 1 {
						if wantFault(t, err, mail.KindSilent); took > 15*time.Minute {
							t.Errorf("it was waited for during %v", took)
						}
					}
				})
			})
		}
	}
}
