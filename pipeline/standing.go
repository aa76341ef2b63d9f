package pipeline

import (
	"context"
	"strings"
	"time"
)

// metaStanding is where the ledger keeps the faults that stay until a person answers,
// by mailbox and kind: when each was told last, and in which words.
const metaStanding = "standing/"

// toldNow is what is remembered of a standing fault that is told now.
func (r *run) toldNow(err error) string {
	return r.Now().UTC().Format(time.RFC3339) + " " + err.Error()
}

// standingFault reports a fault of a mailbox that stays until a person does
// something. Where nobody reads along (Remind) it is told once, and again after that
// time or in other words; until then it is known, and no news.
func (r *run) standingFault(ctx context.Context, b *box, kind string, err error) error {
	key := metaStanding + kind + "/" + b.Name
	last, lerr := r.Ledger.Meta(ctx, key)
	if lerr != nil {
		return lerr
	}
	told, text, _ := strings.Cut(last, " ")
	at, terr := time.Parse(time.RFC3339, told)
	known := r.Remind > 0 && terr == nil && text == err.Error() && r.Now().Before(at.Add(r.Remind))
	r.mu.Lock()
	r.standing[key] = true
	r.mu.Unlock()
	f := Failure{Scope: ScopeMailbox, Mailbox: b.Name, Text: err.Error(), Err: err, Known: known}
	if known {
		r.tally(func(rep *Report) { rep.Faults = append(rep.Faults, f) })
		return nil
	}
	r.fault(f)
	if r.DryRun {
		return nil
	}
	return r.Ledger.SetMeta(ctx, key, r.toldNow(err))
}

// forgetStanding forgets the faults that a whole run did not meet again: if they come
// back, they are news.
func (r *run) forgetStanding(ctx context.Context) error {
	if r.DryRun || len(r.Only) > 0 || len(r.report.Faults) > len(r.standing) {
		return nil
	}
	all, err := r.Ledger.Metas(ctx, metaStanding)
	if err != nil {
		return err
	}
	for key := range all {
		if !r.standing[key] {
			if err := r.Ledger.SetMeta(ctx, key, ""); err != nil {
				return err
			}
		}
	}
	return nil
}
