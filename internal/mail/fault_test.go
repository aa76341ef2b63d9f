package mail

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestAFaultSaysOnceWhatFailed(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 143}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	nobody := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "imap.example.org", Server: "10.0.0.1:53", IsNotFound: true}}
	for want, f := range map[string]*Fault{
		"cannot connect to 127.0.0.1:143: connection refused":                               {Kind: KindDial, Op: "dial", Err: refused},
		"cannot connect: imap.example.org: no such host":                                    {Kind: KindDial, Op: "dial", Err: nobody},
		"cannot connect: too many open files":                                               {Kind: KindDial, Op: "dial", Err: &net.OpError{Op: "dial", Err: syscall.EMFILE}},
		"cannot connect: by the proxy: dial tcp 127.0.0.1:143: connect: connection refused": {Kind: KindDial, Op: "dial", Err: fmt.Errorf("by the proxy: %w", refused)},
		"cannot connect": {Kind: KindDial, Op: "dial"},
		"UID FETCH: the connection was cut: words": {Kind: KindCut, Op: "UID FETCH", Err: errors.New("words")},
	} {
		if got := f.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
