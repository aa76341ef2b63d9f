package imaptest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Script is a small IMAP server on raw TCP, without TLS. It does what a server
// must, with the capabilities that it is given, and breaks every rule that its
// Fault tells it to break.
type Script struct {
	Caps string // "IMAP4rev1 LIST-STATUS ..."
	// Greeting is what its greeting says behind the capabilities; "" for nothing in particular.
	Greeting string
	Fault    *Fault // nil: none

	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	boxes []*ScriptBox
	log   []string // commands as they came, without tags and without secrets

	// An answer is written with mu held, and a client that does not read it
	// holds it up; Close must not wait for that.
	connMu sync.Mutex
	conns  map[net.Conn]bool
	total  int // connections so far
	closed bool
	hasty  bool            // a client came by Dial
	mute   map[string]bool // where the clients are that are told nothing more
}

// ScriptBox is one mailbox of a Script. Its fields are the test's before Start,
// and under With afterwards.
type ScriptBox struct {
	Name        string // as it goes over the wire
	Attrs       string // special uses (RFC 6154), as `\All`
	UIDValidity string // as it goes over the wire; "" is not told
	UIDNext     uint32
	ModSeq      uint64
	Mails       []*ScriptMail // ascending
	// ReadOnly takes no change, though it be opened by SELECT.
	ReadOnly bool
	// SeenOnExamine marks mail as seen even for who opened it by EXAMINE, which
	// RFC 9051 6.3.3 forbids.
	SeenOnExamine bool
	// Refuse gives the answer to APPEND of a mail of so many bytes ("NO [TOOBIG]
	// too large"), "" if it is stored. Nil stores all.
	Refuse func(size int) string
	// Partly has an APPEND of several mails, of which one is refused, store those
	// before it, which RFC 3502 forbids.
	Partly bool
	// HangUpAt is which of the mails that APPEND stores is not answered: the
	// connection is closed instead. The first is 1; 0 is none.
	HangUpAt int
	appended int
	gone     []scriptGone
}

type scriptGone struct {
	uid    uint32
	modseq uint64
}

// ScriptMail is one mail of a ScriptBox.
type ScriptMail struct {
	UID    uint32
	Raw    string // CRLF
	Flags  string // "\Seen todo"
	Date   time.Time
	ModSeq uint64
	// GmailID is X-GM-MSGID, of a server with X-GM-EXT-1.
	GmailID uint64
	// Structure is what BODY and BODYSTRUCTURE give, as it goes over the wire;
	// "" for that of Raw.
	Structure string
	// Parts are sections by name ("1", "2.1", "2.MIME", "HEADER") that are not
	// what Raw has there.
	Parts map[string]string
	// Rungs says how each item is answered; nil: as usual.
	Rungs Rungs
}

// NewScript starts a server with the mailboxes.
func NewScript(caps string, fault *Fault, boxes ...*ScriptBox) (*Script, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Script{Caps: caps, Fault: fault, listener: l, boxes: boxes, conns: make(map[net.Conn]bool), mute: make(map[string]bool)}
	if fault != nil && fault.Prepare != nil {
		fault.Prepare(s)
	}
	s.wg.Go(s.serve)
	return s, nil
}

// Box makes a mailbox of mails with UIDs 1, 2, ...
func Box(name string, raws ...string) *ScriptBox {
	b := &ScriptBox{Name: name, UIDValidity: "14", UIDNext: 1, ModSeq: 1}
	for _, raw := range raws {
		b.Add(raw, "")
	}
	return b
}

// Add puts a mail into the mailbox.
func (b *ScriptBox) Add(raw, flags string) *ScriptMail {
	b.ModSeq++
	m := &ScriptMail{UID: b.UIDNext, Raw: raw, Flags: flags, ModSeq: b.ModSeq, Date: time.Date(2020, 1, 1, 0, 0, int(b.UIDNext), 0, time.UTC)}
	b.UIDNext++
	b.Mails = append(b.Mails, m)
	return m
}

// Expunge takes a mail out of the mailbox.
func (b *ScriptBox) Expunge(uid uint32) {
	b.ModSeq++
	b.Mails = slices.DeleteFunc(b.Mails, func(m *ScriptMail) bool { return m.UID == uid })
	b.gone = append(b.gone, scriptGone{uid, b.ModSeq})
}

// Addr is where the server listens.
func (s *Script) Addr() string { return s.listener.Addr().String() }

// Port is the one that the kernel picked.
func (s *Script) Port() int { return s.listener.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // of a TCP listener

// With lets f change the mailboxes while no command is answered.
func (s *Script) With(f func(boxes []*ScriptBox)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.boxes)
}

// Break begins a fault. Its Prepare is not called.
func (s *Script) Break(f *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Fault = f
}

// Heal ends the fault.
func (s *Script) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Fault = nil
}

// Log gives the commands that came since the last call.
func (s *Script) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

// Dial connects to the server. On such a connection a silence of it is as long as its client waits
// at once: when all that came before it is read, the deadline of that is over.
func (s *Script) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.connMu.Lock()
	s.hasty = true
	s.connMu.Unlock()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return hastyConn{conn, s}, nil
}

// hastyConn is the client's end of a connection that Dial made.
type hastyConn struct {
	net.Conn
	s *Script
}

func (c hastyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		c.s.connMu.Lock()
		defer c.s.connMu.Unlock()
		if c.s.mute[c.LocalAddr().String()] {
			err = os.ErrDeadlineExceeded
		}
	}
	return n, err
}

// Close ends the server and its connections.
func (s *Script) Close() error {
	s.connMu.Lock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close() // the client sees it
	}
	s.connMu.Unlock()
	err := s.listener.Close()
	s.wg.Wait()
	return err
}

func (s *Script) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.connMu.Lock()
		s.total++
		c := &scriptConn{s: s, number: s.total, Conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriter(conn)}
		s.conns[conn] = true
		closed := s.closed
		s.connMu.Unlock()
		if closed {
			_ = conn.Close() // nobody waits for it
			return
		}
		s.wg.Go(func() {
			defer func() {
				_ = conn.Close() // it may be closed already
				s.connMu.Lock()
				delete(s.conns, conn)
				delete(s.mute, conn.RemoteAddr().String())
				s.connMu.Unlock()
			}()
			c.talk()
		})
	}
}

// errHangUp ends a connection.
var errHangUp = errors.New("hang up")

// scriptConn is one connection.
type scriptConn struct {
	net.Conn
	s         *Script
	r         *bufio.Reader
	w         *bufio.Writer
	box       *ScriptBox
	examine   bool // box was opened by EXAMINE
	number    int  // of the connections so far
	qresync   bool
	after     func() error // without the server's lock, before the tagged answer
	final     string       // instead of "OK done", for the command that is being answered
	last      bool         // hang up after the tagged answer
	mute      bool         // be silent after the tagged answer
	literals  []string     // the mails of an APPEND
	no        string       // the answer to an APPEND that is refused
	refusedAt int          // which of its mails that is about
}

// send writes without flushing.
func (c *scriptConn) send(format string, args ...any) {
	fmt.Fprintf(c.w, format, args...)
}

// hang waits until the client hangs up.
func (c *scriptConn) hang() error {
	_ = c.w.Flush() // what was said is said
	c.s.connMu.Lock()
	hasty := c.s.hasty
	c.s.mute[c.RemoteAddr().String()] = hasty
	c.s.connMu.Unlock()
	if tcp, ok := c.Conn.(*net.TCPConn); ok && hasty {
		_ = tcp.CloseWrite() // the client may be gone
	}
	_, _ = io.Copy(io.Discard, c.r) // ends with the connection
	return errHangUp
}

func (c *scriptConn) talk() {
	if f := c.s.fault(); f != nil && f.Greeting != nil {
		if f.Greeting(c) != nil {
			_ = c.w.Flush()
			return
		}
	} else {
		c.s.mu.Lock()
		says := cmp.Or(c.s.Greeting, "ready")
		c.s.mu.Unlock()
		c.send("* OK [CAPABILITY %s AUTH=PLAIN] %s\r\n", c.s.Caps, says)
	}
	for {
		if c.w.Flush() != nil {
			return
		}
		tag, command, args, err := c.command()
		if err != nil {
			return
		}
		c.final = "OK done"
		c.s.mu.Lock()
		err = c.answer(command, args)
		c.s.mu.Unlock()
		if errors.Is(err, errHang) {
			err = c.hang()
		}
		if err == nil && c.after != nil {
			err = c.after()
			c.after = nil
		}
		if err != nil {
			_ = c.w.Flush()
			return
		}
		c.send("%s %s\r\n", tag, c.final)
		if command == "LOGOUT" || c.last {
			_ = c.w.Flush() // the client may be gone
			return
		}
		if c.mute {
			_ = c.hang()
			return
		}
	}
}

// live counts the connections that are open.
func (s *Script) live() int {
	s.connMu.Lock()
	defer s.connMu.Unlock()
	return len(s.conns)
}

func (s *Script) fault() *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Fault
}

// errHang falls silent, without the server's lock.
var errHang = errors.New("fall silent")

// maxScriptLiteral is the largest literal that is read, in bytes.
const maxScriptLiteral = 64 << 20

// command reads a command with its literals. The mail of an APPEND is kept apart.
func (c *scriptConn) command() (tag, command, args string, err error) {
	var b strings.Builder
	c.literals, c.no = nil, ""
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", "", "", err
		}
		line = strings.TrimRight(line, "\r\n")
		b.WriteString(line)
		i := strings.LastIndexByte(line, '{')
		if i < 0 || !strings.HasSuffix(line, "}") {
			break
		}
		size := strings.TrimSuffix(line[i+1:len(line)-1], "+")
		n, err := strconv.Atoi(size)
		if err != nil || n > maxScriptLiteral {
			break
		}
		words := strings.Fields(b.String())
		mail := len(words) > 2 && strings.EqualFold(words[1], "APPEND")
		if mail {
			if c.no == "" {
				c.no, c.refusedAt = c.refusal(strings.Join(words[2:], " "), n), len(c.literals)
			}
			if c.no != "" && !strings.HasSuffix(line, "+}") {
				break // no leave to send it
			}
		}
		if !strings.HasSuffix(line, "+}") {
			c.send("+ go on\r\n")
			if err := c.w.Flush(); err != nil {
				return "", "", "", err
			}
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			return "", "", "", err
		}
		if mail {
			c.literals = append(c.literals, string(literal))
		} else {
			b.Write(literal)
		}
	}
	tag, rest, _ := strings.Cut(b.String(), " ")
	command, args, _ = strings.Cut(rest, " ")
	command = strings.ToUpper(command)
	if command == "UID" {
		word, rest, _ := strings.Cut(args, " ")
		command, args = "UID "+strings.ToUpper(word), rest
	}
	logged := command + " " + args
	if command == "LOGIN" || command == "AUTHENTICATE" {
		logged = command
	}
	c.s.mu.Lock()
	c.s.log = append(c.s.log, strings.TrimSpace(logged))
	c.s.mu.Unlock()
	if command == "AUTHENTICATE" && !strings.Contains(args, " ") {
		c.send("+ \r\n")
		if err := c.w.Flush(); err != nil {
			return "", "", "", err
		}
		if _, err := c.r.ReadString('\n'); err != nil {
			return "", "", "", err
		}
	}
	return tag, command, args, nil
}

// answer answers a command up to the tagged line. The server's lock is held.
func (c *scriptConn) answer(command, args string) error {
	s := c.s
	if command == "EXAMINE" || command == "SELECT" {
		c.examine = command == "EXAMINE"
	}
	if f := s.Fault; f != nil && f.Command != nil {
		if done, err := f.Command(c, command, args); done || err != nil {
			return err
		}
	}
	switch command {
	case "CAPABILITY":
		c.send("* CAPABILITY %s\r\n", s.Caps)
	case "LOGIN", "AUTHENTICATE":
		c.final = "OK [CAPABILITY " + s.Caps + "] signed in"
	case "NOOP", "ENABLE":
		c.qresync = c.qresync || command == "ENABLE"
	case "LOGOUT":
		c.send("* BYE see you\r\n")
	case "LIST":
		for _, b := range s.boxes {
			c.send("* LIST (%s) \"/\" %s\r\n", strings.TrimSpace(`\HasNoChildren `+b.Attrs), quoteName(b.Name))
			if strings.Contains(args, "STATUS") {
				c.status(b)
			}
		}
	case "STATUS":
		name, _, _ := strings.Cut(args, " (")
		if b := s.named(name); b != nil {
			c.status(b)
		} else {
			c.final = "NO no such mailbox"
		}
	case "CREATE":
		c.create(args)
	case "APPEND":
		return c.append(args)
	case "EXAMINE", "SELECT":
		c.open(args)
	default:
		if c.box == nil {
			c.final = "BAD unknown command, or nothing is selected"
			return nil
		}
		return c.selected(command, args)
	}
	return nil
}

// selected answers a command that is about the selected mailbox.
func (c *scriptConn) selected(command, args string) error {
	switch {
	case command == "SEARCH", command == "UID SEARCH":
		c.search(args, command == "UID SEARCH")
	case command == "FETCH", command == "UID FETCH":
		return c.fetch(args, command == "UID FETCH")
	case command == "UID STORE":
		c.store(args)
	case command == "EXPUNGE", command == "UID EXPUNGE" && c.s.has("UIDPLUS"):
		c.expunge(args)
	case command == "UID COPY", command == "UID MOVE" && c.s.has("MOVE"):
		c.copy(args, command == "UID MOVE")
	case command == "CLOSE", command == "UNSELECT" && c.s.has("UNSELECT"):
		c.close(command == "CLOSE")
	default:
		c.final = "BAD unknown command"
	}
	return nil
}

func quoteName(name string) string { return `"` + name + `"` }

func (s *Script) named(quoted string) *ScriptBox {
	name := strings.Trim(strings.TrimSpace(quoted), `"`)
	for _, b := range s.boxes {
		if b.Name == name {
			return b
		}
	}
	return nil
}

func (s *Script) has(capability string) bool {
	return slices.Contains(strings.Fields(s.Caps), capability)
}

func (c *scriptConn) status(b *ScriptBox) {
	c.send("* STATUS %s (MESSAGES %d UIDNEXT %d", quoteName(b.Name), len(b.Mails), b.UIDNext)
	if b.UIDValidity != "" {
		c.send(" UIDVALIDITY %s", b.UIDValidity)
	}
	if c.s.has("CONDSTORE") {
		c.send(" HIGHESTMODSEQ %d", b.ModSeq)
	}
	c.send(")\r\n")
}

// open answers SELECT and EXAMINE.
func (c *scriptConn) open(args string) {
	name, param, _ := strings.Cut(args, " (")
	b := c.s.named(name)
	c.box = b
	if b == nil {
		c.final = "NO no such mailbox"
		return
	}
	c.send("* %d EXISTS\r\n* 0 RECENT\r\n* OK [PERMANENTFLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft $MDNSent)] flags\r\n* OK [UIDNEXT %d] next\r\n", len(b.Mails), b.UIDNext)
	if b.UIDValidity != "" {
		c.send("* OK [UIDVALIDITY %s] ids\r\n", b.UIDValidity)
	}
	if c.s.has("CONDSTORE") {
		c.send("* OK [HIGHESTMODSEQ %d] highest\r\n", b.ModSeq)
	}
	var validity string
	var since uint64
	if n, _ := fmt.Sscanf(param, "QRESYNC (%s %d", &validity, &since); n == 2 && c.qresync && validity == b.UIDValidity {
		var gone []string
		for _, g := range b.gone {
			if g.modseq > since {
				gone = append(gone, strconv.FormatUint(uint64(g.uid), 10))
			}
		}
		if len(gone) > 0 {
			c.send("* VANISHED (EARLIER) %s\r\n", strings.Join(gone, ","))
		}
		for i, m := range b.Mails {
			if m.ModSeq > since {
				c.send("* %d FETCH (UID %d FLAGS (%s) MODSEQ (%d))\r\n", i+1, m.UID, m.Flags, m.ModSeq)
			}
		}
	}
	c.final = "OK [READ-WRITE] selected"
	if !c.writable() {
		c.final = "OK [READ-ONLY] examined"
	}
}
