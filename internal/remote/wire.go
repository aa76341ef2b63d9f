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
	"cmp"
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
	maxJunk  = 16 << 20  // bytes dropped during one command, literals apart
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

	mu       sync.Mutex
	cond     *sync.Cond
	signIn   bool // imapclient may read
	reading  bool // it does
	patient  bool // the password is being asked for: the server may be silent
	closed   bool
	greeting string
	auth     string   // tag of the LOGIN or AUTHENTICATE under way
	caps     []string // told since then; nil: not told
	said     string   // the last NO, BAD or BYE in the server's words
	cause    error    // what ended imapclient's reading
	secrets  secrets

	pending []byte // a filtered line on its way to imapclient
	line    []byte // part of a line that a deadline cut

	record *transcript // nil: nothing is recorded
	log    *transcript // what record is between exchanges; nil if nobody asked for it
	got    int         // bytes since pulse
	pulse  time.Time
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
	w.mu.Lock()
	patient := w.patient
	w.mu.Unlock()
	if w.got >= pulseBytes || patient {
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
			w.rested(nil)
			return n, nil
		}
		line, err := w.readLine(maxText)
		if again := w.rested(err); err != nil {
			if again {
				continue // what came of a line is kept
			}
			return 0, err
		}
		if line, ok := w.filter(line); ok {
			w.pending = append(append(w.pending[:0], line...), "\r\n"...)
		}
	}
}

// rested says that imapclient's read is over with err, and tells whether that
// is no reason to end: the session takes over, or a person is looking for the
// password.
func (w *wire) rested(err error) (again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading = false
	w.cond.Broadcast()
	if !w.signIn && !w.closed || w.patient && errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	if err != nil {
		w.cause = err
	}
	return false
}

// waitFor lets the server be silent as long as f takes: it is not its turn.
func (w *wire) waitFor(f func() (string, error)) (string, error) {
	w.mu.Lock()
	w.patient = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.patient = false
		_ = w.conn.SetReadDeadline(time.Now().Add(w.timeout)) // if it fails, so does the next write
	}()
	return f()
}

// filter makes a line of the sign-in safe for imapclient: words that it knows,
// capabilities that are atoms, and no other response code, since it dies of
// those that it cannot read.
func (w *wire) filter(line []byte) ([]byte, bool) {
	s := strings.ReplaceAll(string(line), "\r", " ")
	tag, rest, _ := strings.Cut(s, " ")
	w.mu.Lock()
	defer w.mu.Unlock()
	if tag == "+" {
		// What a mechanism says is between it and the server.
		w.trace(false, "+ [...]")
		return []byte("+ " + rest), true
	}
	w.trace(false, s)
	word, rest, _ := strings.Cut(rest, " ")
	switch word = strings.ToUpper(word); {
	case tag != "*" && !isClientTag(tag):
	case tag == "*" && word == "CAPABILITY":
		w.caps = atoms(rest)
		return []byte("* CAPABILITY " + w.capsLine()), true
	case word == "OK" || word == "NO" || word == "BAD" || word == "BYE" || word == "PREAUTH":
		code, text := splitCode(rest)
		if w.greeting == "" && tag == "*" {
			w.greeting = w.shown(text, 300)
		}
		if word == "NO" || word == "BAD" || word == "BYE" {
			w.said = w.shown(word+" "+strings.TrimSpace(rest), 400)
		}
		name, list, _ := strings.Cut(code, " ")
		told := strings.EqualFold(name, "CAPABILITY")
		if told {
			w.caps = atoms(list)
		}
		out := tag + " " + word
		switch {
		case told:
			out += " [CAPABILITY " + w.capsLine() + "]"
		case tag == w.auth && word == "OK":
			// imapclient would ask by itself now, at any time. The session
			// knows what was told, and asks if nothing was.
			out += " [CAPABILITY IMAP4rev1]"
		}
		return []byte(out + " - " + text), true
	}
	w.note("dropped a line that does not belong to a sign-in: " + w.shown(s, 80))
	return nil, false
}

// capsLine gives the capabilities as imapclient takes them: one at least.
func (w *wire) capsLine() string { return cmp.Or(strings.Join(w.caps, " "), "IMAP4rev1") }

// isClientTag tells whether a tag could be one of imapclient's.
func isClientTag(tag string) bool {
	n, ok := strings.CutPrefix(tag, "T")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
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

// trace adds to the transcript of the sign-in. The caller holds mu.
func (w *wire) trace(client bool, text string) {
	if w.log != nil {
		w.log.add(client, text)
	}
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
	if len(w.line) > 0 {
		// What was read of a line before that goes in front again. The buffer
		// is empty, or the line would not have stopped there.
		w.br = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(w.line)), deadlined{w}), 64<<10)
		w.line = nil
	}
	return nil
}

// Write sends what imapclient or the session has to say.
func (w *wire) Write(p []byte) (int, error) {
	now := time.Now()
	w.mu.Lock()
	if w.signIn {
		w.hears(string(p))
		// imapclient reads all the time; the server's time begins now.
		if err := w.conn.SetReadDeadline(now.Add(w.timeout)); err != nil {
			w.mu.Unlock()
			return 0, err
		}
	}
	w.mu.Unlock()
	if err := w.conn.SetWriteDeadline(now.Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.conn.Write(p)
}

// hears notes what imapclient sends. Of a sign-in only the command's name is
// shown. The caller holds mu.
func (w *wire) hears(sent string) {
	for line := range strings.Lines(sent) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 2 && isClientTag(words[0]) && (words[1] == "LOGIN" || words[1] == "AUTHENTICATE"):
			w.auth, w.caps = words[0], nil
			mechanism := ""
			if words[1] == "AUTHENTICATE" && len(words) > 2 {
				mechanism = words[2] + " "
			}
			w.trace(true, words[0]+" "+words[1]+" "+mechanism+"[...]")
		case len(words) == 2 && (isClientTag(words[0]) || words[1] == "STARTTLS"):
			w.trace(true, strings.Join(words, " "))
		default:
			w.trace(true, "[...]")
		}
	}
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

// secrets are what is never shown, in each form in which it goes over the wire.
type secrets struct {
	mu   sync.Mutex
	list []string
}

// redact replaces secrets that a server echoes.
func (w *wire) redact(s string) string {
	w.secrets.mu.Lock()
	defer w.secrets.mu.Unlock()
	for _, secret := range w.secrets.list {
		s = strings.ReplaceAll(s, secret, "[secret]")
	}
	return s
}

// cut takes from the end of a text that was cut what may be the beginning of a
// secret.
func (w *wire) cut(s string) string {
	w.secrets.mu.Lock()
	defer w.secrets.mu.Unlock()
	most := 0
	for _, secret := range w.secrets.list {
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
	w.secrets.mu.Lock()
	defer w.secrets.mu.Unlock()
	for _, s := range secrets {
		// Replacing every "a" would hide nothing and spoil every text.
		if len(s) < 3 {
			continue
		}
		for _, form := range []string{s, strings.ToUpper(s)} { // words of answers are read in upper case
			if !slices.Contains(w.secrets.list, form) {
				w.secrets.list = append(w.secrets.list, form)
			}
		}
	}
	// A long one may hold a short one, and must go first.
	slices.SortFunc(w.secrets.list, func(a, b string) int { return len(b) - len(a) })
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

// clip makes a text fit to be shown, with at most so many bytes.
func clip(s string, most int) string {
	s = printable(s[:min(len(s), 4*most)])
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
