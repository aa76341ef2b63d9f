package remote

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// TestAppendOfAFileThatChanges changes it when the server has been told its size.
func TestAppendOfAFileThatChanges(t *testing.T) {
	t.Parallel()
	for _, now := range []string{"", letter(2, 9_000), letter(2, 11_000), letter(2, 2<<20)} {
		big := upload(t, letter(2, 10_000))
		sent := make(chan string, 1)
		s := dialed(t, plain(serve(t, func(p *peer) {
			p.greet("IMAP4rev1 LITERAL- UIDPLUS")
			first, _ := p.command()
			p.line()
			_ = os.WriteFile(big.Path, []byte(now), 0o600) // else nothing changes, and the test fails
			p.send("+ go on\r\n")
			// What is sent of the literal has no end; the answer to the first
			// mail comes all the same.
			time.Sleep(50 * time.Millisecond)
			p.send("%s OK [APPENDUID 14 7] done\r\n", first)
			rest, _ := io.ReadAll(p.r)
			sent <- string(rest)
		})))
		results, err := s.Append(t.Context(), "INBOX", []mail.Upload{upload(t, letter(1, 10)), big, upload(t, letter(3, 10))}, nil, nil)
		f := wantFault(t, err, mail.KindCut)
		if !errors.Is(f, errChanged) || s.Alive() || results[0] != (mail.Appended{UIDValidity: 14, UID: 7}) || !errors.Is(results[1].Err, err) || !errors.Is(results[2].Err, err) {
			t.Errorf("%v, %+v, alive: %v", f, results, s.Alive())
		}
		if rest := <-sent; len(rest) > int(big.Size) || !strings.HasPrefix(onWire(now), rest) {
			t.Errorf("%d bytes were sent after the announcement of %d: %.200q", len(rest), big.Size, rest)
		}
	}
}

// pipe gives a session over a connection without buffers, after the sign-in.
func pipe(t *testing.T, timeout time.Duration, caps string, script func(*peer)) *Session {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer there.Close()
		p := &peer{there, bufio.NewReader(there)}
		p.greet(caps)
		script(p)
	}()
	o := plain(1)
	o.Timeout = timeout
	o.DialContext = func(context.Context, string, string) (net.Conn, error) { return here, nil }
	s := dialed(t, o)
	t.Cleanup(func() {
		_ = s.Close() // it may be closed already
		<-done
	})
	return s
}

// TestAppendOverASlowLine takes several timeouts, and no silence is as long as
// one.
func TestAppendOverASlowLine(t *testing.T) {
	t.Parallel()
	const timeout = 400 * time.Millisecond
	u := upload(t, letter(1, 400_000))
	s := pipe(t, timeout, "IMAP4rev1 LITERAL+", func(p *peer) {
		tag, _, _ := strings.Cut(p.line(), " ")
		for left := u.Size; left > 0; {
			n, err := io.CopyN(io.Discard, p.r, min(left, 4<<10))
			if left -= n; err != nil {
				return
			}
			time.Sleep(timeout / 20)
		}
		p.line()
		p.send("%s OK done\r\n", tag)
	})
	start := time.Now()
	results, err := s.Append(t.Context(), "INBOX", []mail.Upload{u}, nil, nil)
	if err != nil || results[0].Err != nil || time.Since(start) < 4*timeout {
		t.Errorf("%+v, %v after %v", results, err, time.Since(start))
	}
}

// TestAppendToAServerThatReadsNoMore tells silence from the end, and knows what
// was answered before.
func TestAppendToAServerThatReadsNoMore(t *testing.T) {
	t.Parallel()
	small, large := upload(t, "\n"), upload(t, letter(1, 400_000))
	for name, tt := range map[string]struct {
		script func(p *peer)
		want   mail.Kind
	}{
		"silence": {func(*peer) { <-t.Context().Done() }, mail.KindSilent},
		"BYE":     {func(p *peer) { p.send("* BYE [TOOBIG] too large\r\n") }, mail.KindBye},
	} {
		s := dialed(t, func() Options {
			o := plain(serve(t, func(p *peer) {
				p.greet("IMAP4rev1 LITERAL+ UIDPLUS")
				tag, _ := p.command()
				p.send("%s OK [APPENDUID 14 7] done\r\n", tag)
				p.line()
				tt.script(p)
			}))
			o.Timeout = 300 * time.Millisecond
			o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				if err == nil {
					err = conn.(*net.TCPConn).SetWriteBuffer(10_000)
				}
				return conn, err
			}
			return o
		}())
		uploads := []mail.Upload{small, large, large, small}
		results, err := s.Append(t.Context(), "INBOX", uploads, nil, nil)
		f := wantFault(t, err, tt.want)
		if results[0] != (mail.Appended{UIDValidity: 14, UID: 7}) {
			t.Errorf("%s: %+v", name, results[0])
		}
		for _, r := range results[1:] {
			if !errors.Is(r.Err, err) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if tt.want == mail.KindBye && f.Code != "TOOBIG" || s.Alive() {
			t.Errorf("%s: %+v, alive: %v", name, f, s.Alive())
		}
	}
}

func TestAppendIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := pipe(t, time.Minute, "IMAP4rev1", func(p *peer) {
		p.line()
		cancel()
		p.hang()
	})
	results, err := s.Append(ctx, "INBOX", []mail.Upload{upload(t, "\n"), upload(t, "\n")}, nil, nil)
	if !errors.Is(err, context.Canceled) || len(results) != 2 || !errors.Is(results[0].Err, context.Canceled) || !errors.Is(results[1].Err, context.Canceled) {
		t.Errorf("%+v, %v", results, err)
	}
}
