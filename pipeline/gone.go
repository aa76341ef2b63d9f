package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// leaveBehind closes the books of messages by whose UIDs the server can be asked no more, when all that
// came is recorded: those of mailboxes that it has no more, and those that were in a mailbox under another
// UIDVALIDITY. Of mail that it has as another message now, as here, the files go: it was moved there. What
// stays is said. Messages that are present under an older UIDVALIDITY are those whose books are open, also
// for a run that ends before it comes to this.
func (r *run) leaveBehind(ctx context.Context, o *overview) error {
	if r.PairOnly || r.pool == nil || r.pool.Ended() { // what came is not known
		return nil
	}
	isThere, err := r.isThere(ctx, o)
	if err != nil {
		return err
	}
	if err := r.leaveGone(ctx, o, isThere); err != nil {
		return err
	}
	return r.leaveRenumbered(ctx, o, isThere)
}

// leaveGone does that with mailboxes that the server has no more. A folder in which no mail is left goes.
func (r *run) leaveGone(ctx context.Context, o *overview, isThere func(ledger.Message) bool) error {
	for _, g := range slices.Concat(o.gone, r.goneAgain(o)) {
		moved, empty, open := 0, false, false
		if g.Apart == "" && !g.Unread {
			var err error
			if moved, empty, open, err = r.leaveOne(ctx, o, g, isThere); err != nil {
				return err
			}
		}
		switch {
		case open:
			continue // the next run knows
		case g.Again && moved == 0 && !empty: // as it was said
			if err := r.here.GoneAsBefore(ctx, g); err != nil {
				return err
			}
			continue
		}
		if err := r.here.SayGone(ctx, g, moved, empty); err != nil {
			return err
		}
	}
	return nil
}

// goneAgain gives those of them of which that was said before, and of whose mail some came now.
func (r *run) goneAgain(o *overview) (out []local.Gone) {
	from := make(map[string]bool)
	if r.DryRun {
		for _, m := range r.looking.LinkedFrom() {
			from[m.Mailbox] = true
		}
	}
	for i, v := range r.views(o, o.detached) {
		b := o.detached[i]
		said := slices.ContainsFunc(o.gone, func(g local.Gone) bool { return g.Name == b.Name })
		if !said && b.known.UIDValidity != 0 && !o.listed[b.Name] && (r.kept.Again(b.Name) || from[b.Name]) {
			out = append(out, local.Gone{View: v, Again: true})
		}
	}
	return out
}

// leaveOne does that with one. It gives how many files go, and whether the folder does. open: where some
// mail is that was moved out of it is not known yet.
func (r *run) leaveOne(ctx context.Context, o *overview, g local.Gone, isThere func(ledger.Message) bool) (moved int, empty, open bool, err error) {
	rows, err := r.Ledger.EveryValidity(ctx, g.Name)
	if err != nil {
		return 0, false, false, err
	}
	b := o.detached[slices.IndexFunc(o.detached, func(b *box) bool { return b.Name == g.Name })]
	f, err := r.fatesOf(ctx, o, b, rows, isThere)
	if err != nil {
		return 0, false, false, err
	}
	leaving := f.leaving
	files := make(map[string]bool)
	for _, it := range leaving {
		files[it.Row.Key] = true
	}
	moved = len(leaving)
	list, err := g.Dir.Scan()
	if err != nil {
		return 0, false, false, ignoreGone(err)
	}
	rest, err := list.Some(func(key string) bool { return !files[key] })
	if err != nil {
		return 0, false, false, err
	}
	// Of some nobody knows where they are: the list may lack the mailbox for a moment only.
	empty = len(rest)+len(f.open)+len(f.lost) == 0 && !g.Dir.Elsewhere()
	if r.DryRun {
		return moved, empty, len(f.open) > 0, nil
	}
	if leaving = append(leaving, f.placed...); empty {
		leaving = append(leaving, f.anew...)
	}
	gone, err := r.removeFiles(ctx, leaving)
	if err != nil {
		return 0, false, false, err
	}
	if stay := len(leaving) - len(gone); stay > 0 {
		moved, empty = moved-stay, false
	}
	if !empty {
		return moved, false, len(f.open) > 0, nil
	}
	return moved, true, false, removeFolder(g.Dir, r.Root)
}

// leaveRenumbered does it with messages of mailboxes that the server has, and of a UIDVALIDITY that they have
// no more. What is nowhere else stays in its folder.
func (r *run) leaveRenumbered(ctx context.Context, o *overview, isThere func(ledger.Message) bool) error {
	old, err := r.renumbered(ctx, o)
	if err != nil || len(old) == 0 {
		return err
	}
	for _, b := range slices.Concat(o.boxes, o.unselected) {
		if len(old[b.Name]) == 0 || b.barred {
			continue
		}
		f, err := r.fatesOf(ctx, o, b, old[b.Name], isThere)
		if err != nil {
			return err
		}
		moved := len(f.leaving)
		if !r.DryRun {
			leaving := slices.Concat(f.leaving, f.placed, f.anew)
			if r.knowsAll(o) {
				leaving = append(leaving, f.lost...) // both sides agree
			}
			gone, err := r.removeFiles(ctx, leaving)
			if err != nil {
				return err
			}
			moved -= len(leaving) - len(gone)
		}
		if err := r.keepHere(ctx, b, moved, f.staying, r.knowsAll(o)); err != nil {
			return err
		}
	}
	return nil
}

// keepHere says of so many messages of the UIDVALIDITY of before that they are where the server has them, and
// that others stay. whole: it has these nowhere.
func (r *run) keepHere(ctx context.Context, b *box, moved int, stay []ledger.Message, whole bool) error {
	text := ""
	if moved > 0 {
		text = "the server has " + mail.Number(moved, "message of before elsewhere, and so it is here", "messages of before elsewhere, and so they are here")
	}
	if !whole {
		stay = nil
	}
	if len(stay) > 0 {
		if text != "" {
			text += "; "
		}
		text += mail.Number(len(stay), "message is", "messages are") +
			" here and not on the server, as after a restored backup: the files stay in this folder; those that you move into another one are uploaded there"
	}
	if text != "" && r.DryRun {
		text = "would: " + text
	}
	if text != "" {
		r.rep.Note(b.Name, "%s", text)
	}
	if r.DryRun || len(stay) == 0 {
		return nil
	}
	for i := range stay {
		stay[i].State = ledger.Kept
	}
	return r.commit(ctx, journal.Change{Save: stay}, "unmatched messages kept")
}

// renumbered gives the messages of mailboxes whose UIDVALIDITY is over, and of which it is to be judged
// where their mail is.
func (r *run) renumbered(ctx context.Context, o *overview) (map[string][]ledger.Message, error) {
	if kept, err := r.kept.Any(ctx); err != nil || !kept && !r.matched {
		return nil, err
	}
	old, err := r.Ledger.Renumbered(ctx)
	if err != nil || !r.DryRun {
		return old, err
	}
	for _, b := range o.boxes {
		if b.matched != nil {
			old[b.Name] = b.unmatched
		}
	}
	kept, err := r.keptLinked(ctx)
	for _, m := range kept {
		old[m.Mailbox] = append(old[m.Mailbox], m)
	}
	return old, err
}

// keptLinked gives messages that were kept, and of whose mail a dry run finds that it would come.
func (r *run) keptLinked(ctx context.Context) (out []ledger.Message, err error) {
	for _, from := range r.looking.LinkedFrom() {
		rows, err := r.Ledger.Like(ctx, from)
		if err != nil {
			return nil, err
		}
		for _, m := range rows {
			said := slices.ContainsFunc(out, func(o ledger.Message) bool { return journal.About(o) == journal.About(m) })
			if m.State == ledger.Kept && !said && r.looking.Linked(m) {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// fates is what becomes of messages by whose UIDs the server can be asked no more.
type fates struct {
	leaving []*deliver.Item  // the server has their mail as other messages: their files go
	placed  []*deliver.Item  // likewise, and their files are gone
	anew    []*deliver.Item  // their files were moved, and are new mail where they are, since the server has it nowhere
	open    []*deliver.Item  // their files were moved, and where the server has their mail is not known yet
	lost    []*deliver.Item  // their files are gone, and nobody knows where
	staying []ledger.Message // they are here, and nowhere else
}

// fatesOf tells what becomes of messages of a mailbox.
func (r *run) fatesOf(ctx context.Context, o *overview, b *box, rows []ledger.Message, isThere func(ledger.Message) bool) (f fates, err error) {
	for _, row := range rows {
		again := r.DryRun && row.State == ledger.Kept && r.looking.Linked(row)
		if row.State != ledger.Present && !again || row.Key == "" {
			continue
		}
		_, here, err := b.dir.Locate(row.Key, row.Name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		it := &deliver.Item{Box: b.line, Op: deliver.OpGone, Row: row, Known: !here}
		strayed := !here && r.looking.Strayed(row)
		elsewhere, err := r.isElsewhere(ctx, row, b.dir, isThere)
		switch {
		case err != nil:
			return f, err
		case strayed && !r.looking.Came(row) && !r.knowsAll(o):
			f.open = append(f.open, it)
		case here && elsewhere:
			f.leaving = append(f.leaving, it)
			if r.DryRun && r.Plan {
				r.rep.Plan(deliver.Removal(it))
			}
		case elsewhere || strayed && r.looking.Came(row):
			f.placed = append(f.placed, it)
		case strayed:
			f.anew = append(f.anew, it)
		case !here:
			f.lost = append(f.lost, it)
		default:
			f.staying = append(f.staying, row)
		}
	}
	if r.DryRun {
		r.rep.Tally(func(rep *report.Report) { rep.Removed += len(f.leaving) })
	}
	return f, nil
}

// isThere gives what tells of messages of the ledger whether the server has them, in mailboxes that take
// part; in a dry run, whether it would be found to.
func (r *run) isThere(ctx context.Context, o *overview) (func(ledger.Message) bool, error) {
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	there := make(map[string]uint64, len(known)) // UIDVALIDITY
	for _, k := range known {
		if o.listed[k.Name] {
			there[k.Name] = k.UIDValidity
		}
	}
	for _, b := range o.boxes {
		if b.Status != nil && b.Status.UIDValidity != there[b.Name] {
			delete(there, b.Name) // it was not looked into
		}
	}
	return func(m ledger.Message) bool {
		if i := slices.IndexFunc(o.boxes, func(b *box) bool { return b.Name == m.Mailbox }); i >= 0 && r.DryRun && o.boxes[i].matched != nil {
			_, is := o.boxes[i].matched[m.UID]
			return is && m.UIDValidity == o.boxes[i].known.UIDValidity
		}
		validity, listed := there[m.Mailbox]
		return listed && m.UIDValidity == validity
	}, nil
}

// isElsewhere tells whether the mail of a message, with the text of its file, is that of another message which
// the server has, and whose file is here; in a dry run, whether it would be.
func (r *run) isElsewhere(ctx context.Context, row ledger.Message, dir maildir.Dir, isThere func(ledger.Message) bool) (bool, error) {
	if row.ID == "" || row.Digest.IsZero() {
		return false, nil
	}
	is := r.DryRun && r.looking.Linked(row)
	if !is {
		copies, err := r.Ledger.Like(ctx, row)
		if err != nil {
			return false, err
		}
		for _, c := range copies {
			if !isThere(c) || c.State != ledger.Present || c.Key == "" || journal.About(c) == journal.About(row) || plan.Weigh(plan.Agreed(&row), plan.Agreed(&c)).Text != plan.Equal {
				continue
			}
			if _, is, err = r.here.FileOf(ctx, c); err != nil {
				return false, err
			}
			if is {
				break
			}
		}
	}
	name, here, err := dir.Locate(row.Key, row.Name)
	if err != nil || !is || !here {
		return is, ignoreGone(err)
	}
	digest, err := maildir.Digest(dir.Path(name))
	return err == nil && digest == row.Digest, ignoreGone(err) // or its owner has another text in its place
}

// removeFolder takes a folder away in which no mail is left, and those above it that were there for it.
func removeFolder(dir maildir.Dir, root string) error {
	if err := dir.RemoveEmpty(); err != nil {
		return err
	}
	for up := filepath.Dir(string(dir)); strings.HasPrefix(up, root+"/") && os.Remove(up) == nil; {
		up = filepath.Dir(up)
	}
	return nil
}
