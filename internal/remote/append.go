package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of what is sent before the answers are read. Nothing is read meanwhile,
// so that what the server says until then must fit into the buffers of the two
// sockets, or both sides wait for each other until the deadline: the answers to
// so many commands are some 10 kB, where the buffers take 100 at least.
const (
	maxFlight         = 1 << 20 // bytes of mails
	maxFlightCommands = 64
)

// maxMinus is the largest literal, in bytes, that LITERAL- sends without being
// asked for it (RFC 7888 5).
const maxMinus = 4096

// maxWrite is how much is sent within one deadline, in bytes. A write ends when
// the last byte is taken; of a whole mail over a slow line that could be later
// than any deadline.
const maxWrite = 16 << 10

// errChanged says that a file is not what was announced.
var errChanged = errors.New("the file has changed")

// Append stores mails in a mailbox, which need not be the selected one, in their
// order. What became of each is told also beside an error, which is of the
// connection; it is then that of each mail without an answer, too, and the
// server may have stored some of those.
func (s *Session) Append(ctx context.Context, mailbox string, uploads []mail.Upload) ([]mail.Appended, error) {
	if len(uploads) == 0 {
		return nil, nil
	}
	a := &appending{
		s: s, mailbox: mailbox, name: s.Quote(mailbox), uploads: uploads, pending: make(map[string]int),
		results: make([]mail.Appended, len(uploads)), known: make([]bool, len(uploads)),
		out: bufio.NewWriterSize(s.wire, maxWrite),
	}
	err := a.run(ctx)
	if err != nil {
		for i := range a.results {
			if !a.known[i] {
				a.results[i].Err = err
			}
		}
	}
	return a.results, err
}

// appending is one call of Append.
type appending struct {
	s       *Session
	mailbox string
	name    string // as it goes over the wire
	uploads []mail.Upload
	results []mail.Appended
	known   []bool         // what became of the mail
	pending map[string]int // places by tag
	size    int64          // bytes of the mails of pending
	out     *bufio.Writer
	goOn    bool
	buf     [maxWrite / 2]byte
	crlf    []byte // what is in buf, as it goes over the wire
}

func (a *appending) run(ctx context.Context) (err error) {
	if err := a.s.usable(ctx, "APPEND"); err != nil {
		return err
	}
	if strings.ContainsAny(a.name, "\r\n\x00") {
		return &mail.Fault{Kind: mail.KindBad, Op: "APPEND", Mailbox: a.mailbox, Err: errors.New("a command is one line")}
	}
	defer func() { err = a.s.over(ctx, "APPEND", a.mailbox, err) }()
	stop := context.AfterFunc(ctx, func() { _ = a.s.wire.Close() })
	defer stop()
	for i, u := range a.uploads {
		if a.s.bye != "" {
			return byeFault(a.s.bye)
		}
		if err := a.send(i, u); err != nil {
			return err
		}
	}
	return a.drain()
}

// send sends one mail, after the answers to those before it if it would be too
// much for the flight.
func (a *appending) send(i int, u mail.Upload) (err error) {
	if len(a.pending) == maxFlightCommands || len(a.pending) > 0 && a.size+u.Size > maxFlight {
		if err := a.drain(); err != nil {
			return err
		}
		if a.s.bye != "" {
			return byeFault(a.s.bye)
		}
	}
	refuse := func(err error) error {
		a.known[i], a.results[i].Err = true, err
		return nil
	}
	line, err := a.command(u)
	if err != nil {
		return refuse(err)
	}
	file, err := os.Open(u.Path)
	if err != nil {
		return refuse(err)
	}
	defer func() { _ = file.Close() }() // it was only read
	switch size, err := a.copy(io.Discard, file); {
	case err != nil:
		return refuse(err)
	case size != u.Size:
		return refuse(fmt.Errorf("%s: %w: it has %d bytes, not %d", u.Path, errChanged, size, u.Size))
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return refuse(err)
	}

	// A mail that has a flight of its own can as well wait for the server's
	// leave: one that is too large for it then costs no connection (RFC 7888 4).
	plus := ""
	if a.s.Has("LITERAL+") && u.Size <= maxFlight || a.s.Has("LITERAL-") && u.Size <= maxMinus {
		plus = "+"
	}
	a.s.n++
	tag := a.s.tags + strconv.Itoa(a.s.n)
	line = fmt.Sprintf("%s %s {%d%s}", tag, line, u.Size, plus)
	a.pending[tag] = i
	a.size += u.Size
	a.record(line)
	a.s.beginCommands()
	_, _ = a.out.WriteString(line + "\r\n") // it keeps its first error for Flush
	if plus == "" {
		if err := a.leave(tag, i); err != nil || a.known[i] {
			return err
		}
	}
	a.record(fmt.Sprintf("(%d bytes)", u.Size))
	return a.stream(tag, u, file)
}

func (a *appending) record(line string) {
	if a.s.record != nil {
		a.s.record.add(true, line)
	}
}

// command gives the command up to its literal.
func (a *appending) command(u mail.Upload) (string, error) {
	line := "APPEND " + a.name
	flags := slices.DeleteFunc(slices.Clone(u.Flags), func(f string) bool { return strings.EqualFold(f, `\Recent`) })
	for _, f := range flags {
		// A server that cannot read the line may take the mail for commands.
		name := strings.TrimPrefix(f, `\`)
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`(){%*"\`, r) }) {
			return "", &mail.Fault{Kind: mail.KindBad, Op: "APPEND", Mailbox: a.mailbox, Err: fmt.Errorf("%q is no flag", f)}
		}
	}
	if len(flags) > 0 {
		line += " (" + strings.Join(flags, " ") + ")"
	}
	if d := u.InternalDate; !d.IsZero() && d.Year() > 0 && d.Year() < 10_000 {
		line += d.Format(` "_2-Jan-2006 15:04:05 -0700"`)
	}
	return line, nil
}

// leave waits until the server asks for a literal, or answers without it.
func (a *appending) leave(tag string, i int) error {
	if err := a.flush(); err != nil {
		return err
	}
	a.goOn = false
	err := a.await(func() bool {
		_, waits := a.pending[tag]
		return a.goOn || !waits
	})
	if err == nil && a.known[i] && a.results[i].Err == nil {
		a.results[i] = mail.Appended{Err: &mail.Fault{Kind: mail.KindMalformed, Op: "APPEND", Mailbox: a.mailbox, Text: "OK before the mail was sent"}}
	}
	return err
}

// stream sends a literal, and the end of the command.
func (a *appending) stream(tag string, u mail.Upload, file io.Reader) error {
	size, err := a.copy(&exactly{a.out, u.Size}, file)
	if err == nil && size != u.Size {
		err = errChanged
	}
	if err == nil {
		_, _ = a.out.WriteString("\r\n") // it keeps its first error for Flush
		return nil
	}
	if err := a.flush(); err != nil {
		return err
	}
	// What was announced cannot be sent, and whatever else were sent the server
	// would take for part of it. The mails before this one are whole.
	_ = a.await(func() bool { // there is an error already
		_, waits := a.pending[tag]
		return !waits || len(a.pending) == 1
	})
	return &mail.Fault{Kind: mail.KindCut, Err: fmt.Errorf("%s: %w while it was sent: the connection had to be closed", u.Path, err)}
}

// exactly takes so many bytes at most.
type exactly struct {
	w    io.Writer
	left int64
}

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, errChanged
	}
	e.left -= int64(len(p))
	return e.w.Write(p)
}

// copy copies a mail as it goes over the wire, with CRLF where it has LF alone,
// and gives its size there in bytes.
func (a *appending) copy(to io.Writer, from io.Reader) (size int64, err error) {
	cr := false // the piece before ended with CR
	for {
		n, err := from.Read(a.buf[:])
		a.crlf = a.crlf[:0]
		for rest := a.buf[:n]; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				a.crlf = append(a.crlf, rest...)
				cr = rest[len(rest)-1] == '\r'
				break
			}
			if end > 0 {
				cr = rest[end-1] == '\r'
			}
			a.crlf = append(a.crlf, rest[:end]...)
			if !cr {
				a.crlf = append(a.crlf, '\r')
			}
			a.crlf = append(a.crlf, '\n')
			cr, rest = false, rest[end+1:]
		}
		if n > 0 {
			if _, err := to.Write(a.crlf); err != nil {
				return size, err
			}
			size += int64(len(a.crlf))
		}
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// flush sends what is left to send. If that fails, what the server said before
// is read: those mails are stored.
func (a *appending) flush() error {
	err := a.out.Flush()
	a.s.rest() // it was not the server's turn
	if err == nil {
		return nil
	}
	a.s.timeout = min(a.s.timeout, 2*time.Second)
	_ = a.drainAnswers() // there is an error already
	return ioFault(err)
}

// drain sends what is left to send, and reads all answers.
func (a *appending) drain() error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.drainAnswers()
}

func (a *appending) drainAnswers() error { return a.await(func() bool { return len(a.pending) == 0 }) }

// await reads responses until enough says so.
func (a *appending) await(enough func() bool) error {
	h := handler{goOn: func() { a.goOn = true }}
	for !enough() {
		i, answer, err := a.s.step("APPEND", a.pending, h)
		if err != nil {
			return err
		}
		if i >= 0 {
			a.s.rest() // a short line, but a whole mail went before it
			a.answered(i, answer)
		}
	}
	return nil
}

// answered takes the answer about one mail.
func (a *appending) answered(i int, ans answer) {
	a.known[i] = true
	a.size -= a.uploads[i].Size
	r := &a.results[i]
	if ans.status == "OK" {
		// [APPENDUID 14 5] (RFC 9051 7.1)
		if f := strings.Fields(ans.code); len(f) == 3 && f[0] == "APPENDUID" {
			validity, errV := strconv.ParseUint(f[1], 10, 64)
			uid, errU := strconv.ParseUint(f[2], 10, 32)
			if errV == nil && errU == nil && validity > 0 && uid > 0 {
				r.UIDValidity, r.UID = validity, imap.UID(uid)
			}
		}
		return
	}
	f := refusal(ans.status, ans.code, ans.text)
	if f.Code == "OVERQUOTA" && !strings.Contains(strings.ToLower(f.Text), "bandwidth") {
		f.Kind, f.RetryAfter = mail.KindNo, 0 // here it is the mailbox that is full, and waiting is no help
	}
	f.Op, f.Mailbox = "APPEND", a.mailbox
	r.Err = f
}
