// Package remote speaks IMAP with servers as they are.
//
// imapclient signs in. From then on the session reads the server with a reader
// of its own, since in a mailbox one odd line must not cost the connection, and
// a body must never be lost or cut without a word: imapclient, used bare, does
// both. The connection under them owns deadlines, bounds and the transcript.
package remote

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds on what a server may send. A real line is far below them: Exchange
// itself stops at 10,500 characters, and the longest lines are the answers to
// SEARCH in mailboxes with a million messages.
const (
	maxText  = 64 << 10  // a line of text, in bytes
	maxData  = 16 << 20  // a line of data: LIST, SEARCH, VANISHED, FETCH without its literals
	maxDepth = 50        // nested parentheses
	maxJunk  = 4 << 20   // bytes dropped as unreadable during one command
	maxNoise = 1_000_000 // untagged responses during one command that are not FETCH
)

// A server that sends single bytes just before each deadline could hold a run
// for days: it must send so many bytes within so many timeouts.
const (
	pulseBytes    = 4 << 10
	pulseTimeouts = 10
)

// wire is the connection: the framing under imapclient while it signs in, then
// the reader of the session.
type wire struct {
	conn    net.Conn
	br      *bufio.Reader
	timeout time.Duration
	note    func(string)

	mu      sync.Mutex
	cond    *sync.Cond
	signIn  bool // imapclient may read
	reading bool // it does
	closed  bool
	pending []byte // a filtered line on its way to imapclient
	line    []byte // part of a line that a deadline cut
	cause   error  // what ended imapclient's reading
	said    string // the last NO, BAD or BYE in the server's words

	secrets []string
	record  *transcript // nil: nothing is recorded
	got     int         // bytes since pulse
	pulse   time.Time
}

func newWire(conn net.Conn, timeout time.Duration, note func(string)) *wire {
	if note == nil {
		note = func(string) {}
	}
	w := &wire{conn: conn, timeout: timeout, note: note, signIn: true, pulse: time.Now()}
	w.cond = sync.NewCond(&w.mu)
	w.br = bufio.NewReaderSize(deadlined{w}, 64<<10)
	return w
}

// deadlined reads from the connection, with a fresh deadline each time.
type deadlined struct{ w *wire }

func (d deadlined) Read(p []byte) (int, error) {
	w := d.w
	now := time.Now()
	if w.got >= pulseBytes {
		w.got, w.pulse = 0, now
	} else if now.Sub(w.pulse) > pulseTimeouts*w.timeout {
		return 0, fmt.Errorf("only %d bytes came in %v: %w", w.got, now.Sub(w.pulse).Round(time.Second), os.ErrDeadlineExceeded)
	}
	if err := w.conn.SetReadDeadline(now.Add(w.timeout)); err != nil {
		return 0, err
	}
	// After the deadline was set: endSignIn sets one in the past, and then it
	// must not be this one that counts.
	w.mu.Lock()
	over := w.reading && !w.signIn
	w.mu.Unlock()
	if over {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := w.conn.Read(p)
	w.got += n
	return n, err
}

// rest resets the pulse: a command begins.
func (w *wire) rest() { w.got, w.pulse = 0, time.Now() }

// readLine reads one line without its end. The slice is valid until the next
// read. A line over limit is an error, and nothing after it can be trusted.
func (w *wire) readLine(limit int) ([]byte, error) {
	for {
		part, err := w.br.ReadSlice('\n')
		w.line = append(w.line, part...)
		switch {
		case err == nil:
			line := bytes.TrimSuffix(bytes.TrimSuffix(w.line, []byte("\n")), []byte("\r"))
			w.line = w.line[:0]
			return line, nil
		case len(w.line) > limit:
			return nil, &mail.Fault{Kind: mail.KindTooLarge, Text: fmt.Sprintf("a line of more than %d bytes", limit)}
		case errors.Is(err, bufio.ErrBufferFull):
		default:
			return nil, err
		}
	}
}

// Read gives imapclient the server's lines while it signs in, and blocks from
// then on until the connection is closed. Lines that imapclient cannot read are
// dropped; sign-in needs none of them.
func (w *wire) Read(p []byte) (int, error) {
	for {
		w.mu.Lock()
		for !w.signIn && !w.closed {
			w.cond.Wait()
		}
		if w.closed {
			w.mu.Unlock()
			return 0, net.ErrClosed
		}
		if w.cause != nil { // imapclient tries again, and would wait again
			defer w.mu.Unlock()
			return 0, w.cause
		}
		w.reading = true
		w.mu.Unlock()
		if len(w.pending) > 0 {
			n := copy(p, w.pending)
			w.pending = w.pending[n:]
			w.rested()
			return n, nil
		}
		line, err := w.readLine(maxText)
		if over := w.rested(); err != nil {
			if over {
				continue // endSignIn woke us up; what came of a line is kept
			}
			w.mu.Lock()
			w.cause = err
			w.mu.Unlock()
			return 0, err
		}
		if line, ok := w.filter(line); ok {
			w.pending = append(append(w.pending[:0], line...), "\r\n"...)
		}
	}
}

// rested says that imapclient's read is over, and tells whether its time is.
func (w *wire) rested() (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = false
	w.cond.Broadcast()
	return !w.signIn && !w.closed
}

// filter makes a line of the sign-in safe for imapclient.
func (w *wire) filter(line []byte) ([]byte, bool) {
	s := string(line)
	tag, rest, _ := strings.Cut(s, " ")
	word, rest, _ := strings.Cut(rest, " ")
	word = strings.ToUpper(word)
	switch {
	case tag == "+":
		if s == "+" { // Exchange; imapclient wants the space
			s = "+ "
		}
		return []byte(s), true
	case tag == "*" && word == "CAPABILITY":
		return []byte("* CAPABILITY " + atoms(rest)), true
	case word == "OK" || word == "NO" || word == "BAD" || word == "BYE" || word == "PREAUTH":
		if word != "OK" && word != "PREAUTH" {
			said := w.redact(s[len(tag)+1:])
			w.mu.Lock()
			w.said = said
			w.mu.Unlock()
		}
		code, text := splitCode(rest)
		switch {
		case strings.HasPrefix(strings.ToUpper(code), "CAPABILITY "):
			return fmt.Appendf(nil, "%s %s [CAPABILITY %s] -", tag, word, atoms(code[len("CAPABILITY "):])), true
		case word == "NO" && isAtom(code):
			return line, true
		}
		if text == "" {
			text = "-"
		}
		return fmt.Appendf(nil, "%s %s %s", tag, word, text), true
	}
	w.note("dropped a line that does not belong to a sign-in: " + w.shown(s, 80))
	return nil, false
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

// atoms gives those words of a line that are atoms (RFC 9051 9), and one at
// least: imapclient dies of a capability that is none, and of a space too many.
func atoms(line string) string {
	words := slices.DeleteFunc(strings.Fields(line), func(word string) bool {
		return strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("(){%*\"\\]", r) })
	})
	if len(words) == 0 {
		return "IMAP4rev1"
	}
	return strings.Join(words, " ")
}

func isAtom(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '-' })
}

// endSignIn takes the connection from imapclient. A read that it has under way
// ends at once; only when it is over may the session read.
func (w *wire) endSignIn() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signIn = false
	if err := w.conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	for w.reading {
		w.cond.Wait()
	}
	return nil
}

// lastWords gives what the server said before it hung up.
func (w *wire) lastWords() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said
}

// Write sends what imapclient or the session has to say.
func (w *wire) Write(p []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.conn.Write(p)
}

// Close ends the connection and whoever waits on it.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closed = true
	w.cond.Broadcast()
	w.mu.Unlock()
	return w.conn.Close()
}

// LocalAddr, RemoteAddr and the deadlines make a net.Conn of the wire; its
// deadlines are its own.
func (w *wire) LocalAddr() net.Addr              { return w.conn.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.conn.RemoteAddr() }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// redact replaces secrets that a server echoes.
func (w *wire) redact(s string) string {
	w.mu.Lock()
	secrets := w.secrets
	w.mu.Unlock()
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "[secret]")
	}
	return s
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
	if errors.Is(err, os.ErrDeadlineExceeded) {
		kind = mail.KindSilent
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &mail.Fault{Kind: kind, Err: err}
}

func clip(s string, most int) string {
	s = printable(s)
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
