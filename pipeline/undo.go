package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
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
	Before  []mail.Logged // what they did is not so any more
	notes   []journal.Undoing
}

// Interrupted tells whether an earlier run has left something for a sync to end, before anything is
// undone. undo: what it left is an undo, here, or of which the server is yet to hear.
func Interrupted(ctx context.Context, l *ledger.Ledger) (some, undo bool, err error) {
	if some, err = unended(ctx, l); err != nil {
		return false, false, err
	}
	_, undo, err = journal.Of(l).Undone.Get(ctx)
	return some || undo, undo, err
}

// PlanUndo looks what is to be done so that nothing of the lines is done any more, the oldest of them
// first. It changes nothing.
func PlanUndo(ctx context.Context, o Options, lines []mail.Logged) (p UndoPlan, err error) {
	r := newRun(o.withDefaults())
	u := plan.Undoing{Lines: lines, Here: make(map[string][]plan.Here), Kept: make(map[int64]plan.Kept), Mailboxes: make(map[string]bool)}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return p, err
	}
	for name, b := range boxes {
		u.Mailboxes[name] = b.dir.Exists()
	}
	for _, line := range lines {
		if b := boxes[line.Mailbox]; b != nil && line.Kind == mail.ActRemove && line.Attic {
			k, err := r.keptOf(b, line)
			if err != nil {
				return p, err
			}
			if k.Path != "" {
				u.Kept[line.Number] = k
			}
		}
	}
	for _, line := range lines {
		if line.ID == "" {
			continue
		}
		like := ledger.Message{ID: line.ID, Digest: u.Kept[line.Number].Digest}
		if like.Digest.IsZero() {
			_, _ = hex.Decode(like.Digest[:], []byte(line.Digest)) // of one that cannot be read the id is left
		}
		here, err := r.mayBe(ctx, boxes, like)
		if err != nil {
			return p, err
		}
		for _, h := range here {
			if !slices.ContainsFunc(u.Here[line.ID], func(o plan.Here) bool { return journal.About(o.Row) == journal.About(h.Row) }) {
				u.Here[line.ID] = append(u.Here[line.ID], h)
			}
		}
	}
	if err := r.withTags(ctx, u.Here); err != nil {
		return p, err
	}
	undos := r.Undo(&u)
	p.Stays, p.Before = undos.Stays, undos.Before
	for i := range undos.Edits {
		n := r.undoing(&undos.Edits[i])
		p.notes, p.Actions = append(p.notes, n), append(p.Actions, n.Action())
	}
	return p, nil
}

// keptOf gives what the attic has of a mail that was removed.
func (r *run) keptOf(b *box, line mail.Logged) (k plan.Kept, err error) {
	if k.Path, err = r.inAttic(b, line.Key, line); err != nil || k.Path == "" {
		return k, err
	}
	if k.Digest, err = maildir.Digest(k.Path); err != nil {
		return k, err
	}
	h, err := maildir.ReadHeader(k.Path)
	k.Empty = len(h) == 0
	return k, err
}

// inAttic gives the path of a file that was removed from a mailbox's folder at a time; "" if it is not
// there any more.
func (r *run) inAttic(b *box, key string, removed mail.Logged) (string, error) {
	folder, err := filepath.Rel(r.Root, string(b.dir))
	if err != nil {
		return "", err
	}
	return r.attic.Find(folder, key, removed.At)
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

// undoing is the note of what is to be done with a mail.
func (r *run) undoing(e *plan.Undo) journal.Undoing {
	n := journal.Undoing{
		Mailbox: e.Row.Mailbox, UIDValidity: e.Row.UIDValidity, UID: e.Row.UID, Key: e.Row.Key, ID: e.Row.ID,
		Digest: journal.ActionOf("", e.Row).Digest, To: e.To, Before: e.Remove, After: e.Add,
	}
	var of []string
	for _, line := range e.Of {
		of = append(of, strconv.FormatInt(line.Number, 10))
		if n.From+n.Subject == "" {
			n.From, n.Subject = line.From, line.Subject
		}
	}
	n.Why = "you undid " + strings.Join(of, " and ")
	if e.Kept.Path != "" {
		n.Kept, _ = maildir.ParseName(filepath.Base(e.Kept.Path))
		n.KeptAt, n.Key, n.Flags, n.Tags = e.Of[0].At, r.keys.New(r.Now()), e.Flags, e.Tags
		n.After = e.Flags
		return n
	}
	flags := r.AsNamed(e.Row.Flags, e.Name)
	n.Add, n.Remove, n.Set, n.Clear = r.FromFlags(flags, e.Merged(flags))
	if e.To != "" { // it is not to be deleted again
		if _, letters := maildir.ParseName(e.Name); strings.Contains(letters, "T") {
			n.Clear += "T"
		}
		if slices.Contains(e.Here.Tags, r.DeletedTag) {
			n.Remove = append(n.Remove, r.DeletedTag)
		}
	}
	if e.Tags == nil {
		return n
	}
	for _, tag := range e.Here.Tags {
		if !slices.Contains(e.Tags, tag) && !plan.OfFlag(tag) && !slices.Contains(n.Remove, tag) {
			n.Remove = append(n.Remove, tag)
		}
	}
	for _, tag := range e.Tags {
		if !slices.Contains(e.Here.Tags, tag) && !slices.Contains(n.Add, tag) {
			n.Add = append(n.Add, tag)
		}
	}
	return n
}

// Undo does what was planned, here: files get the letters that they had, and go back to where they
// were, and notmuch is told. It does it as its owner would, so that a sync takes it to the server, with
// all that it does to see that no mistake is made. All of it is noted before: what a kill, or a full disk,
// leaves of it any later run does first. What is not as it was planned by now is left, and left says why.
func Undo(ctx context.Context, o Options, p UndoPlan) (left []string, err error) {
	r := newRun(o.withDefaults())
	there, err := r.targets(ctx, p.notes)
	if err != nil {
		return nil, err
	}
	var c journal.Change
	for i := range p.notes {
		n := &p.notes[i]
		if to := n.Target(); to != "" && !there[to] {
			a := n.Action()
			left = append(left, a.Plan()+": there is no mailbox "+to+" on the server any more")
			continue
		}
		r.notes().Undoing.Put(&c, journal.AboutFile(n.Mailbox, n.Key), *n)
		c.Begin(n.Action())
	}
	if c.Empty() {
		return left, nil
	}
	r.notes().Undone.Put(&c, journal.Moment{Time: r.Now()})
	if err := r.commit(ctx, c, "undo noted"); err != nil {
		return left, err
	}
	more, later, err := r.carryOut(ctx)
	if err == nil {
		err = later
	}
	return append(left, more...), err
}

// targets gives the mailboxes to which mail is to go, of those that the server has.
func (r *run) targets(ctx context.Context, notes []journal.Undoing) (there map[string]bool, err error) {
	if !slices.ContainsFunc(notes, func(n journal.Undoing) bool { return n.Target() != "" }) {
		return nil, nil
	}
	s, err := r.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ignore(s.Close())) }()
	list, err := s.List(ctx, mail.Listing{Skip: func(mail.Mailbox) bool { return true }})
	there = make(map[string]bool)
	for _, m := range list {
		there[m.Name] = m.Selectable()
	}
	return there, err
}

// endUndo does what an interrupted undo was about to do here.
func (r *run) endUndo(ctx context.Context) error {
	left, later, err := r.carryOut(ctx)
	for _, text := range left {
		r.rep.Note("", "not undone, by the undo that was interrupted: %s", text)
	}
	if later != nil {
		r.rep.Fault(report.Failure{Scope: report.ScopeMailbox, Text: later.Error(), Err: &report.OwnError{Err: later}})
	}
	return err
}

// undoTold forgets that the server is yet to hear of an undo, when all was looked into, and nothing of it
// is left to be done here.
func (r *run) undoTold(ctx context.Context) error {
	if r.DryRun || len(r.Only) > 0 {
		return nil
	}
	if left, err := r.notes().Undoing.All(ctx); err != nil || len(left) > 0 {
		return err
	}
	return r.notes().Undone.Drop(ctx)
}

// carryOut does what is noted to be undone. What cannot be done any more is left; what this machine
// could not do now keeps its note, and later says why.
func (r *run) carryOut(ctx context.Context) (left []string, later, err error) {
	all, err := r.notes().Undoing.All(ctx)
	if err != nil || len(all) == 0 {
		return nil, nil, err
	}
	boxes, err := r.knownBoxes(ctx)
	if err != nil {
		return nil, nil, err
	}
	for part := range slices.Chunk(slices.Sorted(maps.Keys(all)), deliver.BatchSize) {
		if err := ctx.Err(); err != nil {
			return left, later, err
		}
		b := putting{run: r, boxes: boxes, dirs: make(map[maildir.Dir]bool)}
		for _, about := range part {
			b.files = append(b.files, &putBack{Undoing: all[about], about: about})
		}
		if err := b.do(ctx); err != nil {
			return left, later, err
		}
		for _, f := range b.files {
			if a := f.Action(); f.left != nil {
				left = append(left, a.Plan()+": "+f.left.Error())
			} else if later == nil && f.later != nil {
				later = fmt.Errorf("what is undone could not be done here to the end (%w); the next sync does the rest", f.later)
			}
		}
	}
	return left, later, nil
}

// putBack is what is done with the file of a mail.
type putBack struct {
	journal.Undoing
	about string // its note
	name  string // of its file in the folder that it is in now
	moved bool   // that is the one that it goes to
	left  error  // why it cannot be done
	later error  // why it cannot be done now
}

// open tells whether it goes on.
func (f *putBack) open() bool { return f.left == nil && f.later == nil }

// fails sets why it cannot be done: now, if it is for a fault of this machine.
func (f *putBack) fails(err error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		f.left = err
	} else {
		f.later = err
	}
}

// errMeanwhile says of a mail that it is not where it was.
var errMeanwhile = errors.New("its file was moved or deleted meanwhile")

// putting is what goes into one commit of notmuch's database.
type putting struct {
	*run
	boxes map[string]*box
	dirs  map[maildir.Dir]bool // whose names are to last
	files []*putBack
}

func (b *putting) do(ctx context.Context) error {
	if err := b.find(); err != nil {
		return err
	}
	// Tags and letters come first, where notmuch knows the file.
	if err := b.turnBack(ctx); err != nil {
		return err
	}
	for _, f := range b.files {
		if f.open() && !f.moved && f.Target() != "" {
			b.move(f)
		}
	}
	for d := range b.dirs {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	if err := b.tell(ctx); err != nil {
		return err
	}
	var c journal.Change
	for _, f := range b.files {
		if f.later != nil {
			continue
		}
		b.notes().Undoing.Forget(&c, f.about)
		if f.left != nil {
			c.Became(mail.IsUndone, f.left.Error(), f.Action())
		} else {
			c.Became(mail.IsDone, "", f.Action())
		}
	}
	if c.Empty() {
		return nil
	}
	return b.commit(ctx, c, "undone")
}

// find finds the files where they are.
func (b *putting) find() error {
	for _, f := range b.files {
		at, to := b.boxes[f.Mailbox], b.boxes[f.Target()]
		if at == nil || to == nil && f.Target() != "" {
			f.left = errors.New("there is no such mailbox any more")
			continue
		}
		look := func(at *box) (ok bool, err error) {
			if f.name, ok, err = at.dir.Locate(f.Key, ""); err != nil {
				err = fmt.Errorf("%s: %w", at.Name, err)
			}
			return ok, err
		}
		if f.Kept == "" {
			if ok, err := look(at); err != nil || ok {
				if err != nil {
					return err
				}
				continue
			}
		}
		if to != nil {
			ok, err := look(to)
			if err != nil {
				return err
			}
			if f.moved = ok; ok || f.Kept != "" {
				continue
			}
		}
		f.left = errMeanwhile
	}
	return nil
}

// turnBack gives mails that are where they were the tags and letters that they had.
func (b *putting) turnBack(ctx context.Context) error {
	var changes []mail.Change
	var of []*putBack
	for _, f := range b.files {
		if f.open() && f.Kept == "" && !f.moved && len(f.Add)+len(f.Remove)+len(f.Set)+len(f.Clear) > 0 {
			changes = append(changes, mail.Change{Op: mail.OpFlag, Path: b.boxes[f.Mailbox].path(f.name), ID: f.ID, Add: f.Add, Remove: f.Remove, Set: f.Set, Clear: f.Clear})
			of = append(of, f)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	results, err := b.Index.Apply(ctx, changes)
	if err != nil {
		return err
	}
	b.rep.Step("tags turned back")
	for i, res := range results {
		f := of[i]
		if res.Err != nil {
			f.fails(res.Err)
		} else if name, err := filepath.Rel(string(b.boxes[f.Mailbox].dir), res.Path); err == nil && res.Path != "" {
			f.name = name
		}
	}
	return nil
}

// move puts the file of a mail into the folder that it goes to.
func (b *putting) move(f *putBack) {
	at, to := b.boxes[f.Mailbox], b.boxes[f.Target()]
	from := at.path(f.name)
	if f.Kept != "" {
		var err error
		if from, err = b.inAttic(at, f.Kept, mail.Logged{At: f.KeptAt}); err != nil {
			f.later = err
			return
		}
		if from == "" {
			f.left = errors.New("its file is not in the attic any more")
			return
		}
		f.name = maildir.FileName(f.Key, plan.Letters(f.Flags))
	}
	if err := maildir.Move(from, to.path(f.name)); err != nil {
		f.fails(err)
		return
	}
	f.moved = true
	b.dirs[to.dir] = true
	if f.Kept == "" {
		b.dirs[at.dir] = true
	}
	b.rep.Step("file put back")
}

// tell tells notmuch where the files are that were moved.
func (b *putting) tell(ctx context.Context) error {
	var changes []mail.Change
	var of []*putBack
	for _, f := range b.files {
		if !f.open() || !f.moved {
			continue
		}
		c := mail.Change{Op: mail.OpAdd, Path: b.boxes[f.Target()].path(f.name), ID: f.ID, New: b.NewTags}
		if f.Kept != "" {
			c.New = append([]string{"unread"}, f.Tags...)
			c.Add, c.Remove = b.InitialTags(f.Flags, nil, nil)
		}
		changes, of = append(changes, c), append(of, f)
	}
	if len(changes) == 0 {
		return nil
	}
	results, err := b.Index.Apply(ctx, changes)
	if err != nil {
		return err
	}
	var known []*putBack
	var gone []mail.Change
	for i, res := range results {
		f := of[i]
		switch err := res.Undone(); {
		case err != nil:
			f.later = fmt.Errorf("notmuch could not be told of %s: %w", changes[i].Path, err)
		case f.Kept == "":
			gone = append(gone, mail.Change{Op: mail.OpRemove, Path: b.boxes[f.Mailbox].path(f.name), ID: f.ID})
		case res.Duplicate:
			if name, err := filepath.Rel(string(b.boxes[f.Mailbox].dir), res.Path); err == nil && res.Path != "" {
				f.name = name // its tags may have given it another one
			}
			known = append(known, f)
		}
	}
	if err := b.tagKnown(ctx, known); err != nil {
		return err
	}
	if err := b.line.Tell(ctx, gone); err != nil {
		return err
	}
	b.rep.Step("places turned back")
	return nil
}

// tagKnown gives what came from the attic its tags where `notmuch new` has found it meanwhile, or this
// is done again: with no other file notmuch knows the mail by this one alone.
func (b *putting) tagKnown(ctx context.Context, files []*putBack) error {
	if len(files) == 0 {
		return nil
	}
	var ids []string
	for _, f := range files {
		ids = append(ids, f.ID)
	}
	known, err := b.Index.Messages(ctx, ids, b.Root)
	if err != nil {
		return err
	}
	var changes []mail.Change
	for _, f := range files {
		path := b.boxes[f.Mailbox].path(f.name)
		if m := known[f.ID]; len(m.Others) == 0 && len(m.Paths) == 1 && m.Paths[0] == path {
			c := mail.Change{Op: mail.OpFlag, Path: path, ID: f.ID, Add: f.Tags}
			for _, tag := range b.NewTags {
				if !slices.Contains(f.Tags, tag) && !plan.OfFlag(tag) {
					c.Remove = append(c.Remove, tag)
				}
			}
			changes = append(changes, c)
		}
	}
	return b.line.Tell(ctx, changes)
}
