package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Examine selects a mailbox read-only. With QRESYNC (RFC 7162 3.2) and known,
// the server tells in the same round trip what changed since, and what
// known.Identify are.
func (s *Session) Examine(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	return s.learning(ctx, name, func() (*mail.Selected, error) { return s.examine(ctx, name, known) })
}

// Select selects a mailbox for changes. Whether they are allowed is told by
// Selected.ReadOnly.
func (s *Session) Select(ctx context.Context, name string) (*mail.Selected, error) {
	return s.learning(ctx, name, func() (*mail.Selected, error) { return s.open(ctx, name, "SELECT") })
}

// learning selects a mailbox, and again if that fails and the mailbox turns out
// to have another name on the wire.
func (s *Session) learning(ctx context.Context, name string, try func() (*mail.Selected, error)) (*mail.Selected, error) {
	sel, err := try()
	if f, ok := errors.AsType[*mail.Fault](err); ok && !s.dead && f.Kind == mail.KindNo && !s.listed && strings.ContainsFunc(name, func(r rune) bool { return r > '~' || r == '&' || r == '%' }) {
		// It may be called otherwise on the wire.
		before, _ := s.names.wire(name)
		if err := s.learnNames(ctx); err != nil {
			return nil, err
		}
		if now, ok := s.names.wire(name); ok && now != before {
			return try()
		}
	}
	return sel, err
}

// examine asks in the best way that the server has.
func (s *Session) examine(ctx context.Context, name string, known *mail.Known) (sel *mail.Selected, err error) {
	err = s.optional(qresync, s.resyncs(known), func(with bool) error {
		if with {
			sel, err = s.resync(ctx, name, known)
		} else {
			sel, err = s.open(ctx, name, "EXAMINE")
		}
		return err
	})
	return sel, err
}

// resyncs tells whether EXAMINE may go with QRESYNC.
func (s *Session) resyncs(known *mail.Known) bool {
	return known != nil && s.Has("QRESYNC") && known.UIDValidity > 0 && known.HighestModSeq > 0
}

// open selects with EXAMINE or SELECT.
func (s *Session) open(ctx context.Context, name, verb string) (sel *mail.Selected, err error) {
	err = s.optional(condstore, s.Has("CONDSTORE"), func(with bool) error {
		suffix := ""
		if with {
			suffix = " (CONDSTORE)"
		}
		sel, err = s.selectWith(ctx, name, verb, suffix)
		return err
	})
	if err == nil && !s.Has("CONDSTORE") {
		sel.HighestModSeq = 0
	}
	return sel, err
}

// maxVanished bounds how many ranges of messages may have vanished since a mailbox was known.
const maxVanished = 1_000_000

// selecting is what EXAMINE tells.
type selecting struct {
	mail.Selected
	vanished []imap.UIDRange
	enabled  []string // what ENABLED told; nil: nothing was told
}

func (s *Session) selecting(sel *selecting) handler {
	return handler{
		fetch: func(seq uint32) error {
			s.kept = 0
			f, err := s.fetch(seq, maxText, nil)
			if err != nil || f.UID == 0 {
				s.lost = s.lost || err == nil // a change that is not told whose it is
				return err
			}
			sel.Changed = append(sel.Changed, f.Message)
			return s.plausible(len(sel.Changed) / 2) // some are told of twice
		},
		data: func(word string) (bool, error) {
			if word != "VANISHED" && word != "ENABLED" {
				return false, nil
			}
			line, err := s.dataLine()
			if err != nil {
				return true, err
			}
			if word == "ENABLED" {
				sel.enabled = append([]string{}, strings.Fields(strings.ToUpper(line))...)
				return true, nil
			}
			i := strings.IndexByte(line, ')')
			if !strings.HasPrefix(line, "(") || i < 0 || !strings.EqualFold(strings.TrimSpace(line[1:i]), "EARLIER") {
				// Without (EARLIER) it is of the mailbox that is selected at this moment,
				// whichever that is, and no part of what is asked for (RFC 7162 3.2.10).
				s.lost = true
				return true, nil
			}
			ranges, ok := parseSet(line[i+1:])
			s.lost = s.lost || !ok
			sel.vanished, err = s.joined(append(sel.vanished, ranges...), s.most(maxVanished))
			return true, err
		},
		status: func(_, code, _ string) {
			name, value, _ := strings.Cut(code, " ")
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64) // 0: not told
			switch strings.ToUpper(name) {
			case "CLOSED":
				// What came so far was of the mailbox before (RFC 7162 3.2.11).
				*sel = selecting{enabled: sel.enabled}
				s.exists, s.lost = unknownExists, false
			case "UIDVALIDITY":
				sel.UIDValidity = n
			case "UIDNEXT":
				sel.UIDNext = imap.UID(min(n, 1<<32-1))
			case "HIGHESTMODSEQ":
				if s.Has("CONDSTORE") {
					sel.HighestModSeq = n
				}
			case "NOMODSEQ":
				sel.HighestModSeq = 0
			case "PERMANENTFLAGS":
				sel.PermanentFlags = strings.Fields(strings.Trim(value, "()"))
			}
		},
	}
}

func (s *Session) deselect() { s.mailbox, s.validity, s.exists = "", 0, unknownExists }

// selected says that a mailbox is, by the answer a. One that does not say how many
// messages there are (RFC 9051 6.3.2) is none: it would be taken for empty, and all
// mail for deleted.
func (s *Session) selected(name, verb string, sel *selecting, a answer) (*mail.Selected, error) {
	if a.exists == unknownExists {
		return nil, &mail.Fault{Kind: mail.KindNoData, Op: verb, Mailbox: name, Text: "the server does not say how many messages the mailbox has"}
	}
	s.mailbox, s.validity = name, sel.UIDValidity
	sel.Messages = a.exists
	sel.ReadOnly = a.code == "READ-ONLY"
	sel.Vanished = join(sel.vanished)
	return &sel.Selected, nil
}

// selectWith selects a mailbox with EXAMINE, or with SELECT where that tells no
// UIDVALIDITY.
func (s *Session) selectWith(ctx context.Context, name, verb, suffix string) (*mail.Selected, error) {
	s.deselect()
	var sel selecting
	a, err := s.command(ctx, verb+" "+s.quote(name)+suffix, s.selecting(&sel))
	if err != nil {
		if f, ok := errors.AsType[*mail.Fault](err); ok {
			f.Mailbox = name
		}
		return nil, err
	}
	if err := s.refused(a, verb); err != nil {
		s.mailboxIs(err, name)
		return nil, err
	}
	if sel.UIDValidity == 0 && verb == "EXAMINE" {
		// Xeams leaves it out of EXAMINE (nextcloud/mail#10199). Nothing that
		// is asked for later changes a flag, so SELECT is as good.
		return s.selectWith(ctx, name, "SELECT", suffix)
	}
	return s.selected(name, verb, &sel, a)
}

// resync asks for what changed since.
func (s *Session) resync(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	if a := s.ahead; a != nil && a.name == name && a.known.UIDValidity == known.UIDValidity && a.known.HighestModSeq == known.HighestModSeq {
		s.ahead = nil
		return a.told, nil
	}
	r := s.resyncing(name, known)
	s.deselect()
	answers, err := s.commands(ctx, r.lines, r.handlers)
	if err != nil {
		if f, ok := errors.AsType[*mail.Fault](err); ok {
			f.Op, f.Mailbox = "EXAMINE", name
		}
		return nil, err
	}
	return r.selected(answers)
}

// resyncing is an EXAMINE with QRESYNC, and the commands about it.
type resyncing struct {
	s          *Session
	name       string
	known      *mail.Known
	lines      []string
	handlers   []handler
	examine    int // place among them
	sel        selecting
	identified []mail.Message
	told       *mail.Selected
}

func (s *Session) resyncing(name string, known *mail.Known) *resyncing {
	r := &resyncing{s: s, name: name, known: known}
	add := func(line string, h handler) {
		r.lines, r.handlers = append(r.lines, line), append(r.handlers, h)
	}
	if !s.qresync {
		add("ENABLE QRESYNC", s.selecting(&r.sel))
	}
	uids := ""
	if parts := sets(normal(known.UIDs)); len(parts) == 1 {
		uids = " " + parts[0]
	}
	r.examine = len(r.lines)
	add(fmt.Sprintf("EXAMINE %s (QRESYNC (%d %d%s))", s.quote(name), known.UIDValidity, known.HighestModSeq, uids), s.selecting(&r.sel))
	wanted := normal(known.Identify)
	if parts := sets(wanted); len(parts) == 1 {
		// If it is refused, or the mailbox is, that costs only a question that is
		// put again.
		add(fmt.Sprintf("UID FETCH %s (%s)", parts[0], identity), s.gathering(wanted, &r.identified))
	}
	return r
}

// selected gives what the answers say.
func (r *resyncing) selected(answers []answer) (*mail.Selected, error) {
	s := r.s
	if !s.qresync {
		// A proxy may say OK and mean nothing (cyrus-imapd#4787).
		s.qresync = answers[0].status == "OK" && (r.sel.enabled == nil || slices.Contains(r.sel.enabled, "QRESYNC"))
	}
	a := answers[r.examine]
	if err := s.refused(a, "EXAMINE"); err != nil {
		s.mailboxIs(err, r.name)
		return nil, err
	}
	if r.examine > 0 && mayBeOfArgument(answers[0].fault("ENABLE")) {
		s.refuse(enable)
	}
	out, err := s.selected(r.name, "EXAMINE", &r.sel, a)
	if err != nil {
		return nil, err
	}
	// Complete: the server speaks of the same mailbox, said that it resynchronises,
	// and no line of it was lost.
	out.Resynced = s.qresync && !s.lost && out.UIDValidity == r.known.UIDValidity && out.HighestModSeq > 0
	if out.UIDValidity == r.known.UIDValidity && answers[len(answers)-1].status == "OK" {
		out.Identified = r.identified
	}
	return out, nil
}

func (s *Session) mailboxIs(err error, name string) {
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		f.Mailbox = name
	}
}

// whole tells whether a set means all of a mailbox.
func whole(set imap.UIDSet) bool {
	return len(set) == 1 && set[0].Start == 1 && set[0].Stop == maxUID
}

// Search tells which of uids exist. Deletions are concluded from what it leaves
// out, so an answer that cannot be read, or that is missing, is an error.
func (s *Session) Search(ctx context.Context, uids imap.UIDSet) (imap.UIDSet, error) {
	if s.exists == 0 {
		return nil, nil
	}
	uids = normal(uids)
	var criteria []string
	for _, part := range sets(uids) {
		criteria = append(criteria, "UID "+part)
	}
	if whole(uids) {
		criteria = []string{"ALL"} // GreenMail knows no 1:* here (greenmail#423)
	}
	found, err := s.search(ctx, criteria)
	return common(found, uids), err
}

// Deleted gives the messages that are marked \Deleted.
func (s *Session) Deleted(ctx context.Context) (imap.UIDSet, error) {
	if s.exists == 0 {
		return nil, nil
	}
	return s.search(ctx, []string{"DELETED"})
}

// search adds up what several searches find.
func (s *Session) search(ctx context.Context, criteria []string) (imap.UIDSet, error) {
	var found []imap.UIDRange
	answered, readable := false, true
	h := handler{bytes: maxFound, data: func(word string) (bool, error) {
		if word != "SEARCH" && word != "ESEARCH" {
			return false, nil
		}
		answered = true
		line, err := s.dataLine()
		if err != nil {
			return true, err
		}
		set := line
		if word == "ESEARCH" {
			set = ""
			// (TAG "x") UID ALL 1:5,7
			fields := strings.Fields(line)
			for i := 0; i+1 < len(fields); i++ {
				if strings.EqualFold(fields[i], "ALL") {
					set = fields[i+1]
				}
			}
		}
		set, _, _ = strings.Cut(set, "(") // (MODSEQ n)
		ranges, ok := parseSet(set)
		readable = readable && ok
		// Several lines add up (DavMail, OfflineIMAP#633).
		found, err = s.joined(append(found, ranges...), s.most(moreMessages))
		return true, err
	}}
	for _, c := range criteria {
		answered = false
		err := s.optional(searchReturn, s.Has("ESEARCH") || s.Has("IMAP4REV2"), func(with bool) error {
			ret := ""
			if with {
				ret = "RETURN (ALL) "
			}
			a, err := s.command(ctx, "UID SEARCH "+ret+c, h)
			if err != nil {
				return err
			}
			return s.refused(a, "UID SEARCH")
		})
		switch {
		case err != nil:
			return nil, err
		case s.lost || !readable:
			return nil, &mail.Fault{Kind: mail.KindMalformed, Op: "UID SEARCH", Mailbox: s.mailbox, Text: "a list of messages that cannot be read"}
		case !answered:
			return nil, s.noData("UID SEARCH", 0)
		}
	}
	return join(found), nil
}

// noData is the fault of an OK without what was asked for. What the server said
// beside it may say why.
func (s *Session) noData(op string, uid imap.UID) error {
	return &mail.Fault{Kind: mail.KindNoData, Op: op, Mailbox: s.mailbox, UID: uid, Text: strings.Join(s.aside, "; ")}
}

// common gives what is in both of two ascending sets.
func common(a, b imap.UIDSet) imap.UIDSet {
	var out imap.UIDSet
	for len(a) > 0 && len(b) > 0 {
		r := imap.UIDRange{Start: max(a[0].Start, b[0].Start), Stop: min(a[0].Stop, b[0].Stop)}
		if r.Start <= r.Stop {
			out = append(out, r)
		}
		if a[0].Stop < b[0].Stop {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}
