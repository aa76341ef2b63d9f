package remote

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of a list of mailboxes.
const (
	maxMailboxes    = 100_000
	maxMailboxName  = 1000 // bytes
	statusesAtOnce  = 50   // in one flight
	statusItemsBare = "MESSAGES UIDNEXT UIDVALIDITY"
)

// statusItems is what tells whether a mailbox changed.
func (s *Session) statusItems() string {
	if s.Has("CONDSTORE") {
		return "(" + statusItemsBare + " HIGHESTMODSEQ)"
	}
	return "(" + statusItemsBare + ")"
}

// List gives all mailboxes with their status: in one round trip with
// LIST-STATUS (RFC 5819), else LIST and then STATUS for each, many in a flight.
func (s *Session) List(ctx context.Context) ([]mail.Mailbox, error) {
	var boxes []mail.Mailbox
	statuses := make(map[string]mail.Status)
	h := handler{data: func(word string) (bool, error) {
		switch word {
		case "LIST":
			return true, s.listLine(&boxes)
		case "STATUS":
			return true, s.statusLine(statuses)
		}
		return false, nil
	}}
	done := false
	if s.Has("LIST-STATUS") {
		options := ""
		if s.Has("SPECIAL-USE") {
			options = "SPECIAL-USE "
		}
		a, err := s.command(ctx, `LIST "" "*" RETURN (`+options+"STATUS "+s.statusItems()+")", h)
		if err != nil {
			return nil, err
		}
		// Office 365 and Proton Bridge advertise it and refuse it (matcha#1426).
		if done = a.status == "OK"; !done {
			if f := a.fault("LIST"); refusalIsFinal(f) {
				return nil, f
			}
			boxes = nil
		}
	}
	if !done {
		a, err := s.command(ctx, `LIST "" "*"`, h)
		if err != nil {
			return nil, err
		}
		if err := a.fault("LIST"); err != nil {
			return nil, err
		}
	}
	boxes = unique(boxes)
	var missing []int
	for i := range boxes {
		if !selectable(boxes[i]) {
			continue
		}
		if st, ok := statuses[boxes[i].Name]; ok {
			boxes[i].Status = &st
			continue
		}
		missing = append(missing, i)
	}
	for part := range slices.Chunk(missing, statusesAtOnce) {
		if err := s.statuses(ctx, boxes, part); err != nil {
			return nil, err
		}
	}
	return boxes, nil
}

// refusalIsFinal tells whether a refusal is of the account and not of the
// command.
func refusalIsFinal(err error) bool {
	f, ok := err.(*mail.Fault) //nolint:errorlint // answer.fault gives nothing else
	return ok && f.Kind != mail.KindNo && f.Kind != mail.KindBad
}

// statuses asks for the status of some of the mailboxes in one flight.
func (s *Session) statuses(ctx context.Context, boxes []mail.Mailbox, which []int) error {
	got := make(map[string]mail.Status)
	lines := make([]string, len(which))
	for i, b := range which {
		lines[i] = "STATUS " + s.quoteMailbox(boxes[b].Name) + " " + s.statusItems()
	}
	answers, err := s.commands(ctx, lines, handler{data: func(word string) (bool, error) {
		if word != "STATUS" {
			return false, nil
		}
		return true, s.statusLine(got)
	}})
	if err != nil {
		return err
	}
	for i, b := range which {
		st, ok := got[boxes[b].Name]
		switch f := answers[i].fault("STATUS"); {
		case f != nil && refusalIsFinal(f):
			return f
		case f != nil:
			boxes[b].Err = f
		case !ok:
			boxes[b].Err = &mail.Fault{Kind: mail.KindNoData, Op: "STATUS", Mailbox: boxes[b].Name}
		default:
			boxes[b].Status = &st
		}
	}
	return nil
}

func unique(boxes []mail.Mailbox) []mail.Mailbox {
	seen := make(map[string]bool, len(boxes))
	return slices.DeleteFunc(boxes, func(b mail.Mailbox) bool {
		again := seen[b.Name]
		seen[b.Name] = true
		return again
	})
}

func selectable(b mail.Mailbox) bool {
	return !slices.ContainsFunc(b.Attrs, func(a string) bool {
		return strings.EqualFold(a, `\Noselect`) || strings.EqualFold(a, `\NonExistent`)
	})
}

// listLine takes a LIST response (RFC 9051 7.3.1).
func (s *Session) listLine(boxes *[]mail.Mailbox) error {
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
	name, err := s.mailboxName()
	if err != nil {
		return err
	}
	b := mail.Mailbox{Name: name, Attrs: attrs}
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

// mailboxName takes a mailbox name and gives it in UTF-8.
func (s *Session) mailboxName() (string, error) {
	wire, _, err := s.str(maxText)
	if err != nil {
		return "", err
	}
	if wire == "" || len(wire) > maxMailboxName || strings.ContainsAny(wire, "\r\n\x00") {
		return "", syntax("a mailbox name of %d bytes", len(wire))
	}
	if strings.EqualFold(wire, "INBOX") {
		return "INBOX", nil
	}
	name, err := decodeName(wire)
	if err != nil || encodeName(name) != wire {
		// It goes back to the server as it came.
		if err != nil {
			name = displayName(wire)
		}
		s.names.keep(name, wire)
	}
	return name, nil
}

// statusLine takes a STATUS response (RFC 9051 7.3.4). What cannot be read of it
// is not told.
func (s *Session) statusLine(into map[string]mail.Status) error {
	name, err := s.mailboxName()
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
	into[name] = st
	return s.skipLine()
}
