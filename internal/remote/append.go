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
// so many commands are some 40 kB, where the buffers take 100 at least. When a
// bound is reached, answers are read until half of it is free: so the line is
// never idle, and each end speaks for long. A line that takes more bytes than
// these while its first answer may still be under way is not bound by them.
const (
	maxFlight         = 4 << 20 // bytes of mails
	maxFlightCommands = 256
	maxUnheard        = 500 * time.Millisecond
)

// Bounds of one command. With MULTIAPPEND it takes several mails, all or none
// (RFC 3502): a server that flushes what it stores to its disk does that once for
// all of them. One that is refused costs the others being sent again.
const (
	maxTogether      = 32
	maxTogetherBytes = 512 << 10
)

// maxUnasked is the largest mail, in bytes, that is sent without the server's
// leave: one that is too large for it then costs no connection (RFC 7888 4).
const maxUnasked = 1 << 20

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
// server may have stored some of those. stored, if it is not nil, is called for
// each mail as soon as it is known to be stored. then, if it is not nil, is what
// Examine will be asked of the mailbox next: where that goes with QRESYNC, it is
// asked in the same flight, and Examine has the answer already.
func (s *Session) Append(ctx context.Context, mailbox string, uploads []mail.Upload, stored func(i int, as mail.Appended), then *mail.Known) ([]mail.Appended, error) {
	if len(uploads) == 0 {
		return nil, nil
	}
	a := &appending{
		s: s, mailbox: mailbox, name: s.quote(mailbox), uploads: uploads, pending: make(map[string]int),
		results: make([]mail.Appended, len(uploads)), known: make([]bool, len(uploads)), stored: stored,
		out: bufio.NewWriterSize(s.wire, maxWrite),
	}
	// Of a mailbox that is open Dovecot may answer ENABLE first.
	if s.resyncs(then) && (s.qresync || s.mailbox == "") {
		a.then = s.resyncing(mailbox, then)
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
	known   []bool // what became of the mail
	stored  func(int, mail.Appended)
	then    *resyncing     // what goes with it; nil: nothing
	parts   []together     // the commands so far
	pending map[string]int // places in parts, by tag
	size    int64          // bytes of the mails of pending
	heard   time.Time      // when the server had answered all, or was listened to
	open    bool           // the last command has not ended: more mails may join it
	out     *bufio.Writer
	goOn    bool
	buf     [maxWrite / 2]byte
	crlf    []byte // what is in buf, as it goes over the wire
}

// together are the mails of one command.
type together struct {
	tag   string
	mails []int
	size  int64 // bytes
	sent  bool  // as a whole
}

func (a *appending) run(ctx context.Context) (err error) {
	if err := a.s.usable(ctx, "APPEND"); err != nil {
		return err
	}
	if strings.ContainsAny(a.name, "\r\n\x00") {
		return &mail.Fault{Kind: mail.KindBad, Op: "APPEND", Mailbox: a.mailbox, Err: errors.New("a command is one line")}
	}
	defer func() { err = a.s.over(ctx, "APPEND", a.mailbox, err) }()
	stop := context.AfterFunc(ctx, a.s.cut)
	defer stop()
	for i, u := range a.uploads {
		if err := a.send(i, u); err != nil {
			return err
		}
	}
	if a.then == nil || len(a.parts) == 0 {
		return a.drain()
	}
	a.end()
	text, pending := a.s.tagging(a.then.lines)
	_, _ = a.out.WriteString(text) // it keeps its first error for Flush
	if err := a.drain(); err != nil {
		return err
	}
	return a.look(pending)
}

// look reads what then asked for. All mails are answered for: that the mailbox
// cannot be had now is not their fault, and shows when it is asked for again.
func (a *appending) look(pending map[string]int) error {
	a.s.beginCommands()
	a.s.deselect()
	answers, err := a.s.answers("EXAMINE", pending, a.then.handlers)
	if err != nil {
		return err
	}
	if a.then.told, err = a.then.selected(answers); err == nil && a.then.told != nil && a.then.told.Resynced {
		a.s.ahead = a.then
	}
	return nil
}

// room waits for answers if one more command with a mail of this size would be
// too much for the flight.
func (a *appending) room(size int64) error {
	if len(a.pending) == 0 {
		a.heard = time.Now()
		return nil
	}
	if len(a.pending) < maxFlightCommands && (a.size+size <= maxFlight || time.Since(a.heard) < a.s.unheard) {
		return nil
	}
	if err := a.flush(); err != nil {
		return err
	}
	return a.await(func() bool {
		return len(a.pending) == 0 || len(a.pending) <= maxFlightCommands/2 && a.size+size <= maxFlight/2
	})
}

// send sends one mail.
func (a *appending) send(i int, u mail.Upload) (err error) {
	refuse := func(err error) error {
		a.known[i], a.results[i].Err = true, err
		return nil
	}
	line, err := a.attributes(u)
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

	tag, err := a.announce(i, u, line)
	if err != nil || a.known[i] {
		return err
	}
	a.record(fmt.Sprintf("(%d bytes)", u.Size))
	return a.stream(tag, u, file)
}

// announce sends what goes before a literal, and waits for the server's leave
// where that is needed. It gives the tag of the command.
func (a *appending) announce(i int, u mail.Upload, line string) (tag string, err error) {
	plus := ""
	if a.s.Has("LITERAL+") && u.Size <= maxUnasked || a.s.Has("LITERAL-") && u.Size <= maxMinus {
		plus = "+"
	}
	// Of an empty mail among others Dovecot makes the end of the command.
	company := plus != "" && !u.Alone && u.Size > 0 && a.s.Has("MULTIAPPEND")
	literal := fmt.Sprintf("{%d%s}", u.Size, plus)
	if last := len(a.parts) - 1; a.open && company && len(a.parts[last].mails) < maxTogether && a.parts[last].size+u.Size <= maxTogetherBytes {
		a.parts[last].mails = append(a.parts[last].mails, i)
		a.parts[last].size += u.Size
		a.size += u.Size
		a.write(line+" "+literal, "\r\n")
		return a.parts[last].tag, nil
	}
	a.end()
	if err := a.room(u.Size); err != nil {
		return "", err
	}
	if a.s.bye != "" {
		if err := a.drain(); err != nil {
			return "", err
		}
		return "", byeFault(a.s.bye)
	}
	a.s.n++
	tag = a.s.tags + strconv.Itoa(a.s.n)
	a.pending[tag] = len(a.parts)
	a.parts = append(a.parts, together{tag: tag, mails: []int{i}, size: u.Size})
	a.size += u.Size
	a.open = company
	a.s.beginCommands()
	a.write(tag+" APPEND "+a.name+line+" "+literal, "\r\n")
	if plus == "" {
		return tag, a.leave(tag)
	}
	return tag, nil
}

// end ends the command that mails could still join.
func (a *appending) end() {
	if a.open {
		a.close()
	}
}

func (a *appending) close() {
	a.open, a.parts[len(a.parts)-1].sent = false, true
	_, _ = a.out.WriteString("\r\n") // it keeps its first error for Flush
}

// write writes a line, for the transcript, too.
func (a *appending) write(line, end string) {
	a.record(line)
	_, _ = a.out.WriteString(line + end) // it keeps its first error for Flush
}

func (a *appending) record(line string) {
	if a.s.record != nil {
		a.s.record.add(true, line)
	}
}

// attributes gives what stands between a mailbox's name and a literal.
func (a *appending) attributes(u mail.Upload) (line string, err error) {
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
func (a *appending) leave(tag string) error {
	if err := a.flush(); err != nil {
		return err
	}
	a.goOn = false
	return a.await(func() bool {
		_, waits := a.pending[tag]
		return a.goOn || !waits
	})
}

// stream sends a literal, and the end of a command that no other mail can join.
func (a *appending) stream(tag string, u mail.Upload, file io.Reader) error {
	size, err := a.copy(&exactly{a.out, u.Size}, file)
	if err == nil && size != u.Size {
		err = errChanged
	}
	if err == nil {
		if !a.open {
			a.close()
		}
		return nil
	}
	if err := a.flush(); err != nil {
		return err
	}
	// What was announced cannot be sent, and whatever else were sent the server
	// would take for part of it. The commands before this one are whole.
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
	a.end()
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
		a.heard = time.Now()
		if i >= 0 {
			a.s.rest() // a short line, but a whole mail went before it
			a.answered(i, answer)
		}
	}
	return nil
}

// answered takes the answer about the mails of one command.
func (a *appending) answered(part int, ans answer) {
	p := a.parts[part]
	a.size -= p.size
	if ans.status != "OK" || !p.sent {
		f := refusal(ans.status, ans.code, ans.text)
		if ans.status == "OK" {
			f = &mail.Fault{Kind: mail.KindMalformed, Text: "OK before the mail was sent"}
		}
		if f.Code == "OVERQUOTA" && !strings.Contains(strings.ToLower(f.Text), "bandwidth") {
			f.Kind, f.RetryAfter = mail.KindNo, 0 // here it is the mailbox that is full, and waiting is no help
		}
		f.Op, f.Mailbox = "APPEND", a.mailbox
		for _, i := range p.mails {
			a.known[i] = true
			a.results[i] = mail.Appended{Err: f, Together: len(p.mails) > 1 && f.Kind != mail.KindThrottled && f.Kind != mail.KindCrowded}
		}
		return
	}
	validity, uids := appendUID(ans.code, len(p.mails))
	for k, i := range p.mails {
		a.known[i] = true
		if uids != nil {
			a.results[i].UIDValidity, a.results[i].UID = validity, uids[k]
		}
		if a.stored != nil {
			a.stored(i, a.results[i])
		}
	}
}

// appendUID gives the UIDs that n mails got, in their order: [APPENDUID 14 5],
// [APPENDUID 14 5:7,9] (RFC 9051 7.1). uids is nil if the answer does not say.
func appendUID(code string, n int) (validity uint64, uids []imap.UID) {
	f := strings.Fields(code)
	if len(f) != 3 || f[0] != "APPENDUID" {
		return 0, nil
	}
	validity, err := strconv.ParseUint(f[1], 10, 64)
	ranges, ok := parseSet(f[2])
	if err != nil || validity == 0 || !ok {
		return 0, nil
	}
	for _, r := range ranges {
		if uint64(r.Stop-r.Start) >= uint64(n-len(uids)) {
			return 0, nil
		}
		for u := uint64(r.Start); u <= uint64(r.Stop); u++ {
			uids = append(uids, imap.UID(u))
		}
	}
	if len(uids) != n {
		return 0, nil
	}
	return validity, uids
}
