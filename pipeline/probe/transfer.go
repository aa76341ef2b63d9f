package probe

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// mostAtOnce bounds how many messages one command names.
const mostAtOnce = 500

// Mover is a connection over which messages are moved.
type Mover interface {
	Exchange(ctx context.Context, command string) (*mail.Exchange, error)
	Quote(mailbox string) string
}

// Into moves or copies messages of the selected mailbox into another one, which
// is made if it is not there. The answer may be NO or BAD; that of CREATE is an
// error then.
func Into(ctx context.Context, s Mover, verb string, uids []imap.UID, to string, step func(string)) (*mail.Exchange, error) {
	command := fmt.Sprintf("UID %s %s %s", verb, mail.UIDSet(uids).String(), s.Quote(to))
	ex, err := s.Exchange(ctx, command)
	if err != nil || ex.Status != "NO" || !strings.HasPrefix(ex.Code, "TRYCREATE") {
		return ex, err
	}
	if ex, err = s.Exchange(ctx, "CREATE "+s.Quote(to)); err != nil {
		return ex, err
	}
	if err := ex.Refused(ex.Command, to, 0); err != nil {
		return ex, err
	}
	step(ex.Command)
	return s.Exchange(ctx, command)
}

// CopyUIDs reads a COPYUID code (RFC 4315 3), which Exchange and others put into
// untagged lines (ruby/net-imap#250, MailKit#555).
func CopyUIDs(ex *mail.Exchange) (validity uint64, pairs map[imap.UID]imap.UID) {
	pairs = make(map[imap.UID]imap.UID)
	for _, text := range append([]string{ex.Code}, ex.Untagged...) {
		_, text, ok := strings.Cut(strings.ToUpper(text), "COPYUID ")
		if !ok {
			continue
		}
		words := strings.Fields(strings.ReplaceAll(text, "]", " "))
		if len(words) < 3 || strings.Contains(text, "...") { // it was cut
			continue
		}
		v, err := strconv.ParseUint(words[0], 10, 64)
		from, to := orderedUIDs(words[1]), orderedUIDs(words[2])
		if err != nil || len(from) != len(to) || validity != 0 && v != validity {
			continue
		}
		validity = v
		for i := range from {
			pairs[from[i]] = to[i]
		}
	}
	return validity, pairs
}

// orderedUIDs reads a set in the order in which it stands, at most as long as a
// command of ours has messages.
func orderedUIDs(set string) (uids []imap.UID) {
	for part := range strings.SplitSeq(set, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 32)
		z, err2 := strconv.ParseUint(last, 10, 32)
		if err1 != nil || err2 != nil || a == 0 || z < a || z-a >= mostAtOnce || len(uids) > mostAtOnce {
			return nil
		}
		for u := a; u <= z; u++ {
			uids = append(uids, imap.UID(u))
		}
	}
	return uids
}

// DeletedSince tells whether the server has a mailbox no more, which it has just
// refused to open: that may be for today only.
func DeletedSince(ctx context.Context, s Lister, mailbox string) bool {
	list, err := s.List(ctx)
	return err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(b mail.Mailbox) bool {
		return b.Name == mailbox && (b.Status != nil || b.Err != nil)
	})
}
