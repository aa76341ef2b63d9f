// Package resume ends what an interrupted run has left, before anything is compared: messages
// that were about to come, flags that were about to change here, mail that was linked into
// another folder, moves by tags, and what notmuch was yet to be told. What a push has left the
// push ends.
package resume

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

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
	Get(ctx context.Context, mailbox string, uidValidity uint64, uid imap.UID) (ledger.Message, bool, error)
	GetMany(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) ([]ledger.Message, error)
	Save(ctx context.Context, rows ...ledger.Message) error
	Delete(ctx context.Context, mailbox string, uidValidity uint64, uids ...imap.UID) error
}

// Here finds files that no row has.
type Here interface {
	Unrecorded(ctx context.Context) (*plan.Unrecorded, error)
}

// Connection is one by which the server is asked.
type Connection interface {
	// StillThere tells which messages a mailbox still has.
	StillThere(ctx context.Context, mailbox string, uidValidity uint64, uids []imap.UID) (imap.UIDSet, error)
}

// Mailbox is one that the ledger knows.
type Mailbox struct {
	*deliver.Mailbox
	Known       ledger.Mailbox
	Add, Remove []string // tags by rule
}

// Options is what resuming needs of a run.
type Options struct {
	Line    *deliver.Line
	Ledger  Ledger
	Journal *journal.Journal
	Ruled   *journal.RuledMoves
	Old     *journal.OldTags
	Here    Here
	Report  *report.Reporter
	Tags    *plan.Tags
	Trash   string // as it is configured; "" finds it
	Restore bool   // where the folders differ from what was agreed, the server is right
	DryRun  bool   // nothing is changed

	// Boxes gives all mailboxes that the ledger knows, by name.
	Boxes func(context.Context) (map[string]*Mailbox, error)
	// RemoveTwins removes the other files of messages that leave a mailbox.
	RemoveTwins func(ctx context.Context, items ...*deliver.Item) error
	// InNotmuch gives those of the messages with these ids that notmuch knows, by id.
	InNotmuch func(ctx context.Context, ids []string) (map[string]mail.Tagged, error)
	// RestoreTags gives a mail that comes, and that was removed here before, the tags that it
	// had.
	RestoreTags func(ctx context.Context, b *Mailbox, trash string, it *deliver.Item) error
}

// Resumer ends what an interrupted run has left. It belongs to one goroutine.
type Resumer struct{ Options }

// New gives the one of a run.
func New(o Options) *Resumer { return &Resumer{o} }

// Messages finishes what an interrupted run intended: a file that reached its
// name is indexed and recorded, an intent without a file is withdrawn, so that
// the message is asked for again.
func (r *Resumer) Messages(ctx context.Context) error {
	intended, err := r.Ledger.InState(ctx, ledger.Intended)
	if err != nil || len(intended) == 0 {
		return err
	}
	boxes, err := r.Boxes(ctx)
	if err != nil {
		return err
	}
	links, err := r.Journal.Linked.All(ctx)
	if err != nil {
		return err
	}
	arriving, err := r.Journal.Arriving.All(ctx)
	if err != nil {
		return err
	}
	var list []mail.Mailbox
	for _, name := range slices.Sorted(maps.Keys(boxes)) {
		list = append(list, mail.Mailbox{Name: name, Delim: boxes[name].Known.Delim})
	}
	trash := mail.TrashOf(r.Trash, list) // as far as it is known without the server
	var unrecorded *plan.Unrecorded
	var moved []ledger.Message
	files := make(map[*Mailbox]*maildir.Listing)
	var items []*deliver.Item
	withdrawn := make(map[*Mailbox][]ledger.Message)
	for _, row := range intended {
		b := boxes[row.Mailbox]
		if b == nil {
			continue
		}
		if files[b] == nil {
			if files[b], err = b.Dir.Scan(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		it := &deliver.Item{Box: b.Mailbox, Row: row, Known: true, Resumed: true}
		if l, linked := links[row.Key]; linked {
			it.Linked, it.Source = true, l.Mailbox
		}
		_, it.Ours = arriving[row.Key]
		it.Paired = row.Key != "" && !it.Ours && !maildir.Ours(row.Key)
		by := plan.AsNew
		if l, linked := links[row.Key]; linked && l.ByTags {
			by = plan.ByTags
		} else if linked {
			by = plan.ByOther
		}
		it.Add, it.Remove = r.Tags.Arriving(b.Name, trash, row.Flags, b.Add, b.Remove, by)
		if it.Beside = deliver.BesideRecorded; by != plan.AsNew {
			it.Beside = deliver.BesideNone
		}
		name, here := find(files[b], row.Key)
		placeholder, stubHere := find(files[b], row.StubKey)
		switch {
		case here && row.StubKey != "":
			it.Op, it.Row.Name, it.Row.StubName, it.Orders = deliver.OpReplace, name, placeholder, r.Tags.Orders
		case here:
			it.Op, it.Row.Name = deliver.OpAdd, name
			if err := r.RestoreTags(ctx, b, trash, it); err != nil {
				return err
			}
		case stubHere && row.Key == "":
			it.Add, it.Remove = r.Tags.InitialTags(row.Flags, b.Add, b.Remove)
			it.Op, it.Row.StubName = deliver.OpStub, placeholder
			tag := stub.LabelFailed
			if stoodBy(row) == ledger.Skipped {
				it.Op, tag = deliver.OpPlaceholder, stub.LabelSkipped
			}
			it.Add = append(it.Add, tag)
		case stubHere:
			// The real mail did not get there: the stub stands as before.
			row.State, row.Key, row.Name, row.StubName = stoodBy(row), "", "", placeholder
			if err := r.Ledger.Save(ctx, row); err != nil {
				return err
			}
			r.Report.Step("stub stands again")
			continue
		default:
			// Its user may have moved it on.
			if unrecorded == nil {
				if unrecorded, err = r.Here.Unrecorded(ctx); err != nil {
					return err
				}
			}
			if at, ok := unrecorded.Take(row); ok {
				row.State, row.ID = ledger.Present, cmp.Or(row.ID, at.ID)
				moved = append(moved, row)
				continue
			}
			withdrawn[b] = append(withdrawn[b], row)
			continue
		}
		items = append(items, it)
	}
	for b, rows := range withdrawn {
		byValidity := make(map[uint64][]imap.UID)
		for _, row := range rows {
			byValidity[row.UIDValidity] = append(byValidity[row.UIDValidity], row.UID)
		}
		for v, uids := range byValidity {
			if err := r.Ledger.Delete(ctx, b.Name, v, uids...); err != nil {
				return err
			}
			r.Report.Step("intents withdrawn")
		}
	}
	if len(moved) > 0 {
		if err := r.commit(ctx, journal.Change{Save: moved}, "moved files found"); err != nil {
			return err
		}
	}
	if err := r.Line.TagAgain(ctx, items); err != nil {
		return err
	}
	// A long text takes notmuch minutes: it is to keep none waiting, in no commit either.
	long := func(it *deliver.Item) bool { return it.Row.Size >= plan.Large }
	slices.SortStableFunc(items, func(a, b *deliver.Item) int {
		if !long(a) && !long(b) {
			return 0
		}
		return cmp.Compare(a.Row.Size, b.Row.Size)
	})
	for len(items) > 0 {
		n := min(len(items), deliver.BatchSize)
		if at := slices.IndexFunc(items[:n], long); at >= 0 {
			n = max(at, 1)
		}
		if err := r.Line.Record(ctx, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// Flags makes the changes of flags again that were under way. Of those of which notmuch knows
// the file by its new name, only the record was missing: what the name is by now is its user's
// doing.
func (r *Resumer) Flags(ctx context.Context) error {
	intents, ok, err := r.Journal.Flags.Get(ctx)
	if err != nil || !ok {
		return err
	}
	boxes, err := r.Boxes(ctx)
	if err != nil {
		return err
	}
	var items []*deliver.Item
	for _, f := range intents {
		row, ok, err := r.Ledger.Get(ctx, f.Mailbox, f.UIDValidity, f.UID)
		if err != nil {
			return err
		}
		if b := boxes[f.Mailbox]; b != nil && ok && !row.Fileless() && !plan.SameFlags(row.Flags, f.Flags) {
			items = append(items, b.Flagging(row, f.Flags, r.Tags))
		}
	}
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.Row.ID
	}
	known, err := r.InNotmuch(ctx, ids)
	if err != nil {
		return err
	}
	var made journal.Change
	items = slices.DeleteFunc(items, func(it *deliver.Item) bool {
		is := renamed(known[it.Row.ID], it)
		if is {
			made.Save = append(made.Save, it.Row)
			a := journal.ActionOf(mail.ActFlag, it.Row)
			a.Before, a.After, a.Why = it.Was, it.Row.Flags, "they were changed on the server"
			made.Did(a)
		}
		return is
	})
	if !made.Empty() {
		if err := r.commit(ctx, made, "changed flags found"); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return r.Journal.Flags.Drop(ctx)
	}
	return r.Line.Record(ctx, items)
}

// renamed tells whether notmuch has a file under the name that a change of flags gives it.
func renamed(t mail.Tagged, it *deliver.Item) bool {
	if it.Set+it.Clear == "" {
		return false
	}
	return slices.ContainsFunc(t.Paths, func(path string) bool {
		key, letters := maildir.ParseName(path)
		missing := func(l rune) bool { return !strings.ContainsRune(letters, l) }
		return key == it.Row.Key && strings.HasPrefix(path, string(it.Box.Dir)+"/") &&
			!strings.ContainsFunc(it.Set, missing) && !strings.ContainsAny(letters, it.Clear)
	})
}

func find(l *maildir.Listing, key string) (string, bool) {
	if l == nil || key == "" {
		return "", false
	}
	return l.Find(key)
}

// stoodBy is what a row with a stub was before its mail was asked for: what a
// hook skipped was never asked for.
func stoodBy(row ledger.Message) ledger.State {
	if row.Attempts == 0 {
		return ledger.Skipped
	}
	return ledger.Stub
}

// commit records a change, also when the run is told to end in this moment.
func (r *Resumer) commit(ctx context.Context, c journal.Change, step string) error {
	if err := r.Journal.Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	r.Report.Step(step)
	return nil
}
