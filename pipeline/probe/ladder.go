package probe

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

// Probe is one item that was asked for, and what came.
type Probe struct {
	Item   string `json:"item"` // as a FETCH names it
	Answer Answer `json:"answer"`
	Size   int64  `json:"size,omitempty"` // bytes of data
	Text   string `json:"text,omitempty"` // a short value, or the server's words
}

// Bounds of what one message is asked for.
const (
	PieceSize   = 256 << 10 // asked for at once on the piece, in bytes
	maxParts    = 20        // MIME parts that are asked for
	maxSalvaged = 2 << 20   // bytes of parts, or of a mail's beginning, that are kept
)

// headerFields are asked for one by one: the seed's server answered for the
// first two of them and fell silent when they were asked for with others.
func headerFields() []string {
	return []string{"FROM SUBJECT", "FROM", "SUBJECT", "DATE", "TO", "MESSAGE-ID"}
}

const (
	itemHeader   = "BODY.PEEK[HEADER]"
	itemText     = "BODY.PEEK[TEXT]"
	itemWhole    = "BODY.PEEK[]"
	itemUnpeek   = "BODY[]"
	itemFlags    = "FLAGS"
	itemDate     = "INTERNALDATE"
	itemSize     = "RFC822.SIZE"
	itemStruct   = "BODYSTRUCTURE"
	methodInTwo  = "HEADER and TEXT"
	methodPieces = "pieces"
)

// Speaker is a connection over which one command at a time is spoken by hand.
type Speaker interface {
	Opener
	// Exchange speaks one command. A tagged NO or BAD is no error.
	Exchange(ctx context.Context, command string) (*mail.Exchange, error)
}

// Salvager asks for a message item by item, small ones first, until the whole of
// it came or there is nothing left to ask for. What else comes is kept in
// Salvaged. The last item is not a PEEK: after EXAMINE it must set no flag (RFC
// 9051 6.3.3), and Exchange hands out its substitute there only.
type Salvager struct {
	*stub.Salvaged
	UIDValidity uint64
	// Enter gives a live session in which the mailbox is examined.
	Enter func(context.Context) (Speaker, error)
	// Open and Done take a whole mail that came by some method.
	Open func() (mail.Spool, error)
	Done func(method string, m mail.Message, s mail.Spool) error
	// All: go on to the last item even if the mail came before it.
	All bool
	// Each is the longest time for one item; Deaths is how many connections may
	// die of what is asked for, 0 any number.
	Each   time.Duration
	Deaths int

	Probes []Probe // what was asked for, in this order
	Method string  // by which the whole mail came; "" if it did not
	Lost   error   // why there was no session any more
	Fatal  error   // of our own side, which ended it
	Seen   string  // what became of \Seen, in words; "" if it stayed as it was

	head []byte  // HEADER, if the whole of it came
	used Speaker // the last item's
	// opened: the item that is no PEEK was asked for, so that \Seen may be set.
	opened bool
	// before are the flags as they were first told.
	before []string
}

// Run asks. The error is one of our own side, or the context's. whole: the whole mail is
// asked for before its pieces.
func (sal *Salvager) Run(ctx context.Context, whole bool) error {
	items := []string{itemFlags, itemDate, itemSize, "BODY", itemStruct}
	for _, f := range headerFields() {
		items = append(items, "BODY.PEEK[HEADER.FIELDS ("+f+")]")
	}
	items = append(items, itemHeader, itemText)
	for _, item := range items {
		if !sal.probe(ctx, item) {
			return sal.end(ctx)
		}
	}
	if sal.Method == "" {
		for i, p := range sal.Structure {
			if i == maxParts {
				break
			}
			if len(sal.Structure) == 1 && sal.has(itemText) {
				break // it is the text
			}
			if !sal.part(ctx, p) {
				return sal.end(ctx)
			}
		}
	}
	if whole && !sal.probe(ctx, itemWhole) {
		return sal.end(ctx)
	}
	if (sal.Method == "" || sal.All) && !sal.pieces(ctx) {
		return sal.end(ctx)
	}
	sal.probe(ctx, itemUnpeek)
	return sal.end(ctx)
}

func (sal *Salvager) end(ctx context.Context) error {
	if sal.Fatal != nil {
		return sal.Fatal
	}
	return ctx.Err()
}

// has tells whether an item was answered with data.
func (sal *Salvager) has(item string) bool {
	return slices.ContainsFunc(sal.Probes, func(r Probe) bool { return r.Item == item && r.Answer == AnswerData })
}

// probe asks for one item and takes what comes. It is false when there is no use
// in going on.
func (sal *Salvager) probe(ctx context.Context, item string) bool {
	if sal.Method != "" && !sal.All {
		return false
	}
	v, answer, ok := sal.ask(ctx, item)
	if sal.opened && item == itemUnpeek {
		sal.restoreSeen(ctx)
	}
	if answer != AnswerData {
		return ok
	}
	switch {
	case item == itemFlags:
		sal.before = sal.Told.Flags
	case item == itemStruct:
		sal.Structure, _ = ParseStructure(v.Text) // as far as it can be read
	case item == itemHeader:
		sal.Header = v.Text
		if v.Size == int64(len(v.Text)) {
			sal.head = v.Text // all of it, fit to begin a mail
		}
	case strings.HasPrefix(item, "BODY.PEEK[HEADER.FIELDS") && sal.head == nil:
		sal.Header = joinFields(sal.Header, newFields(sal.Header, v.Text))
	case item == itemText && sal.head != nil:
		return sal.take(ctx, methodInTwo, itemText, sal.head, v) && ok
	case item == itemText:
		sal.Text = v.Text
	case item == itemWhole, item == itemUnpeek:
		return sal.take(ctx, item, item, nil, v) && ok
	}
	return ok
}

// ask asks for item and reads the answer.
func (sal *Salvager) ask(ctx context.Context, item string) (v mail.Value, answer Answer, ok bool) {
	for {
		s, ok := sal.live(ctx)
		if !ok {
			return v, "", false
		}
		fresh := s != sal.used
		sal.used = s
		var r Probe
		if v, r = sal.once(ctx, s, item); ctx.Err() != nil {
			return v, "", false
		}
		if r.Answer == AnswerCut && !fresh {
			continue // it may have hung up after the answer before
		}
		sal.Probes = append(sal.Probes, r)
		if !s.Alive() && sal.Deaths > 0 {
			if sal.Deaths--; sal.Deaths == 0 {
				return v, r.Answer, false
			}
		}
		return v, r.Answer, true
	}
}

// once asks on one connection.
func (sal *Salvager) once(ctx context.Context, s Speaker, item string) (mail.Value, Probe) {
	r := Probe{Item: item}
	sal.opened = sal.opened || item == itemUnpeek
	within, cancel := context.WithTimeout(ctx, sal.Each)
	defer cancel()
	ex, err := s.Exchange(within, fmt.Sprintf("UID FETCH %d (%s)", sal.UID, item))
	if ctx.Err() != nil {
		return mail.Value{}, r
	}
	sal.Heard(ex)
	var v mail.Value
	v, r.Answer = sal.answer(ex, err, item)
	switch r.Answer {
	case AnswerData:
		r.Size = v.Size
		if !strings.Contains(item, "[") || strings.Contains(item, "HEADER.FIELDS") {
			r.Text = mail.OneLine(string(v.Text), 300)
		}
		if item == itemFlags {
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

// live gives a session for the next item.
func (sal *Salvager) live(ctx context.Context) (Speaker, bool) {
	s, err := sal.Enter(ctx)
	if err == nil {
		return s, true
	}
	sal.Lost = err
	// That the ladder's own time was up while connecting is no fault of ours.
	if _, server := errors.AsType[*mail.Fault](err); !server && ctx.Err() == nil {
		sal.Fatal = err
	}
	return nil, false
}

// answer reads what an exchange brought for one item.
func (sal *Salvager) answer(ex *mail.Exchange, err error, item string) (mail.Value, Answer) {
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
	v, there := itemOf(ex, sal.UID, item)
	switch {
	case !there && ex.Status == "NO":
		return v, AnswerNo
	case !there && ex.Status != "OK":
		return v, AnswerBad
	case !there:
		return v, AnswerNothing
	case v.Nil:
		return v, AnswerNil
	case v.Size == 0 && item != itemFlags:
		return v, AnswerEmpty
	case strings.Contains(item, "HEADER.FIELDS") && sal.substituteField(v.Text):
		return v, AnswerSubstitute
	case strings.HasPrefix(item, "BODY") && isSubstitute(sal.Salvaged, v.Text):
		return v, AnswerSubstitute
	}
	return v, AnswerData
}

// substituteField tells whether a field that came alone is a substitute's: only
// together with those before it can that be seen, and then they were, too.
func (sal *Salvager) substituteField(field []byte) bool {
	if sal.Substitute == nil {
		if !isSubstitute(sal.Salvaged, joinFields(sal.Header, field)) {
			return false
		}
		for i := range sal.Probes {
			if r := &sal.Probes[i]; r.Answer == AnswerData && strings.Contains(r.Item, "HEADER.FIELDS") {
				r.Answer = AnswerSubstitute
			}
		}
		sal.Header = nil
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
func (sal *Salvager) take(ctx context.Context, method, item string, head []byte, v mail.Value) bool {
	if sal.Method != "" {
		return true
	}
	s, ok := sal.spool(head)
	if !ok {
		return false
	}
	if v.Size > int64(len(v.Text)) {
		answer, going := sal.stream(ctx, item, s)
		if item == itemUnpeek {
			sal.restoreSeen(ctx) // its pieces are no PEEK either
		}
		if answer != AnswerData {
			s.Discard()
			return going
		}
		return sal.finish(method, s) && going
	}
	if _, err := s.Write(v.Text); err != nil {
		return sal.fail(s, err)
	}
	return sal.finish(method, s)
}

func (sal *Salvager) spool(head []byte) (mail.Spool, bool) {
	s, err := sal.Open()
	if err != nil {
		sal.Fatal = err
		return nil, false
	}
	if _, err := s.Write(head); err != nil {
		return nil, sal.fail(s, err)
	}
	return s, true
}

// fail ends it by an error of our own side.
func (sal *Salvager) fail(s mail.Spool, err error) bool {
	s.Discard()
	sal.Fatal = err
	return false
}

func (sal *Salvager) finish(method string, s mail.Spool) bool {
	m := sal.Told
	m.UID = sal.UID
	if err := sal.Done(method, m, s); err != nil {
		sal.Fatal = err
		return false
	}
	sal.Method = method
	return true
}

// stream writes a section to s in pieces, until one is shorter than asked. The
// answer is that of the first piece that was not data.
func (sal *Salvager) stream(ctx context.Context, section string, s mail.Spool) (Answer, bool) {
	for offset := int64(0); ; offset += PieceSize {
		piece := fmt.Sprintf("%s<%d.%d>", section, offset, PieceSize)
		v, answer, ok := sal.ask(ctx, piece)
		if offset > 0 && answer == AnswerEmpty && ok {
			return AnswerData, true // it ended with the piece before
		}
		if answer != AnswerData {
			return answer, ok
		}
		if v.Size > PieceSize {
			return AnswerBroken, ok // the server does not know pieces
		}
		if _, err := s.Write(v.Text); err != nil {
			sal.Fatal = err
			return AnswerBroken, false
		}
		if room := maxSalvaged - len(sal.Start); section == itemWhole && room > 0 {
			sal.Start = append(sal.Start, v.Text[:min(room, len(v.Text))]...)
		}
		if v.Size < PieceSize {
			return AnswerData, ok
		}
	}
}

// pieces asks for the mail in ranges. What came before a range that does not
// come is kept.
func (sal *Salvager) pieces(ctx context.Context) bool {
	s, ok := sal.spool(nil)
	if !ok {
		return false
	}
	answer, going := sal.stream(ctx, itemWhole, s)
	if answer == AnswerData && sal.Fatal == nil {
		if sal.Method != "" {
			s.Discard()
			return going
		}
		return sal.finish(methodPieces, s) && going
	}
	s.Discard()
	return going
}

// part asks for one MIME part, as it is encoded.
func (sal *Salvager) part(ctx context.Context, p mail.Part) bool {
	v, answer, ok := sal.ask(ctx, "BODY.PEEK["+p.Path+"]")
	if answer != AnswerData {
		return ok
	}
	kept := 0
	for _, q := range sal.Parts {
		kept += len(q.Data)
	}
	if kept+len(v.Text) <= maxSalvaged {
		sal.Parts = append(sal.Parts, stub.Part{Part: p, Data: v.Text, Cut: v.Size > int64(len(v.Text))})
	}
	return ok
}

// restoreSeen looks whether the item that was no PEEK set \Seen, although the
// mailbox is open for reading only, and puts it back. It has time of its own: the
// ladder's may have ended with that item, or the user may have ended the run.
func (sal *Salvager) restoreSeen(ctx context.Context) {
	if !sal.has(itemFlags) || sal.Told.Flags == nil {
		if sal.All {
			sal.Seen = `whether \Seen changed is not known, since the server did not tell the flags before`
		}
		return
	}
	if seen(sal.before) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sal.Each)
	defer cancel()
	var s Speaker
	var ex *mail.Exchange
	var err error
	for range 2 { // it may have hung up after the answer before
		var ok bool
		if s, ok = sal.live(ctx); !ok {
			sal.Seen = `whether \Seen changed could not be seen`
			return
		}
		if ex, err = s.Exchange(ctx, fmt.Sprintf("UID FETCH %d (FLAGS)", sal.UID)); s.Alive() {
			break
		}
	}
	sal.Heard(ex)
	v, there := itemOf(ex, sal.UID, itemFlags)
	if err != nil || !there {
		sal.Seen = `whether \Seen changed could not be seen`
		return
	}
	if !seen(strings.Fields(strings.Trim(string(v.Text), "()"))) {
		return
	}
	sal.Seen = `the server set \Seen although the mailbox was opened for reading only; it was put back`
	if err := sal.clearSeen(ctx, s); err != nil {
		sal.Seen = `the server set \Seen although the mailbox was opened for reading only, and it could not be put back: ` + err.Error()
	}
	sal.Told.Flags = sal.before
}

func seen(flags []string) bool {
	return slices.ContainsFunc(flags, func(f string) bool { return strings.EqualFold(f, `\Seen`) })
}

func (sal *Salvager) clearSeen(ctx context.Context, s Speaker) error {
	name := s.Mailbox()
	before, err := s.Select(ctx, name)
	if err != nil {
		return err
	}
	if before.UIDValidity != sal.UIDValidity {
		// It stays selected otherwise, and its UIDs are those of other messages.
		return errors.Join(ErrUIDValidity, s.Close())
	}
	ex, err := s.Exchange(ctx, fmt.Sprintf(`UID STORE %d -FLAGS.SILENT (\Seen)`, sal.UID))
	sal.Heard(ex)
	if err == nil && ex.Status != "OK" {
		err = fmt.Errorf("%s %s", ex.Status, ex.Text)
	}
	_, again := s.Examine(ctx, name, nil)
	return errors.Join(err, again)
}
