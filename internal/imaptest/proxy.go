package imaptest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunkSize is the most that is read at once.
	chunkSize = 32 << 10
	// chunksInFlight bounds what one direction of a connection holds back, to
	// 64 MB: at 25 ms that is no limit on what loopback can carry.
	chunksInFlight = 2048
	// proxyDial bounds the connection to the target.
	proxyDial = 5 * time.Minute
)

// Proxy is a TCP proxy that makes a server look far away: what either side
// sends comes out a fixed time later, at the speed it went in. It counts how
// often the client had to wait. Connecting itself is not delayed.
type Proxy struct {
	target      string
	oneWay      time.Duration
	listener    net.Listener
	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	running     sync.WaitGroup
	flights     atomic.Int64
	rate        atomic.Int64 // bytes a second in each direction, over all connections; 0: as they come
	connections atomic.Int64

	mu     sync.Mutex
	silent bool          // new lines are dead
	away   bool          // new lines are cut
	most   int           // bytes of the server that a line brings; 0: all
	more   chan struct{} // closed when most is another
	lines  map[*line]bool
	// up and down are until when what was let through so far fills each direction.
	up, down time.Time
}

// line is one connection that the proxy carries.
type line struct {
	cancel  context.CancelFunc
	dead    atomic.Bool // nothing arrives any more, on either side
	brought int         // bytes of the server, the held ones too
}

// NewProxy starts a proxy on a free port of 127.0.0.1 to target, a host:port.
// oneWay is how long a chunk takes in each direction: a round trip takes twice
// that.
func NewProxy(target string, oneWay time.Duration) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, oneWay: oneWay, listener: l, more: make(chan struct{}), lines: make(map[*line]bool)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr is the host:port where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port is the one that the kernel picked.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // of a TCP listener

// Flights is the number of round trips so far, over all connections: how often
// a client sent something as the first on its connection, or after something
// of the server had reached it. Commands that are sent in one go count once,
// and so does the TLS handshake for each of its turns. On top of these a client
// waits once for each of Connections, and for the server's greeting.
func (p *Proxy) Flights() int { return int(p.flights.Load()) }

// Connections is the number of TCP connections so far.
func (p *Proxy) Connections() int { return int(p.connections.Load()) }

// Reset sets both counts to 0.
func (p *Proxy) Reset() {
	p.flights.Store(0)
	p.connections.Store(0)
}

// Cut ends all connections that there are, as a cable that is pulled does.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.cancel()
	}
}

// Slow lets so many bytes a second through in each direction, over all connections: they share
// a line.
func (p *Proxy) Slow(bytes int) { p.rate.Store(int64(bytes)) }

// Hold lets so many bytes of the server through on each connection, and keeps what is behind them
// until it is called anew; 0 lets all through.
func (p *Proxy) Hold(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = bytes
	close(p.more)
	p.more = make(chan struct{})
}

// passes waits until the connection may bring so many bytes more of the server; false if it ended.
func (p *Proxy) passes(ctx context.Context, l *line, n int) bool {
	l.brought += n
	for {
		p.mu.Lock()
		most, more := p.most, p.more
		p.mu.Unlock()
		if most == 0 || l.brought <= most {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

// Away ends all connections that there are, and until it is over each new one as soon as it is
// made, as where the server behind a router is being restarted.
func (p *Proxy) Away(on bool) {
	p.mu.Lock()
	p.away = on
	p.mu.Unlock()
	if on {
		p.Cut()
	}
}

func (p *Proxy) isAway() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away
}

// pace takes a place on the line for so many bytes, and tells when they are through.
func (p *Proxy) pace(free *time.Time, bytes int, rate int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); free.Before(now) {
		*free = now
	}
	*free = free.Add(time.Duration(bytes) * time.Second / time.Duration(rate))
	return *free
}

// Silence has nothing arrive any more on the connections that there are, for ever, as
// where a router has forgotten them; and on new ones, until it is over.
func (p *Proxy) Silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
	for l := range p.lines {
		l.dead.Store(l.dead.Load() || on)
	}
}

// begin puts a connection on the books until its context ends.
func (p *Proxy) begin(l *line) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines[l] = true
	l.dead.Store(p.silent)
	if p.away {
		l.cancel()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.lines, l)
	}
}

// Close ends all connections, drops what is on its way and returns when no
// goroutine is left.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // Close; a listener on loopback has no other end
		}
		p.connections.Add(1)
		if p.isAway() {
			_ = client.Close() // nothing was written
			continue
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve carries one connection until both directions have ended.
func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	d := net.Dialer{Timeout: proxyDial}
	server, err := d.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return // the client sees its connection end
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	l := &line{cancel: cancel}
	defer p.begin(l)()
	// Reads and writes know no context: closing ends them.
	defer context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})()

	// turn is whether the next octets of the client are a flight.
	var turn atomic.Bool
	turn.Store(true)
	var both sync.WaitGroup
	both.Go(func() {
		p.carry(ctx, l, &p.up, server, client, func() {
			if turn.Swap(false) {
				p.flights.Add(1)
			}
		}, func(int) bool { return true })
	})
	both.Go(func() {
		p.carry(ctx, l, &p.down, client, server, func() {}, func(n int) bool {
			turn.Store(true)
			return p.passes(ctx, l, n)
		})
	})
	both.Wait()
}

// chunk is what one read gave; no data is the end of the stream.
type chunk struct {
	due  time.Time
	data []byte
}

// carry copies from to to, oneWay late, until the end or the first error, which
// ends the other direction as well. free is the direction's place on the line. taken
// is called after each read, given before each write with its number of bytes; false
// drops it, and all that follows.
func (p *Proxy) carry(ctx context.Context, l *line, free *time.Time, to, from net.Conn, taken func(), given func(int) bool) {
	queue := make(chan chunk, chunksInFlight)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(queue)
		buf := make([]byte, chunkSize)
		for {
			n, err := from.Read(buf)
			c := chunk{due: time.Now().Add(p.oneWay)}
			if n > 0 {
				taken()
				c.data = append([]byte(nil), buf[:n]...)
			} else if !errors.Is(err, io.EOF) {
				if err == nil {
					continue
				}
				l.cancel()
				return
			}
			select {
			case queue <- c:
			case <-ctx.Done():
				return
			}
			if n == 0 {
				return
			}
		}
	})
	// The reader may be in a read that only the end of both connections ends.
	defer reader.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c := range queue {
		timer.Reset(time.Until(c.due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if l.dead.Load() {
			continue
		}
		if rate := p.rate.Load(); rate > 0 {
			timer.Reset(time.Until(p.pace(free, len(c.data), rate)))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		if !given(len(c.data)) {
			return
		}
		if err := deliver(to, c.data); err != nil {
			l.cancel()
			return
		}
	}
}

// deliver writes data, or ends the stream if there is none.
func deliver(to net.Conn, data []byte) error {
	if len(data) > 0 {
		_, err := to.Write(data)
		return err
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		return tcp.CloseWrite()
	}
	return nil
}
