package remote

import (
	"bufio"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// What is worth a round trip for COMPRESS: mails to fetch, and lines to list.
const (
	worthMails = 10
	worthLines = 1000
)

// A server, or who speaks for it, could make gigabytes of a few bytes. A mail that
// compresses so well beyond so many bytes is no mail.
const (
	maxRatio      = 500
	maxUnrated    = 16 << 20
	compressLevel = flate.BestSpeed
)

const deflate = "COMPRESS=DEFLATE"

// compress goes over to compression (RFC 4978) where the server has it and what
// is about to be asked for is worth it. Not at sign-in: an idle run would pay a
// round trip for nothing.
func (s *Session) compress(ctx context.Context, set imap.UIDSet, worth uint64) error {
	if !s.Has(deflate) || min(count(set), uint64(s.exists)) < worth {
		return nil
	}
	s.disable(deflate) // once
	a, err := s.command(ctx, "COMPRESS DEFLATE", handler{})
	if err != nil {
		return err
	}
	if a.status != "OK" {
		s.refuse(compression)
		return nil
	}
	// What is in the buffer came behind the answer, and is compressed.
	s.br = bufio.NewReaderSize(&inflater{w: s.wire, r: flate.NewReader(s.br)}, 64<<10)
	out, err := flate.NewWriter(s.conn, compressLevel)
	s.out = out
	return err
}

// count gives how many UIDs a set names; many of them may not exist.
func count(set imap.UIDSet) (n uint64) {
	for _, r := range normal(set) {
		n += uint64(r.Stop) - uint64(r.Start) + 1
	}
	return n
}

// isLocal tells whether the server is on this machine, so far as can be seen.
func isLocal(o Options, conn net.Conn) bool {
	if o.Proxy != "" || len(o.Tunnel) > 0 {
		return false
	}
	switch addr := conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		return addr.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// inflater reads what the server compresses.
type inflater struct {
	w *wire
	r io.Reader
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.w.inflated += int64(n)
	if i.w.inflated > maxUnrated && i.w.inflated > maxRatio*i.w.came {
		return 0, &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf(
			`%d bytes are compressed to %d, as no mail is; disable_extensions = ["%s"] takes it all the same`, i.w.inflated, i.w.came, deflate)}
	}
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) {
		err = &mail.Fault{Kind: mail.KindMalformed, Err: fmt.Errorf("COMPRESS: %w", err)}
	}
	return n, err
}
