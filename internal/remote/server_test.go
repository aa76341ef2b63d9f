package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testUser   = "jane@example.org"
	testSecret = `hunter2 "and\more`
	testCaps   = "IMAP4rev1 SASL-IR AUTH=PLAIN"
)

// peer is the server's side of one connection, to be scripted.
type peer struct {
	net.Conn
	r *bufio.Reader
}

// send writes as it is; whether the client still listens is the client's matter.
func (p *peer) send(format string, args ...any) {
	_, _ = fmt.Fprintf(p, format, args...)
}

// line reads a line; "" when the client is gone.
func (p *peer) line() string {
	line, _ := p.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n")
}

// command reads a command, with its literals; tag "" when the client is gone.
func (p *peer) command() (tag, rest string) {
	line := p.line()
	for n, ok := literalSize(line); ok; n, ok = literalSize(line) {
		if !strings.HasSuffix(line, "+}") {
			p.send("+ go on\r\n")
		}
		literal := make([]byte, n)
		_, _ = io.ReadFull(p.r, literal)
		line += "\r\n" + string(literal) + p.line()
	}
	tag, rest, _ = strings.Cut(line, " ")
	return tag, rest
}

// hang waits until the client hangs up.
func (p *peer) hang() { _, _ = io.Copy(io.Discard, p.r) }

// greet signs the client in, whatever it says.
func (p *peer) greet(caps string) {
	p.send("* OK [CAPABILITY %s] ready\r\n", caps)
	tag, _ := p.command()
	p.send("%s OK [CAPABILITY %s] welcome\r\n", tag, caps)
}

// serve runs a script for each connection and gives the port.
func serve(tb testing.TB, script func(*peer)) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				script(&peer{conn, bufio.NewReader(conn)})
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close() // the scripts end with their clients
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// plain are options for a server without TLS.
func plain(port int) Options {
	return Options{
		Host: "127.0.0.1", Port: port, TLS: "none", AllowPlaintext: true, User: testUser, Timeout: 5 * time.Minute,
		Password: func(context.Context) (string, error) { return testSecret, nil },
	}
}

// connects connects however long it takes, where a server is to be silent by the clock: to connect on
// a busy machine is no part of that.
func connects(_ context.Context, network, addr string) (net.Conn, error) {
	return net.Dial(network, addr)
}

// dialed signs in and closes at the end of the test.
func dialed(tb testing.TB, o Options) *Session {
	tb.Helper()
	s, err := Dial(context.Background(), o)
	if err != nil {
		tb.Fatalf("Dial: %v", err)
	}
	tb.Cleanup(func() { _ = s.Close() }) // it may be closed already
	return s
}

// answering gives a session with a server that answers each command by answers:
// the first whose key is the beginning of the command. "{tag}" is the tag; where
// there is none in it, "OK done" follows. A value "" hangs up.
func answering(tb testing.TB, caps string, answers ...[2]string) *Session {
	tb.Helper()
	return dialed(tb, plain(serve(tb, func(p *peer) {
		p.greet(caps)
		for {
			tag, command := p.command()
			if tag == "" {
				return
			}
			answer := "{tag} BAD not in the script\r\n"
			for _, a := range answers {
				if strings.HasPrefix(command, a[0]) {
					answer = a[1]
					break
				}
			}
			if answer == "" {
				return
			}
			if !strings.Contains(answer, "{tag}") {
				answer += "{tag} OK done\r\n"
			}
			p.send("%s", strings.ReplaceAll(answer, "{tag}", tag))
		}
	})))
}

// examined is answering with a mailbox of ten messages selected.
func examined(tb testing.TB, caps string, answers ...[2]string) *Session {
	tb.Helper()
	s := answering(tb, caps, append([][2]string{{"EXAMINE", "* 10 EXISTS\r\n* OK [UIDVALIDITY 14] ids\r\n* OK [UIDNEXT 99] next\r\n"}}, answers...)...)
	if _, err := s.Examine(tb.Context(), "INBOX", nil); err != nil {
		tb.Fatalf("Examine: %v", err)
	}
	return s
}

// wantFault checks the kind of an error.
func wantFault(tb testing.TB, err error, kind mail.Kind) *mail.Fault {
	tb.Helper()
	f, ok := errors.AsType[*mail.Fault](err)
	if !ok {
		tb.Fatalf("error %v (%T), want a *mail.Fault: %v", err, err, kind)
	}
	if f.Kind != kind {
		tb.Fatalf("fault %v: kind %q, want %q", f, f.Kind, kind)
	}
	return f
}

// basket is a sink in memory.
type basket struct {
	got       []mail.Message
	bodies    []string
	opened    int
	discarded int
}

type memory struct {
	strings.Builder
	b *basket
}

func (m *memory) Discard() { m.b.discarded++ }

func (b *basket) sink() mail.Sink {
	return mail.Sink{
		Open: func(int64) (mail.Spool, error) { b.opened++; return &memory{b: b}, nil },
		Done: func(m mail.Message, s mail.Spool) error {
			b.got = append(b.got, m)
			b.bodies = append(b.bodies, s.(*memory).String())
			return nil
		},
	}
}
