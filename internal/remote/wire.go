// Package remote speaks IMAP with servers as they are.
//
// One odd line must not cost the connection, and a body must never be lost or cut
// without a word: so the session reads the server with a reader of its own, from
// the greeting on. The connection under it owns deadlines, bounds and the
// transcript.
package remote

import (
	"bufio"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds on what a server may send. A real line is far below them: Exchange
// itself stops at 10,500 characters, and the longest lines are the answers to
// SEARCH in mailboxes with a million messages.
const (
	maxText  = 64 << 10 // a line of text, in bytes
	maxData  = 16 << 20 // a line of data: LIST, SEARCH, VANISHED, FETCH without its literals
	maxDepth = 50       // nested parentheses
	maxJunk  = 16 << 20 // bytes dropped during one command, literals apart
	maxNoise = 20_000   // untagged responses during one command that nobody asked for, and one for each message
)

// Bounds on the answers to one command, in bytes: what it may mean, and so much for each
// message that the mailbox has.
const (
	maxAnswer      = 16 << 20
	maxFound       = 1 << 20 // SEARCH
	maxList        = 64 << 20
	bytesOfMessage = 4 << 10
)

// A server that sends single bytes just before each deadline could hold a run
// for days: it must send so many bytes within so many timeouts.
const (
	pulseBytes    = 4 << 10
	pulseTimeouts = 10
)

// quietTimeouts is for how many timeouts a server may say that it lives, and nothing that was
// asked for.
const quietTimeouts = 60

// wire is the connection under the reader of the session.
type wire struct {
	base    net.Conn // what cut closes
	conn    net.Conn // base, or TLS over it
	br      *bufio.Reader
	timeout time.Duration
	note    func(string)
	alert   func(string)
	secrets []string // what is never shown, in each form in which it goes over the wire

	record *transcript // nil: nothing is recorded
	log    *transcript // what record is between exchanges; nil if nobody asked for it
	got    int         // bytes since pulse
	pulse  time.Time
	answer time.Time // when anything came that was asked for

	idle *idling // nil: no IDLE is under way

	out      *flate.Writer // nil: what is sent is not compressed
	came     int64         // bytes during the command, as they came
	inflated int64         // bytes that were made of them; 0 without compression
}

func newWire(conn net.Conn, o Options) *wire {
	w := &wire{base: conn, conn: conn, timeout: o.Timeout, note: o.Note, pulse: time.Now()}
	if w.note == nil {
		w.note = func(string) {}
	}
	if w.alert = o.Alert; w.alert == nil {
		w.alert = func(text string) { w.note("the server says: " + text) }
	}
	w.br = bufio.NewReaderSize(deadlined{w}, 64<<10)
	w.log = newLog(o, w)
	w.record = w.log
	return w
}

// deadlined reads from the connection, with a fresh deadline each time.
type deadlined struct{ w *wire }

func (d deadlined) Read(p []byte) (int, error) {
	w := d.w
	if w.idle != nil {
		return w.idle.read(w, p)
	}
	now := time.Now()
	if w.got >= pulseBytes {
		w.got, w.pulse = 0, now
	} else if now.Sub(w.pulse) > pulseTimeouts*w.timeout {
		return 0, fmt.Errorf("only %d bytes came in %v: %w", w.got, now.Sub(w.pulse).Round(time.Second), os.ErrDeadlineExceeded)
	}
	if err := w.conn.SetReadDeadline(now.Add(w.timeout)); err != nil {
		return 0, err
	}
	n, err := w.conn.Read(p)
	w.got += n
	w.came += int64(n)
	return n, err
}

// rest resets the pulse: a command begins.
func (w *wire) rest() {
	now := time.Now()
	w.got, w.pulse, w.answer, w.came, w.inflated = 0, now, now, 0, 0
}

// atoms gives those words of a line that are atoms (RFC 9051 9).
func atoms(line string) []string {
	out := []string{}
	for _, f := range strings.Fields(line) {
		if !strings.ContainsFunc(f, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("(){%*\"\\]", r) }) {
			out = append(out, f)
		}
	}
	return out
}

// splitCode takes a response code off a text.
func splitCode(s string) (code, text string) {
	s = strings.TrimLeft(s, " ")
	if !strings.HasPrefix(s, "[") {
		return "", s
	}
	code, text, ok := strings.Cut(s[1:], "]")
	if !ok {
		return "", s
	}
	return code, strings.TrimLeft(text, " ")
}

// Write sends what the session has to say.
func (w *wire) Write(p []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	if w.out == nil {
		return w.conn.Write(p)
	}
	n, err := w.out.Write(p)
	if err == nil {
		err = w.out.Flush() // the server is to answer
	}
	return n, err
}

// cut ends the connection, and whoever waits on it, from any goroutine.
func (w *wire) cut() { _ = w.base.Close() } // what was cut for is told

// redact replaces secrets that a server echoes.
func (w *wire) redact(s string) string {
	for _, secret := range w.secrets {
		s = strings.ReplaceAll(s, secret, "[secret]")
	}
	return s
}

// shorn takes from the end of a text that was cut what may be the beginning of a
// secret.
func (w *wire) shorn(s string) string {
	most := 0
	for _, secret := range w.secrets {
		for n := min(len(secret), len(s)); n > most; n-- {
			if strings.HasSuffix(s, secret[:n]) {
				most = n
			}
		}
	}
	return s[:len(s)-most]
}

// hide makes secrets of its arguments.
func (w *wire) hide(secrets ...string) {
	for _, s := range secrets {
		// Replacing every "a" would hide nothing and spoil every text.
		if len(s) < 3 {
			continue
		}
		for _, form := range []string{s, strings.ToUpper(s)} { // words of answers are read in upper case
			if !slices.Contains(w.secrets, form) {
				w.secrets = append(w.secrets, form)
			}
		}
	}
	// A long one may hold a short one, and must go first.
	slices.SortFunc(w.secrets, func(a, b string) int { return len(b) - len(a) })
}

// shown makes a server's text fit to be shown. Secrets are replaced before it is
// cut: half of one could be left over.
func (w *wire) shown(s string, most int) string { return clip(w.redact(s), most) }

// ioFault says in our terms how a connection ended.
func ioFault(err error) *mail.Fault {
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		return f
	}
	kind := mail.KindCut
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		kind = mail.KindTLS // an alert: with TLS 1.3 what is wrong with our certificate comes after the handshake
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		kind = mail.KindSilent
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &mail.Fault{Kind: kind, Err: err}
}

// clip makes a text fit to be shown, with at most so many bytes.
func clip(s string, most int) string {
	s = mail.Visible(s[:min(len(s), 4*most)])
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
