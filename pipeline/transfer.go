package pipeline

import (
	"context"
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
// of exactly these. It gives their new UIDs as far as they were told.
func (w *worker) transfer(ctx context.Context, b *box, rows []ledger.Message, to *box) (map[imap.UID]imap.UID, error) {
	w.moved, to.need = true, needChanges
	out := make(map[imap.UID]imap.UID)
	verb := "MOVE"
	if !w.session.Has("MOVE") {
		verb = "COPY"
		// The push may be repeated.
		if err := w.finishMove(ctx, b); err != nil {
			return out, err
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(m ledger.Message) bool { return b.finished[m.UID] })
	}
	for part := range slices.Chunk(rows, storeAtOnce) {
		uids := uidsOf(part)
		to.unknown = true
		if err := w.noteArrivals(ctx, to); err != nil {
			return out, err
		}
		if verb == "COPY" {
			if err := w.moving(ctx, &moving{b.Name, b.known.UIDValidity, uids, to.Name, to.known.UIDValidity, to.known.UIDNext, false}); err != nil {
				return out, err
			}
		}
		ex, err := into(ctx, w.session, verb, uids, to.Name, w.step)
		if err == nil {
			err = refused(ex, "UID "+verb, b.Name, 0)
		}
		if err != nil {
			return out, err
		}
		w.step("messages transferred")
		b.took(uids)
		if validity, pairs := copyUIDs(ex); validity == to.known.UIDValidity {
			maps.Copy(out, pairs)
			to.comes(part, pairs)
		}
		if verb == "COPY" {
			if err := w.moving(ctx, &moving{b.Name, b.known.UIDValidity, uids, to.Name, to.known.UIDValidity, to.known.UIDNext, true}); err != nil {
				return out, err
			}
			if err := w.expunge(ctx, b, uids); err != nil {
				return out, err
			}
			if err := w.moveDone(ctx, b); err != nil {
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
	command := fmt.Sprintf("UID %s %s %s", verb, uidSet(uids).String(), s.Quote(to))
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

// expunge deletes exactly these messages.
func (w *worker) expunge(ctx context.Context, b *box, uids []imap.UID) error {
	if len(uids) == 0 {
		return nil
	}
	if err := w.storeFlag(ctx, b, uids, "+", `\Deleted`); err != nil {
		return err
	}
	b.took(uids)
	if w.session.Has("UIDPLUS") {
		for part := range slices.Chunk(uids, storeAtOnce) {
			if _, err := w.command(ctx, b, "UID EXPUNGE %s", uidSet(part).String()); err != nil {
				return err
			}
			w.step("messages expunged")
		}
		return nil
	}
	// A bare EXPUNGE takes everything along that is marked.
	set, err := w.session.Deleted(ctx)
	if err != nil {
		return err
	}
	marked, ok := uidList(set, maxUIDs)
	if !ok {
		return &mail.Fault{Kind: mail.KindMalformed, Op: "UID SEARCH", Mailbox: b.Name, Text: "a list of deleted messages that cannot be true"}
	}
	if len(marked) == 0 {
		// Not even ours: they are gone, or the answer is wrong and others may be
		// marked, too.
		return nil
	}
	for _, u := range marked {
		if _, ours := slices.BinarySearch(uids, u); !ours {
			b.settle(uids)
			w.note(b, "%s marked \\Deleted on the server, not expunged: others are marked there, too, and the server cannot tell them apart",
				number(len(uids), "message is", "messages are"))
			return nil
		}
	}
	if _, err := w.command(ctx, b, "EXPUNGE"); err != nil {
		return err
	}
	w.step("messages expunged")
	return nil
}
