package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Session is a signed-in connection. Its methods are called from one goroutine
// at a time; a context that ends closes the connection. Errors are *mail.Fault,
// the context's, or the sink's.
type Session struct {
	reader
	client    *imapclient.Client
	user      string
	caps      map[string]bool
	names     *Names
	tags      string
	n         int
	mailbox   string
	exists    uint32
	qresync   bool // enabled
	dead      bool
	left      bool // BYE came
}

// maxCommand bounds a command line, in bytes: RFC 7162 4 asks clients for 8192
// at most.
const maxCommand = 8000

// Has tells whether a capability may be used.
func (s *Session) Has(capability string) bool { return s.caps[strings.ToUpper(capability)] }

// Capabilities gives those that may be used, sorted.
func (s *Session) Capabilities() []string {
	var out []string
	for c := range s.caps {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// Mailbox is the selected mailbox; "" if there is none.
func (s *Session) Mailbox() string { return s.mailbox }

// Alive is false once the connection is of no more use.
func (s *Session) Alive() bool { return !s.dead }

// Close says good-bye, if anybody listens, and closes the connection.
func (s *Session) Close() error {
	if !s.dead {
		s.timeout = min(s.timeout, 2*time.Second)
		// The answer is not worth a round trip.
		_, _ = s.Write([]byte(s.tags + "z LOGOUT\r\n")) // it is closed anyway
	}
	s.dead = true
	err := s.wire.Close()
	_ = s.client.Close() // its reader has seen the connection go
	return err
}

func (s *Session) kill() {
	s.dead, s.mailbox = true, ""
	_ = s.wire.Close() // what killed it is what the caller hears of
}

// handler takes untagged responses: FETCH from after the word on, data (LIST,
// SEARCH, ...) if it wants that word, status lines with their code.
type handler struct {
	fetch  func(seq uint32) error
	data   func(word string) (taken bool, err error)
	status func(word, code, text string)
}

// answer is a tagged response.
type answer struct {
	status, code, text string
}

// fault gives the fault of an answer that is not OK.
func (a answer) fault(op string) error {
	if a.status == "OK" {
		return nil
	}
	return withOp(refusal(a.status, a.code, a.text), op)
}

// command sends one command and reads up to its answer.
func (s *Session) command(ctx context.Context, line string, h handler) (answer, error) {
	as, err := s.commands(ctx, []string{line}, h)
	if err != nil {
		return answer{}, err
	}
	return as[0], nil
}

// commands sends commands in one flight and reads up to the last answer.
func (s *Session) commands(ctx context.Context, lines []string, h handler) (answers []answer, err error) {
	op, _, _ := strings.Cut(lines[0], " (")
	if words := strings.Fields(op); len(words) > 1 && words[0] == "UID" {
		op = words[0] + " " + words[1]
	} else if len(words) > 0 {
		op = words[0]
	}
	if s.dead {
		return nil, &mail.Fault{Kind: mail.KindCut, Op: op, Mailbox: s.mailbox, Text: "the connection is closed"}
	}
	mailbox := s.mailbox
	defer func() {
		if err == nil {
			return
		}
		s.kill()
		if ctx.Err() != nil {
			err = ctx.Err()
			return
		}
		if f, ok := errors.AsType[*mail.Fault](err); ok {
			if s.left && f.Kind == mail.KindCut {
				status, rest, _ := strings.Cut(s.lastWords(), " ")
				code, text := splitCode(rest)
				f = refusal(status, strings.ToUpper(code), text)
			}
			f.Op, f.Mailbox = op, mailbox
			err = f
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.wire.Close() })
	defer stop()
	s.rest()
	s.junk = 0

	var out strings.Builder
	pending := make(map[string]int, len(lines))
	for i, line := range lines {
		if strings.ContainsAny(line, "\r\n\x00") {
			return nil, fmt.Errorf("a command with a line break: %q", line)
		}
		s.n++
		tag := s.tags + strconv.Itoa(s.n)
		pending[tag] = i
		fmt.Fprintf(&out, "%s %s\r\n", tag, line)
		if s.record != nil {
			s.record.add(true, tag+" "+line)
		}
	}
	if _, err := s.Write([]byte(out.String())); err != nil {
		return nil, ioFault(err)
	}
	answers = make([]answer, len(lines))
	for noise := 0; len(pending) > 0; noise++ {
		if noise > maxNoise {
			return nil, &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of answers"}
		}
		s.used = 0
		tag, err := s.response(h, &noise)
		if bad, ok := errors.AsType[*errSyntax](err); ok {
			s.note(fmt.Sprintf("%s: dropped an answer that cannot be read: %v", op, bad))
			err = s.skipLine()
		}
		if err != nil {
			return nil, err
		}
		i, ok := pending[tag]
		if tag == "" || !ok {
			if tag != "" {
				s.note(fmt.Sprintf("%s: dropped a line that nobody asked for", op))
				if err := s.skipLine(); err != nil {
					return nil, err
				}
			}
			continue
		}
		delete(pending, tag)
		if answers[i], err = s.tagged(); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// response reads one response. For a tagged one it gives the tag and leaves the
// rest; for others, "".
func (s *Session) response(h handler, noise *int) (tag string, err error) {
	c, err := s.peek()
	if err != nil {
		return "", err
	}
	if c == '+' || c == '\r' || c == '\n' {
		return "", s.skipLine() // nobody waits for it; or an extra line (Exchange 2003, libetpan#45)
	}
	word, err := s.word()
	if err != nil {
		return "", err
	}
	if word != "*" {
		if word == "" {
			return "", syntax("%q begins no response", c)
		}
		return word, nil
	}
	if err := s.spaces(); err != nil {
		return "", err
	}
	if word, err = s.word(); err != nil {
		return "", err
	}
	word = strings.ToUpper(word)
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return "", s.untagged(word, h)
	}
	if err := s.spaces(); err != nil {
		return "", err
	}
	if word, err = s.word(); err != nil {
		return "", err
	}
	switch strings.ToUpper(word) {
	case "FETCH":
		*noise = 0
		if h.fetch != nil {
			return "", h.fetch(uint32(n))
		}
	case "EXISTS":
		s.exists = uint32(n) // several may come, the last counts (Zimbra)
	case "EXPUNGE":
		if s.exists > 0 {
			s.exists--
		}
	}
	return "", s.skipLine()
}

func (s *Session) untagged(word string, h handler) error {
	switch word {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		rest, err := s.text()
		if err != nil {
			return err
		}
		code, text := splitCode(rest)
		name, _, _ := strings.Cut(code, " ")
		if word == "NO" || word == "BAD" || word == "BYE" {
			said := s.shown(word+" "+strings.TrimSpace(rest), 400)
			s.mu.Lock()
			s.said = said
			s.mu.Unlock()
		}
		s.left = s.left || word == "BYE"
		if h.status != nil {
			h.status(word, code, text)
		}
		if strings.EqualFold(name, "ALERT") {
			s.note("the server says: " + s.shown(text, 300))
		}
		return nil
	}
	if h.data != nil {
		if err := s.spaces(); err != nil {
			return err
		}
		if taken, err := h.data(word); taken || err != nil {
			return err
		}
	}
	switch word {
	case "CAPABILITY", "FLAGS", "LIST", "LSUB", "STATUS", "SEARCH", "ESEARCH", "ENABLED", "VANISHED", "ID", "NAMESPACE":
	default:
		s.note("dropped an answer of an unknown kind: " + s.shown(word, 40))
	}
	return s.skipLine()
}

func (s *Session) tagged() (answer, error) {
	if err := s.spaces(); err != nil {
		return answer{}, err
	}
	status, err := s.word()
	if err != nil {
		return answer{}, err
	}
	rest, err := s.text()
	if err != nil {
		return answer{}, err
	}
	code, text := splitCode(rest)
	a := answer{strings.ToUpper(status), strings.ToUpper(s.shown(code, 200)), s.shown(text, 400)}
	if a.status != "OK" && a.status != "NO" {
		a.status = "BAD"
	}
	return a, nil
}

// quoteMailbox gives a mailbox's name as a command has it.
func (s *Session) quoteMailbox(name string) string {
	wire, ok := s.names.wire(name)
	if !ok {
		wire = encodeName(name)
	}
	return `"` + strings.ReplaceAll(strings.ReplaceAll(wire, `\`, `\\`), `"`, `\"`) + `"`
}

// sets splits a set so that no command line is too long.
func sets(set imap.UIDSet) []string {
	var out []string
	var b strings.Builder
	for _, r := range set {
		part := strconv.FormatUint(uint64(r.Start), 10)
		if r.Stop != r.Start {
			part += ":" + strconv.FormatUint(uint64(r.Stop), 10)
		}
		if b.Len()+len(part)+1 > maxCommand {
			out = append(out, b.String())
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(part)
	}
	if b.Len() > 0 {
		out = append(out, b.String())
	}
	return out
}

// parseSet reads a set of UIDs as servers write it. Numbers that are none are
// left out.
func parseSet(text string) imap.UIDSet {
	var ranges []imap.UIDRange
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 32)
		b, errB := strconv.ParseUint(to, 10, 32)
		if errA != nil || errB != nil || a == 0 || b == 0 {
			continue
		}
		ranges = append(ranges, imap.UIDRange{Start: imap.UID(min(a, b)), Stop: imap.UID(max(a, b))})
	}
	return join(ranges)
}

// join makes an ascending set of ranges that do not touch.
func join(ranges []imap.UIDRange) imap.UIDSet {
	slices.SortFunc(ranges, func(a, b imap.UIDRange) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
	var out imap.UIDSet
	for _, r := range ranges {
		if n := len(out); n > 0 && uint64(r.Start) <= uint64(out[n-1].Stop)+1 {
			out[n-1].Stop = max(out[n-1].Stop, r.Stop)
			continue
		}
		out = append(out, r)
	}
	return out
}
