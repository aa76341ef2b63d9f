package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Target names one message of an account.
type Target = mail.Target

// TargetOf names a row's message.
func TargetOf(row ledger.Message) Target {
	return Target{Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, UID: row.UID}
}

// names tells whether a row is of the target.
func names(t Target, row ledger.Message) bool {
	return t.Mailbox == row.Mailbox && t.UID == row.UID && (t.UIDValidity == 0 || t.UIDValidity == row.UIDValidity)
}

// wants tells whether a message is to be asked for whatever its schedule says.
func (r Request) wants(row ledger.Message) bool {
	return slices.ContainsFunc(r.Retry, func(t Target) bool { return names(t, row) || t.Whole() && t.Mailbox == row.Mailbox })
}

// givesUp tells whether a message is to be asked for no more.
func (r Request) givesUp(row ledger.Message) bool {
	return slices.ContainsFunc(r.GiveUp, func(t Target) bool { return names(t, row) })
}

// sendsAgain tells whether the upload of a file is asked for by name.
func (r Request) sendsAgain(mailbox, key string) bool {
	return slices.ContainsFunc(r.Retry, func(t Target) bool { return t.Mailbox == mailbox && (t.Whole() || t.File == key) })
}

// revived gives the rows that were given up and are asked for again.
func (o *Options) revived(ctx context.Context) ([]ledger.Message, error) {
	if len(o.Retry) == 0 {
		return nil, nil
	}
	rows, err := o.Ledger.InState(ctx, ledger.GivenUp, ledger.Skipped)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(m ledger.Message) bool { return !o.wants(m) }), nil
}

// GiveUp stops asking for messages and removes their stubs. Nothing happens on
// the server. It gives those of the targets that have a stub no more.
func GiveUp(ctx context.Context, o Options, targets []Target) ([]ledger.Message, error) {
	o.GiveUp = targets
	r := newRun(o)
	if err := r.here.CheckRoot(ctx); err != nil {
		return nil, err
	}
	if err := r.resume(ctx); err != nil {
		return nil, err
	}
	return r.giveUp(ctx)
}

// GiveUpBeside gives up new mail that the server refused, which stays here and is sent no
// more, mailboxes, which are left out, and the changes that the server refused in them: until
// they are asked for by name. some is false if
// there is nothing of the target that can be given up so.
func GiveUpBeside(ctx context.Context, l *ledger.Ledger, t Target) (some bool, err error) {
	notes := journal.Of(l)
	unsent, err := notes.Unsent.All(ctx)
	if err != nil {
		return false, err
	}
	unavailable, err := notes.Unavailable.All(ctx)
	if err != nil {
		return false, err
	}
	declined, err := notes.Declined.All(ctx)
	if err != nil {
		return false, err
	}
	var c journal.Change
	for about, d := range declined {
		if t.Whole() && d.Mailbox == t.Mailbox {
			for change, of := range d.Changes {
				of.GivenUp = true
				d.Changes[change] = of
			}
			notes.Declined.Put(&c, about, d)
		}
	}
	for about, u := range unsent {
		if u.Mailbox == t.Mailbox && (t.Whole() || about == journal.AboutFile(t.Mailbox, t.File)) {
			u.GivenUp = true
			notes.Unsent.Put(&c, about, u)
		}
	}
	for about, n := range unavailable {
		if _, mailbox, _ := strings.Cut(about, "/"); t.Whole() && mailbox == t.Mailbox {
			n.GivenUp = true
			notes.Unavailable.Put(&c, about, n)
		}
	}
	return !c.Empty(), notes.Record(ctx, c)
}

// giveUp carries out Options.GiveUp.
func (r *run) giveUp(ctx context.Context) (done []ledger.Message, err error) {
	if len(r.GiveUp) == 0 {
		return nil, nil
	}
	rows, err := r.Ledger.InState(ctx, ledger.Stub, ledger.GivenUp, ledger.Skipped)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.State == ledger.Skipped && row.Fileless() || !r.givesUp(row) {
			continue
		}
		row.State, row.NextTry = ledger.GivenUp, time.Time{}
		if err := r.Ledger.Save(ctx, row); err != nil {
			return nil, err
		}
		r.rep.Step("given up recorded")
		done = append(done, row)
	}
	for _, t := range r.GiveUp {
		if t.File != "" {
			if _, err := GiveUpBeside(ctx, r.Ledger, t); err != nil {
				return nil, err
			}
		}
	}
	beside, err := r.shower.GiveUp(ctx, r.givesUp)
	if err != nil {
		return nil, err
	}
	return append(done, beside...), r.shower.Retire(ctx)
}

// Forget removes what is left here of a message that was deleted on the server:
// its stub and its row.
func Forget(ctx context.Context, o Options, row ledger.Message) error {
	r := newRun(o)
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	if b := boxes[row.Mailbox]; b != nil && row.StubKey != "" {
		if err := r.shower.RemoveStub(ctx, b.dir, row); err != nil {
			return err
		}
	}
	c := journal.Change{Forget: []ledger.Message{row}}
	c.Became(mail.IsDone, "", dropped(row))
	return r.commit(ctx, c, "deletions recorded")
}

// dropped is the deletion of a message that somebody asked for.
func dropped(row ledger.Message) mail.Action {
	a := journal.ActionOf(mail.ActDelete, row)
	a.Before, a.Why = row.Flags, "you asked for it"
	return a
}

// Dropping says in the log that a message is about to be deleted on the server, or moved to a
// mailbox there ("": it is not). Forget says that it was.
func Dropping(ctx context.Context, l *ledger.Ledger, row ledger.Message, to, who, what string) error {
	a := dropped(row)
	a.Other, a.From, a.Subject = to, who, what
	var c journal.Change
	c.Begin(a)
	return journal.Of(l).Record(ctx, c)
}

// NotDropped says there that the server did not do it.
func NotDropped(ctx context.Context, l *ledger.Ledger, row ledger.Message, why string) error {
	var c journal.Change
	c.Became(mail.IsRefused, why, dropped(row))
	return journal.Of(l).Record(ctx, c)
}
