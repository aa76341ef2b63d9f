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
	"testing/synctest"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// TestAppendOfAFileThatChanges changes it when the server has been told its size.
func TestAppendOfAFileThatChanges(t *testing.T) {
	t.Parallel()
	for _, now := range []string{"", letter(2, 9_000), letter(2, 11_000), letter(2, 2<<20)} {
		synctest.Test(t, func(t *testing.T) { appendOfAFileThatChanges(t, now) })
	}
}

func appendOfAFileThatChanges(t *testing.T, now string) {
	big := upload(t, letter(2, 10_000))
	sent := make(chan string, 1)
	s := pipe(t, time.Minute, "IMAP4rev1 LITERAL- UIDPLUS", func(p *peer) {
		first, _ := p.command()
		p.line()
		_ = os.WriteFile(big.Path, []byte(now), 0o600) // else nothing changes, and the test fails
		p.send("+ go on\r\n")
		// What is sent of the literal has no end; the answer to the first
		// mail comes all the same.
		rest := make(chan string)
		go func() {
			all, _ := io.ReadAll(p.r)
			rest <- string(all)
		}()
		synctest.Wait()
		p.send("%s OK [APPENDUID 14 7] done\r\n", first)
		sent <- <-rest
	})
	results, err := s.Append(t.Context(), "INBOX", []mail.Upload{upload(t, letter(1, 10)), big, upload(t, letter(3, 10))}, nil, nil)
	f := wantFault(t, err, mail.KindCut)
	if !errors.Is(f, errChanged) || s.Alive() || results[0] != (mail.Appended{UIDValidity: 14, UID: 7}) || !errors.Is(results[1].Err, err) || !errors.Is(results[2].Err, err) {
		t.Errorf("%v, %+v, alive: %v", f, results, s.Alive())
	}
	if rest := <-sent; len(rest) > int(big.Size) || !strings.HasPrefix(onWire(now), rest) {
		t.Errorf("%d bytes were sent after the announcement of %d: %.200q", len(rest), big.Size, rest)
	}
}

// pipe gives a session over a connection without buffers, after the sign-in.
func pipe(t *testing.T, timeout time.Duration, caps string, script func(*peer), change ...func(*Options)) *Session {
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
	for _, f := range change {
		f(&o)
	}
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
	synctest.Test(t, appendOverASlowLine)
}

func appendOverASlowLine(t *testing.T) {
	const timeout = time.Minute
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
	script := func(then func(*peer)) func(*peer) {
		return func(p *peer) {
			tag, _ := p.command()
			p.send("%s OK [APPENDUID 14 7] done\r\n", tag)
			p.line()
			then(p)
		}
	}
	const caps = "IMAP4rev1 LITERAL+ UIDPLUS"
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := pipe(t, time.Minute, caps, script(func(*peer) { <-t.Context().Done() }))
			readsNoMore(t, s, mail.KindSilent)
		})
	})
	t.Run("BYE", func(t *testing.T) {
		t.Parallel()
		o := plain(serve(t, func(p *peer) {
			p.greet(caps)
			script(func(p *peer) { p.send("* BYE [TOOBIG] too large\r\n") })(p)
		}))
		o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				err = conn.(*net.TCPConn).SetWriteBuffer(10_000)
			}
			return conn, err
		}
		if f := readsNoMore(t, dialed(t, o), mail.KindBye); f.Code != "TOOBIG" {
			t.Errorf("%+v", f)
		}
	})
}

// readsNoMore uploads to a server that takes the first of four mails.
func readsNoMore(t *testing.T, s *Session, want mail.Kind) *mail.Fault {
	t.Helper()
	small, large := upload(t, "\n"), upload(t, letter(1, 400_000))
	results, err := s.Append(t.Context(), "INBOX", []mail.Upload{small, large, large, small}, nil, nil)
	f := wantFault(t, err, want)
	if results[0] != (mail.Appended{UIDValidity: 14, UID: 7}) {
		t.Errorf("%+v", results[0])
	}
	for _, r := range results[1:] {
		if !errors.Is(r.Err, err) {
			t.Errorf("%+v", r)
		}
	}
	if s.Alive() {
		t.Error("the session is alive")
	}
	return f
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
