package pipeline

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// UndoPlan is what would be done here to undo what the log has, and what of that cannot be undone.
type UndoPlan struct {
	Actions []mail.Action
	Stays   []plan.NotUndone
	edits   []plan.Undo
}

// Undone is what became of a plan.
type Undone struct {
	Done int
	Left []string // what was not done, and why
}

// PlanUndo looks what is to be done so that nothing of the lines is done any more, the oldest of them
// first. It changes nothing.
func PlanUndo(ctx context.Context, o Options, lines []mail.Logged) (p UndoPlan, err error) {
	r := newRun(o.withDefaults())
	u := plan.Undoing{Lines: lines, Here: make(map[string][]plan.Here), Kept: make(map[int64]plan.Kept), Mailboxes: make(map[string]bool), NoAttic: o.AtticDays <= 0}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return p, err
	}
	for name, b := range boxes {
		u.Mailboxes[name] = b.dir.Exists()
	}
	texts := make(map[string]mail.Digest) // as far as they are known, by the lines' ids
	for _, line := range lines {
		b := boxes[line.Mailbox]
		if b == nil || line.Kind != mail.ActRemove || !line.Attic {
			continue
		}
		folder, err := filepath.Rel(o.Root, string(b.dir))
		if err != nil {
			return p, err
		}
		path, err := o.attic().Find(folder, line.Key, line.At)
		if err != nil {
			return p, err
		}
		if path == "" {
			continue
		}
		k := plan.Kept{Path: path}
		if k.Digest, err = maildir.Digest(path); err != nil {
			return p, err
		}
		u.Kept[line.Number] = k
		texts[line.ID] = k.Digest
	}
	for _, line := range lines {
		if _, met := u.Here[line.ID]; met || line.ID == "" {
			continue
		}
		if u.Here[line.ID], err = r.mayBe(ctx, boxes, ledger.Message{ID: line.ID, Digest: texts[line.ID]}); err != nil {
			return p, err
		}
	}
	if err := r.withTags(ctx, u.Here); err != nil {
		return p, err
	}
	p.edits, p.Stays = o.Undo(&u)
	for i := range p.edits {
		p.Actions = append(p.Actions, p.edits[i].Action())
	}
	return p, nil
}

// mayBe gives the messages that are recorded, and may be a mail of the log.
func (r *run) mayBe(ctx context.Context, boxes map[string]*box, m ledger.Message) (here []plan.Here, err error) {
	rows, err := r.Ledger.Like(ctx, m)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		b := boxes[row.Mailbox]
		if b == nil || row.State != ledger.Present || row.Key == "" || row.UIDValidity != b.uidValidity {
			continue
		}
		name, ok, err := b.dir.Locate(row.Key, row.Name)
		if err != nil {
			return nil, err
		}
		h := plan.Here{Row: row}
		if ok {
			h.Name = name
		}
		here = append(here, h)
	}
	return here, nil
}

// withTags adds to messages what notmuch has of them.
func (r *run) withTags(ctx context.Context, all map[string][]plan.Here) error {
	var ids []string
	for _, here := range all {
		for _, h := range here {
			ids = append(ids, h.Row.ID)
		}
	}
	slices.Sort(ids)
	tagged, err := r.Index.Messages(ctx, slices.Compact(ids), r.Root)
	if err != nil {
		return err
	}
	for _, here := range all {
		for i := range here {
			here[i].Tags = tagged[here[i].Row.ID].Tags
		}
	}
	return nil
}

// Undo does what was planned, here: files get the letters that they had, and go back to where they
// were, and notmuch is told. It does it as its owner would, so that a sync takes it to the server, with
// all that it does to see that no mistake is made. What is not as it was planned by now is left.
func Undo(ctx context.Context, o Options, p UndoPlan) (out Undone, err error) {
	r := newRun(o.withDefaults())
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return out, err
	}
	for part := range slices.Chunk(p.edits, deliver.BatchSize) {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if err := r.undoSome(ctx, boxes, part, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// undoSome is Undo of what goes into one commit of notmuch's database.
func (r *run) undoSome(ctx context.Context, boxes map[string]*box, edits []plan.Undo, out *Undone) error {
	left := make(map[int]bool)
	leave := func(i int, err error) {
		left[i] = true
		a := edits[i].Action()
		out.Left = append(out.Left, a.Plan()+": "+err.Error())
	}
	// Tags and letters come first, where notmuch knows the file.
	var changes []mail.Change
	var of []int
	for i := range edits {
		if e := &edits[i]; e.Kept == "" && !e.Away {
			if c := r.retagging(boxes[e.Row.Mailbox], e); len(c.Add)+len(c.Remove) > 0 || c.Set+c.Clear != "" {
				changes, of = append(changes, c), append(of, i)
			}
		}
	}
	if len(changes) > 0 {
		results, err := r.Index.Apply(ctx, changes)
		if err != nil {
			return err
		}
		r.rep.Step("tags turned back")
		for j, res := range results {
			e := &edits[of[j]]
			if res.Err != nil {
				leave(of[j], res.Err)
			} else if name, err := filepath.Rel(string(boxes[e.Row.Mailbox].dir), res.Path); err == nil {
				e.Name = name
			}
		}
	}
	changes = nil
	dirs := make(map[maildir.Dir]bool)
	var c journal.Change
	for i := range edits {
		if left[i] {
			continue
		}
		told, err := r.putBack(boxes, &edits[i], dirs)
		switch {
		case err == nil:
			changes = append(changes, told...)
			c.Did(edits[i].Action())
			out.Done++
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), report.ScopeOf(err, report.AtMailbox) == report.ScopeMailbox:
			leave(i, err)
		default:
			return err
		}
	}
	for d := range dirs {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	if err := r.line.Tell(ctx, changes); err != nil {
		return err
	}
	r.rep.Step("places turned back")
	if c.Empty() {
		return nil
	}
	return r.commit(ctx, c, "undone")
}

// retagging is what notmuch is told of a mail's flags and tags, as they were.
func (r *run) retagging(b *box, e *plan.Undo) mail.Change {
	c := mail.Change{Op: mail.OpFlag, Path: b.path(e.Name), ID: e.Row.ID}
	flags := r.AsNamed(e.Row.Flags, e.Name)
	c.Add, c.Remove, c.Set, c.Clear = r.FromFlags(flags, e.Merged(flags))
	if e.To == "" {
		return c
	}
	// It is not to be deleted again.
	if _, letters := maildir.ParseName(e.Name); strings.Contains(letters, "T") {
		c.Clear += "T"
	}
	for _, tag := range e.Here.Tags {
		if tag == r.DeletedTag || e.Tags != nil && !slices.Contains(e.Tags, tag) && !plan.OfFlag(tag) {
			c.Remove = append(c.Remove, tag)
		}
	}
	for _, tag := range e.Tags {
		if !slices.Contains(e.Here.Tags, tag) && !slices.Contains(c.Add, tag) {
			c.Add = append(c.Add, tag)
		}
	}
	return c
}

// putBack puts the file of a mail where it was, and gives what notmuch is to hear of that.
func (r *run) putBack(boxes map[string]*box, e *plan.Undo, dirs map[maildir.Dir]bool) ([]mail.Change, error) {
	b := boxes[e.Row.Mailbox]
	switch {
	case e.Away:
		// The next sync tells notmuch, as of any file that is gone.
		return nil, lineAttic{r, r.attic()}.Keep(b.dir, e.Name)
	case e.Kept != "":
		e.Row.Key = r.keys.New(r.Now())
		name := maildir.FileName(e.Row.Key, plan.Letters(e.Flags))
		if err := maildir.Move(e.Kept, b.path(name)); err != nil {
			return nil, err
		}
		dirs[b.dir] = true
		c := mail.Change{Op: mail.OpAdd, Path: b.path(name), ID: e.Row.ID, New: append([]string{"unread"}, e.Tags...)}
		c.Add, c.Remove = r.InitialTags(e.Flags, nil, nil)
		return []mail.Change{c}, nil
	case e.To != "":
		to := boxes[e.To]
		if err := maildir.Move(b.path(e.Name), to.path(e.Name)); err != nil {
			return nil, err
		}
		dirs[b.dir], dirs[to.dir] = true, true
		return []mail.Change{
			{Op: mail.OpAdd, Path: to.path(e.Name), ID: e.Row.ID, New: r.NewTags},
			{Op: mail.OpRemove, Path: b.path(e.Name), ID: e.Row.ID},
		}, nil
	}
	return nil, nil
}
