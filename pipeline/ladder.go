package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Answer is how a server answered when it was asked for one item.
type Answer string

// The answers.
const (
	AnswerData       Answer = "data"
	AnswerEmpty      Answer = "empty" // an empty string or literal
	AnswerNil        Answer = "NIL"
	AnswerNothing    Answer = "nothing"    // OK, without the item
	AnswerSubstitute Answer = "substitute" // a mail about the failure (OfflineIMAP#62)
	AnswerNo         Answer = "NO"
	AnswerBad        Answer = "BAD"
	AnswerCut        Answer = "cut"       // the connection ended
	AnswerSilent     Answer = "no answer" // within the time that there was
	AnswerBroken     Answer = "unreadable"
)

// Rung is one item that was asked for, and what came.
type Rung struct {
	Item   string `json:"item"` // as a FETCH names it
	Answer Answer `json:"answer"`
	Size   int64  `json:"size,omitempty"` // bytes of data
	Text   string `json:"text,omitempty"` // a short value, or the server's words
}

// Bounds of one climb.
const (
	pieceSize   = 256 << 10 // asked for at once on the partial rung, in bytes
	maxParts    = 20        // MIME parts that are asked for
	maxSalvaged = 2 << 20   // bytes of parts, or of a mail's beginning, that are kept
)

// headerFields are asked for one by one: the seed's server answered for the
// first two of them and fell silent when they were asked for with others.
func headerFields() []string {
	return []string{"FROM SUBJECT", "FROM", "SUBJECT", "DATE", "TO", "MESSAGE-ID"}
}

const (
	rungHeader = "BODY.PEEK[HEADER]"
	rungText   = "BODY.PEEK[TEXT]"
	rungWhole  = "BODY.PEEK[]"
	rungUnpeek = "BODY[]"
	rungFlags  = "FLAGS"
	rungDate   = "INTERNALDATE"
	rungSize   = "RFC822.SIZE"
	rungStruct = "BODYSTRUCTURE"
	roadInTwo  = "HEADER and TEXT"
	roadPieces = "pieces"
)

// climb asks for a message item by item, small ones first, until the whole of
// it came or there is nothing left to ask for. What else comes is kept in the
// failure. The last rung is not a PEEK: after EXAMINE it must set no flag (RFC
// 9051 6.3.3), and Exchange hands out its substitute there only.
type climb struct {
	*stub.Salvaged
	validity uint64
	// enter gives a live session in which the mailbox is examined.
	enter func(context.Context) (Session, error)
	// open and done take a whole mail that came by some road.
	open func() (mail.Spool, error)
	done func(road string, m mail.Message, s mail.Spool) error
	// top: go on to the last rung even if the mail came before it.
	top bool
	// each is the longest time for one rung; deaths is how many connections may
	// die of what is asked for, 0 any number.
	each   time.Duration
	deaths int

	rungs []Rung
	road  string  // by which the whole mail came; "" if it did not
	lost  error   // why there was no session any more
	seen  string  // what became of \Seen, in words; "" if it stayed as it was
	fatal error   // of our own side
	head  []byte  // HEADER, if the whole of it came
	used  Session // the last rung's
	// opened: the rung that is no PEEK was asked for, so that \Seen may be set.
	opened bool
	// before are the flags as they were first told.
	before []string
}

// run climbs. The error is one of our own side, or the context's.
func (c *climb) run(ctx context.Context, whole bool) error {
	items := []string{rungFlags, rungDate, rungSize, "BODY", rungStruct}
	for _, f := range headerFields() {
		items = append(items, "BODY.PEEK[HEADER.FIELDS ("+f+")]")
	}
	items = append(items, rungHeader, rungText)
	for _, item := range items {
		if !c.rung(ctx, item) {
			return c.end(ctx)
		}
	}
	if c.road == "" {
		for i, p := range c.Structure {
			if i == maxParts {
				break
			}
			if len(c.Structure) == 1 && c.has(rungText) {
				break // it is the text
			}
			if !c.part(ctx, p) {
				return c.end(ctx)
			}
		}
	}
	if whole && !c.rung(ctx, rungWhole) {
		return c.end(ctx)
	}
	if (c.road == "" || c.top) && !c.pieces(ctx) {
		return c.end(ctx)
	}
	c.rung(ctx, rungUnpeek)
	return c.end(ctx)
}

func (c *climb) end(ctx context.Context) error {
	if c.fatal != nil {
		return c.fatal
	}
	return ctx.Err()
}

// has tells whether an item was answered with data.
func (c *climb) has(item string) bool {
	return slices.ContainsFunc(c.rungs, func(r Rung) bool { return r.Item == item && r.Answer == AnswerData })
}

// rung asks for one item and takes what comes. It is false when there is no use
// in going on.
func (c *climb) rung(ctx context.Context, item string) bool {
	if c.road != "" && !c.top {
		return false
	}
	v, answer, ok := c.ask(ctx, item)
	if c.opened && item == rungUnpeek {
		c.restoreSeen(ctx)
	}
	if answer != AnswerData {
		return ok
	}
	switch {
	case item == rungFlags:
		c.before = c.Told.Flags
	case item == rungStruct:
		c.Structure, _ = mail.ParseStructure(v.Text) // as far as it can be read
	case item == rungHeader:
		c.Header = v.Text
		if v.Size == int64(len(v.Text)) {
			c.head = v.Text // all of it, fit to begin a mail
		}
	case strings.HasPrefix(item, "BODY.PEEK[HEADER.FIELDS") && c.head == nil:
		c.Header = joinFields(c.Header, newFields(c.Header, v.Text))
	case item == rungText && c.head != nil:
		return c.take(ctx, roadInTwo, rungText, c.head, v) && ok
	case item == rungText:
		c.Text = v.Text
	case item == rungWhole, item == rungUnpeek:
		return c.take(ctx, item, item, nil, v) && ok
	}
	return ok
}

// ask asks for item and reads the answer.
func (c *climb) ask(ctx context.Context, item string) (v mail.Value, answer Answer, ok bool) {
	for {
		s, ok := c.live(ctx)
		if !ok {
			return v, "", false
		}
		fresh := s != c.used
		c.used = s
		var r Rung
		if v, r = c.once(ctx, s, item); ctx.Err() != nil {
			return v, "", false
		}
		if r.Answer == AnswerCut && !fresh {
			continue // it may have hung up after the answer before
		}
		c.rungs = append(c.rungs, r)
		if !s.Alive() && c.deaths > 0 {
			if c.deaths--; c.deaths == 0 {
				return v, r.Answer, false
			}
		}
		return v, r.Answer, true
	}
}

// once asks on one connection.
func (c *climb) once(ctx context.Context, s Session, item string) (mail.Value, Rung) {
	r := Rung{Item: item}
	c.opened = c.opened || item == rungUnpeek
	within, cancel := context.WithTimeout(ctx, c.each)
	defer cancel()
	ex, err := s.Exchange(within, fmt.Sprintf("UID FETCH %d (%s)", c.UID, item))
	if ctx.Err() != nil {
		return mail.Value{}, r
	}
	c.Heard(ex)
	var v mail.Value
	v, r.Answer = c.answer(ex, err, item)
	switch r.Answer {
	case AnswerData:
		r.Size = v.Size
		if !strings.Contains(item, "[") || strings.Contains(item, "HEADER.FIELDS") {
			r.Text = mail.OneLine(string(v.Text), 300)
		}
		if item == rungFlags {
			r.Size, r.Text = 0, cmp.Or(mail.OneLine(string(v.Text), 300), "none")
		}
	case AnswerNo, AnswerBad:
		r.Text = mail.OneLine(ex.Text, 300)
	case AnswerCut, AnswerBroken:
		if f, isFault := errors.AsType[*mail.Fault](err); isFault {
			r.Text = mail.OneLine(f.Text, 300)
		}
	}
	return v, r
}

// live gives a session for the next rung.
func (c *climb) live(ctx context.Context) (Session, bool) {
	s, err := c.enter(ctx)
	if err == nil {
		return s, true
	}
	c.lost = err
	// That the ladder's own time was up while connecting is no fault of ours.
	if ctx.Err() == nil && scopeOf(err, atMailbox) == ScopeRun {
		c.fatal = err
	}
	return nil, false
}

// answer reads what an exchange brought for one item.
func (c *climb) answer(ex *mail.Exchange, err error, item string) (mail.Value, Answer) {
	if err != nil {
		f, ok := errors.AsType[*mail.Fault](err)
		switch {
		case errors.Is(err, context.DeadlineExceeded), ok && f.Kind == mail.KindSilent:
			return mail.Value{}, AnswerSilent
		case ok && (f.Kind == mail.KindCut || f.Kind == mail.KindBye):
			return mail.Value{}, AnswerCut
		}
		return mail.Value{}, AnswerBroken
	}
	v, there := itemOf(ex, c.UID, item)
	switch {
	case !there && ex.Status == "NO":
		return v, AnswerNo
	case !there && ex.Status != "OK":
		return v, AnswerBad
	case !there:
		return v, AnswerNothing
	case v.Nil:
		return v, AnswerNil
	case v.Size == 0 && item != rungFlags:
		return v, AnswerEmpty
	case strings.Contains(item, "HEADER.FIELDS") && c.substituteField(v.Text):
		return v, AnswerSubstitute
	case strings.HasPrefix(item, "BODY") && isSubstitute(c.Salvaged, v.Text):
		return v, AnswerSubstitute
	}
	return v, AnswerData
}

// substituteField tells whether a field that came alone is a substitute's: only
// together with those before it can that be seen, and then they were, too.
func (c *climb) substituteField(field []byte) bool {
	if c.Substitute == nil {
		if !isSubstitute(c.Salvaged, joinFields(c.Header, field)) {
			return false
		}
		for i := range c.rungs {
			if r := &c.rungs[i]; r.Answer == AnswerData && strings.Contains(r.Item, "HEADER.FIELDS") {
				r.Answer = AnswerSubstitute
			}
		}
		c.Header = nil
	}
	return true
}

// itemOf gives the value of one item that an exchange brought for the message.
func itemOf(ex *mail.Exchange, uid imap.UID, item string) (mail.Value, bool) {
	if ex == nil {
		return mail.Value{}, false
	}
	for _, m := range ex.Fetched {
		// A response without a UID can only be about what was asked for; one
		// that says UID 0 (OfflineIMAP#336) is about nothing.
		if _, told := m.Items["UID"]; m.UID != uid && (told || len(ex.Fetched) > 1) {
			continue
		}
		if !strings.Contains(item, "[") {
			if v, ok := m.Items[item]; ok {
				return v, true
			}
			continue
		}
		// One section was asked for; servers spell its name in many ways.
		for name, v := range m.Items {
			if strings.HasPrefix(name, "BODY[") {
				return v, true
			}
		}
	}
	return mail.Value{}, false
}

// joinFields puts header fields that came one by one under each other.
func joinFields(header, more []byte) []byte {
	switch {
	case len(bytes.TrimSpace(more)) == 0:
		return header
	case len(header) == 0:
		return more
	}
	return slices.Concat(bytes.TrimRight(header, "\r\n"), []byte("\r\n"), more)
}

// newFields gives the fields of more that header does not have yet.
func newFields(header, more []byte) []byte {
	have := mail.ParseEnvelope(header).Fields
	var out []byte
	skip := false
	for line := range bytes.Lines(more) {
		if len(line) > 0 && line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			skip = have.Has(string(bytes.TrimRight(name, " \t\r\n")))
		}
		if !skip {
			out = append(out, line...)
		}
	}
	return out
}

// isSubstitute keeps what a substitute reveals, and tells that it is one.
func isSubstitute(f *stub.Salvaged, data []byte) bool {
	sub, ok := stub.ParseSubstitute(data)
	if !ok {
		return false
	}
	if f.Substitute == nil || f.Substitute.Subject == "" {
		f.Substitute = &sub
	}
	return true
}

// take hands a whole mail over: head, if there is one, and v. What was too long
// to be kept in memory is asked for again in pieces.
func (c *climb) take(ctx context.Context, road, item string, head []byte, v mail.Value) bool {
	if c.road != "" {
		return true
	}
	s, ok := c.spool(head)
	if !ok {
		return false
	}
	if v.Size > int64(len(v.Text)) {
		answer, going := c.stream(ctx, item, s)
		if item == rungUnpeek {
			c.restoreSeen(ctx) // its pieces are no PEEK either
		}
		if answer != AnswerData {
			s.Discard()
			return going
		}
		return c.finish(road, s) && going
	}
	if _, err := s.Write(v.Text); err != nil {
		return c.fail(s, err)
	}
	return c.finish(road, s)
}

func (c *climb) spool(head []byte) (mail.Spool, bool) {
	s, err := c.open()
	if err != nil {
		c.fatal = err
		return nil, false
	}
	if _, err := s.Write(head); err != nil {
		return nil, c.fail(s, err)
	}
	return s, true
}

// fail ends the climb by an error of our own side.
func (c *climb) fail(s mail.Spool, err error) bool {
	s.Discard()
	c.fatal = err
	return false
}

func (c *climb) finish(road string, s mail.Spool) bool {
	m := c.Told
	m.UID = c.UID
	if err := c.done(road, m, s); err != nil {
		c.fatal = err
		return false
	}
	c.road = road
	return true
}

// stream writes a section to s in pieces, until one is shorter than asked. The
// answer is that of the first piece that was not data.
func (c *climb) stream(ctx context.Context, section string, s mail.Spool) (Answer, bool) {
	for offset := int64(0); ; offset += pieceSize {
		piece := fmt.Sprintf("%s<%d.%d>", section, offset, pieceSize)
		v, answer, ok := c.ask(ctx, piece)
		if offset > 0 && answer == AnswerEmpty && ok {
			return AnswerData, true // it ended with the piece before
		}
		if answer != AnswerData {
			return answer, ok
		}
		if v.Size > pieceSize {
			return AnswerBroken, ok // the server does not know pieces
		}
		if _, err := s.Write(v.Text); err != nil {
			c.fatal = err
			return AnswerBroken, false
		}
		if room := maxSalvaged - len(c.Start); section == rungWhole && room > 0 {
			c.Start = append(c.Start, v.Text[:min(room, len(v.Text))]...)
		}
		if v.Size < pieceSize {
			return AnswerData, ok
		}
	}
}

// pieces asks for the mail in ranges. What came before a range that does not
// come is kept.
func (c *climb) pieces(ctx context.Context) bool {
	s, ok := c.spool(nil)
	if !ok {
		return false
	}
	answer, going := c.stream(ctx, rungWhole, s)
	if answer == AnswerData && c.fatal == nil {
		if c.road != "" {
			s.Discard()
			return going
		}
		return c.finish(roadPieces, s) && going
	}
	s.Discard()
	return going
}

// part asks for one MIME part, as it is encoded.
func (c *climb) part(ctx context.Context, p mail.Part) bool {
	v, answer, ok := c.ask(ctx, "BODY.PEEK["+p.Path+"]")
	if answer != AnswerData {
		return ok
	}
	kept := 0
	for _, q := range c.Parts {
		kept += len(q.Data)
	}
	if kept+len(v.Text) <= maxSalvaged {
		c.Parts = append(c.Parts, stub.Part{Part: p, Data: v.Text, Cut: v.Size > int64(len(v.Text))})
	}
	return ok
}

// restoreSeen looks whether the rung that was no PEEK set \Seen, although the
// mailbox is open for reading only, and puts it back. It has time of its own: the
// ladder's may have ended with that rung, or the user may have ended the run.
func (c *climb) restoreSeen(ctx context.Context) {
	if !c.has(rungFlags) || c.Told.Flags == nil {
		if c.top {
			c.seen = `whether \Seen changed is not known, since the server did not tell the flags before`
		}
		return
	}
	if hasFlag(c.before, `\Seen`) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.each)
	defer cancel()
	var s Session
	var ex *mail.Exchange
	var err error
	for range 2 { // it may have hung up after the answer before
		var ok bool
		if s, ok = c.live(ctx); !ok {
			c.seen = `whether \Seen changed could not be seen`
			return
		}
		if ex, err = s.Exchange(ctx, fmt.Sprintf("UID FETCH %d (FLAGS)", c.UID)); s.Alive() {
			break
		}
	}
	c.Heard(ex)
	v, there := itemOf(ex, c.UID, rungFlags)
	if err != nil || !there {
		c.seen = `whether \Seen changed could not be seen`
		return
	}
	if !hasFlag(strings.Fields(strings.Trim(string(v.Text), "()")), `\Seen`) {
		return
	}
	c.seen = `the server set \Seen although the mailbox was opened for reading only; it was put back`
	if err := c.clearSeen(ctx, s); err != nil {
		c.seen = `the server set \Seen although the mailbox was opened for reading only, and it could not be put back: ` + err.Error()
	}
	c.Told.Flags = c.before
}

func (c *climb) clearSeen(ctx context.Context, s Session) error {
	name := s.Mailbox()
	before, err := s.Select(ctx, name)
	if err != nil {
		return err
	}
	if before.UIDValidity != c.validity {
		// It stays selected otherwise, and its UIDs are those of other messages.
		return errors.Join(ErrUIDValidity, s.Close())
	}
	ex, err := s.Exchange(ctx, fmt.Sprintf(`UID STORE %d -FLAGS.SILENT (\Seen)`, c.UID))
	c.Heard(ex)
	if err == nil && ex.Status != "OK" {
		err = fmt.Errorf("%s %s", ex.Status, ex.Text)
	}
	_, again := s.Examine(ctx, name, nil)
	return errors.Join(err, again)
}
