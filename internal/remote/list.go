package remote

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of a list of mailboxes.
const (
	maxMailboxes    = 100_000
	maxMailboxName  = 1000 // bytes
	maxShownName    = 100
	statusesAtOnce  = 50 // in one flight
	statusItemsBare = "MESSAGES UIDNEXT UIDVALIDITY"
)

// statusItems is what tells whether a mailbox changed.
func (s *Session) statusItems() string {
	return statusItems(s.Has("CONDSTORE") && s.wants(statusModSeq))
}

func statusItems(modSeq bool) string {
	if modSeq {
		return "(" + statusItemsBare + " HIGHESTMODSEQ)"
	}
	return "(" + statusItemsBare + ")"
}

// listed is a mailbox as LIST has it.
type listed struct {
	mail.Mailbox
	wire string // its name on the wire
}

// statusMap has STATUS by name on the wire, and by name for servers that write
// it in another way there.
type statusMap map[string]mail.Status

func (s *Session) statusOf(b listed, m statusMap) (mail.Status, bool) {
	st, ok := m[b.wire]
	if !ok {
		st, ok = m["\x00"+s.plainName(b.wire)]
	}
	return st, ok
}

// List gives all mailboxes with their status: in one round trip with
// LIST-STATUS (RFC 5819), else LIST and then STATUS for each, many in a flight. Of a
// fault that a STATUS met, Mailbox is the first that was not answered.
func (s *Session) List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error) {
	statuses := make(statusMap)
	var boxes []listed
	options := s.listOptions()
	err := s.optional(listReturn, options != "" && !how.Singly, func(with bool) (err error) {
		if !with {
			options = ""
		}
		boxes, err = s.list(ctx, options, statuses)
		return err
	})
	if err != nil {
		return nil, err
	}
	var missing []int
	for i := range boxes {
		if !boxes[i].Selectable() {
			continue
		}
		if st, ok := s.statusOf(boxes[i], statuses); ok {
			boxes[i].Status = &st
			continue
		}
		if how.Skip != nil && how.Skip(boxes[i].Mailbox) {
			boxes[i].Unasked = true
			continue
		}
		missing = append(missing, i)
	}
	for part := range slices.Chunk(missing, statusesAtOnce) {
		if err := s.statuses(ctx, boxes, part); err != nil {
			return nil, err
		}
	}
	out := make([]mail.Mailbox, len(boxes))
	for i := range boxes {
		if noSuchMailbox(boxes[i].Err) && slices.ContainsFunc(boxes, boxes[i].above) {
			boxes[i].Attrs, boxes[i].Err = append(boxes[i].Attrs, `\NonExistent`), nil
		}
		out[i] = boxes[i].Mailbox
	}
	return out, nil
}

// noSuchMailbox tells whether a refusal says that there is no such mailbox, by the code of RFC 5530
// or in the words of Dovecot 2.3. That lists a mailbox which was deleted, and has others below it,
// without \Noselect.
func noSuchMailbox(err error) bool {
	f, ok := mail.Refused(err)
	return ok && (f.Code == "NONEXISTENT" || strings.HasPrefix(f.Text, "Mailbox doesn't exist"))
}

// above tells whether another mailbox is below this one.
func (b listed) above(other listed) bool {
	return b.Delim != 0 && strings.HasPrefix(other.Name, b.Name+string(b.Delim))
}

// list speaks one LIST and names what it gives.
func (s *Session) list(ctx context.Context, options string, statuses statusMap) ([]listed, error) {
	var boxes []listed
	a, err := s.command(ctx, `LIST "" "*"`+options, handler{bytes: maxList, data: func(word string) (bool, error) {
		switch word {
		case "LIST":
			return true, s.listLine(&boxes)
		case "STATUS":
			return true, s.statusLine(statuses)
		}
		return false, nil
	}})
	if err != nil {
		return nil, err
	}
	if err := s.refused(a, "LIST"); err != nil {
		return nil, err
	}
	return s.named(boxes), nil
}

// named gives each mailbox a name of its own. Those whose name on the wire is
// what it should be have it; others must take what is left, since two mailboxes
// with one name here would be taken for one.
func (s *Session) named(boxes []listed) []listed {
	taken := make(map[string]bool, len(boxes))
	wires := make(map[string]bool, len(boxes))
	boxes = slices.DeleteFunc(boxes, func(b listed) bool {
		if b.Odd {
			return false
		}
		again := wires[b.wire]
		wires[b.wire] = true
		return again
	})
	var odd []int
	for i := range boxes {
		if boxes[i].Odd {
			continue // it is never named to the server
		}
		name := s.plainName(boxes[i].wire)
		if s.wireName(name) != boxes[i].wire {
			odd = append(odd, i)
			continue
		}
		boxes[i].Name = name
		taken[name] = true
	}
	odds := make(map[string]string, len(odd))
	// In an order that is the same in each run.
	slices.SortFunc(odd, func(a, b int) int { return strings.Compare(boxes[a].wire, boxes[b].wire) })
	for _, i := range odd {
		name := s.plainName(boxes[i].wire)
		for taken[name] {
			name += "%"
		}
		taken[name] = true
		boxes[i].Name = name
		odds[name] = boxes[i].wire
	}
	s.names.keep(odds)
	s.listed = true
	return boxes
}

// plainName gives the name in UTF-8 of a name on the wire, or as near to it as
// can be: modified UTF-7 may hold a line break, which no line of a ledger, a
// configuration or a terminal takes as part of a name.
func (s *Session) plainName(wire string) string {
	if s.utf8 {
		return displayName(wire)
	}
	name, err := mail.DecodeName(wire)
	if err != nil || strings.ContainsFunc(name, unicode.IsControl) {
		return displayName(wire)
	}
	return name
}

// wireName gives the name on the wire of a name in UTF-8.
func (s *Session) wireName(name string) string {
	if s.utf8 {
		return name
	}
	return mail.EncodeName(name)
}

// listOptions gives what to ask LIST for; "" for nothing.
func (s *Session) listOptions() string {
	var options []string
	if s.Has("SPECIAL-USE") {
		options = append(options, "SPECIAL-USE")
	}
	if s.Has("LIST-STATUS") {
		options = append(options, "STATUS "+s.statusItems())
	} else if !s.Has("LIST-EXTENDED") {
		options = nil // SPECIAL-USE alone is no option of plain LIST (RFC 6154 2)
	}
	if len(options) == 0 {
		return ""
	}
	return " RETURN (" + strings.Join(options, " ") + ")"
}

// learnNames makes a session that has not listed the mailboxes know the names on
// the wire that are not what they should be.
func (s *Session) learnNames(ctx context.Context) error {
	if s.listed {
		return nil
	}
	_, err := s.list(ctx, "", make(statusMap))
	return err
}

// Recount gives the status of one mailbox anew. The mailbox that is open is left first, where there is a
// way that expunges nothing (UNSELECT, RFC 3691): of that, a server may tell what it has shown of it.
func (s *Session) Recount(ctx context.Context, mailbox string) (mail.Status, error) {
	if s.mailbox != "" && s.Has("UNSELECT") {
		if _, err := s.say(ctx, "UNSELECT", s.mailbox, "UNSELECT"); err != nil {
			return mail.Status{}, err
		}
		s.deselect()
	}
	boxes := []listed{{Mailbox: mail.Mailbox{Name: mailbox}, wire: s.wireName(mailbox)}}
	if err := s.statuses(ctx, boxes, []int{0}); err != nil {
		return mail.Status{}, err
	}
	if boxes[0].Status == nil {
		return mail.Status{}, boxes[0].Err
	}
	return *boxes[0].Status, nil
}

// refusalIsFinal tells whether a refusal is of the account and not of the
// command.
func refusalIsFinal(err error) bool {
	f, ok := err.(*mail.Fault) //nolint:errorlint // answer.fault gives nothing else
	return ok && f.Kind != mail.KindNo && f.Kind != mail.KindBad
}

// statuses asks for the status of some of the mailboxes.
func (s *Session) statuses(ctx context.Context, boxes []listed, which []int) error {
	left, final, fewer := which, error(nil), false
	_ = s.optional(statusModSeq, s.Has("CONDSTORE"), func(modSeq bool) error {
		asked := len(left)
		if left, final = s.statusesWith(ctx, boxes, left, statusItems(modSeq)); final != nil {
			return final
		}
		left = slices.DeleteFunc(left, func(b int) bool { return !mayBeOfArgument(boxes[b].Err) })
		switch answered := len(left) < asked; {
		case modSeq && len(left) > 0:
			fewer = answered
			return boxes[left[0]].Err
		case !modSeq && (fewer || !answered):
			return errSome // and the others were not refused for the item
		}
		return nil
	})
	return final
}

// errSome says that the answers of several mailboxes do not tell of the server.
var errSome = errors.New("a matter of some mailboxes")

// statusesWith asks for these items in one flight, and gives the mailboxes of which that is
// refused, which have the refusals.
func (s *Session) statusesWith(ctx context.Context, boxes []listed, which []int, items string) (refused []int, err error) {
	got := make(statusMap)
	lines := make([]string, len(which))
	for i, b := range which {
		lines[i] = "STATUS " + s.quote(boxes[b].Name) + " " + items
	}
	h := handler{data: func(word string) (bool, error) {
		if word != "STATUS" {
			return false, nil
		}
		return true, s.statusLine(got)
	}}
	answers, err := s.commands(ctx, lines, slices.Repeat([]handler{h}, len(lines)))
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		// A server that answers in another order than it was asked in tells the status
		// before it falls silent.
		i := slices.IndexFunc(which, func(b int) bool { _, told := s.statusOf(boxes[b], got); return !told })
		if i < 0 {
			i = len(which) - 1 // all but the last tagged answer came
		}
		f.Mailbox = boxes[which[i]].Name
	}
	if err != nil {
		return nil, err
	}
	for i, b := range which {
		st, ok := s.statusOf(boxes[b], got)
		f := answers[i].fault("STATUS")
		if e, ok := f.(*mail.Fault); ok { //nolint:errorlint // answer.fault gives nothing else
			e.Mailbox = boxes[b].Name
		}
		switch {
		case f != nil && refusalIsFinal(f):
			return nil, f
		case f != nil:
			boxes[b].Err = f
			refused = append(refused, b)
		case !ok:
			boxes[b].Err = &mail.Fault{Kind: mail.KindNoData, Op: "STATUS", Mailbox: boxes[b].Name}
		default:
			boxes[b].Status, boxes[b].Err = &st, nil
		}
	}
	return refused, nil
}

// listLine takes a LIST response (RFC 9051 7.3.1).
func (s *Session) listLine(boxes *[]listed) error {
	attrs, err := s.words()
	if err != nil {
		return err
	}
	if err := s.spaces(); err != nil {
		return err
	}
	delim, isNil, err := s.str(maxText)
	if err != nil {
		return err
	}
	if err := s.spaces(); err != nil {
		return err
	}
	wire, err := s.mailboxName()
	odd, isOdd := errors.AsType[*oddName](err)
	if err != nil && !isOdd {
		return err
	}
	b := listed{mail.Mailbox{Attrs: attrs}, wire}
	if isOdd {
		b.Name, b.Odd, b.Attrs = odd.Error(), true, append(attrs, `\Noselect`)
	}
	if !isNil {
		for _, r := range delim {
			b.Delim = r
			break
		}
	}
	if len(*boxes) >= maxMailboxes {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: "more than a hundred thousand mailboxes"}
	}
	*boxes = append(*boxes, b)
	return s.skipLine()
}

// mailboxName takes a mailbox name as it is on the wire.
func (s *Session) mailboxName() (string, error) {
	wire, _, err := s.str(maxText)
	if err != nil {
		return "", err
	}
	switch {
	case wire == "":
		return "", syntax("a mailbox without a name")
	case len(wire) > maxMailboxName, strings.ContainsAny(wire, "\r\n\x00"):
		return "", &oddName{wire}
	}
	if strings.EqualFold(wire, "INBOX") {
		return "INBOX", nil
	}
	return wire, nil
}

// oddName is a mailbox name that no command can have, or that is longer than any.
type oddName struct{ wire string }

func (e *oddName) Error() string {
	return strconv.QuoteToASCII(e.wire[:min(len(e.wire), maxShownName)])
}

// statusLine takes a STATUS response (RFC 9051 7.3.4). What cannot be read of it
// is not told.
func (s *Session) statusLine(into statusMap) error {
	wire, err := s.mailboxName()
	if _, odd := errors.AsType[*oddName](err); odd {
		return s.skipLine()
	}
	if err != nil {
		return err
	}
	if err := s.spaces(); err != nil {
		return err
	}
	items, err := s.words()
	if err != nil {
		return err
	}
	var st mail.Status
	for i := 0; i+1 < len(items); i += 2 {
		n, err := strconv.ParseUint(items[i+1], 10, 64)
		if err != nil {
			i-- // Gmail leaves the number of HIGHESTMODSEQ out (modern-email/defects#28)
			continue
		}
		switch strings.ToUpper(items[i]) {
		case "MESSAGES":
			st.Messages = uint32(min(n, 1<<32-1))
		case "UIDNEXT":
			st.UIDNext = imap.UID(min(n, 1<<32-1))
		case "UIDVALIDITY":
			st.UIDValidity = n
		case "HIGHESTMODSEQ":
			if s.Has("CONDSTORE") {
				st.HighestModSeq = n
			}
		}
	}
	if len(into) > 2*maxMailboxes {
		return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of mailboxes"}
	}
	into[wire] = st
	into["\x00"+s.plainName(wire)] = st // no name on the wire has a NUL
	return s.skipLine()
}
