package remote

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// resolveDNS answers the queries of a connection, which are as over TCP (RFC 1035
// 4.2.2): every name has the loopback addresses of both families.
func resolveDNS(conn net.Conn) {
	defer conn.Close()
	for {
		var size uint16
		if binary.Read(conn, binary.BigEndian, &size) != nil {
			return
		}
		query := make([]byte, size)
		var m dnsmessage.Message
		if _, err := io.ReadFull(conn, query); err != nil || m.Unpack(query) != nil {
			return
		}
		m.Response, m.Additionals = true, nil
		head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1}
		switch m.Questions[0].Type {
		case dnsmessage.TypeAAAA:
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AAAAResource{AAAA: [16]byte(net.IPv6loopback)}}}
		case dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
		}
		answer, err := m.AppendPack([]byte{0, 0})
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(answer, uint16(len(answer)-2)) //nolint:gosec // it is short
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// TestAnAddressThatIsSilentHoldsNothingUp: the other family's is tried while the first
// one, which is IPv6 wherever the machine has that, is still waited for (RFC 8305).
func TestAnAddressThatIsSilentHoldsNothingUp(t *testing.T) {
	t.Parallel()
	port := serve(t, func(p *peer) { p.greet("IMAP4rev1"); p.hang() })
	var mu sync.Mutex
	var families []string
	second, ended := make(chan struct{}), make(chan struct{})
	o := plain(port)
	o.Host = "mail.example.org"
	o.dialer.Resolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go resolveDNS(theirs) // it ends with ours
		return ours, nil
	}}
	o.dialer.ControlContext = func(ctx context.Context, network, _ string, _ syscall.RawConn) error {
		mu.Lock()
		families = append(families, network)
		first := len(families) == 1
		mu.Unlock()
		switch {
		case !first:
			select {
			case <-ended:
				t.Error("the second address had to wait for the end of the first")
			default:
			}
			close(second)
		case network == "tcp6":
			<-ctx.Done() // it never answers
			close(ended)
			return ctx.Err()
		default:
			select { // the machine has no IPv6: the server is here
			case <-second:
			case <-ctx.Done():
			}
		}
		return nil
	}
	_ = dialed(t, o)
	mu.Lock()
	defer mu.Unlock()
	if len(families) != 2 || families[0] == families[1] {
		t.Errorf("tried %q", families)
	}
}
