package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// transfer moves messages on the server: with MOVE, or with COPY and an expunge
// of exactly these. It gives their new UIDs as far as they were told. keys are the
// files of those that were moved here.
func (w *worker) transfer(ctx context.Context, b *box, rows []ledger.Message, to *box, keys map[imap.UID]string) (map[imap.UID]imap.UID, error) {
	w.moved, to.need, to.unknown = true, needChanges, true
	out := make(map[imap.UID]imap.UID)
	verb := "MOVE"
	if !w.session.Has("MOVE") {
		verb = "COPY"
	}
	for part := range slices.Chunk(rows, storeAtOnce) {
		uids := uidsOf(part)
		m := w.newMove(b, verb, part, to, keys)
		if err := w.intendMove(ctx, m, to); err != nil {
			return out, err
		}
		ex, err := into(ctx, w.session, verb, uids, to.Name, w.step)
		if err == nil {
			err = refused(ex, "UID "+verb, b.Name, 0)
		}
		if f, ok := errors.AsType[*mail.Fault](err); ok && (f.Kind == mail.KindNo || f.Kind == mail.KindBad) && w.session.Alive() {
			err = errors.Join(err, w.moveRefused(ctx, m))
		}
		if err != nil {
			return out, err
		}
		b.took(uids)
		validity, pairs := copyUIDs(ex)
		if validity == to.known.UIDValidity {
			maps.Copy(out, pairs)
			to.comes(part, pairs)
		} else {
			pairs = nil
		}
		m.Copied = verb == "COPY"
		if err := w.moveAnswered(ctx, b, m, part, pairs); err != nil {
			return out, err
		}
		if m.Copied {
			expunged, err := w.expunge(ctx, b, uids)
			if err != nil {
				return out, err
			}
			if err := w.copiesExpunged(ctx, b, m, part, expunged); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// into moves or copies messages of the selected mailbox into another one, which
// is made if it is not there. The answer may be NO or BAD; that of CREATE is an
// error then.
func into(ctx context.Context, s Session, verb string, uids []imap.UID, to string, step func(string)) (*mail.Exchange, error) {
	command := fmt.Sprintf("UID %s %s %s", verb, mail.UIDSet(uids).String(), s.Quote(to))
	ex, err := s.Exchange(ctx, command)
	if err != nil || ex.Status != "NO" || !strings.HasPrefix(ex.Code, "TRYCREATE") {
		return ex, err
	}
	if ex, err = s.Exchange(ctx, "CREATE "+s.Quote(to)); err != nil {
		return ex, err
	}
	if err := refused(ex, ex.Command, to, 0); err != nil {
		return ex, err
	}
	step(ex.Command)
	return s.Exchange(ctx, command)
}

func uidsOf(rows []ledger.Message) []imap.UID {
	uids := make([]imap.UID, len(rows))
	for i, m := range rows {
		uids[i] = m.UID
	}
	return uids
}

// copyUIDs reads a COPYUID code (RFC 4315 3), which Exchange and others put into
// untagged lines (ruby/net-imap#250, MailKit#555).
func copyUIDs(ex *mail.Exchange) (validity uint64, pairs map[imap.UID]imap.UID) {
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
		if err1 != nil || err2 != nil || a == 0 || z < a || z-a >= storeAtOnce || len(uids) > storeAtOnce {
			return nil
		}
		for u := a; u <= z; u++ {
			uids = append(uids, imap.UID(u))
		}
	}
	return uids
}

// expunge deletes exactly these messages. It tells whether they are gone.
func (w *worker) expunge(ctx context.Context, b *box, uids []imap.UID) (bool, error) {
	if len(uids) == 0 {
		return false, nil
	}
	if err := w.storeFlag(ctx, b, uids, "+", `\Deleted`); err != nil {
		return false, err
	}
	b.took(uids)
	if w.session.Has("UIDPLUS") {
		for part := range slices.Chunk(uids, storeAtOnce) {
			if _, err := w.command(ctx, b, "UID EXPUNGE %s", mail.UIDSet(part).String()); err != nil {
				return false, err
			}
			w.step("messages expunged")
		}
		return true, nil
	}
	// A bare EXPUNGE takes everything along that is marked.
	set, err := w.session.Deleted(ctx)
	if err != nil {
		return false, err
	}
	marked, ok := mail.UIDList(set, mail.MaxUIDs)
	if !ok {
		return false, &mail.Fault{Kind: mail.KindMalformed, Op: "UID SEARCH", Mailbox: b.Name, Text: "a list of deleted messages that cannot be true"}
	}
	if len(marked) == 0 {
		// Not even ours: they are gone, or the answer is wrong and others may be
		// marked, too.
		return false, nil
	}
	for _, u := range marked {
		if _, ours := slices.BinarySearch(uids, u); !ours {
			b.settle(uids)
			w.note(b, "%s marked \\Deleted on the server, not expunged: others are marked there, too, and the server cannot tell them apart",
				number(len(uids), "message is", "messages are"))
			return false, nil
		}
	}
	if _, err := w.command(ctx, b, "EXPUNGE"); err != nil {
		return false, err
	}
	w.step("messages expunged")
	return true, nil
}
