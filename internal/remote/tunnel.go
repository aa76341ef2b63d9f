package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/proxy"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// connect opens the way to the server.
func (o Options) connect(ctx context.Context) (net.Conn, error) {
	if len(o.Tunnel) > 0 {
		return openTunnel(o.Tunnel)
	}
	dial := o.DialContext
	if dial == nil {
		// It tries IPv6 and IPv4, one 300 ms after the other (RFC 8305).
		dial = o.dialer.DialContext
	}
	addr := net.JoinHostPort(o.Host, fmt.Sprint(o.Port))
	if o.Proxy == "" {
		return dial(ctx, "tcp", addr)
	}
	by, err := proxy.SOCKS5("tcp", o.Proxy, nil, dialFunc(dial))
	if err != nil {
		return nil, err
	}
	conn, err := by.(proxy.ContextDialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("by the proxy %s: %w", o.Proxy, err)
	}
	return conn, nil
}

// dialFunc makes a proxy.ContextDialer of a function.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return f(ctx, network, addr)
}

func (f dialFunc) Dial(network, addr string) (net.Conn, error) {
	return f(context.Background(), network, addr)
}

// tunnelGrace is how long a tunnel's program has to end when it is told to.
const tunnelGrace = time.Second

// tunnel is a connection through a program's standard input and output.
type tunnel struct {
	in, out *os.File // our ends
	name    string
	cmd     *exec.Cmd
	stderr  lastWords
	closing sync.Once
	ended   chan struct{}
	err     error // how the program ended; after ended
}

// openTunnel starts the program without a shell, in a session of its own: it is
// ended as a whole, and cannot wait for an answer on a terminal that others read.
func openTunnel(argv []string) (net.Conn, error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), theirIn.Close())
	}
	t := &tunnel{in: in, out: out, name: argv[0], ended: make(chan struct{}), cmd: exec.Command(argv[0], argv[1:]...)} //nolint:gosec // it is the user's own
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = theirIn, theirOut, &t.stderr
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	t.cmd.WaitDelay = tunnelGrace // a program left behind may hold its standard error open
	err = t.cmd.Start()
	_ = theirIn.Close() // they are the program's now
	_ = theirOut.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tunnel: %w", err), in.Close(), out.Close())
	}
	go func() {
		t.err = t.cmd.Wait()
		t.kill(syscall.SIGKILL) // what it has left behind
		close(t.ended)
	}()
	return t, nil
}

func (t *tunnel) kill(sig syscall.Signal) {
	_ = syscall.Kill(-t.cmd.Process.Pid, sig) // it may have ended
}

// Read gives what the program prints. At its end the error is what it said.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.out.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	_ = t.Close() // there is nothing more to be had of it
	text := fmt.Sprintf("the tunnel %s has ended", t.name)
	if t.err != nil && t.stderr.String() == "" {
		text += fmt.Sprintf(" (%v)", t.err)
	}
	if said := t.stderr.String(); said != "" {
		text += ": " + said
	}
	return n, errors.New(text)
}

func (t *tunnel) Write(p []byte) (int, error) { return t.in.Write(p) }

// Close ends the program and all that it has started.
func (t *tunnel) Close() error {
	t.closing.Do(func() {
		_ = t.in.Close() // most programs end by that
		_ = t.out.Close()
		grace := time.NewTimer(tunnelGrace)
		defer grace.Stop()
		t.kill(syscall.SIGTERM)
		select {
		case <-t.ended:
		case <-grace.C:
			t.kill(syscall.SIGKILL)
			<-t.ended
		}
	})
	return nil
}

func (t *tunnel) LocalAddr() net.Addr                 { return tunnelAddr(t.name) }
func (t *tunnel) RemoteAddr() net.Addr                { return tunnelAddr(t.name) }
func (t *tunnel) SetReadDeadline(at time.Time) error  { return t.out.SetReadDeadline(at) }
func (t *tunnel) SetWriteDeadline(at time.Time) error { return t.in.SetWriteDeadline(at) }
func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

type tunnelAddr string

func (tunnelAddr) Network() string  { return "tunnel" }
func (a tunnelAddr) String() string { return string(a) }

// lastWords keeps the end of what a program says.
type lastWords struct {
	mu   sync.Mutex
	kept []byte
}

func (l *lastWords) Write(p []byte) (int, error) {
	const most = 1 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, p...)
	l.kept = l.kept[max(0, len(l.kept)-most):]
	return len(p), nil
}

// String gives it in one line.
func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.FieldsFunc(string(l.kept), func(r rune) bool { return r == '\n' || r == '\r' })
	return clip(strings.Join(lines, "; "), 400)
}

// tunnelFault says of a tunnel that ended before the greeting that there is no
// connection.
func tunnelFault(o Options, err error) error {
	if f, ok := errors.AsType[*mail.Fault](err); ok && len(o.Tunnel) > 0 && f.Op == "greeting" && f.Kind == mail.KindCut {
		f.Kind, f.Op = mail.KindDial, "dial"
	}
	return err
}
