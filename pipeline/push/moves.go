package push

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// pushMoves moves messages on the server as their files were moved here.
func (p *Pusher) pushMoves(ctx context.Context, b *Mailbox, moves []plan.Move, to *Mailbox) error {
	rows := make([]ledger.Message, len(moves))
	keys := make(map[imap.UID]string, len(moves))
	for i, m := range moves {
		rows[i], keys[m.Row.UID] = m.Row, m.Key
	}
	rows, err := p.sameMessages(ctx, b, rows)
	if err != nil || len(rows) == 0 {
		return err
	}
	for _, row := range rows { // whose flags were told are withheld below, since nobody has seen them there
		for _, d := range []plan.Delta{p.did.Stored[b.Name][row.UID], b.Local.Flags[row.UID], b.waiting[row.UID]} {
			if len(d.Add)+len(d.Remove) > 0 {
				to.withhold(keys[row.UID], d)
			}
		}
	}
	p.doing(b, len(rows), movesTo, b.Name, to.Name)
	pairs, err := p.transfer(ctx, b, rows, to, keys)
	for from, uid := range pairs {
		to.expect(uid, keys[from])
	}
	p.Report.Tally(func(r *report.Report) { r.Moved += done(err, len(rows)) })
	return err
}

// pushTagged moves messages on the server as their tags order. What the server
// refuses costs nothing else.
func (p *Pusher) pushTagged(ctx context.Context, b *Mailbox, moves map[string][]ledger.Message) error {
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		rows, err := p.sameMessages(ctx, b, moves[name])
		if err == nil {
			p.doing(b, len(rows), verbTo(name)+" %s: %s -> %s", b.Name, name)
			_, err = p.transfer(ctx, b, rows, p.mailbox(name), nil)
			p.Report.Tally(func(r *report.Report) { r.Moved += done(err, len(rows)) })
		}
		if err := p.refused(ctx, b, err, ledger.UIDs(moves[name]), always(changeMove(name))); err != nil {
			return err
		}
		delete(moves, name) // done, should the push be repeated
	}
	return nil
}

// transfer moves messages on the server: with MOVE, or with COPY and an expunge
// of exactly these. It gives their new UIDs as far as they were told. keys are the
// files of those that were moved here.
func (p *Pusher) transfer(ctx context.Context, b *Mailbox, rows []ledger.Message, to *Mailbox, keys map[imap.UID]string) (map[imap.UID]imap.UID, error) {
	p.did.Left[b.Name], to.Look, to.uncertain = true, true, true
	out := make(map[imap.UID]imap.UID)
	verb := "MOVE"
	if !p.conn.Session().Has("MOVE") {
		verb = "COPY"
	}
	err := inParts(p, rows, uidOf, func(part []ledger.Message) error { return p.transferPart(ctx, b, verb, part, to, keys, out) })
	return out, err
}

// transferPart moves messages with one command, and one more to expunge copies.
func (p *Pusher) transferPart(ctx context.Context, b *Mailbox, verb string, part []ledger.Message, to *Mailbox, keys map[imap.UID]string, out map[imap.UID]imap.UID) error {
	uids := ledger.UIDs(part)
	m := p.newMove(b, verb, part, to, keys)
	if err := p.intendMove(ctx, m, part, to); err != nil {
		return err
	}
	there, err := probe.Transfer(ctx, p.conn.Session(), verb == "MOVE", uids, to.Name, p.Report.Step)
	if p.isRefusal(err) {
		back, e := p.moveRefused(ctx, m)
		if e != nil {
			return errors.Join(err, e)
		}
		if !back {
			return fmt.Errorf("%w; %w", err, errBegun)
		}
	}
	if err != nil {
		return err
	}
	pairs := there.UIDs
	if there.UIDValidity != to.Known.UIDValidity {
		pairs = nil
	}
	var unseen []ledger.Message
	if m.Copied = verb == "COPY"; m.Copied {
		if part, unseen, pairs, err = p.seen(ctx, b, m, part, pairs); err != nil {
			return fmt.Errorf("%w; %w", err, errBegun)
		}
		uids = ledger.UIDs(part)
		m.UIDs = uids
	}
	b.took(uids)
	maps.Copy(out, pairs)
	to.noteMovedFrom(part, pairs)
	if len(part) > 0 {
		if err := p.moveAnswered(ctx, b, m, part, pairs); err != nil || !m.Copied {
			return err
		}
		expunged, err := p.expunge(ctx, b, slices.Clone(uids))
		if err := p.refused(ctx, b, err, uids, always(changeExpunge)); err != nil {
			return err
		}
		if err := p.copiesExpunged(ctx, b, m, part, func(imap.UID) bool { return expunged }); err != nil {
			return err
		}
	}
	if len(unseen) == 0 {
		return nil
	}
	return p.uncopied(ctx, b, p.newMove(b, verb, unseen, to, keys), unseen, to)
}

// uncopied remembers messages of which the server has no copy, though it said so. The next run
// looks for them once more, and then it is as if the server had refused them.
func (p *Pusher) uncopied(ctx context.Context, b *Mailbox, m *journal.Moving, rows []ledger.Message, to *Mailbox) error {
	m.At = time.Time{} // it has answered: it is at nothing any more
	if err := p.intendMove(ctx, m, rows, to); err != nil {
		return err
	}
	change := changeMove(to.Name)
	if m.Deleted {
		change = changeDelete
	}
	p.Report.Tally(func(r *report.Report) { // they are counted with the others
		if m.Deleted {
			r.Deleted -= len(rows)
		} else {
			r.Moved -= len(rows)
		}
	})
	fault := &mail.Fault{Kind: mail.KindNo, Op: "UID COPY", Mailbox: b.Name, Text: "the server said that it has copied it to " + to.Name + ", and has no copy"}
	return p.refused(ctx, b, fault, m.UIDs, always(change))
}

// seen tells of which messages the copies are on the server, in the mailbox that they were
// copied to, or where others have moved them since: only for these an original may go. pairs
// are their new UIDs, as far as they are in that mailbox. b is the one that is open then.
func (p *Pusher) seen(ctx context.Context, b *Mailbox, m *journal.Moving, rows []ledger.Message, told map[imap.UID]imap.UID) (seen, unseen []ledger.Message, pairs map[imap.UID]imap.UID, err error) {
	if pairs, err = p.copied(ctx, m, rows, told); p.isRefusal(err) {
		// It does not let anybody look: what it said of the copies is all that can be had.
		_, err = p.openFor(ctx, b)
		return rows, nil, told, err
	}
	if err != nil {
		return nil, nil, nil, err
	}
	var files []plan.Untracked
	for _, row := range rows {
		if pairs[row.UID] == 0 {
			files = append(files, plan.Untracked{Message: row})
		}
	}
	elsewhere, err := p.whereabouts(ctx, p.mailbox(m.To), files)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, row := range rows {
		if _, moved := elsewhere[row.Key]; moved || pairs[row.UID] != 0 {
			seen = append(seen, row)
		} else {
			unseen = append(unseen, row)
		}
	}
	_, err = p.openFor(ctx, b)
	return seen, unseen, pairs, err
}

func uidOf(row ledger.Message) imap.UID { return row.UID }

// expunge deletes exactly these messages. It tells whether they are gone.
func (p *Pusher) expunge(ctx context.Context, b *Mailbox, uids []imap.UID) (bool, error) {
	if len(uids) == 0 {
		return false, nil
	}
	if err := probe.Store(ctx, p.conn.Session(), uids, true, `\Deleted`, p.Report.Step); err != nil {
		return false, p.bare(err)
	}
	b.took(uids)
	marked, done, err := probe.ExpungeOnly(ctx, p.conn.Session(), b.Name, uids, p.Report.Step)
	if err == nil && !done && len(marked) > 0 {
		b.markDeletionHandled(uids)
		p.Report.Note(b.Name, "%s marked \\Deleted on the server, not expunged: others are marked there, too, and the server cannot tell them apart",
			mail.Number(len(uids), "message is", "messages are"))
	}
	return done, p.bare(err)
}

// bare says of a refusal that nothing of it can be asked again in parts where EXPUNGE
// takes all that are marked: the other parts may be.
func (p *Pusher) bare(err error) error {
	if p.isRefusal(err) && !p.conn.Session().Has("UIDPLUS") {
		return fmt.Errorf("%w; %w", err, errHalfWay)
	}
	return err
}
