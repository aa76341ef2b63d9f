package imaptest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
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
	Caps  string // "IMAP4rev1 LIST-STATUS ..."
	Fault *Fault // nil: none

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
}

// ScriptBox is one mailbox of a Script. Its fields are the test's before Start,
// and under With afterwards.
type ScriptBox struct {
	Name        string // as it goes over the wire
	UIDValidity string // as it goes over the wire; "" is not told
	UIDNext     uint32
	ModSeq      uint64
	Mails       []*ScriptMail // ascending
	gone        []scriptGone
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
}

// NewScript starts a server with the mailboxes.
func NewScript(caps string, fault *Fault, boxes ...*ScriptBox) (*Script, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Script{Caps: caps, Fault: fault, listener: l, boxes: boxes, conns: make(map[net.Conn]bool)}
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
	s       *Script
	r       *bufio.Reader
	w       *bufio.Writer
	box     *ScriptBox
	number  int // of the connections so far
	qresync bool
	after   func() error // without the server's lock, before the tagged answer
	final   string       // instead of "OK done", for the command that is being answered
}

// send writes without flushing.
func (c *scriptConn) send(format string, args ...any) {
	fmt.Fprintf(c.w, format, args...)
}

// hang waits until the client hangs up.
func (c *scriptConn) hang() error {
	_ = c.w.Flush()                 // what was said is said
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
		c.send("* OK [CAPABILITY %s AUTH=PLAIN] ready\r\n", c.s.Caps)
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
		if command == "LOGOUT" {
			_ = c.w.Flush()
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

// command reads a command with its literals.
func (c *scriptConn) command() (tag, command, args string, err error) {
	var b strings.Builder
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
		if err != nil || n > 1<<20 {
			break
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
		b.Write(literal)
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
			c.send("* LIST (\\HasNoChildren) \"/\" %s\r\n", quoteName(b.Name))
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
	case "EXAMINE", "SELECT":
		return c.examine(args)
	case "UID SEARCH":
		c.search(args)
	case "UID FETCH":
		return c.fetch(args)
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

func (c *scriptConn) examine(args string) error {
	name, param, _ := strings.Cut(args, " (")
	b := c.s.named(name)
	c.box = b
	if b == nil {
		c.final = "NO no such mailbox"
		return nil
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
	c.final = "OK [READ-ONLY] examined"
	return nil
}

// in tells whether a UID is in a set as clients write it.
func (b *ScriptBox) in(set string, uid uint32) bool {
	last := uint32(0)
	if n := len(b.Mails); n > 0 {
		last = b.Mails[n-1].UID
	}
	number := func(s string) uint32 {
		if s == "*" {
			return last
		}
		n, _ := strconv.ParseUint(s, 10, 32) // 0 is in no set
		return uint32(n)
	}
	for part := range strings.SplitSeq(set, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		x, y := number(from), number(to)
		if uid >= min(x, y) && uid <= max(x, y) {
			return true
		}
	}
	return false
}

func (c *scriptConn) search(args string) {
	words := strings.Fields(args)
	set := words[len(words)-1]
	var uids []string
	for _, m := range c.box.Mails {
		if set == "ALL" || c.box.in(set, m.UID) {
			uids = append(uids, strconv.FormatUint(uint64(m.UID), 10))
		}
	}
	switch {
	case !strings.HasPrefix(args, "RETURN"):
		c.send("* SEARCH %s\r\n", strings.Join(uids, " "))
	case len(uids) == 0:
		c.send("* ESEARCH (TAG \"x\") UID\r\n")
	default:
		c.send("* ESEARCH (TAG \"x\") UID ALL %s\r\n", strings.Join(uids, ","))
	}
}

// fetch answers UID FETCH.
func (c *scriptConn) fetch(args string) error {
	if c.box == nil {
		c.final = "BAD nothing is selected"
		return nil
	}
	set, items, _ := strings.Cut(args, " ")
	var since uint64
	if i := strings.Index(items, " (CHANGEDSINCE"); i >= 0 {
		_, _ = fmt.Sscanf(items[i:], " (CHANGEDSINCE %d)", &since) // 0 if it is not that
		items = items[:i]
	}
	items = strings.TrimSuffix(strings.TrimPrefix(items, "("), ")")
	for i, m := range slices.Clone(c.box.Mails) {
		if !c.box.in(set, m.UID) || since > 0 && m.ModSeq <= since {
			continue
		}
		if f := c.s.Fault; f != nil && f.Body != nil && m.UID == BadUID && c.box.Name == "INBOX" && strings.Contains(items, "BODY") {
			done, err := f.Body(c, &Asked{Seq: i + 1, Mail: m, Items: items, Alone: set == strconv.Itoa(BadUID)})
			if err != nil {
				return err
			}
			if done {
				continue
			}
		}
		c.message(i+1, m, items)
	}
	return nil
}

// attributes gives what of a message is not its body.
func (m *ScriptMail) attributes(items string) string {
	out := []string{fmt.Sprintf("UID %d", m.UID)}
	for _, item := range strings.Fields(items) {
		switch item {
		case "FLAGS":
			out = append(out, "FLAGS ("+m.Flags+")")
		case "INTERNALDATE":
			out = append(out, `INTERNALDATE "`+m.Date.Format("_2-Jan-2006 15:04:05 -0700")+`"`)
		case "RFC822.SIZE":
			out = append(out, fmt.Sprintf("RFC822.SIZE %d", len(m.Raw)))
		case "MODSEQ":
			out = append(out, fmt.Sprintf("MODSEQ (%d)", m.ModSeq))
		}
	}
	return strings.Join(out, " ")
}

func (c *scriptConn) message(seq int, m *ScriptMail, items string) {
	c.send("* %d FETCH (%s", seq, m.attributes(items))
	if i := strings.Index(items, "BODY"); i >= 0 {
		section := strings.Replace(items[i:], ".PEEK", "", 1)
		body := m.section(section)
		if j := strings.IndexByte(section, '<'); j >= 0 { // <0.100> is answered as <0>
			offset, _, _ := strings.Cut(section[j+1:], ".")
			section = section[:j] + "<" + offset + ">"
		}
		c.send(" %s {%d}\r\n%s", section, len(body), body)
	}
	c.send(")\r\n")
}

// section gives a part of the mail.
func (m *ScriptMail) section(section string) string {
	name, rest, _ := strings.Cut(strings.TrimPrefix(section, "BODY["), "]")
	cut := strings.Index(m.Raw, "\r\n\r\n") + 4
	body := m.Raw
	switch {
	case name == "HEADER":
		body = m.Raw[:cut]
	case name == "TEXT":
		body = m.Raw[cut:]
	case strings.HasPrefix(name, "HEADER.FIELDS"):
		body = ""
		for line := range strings.Lines(m.Raw[:cut]) {
			field, _, ok := strings.Cut(line, ":")
			if ok && strings.Contains(name, strings.ToUpper(field)) {
				body += line
			}
		}
		body += "\r\n"
	}
	var offset, size int
	if n, _ := fmt.Sscanf(rest, "<%d.%d>", &offset, &size); n == 2 {
		offset = min(offset, len(body))
		body = body[offset:min(len(body), offset+size)]
	}
	return body
}
