package look

import (
	"context"
	"errors"
	"slices"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// Agreed is a mailbox as both sides agreed upon it, with what this run knows of it.
type Agreed struct {
	Name   string
	Known  ledger.Mailbox // zero if the ledger does not know it
	Listed *mail.Status   // as the list of mailboxes has it
	Ask    []imap.UID     // messages that EXAMINE is to tell more of, where it can
	Taken  map[imap.UID]bool
	// Contradicted: it was seen already that a UID is of another message than was agreed on.
	Contradicted bool
}

// Seen is what the server has of a mailbox, beside the ledger's rows.
type Seen struct {
	Status     mail.Status    // as EXAMINE had it
	Identified []mail.Message // messages that EXAMINE told more of
	Rows       []ledger.Row   // of the UIDVALIDITY that the mailbox has now
	View       plan.View      // what changed, or all that there is
	// Contradicted: a UID is of another message than was agreed on.
	Contradicted bool
}

// See finds out what the server has of a mailbox, and changes nothing. The mailbox is then
// the one that is open.
func (l *Looker) See(ctx context.Context, a Agreed) (s Seen, err error) {
	if err := l.conn.Connect(ctx); err != nil {
		return s, err
	}
	// Of the rows as they were agreed on the newest are the witnesses, whom EXAMINE
	// brings along where it can.
	if s.Rows, err = l.Ledger.Rows(ctx, a.Name, a.Known.UIDValidity); err != nil {
		return s, err
	}
	witnesses := witnesses(s.Rows, l.Full)
	offer := plan.Offer(a.Known, l.Full || !l.conn.Session().Has("QRESYNC"))
	if offer != nil {
		offer.Identify = mail.UIDSet(slices.Concat(witnesses, a.Ask))
	}
	sel, err := l.conn.Examine(ctx, a.Name, offer)
	if err != nil {
		return s, err
	}
	s.Status, s.Identified, s.Contradicted = sel.Status, sel.Identified, a.Contradicted
	if s.Status.UIDNext == 0 {
		s.Status.UIDNext = a.Listed.UIDNext
	}
	if s.Status.UIDValidity != a.Known.UIDValidity {
		if s.Rows, err = l.Ledger.Rows(ctx, a.Name, s.Status.UIDValidity); err != nil {
			return s, err
		}
	}
	if !s.Contradicted {
		if s.Contradicted, err = l.hear(ctx, a, s, witnesses); err != nil {
			return s, err
		}
	}
	s.View, err = l.view(ctx, a, s, sel)
	lacks := err == nil && s.View.Complete && len(s.View.UIDs) < int(sel.Messages)
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		lacks = f.Kind == mail.KindNoData
	}
	if !lacks {
		return s, err
	}
	// What EXAMINE showed may have gone before it was listed.
	again, e := l.conn.Examine(ctx, a.Name, nil)
	if e != nil {
		return s, e
	}
	if again.UIDValidity != sel.UIDValidity || again.Messages >= sel.Messages {
		return s, err
	}
	if again.UIDNext == 0 {
		again.UIDNext = s.Status.UIDNext
	}
	s.Status = again.Status
	s.View, err = l.view(ctx, a, s, again)
	return s, err
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
func (l *Looker) hear(ctx context.Context, a Agreed, s Seen, witnesses []imap.UID) (contradicted bool, err error) {
	if !plan.Current(a.Known, s.Status) || len(witnesses) == 0 || s.Status.Messages == 0 {
		return false, nil
	}
	told := s.Identified
	if told == nil {
		if !l.Full && s.Status.UIDNext == a.Known.UIDNext && s.Status.Messages == a.Known.Messages {
			return false, nil
		}
		if told, err = l.conn.Session().Identify(ctx, mail.UIDSet(witnesses)); err != nil {
			return false, err
		}
	}
	rows, err := l.Ledger.GetMany(ctx, a.Name, s.Status.UIDValidity, witnesses)
	return slices.ContainsFunc(told, func(m mail.Message) bool {
		return slices.ContainsFunc(rows, func(r ledger.Message) bool { return r.UID == m.UID && plan.Another(r, m) })
	}), err
}

// view asks what changed, in the cheapest way that the server has.
func (l *Looker) view(ctx context.Context, a Agreed, s Seen, sel *mail.Selected) (plan.View, error) {
	same := plan.Current(a.Known, s.Status) && s.Status.UIDValidity != 0 && !l.Full && !plan.WentBack(a.Known, s.Status) && !s.Contradicted
	switch {
	case sel.Messages == 0:
		return plan.View{Complete: true}, nil
	case same && sel.Resynced:
		v := plan.View{Vanished: sel.Vanished, Messages: sel.Changed}
		if ok, err := l.proven(ctx, a, s, v); err != nil || ok {
			return v, err
		}
	case same && a.Known.HighestModSeq > 0 && s.Status.HighestModSeq > 0:
		return l.sinceModSeq(ctx, a, s)
	case len(s.Rows) == 0:
		// Nothing to compare flags with: they come with the bodies.
		uids, err := l.listing(ctx, a.Name, s.Status)
		return plan.View{Complete: true, UIDs: uids}, err
	}
	ms, err := l.conn.Session().Flags(ctx, mail.EveryUID(), 0)
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
		if v.UIDs, err = l.listing(ctx, a.Name, s.Status); err != nil {
			return plan.View{}, err
		}
	}
	return v, nil
}

// proven tells whether a difference is to be believed: it adds up, and the messages
// that it says are gone are not there when the server is asked for exactly these. Where
// it does not answer that, it is asked for all.
func (l *Looker) proven(ctx context.Context, a Agreed, s Seen, v plan.View) (bool, error) {
	if !plan.AddsUp(s.Rows, v, s.Status.Messages) {
		return false, nil
	}
	var gone []imap.UID
	for _, r := range s.Rows {
		if v.Vanished.Contains(r.UID) && !a.Taken[r.UID] {
			gone = append(gone, r.UID)
		}
	}
	if len(gone) == 0 {
		return true, nil
	}
	there, err := l.conn.Session().Search(ctx, mail.UIDSet(gone))
	if err != nil && ctx.Err() == nil && l.conn.Alive() {
		return false, nil
	}
	return err == nil && len(there) == 0, err
}

// sinceModSeq is CONDSTORE's way (RFC 7162 3.1): changed flags and new messages
// come with CHANGEDSINCE; deletions show as a count that does not add up.
func (l *Looker) sinceModSeq(ctx context.Context, a Agreed, s Seen) (v plan.View, err error) {
	if s.Status.HighestModSeq != a.Known.HighestModSeq || s.Status.UIDNext != a.Known.UIDNext {
		if v.Messages, err = l.conn.Session().Flags(ctx, mail.EveryUID(), a.Known.HighestModSeq); err != nil {
			return plan.View{}, err
		}
	}
	if plan.AddsUp(s.Rows, v, s.Status.Messages) {
		return v, nil
	}
	v.Complete = true
	v.UIDs, err = l.listing(ctx, a.Name, s.Status)
	return v, err
}

// listing gives all UIDs of the selected mailbox.
func (l *Looker) listing(ctx context.Context, mailbox string, now mail.Status) ([]imap.UID, error) {
	set, err := l.conn.Session().Search(ctx, mail.EveryUID())
	if err != nil {
		return nil, err
	}
	uids, ok := mail.UIDList(set, mail.MaxUIDs)
	if !ok {
		return nil, &mail.Fault{Kind: mail.KindTooLarge, Op: "UID SEARCH", Mailbox: mailbox, Text: "a list of messages that cannot be true"}
	}
	// An empty answer for a mailbox that has messages is no answer: believing
	// it would delete them all here.
	if len(uids) == 0 && now.Messages > 0 {
		return nil, &mail.Fault{Kind: mail.KindNoData, Op: "UID SEARCH", Mailbox: mailbox}
	}
	return uids, nil
}

func count(set imap.UIDSet) (n uint64) {
	for _, r := range set {
		n += uint64(r.Stop-r.Start) + 1
	}
	return n
}
