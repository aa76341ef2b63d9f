package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// toldNow is what is remembered of a standing fault that is told now.
func (r *run) toldNow(err error) journal.Standing {
	return journal.Standing{Told: r.Now(), Text: err.Error()}
}

// standingFault reports a fault of a mailbox that stays until a person does
// something. Where nobody reads along (Remind) it is told once, and again after that
// time or in other words; until then it is known, and no news.
func (r *run) standingFault(ctx context.Context, b *box, kind string, err error) error {
	key := journal.AboutWord(kind, b.Name)
	last, ok, lerr := r.notes().Standing.Get(ctx, key)
	if lerr != nil {
		return lerr
	}
	known := r.Remind > 0 && ok && last.Text == err.Error() && r.Now().Before(last.Told.Add(r.Remind))
	r.mu.Lock()
	r.standing[key] = true
	r.mu.Unlock()
	f := report.Failure{Scope: report.ScopeMailbox, Mailbox: b.Name, Text: err.Error(), Err: err, Known: known}
	if known {
		r.tally(func(rep *report.Report) { rep.Faults = append(rep.Faults, f) })
		return nil
	}
	r.fault(f)
	if r.DryRun {
		return nil
	}
	return r.notes().Standing.Set(ctx, key, r.toldNow(err))
}

// forgetStanding forgets the faults that a whole run did not meet again: if they come
// back, they are news.
func (r *run) forgetStanding(ctx context.Context) error {
	if r.DryRun || len(r.Only) > 0 || len(r.rep.Report().Faults) > len(r.standing) {
		return nil
	}
	return r.notes().Standing.DropWhere(ctx, func(about string, _ journal.Standing) bool { return !r.standing[about] })
}
