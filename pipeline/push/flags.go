package push

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// pushFlags sets and clears flags where the user did. The look that comes after
// it finds them on the server, beside what others changed, and records both; it
// also tells notmuch, which may not have seen a file's new name yet. Messages of which
// the server refuses one are left out of that: the next run finds them again.
func (p *Pusher) pushFlags(ctx context.Context, b *Mailbox, sel *mail.Selected, rows []ledger.Message) error {
	flags := make(map[string]bool)
	for _, d := range b.Local.Flags {
		for _, f := range slices.Concat(d.Add, d.Remove) {
			flags[f] = true
		}
	}
	if err := p.intendFlagsThere(ctx, b, rows); err != nil {
		return err
	}
	change := make(map[imap.UID]string, len(b.Local.Flags)) // by the names that putOff knows
	for u, d := range b.Local.Flags {
		change[u] = changeFlags(d)
	}
	left := make(map[imap.UID]plan.Delta)
	for _, f := range slices.Sorted(maps.Keys(flags)) {
		for _, sign := range []string{"+", "-"} {
			err := p.store(ctx, b, sel, f, sign)
			some, ok := errors.AsType[*someRefused](err)
			if !ok && err != nil {
				return err
			}
			if ok {
				err := p.refused(ctx, b, err, nil, func(u imap.UID) string { return change[u] })
				if err != nil {
					return err
				}
				for _, u := range some.uids {
					left[u] = b.Local.Flags[u]
				}
			}
		}
	}
	maps.DeleteFunc(b.Local.Flags, func(u imap.UID, _ plan.Delta) bool { _, is := left[u]; return is })
	var c journal.Change
	maps.DeleteFunc(b.Local.Flags, func(u imap.UID, d plan.Delta) bool {
		none := len(d.Add)+len(d.Remove) == 0
		if none {
			became(&c, mail.IsUndone, "the server keeps no such flags in this mailbox", mail.ActStore, b.Name, b.Known.UIDValidity, u)
		}
		return none
	})
	n := len(b.Local.Flags)
	p.Report.Tally(func(r *report.Report) { r.Pushed += n })
	// The push may be repeated: what was told stays told.
	p.did.told(b.Name, b.Local.Flags)
	for u := range b.Local.Flags {
		b.await(u, change[u])
	}
	if b.Local.Flags = nil; len(left) > 0 {
		b.Local.Flags = left
	}
	for u := range left { // the server does not have what it refused
		p.Told.Forget(&c, ledger.Message{Mailbox: b.Name, UIDValidity: b.Known.UIDValidity, UID: u})
	}
	if !c.Empty() {
		return p.commit(ctx, c, "refused flags noted")
	}
	return nil
}

// store sets or clears one flag where the user did so.
func (p *Pusher) store(ctx context.Context, b *Mailbox, sel *mail.Selected, flag, sign string) error {
	var uids []imap.UID
	for u, d := range b.Local.Flags {
		if sign == "+" && plan.HasFlag(d.Add, flag) || sign == "-" && plan.HasFlag(d.Remove, flag) {
			uids = append(uids, u)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	if kept := sel.PermanentFlags; len(kept) > 0 && !plan.HasFlag(kept, flag) && (flag[0] == '\\' || !slices.Contains(kept, `\*`)) {
		return p.staysHere(ctx, b, flag, len(uids))
	}
	return p.storeFlag(ctx, b, uids, sign, flag)
}

func (p *Pusher) storeFlag(ctx context.Context, b *Mailbox, uids []imap.UID, sign, flag string) error {
	slices.Sort(uids)
	return inParts(p, uids, func(u imap.UID) imap.UID { return u }, func(part []imap.UID) error {
		return probe.Store(ctx, p.conn.Session(), part, sign == "+", flag, p.Report.Step)
	})
}

// staysHere leaves a flag that the server does not keep to the files. That is
// said once.
func (p *Pusher) staysHere(ctx context.Context, b *Mailbox, flag string, n int) error {
	for u, d := range b.Local.Flags {
		other := func(f string) bool { return strings.EqualFold(f, flag) }
		b.Local.Flags[u] = plan.Delta{Add: slices.DeleteFunc(d.Add, other), Remove: slices.DeleteFunc(d.Remove, other)}
	}
	return journal.Once(ctx, p.Journal.StaysSaid, journal.AboutWord(flag, b.Name), journal.Text(b.Name), !p.DryRun, func() bool {
		return p.Report.Note(b.Name, "the server keeps no flag %s in this mailbox; that of %s stays here", flag, mail.Number(n, "message", "messages"))
	})
}

// sameFlagged gives the messages whose flags the server is to change, as they were agreed on; ok tells
// whether they are still those, at the price of a round trip. Those that are there no more are
// left out: where somebody has moved them, the look finds them, with what was changed here.
func (p *Pusher) sameFlagged(ctx context.Context, b *Mailbox) (same []ledger.Message, ok bool, err error) {
	rows, err := p.Ledger.GetMany(ctx, b.Name, b.Known.UIDValidity, slices.Collect(maps.Keys(b.Local.Flags)))
	if err != nil {
		return nil, false, err
	}
	same, err = p.sameMessages(ctx, b, rows)
	if err != nil || b.Contradicted {
		return nil, false, err
	}
	there, gone := mail.UIDSet(ledger.UIDs(same)), make(map[imap.UID]plan.Delta)
	for _, u := range ledger.UIDs(rows) { // a dry run may know some of no row yet
		if !there.Contains(u) {
			gone[u] = b.Local.Flags[u]
			delete(b.Local.Flags, u)
		}
	}
	p.did.told(b.Name, gone)
	return same, true, nil
}

// intendFlagsThere notes which flags of a mailbox's messages are about to be told.
func (p *Pusher) intendFlagsThere(ctx context.Context, b *Mailbox, rows []ledger.Message) error {
	if len(b.Local.Flags) == 0 {
		return nil
	}
	flags := make(map[imap.UID][]string, len(b.Local.Flags))
	for u, d := range b.Local.Flags {
		flags[u] = slices.Concat(d.Add, d.Remove)
	}
	var c journal.Change
	p.Told.Intend(&c, b.Name, b.Known.UIDValidity, flags)
	begin(&c, p.storing(ctx, b, rows))
	return p.commit(ctx, c, "flags about to be told")
}
