package cmd

import (
	"context"
	"errors"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// What failed and is no message of the server's: new mail that it refused, and mailboxes.

// tryBeside tries such things again, all in one run, and says what became of each.
func (p *program) tryBeside(ctx context.Context, ch *chosen, targets []pipeline.Target, h *hold, out *output) error {
	if len(targets) == 0 {
		return nil
	}
	o := h.options
	before, err := failedOf(ctx, ch, targets, o.Ledger)
	if err != nil {
		return err
	}
	known, err := o.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	o.Retry = targets
	for _, t := range targets {
		if !slices.ContainsFunc(known, func(b ledger.Mailbox) bool { return b.Name == t.Mailbox }) {
			o.Only = nil // it is yet to be made, as a run does that looks at all of them
			break
		}
		if !slices.Contains(o.Only, t.Mailbox) {
			o.Only = append(o.Only, t.Mailbox)
		}
	}
	if refusedChanges(before) {
		o.Only = nil // where a mail is moved to shows in all of them
	}
	report, err := pipeline.Sync(ctx, o)
	switch {
	case err != nil:
		return err
	case report.Broken():
		return errTold
	case report.Nothing():
		return errLater
	}
	after, err := failedOf(ctx, ch, targets, o.Ledger)
	if err != nil {
		return err
	}
	var left error
	for i, t := range targets {
		if len(after[i]) == 0 {
			out.say(nameAmong(ch, t, before[i]) + ": done; nothing of it is left")
			continue
		}
		left = errPartly
		told := slices.ContainsFunc(report.Faults, func(f pipeline.Failure) bool { return f.Mailbox == t.Mailbox && !f.Known })
		for _, f := range after[i] {
			if !told || f.UID != 0 {
				out.account(ch.account.Name, nameOf(ch.account.Name, f)+": "+f.Reason)
			}
		}
	}
	return left
}

// refusedChanges tells whether something is to be changed on the server that it refused, or that
// was given up then.
func refusedChanges(failed [][]pipeline.Failed) bool {
	return slices.ContainsFunc(slices.Concat(failed...), func(f pipeline.Failed) bool {
		return f.UID == 0 && f.File == "" && (f.State == pipeline.FailedRefused || f.State == pipeline.FailedGivenUp)
	})
}

// failedOf gives what failed of each of the targets.
func failedOf(ctx context.Context, ch *chosen, targets []pipeline.Target, l *ledger.Ledger) ([][]pipeline.Failed, error) {
	failed, err := pipeline.FailedOf(ctx, ch.account.Name, l)
	out := make([][]pipeline.Failed, len(targets))
	for i, t := range targets {
		for _, f := range failed {
			of := f.Target()
			if of.Mailbox == t.Mailbox && (t.Whole() && (f.Waits() || f.UID == 0 && f.State == pipeline.FailedGivenUp) || of.File == t.File && of.UID == 0 && (f.Waits() || f.State == pipeline.FailedGivenUp)) {
				out[i] = append(out[i], f)
			}
		}
	}
	return out, err
}

// nameAmong is what a target is called in the list.
func nameAmong(ch *chosen, t pipeline.Target, failed []pipeline.Failed) string {
	if len(failed) == 0 || t.Whole() {
		return nameOf(ch.account.Name, pipeline.Failed{Mailbox: t.Mailbox})
	}
	return nameOf(ch.account.Name, failed[0])
}

// giveUpBeside gives such things up, and says how that is undone.
func (p *program) giveUpBeside(ctx context.Context, ch *chosen, targets []pipeline.Target, h *hold, out *output) error {
	var left error
	for _, t := range targets {
		before, err := failedOf(ctx, ch, []pipeline.Target{t}, h.options.Ledger)
		if err != nil {
			return err
		}
		some, err := pipeline.GiveUpBeside(ctx, h.options.Ledger, t)
		if err != nil {
			return err
		}
		if !some {
			out.account(ch.account.Name, nameAmong(ch, t, before[0])+": nothing of it can be given up; see `notmuch imap stubs --all`")
			left = errors.Join(left, errPartly)
			continue
		}
		for _, f := range before[0] {
			name := nameOf(ch.account.Name, f)
			again := "`notmuch imap retry " + mail.Typed(name) + "`"
			switch f.State {
			case pipeline.FailedUnsent:
				out.say(name + ": not sent any more; the mail stays here, and " + again + " sends it")
			case pipeline.FailedRefused:
				out.say(name + ": " + f.Reason + ": not asked for any more; here it stays as it is, and " + again + " asks again")
			case pipeline.FailedUnavailable:
				out.say(name + ": left out from now on, until " + again)
			}
		}
	}
	return left
}
