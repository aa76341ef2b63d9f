package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Session is a signed-in connection. Its methods are called from one goroutine
// at a time; a context that ends closes the connection. Errors are *mail.Fault,
// the context's, or the sink's.
type Session struct {
	reader
	caps     map[string]bool
	told     []string // capabilities told during the sign-in; nil: not told
	greeting string
	utf8     bool   // mailboxes have names in UTF-8 on the wire
	unread   string // the tag of a command whose answer is nobody's; "" if there is none
	names    *Names
	listed   bool // names are from this session
	tags     string
	n        int
	mailbox  string
	validity uint64        // its UIDVALIDITY; 0 if that was not told
	exists   uint32        // messages in it; unknownExists if that was not told
	qresync  bool          // enabled
	unheard  time.Duration // maxUnheard
	ahead    *resyncing    // what Examine will be asked; nil if another command came since
	notified statusMap     // how the mailboxes stood when NOTIFY last told
	dead     bool
	bye      string   // what the server said when it left; "" if it did not
	aside    []string // untagged NO, BAD and BYE during the command
	noise    int      // responses during the command that nobody asked for
	maxNoise int      // how many of them there may be
}

// unknownExists is how many messages are in a mailbox before that is told.
const unknownExists = 1<<32 - 1

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

// Greeting is what the server said first, without its response code.
func (s *Session) Greeting() string { return s.greeting }

// Mailbox is the selected mailbox; "" if there is none.
func (s *Session) Mailbox() string { return s.mailbox }

// Alive is false once the connection is of no more use.
func (s *Session) Alive() bool { return !s.dead }

// Close says good-bye, if anybody listens, and closes the connection.
func (s *Session) Close() error {
	if !s.dead {
		s.timeout = min(s.timeout, 2*time.Second)
		if s.log != nil {
			s.log.add(true, s.tags+"z LOGOUT")
		}
		// The answer is not worth a round trip.
		_, _ = s.Write([]byte(s.tags + "z LOGOUT\r\n")) // it is closed anyway
	}
	s.dead, s.mailbox = true, ""
	err := s.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Session) kill() {
	s.dead, s.mailbox = true, ""
	s.cut()
}

// handler takes untagged responses: FETCH from after the word on, data (LIST,
// SEARCH, ...) if it wants that word, status lines with their code, others as
// they stand.
type handler struct {
	fetch  func(seq uint32) error
	data   func(word string) (taken bool, err error)
	status func(word, code, text string)
	other  func(line string)
	goOn   func() // the server asks for a literal
	// challenge takes what the server says during a sign-in. It is not recorded:
	// that is between a mechanism and the server.
	challenge func(text string) error
	bytes     int64 // that all of it may have, beside what messages may; 0: maxAnswer
}

// answer is a tagged response.
type answer struct {
	status, code, text string
	exists             uint32 // messages in the selected mailbox when it came
}

// fault gives the fault of an answer that is not OK.
func (a answer) fault(op string) error {
	if a.status == "OK" {
		return nil
	}
	return withOp(refusal(a.status, a.code, a.text), op)
}

// refused gives the fault of a lone command's answer that is not OK. What the
// server said beside it counts: some explain themselves in untagged lines only.
func (s *Session) refused(a answer, op string) error {
	if a.status == "OK" {
		return nil
	}
	f := refusal(a.status, a.code, strings.TrimPrefix(strings.Join(append([]string{a.text}, s.aside...), "; "), "; "))
	f.Op, f.Mailbox = op, s.mailbox
	return f
}

// command sends one command and reads up to its answer.
func (s *Session) command(ctx context.Context, line string, h handler) (answer, error) {
	as, err := s.commands(ctx, []string{line}, []handler{h})
	if err != nil {
		return answer{}, err
	}
	return as[0], nil
}

// commands sends commands in one flight and reads up to the last answer. Each has
// a handler of its own: what comes after the answers of n commands is the next one's.
func (s *Session) commands(ctx context.Context, lines []string, handlers []handler) (answers []answer, err error) {
	op := operation(lines[0])
	mailbox := s.mailbox
	if err := s.usable(ctx, op); err != nil {
		return nil, err
	}
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\n\x00") {
			return nil, &mail.Fault{Kind: mail.KindBad, Op: op, Mailbox: mailbox, Err: errors.New("a command is one line")}
		}
	}
	defer func() { err = s.over(ctx, op, mailbox, err) }()
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	s.beginCommands()
	text, pending := s.tagging(lines)
	_, sent := s.Write([]byte(text))
	if errors.Is(sent, os.ErrDeadlineExceeded) {
		return nil, ioFault(sent)
	}
	// After any other error there may be a BYE to read, which says why.
	return s.answers(op, pending, handlers)
}

// tagging gives commands as they are sent, and their places by their tags.
func (s *Session) tagging(lines []string) (text string, pending map[string]int) {
	var out strings.Builder
	pending = make(map[string]int, len(lines))
	for i, line := range lines {
		s.n++
		tag := s.tags + strconv.Itoa(s.n)
		pending[tag] = i
		fmt.Fprintf(&out, "%s %s\r\n", tag, line)
		if s.record != nil {
			s.record.add(true, tag+" "+unsaid(line))
		}
	}
	return out.String(), pending
}

// answers reads up to the last of the answers to commands that were sent.
func (s *Session) answers(op string, pending map[string]int, handlers []handler) ([]answer, error) {
	out := make([]answer, len(handlers))
	for len(pending) > 0 {
		i, a, err := s.step(op, pending, handlers[len(handlers)-len(pending)])
		if err != nil {
			return nil, err
		}
		if i >= 0 {
			out[i] = a
		}
	}
	return out, nil
}

// usable gives the reason why no command can be sent.
func (s *Session) usable(ctx context.Context, op string) error {
	if s.dead {
		return &mail.Fault{Kind: mail.KindCut, Op: op, Text: "the connection is closed"}
	}
	return ctx.Err()
}

// beginCommands forgets the last commands.
func (s *Session) beginCommands() {
	s.beginCommand()
	s.ahead = nil
	s.aside, s.noise = nil, 0
}

// over ends commands. After an error, or a BYE, the connection is of no more use.
func (s *Session) over(ctx context.Context, op, mailbox string, err error) error {
	if err == nil {
		if s.bye != "" {
			s.kill() // this was the last answer
		}
		return nil
	}
	s.kill()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		if s.bye != "" && (f.Kind == mail.KindCut || f.Kind == mail.KindSilent) {
			f = byeFault(s.bye)
		} else if f.Text == "" {
			f.Text = strings.Join(s.aside, "; ")
		}
		f.Op, f.Mailbox = op, mailbox
		return f
	}
	return err
}

// step reads one response. If it is the answer to a command of pending, that is
// taken out, and step gives its place; else -1.
func (s *Session) step(op string, pending map[string]int, h handler) (int, answer, error) {
	if err := s.within(h); err != nil {
		return -1, answer{}, err
	}
	tag, asked, err := s.response(h)
	if asked {
		s.answer = time.Now()
	} else {
		s.noise++
	}
	if bad, ok := errors.AsType[*errSyntax](err); ok {
		s.lost = true
		s.note(fmt.Sprintf("%s: dropped an answer that cannot be read: %v", op, bad))
		tag, err = "", s.skipLine()
	}
	if err != nil || tag == "" {
		return -1, answer{}, err
	}
	i, ok := pending[tag]
	if !ok && tag == s.unread {
		s.unread = ""
		return -1, answer{}, s.skipLine()
	}
	if !ok && h.other != nil && tag[0] == '[' {
		// Exchange 2013 leaves the "* OK" of a COPYUID out (net-imap#250).
		return -1, answer{}, s.others(tag, h)
	}
	if !ok {
		s.note(fmt.Sprintf("%s: dropped a line that nobody asked for", op))
		return -1, answer{}, s.skipLine()
	}
	delete(pending, tag)
	a, err := s.tagged()
	return i, a, err
}

// within begins a response, unless the server goes on for too long.
func (s *Session) within(h handler) error {
	s.begin()
	s.left = max(cmp.Or(h.bytes, maxAnswer)+bytesOfMessage*s.most(0)-s.took, 0)
	switch quiet := time.Since(s.answer); {
	case s.left == 0, int64(s.noise) > int64(s.maxNoise)+s.most(0):
		return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of answers"}
	case s.idle == nil && quiet > quietTimeouts*s.timeout:
		return &mail.Fault{Kind: mail.KindSilent, Text: fmt.Sprintf("only signs of life came in %v", quiet.Round(time.Second))}
	}
	return nil
}

// most is how many messages the mailbox may have, as far as it was told, or so many more:
// some come while it is asked for them.
func (s *Session) most(more int64) int64 {
	if s.exists == unknownExists {
		return more
	}
	return int64(s.exists) + int64(s.exists)/8 + more
}

// operation is a command in words, for people.
func operation(line string) string {
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
		return ""
	case len(words) > 1 && strings.EqualFold(words[0], "UID"):
		return strings.ToUpper(clip(words[0]+" "+words[1], 40))
	}
	return strings.ToUpper(clip(words[0], 40))
}

// byeFault makes a fault of "BYE text".
func byeFault(bye string) *mail.Fault {
	code, text := splitCode(strings.TrimPrefix(bye, "BYE "))
	return refusal("BYE", strings.ToUpper(code), text)
}

// moreMessages is how many messages an answer may have beyond those that the mailbox has.
const moreMessages = 1000

// plausible bounds how many messages there are in an answer.
func (s *Session) plausible(n int) error {
	if int64(n) > s.most(moreMessages) {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of messages"}
	}
	return nil
}

// joined bounds a set that grows: what was told again is in it once.
func (s *Session) joined(ranges []imap.UIDRange, most int64) ([]imap.UIDRange, error) {
	if int64(len(ranges)) <= 2*most {
		return ranges, nil
	}
	if ranges = join(ranges); int64(len(ranges)) > most {
		return nil, &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of messages"}
	}
	return ranges, nil
}

// response reads one response. For a tagged one it gives the tag and leaves the
// rest; for others, "". asked tells whether it is, or may be, what was asked for.
func (s *Session) response(h handler) (tag string, asked bool, err error) {
	c, err := s.peek()
	if err != nil {
		return "", false, err
	}
	if c == '+' && h.challenge != nil {
		return "", false, s.challenged(h)
	}
	if c == '+' || c == '\r' || c == '\n' {
		err := s.skipLine() // or an extra line (Exchange 2003, libetpan#45)
		if err == nil && c == '+' && h.goOn != nil {
			h.goOn()
		}
		return "", false, err
	}
	word, err := s.word()
	if err != nil {
		return "", false, err
	}
	if word != "*" {
		if word == "" {
			return "", false, syntax("%q begins no response", c)
		}
		return word, true, nil
	}
	if err := s.spaces(); err != nil {
		return "", false, err
	}
	if word, err = s.word(); err != nil {
		return "", false, err
	}
	if word == "" {
		return "", false, syntax("a response without a word")
	}
	word = strings.ToUpper(word)
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		asked, err := s.untagged(word, h)
		return "", asked, err
	}
	if err := s.spaces(); err != nil {
		return "", false, err
	}
	if word, err = s.word(); err != nil {
		return "", false, err
	}
	switch word = strings.ToUpper(word); word {
	case "FETCH":
		if h.fetch != nil {
			return "", true, h.fetch(uint32(n))
		}
	case "EXISTS":
		s.exists = uint32(n) // several may come, the last counts (Zimbra)
	case "EXPUNGE":
		if s.exists > 0 && s.exists != unknownExists {
			s.exists--
		}
	}
	return "", false, s.others(fmt.Sprintf("%d %s", n, word), h)
}

// others takes the rest of a response that is nobody's.
func (s *Session) others(words string, h handler) error {
	if h.other == nil {
		return s.skipLine()
	}
	rest, err := s.line(maxKept)
	if err == nil {
		h.other(words + rest)
	}
	return err
}

func (s *Session) untagged(word string, h handler) (asked bool, err error) {
	switch word {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		rest, err := s.text()
		if err != nil {
			return false, err
		}
		code, text := splitCode(rest)
		name, _, _ := strings.Cut(code, " ")
		if word == "NO" || word == "BAD" || word == "BYE" {
			said := s.shown(word+" "+strings.TrimSpace(rest), 400)
			if len(s.aside) < 5 {
				s.aside = append(s.aside, said)
			}
			if word == "BYE" {
				s.bye = said
			}
		}
		if h.status != nil {
			h.status(word, code, text)
		}
		s.alerted(name, text)
		return false, nil
	}
	if h.data != nil {
		if err := s.spaces(); err != nil {
			return false, err
		}
		if taken, err := h.data(word); taken || err != nil {
			return taken, err
		}
	}
	if h.other != nil {
		return true, s.others(s.shown(word, 40), h)
	}
	switch word {
	case "CAPABILITY", "FLAGS", "LIST", "LSUB", "STATUS", "SEARCH", "ESEARCH", "ENABLED", "VANISHED", "ID", "NAMESPACE":
	default:
		s.note("dropped an answer of an unknown kind: " + s.shown(word, 40))
	}
	return false, s.skipLine()
}

// alerted tells what the user must be told (RFC 9051 7.1).
func (s *Session) alerted(code, text string) {
	if strings.EqualFold(code, "ALERT") {
		s.alert(s.shown(text, 400))
	}
}

// mostOf is how much of a response code is kept: COPYUID lists messages, and
// half of it is worth nothing; so it is with the list of capabilities.
func mostOf(code string) int {
	switch name, _, _ := strings.Cut(strings.ToUpper(code), " "); name {
	case "COPYUID", "CAPABILITY":
		return maxCode
	}
	return 200
}

// maxCode is room for two sets of a thousand UIDs, none beside another.
const maxCode = 32 << 10

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
	s.alerted(code, text)
	a := answer{strings.ToUpper(status), strings.ToUpper(s.shown(code, mostOf(code))), s.shown(text, 400), s.exists}
	if a.status != "OK" && a.status != "NO" {
		a.status = "BAD"
	}
	return a, nil
}

// quote gives a mailbox's name as a command for Exchange has it. A name that is
// odd on the wire is known to whoever has listed or selected it.
func (s *Session) quote(mailbox string) string {
	wire, ok := s.names.wire(mailbox)
	if !ok {
		wire = s.wireName(mailbox)
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

// normal gives a set in the form that every server takes: ascending (exmail.qq,
// modern-email/defects#40), without `*` (Cyrus, cyrus-imapd#6071).
func normal(set imap.UIDSet) imap.UIDSet {
	ranges := make([]imap.UIDRange, len(set))
	for i, r := range set {
		if r.Start == 0 {
			r.Start = maxUID
		}
		if r.Stop == 0 {
			r.Stop = maxUID
		}
		ranges[i] = imap.UIDRange{Start: min(r.Start, r.Stop), Stop: max(r.Start, r.Stop)}
	}
	return join(ranges)
}

const maxUID imap.UID = 1<<32 - 1

// parseSet reads a set of UIDs as servers write it. ok is false if there is
// something in it that is no UID.
func parseSet(text string) (ranges []imap.UIDRange, ok bool) {
	ok = true
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 32)
		b, errB := strconv.ParseUint(to, 10, 32)
		if errA != nil || errB != nil || a == 0 || b == 0 {
			ok = false
			continue
		}
		ranges = append(ranges, imap.UIDRange{Start: imap.UID(min(a, b)), Stop: imap.UID(max(a, b))})
	}
	return ranges, ok
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
