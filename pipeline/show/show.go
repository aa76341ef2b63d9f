// Package show has notmuch show what failed, where a mail reader finds it. A message that could
// not be fetched has its stub, which others write, and which goes from here. A mail that notmuch
// does not take is shown by a note beside its file, new mail that the server refused by a tag:
// at the end of a run what is shown is compared with what failed, whatever became of it.
package show

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// Ledger has the rows of messages.
type Ledger interface {
	InState(ctx context.Context, states ...ledger.State) ([]ledger.Message, error)
	ByMessageID(ctx context.Context, id string) ([]ledger.Message, error)
}

// Mailbox is one in whose folder something is shown.
type Mailbox struct {
	*deliver.Mailbox
	Add, Remove []string // tags by rule
}

// Options is what showing needs of a run.
type Options struct {
	Account, Address string
	Line             *deliver.Line
	Index            deliver.Index
	Ledger           Ledger
	Journal          *journal.Journal
	Report           *report.Reporter
	Keys             *maildir.Keys // of files to come
	Now              func() time.Time
	Tags             *plan.Tags

	// Again tells whether notmuch is to be asked once more about a mail that it did not take,
	// and Wanted whether that was asked for by name.
	Again, Wanted func(ledger.Message) bool
	// Boxes gives all mailboxes that the ledger knows, by name.
	Boxes func(context.Context) (map[string]*Mailbox, error)
	// Secret gives that by which stubs and notes are signed.
	Secret func(context.Context) (string, error)
}

// Shower shows what failed in one account.
type Shower struct{ Options }

// New gives the one of a run.
func New(o Options) *Shower { return &Shower{o} }

// IsNotMail tells whether a row is of a mail that is here, and that notmuch does not take for one.
func IsNotMail(row ledger.Message) bool {
	return row.State == ledger.Present && strings.HasPrefix(row.Reason, deliver.NotMail)
}

// NotMail gives the rows of all such mails.
func NotMail(ctx context.Context, l Ledger) ([]ledger.Message, error) {
	nameless, err := l.ByMessageID(ctx, "")
	return slices.DeleteFunc(nameless, func(m ledger.Message) bool { return !IsNotMail(m) }), err
}

// Show makes notmuch show what failed.
func (s *Shower) Show(ctx context.Context) error {
	return errors.Join(s.showNotMail(ctx), s.showUnsent(ctx))
}

func (s *Shower) showNotMail(ctx context.Context) error {
	rows, err := NotMail(ctx, s.Ledger)
	if err != nil {
		return err
	}
	notes, err := s.Journal.Beside.All(ctx)
	if err != nil || len(rows)+len(notes) == 0 {
		return err
	}
	boxes, err := s.Boxes(ctx)
	if err != nil {
		return err
	}
	if rows, err = s.indexAgain(ctx, rows, notes, boxes); err != nil {
		return err
	}
	for _, row := range rows {
		about := journal.About(row)
		n, ok := notes[about]
		delete(notes, about)
		if b := boxes[row.Mailbox]; b != nil && (!ok || !n.Placed && !n.GivenUp || n.GivenUp && s.Wanted(row)) {
			if err := s.placeBeside(ctx, b, row, n); err != nil && !b.Bears(err) {
				return err
			}
		}
	}
	for about, n := range notes { // of mail that notmuch has now, or that is gone
		if err := s.removeBeside(ctx, boxes, n); err != nil {
			if boxes[n.Mailbox].Bears(err) { // the note waits for the next run
				continue
			}
			return err
		}
		if err := s.Journal.Beside.Drop(ctx, about); err != nil {
			return err
		}
	}
	return nil
}

// indexAgain has notmuch read the files again that it did not take for mail in earlier runs, which
// have left notes, if that is asked for. It gives those that it still does not take.
func (s *Shower) indexAgain(ctx context.Context, rows []ledger.Message, notes map[string]journal.Beside, boxes map[string]*Mailbox) ([]ledger.Message, error) {
	var items []*deliver.Item
	for _, row := range rows {
		b := boxes[row.Mailbox]
		if _, before := notes[journal.About(row)]; !before || b == nil || !s.Again(row) {
			continue
		}
		name, ok, err := b.Dir.Locate(row.Key, row.Name)
		if err != nil {
			return nil, err
		}
		if ok {
			row.Name = name
			it := &deliver.Item{Box: b.Mailbox, Op: deliver.OpAdd, Row: row, Known: true}
			it.Add, it.Remove = s.Tags.InitialTags(row.Flags, b.Add, b.Remove)
			items = append(items, it)
		}
	}
	if len(items) == 0 {
		return rows, nil
	}
	if err := s.Line.Record(ctx, items); err != nil {
		return nil, err
	}
	return NotMail(ctx, s.Ledger)
}

// placeBeside writes the note beside a mail's file. Its key is noted before, so that a run that
// is killed leaves one note.
func (s *Shower) placeBeside(ctx context.Context, b *Mailbox, row ledger.Message, n journal.Beside) error {
	if n.Key == "" || n.GivenUp {
		n = journal.Beside{Mailbox: row.Mailbox, ID: s.idOf(row), Key: s.Keys.New(s.Now())}
		if err := s.Journal.Beside.Set(ctx, journal.About(row), n); err != nil {
			return err
		}
		s.Report.Step("note intended")
	}
	name, ok, err := b.Dir.Locate(n.Key, n.Name)
	if err != nil {
		return err
	}
	if !ok {
		if name, err = s.writeBeside(ctx, b, row, n.Key); err != nil {
			return err
		}
		s.Report.Step("note in place")
	}
	c := mail.Change{Op: mail.OpAdd, Path: b.Dir.Path(name), New: s.Tags.NewTags}
	c.Add, c.Remove = s.Tags.InitialTags(row.Flags, b.Add, b.Remove)
	c.Add = append(c.Add, stub.LabelFailed)
	results, err := s.Index.Apply(ctx, []mail.Change{c})
	if err != nil {
		return err
	}
	s.Report.Step("note indexed")
	if results[0].NotMail { // its path is too long for notmuch, too
		if err := b.Dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	} else if err := results[0].Err; err != nil {
		s.Report.Note(b.Name, "UID %d: notmuch does not show the note for it yet: %v", row.UID, err)
		return nil // the next run tells notmuch
	}
	n.Name, n.Placed = name, true
	if err := s.Journal.Beside.Set(ctx, journal.About(row), n); err != nil {
		return err
	}
	s.Report.Step("note recorded")
	return nil
}

func (s *Shower) writeBeside(ctx context.Context, b *Mailbox, row ledger.Message, key string) (name string, err error) {
	path := b.Dir.Path(row.Name)
	if at, ok, err := b.Dir.Locate(row.Key, row.Name); err != nil {
		return "", err
	} else if ok {
		path = b.Dir.Path(at)
	}
	secret, err := s.Secret(ctx)
	if err != nil {
		return "", err
	}
	o := stub.Origin{Account: s.Account, Address: s.Address, Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, Secret: secret}
	what := stub.Salvaged{UID: row.UID, Told: mail.Message{UID: row.UID, InternalDate: row.Date, Size: row.Size}}
	spool, err := b.Dir.Written(key, stub.NotMail(o, what, row.Reason, path, s.Now()), row.Date)
	if err != nil {
		return "", err
	}
	return spool.Commit("")
}

// removeBeside removes a note, unless its owner did.
func (s *Shower) removeBeside(ctx context.Context, boxes map[string]*Mailbox, n journal.Beside) error {
	b := boxes[n.Mailbox]
	if b == nil {
		return nil
	}
	name, ok, err := b.Dir.Locate(n.Key, n.Name)
	if err != nil || !ok && n.Name == "" {
		return err
	}
	return s.remove(ctx, b.Dir, cmp.Or(name, n.Name), ok, n.ID)
}

// GiveUp removes the notes of those mails that notmuch does not take and of which named says so.
// The mails stay.
func (s *Shower) GiveUp(ctx context.Context, named func(ledger.Message) bool) (done []ledger.Message, err error) {
	rows, err := NotMail(ctx, s.Ledger)
	rows = slices.DeleteFunc(rows, func(m ledger.Message) bool { return !named(m) })
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	boxes, err := s.Boxes(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		n, _, err := s.Journal.Beside.Get(ctx, journal.About(row))
		if err != nil {
			return nil, err
		}
		if err := s.removeBeside(ctx, boxes, n); err != nil {
			return nil, err
		}
		if err := s.Journal.Beside.Set(ctx, journal.About(row), journal.Beside{Mailbox: row.Mailbox, GivenUp: true}); err != nil {
			return nil, err
		}
		s.Report.Step("given up recorded")
		done = append(done, row)
	}
	return done, nil
}

// showUnsent tags new mail that the server refused, and takes the tag off when that is over.
func (s *Shower) showUnsent(ctx context.Context) error {
	unsent, err := s.Journal.Unsent.All(ctx)
	if err != nil {
		return err
	}
	maps.DeleteFunc(unsent, func(_ string, u journal.Unsent) bool { return u.GivenUp })
	tagged, err := s.Journal.TaggedUnsent.All(ctx)
	if err != nil || len(unsent)+len(tagged) == 0 {
		return err
	}
	boxes, err := s.Boxes(ctx)
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
		name, ok, err := b.Dir.Locate(strings.TrimPrefix(key, journal.AboutFile(u.Mailbox, "")), u.Name)
		if err != nil {
			return err
		}
		if ok {
			about = append(about, key)
			changes = append(changes, mail.Change{Op: mail.OpAdd, Path: b.Dir.Path(name), New: s.Tags.NewTags, Add: []string{plan.TagUnsent}})
		}
	}
	for key, t := range tagged {
		if _, still := unsent[key]; !still {
			about = append(about, key)
			changes = append(changes, mail.Change{Op: mail.OpFlag, Path: t.Path, ID: t.ID, Remove: []string{plan.TagUnsent}})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	results, err := s.Index.Apply(ctx, changes)
	if err != nil {
		return err
	}
	s.Report.Step("refused uploads tagged")
	var c journal.Change
	for i, res := range results {
		switch {
		case changes[i].Op == mail.OpFlag && (res.Err == nil || errors.Is(res.Err, os.ErrNotExist)):
			s.Journal.TaggedUnsent.Forget(&c, about[i])
		case changes[i].Op == mail.OpAdd && (res.Err == nil || res.NotMail):
			s.Journal.TaggedUnsent.Put(&c, about[i], journal.TaggedUnsent{ID: res.ID, Path: changes[i].Path})
		}
	}
	return s.commit(ctx, c, "tags of refused uploads recorded")
}

// Retire takes the stubs away of messages that are given up. It is done again
// after a crash in the middle of it.
func (s *Shower) Retire(ctx context.Context) error {
	rows, err := s.Ledger.InState(ctx, ledger.GivenUp)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(m ledger.Message) bool { return m.StubKey == "" })
	if len(rows) == 0 {
		return nil
	}
	boxes, err := s.Boxes(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		b := boxes[row.Mailbox]
		if b == nil {
			continue
		}
		if err := s.RemoveStub(ctx, b.Dir, row); err != nil {
			if b.Bears(err) {
				continue
			}
			return err
		}
		row.StubKey, row.StubName, row.ID = "", "", ""
		if err := s.commit(ctx, journal.Change{Save: []ledger.Message{row}}, "stub's end recorded"); err != nil {
			return err
		}
	}
	return nil
}

// RemoveStub removes a stub's file and lets notmuch forget it.
func (s *Shower) RemoveStub(ctx context.Context, dir maildir.Dir, row ledger.Message) error {
	name, ok, err := dir.Locate(row.StubKey, row.StubName)
	if err != nil {
		return err
	}
	return s.remove(ctx, dir, cmp.Or(name, row.StubName), ok, cmp.Or(row.ID, s.idOf(row)))
}

// remove removes a stub, or a note, if its file is here, and lets notmuch forget it.
func (s *Shower) remove(ctx context.Context, dir maildir.Dir, name string, here bool, id string) error {
	if here {
		if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.Report.Step("stub removed")
	}
	results, err := s.Index.Apply(ctx, []mail.Change{{Op: mail.OpRemove, Path: filepath.Join(string(dir), name), ID: id}})
	if err == nil && len(results) == 1 && results[0].Err != nil && !errors.Is(results[0].Err, fs.ErrNotExist) {
		err = results[0].Err
	}
	s.Report.Step("stub forgotten")
	return err
}

// idOf is the Message-ID of the stub, or the note, of a row's message.
func (s *Shower) idOf(row ledger.Message) string {
	return stub.NewKey(s.Account, row.Mailbox, row.UIDValidity, row.UID).MessageID()
}

// commit records a change.
func (s *Shower) commit(ctx context.Context, c journal.Change, step string) error {
	if err := s.Journal.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	s.Report.Step(step)
	return nil
}
