package imaptest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Nobody takes a port of 127.0.0.1 and listens there to nobody, until end is called. A port that is
// merely free may be another server's by the time that somebody connects to it.
func Nobody() (port int, end func() error, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("a socket: %w", err)
	}
	end = func() error { return unix.Close(fd) }
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, errors.Join(err, end())
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, nil, errors.Join(err, end())
	}
	in, ok := addr.(*unix.SockaddrInet4)
	if !ok {
		return 0, nil, errors.Join(fmt.Errorf("no IPv4 address: %T", addr), end())
	}
	return in.Port, end, nil
}
