package pipeline

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
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// rematch pairs what the server lists with mail that is here under other keys:
// rows of an older UIDVALIDITY, and, where the mailbox was never complete, files
// in its folder that the ledger does not know (it may have been lost): it is only
// for such mailboxes. It brings nothing here, and deletes nothing that is mail. The UIDs it found a file for are
// added to matched, and the flags it was told to the view.
func (w *worker) rematch(ctx context.Context, b *box, v *plan.View, rows []ledger.Row, matched map[imap.UID]bool) error {
	old, err := w.Ledger.OtherValidity(ctx, b.Name, b.now.UIDValidity)
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
		if files, err = b.dir.Scan(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			if here, err = w.here.Untracked(ctx, b.place(), rows, files); err != nil {
				return err
			}
			here = slices.DeleteFunc(here, func(s plan.Untracked) bool { return s.RuledOut })
		}
	} else {
		w.note(b, "the server gives its messages other numbers than before; they are matched with those here")
	}
	if len(here) > 0 && len(v.UIDs)+len(v.Messages) > 0 {
		if listed, err = w.conn.Session().Identify(ctx, mail.EveryUID()); err != nil {
			return err
		}
		listed = slices.DeleteFunc(listed, func(m mail.Message) bool { return m.UID == 0 || plan.Taken(rows, m.UID) })
		if pairs, err = w.match.Pair(ctx, w.conn.Session(), listed, here, plan.Evidence{Drafts: plan.ForDrafts(b.Mailbox)}); err != nil {
			return err
		}
		if fromDisk {
			// Where no size speaks for them: what another program put in place of a large mail
			// has its Message-ID, too.
			if err := w.match.Compare(ctx, w.conn.Session(), b.dir, listed, pairs, func(m mail.Message, s plan.Untracked) bool { return !s.Near(m) }); err != nil {
				return err
			}
		}
		v.Messages = append(v.Messages, listed...)
		if !w.DryRun {
			if err := w.rekey(ctx, b, pairs, listed, fromDisk); err != nil {
				return err
			}
		}
		for u, m := range pairs {
			matched[u] = true
			known[m.Key] = true
		}
	}
	if fromDisk {
		if err := w.keepHere(ctx, b, listed, here, pairs); err != nil {
			return err
		}
	}
	switch {
	case w.DryRun:
		return nil
	case fromDisk:
		return w.orphans(ctx, b, v, matched, known, files)
	}
	return w.retire(ctx, b, stubs)
}

// orphans gives stubs that the ledger does not know their rows back: else the
// messages that they stand for would get another one, with the same Message-ID,
// and no mail that came would take these away. Those of messages that are gone go.
// What the server has, or what came by mail, is none, whatever its header says. known
// are keys of files, and matched are messages, that are told of.
func (w *worker) orphans(ctx context.Context, b *box, v *plan.View, matched map[imap.UID]bool, known map[string]bool, files *maildir.Listing) error {
	if files == nil {
		return nil
	}
	listed := mail.UIDSet(v.UIDs)
	for _, m := range v.Messages {
		listed.AddNum(m.UID)
	}
	rows, err := w.rows(ctx, b)
	if err != nil {
		return err
	}
	now := w.Now().UTC().Truncate(time.Second)
	var back []ledger.Message
	some, err := files.Some(func(key string) bool { return !known[key] })
	if err != nil {
		return err
	}
	for _, f := range some {
		head, err := maildir.ReadHeader(b.path(f.Name), append(stub.ClaimFields(), "X-Label")...)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		c, err := stub.ClaimOf(head)
		key := c.Key
		if err != nil || c.Mailed || key.Hash != stub.NewKey(w.Name, b.Name, 0, 0).Hash {
			continue
		}
		_, letters := maildir.ParseName(f.Name)
		row := ledger.Message{
			Mailbox: b.Name, UIDValidity: key.UIDValidity, UID: key.UID, StubKey: f.Key, StubName: f.Name, ID: key.MessageID(), Flags: plan.FlagsOf(letters),
			Date: f.ModTime.UTC().Truncate(time.Second), State: ledger.Stub, Attempts: 1, Since: now, NextTry: now, Reason: "it did not come before the ledger was lost",
		}
		if head.Get("X-Label") == TagSkipped {
			row.State, row.Attempts, row.NextTry, row.Reason = ledger.Skipped, 0, time.Time{}, "a hook left it on the server, before the ledger was lost"
		}
		switch {
		case key.UIDValidity != b.now.UIDValidity || !listed.Contains(key.UID):
			w.line.Hold(&deliver.Item{Box: b.line, Op: deliver.OpGone, Row: row, Known: true})
		case !plan.Taken(rows, key.UID) && !matched[key.UID]:
			back = append(back, row)
		}
	}
	if len(back) == 0 {
		return nil
	}
	if err := w.Ledger.Save(ctx, back...); err != nil {
		return err
	}
	w.step("stubs matched")
	return nil
}

// disowned is the UIDVALIDITY, which no server can send, under which rows wait
// for their match when UIDs were given to other messages without a word.
const disowned = 1<<64 - 1

// distrust looks whether UIDs still mean what they meant, where the server
// gives no UIDVALIDITY to tell by (modern-email/defects#52, chatmail#1577), or where
// its counters went back. If one of them does not, none is believed, and all are
// matched anew; so they are where a server with CONDSTORE, whose next UID is not only
// that after its newest message, may deal UIDs a second time.
func (w *worker) distrust(ctx context.Context, b *box, rows []ledger.Row) error {
	listed, err := w.conn.Session().Identify(ctx, mail.EveryUID())
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
	have, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, uids)
	if err != nil {
		return err
	}
	changed := slices.ContainsFunc(have, func(m ledger.Message) bool {
		return m.State == ledger.Present && plan.Another(m, told[m.UID])
	})
	if !changed && !b.Contradicted && (b.known.HighestModSeq == 0 || !plan.UIDsWentBack(b.known, b.now)) {
		return nil
	}
	moved := slices.Clone(have)
	for i := range moved {
		moved[i].UIDValidity = disowned
	}
	if err := w.Ledger.Rekey(ctx, have, moved); err != nil {
		return err
	}
	w.step("messages disowned")
	// What the scan found was of these UIDs.
	b.local.Local, b.local.Scanned = plan.Local{Untracked: b.local.Untracked}, ""
	b.known.Complete = false
	return w.saveMailbox(ctx, b, false)
}

// rekey records matched messages under their new UID. Files found on disk are
// told to notmuch, too: it may not know them.
func (w *worker) rekey(ctx context.Context, b *box, pairs map[imap.UID]plan.Untracked, listed []mail.Message, fromDisk bool) error {
	var from, to []ledger.Message
	for _, m := range listed {
		h, ok := pairs[m.UID]
		if !ok {
			continue
		}
		if fromDisk {
			ok, err := w.adoptOne(ctx, b, m, h)
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
	if err := w.Ledger.Rekey(ctx, from, to); err != nil {
		return err
	}
	w.step("messages matched")
	return nil
}

// retire closes the books of the old UIDVALIDITY: messages without a match keep
// their file; stubs, which are ours, go, since what they stand for is asked for
// again under its new UID.
func (w *worker) retire(ctx context.Context, b *box, stubs []ledger.Message) error {
	left, err := w.Ledger.OtherValidity(ctx, b.Name, b.now.UIDValidity)
	if err != nil {
		return err
	}
	left = slices.DeleteFunc(left, func(m ledger.Message) bool { return m.State != ledger.Present })
	if len(left) > 0 {
		for i := range left {
			left[i].State = ledger.Kept
		}
		if err := w.Ledger.Save(ctx, left...); err != nil {
			return err
		}
		w.step("unmatched messages kept")
		w.note(b, "%s here and not on the server, as after a restored backup: the files stay in this folder; those that you move into another one are uploaded there",
			mail.Number(len(left), "message is", "messages are"))
	}
	for _, s := range stubs {
		if fileless(s) {
			if err := w.Ledger.Delete(ctx, s.Mailbox, s.UIDValidity, s.UID); err != nil {
				return err
			}
			w.step("deletions recorded")
			continue
		}
		w.line.Hold(&deliver.Item{Box: b.line, Op: deliver.OpGone, Row: s})
	}
	return nil
}

// link finds those of the new messages that are here already, in another
// mailbox: moved or copied on the server. They are linked, not downloaded. It
// gives the UIDs that remain to be fetched.
func (w *worker) link(ctx context.Context, b *box, uids []imap.UID) ([]imap.UID, error) {
	if !w.mayHaveMoved || len(uids) == 0 {
		return uids, nil
	}
	listed, err := w.conn.Session().Identify(ctx, mail.UIDSet(uids))
	if err != nil {
		// It would only have saved a download.
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return uids, nil
	}
	b.sized(listed)
	originals, sources, e, err := w.originals(ctx, b, listed)
	if err != nil {
		return nil, err
	}
	if err := w.askWhetherTheyStay(ctx, b, originals, e); err != nil {
		return uids, ctx.Err() // as above
	}
	e.Drafts = plan.ForDrafts(b.Mailbox)
	copies, err := w.match.Copies(ctx, w.conn.Session(), listed, originals, e)
	if err != nil {
		return uids, ctx.Err() // as above
	}
	letter := make(map[imap.UID]string)
	by := make(map[imap.UID]plan.Arrival)
	var intents []ledger.Message
	var c journal.Change
	for _, m := range listed {
		from, ok := copies[m.UID]
		if !ok || sources[from.Key] == "" {
			continue
		}
		path := sources[from.Key]
		// Flags that only the file has are what the next scan tells the server of.
		var d plan.Delta
		if _, l := maildir.ParseName(path); plan.HasInfo(path) {
			d = plan.DeltaOf(from.Flags, l)
		}
		letter[m.UID] = plan.Letters(w.stored[from.Mailbox][from.UID].Merged(d.Merged(m.Flags)))
		by[m.UID] = plan.ByOther
		if _, ours := b.MovedFrom[m.UID]; ours || w.ruled.Into(b.Name, from) {
			by[m.UID] = plan.ByTags
		}
		row := ledger.Message{
			Mailbox: b.Name, UIDValidity: b.now.UIDValidity, UID: m.UID, State: ledger.Intended, Key: w.keys.New(w.Now()), ID: from.ID,
			Size: from.Size, WireSize: from.WireSize, Digest: from.Digest, Date: from.Date, Flags: plan.StoredFlags(m.Flags),
		}
		w.links.Note(&c, from, row, by[m.UID] == plan.ByTags)
		intents = append(intents, row)
	}
	if len(intents) == 0 {
		return uids, nil
	}
	c.Save = intents
	if err := w.commit(ctx, c, "links intended"); err != nil {
		return nil, err
	}
	linked := make(map[imap.UID]bool)
	for _, row := range intents {
		row.Name, err = b.dir.Link(sources[copies[row.UID].Key], row.Key, letter[row.UID])
		if errors.Is(err, fs.ErrNotExist) {
			continue // its user took it away this moment; the intent has no file and is overwritten by the fetch
		}
		if err == nil && letter[row.UID] == "" && plan.Letters(row.Flags) != "" {
			// Without letters it would say nothing of what its owner took off.
			name := row.Name
			row.Name = "cur/" + row.Key + ":2,"
			err = b.dir.Rename(name, row.Name)
		}
		if err != nil {
			return nil, err
		}
		w.step("file linked")
		it := &deliver.Item{Box: b.line, Op: deliver.OpAdd, Row: row, Before: b.stubs[row.UID], Linked: true}
		it.Add, it.Remove = w.arriving(b, row.Flags, by[row.UID])
		if err := w.line.Send(ctx, it); err != nil {
			return nil, err
		}
		linked[row.UID] = true
	}
	w.tally(func(r *report.Report) { r.Linked += len(linked) })
	return slices.DeleteFunc(slices.Clone(uids), func(u imap.UID) bool { return linked[u] }), nil
}

// askWhetherTheyStay asks which originals are still where they were, in mailboxes that
// something has left: that another message went is no evidence that this one did. Where
// that cannot be found out, they stay, and the text decides. A mailbox that the server has
// no more has none.
func (w *worker) askWhetherTheyStay(ctx context.Context, b *box, originals []ledger.Message, e plan.Evidence) error {
	said := make(map[string]bool)
	for _, key := range e.Told {
		said[key] = true
	}
	byBox := make(map[string][]ledger.Message)
	for _, row := range originals {
		if !e.Stays[row.Key] && !said[row.Key] && w.listed[row.Mailbox] {
			byBox[row.Mailbox] = append(byBox[row.Mailbox], row)
		}
	}
	if len(byBox) == 0 {
		return nil
	}
	boxes, err := w.knownBoxes(ctx)
	if err != nil {
		return err
	}
	for name, rows := range byBox {
		there, err := w.stillThere(ctx, boxes[name], rows)
		for _, row := range rows {
			e.Stays[row.Key] = err != nil || there.Contains(row.UID)
		}
	}
	return w.enter(ctx, b)
}

// originals finds messages that may be those that the server describes, with the paths of
// their files by key, "" if that is gone, and which it said that they are: this run moved
// them there.
func (w *worker) originals(ctx context.Context, b *box, listed []mail.Message) (out []ledger.Message, paths map[string]string, e plan.Evidence, err error) {
	paths, e.Told, e.Stays = make(map[string]string), make(map[imap.UID]string), make(map[string]bool)
	add := func(row ledger.Message) error {
		if _, known := paths[row.Key]; known || row.Key == "" {
			return nil
		}
		path, here, err := w.here.FileOf(ctx, row)
		if !here {
			path = ""
		}
		out, paths[row.Key] = append(out, row), path
		e.Stays[row.Key] = w.stays[row.Mailbox] || row.Mailbox == b.Name // a client may have put an edited mail in its place
		return err
	}
	for _, m := range listed {
		if row, ok := b.MovedFrom[m.UID]; ok && b.now.UIDValidity == b.known.UIDValidity {
			if err := add(row); err != nil {
				return nil, nil, e, err
			}
			if row.Key != "" {
				e.Told[m.UID] = row.Key
			}
		}
		if m.MessageID == "" {
			continue
		}
		copies, err := w.Ledger.ByMessageID(ctx, m.MessageID)
		if err != nil {
			return nil, nil, e, err
		}
		for _, c := range copies {
			if c.State == ledger.Present && c.Size == m.Size && (c.Date.IsZero() || c.Date.Equal(m.InternalDate.UTC().Truncate(time.Second))) {
				if err := add(c); err != nil {
					return nil, nil, e, err
				}
			}
		}
	}
	return out, paths, e, nil
}
