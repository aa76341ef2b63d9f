package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// The changes of a message that a server may refuse, by which they are remembered. What is
// wanted of a message may change: then it is another change, and is asked for at once.
const (
	changeDelete  = "delete"
	changeExpunge = "expunge" // of a message that was copied to where it goes
)

func changeFlags(d plan.Delta) string {
	var words []string
	for _, f := range d.Add {
		words = append(words, "+"+f)
	}
	for _, f := range d.Remove {
		words = append(words, "-"+f)
	}
	slices.Sort(words)
	return "flags " + strings.Join(words, " ")
}

func changeMove(to string) string { return "move " + to }

// actionOf gives what a change is, as the log has it. That a copy is left where it was is told by
// who copied it.
func actionOf(change string) mail.ActionKind {
	switch {
	case change == changeExpunge:
		return ""
	case change == changeDelete:
		return mail.ActDelete
	case strings.HasPrefix(change, changeMove("")):
		return mail.ActMove
	}
	return mail.ActStore
}

// wordsOf says what was not done.
func wordsOf(change string) string {
	to, moves := strings.CutPrefix(change, changeMove(""))
	switch {
	case moves:
		return "not moved to " + to
	case change == changeDelete:
		return "not deleted"
	case change == changeExpunge:
		return "copied to where it goes, and not deleted where it was"
	}
	return "flags not changed"
}

// Refusal is what the server refuses to change in a mailbox, for one reason.
type Refusal struct {
	Mailbox string
	Text    string
	journal.Tries
}

// Refusals gives those that are one for sure, with the messages together that have a change and a reason in common.
// Of several, the one is tried next whose time comes first.
func Refusals(declined []journal.Declined) []Refusal {
	type group struct {
		mailbox, words, reason string
		givenUp                bool
	}
	uids, tries := make(map[group][]imap.UID), make(map[group]journal.Tries)
	for _, d := range declined {
		for change, t := range d.Changes {
			g := group{d.Mailbox, wordsOf(change), t.Reason, t.GivenUp}
			if all, ok := tries[g]; ok {
				t.Attempts = max(t.Attempts, all.Attempts)
				if all.Since.Before(t.Since) {
					t.Since = all.Since
				}
				if all.NextTry.Before(t.NextTry) {
					t.NextTry = all.NextTry
				}
			}
			uids[g], tries[g] = append(uids[g], d.UID), t
		}
	}
	var out []Refusal
	for g, of := range uids {
		if g.reason == notKept && tries[g].Attempts == 1 {
			continue // what nobody saw once may be there a moment later
		}
		slices.Sort(of)
		text := fmt.Sprintf("%s: UID %d: %s", g.words, of[0], g.reason)
		if of = slices.Compact(of); len(of) > 1 {
			text = fmt.Sprintf("%s: %d messages, UID %d first: %s", g.words, len(of), of[0], g.reason)
		}
		out = append(out, Refusal{g.mailbox, text, tries[g]})
	}
	slices.SortFunc(out, func(a, b Refusal) int { return cmp.Or(cmp.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.Text, b.Text)) })
	return out
}

// declined are the changes that the server refused, as the journal has them.
type declined struct {
	journal *journal.Journal
	in      map[string]map[imap.UID]journal.Declined // by mailbox; nil: not read yet
}

// of gives those of a mailbox's messages, by UID.
func (d *declined) of(ctx context.Context, mailbox string) (map[imap.UID]journal.Declined, error) {
	if d.in == nil {
		all, err := d.journal.Declined.All(ctx)
		if err != nil {
			return nil, err
		}
		d.in = make(map[string]map[imap.UID]journal.Declined)
		for _, one := range all {
			d.keep(one)
		}
	}
	return d.in[mailbox], nil
}

func (d *declined) keep(one journal.Declined) {
	if d.in[one.Mailbox] == nil {
		d.in[one.Mailbox] = make(map[imap.UID]journal.Declined)
	}
	d.in[one.Mailbox][one.UID] = one
}

// set lets a change note what is refused of a message now: nothing forgets it.
func (d *declined) set(c *journal.Change, one journal.Declined) {
	about := journal.About(ledger.Message{Mailbox: one.Mailbox, UIDValidity: one.UIDValidity, UID: one.UID})
	if len(one.Changes) == 0 {
		delete(d.in[one.Mailbox], one.UID)
		d.journal.Declined.Forget(c, about)
		return
	}
	d.keep(one)
	d.journal.Declined.Put(c, about, one)
}

// withDeclined gives the plans, also of mailboxes of which nothing is new here, but the server
// refused something.
func (p *Pusher) withDeclined(ctx context.Context, plans map[string]*plan.Outgoing) (map[string]*plan.Outgoing, error) {
	plans = maps.Clone(plans)
	for name, b := range p.boxes {
		declined, err := p.declined.of(ctx, b.Name)
		if err != nil {
			return nil, err
		}
		if plans[name] == nil && len(declined) > 0 {
			plans[name] = &plan.Outgoing{}
		}
	}
	return plans, nil
}

// waits tells whether what was refused is not to be tried now. key is the file's.
func (p *Pusher) waits(t journal.Tries, b *Mailbox, key string) bool {
	return t.Waits(p.Now(), p.Full) && !p.Again(b.Name, key)
}

// putOff takes out of the plan what the server refused and whose time has not come. What is
// left of what was refused is tried, and so are the deletions that a move left over.
func (p *Pusher) putOff(ctx context.Context, b *Mailbox, o *plan.Outgoing) error {
	b.refused = make(map[imap.UID]map[string]bool)
	declined, err := p.declined.of(ctx, b.Name)
	if err != nil || len(declined) == 0 || p.Restore {
		return err
	}
	waits := func(row ledger.Message, change string) bool {
		t, ok := declined[row.UID].Changes[change]
		if !ok || declined[row.UID].UIDValidity != row.UIDValidity || !p.waits(t, b, row.Key) {
			return false
		}
		b.stays(row.UID, change)
		o.Later = true
		return true
	}
	copied, err := p.copiedFrom(ctx, b, declined)
	if err != nil {
		return err
	}
	b.copied = slices.DeleteFunc(slices.Clone(copied), func(m ledger.Message) bool { return waits(m, changeExpunge) })
	only := make(map[imap.UID]bool)
	for _, row := range copied {
		only[row.UID] = true
	}
	o.Without(only)
	o.Wait(func(m plan.Move, to string) bool { return waits(m.Row, changeMove(to)) })
	o.Deleted = slices.DeleteFunc(o.Deleted, func(m ledger.Message) bool { return waits(m, changeDelete) })
	tagged := make(map[string][]ledger.Message)
	for to, rows := range o.Tagged {
		if rows = slices.DeleteFunc(slices.Clone(rows), func(m ledger.Message) bool { return waits(m, changeMove(to)) }); len(rows) > 0 {
			tagged[to] = rows
		}
	}
	o.Tagged = tagged
	rows, err := p.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(b.Local.Flags)))
	if err != nil {
		return err
	}
	b.waiting = make(map[imap.UID]plan.Delta)
	for _, row := range rows {
		if d := b.Local.Flags[row.UID]; waits(row, changeFlags(d)) {
			b.waiting[row.UID] = d
			delete(b.Local.Flags, row.UID)
		}
	}
	return nil
}

// copiedFrom gives the messages that were copied to where they go, and that the server would not
// delete where they were. One that somebody here has taken back stays.
func (p *Pusher) copiedFrom(ctx context.Context, b *Mailbox, declined map[imap.UID]journal.Declined) ([]ledger.Message, error) {
	var uids []imap.UID
	for uid, d := range declined {
		if _, ok := d.Changes[changeExpunge]; ok && d.UIDValidity == b.Known.UIDValidity {
			uids = append(uids, uid)
		}
	}
	leaves := make(map[imap.UID]bool)
	for _, rows := range slices.Concat([][]ledger.Message{b.Local.Missing, b.Local.Marked}, slices.Collect(maps.Values(b.Local.Tagged))) {
		for _, row := range rows {
			leaves[row.UID] = true
		}
	}
	rows, err := p.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, uids)
	return slices.DeleteFunc(rows, func(m ledger.Message) bool {
		return m.State != ledger.Present || m.Key != "" && !leaves[m.UID]
	}), err
}

// stays notes that a change is still refused.
func (b *Mailbox) stays(uid imap.UID, change string) {
	if b.refused[uid] == nil {
		b.refused[uid] = make(map[string]bool)
	}
	b.refused[uid][change] = true
}

// refused remembers of a refusal which changes of a mailbox's messages it kept from being made:
// it is of them, and costs nothing else. Any other error stays.
func (p *Pusher) refused(ctx context.Context, b *Mailbox, err error, uids []imap.UID, change func(imap.UID) string) error {
	if !p.isRefusal(err) || errors.Is(err, errBegun) {
		return err
	}
	if some, ok := errors.AsType[*someRefused](err); ok {
		uids, err = some.uids, some.err
	}
	fault, _ := mail.Refused(err)
	b.KeepMarks()
	return p.remember(ctx, b, uids, change, fault.Error())
}

// remember counts one time more that changes of a mailbox's messages were not made.
func (p *Pusher) remember(ctx context.Context, b *Mailbox, uids []imap.UID, change func(imap.UID) string, reason string) error {
	if len(uids) == 0 {
		return nil
	}
	declined, err := p.declined.of(ctx, b.Name)
	if err != nil {
		return err
	}
	var c journal.Change
	for _, uid := range uids {
		d := journal.Declined{Mailbox: b.Name, UIDValidity: b.Known.UIDValidity, UID: uid, Changes: make(map[string]journal.Tries)}
		if before := declined[uid]; before.UIDValidity == d.UIDValidity {
			maps.Copy(d.Changes, before.Changes)
		}
		t := d.Changes[change(uid)]
		t.Failed(p.Now(), reason, report.RetryFromSecond)
		d.Changes[change(uid)] = t
		b.stays(uid, change(uid))
		p.declined.set(&c, d)
		if kind := actionOf(change(uid)); kind != "" {
			became(&c, mail.IsRefused, reason, kind, b.Name, d.UIDValidity, uid)
		}
	}
	return p.commit(ctx, c, "refusal remembered")
}

// always is a change that is the same of all messages.
func always(change string) func(imap.UID) string { return func(imap.UID) string { return change } }

// forgetDone forgets what the server refused before of the mailbox, and did not refuse now: it
// is done, or wanted no more. What it says it has done, and nobody has seen yet, it keeps.
func (p *Pusher) forgetDone(ctx context.Context, b *Mailbox) error {
	declined, err := p.declined.of(ctx, b.Name)
	if err != nil {
		return err
	}
	var c journal.Change
	for uid, d := range declined {
		left := maps.Clone(d.Changes)
		maps.DeleteFunc(left, func(change string, _ journal.Tries) bool { return !b.refused[uid][change] && b.awaited[uid] != change })
		if len(left) == 0 || len(left) < len(d.Changes) {
			d.Changes = left
			p.declined.set(&c, d)
		}
	}
	if c.Empty() {
		return nil
	}
	return p.commit(ctx, c, "refusals forgotten")
}

// tellRefused tells of what the server refuses in the mailbox, but for what its owner gave up.
func (p *Pusher) tellRefused(ctx context.Context, b *Mailbox) error {
	declined, err := p.declined.of(ctx, b.Name)
	if err != nil {
		return err
	}
	var texts []string
	for _, r := range Refusals(slices.Collect(maps.Values(declined))) {
		if !r.GivenUp {
			texts = append(texts, r.Text)
		}
	}
	if len(texts) > 0 {
		p.Standing(b.Name, Refused, fmt.Errorf("%s; it is tried again after a while, or with --full (notmuch imap stubs --all lists it)", strings.Join(texts, "; ")))
	}
	return nil
}

// Refused is the kind of the standing fault that tells of it.
const Refused = "refused"

// expungeCopied ends moves whose messages were copied to where they go, and could not be
// deleted where they were.
func (p *Pusher) expungeCopied(ctx context.Context, b *Mailbox) error {
	rows, err := p.sameMessages(ctx, b, b.copied)
	if err != nil || len(rows) == 0 {
		return err
	}
	err = p.expungeParts(ctx, b, rows)
	if some, ok := errors.AsType[*someRefused](err); ok {
		var c journal.Change
		became(&c, mail.IsRefused, some.err.Error(), mail.ActDelete, b.Name, b.Known.UIDValidity, some.uids...)
		if err := p.commit(ctx, c, "copies left noted"); err != nil {
			return err
		}
	}
	return err
}

// refusedAll remembers that the mailbox was not opened for what is to be changed in it.
func (p *Pusher) refusedAll(ctx context.Context, b *Mailbox, o *plan.Outgoing, err error) error {
	of := map[string][]imap.UID{changeExpunge: ledger.UIDs(b.copied), changeDelete: ledger.UIDs(o.Deleted)}
	for uid, d := range b.Local.Flags {
		of[changeFlags(d)] = append(of[changeFlags(d)], uid)
	}
	for to, moves := range o.Moves {
		of[changeMove(to)] = append(of[changeMove(to)], plan.UIDsOf(moves)...)
	}
	for to, rows := range o.Tagged {
		of[changeMove(to)] = append(of[changeMove(to)], ledger.UIDs(rows)...)
	}
	for change, uids := range of {
		if e := p.refused(ctx, b, err, uids, always(change)); e != nil {
			return e
		}
	}
	var uploads []refusedUpload
	for _, f := range o.Uploads {
		uploads = append(uploads, refusedUpload{f, err, true})
	}
	return p.refusedUploads(ctx, b, uploads)
}
