package look

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// rematch pairs what the server lists with mail that is here under other keys:
// rows of an older UIDVALIDITY, and, where the mailbox was never complete, files
// in its folder that the ledger does not know (it may have been lost): it is only
// for such mailboxes. It brings nothing here, and deletes nothing that is mail. The UIDs it found a file for are
// added to matched, and the flags it was told to the view.
func (l *Looker) rematch(ctx context.Context, b *Mailbox, v *plan.View, rows []ledger.Row, matched map[imap.UID]bool) error {
	old, err := l.Ledger.OtherValidity(ctx, b.Name, b.now.UIDValidity)
	if err != nil {
		return err
	}
	var here []plan.Untracked
	var listed []mail.Message
	var pairs map[imap.UID]plan.Untracked
	var stubs []ledger.Message
	var files *maildir.Listing
	known := make(map[string]bool, len(rows)) // keys of files that are told of
	for _, r := range rows {
		known[r.Key], known[r.StubKey] = true, true
	}
	for _, m := range old {
		switch m.State {
		case ledger.Stub, ledger.Skipped, ledger.Deferred:
			stubs = append(stubs, m)
		case ledger.Present, ledger.Kept:
			if m.Key != "" { // else its file went with its copy
				here = append(here, plan.Untracked{Message: m})
			}
		}
	}
	fromDisk := len(old) == 0
	if fromDisk {
		if files, err = b.Dir.Scan(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			if here, err = l.Here.Untracked(ctx, b.Name, b.Dir, rows, files); err != nil {
				return err
			}
			here = slices.DeleteFunc(here, func(s plan.Untracked) bool { return s.RuledOut || s.Size == 0 })
		}
	} else {
		l.Report.Note(b.Name, "the server gives its messages other numbers than before; they are matched with those here")
	}
	compared := len(here) > 0 && len(v.UIDs)+len(v.Messages) > 0
	if compared {
		if listed, err = l.conn.Session().Identify(ctx, mail.EveryUID()); err != nil {
			return err
		}
		listed = slices.DeleteFunc(listed, func(m mail.Message) bool { return m.UID == 0 || plan.Taken(rows, m.UID) })
		if pairs, err = l.Match.Pair(ctx, l.conn.Session(), listed, here, b.evidence()); err != nil {
			return err
		}
		if fromDisk {
			if err := l.Match.CompareKept(ctx, l.conn.Session(), b.Dir, listed, pairs, l.wantsText); err != nil {
				return err
			}
		}
		v.Messages = append(v.Messages, listed...)
	}
	if fromDisk { // before its files and tags change
		if err := l.keepHere(ctx, b, listed, here, pairs); err != nil {
			return err
		}
	}
	if compared && !l.DryRun {
		if fromDisk {
			if err := l.Here.TagsAreOlder(ctx); err != nil {
				return err
			}
		}
		if err := l.rekey(ctx, b, pairs, listed, fromDisk); err != nil {
			return err
		}
	}
	for u, m := range pairs {
		matched[u] = true
		known[m.Key] = true
		if fromDisk && l.Plan && l.DryRun {
			l.Report.Plan(pairing(b, m.Message, mail.Message{UID: u}))
		}
	}
	if !fromDisk {
		b.found.Matched, b.found.Unmatched = b.matched(pairs, listed), unmatched(old, pairs)
	}
	if fromDisk {
		b.found.Paired = len(rows)+len(pairs) > 0 || l.UploadHere && len(here) > 0
	}
	switch {
	case l.DryRun && fromDisk && !l.PairOnly:
		b.found.Left, err = l.left(ctx, b, v.Messages, rows, here, pairs, files)
		return err
	case l.DryRun:
		return nil
	case fromDisk:
		return l.orphans(ctx, b, v, matched, known, files)
	}
	return l.retire(ctx, b, stubs)
}

// matched gives the messages that rows were found to be, by the UIDs of these.
func (b *Mailbox) matched(pairs map[imap.UID]plan.Untracked, listed []mail.Message) map[imap.UID]mail.Message {
	out := make(map[imap.UID]mail.Message, len(pairs))
	for _, m := range listed {
		if row, ok := pairs[m.UID]; ok && row.UIDValidity == b.Known.UIDValidity {
			out[row.UID] = m
		}
	}
	return out
}

// unmatched gives those of the rows that are none of the messages which the mailbox has now. Whether the
// server has their mail elsewhere is known when all is that came.
func unmatched(old []ledger.Message, pairs map[imap.UID]plan.Untracked) []ledger.Message {
	is := make(map[string]bool, len(pairs))
	for _, s := range pairs {
		is[journal.About(s.Message)] = true
	}
	return slices.DeleteFunc(slices.Clone(old), func(m ledger.Message) bool { return m.State != ledger.Present || is[journal.About(m)] })
}

// orphans gives stubs that the ledger does not know their rows back: else the
// messages that they stand for would get another one, with the same Message-ID,
// and no mail that came would take these away. Those of messages that are gone go.
// What the server has, or what came by mail, is none, whatever its header says. known
// are keys of files, and matched are messages, that are told of.
func (l *Looker) orphans(ctx context.Context, b *Mailbox, v *plan.View, matched map[imap.UID]bool, known map[string]bool, files *maildir.Listing) error {
	if files == nil {
		return nil
	}
	listed := mail.UIDSet(v.UIDs)
	for _, m := range v.Messages {
		listed.AddNum(m.UID)
	}
	rows, err := l.rows(ctx, b)
	if err != nil {
		return err
	}
	now := l.Now().UTC().Truncate(time.Second)
	var back []ledger.Message
	some, err := files.Some(func(key string) bool { return !known[key] })
	if err != nil {
		return err
	}
	for _, f := range some {
		head, err := maildir.ReadHeader(b.Dir.Path(f.Name), append(stub.ClaimFields(), "X-Label")...)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		c, err := stub.ClaimOf(head)
		key := c.Key
		if err != nil || c.Mailed || key.Hash != stub.NewKey(l.Account, b.Name, 0, 0).Hash {
			continue
		}
		_, letters := maildir.ParseName(f.Name)
		row := ledger.Message{
			Mailbox: b.Name, UIDValidity: key.UIDValidity, UID: key.UID, StubKey: f.Key, StubName: f.Name, ID: key.MessageID(), Flags: plan.FlagsOf(letters),
			Date: f.ModTime.UTC().Truncate(time.Second), State: ledger.Stub, Attempts: 1, Since: now, NextTry: now, Reason: "it did not come before the ledger was lost",
		}
		if head.Get("X-Label") == stub.LabelSkipped {
			row.State, row.Attempts, row.NextTry, row.Reason = ledger.Skipped, 0, time.Time{}, "a hook left it on the server, before the ledger was lost"
		}
		switch {
		case key.UIDValidity != b.now.UIDValidity || !listed.Contains(key.UID):
			l.Line.Hold(&deliver.Item{Box: b.Mailbox, Op: deliver.OpGone, Row: row, Known: true})
		case !plan.Taken(rows, key.UID) && !matched[key.UID]:
			back = append(back, row)
		}
	}
	if len(back) == 0 {
		return nil
	}
	return l.commit(ctx, journal.Change{Save: back}, "stubs matched")
}

// disowned is the UIDVALIDITY, which no server can send, under which rows wait
// for their match when UIDs were given to other messages without a word. Where some
// are there since the last time, it is the next one below.
const disowned = 1<<64 - 1

// distrust looks whether UIDs still mean what they meant, where the server
// gives no UIDVALIDITY to tell by (modern-email/defects#52, chatmail#1577), or where
// its counters went back. If one of them does not, none is believed, and all are
// matched anew; so they are where a server with CONDSTORE, whose next UID is not only
// that after its newest message, may deal UIDs a second time.
func (l *Looker) distrust(ctx context.Context, b *Mailbox, rows []ledger.Row) error {
	listed, err := l.conn.Session().Identify(ctx, mail.EveryUID())
	if err != nil {
		return err
	}
	told := make(map[imap.UID]mail.Message, len(listed))
	for _, m := range listed {
		told[m.UID] = m
	}
	uids := make([]imap.UID, len(rows))
	for i, r := range rows {
		uids[i] = r.UID
	}
	have, err := l.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, uids)
	if err != nil {
		return err
	}
	changed := slices.ContainsFunc(have, func(m ledger.Message) bool {
		return m.State == ledger.Present && plan.Another(m, told[m.UID])
	})
	if !changed && !b.Contradicted && (b.Known.HighestModSeq == 0 || !plan.UIDsWentBack(b.Known, b.now)) {
		return nil
	}
	old, err := l.Ledger.OtherValidity(ctx, b.Name, b.now.UIDValidity)
	if err != nil {
		return err
	}
	validity := uint64(disowned)
	for slices.ContainsFunc(old, func(m ledger.Message) bool { return m.UIDValidity == validity }) {
		validity--
	}
	moved := slices.Clone(have)
	for i := range moved {
		moved[i].UIDValidity = validity
	}
	if err := l.commit(ctx, journal.Change{Forget: have, Save: moved}, "messages disowned"); err != nil {
		return err
	}
	// What the scan found was of these UIDs.
	b.Local = plan.Local{Untracked: b.Local.Untracked}
	b.Known.Complete = false
	return l.incomplete(ctx, b)
}

// rekey records matched messages under their new UID. Files found on disk are
// told to notmuch, too: it may not know them.
func (l *Looker) rekey(ctx context.Context, b *Mailbox, pairs map[imap.UID]plan.Untracked, listed []mail.Message, fromDisk bool) error {
	var from, to []ledger.Message
	for _, m := range listed {
		h, ok := pairs[m.UID]
		if !ok {
			continue
		}
		if fromDisk {
			ok, err := l.adoptOne(ctx, b, m, h, deliver.BesideAny)
			if err != nil {
				return err
			}
			if !ok {
				delete(pairs, m.UID) // taken away this moment
			}
			continue
		}
		row := h.Message
		row.Mailbox, row.UIDValidity, row.UID, row.State = b.Name, b.now.UIDValidity, m.UID, ledger.Present
		row.Size, row.Date = m.Size, m.InternalDate.UTC().Truncate(time.Second)
		from, to = append(from, h.Message), append(to, row)
	}
	if len(from) == 0 {
		return nil
	}
	return l.commit(ctx, journal.Change{Forget: from, Save: to}, "messages matched")
}

// revive takes messages into the books again that were kept: the mailbox has the
// UIDVALIDITY again under which they were agreed on, as when it is renamed away and back. What has
// no file here any more comes again.
func (l *Looker) revive(ctx context.Context, b *Mailbox, rows []ledger.Row) ([]ledger.Row, error) {
	var kept []imap.UID
	for _, r := range rows {
		if r.State == ledger.Kept {
			kept = append(kept, r.UID)
		}
	}
	if len(kept) == 0 {
		return rows, nil
	}
	have, err := l.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, kept)
	if err != nil {
		return nil, err
	}
	var c journal.Change
	for _, m := range have {
		_, here, err := b.Dir.Locate(m.Key, m.Name)
		switch {
		case err != nil:
			return nil, err
		case here:
			m.State = ledger.Present
			c.Save = append(c.Save, m)
		default:
			c.Forget = append(c.Forget, m)
		}
	}
	if err := l.commit(ctx, c, "kept messages matched"); err != nil {
		return nil, err
	}
	return l.rows(ctx, b)
}

// retire has the stubs of the old UIDVALIDITY go, which are ours: what they stand for is asked for
// again under its new UID.
func (l *Looker) retire(ctx context.Context, b *Mailbox, stubs []ledger.Message) error {
	for _, s := range stubs {
		if s.Fileless() {
			if err := l.commit(ctx, journal.Change{Forget: []ledger.Message{s}}, "deletions recorded"); err != nil {
				return err
			}
			continue
		}
		l.Line.Hold(&deliver.Item{Box: b.Mailbox, Op: deliver.OpGone, Row: s})
	}
	return nil
}
