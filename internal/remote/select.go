package remote

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Examine selects a mailbox read-only. With QRESYNC (RFC 7162 3.2) and known,
// the server tells in the same answer what changed since.
func (s *Session) Examine(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	if known != nil && s.Has("QRESYNC") && known.UIDValidity > 0 && known.HighestModSeq > 0 {
		sel, err := s.resync(ctx, name, known)
		if sel != nil || err != nil {
			return sel, err
		}
		// The server says it can and does not.
		delete(s.caps, "QRESYNC")
	}
	suffix := ""
	if s.Has("CONDSTORE") {
		suffix = " (CONDSTORE)"
	}
	sel, err := s.selectWith(ctx, name, "EXAMINE "+s.quoteMailbox(name)+suffix)
	if err == nil && sel.UIDValidity == 0 {
		// Xeams leaves it out of EXAMINE (nextcloud/mail#10199). Nothing that
		// is asked for later changes a flag, so SELECT is as good.
		return s.selectWith(ctx, name, "SELECT "+s.quoteMailbox(name)+suffix)
	}
	return sel, err
}

// selecting gathers what EXAMINE tells.
func (s *Session) selecting(sel *mail.Selected) handler {
	return handler{
		fetch: func(seq uint32) error {
			f, err := s.fetch(seq, maxText, nil)
			if err == nil && f.UID != 0 {
				if len(sel.Changed) >= maxAnswers {
					return &mail.Fault{Kind: mail.KindTooLarge, Text: "no end of messages"}
				}
				sel.Changed = append(sel.Changed, f.Message)
			}
			return err
		},
		data: func(word string) (bool, error) {
			if word != "VANISHED" {
				return false, nil
			}
			line, err := s.dataLine()
			if err != nil {
				return true, err
			}
			sel.Vanished = join(append(sel.Vanished, parseSet(strings.TrimPrefix(line, "(EARLIER) "))...))
			return true, nil
		},
		status: func(_, code, _ string) {
			name, value, _ := strings.Cut(code, " ")
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64) // 0: not told
			switch strings.ToUpper(name) {
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

func (s *Session) selectWith(ctx context.Context, name, command string) (*mail.Selected, error) {
	s.mailbox, s.exists = "", 0
	sel := &mail.Selected{}
	a, err := s.command(ctx, command, s.selecting(sel))
	if err != nil {
		return nil, err
	}
	if f := a.fault("EXAMINE"); f != nil {
		f.(*mail.Fault).Mailbox = name //nolint:errorlint,forcetypeassert // answer.fault gives nothing else
		return nil, f
	}
	s.mailbox, sel.Messages = name, s.exists
	return sel, nil
}

// resync gives nil if the server does not do it after all.
func (s *Session) resync(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	s.mailbox, s.exists = "", 0
	sel := &mail.Selected{}
	uids := ""
	if len(known.UIDs) > 0 {
		if parts := sets(known.UIDs); len(parts) == 1 {
			uids = " " + parts[0]
		}
	}
	lines := []string{fmt.Sprintf("EXAMINE %s (QRESYNC (%d %d%s))", s.quoteMailbox(name), known.UIDValidity, known.HighestModSeq, uids)}
	if !s.qresync {
		lines = append([]string{"ENABLE QRESYNC"}, lines...)
	}
	answers, err := s.commands(ctx, lines, s.selecting(sel))
	if err != nil {
		return nil, err
	}
	a := answers[len(answers)-1]
	switch {
	case a.status == "BAD":
		return nil, nil //nolint:nilnil // said in the comment
	case a.status != "OK":
		f := withOp(refusal(a.status, a.code, a.text), "EXAMINE")
		f.Mailbox = name
		return nil, f
	}
	s.qresync = true
	s.mailbox, sel.Messages = name, s.exists
	sel.Resynced = sel.UIDValidity == known.UIDValidity && sel.HighestModSeq > 0
	return sel, nil
}

// dataLine takes the rest of a response without literals.
func (s *Session) dataLine() (string, error) {
	var b strings.Builder
	for {
		c, err := s.byte()
		if err != nil {
			return "", err
		}
		if c == '\n' {
			return strings.TrimSuffix(b.String(), "\r"), nil
		}
		b.WriteByte(c)
	}
}

// whole tells whether a set means all of a mailbox.
func whole(set imap.UIDSet) bool {
	return len(set) == 1 && set[0].Start == 1 && set[0].Stop == 1<<32-1
}

// Search tells which of uids exist.
func (s *Session) Search(ctx context.Context, uids imap.UIDSet) (imap.UIDSet, error) {
	var found []imap.UIDRange
	h := handler{data: func(word string) (bool, error) {
		if word != "SEARCH" && word != "ESEARCH" {
			return false, nil
		}
		line, err := s.dataLine()
		if err != nil {
			return true, err
		}
		if word == "ESEARCH" {
			// (TAG "x") UID ALL 1:5,7
			fields := strings.Fields(line)
			for i := 0; i+1 < len(fields); i++ {
				if strings.EqualFold(fields[i], "ALL") {
					found = append(found, parseSet(fields[i+1])...)
				}
			}
			return true, nil
		}
		line, _, _ = strings.Cut(line, "(") // (MODSEQ n)
		found = append(found, parseSet(line)...)
		return true, nil
	}}
	ret := ""
	if s.Has("ESEARCH") || s.Has("IMAP4REV2") {
		ret = "RETURN (ALL) "
	}
	parts := sets(uids)
	if whole(uids) {
		parts = []string{"1:*"}
	}
	for _, part := range parts {
		a, err := s.command(ctx, "UID SEARCH "+ret+"UID "+part, h)
		if err != nil {
			return nil, err
		}
		if f := a.fault("UID SEARCH"); f != nil {
			return nil, s.inMailbox(f)
		}
	}
	// `n:*` gives the last message even if it is below n.
	return common(join(found), join(slices.Clone(uids))), nil
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

// inMailbox names the mailbox that a fault happened in.
func (s *Session) inMailbox(err error) error {
	if f, ok := err.(*mail.Fault); ok { //nolint:errorlint // answer.fault gives nothing else
		f.Mailbox = s.mailbox
	}
	return err
}
