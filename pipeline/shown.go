package pipeline

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// What failed and has no stub is shown in notmuch all the same, where a mail reader finds it: a
// mail that notmuch does not take by a note beside its file, new mail that the server refused by a
// tag. At the end of a run what is shown is compared with what failed, whatever became of it.

// TagUnsent is on new mail that the server refused.
const TagUnsent = "upload-failed"

// IsNotMail tells whether a row is of a mail that is here, and that notmuch does not take for one.
func IsNotMail(row ledger.Message) bool {
	return row.State == ledger.Present && strings.HasPrefix(row.Reason, deliver.NotMail)
}

// NotMail gives the rows of all such mails.
func NotMail(ctx context.Context, l *ledger.Ledger) ([]ledger.Message, error) {
	nameless, err := l.ByMessageID(ctx, "")
	return slices.DeleteFunc(nameless, func(m ledger.Message) bool { return !IsNotMail(m) }), err
}

// showFailed makes notmuch show what failed.
func (r *run) showFailed(ctx context.Context) error {
	if r.DryRun {
		return nil
	}
	return errors.Join(r.showNotMail(ctx), r.showUnsent(ctx))
}

func (r *run) showNotMail(ctx context.Context) error {
	rows, err := NotMail(ctx, r.Ledger)
	if err != nil {
		return err
	}
	notes, err := r.notes().Beside.All(ctx)
	if err != nil || len(rows)+len(notes) == 0 {
		return err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	if rows, err = r.indexAgain(ctx, rows, notes, boxes); err != nil {
		return err
	}
	for _, row := range rows {
		about := journal.About(row)
		n, ok := notes[about]
		delete(notes, about)
		if b := boxes[row.Mailbox]; b != nil && (!ok || !n.Placed && !n.GivenUp || n.GivenUp && r.wants(row)) {
			if err := r.placeBeside(ctx, b, row, n); err != nil {
				return err
			}
		}
	}
	for about, n := range notes { // of mail that notmuch has now, or that is gone
		if err := r.removeBeside(ctx, boxes, n); err != nil {
			return err
		}
		if err := r.notes().Beside.Drop(ctx, about); err != nil {
			return err
		}
	}
	return nil
}

// indexAgain has notmuch read the files again that it did not take for mail in earlier runs, which
// have left notes, if that is asked for. It gives those that it still does not take.
func (r *run) indexAgain(ctx context.Context, rows []ledger.Message, notes map[string]journal.Beside, boxes map[string]*box) ([]ledger.Message, error) {
	var items []*deliver.Item
	for _, row := range rows {
		b := boxes[row.Mailbox]
		if _, before := notes[journal.About(row)]; !before || b == nil || !r.Full && !r.wants(row) {
			continue
		}
		name, ok, err := b.find(row.Key, row.Name)
		if err != nil {
			return nil, err
		}
		if ok {
			row.Name = name
			it := &deliver.Item{Box: b.line, Op: deliver.OpAdd, Row: row, Known: true}
			it.Add, it.Remove = r.InitialTags(row.Flags, b.add, b.remove)
			items = append(items, it)
		}
	}
	if len(items) == 0 {
		return rows, nil
	}
	if err := r.line.Record(ctx, items); err != nil {
		return nil, err
	}
	return NotMail(ctx, r.Ledger)
}

// placeBeside writes the note beside a mail's file. Its key is noted before, so that a run that
// is killed leaves one note.
func (r *run) placeBeside(ctx context.Context, b *box, row ledger.Message, n journal.Beside) error {
	if n.Key == "" || n.GivenUp {
		n = journal.Beside{Mailbox: row.Mailbox, ID: KeyOf(r.Name, row).MessageID(), Key: r.keys.New(r.Now())}
		if err := r.notes().Beside.Set(ctx, journal.About(row), n); err != nil {
			return err
		}
		r.step("note intended")
	}
	name, ok, err := b.find(n.Key, n.Name)
	if err != nil {
		return err
	}
	if !ok {
		if name, err = r.writeBeside(ctx, b, row, n.Key); err != nil {
			return err
		}
		r.step("note in place")
	}
	c := mail.Change{Op: mail.OpAdd, Path: b.dir.Path(name), New: r.NewTags}
	c.Add, c.Remove = r.InitialTags(row.Flags, b.add, b.remove)
	c.Add = append(c.Add, TagFailed)
	results, err := r.Index.Apply(ctx, []mail.Change{c})
	if err != nil {
		return err
	}
	r.step("note indexed")
	if results[0].NotMail { // its path is too long for notmuch, too
		if err := b.dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := results[0].Err; err != nil {
		r.note(b, "UID %d: notmuch does not show the note for it yet: %v", row.UID, err)
		return nil // the next run tells notmuch
	}
	n.Name, n.Placed = name, true
	if err := r.notes().Beside.Set(ctx, journal.About(row), n); err != nil {
		return err
	}
	r.step("note recorded")
	return nil
}

func (r *run) writeBeside(ctx context.Context, b *box, row ledger.Message, key string) (name string, err error) {
	path := b.dir.Path(row.Name)
	if at, ok, err := b.find(row.Key, row.Name); err != nil {
		return "", err
	} else if ok {
		path = b.dir.Path(at)
	}
	if r.secret == "" {
		if err := r.readSecret(ctx); err != nil {
			return "", err
		}
	}
	o := stub.Origin{Account: r.Name, Address: r.Address, Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, Secret: r.secret}
	s := stub.Salvaged{UID: row.UID, Told: mail.Message{UID: row.UID, InternalDate: row.Date, Size: row.Size}}
	spool, err := b.dir.Written(key, stub.NotMail(o, s, row.Reason, path, r.Now()), row.Date)
	if err != nil {
		return "", err
	}
	return spool.Commit("")
}

// removeBeside removes a note, unless its owner did.
func (r *run) removeBeside(ctx context.Context, boxes map[string]*box, n journal.Beside) error {
	b := boxes[n.Mailbox]
	if b == nil {
		return nil
	}
	name, ok, err := b.find(n.Key, n.Name)
	if err != nil || !ok && n.Name == "" {
		return err
	}
	return r.removeShown(ctx, b, cmp.Or(name, n.Name), ok, n.ID)
}

// giveUpBeside removes the notes of mail that notmuch does not take and that is given up. The
// mail stays.
func (r *run) giveUpBeside(ctx context.Context) (done []ledger.Message, err error) {
	rows, err := NotMail(ctx, r.Ledger)
	rows = slices.DeleteFunc(rows, func(m ledger.Message) bool {
		return !slices.ContainsFunc(r.GiveUp, func(t Target) bool { return names(t, m) })
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		n, _, err := r.notes().Beside.Get(ctx, journal.About(row))
		if err != nil {
			return nil, err
		}
		if err := r.removeBeside(ctx, boxes, n); err != nil {
			return nil, err
		}
		if err := r.notes().Beside.Set(ctx, journal.About(row), journal.Beside{Mailbox: row.Mailbox, GivenUp: true}); err != nil {
			return nil, err
		}
		r.step("given up recorded")
		done = append(done, row)
	}
	return done, nil
}

// showUnsent tags new mail that the server refused, and takes the tag off when that is over.
func (r *run) showUnsent(ctx context.Context) error {
	unsent, err := r.notes().Unsent.All(ctx)
	if err != nil {
		return err
	}
	maps.DeleteFunc(unsent, func(_ string, u journal.Unsent) bool { return u.GivenUp })
	tagged, err := r.notes().TaggedUnsent.All(ctx)
	if err != nil || len(unsent)+len(tagged) == 0 {
		return err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return err
	}
	var about []string // at the places of the changes
	var changes []mail.Change
	for key, u := range unsent {
		b := boxes[u.Mailbox]
		if _, ok := tagged[key]; ok || b == nil {
			continue
		}
		name, ok, err := b.find(strings.TrimPrefix(key, journal.AboutFile(u.Mailbox, "")), u.Name)
		if err != nil {
			return err
		}
		if ok {
			about = append(about, key)
			changes = append(changes, mail.Change{Op: mail.OpAdd, Path: b.dir.Path(name), New: r.NewTags, Add: []string{TagUnsent}})
		}
	}
	for key, t := range tagged {
		if _, still := unsent[key]; !still {
			about = append(about, key)
			changes = append(changes, mail.Change{Op: mail.OpFlag, Path: t.Path, ID: t.ID, Remove: []string{TagUnsent}})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	results, err := r.Index.Apply(ctx, changes)
	if err != nil {
		return err
	}
	r.step("refused uploads tagged")
	var c journal.Change
	for i, res := range results {
		switch {
		case changes[i].Op == mail.OpFlag && (res.Err == nil || errors.Is(res.Err, os.ErrNotExist)):
			r.notes().TaggedUnsent.Forget(&c, about[i])
		case changes[i].Op == mail.OpAdd && (res.Err == nil || res.NotMail):
			r.notes().TaggedUnsent.Put(&c, about[i], journal.TaggedUnsent{ID: res.ID, Path: changes[i].Path})
		}
	}
	return r.commit(ctx, c, "tags of refused uploads recorded")
}
