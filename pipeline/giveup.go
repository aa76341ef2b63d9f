package pipeline

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
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
		if row.State == ledger.Skipped && row.Fileless() || !slices.ContainsFunc(r.GiveUp, func(t Target) bool { return names(t, row) }) {
			continue
		}
		row.State, row.NextTry = ledger.GivenUp, time.Time{}
		if err := r.Ledger.Save(ctx, row); err != nil {
			return nil, err
		}
		r.step("given up recorded")
		done = append(done, row)
	}
	for _, t := range r.GiveUp {
		if t.File != "" {
			if _, err := GiveUpBeside(ctx, r.Ledger, t); err != nil {
				return nil, err
			}
		}
	}
	beside, err := r.giveUpBeside(ctx)
	if err != nil {
		return nil, err
	}
	return append(done, beside...), r.retire(ctx)
}

// retire takes the stubs away of messages that are given up. It is done again
// after a crash in the middle of it.
func (r *run) retire(ctx context.Context) error {
	rows, err := r.Ledger.InState(ctx, ledger.GivenUp)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(m ledger.Message) bool { return m.StubKey == "" })
	if len(rows) == 0 {
		return nil
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		b := boxes[row.Mailbox]
		if b == nil {
			continue
		}
		if err := r.removeStub(ctx, b, row); err != nil {
			return err
		}
		row.StubKey, row.StubName, row.ID = "", "", ""
		if err := r.Ledger.Save(ctx, row); err != nil {
			return err
		}
		r.step("stub's end recorded")
	}
	return nil
}

// removeStub removes a stub's file and lets notmuch forget it.
func (r *run) removeStub(ctx context.Context, b *box, row ledger.Message) error {
	name, ok, err := b.find(row.StubKey, row.StubName)
	if err != nil {
		return err
	}
	return r.removeShown(ctx, b, cmp.Or(name, row.StubName), ok, cmp.Or(row.ID, KeyOf(r.Name, row).MessageID()))
}

// removeShown removes a stub, or a note, if its file is here, and lets notmuch forget it.
func (r *run) removeShown(ctx context.Context, b *box, name string, here bool, id string) error {
	if here {
		if err := b.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r.step("stub removed")
	}
	results, err := r.Index.Apply(ctx, []mail.Change{{Op: mail.OpRemove, Path: filepath.Join(string(b.dir), name), ID: id}})
	if err == nil && len(results) == 1 && results[0].Err != nil && !errors.Is(results[0].Err, fs.ErrNotExist) {
		err = results[0].Err
	}
	r.step("stub forgotten")
	return err
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
		if err := r.removeStub(ctx, b, row); err != nil {
			return err
		}
	}
	if err := r.Ledger.Delete(ctx, row.Mailbox, row.UIDValidity, row.UID); err != nil {
		return err
	}
	r.step("deletions recorded")
	return nil
}
