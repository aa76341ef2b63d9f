package pipeline

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// look finds out what changed in a mailbox, puts the work out, and does the
// part of it that needs no batch.
func (w *worker) look(ctx context.Context, b *box) error {
	err := w.lookOnce(ctx, b)
	// A connection that dies here is tried once more on a fresh one; a mailbox
	// on which two die is left alone.
	if err != nil && ctx.Err() == nil && w.conn.Lost() && report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox {
		err = w.lookOnce(ctx, b)
	}
	return err
}

func (w *worker) lookOnce(ctx context.Context, b *box) error {
	if err := w.conn.Connect(ctx); err != nil {
		return err
	}
	// Of the rows as they were agreed on the newest are the witnesses, whom EXAMINE
	// brings along where it can.
	rows, err := w.Ledger.Rows(ctx, b.Name, b.known.UIDValidity)
	if err != nil {
		return err
	}
	b.witnesses = witnesses(rows, w.Full)
	sel, err := w.conn.Examine(ctx, b.Name, b.offer(w.conn.Session(), w.Full))
	if err != nil {
		return err
	}
	b.now, b.identified = sel.Status, sel.Identified
	if b.now.UIDNext == 0 {
		b.now.UIDNext = b.Status.UIDNext
	}

	if b.now.UIDValidity != b.known.UIDValidity {
		if rows, err = w.rows(ctx, b); err != nil {
			return err
		}
	}
	if err := w.hear(ctx, b); err != nil {
		return err
	}
	v, err := w.view(ctx, b, sel, rows)
	if err != nil {
		return err
	}
	back := b.goesOn() && plan.WentBack(b.known, b.now)
	matched := make(map[imap.UID]bool)
	if !w.DryRun {
		if err := b.dir.Create(); err != nil {
			return err
		}
		if err := b.dir.CleanTmp(); err != nil {
			return err
		}
		// A mailbox that was complete keeps its row, and with it the marks to
		// start from again, until all that changed since is recorded.
		if !b.goesOn() {
			if err := w.saveMailbox(ctx, b, false); err != nil {
				return err
			}
		}
		if (b.now.UIDValidity == 0 || (back || b.Contradicted) && b.now.Messages > 0) && len(rows) > 0 {
			if err := w.distrust(ctx, b, rows); err != nil {
				return err
			}
			if rows, err = w.rows(ctx, b); err != nil {
				return err
			}
		}
	}
	if !b.goesOn() {
		if err := w.rematch(ctx, b, &v, rows, matched); err != nil {
			return err
		}
		if rows, err = w.rows(ctx, b); err != nil {
			return err
		}
	}
	if w.PairOnly {
		b.line.KeepMarks()
		return nil
	}
	if !w.DryRun {
		if rows, err = w.leftAgain(ctx, b, &v, rows); err != nil {
			return err
		}
	}
	a := plan.OfServer(rows, v)
	a.Fetch = slices.DeleteFunc(a.Fetch, func(u imap.UID) bool { return matched[u] })
	return w.put(ctx, b, a, rows, plan.DoubtOf(b.known, b.Status, b.now, v, len(a.Gone), len(b.Taken), plan.Oldest(rows, a.Gone)))
}

// witnesses are the newest messages that are here. If UIDs were dealt a second time,
// as after a restored backup, then theirs, also where the server's counters are ahead
// of the known ones again.
func witnesses(rows []ledger.Row, full bool) (uids []imap.UID) {
	most := 3
	if full {
		most = 100
	}
	for _, r := range slices.Backward(rows) {
		if r.State == ledger.Present && r.Key != "" && len(uids) < most {
			uids = append(uids, r.UID)
		}
	}
	return uids
}

// hear asks the witnesses whether the UIDs of a mailbox in which something changed
// still mean what they meant.
func (w *worker) hear(ctx context.Context, b *box) error {
	if b.Contradicted || !b.goesOn() || len(b.witnesses) == 0 || b.now.Messages == 0 {
		return nil
	}
	told := b.identified
	if told == nil {
		if !w.Full && b.now.UIDNext == b.known.UIDNext && b.now.Messages == b.known.Messages {
			return nil
		}
		var err error
		if told, err = w.conn.Session().Identify(ctx, mail.UIDSet(b.witnesses)); err != nil {
			return err
		}
	}
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, b.witnesses)
	if err != nil {
		return err
	}
	for _, m := range told {
		if slices.ContainsFunc(rows, func(r ledger.Message) bool { return r.UID == m.UID && plan.Another(r, m) }) {
			b.Contradicted = true
		}
	}
	return nil
}

// goesOn tells whether the ledger's rows are all there was of the mailbox when it
// was looked at last.
func (b *box) goesOn() bool { return b.known.Complete && b.known.UIDValidity == b.now.UIDValidity }

// rows gives the ledger's rows of the mailbox as it is now.
func (w *worker) rows(ctx context.Context, b *box) ([]ledger.Row, error) {
	return w.Ledger.Rows(ctx, b.Name, b.now.UIDValidity)
}

// offer is what the server needs to tell by itself what changed (QRESYNC).
func (b *box) offer(s Session, full bool) *mail.Known {
	k := plan.Offer(b.known, full || !s.Has("QRESYNC"))
	if k == nil {
		return nil
	}
	ask := slices.Clone(b.witnesses)
	if b.allExpected() {
		ask = slices.AppendSeq(ask, maps.Keys(b.Expected))
	}
	k.Identify = mail.UIDSet(ask)
	return k
}

// view asks what changed, in the cheapest way that the server has.
func (w *worker) view(ctx context.Context, b *box, sel *mail.Selected, rows []ledger.Row) (plan.View, error) {
	same := b.goesOn() && b.now.UIDValidity != 0 && !w.Full && !plan.WentBack(b.known, b.now) && !b.Contradicted
	switch {
	case sel.Messages == 0:
		return plan.View{Complete: true}, nil
	case same && sel.Resynced:
		v := plan.View{Vanished: sel.Vanished, Messages: sel.Changed}
		if ok, err := w.proven(ctx, b, v, rows); err != nil || ok {
			return v, err
		}
	case same && b.known.HighestModSeq > 0 && b.now.HighestModSeq > 0:
		return w.sinceModSeq(ctx, b, rows)
	case len(rows) == 0:
		// Nothing to compare flags with: they come with the bodies.
		uids, err := w.listing(ctx, b)
		return plan.View{Complete: true, UIDs: uids}, err
	}
	ms, err := w.conn.Session().Flags(ctx, mail.EveryUID(), 0)
	if err != nil {
		return plan.View{}, err
	}
	v := plan.View{Complete: true, Messages: ms, UIDs: make([]imap.UID, 0, len(ms))}
	for _, m := range ms {
		v.UIDs = append(v.UIDs, m.UID)
	}
	if set := mail.UIDSet(v.UIDs); uint32(count(set)) != sel.Messages {
		// Some message was left out of the answer, or its line could not be
		// read: that is not the same as gone.
		if v.UIDs, err = w.listing(ctx, b); err != nil {
			return plan.View{}, err
		}
	}
	return v, nil
}

// proven tells whether a difference is to be believed: it adds up, and the messages
// that it says are gone are not there when the server is asked for exactly these. Where
// it does not answer that, it is asked for all.
func (w *worker) proven(ctx context.Context, b *box, v plan.View, rows []ledger.Row) (bool, error) {
	if !plan.AddsUp(rows, v, b.now.Messages) {
		return false, nil
	}
	var gone []imap.UID
	for _, r := range rows {
		if v.Vanished.Contains(r.UID) && !b.Taken[r.UID] {
			gone = append(gone, r.UID)
		}
	}
	if len(gone) == 0 {
		return true, nil
	}
	there, err := w.conn.Session().Search(ctx, mail.UIDSet(gone))
	if err != nil && ctx.Err() == nil && w.conn.Alive() {
		return false, nil
	}
	return err == nil && len(there) == 0, err
}

// sinceModSeq is CONDSTORE's way (RFC 7162 3.1): changed flags and new messages
// come with CHANGEDSINCE; deletions show as a count that does not add up.
func (w *worker) sinceModSeq(ctx context.Context, b *box, rows []ledger.Row) (plan.View, error) {
	var v plan.View
	var err error
	if b.now.HighestModSeq != b.known.HighestModSeq || b.now.UIDNext != b.known.UIDNext {
		if v.Messages, err = w.conn.Session().Flags(ctx, mail.EveryUID(), b.known.HighestModSeq); err != nil {
			return plan.View{}, err
		}
	}
	if plan.AddsUp(rows, v, b.now.Messages) {
		return v, nil
	}
	v.Complete = true
	v.UIDs, err = w.listing(ctx, b)
	return v, err
}

// listing gives all UIDs of the selected mailbox.
func (w *worker) listing(ctx context.Context, b *box) ([]imap.UID, error) {
	set, err := w.conn.Session().Search(ctx, mail.EveryUID())
	if err != nil {
		return nil, err
	}
	uids, ok := mail.UIDList(set, mail.MaxUIDs)
	if !ok {
		return nil, &mail.Fault{Kind: mail.KindTooLarge, Op: "UID SEARCH", Mailbox: b.Name, Text: "a list of messages that cannot be true"}
	}
	// An empty answer for a mailbox that has messages is no answer: believing
	// it would delete them all here.
	if len(uids) == 0 && b.now.Messages > 0 {
		return nil, &mail.Fault{Kind: mail.KindNoData, Op: "UID SEARCH", Mailbox: b.Name}
	}
	return uids, nil
}

func count(set imap.UIDSet) (n uint64) {
	for _, r := range set {
		n += uint64(r.Stop-r.Start) + 1
	}
	return n
}

// put hands the planned actions to the stages. doubt is why deletions are not to be
// believed, "" if they are.
func (w *worker) put(ctx context.Context, b *box, a plan.Actions, rows []ledger.Row, doubt string) error {
	_, theirs := b.sorted(a.Gone)
	// What the server was just told is no news.
	news := plan.Actions{Fetch: a.Fetch, Flags: a.Flags, Gone: theirs}
	if s := (&plan.Suspicion{Doubt: doubt, Gone: len(theirs), Have: len(rows)}); !w.yes(b.Name) && s.Holds(len(theirs)) {
		b.suspect, news.Gone = s, nil // guardGone says the rest
	}
	if w.DryRun {
		if b.suspect != nil {
			rows, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, theirs)
			if err != nil {
				return err
			}
			for _, row := range rows {
				w.line.Hold(&deliver.Item{Box: b.line, Op: deliver.OpGone, Row: row})
			}
		}
		if err := w.foresees(ctx, a.Fetch); err != nil {
			return err
		}
		if text := does(news); text != "" {
			w.emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(a.Fetch), Text: "would: " + text})
		}
		w.tally(func(r *report.Report) {
			r.New += len(a.Fetch)
			r.Flagged += len(a.Flags)
			r.Removed += len(news.Gone)
		})
		return nil
	}
	if len(a.Fetch) > 0 || len(b.due) > 0 {
		if err := w.enter(ctx, b); err != nil {
			return err
		}
	}
	if err := w.follow(ctx, b, a.Fetch); err != nil {
		return err
	}
	fetch, err := w.adopt(ctx, b, a.Fetch)
	if err != nil {
		return err
	}
	news.Fetch = slices.DeleteFunc(slices.Clone(fetch), func(u imap.UID) bool { _, ours := b.MovedFrom[u]; return ours })
	news.Flags = slices.DeleteFunc(slices.Clone(a.Flags), func(c plan.FlagChange) bool { return w.own(b.Name, c) })
	if text := does(news); text != "" {
		w.emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Total: len(fetch), Text: text})
	}
	// From here on no connection that dies lets the look be repeated, which
	// would put all this on the line twice.
	if err := w.putGone(ctx, b, a.Gone, theirs); err != nil {
		return err
	}
	if err := w.putFlags(ctx, b, a.Flags); err != nil {
		return err
	}
	fetch, err = w.link(ctx, b, fetch)
	if err != nil {
		return err
	}
	due, err := w.fetcher.Due(ctx, b.toFetch(), b.due, a.Gone)
	if err != nil {
		return err
	}
	if err := w.askSizes(ctx, b, fetch); err != nil {
		return err
	}
	small, large := plan.BySize(fetch, b.line.Sizes)
	rank := pull.Usual
	if mail.InboxName(b.Name) == "INBOX" {
		rank = pull.Awaited
	}
	w.give(b, rank, plan.Batches(small))
	w.give(b, pull.Large, large)
	// Stubs come last: a message that hangs must not keep new mail waiting.
	w.give(b, pull.Last, slices.Collect(slices.Chunk(due, 200)))
	return nil
}

// askSizes asks how large messages are, so that large ones keep none waiting, and it is
// known how much is to come. One by itself has nothing to be compared with. A server that
// breaks off on that is asked no more of it in this run, and loses nothing else by it.
func (w *worker) askSizes(ctx context.Context, b *box, uids []imap.UID) error {
	uids = slices.DeleteFunc(slices.Clone(uids), func(u imap.UID) bool { return b.line.Sizes[u] > 0 })
	if len(uids) < 2 || w.sizeless.Load() || !w.conn.Alive() {
		return nil
	}
	listed, err := w.conn.Session().Sizes(ctx, mail.UIDSet(uids))
	if err != nil {
		w.sizeless.Store(true)
		w.note(b, "how large its messages are is not known: %v", err)
		return ctx.Err()
	}
	b.sized(listed)
	return nil
}

// sized notes how large messages are.
func (b *box) sized(listed []mail.Message) {
	if b.line.Sizes == nil {
		b.line.Sizes = make(map[imap.UID]int64, len(listed))
	}
	for _, m := range listed {
		b.line.Sizes[m.UID] = m.Size
	}
}

// sorted tells messages that are gone from the server because they went from
// here, before or by this run, from those that others took away.
func (b *box) sorted(gone []imap.UID) (ours, theirs []imap.UID) {
	missing := make(map[imap.UID]bool, len(b.local.Missing))
	for _, m := range b.local.Missing {
		missing[m.UID] = true
	}
	for _, u := range gone {
		if b.Taken[u] || missing[u] {
			ours = append(ours, u)
		} else {
			theirs = append(theirs, u)
		}
	}
	return ours, theirs
}

// does says in words what will be done.
func does(a plan.Actions) string {
	var parts []string
	add := func(n int, one, many string) {
		if n > 0 {
			parts = append(parts, mail.Number(n, one, many))
		}
	}
	add(len(a.Fetch), "new message", "new messages")
	add(len(a.Flags), "change of flags", "changes of flags")
	add(len(a.Gone), "deletion", "deletions")
	return strings.Join(parts, ", ")
}

// putGone holds the messages that the server has no more for the end of the run.
// Those that are not theirs went from here.
func (w *worker) putGone(ctx context.Context, b *box, gone, theirs []imap.UID) error {
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, gone)
	if err != nil {
		return err
	}
	others := mail.UIDSet(theirs)
	var both []ledger.Message
	for _, row := range rows {
		if fileless(row) {
			if err := w.Ledger.Delete(ctx, row.Mailbox, row.UIDValidity, row.UID); err != nil {
				return err
			}
			w.step("deletions recorded")
			continue
		}
		if b.missingHere(row.UID) && !w.strayed(row) {
			// Gone on both sides: both agree, whatever else may fail.
			both = append(both, row)
			continue
		}
		w.line.Hold(&deliver.Item{Box: b.line, Op: deliver.OpGone, Row: row, Known: !others.Contains(row.UID)})
	}
	if len(both) == 0 {
		return nil
	}
	var c journal.Change
	for _, row := range both {
		w.line.Forget(&c, b.line, row)
	}
	return w.commit(ctx, c, "deletions recorded")
}

// putFlags sends changed flags down the line.
func (w *worker) putFlags(ctx context.Context, b *box, changes []plan.FlagChange) error {
	uids := make([]imap.UID, len(changes))
	after := make(map[imap.UID][]string, len(changes))
	for i, c := range changes {
		uids[i], after[c.UID] = c.UID, c.After
	}
	// A stub that is about to be asked for again gets its flags with the mail,
	// or at the next run: two items for one row would overtake each other.
	uids = slices.DeleteFunc(uids, func(u imap.UID) bool {
		return slices.ContainsFunc(b.due, func(m ledger.Message) bool { return m.UID == u })
	})
	rows, err := w.Ledger.GetMany(ctx, b.Name, b.now.UIDValidity, uids)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if fileless(row) {
			row.Flags = after[row.UID]
			if err := w.Ledger.Save(ctx, row); err != nil {
				return err
			}
			w.step("flags recorded")
			continue
		}
		change := plan.FlagChange{UID: row.UID, Before: row.Flags, After: after[row.UID]}
		if w.Deletions != DeletionsKeep && b.deletedHere(row.UID) && !w.own(b.Name, change) {
			// What became of its file the server could not be told. That it was
			// changed there is then a reason to keep it, so that the row stays as
			// it was, and with it the mailbox's marks.
			if b.known.Complete {
				b.line.Begin()
			} else {
				w.mu.Lock()
				b.unsettled = true
				w.mu.Unlock()
			}
			continue
		}
		if err := w.sendFlags(ctx, b.line, row, after[row.UID]); err != nil {
			return err
		}
	}
	return nil
}

// sendFlags sends the changed flags of one file down the line.
func (r *run) sendFlags(ctx context.Context, m *deliver.Mailbox, row ledger.Message, after []string) error {
	it := r.flagItem(m, row, after)
	it.Known = r.own(m.Name, plan.FlagChange{UID: row.UID, Before: row.Flags, After: after})
	return r.line.Send(ctx, it)
}

// flagItem is a message whose flags are others on the server than was agreed.
func (r *run) flagItem(m *deliver.Mailbox, row ledger.Message, after []string) *deliver.Item {
	it := &deliver.Item{Box: m, Op: deliver.OpFlag, Row: row}
	it.Add, it.Remove, it.Set, it.Clear = r.FromFlags(row.Flags, after)
	it.Row.Flags = after
	return it
}

// deletedHere tells whether a message's file was gone or marked for deletion when
// its folder was scanned, and the server could not be told what became of it.
func (b *box) deletedHere(uid imap.UID) bool {
	is := func(m ledger.Message) bool { return m.UID == uid }
	return slices.ContainsFunc(b.local.Missing, is) || slices.ContainsFunc(b.local.Marked, is)
}

// own tells whether a change of flags is what the server was just told.
func (r *run) own(mailbox string, c plan.FlagChange) bool {
	d, ok := r.stored[mailbox][c.UID]
	told := r.told.Before()[mailbox][c.UID]
	return (ok || len(told) > 0) && plan.SameFlags(d.Merged(plan.AsTold(c.Before, c.After, told)), c.After)
}

// saveMailbox records the mailbox's own row. Only a complete one moves its
// marks on: state never moves past what was not dealt with. Messages that are to
// come again are forgotten with it.
func (r *run) saveMailbox(ctx context.Context, b *box, complete bool, forget ...imap.UID) error {
	row := ledger.Mailbox{Name: b.Name, Folder: b.known.Folder, Delim: b.Delim, UIDValidity: b.now.UIDValidity, Complete: complete}
	if complete {
		row.UIDNext, row.HighestModSeq, row.Messages = b.now.UIDNext, b.now.HighestModSeq, b.now.Messages
		if b.unsettled {
			row.HighestModSeq = 0
		}
	}
	if err := r.Ledger.SaveMailbox(ctx, row, forget...); err != nil {
		return err
	}
	r.step("mailbox recorded")
	return nil
}

// settled moves the mailbox's marks on: all that the server told is dealt with.
func (r *run) settled(ctx context.Context, b *box) error {
	if r.DryRun {
		return nil
	}
	if err := r.toldIsOver(ctx, b); err != nil || b.unchanged() {
		return err
	}
	return r.saveMailbox(ctx, b, true)
}

// unchanged tells whether the ledger's row says already what it would say now.
func (b *box) unchanged() bool {
	return b.goesOn() && b.known.UIDNext == b.now.UIDNext && b.known.HighestModSeq == b.now.HighestModSeq && b.known.Messages == b.now.Messages
}

// path is where a file of the mailbox lies.
func (b *box) path(name string) string { return b.dir.Path(name) }

// find tells where the file with this key is now; name is where it was last.
func (b *box) find(key, name string) (string, bool, error) { return b.dir.Locate(key, name) }

// exists tells whether the file with this name is still where it was.
func (b *box) exists(name string) bool { return b.dir.Has(name) }

func (b *box) missingHere(uid imap.UID) bool {
	return slices.ContainsFunc(b.local.Missing, func(m ledger.Message) bool { return m.UID == uid })
}
