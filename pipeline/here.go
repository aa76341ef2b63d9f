package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// viewHere gives the mailboxes that take part, with what is here of them.
func (r *run) viewHere(ctx context.Context, s Lister, there *listing) (*overview, error) {
	rows, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	o, err := r.survey(ctx, there, rows)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(o.boxes, o.unselected)
	for _, b := range all {
		if err := r.scanBox(ctx, b); err != nil {
			return nil, err
		}
	}
	for _, b := range o.boxes {
		if o.isUnsettled(b) {
			b.local.Local, b.local.Scanned, b.local.Unread = plan.Local{}, "", true
		}
	}
	r.prescan.Discard()
	followed, err := r.followTags(ctx, all, r.views(o, all), o.trash)
	if err != nil {
		return nil, err
	}
	still, err := r.here.ScanAgain(ctx, r.views(o, all))
	if err != nil {
		return nil, err
	}
	r.sayUnreadable(all)
	if err := r.tellNames(ctx, o, all); err != nil {
		return nil, err
	}
	o.scansUnstable = !still
	if o.tags, err = r.here.ScanTags(ctx, r.views(o, o.boxes), o.trash); err != nil {
		return nil, err
	}
	if !followed || r.UploadHere {
		// Mail that notmuch is yet to hear of would look as if its tags were taken off; and
		// what is uploaded has tags that are older than its row.
		o.tags = mail.Revision{}
	}
	r.makeTargets(o)
	kept, err := r.kept.Any(ctx)
	if err != nil {
		return nil, err
	}
	o.mayHaveMoved = o.mayHaveMoved || kept
	return o, r.sortFolders(ctx, s, rows, o)
}

// place is the mailbox as its folder is read.
func (b *box) place() local.Mailbox {
	return local.Mailbox{Name: b.Name, Known: b.known, Status: b.Status, Dir: b.dir}
}

// views are mailboxes with what is here of them.
func (r *run) views(o *overview, boxes []*box) []local.View {
	out := make([]local.View, len(boxes))
	for i, b := range boxes {
		out[i] = local.View{
			Mailbox: b.place(), Folder: &b.local, Unsettled: o.unsettled[b.Name],
			Unasked: len(r.Only) > 0 && !r.Restore && slices.Contains(o.unselected, b),
		}
	}
	return out
}

// scanBox reads a mailbox's folder. That it cannot be read costs only this mailbox.
func (r *run) scanBox(ctx context.Context, b *box) (err error) {
	b.local, err = r.here.Scan(ctx, b.place(), r.prescan)
	r.sayUnreadable([]*box{b})
	return err
}

// sayUnreadable says of mailboxes that their folders cannot be read.
func (r *run) sayUnreadable(boxes []*box) {
	for _, b := range boxes {
		if b.local.Err != nil && !b.barred {
			r.faults.mailbox(b, fmt.Errorf("its folder cannot be read, so that nothing of it goes to the server, "+
				"and what is gone from other folders waits, since it may be here: %w", b.local.Err))
			b.barred = true
		}
	}
}

// followTags does here what notmuch could not (local.Reader.Unfollowed). all is false if
// something of that is left.
func (r *run) followTags(ctx context.Context, boxes []*box, views []local.View, trash string) (all bool, err error) {
	renamed := slices.ContainsFunc(views, func(v local.View) bool { return len(v.Renamed) > 0 })
	if err := r.here.JudgeDatabase(ctx); err != nil || r.DryRun || len(r.Only) > 0 && !renamed {
		return true, err
	}
	f, err := r.here.Unfollowed(ctx, views, trash)
	if err != nil {
		return false, err
	}
	for part := range slices.Chunk(f.Changes, deliver.BatchSize) {
		done, err := r.follow(ctx, boxes, part)
		if err != nil {
			return false, err
		}
		f.All = f.All && done
	}
	if !f.Seen.Empty() {
		if err := r.notes().Record(ctx, f.Seen); err != nil {
			return false, err
		}
		r.rep.Step("mail of a notmuch database noted")
	}
	if !f.All || len(r.Only) > 0 {
		return f.All, nil
	}
	return true, r.here.MarkNames(ctx, f.Now)
}

// follow does some of it. all is false if a file's name could not be changed, as where its folder
// cannot be written to: that keeps none of the others.
func (r *run) follow(ctx context.Context, boxes []*box, changes []mail.Change) (all bool, err error) {
	results, err := r.Index.Apply(ctx, changes)
	if err != nil {
		return false, err
	}
	r.rep.Step("tags followed")
	all = true
	for i, res := range results {
		why := res.Undone()
		if why == nil || errors.Is(why, fs.ErrExist) {
			continue
		}
		all = false
		path := changes[i].Path
		j := slices.IndexFunc(boxes, func(b *box) bool { return string(b.dir) == filepath.Dir(filepath.Dir(path)) })
		boxes[j].line.Leave(&report.OwnError{Err: fmt.Errorf("%s cannot get the flags that its tags in notmuch say: %w", path, why)})
	}
	return all, nil
}

// tellNames tells notmuch of files that have other names since it heard of them, so that what it
// names is there, whatever becomes of the rest. What is left of it the next run finds again.
func (r *run) tellNames(ctx context.Context, o *overview, boxes []*box) error {
	if r.DryRun {
		return nil
	}
	views := r.views(o, boxes)
	names, err := r.here.NewNames(ctx, views)
	if err != nil {
		return err
	}
	if err := r.tellAll(ctx, boxes, names); err != nil {
		return err
	}
	for _, v := range views {
		if err := r.here.Heard(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// tellPlaces tells notmuch of files that were put into other folders, and of which neither the
// server was told nor notmuch with that.
func (r *run) tellPlaces(ctx context.Context, o *overview) error {
	if r.DryRun {
		return nil
	}
	boxes := slices.Concat(o.boxes, o.unselected)
	names, err := r.here.NewPlaces(ctx, r.views(o, boxes))
	if err != nil {
		return err
	}
	return r.tellAll(ctx, boxes, names)
}

func (r *run) tellAll(ctx context.Context, boxes []*box, names []local.NewName) error {
	for part := range slices.Chunk(names, deliver.BatchSize) {
		if err := r.tellSome(ctx, boxes, part); err != nil {
			return err
		}
	}
	return nil
}

// tellSome is tellAll of what goes into one commit.
func (r *run) tellSome(ctx context.Context, boxes []*box, names []local.NewName) error {
	changes := make([]mail.Change, len(names))
	for i, n := range names {
		changes[i] = n.Change
	}
	results, err := r.Index.Apply(ctx, changes)
	if err != nil {
		return err
	}
	r.rep.Step("new names told")
	var c journal.Change
	for i, n := range names {
		if err := results[i].Undone(); err != nil {
			b := boxes[n.In]
			b.local.Scanned = ""
			b.line.Leave(&report.OwnError{Err: fmt.Errorf("notmuch could not be told of %s, and is told by the next sync: %w", n.Path, err)})
			continue
		}
		if n.Row != nil {
			c.Save = append(c.Save, *n.Row)
		}
	}
	if c.Empty() {
		return nil
	}
	if err := r.notes().Record(ctx, c); err != nil {
		return err
	}
	r.rep.Step("new names recorded")
	return nil
}

// makeTargets sees to it that there are mailboxes to move mail to by its tags.
func (r *run) makeTargets(o *overview) {
	for _, b := range o.boxes {
		for _, to := range slices.Sorted(maps.Keys(b.local.Tagged)) {
			r.target(o, to, b.Delim)
		}
	}
}

// target sees to it that there is a mailbox to move mail to.
func (r *run) target(o *overview, name string, delim rune) {
	known := func(b *box) bool { return b.Name == name }
	if o.listed[name] || slices.ContainsFunc(o.foldersToCreate, known) || len(r.Only) > 0 || r.Selects != nil && !r.Selects(name, delim) {
		return
	}
	folder, err := r.Layout.Folder(name, delim)
	if err != nil {
		return // the server is asked all the same
	}
	o.foldersToCreate = append(o.foldersToCreate, r.newBox(mail.Mailbox{Name: name, Delim: delim}, ledger.Mailbox{Folder: folder}))
}

// sortFolders sorts out what the list of mailboxes does not explain.
func (r *run) sortFolders(ctx context.Context, s Lister, rows []ledger.Mailbox, o *overview) error {
	if len(r.Only) > 0 {
		others, err := r.here.Others(ctx, local.Listed{Mailboxes: o.mailboxes, Rows: rows, Taken: foldersOf(slices.Concat(o.boxes, o.unselected))})
		r.detach(o, others)
		return err
	}
	f, err := r.here.Folders(ctx, local.Listed{
		Mailboxes: o.mailboxes, Rows: rows, Taken: foldersOf(o.boxes), Wanted: foldersOf(o.foldersToCreate), Told: r.renamed, Apart: r.apart,
		Personal: func(ctx context.Context) (string, error) { return personal(ctx, s, o.mailboxes) },
	})
	r.detach(o, f.Detached)
	o.gone = f.Gone
	o.mayHaveMoved = o.mayHaveMoved || f.Moved
	for _, n := range f.Create {
		o.foldersToCreate = append(o.foldersToCreate, r.newBox(n.Mailbox, ledger.Mailbox{Folder: n.Folder}))
	}
	if err != nil || r.DryRun {
		return err
	}
	for _, k := range f.Forget {
		if err := r.notes().ForgetMailbox(ctx, k, journal.Change{}); err != nil {
			return err
		}
		r.rep.Step("mailbox forgotten")
	}
	return nil
}

func foldersOf(boxes []*box) (folders []string) {
	for _, b := range boxes {
		folders = append(folders, b.known.Folder)
	}
	return folders
}

// detach lets folders take part in nothing but as places where mail may be.
func (r *run) detach(o *overview, views []local.View) {
	for _, v := range views {
		b := r.newBox(mail.Mailbox{Name: v.Name, Delim: v.Known.Delim}, v.Known)
		b.local = *v.Folder
		o.detached = append(o.detached, b)
	}
	r.sayUnreadable(o.detached)
}

// personal gives the prefix that the user's own mailboxes have, such as "INBOX.".
func personal(ctx context.Context, s Lister, list []mail.Mailbox) (string, error) {
	if s.Has("NAMESPACE") {
		if prefix, told, err := s.Namespace(ctx); err != nil || told {
			return prefix, err
		}
	}
	return mail.Prefix(list), nil
}
