package imaptest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// echo is a server that greets with a line if greeting is set, and then sends
// back what it gets until the client ends its side.
func echo(t *testing.T, greeting string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, greeting)
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// through gives a connection through a new proxy, which is checked to leave no
// goroutine behind.
func through(t *testing.T, target string, oneWay time.Duration) (*Proxy, *net.TCPConn) {
	t.Helper()
	leaked := goleak.IgnoreCurrent() // those of parallel tests and of the server
	p, err := NewProxy(target, oneWay)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, leaked)
	})
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return p, c.(*net.TCPConn) //nolint:forcetypeassert // of a dial to TCP
}

// say sends a line and reads n lines.
func say(t *testing.T, c net.Conn, r *bufio.Reader, lines string, n int) {
	t.Helper()
	if _, err := io.WriteString(c, lines); err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
}

// The tests are not parallel: goleak would see the goroutines of the others.

func TestProxyCountsRoundTrips(t *testing.T) {
	p, c := through(t, echo(t, "hello\n"), time.Millisecond)
	r := bufio.NewReader(c)
	say(t, c, r, "", 1)
	if got := p.Flights(); got != 0 {
		t.Errorf("%d round trips after the greeting, want 0", got)
	}
	say(t, c, r, "one\n", 1)
	say(t, c, r, "two\n", 1)
	say(t, c, r, "three\nfour\nfive\n", 3)
	if got := p.Flights(); got != 3 {
		t.Errorf("%d round trips, want 3", got)
	}
	if got := p.Connections(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	p.Reset()
	say(t, c, r, "six\n", 1)
	if f, n := p.Flights(), p.Connections(); f != 1 || n != 0 {
		t.Errorf("after Reset: %d round trips, %d connections, want 1 and 0", f, n)
	}
}

func TestProxyCountsAClientThatSpeaksFirst(t *testing.T) {
	p, c := through(t, echo(t, ""), 0)
	say(t, c, bufio.NewReader(c), "one\n", 1)
	if got := p.Flights(); got != 1 {
		t.Errorf("%d round trips, want 1", got)
	}
}

func TestProxyDelaysBothWays(t *testing.T) {
	const oneWay = 20 * time.Millisecond
	_, c := through(t, echo(t, ""), oneWay)
	r := bufio.NewReader(c)
	for range 3 {
		start := time.Now()
		say(t, c, r, "ping\n", 1)
		if took := time.Since(start); took < 2*oneWay {
			t.Errorf("a round trip took %v, want %v or more", took, 2*oneWay)
		}
	}
}

// 32 MB in chunks of at most 32 kB are 1000 chunks or more: a proxy that
// waited for each of them would take over 100 s.
func TestProxyDoesNotLimitThroughput(t *testing.T) {
	_, c := through(t, echo(t, ""), 50*time.Millisecond)
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	start := time.Now()
	got, err := io.ReadAll(c) // the end is carried as well
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d octets came back, want the %d sent", len(got), len(data))
	}
	if took := time.Since(start); took > 100*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestProxyCloseEndsConnectionsWithDataOnItsWay(t *testing.T) {
	p, c := through(t, echo(t, ""), time.Hour)
	if _, err := io.WriteString(c, "never arrives\n"); err != nil {
		t.Fatal(err)
	}
	p.cancel() // as Close does, which the cleanup calls
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

func TestProxyWithoutServerEndsTheConnection(t *testing.T) {
	port, end, err := Nobody()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = end() }) // nothing hangs on it
	_, c := through(t, fmt.Sprintf("127.0.0.1:%d", port), 0)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}
