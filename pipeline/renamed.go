package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// witnesses is how many messages are asked for to tell whether a mailbox is another one.
const witnesses = 100

// followRenamed finds mailboxes that have another name on the server since the last run, and gives
// them that here, too: then what waits in them is done where they are now. Where it cannot be told
// for sure, one mailbox is gone and the other is new, or has its messages anew. It tells whether there
// were some.
func (w *worker) followRenamed(ctx context.Context, there *listing) (bool, error) {
	if w.PairOnly {
		return false, nil
	}
	rows, err := w.Ledger.Mailboxes(ctx)
	if err != nil {
		return false, err
	}
	list, err := w.askOthers(ctx, rows, there)
	if err != nil {
		return false, err
	}
	maybe := plan.MayBeRenamed(rows, list)
	likes := make([]plan.Likeness, len(maybe))
	w.apart = plan.Untold(rows, list)
	for i, r := range maybe {
		if likes[i] = plan.MayBe; !w.takesPart(r.Now) {
			if r.Numbered() {
				w.apart[r.Known.Name] = r.Now.Name
			}
			continue // it is not asked
		}
		like, err := w.isLike(ctx, r, rows, list)
		if err == nil {
			likes[i] = like
		} else if ctx.Err() != nil || report.ScopeOf(err, report.AtMailbox) != report.ScopeMailbox {
			return false, err
		}
	}
	certain := plan.Certain(maybe, likes, rows, list)
	if len(certain) == 0 {
		return false, nil
	}
	all := w.renamings(certain, rows)
	if w.DryRun {
		for i, r := range all {
			w.renamed[r.From.Name] = r.To.Name
			if w.Plan {
				w.rep.Plan(r.Action())
			}
			if certain[i].Gone() {
				w.rep.Note(r.From.Name, "would: the server has another mailbox of this name now; what is here of the one before would be %s", mail.Typed(w.Name+"/"+r.To.Name))
				continue
			}
			w.rep.Note(r.To.Name, "would: %s is called so on the server now, and its folder here goes along", mail.Typed(w.Name+"/"+r.From.Name))
		}
		there.callAsBefore(w.renamed)
		return false, nil
	}
	for i, r := range all {
		// Where the folder is gone, an empty one would look as if its mail were deleted.
		leaves := slices.ContainsFunc(all, func(o journal.Renamed) bool { return o.From.Folder == r.To.Folder })
		if !leaves && r.To.Folder != r.From.Folder {
			if err := w.keepBefore(ctx, r.To); err != nil {
				return false, err
			}
		}
		if !leaves && !noMaildir(w.newBox(certain[i].Now, r.From).dir) {
			if err := w.newBox(certain[i].Now, r.To).dir.Create(); err != nil {
				return false, err
			}
		}
	}
	if err := w.notes().Rename(ctx, all, w.Root); err != nil {
		return false, err
	}
	w.rep.Step("mailboxes renamed")
	for i, r := range all {
		if certain[i].Gone() {
			w.rep.Note(r.From.Name, "the server has another mailbox of this name now; what is here of the one before is %s, in the folder %s", mail.Typed(w.Name+"/"+r.To.Name), r.To.Folder)
			continue
		}
		w.rep.Note(r.To.Name, "%s is called so on the server now; its folder here is %s, and what waited in it goes on", mail.Typed(w.Name+"/"+r.From.Name), r.To.Folder)
	}
	return true, nil
}

// keepBefore notes what was here before the first sync in the folder that a mailbox is about to have:
// it stays here.
func (r *run) keepBefore(ctx context.Context, m ledger.Mailbox) error {
	files, err := maildir.Dir(filepath.Join(r.Root, m.Folder)).Scan()
	if err != nil {
		return ignoreGone(err)
	}
	c, err := r.here.Release(ctx, m, files)
	if err != nil || c.Empty() {
		return err
	}
	if err := r.notes().Record(ctx, c); err != nil {
		return err
	}
	r.rep.Step("mail here noted")
	return nil
}

// askOthers gives the list with the status also of mailboxes that take no part in this run, and that may
// be one which is here: of those that the configuration excludes, where one is gone and it was not said
// yet; of all, where a run of some mailboxes finds another one under the name of one of them.
func (w *worker) askOthers(ctx context.Context, rows []ledger.Mailbox, there *listing) ([]mail.Mailbox, error) {
	listed, known := make(map[string]mail.Mailbox), make(map[string]bool)
	for _, m := range there.mailboxes {
		listed[m.Name] = m
	}
	gone, another := false, false
	for _, k := range rows {
		known[k.Name] = true
		m, is := listed[k.Name]
		another = another || k.UIDValidity != 0 && m.Status != nil && m.Status.UIDValidity != k.UIDValidity
		if is || k.UIDValidity == 0 {
			continue
		}
		_, noted, err := w.notes().GoneSaid.Get(ctx, journal.AboutGone(k))
		if err != nil {
			return nil, err
		}
		gone = gone || !noted
	}
	wanted := make(map[string]int)
	for i, m := range there.mailboxes {
		if m.Unasked && w.unanswered.LeavesOut(m.Name) == "" && (len(w.Only) > 0 && another || len(w.Only) == 0 && gone && !known[m.Name]) {
			wanted[m.Name] = i
		}
	}
	if len(wanted) == 0 {
		return there.mailboxes, nil
	}
	list, err := w.conn.Session().List(ctx, mail.Listing{Singly: true, Skip: func(m mail.Mailbox) bool { _, ok := wanted[m.Name]; return !ok }})
	if err != nil { // that one of them does not answer is not told: it takes no part
		return there.mailboxes, cmp.Or(ctx.Err(), w.conn.Connect(ctx))
	}
	all := slices.Clone(there.mailboxes)
	for _, m := range list {
		if i, ok := wanted[m.Name]; ok && m.Status != nil {
			all[i] = m
		}
	}
	return all, nil
}

// callAsBefore lists mailboxes by the names that they have here, in place of those that have these by now.
func (l *listing) callAsBefore(names asBefore) {
	before := make(map[string]string, len(names))
	for here, now := range names {
		before[now] = here
	}
	l.mailboxes = slices.DeleteFunc(l.mailboxes, func(m mail.Mailbox) bool { return names[m.Name] != "" && before[m.Name] == "" })
	for i, m := range l.mailboxes {
		l.mailboxes[i].Name = cmp.Or(before[m.Name], m.Name)
	}
}

// asBefore are the names on the server of mailboxes that still have another one here, by that:
// a dry run leaves it so, and looks into them all the same.
type asBefore map[string]string

func (n asBefore) dial(dial func(context.Context) (Session, error)) func(context.Context) (Session, error) {
	return func(ctx context.Context) (Session, error) {
		s, err := dial(ctx)
		if err == nil {
			s.Opener = opener{s.Opener, n}
		}
		return s, err
	}
}

// opener opens mailboxes by the names that they have here.
type opener struct {
	probe.Opener
	names asBefore
}

func (o opener) Examine(ctx context.Context, name string, known *mail.Known) (*mail.Selected, error) {
	if now, ok := o.names[name]; ok {
		name = now
	}
	return o.Opener.Examine(ctx, name, known)
}

// Mailbox is the selected mailbox by the name that it has here.
func (o opener) Mailbox() string {
	name := o.Opener.Mailbox()
	for here, now := range o.names {
		if now == name {
			return here
		}
	}
	return name
}

// isLike asks the server for the messages by which a mailbox is known.
func (w *worker) isLike(ctx context.Context, r plan.Renamed, rows []ledger.Mailbox, list []mail.Mailbox) (plan.Likeness, error) {
	known, err := w.witnesses(ctx, r)
	if err != nil {
		return plan.MayBe, err
	}
	var there []mail.Message
	if len(known) > 0 && known[0].UID == 0 && int(r.Now.Status.Messages) > len(known) {
		return plan.MayBe, nil
	}
	if len(known) > 0 {
		sel, err := w.conn.Examine(ctx, r.Now.Name, nil)
		if err != nil || sel.UIDValidity != r.Now.Status.UIDValidity {
			return plan.MayBe, err
		}
		uids := mail.EveryUID()
		if r.Numbered() && known[0].UID != 0 {
			uids = mail.UIDSet(ledger.UIDs(known))
		}
		if sel.Messages > 0 {
			if there, err = w.conn.Session().Identify(ctx, uids); err != nil {
				return plan.MayBe, err
			}
		}
	}
	n := 0
	for _, k := range rows {
		if k.UIDValidity == r.Known.UIDValidity {
			n++
		}
	}
	for _, m := range list {
		if m.Status != nil && m.Status.UIDValidity == r.Known.UIDValidity {
			n++
		}
	}
	return r.Like(known, there, n == 2), nil
}

// witnesses gives messages by which a mailbox is known: the newest, or all if their UIDs are of
// another UIDVALIDITY, and what an interrupted run has put there. Of that alone it may be that the
// server has told no UIDs.
func (w *worker) witnesses(ctx context.Context, r plan.Renamed) ([]ledger.Message, error) {
	rows, err := w.Ledger.Rows(ctx, r.Known.Name, r.Known.UIDValidity)
	if err != nil {
		return nil, err
	}
	var some []ledger.Message
	for _, row := range slices.Backward(rows) {
		if row.State == ledger.Present && row.Key != "" && (len(some) < witnesses || !r.Numbered()) {
			some = append(some, ledger.Message{UID: row.UID})
		}
	}
	known, err := w.Ledger.GetMany(ctx, r.Known.Name, r.Known.UIDValidity, ledger.UIDs(some))
	if err != nil || !r.Numbered() {
		return known, err
	}
	arrivals, err := w.notes().Arriving.All(ctx)
	if err != nil {
		return nil, err
	}
	var untold []ledger.Message
	for _, key := range slices.Sorted(maps.Keys(arrivals)) {
		switch row := arrivals[key].Row; {
		case row.Mailbox != r.Known.Name || row.UIDValidity != r.Known.UIDValidity:
		case row.UID == 0:
			untold = append(untold, row)
		default:
			known = append(known, row)
		}
	}
	if len(known) == 0 {
		return untold, nil
	}
	return known, nil
}

// renamings gives mailboxes as they are with their other names. A folder that one of them leaves is
// free for the others.
func (w *worker) renamings(certain []plan.Renamed, rows []ledger.Mailbox) []journal.Renamed {
	taken, goes := maildir.NewTaken(w.Root), make(map[string]string)
	for _, r := range certain {
		if folder := w.folderRenamed(r); folder != r.Known.Folder {
			goes[r.Known.Name] = folder
		}
	}
	for _, k := range rows {
		if goes[k.Name] == "" {
			taken.Put(k.Folder)
		}
	}
	all := make([]journal.Renamed, len(certain))
	for i, r := range certain {
		to := r.Known
		to.Name, to.Delim = r.Now.Name, r.Now.Delim
		if folder := goes[r.Known.Name]; folder != "" {
			to.Folder = maildir.Unclash(folder, taken.Has)
			taken.Put(to.Folder)
		}
		all[i] = journal.Renamed{From: r.Known, To: to}
	}
	return all
}

// folderRenamed gives the folder that a mailbox would have with its other name: one that had a name of
// its own keeps it, and so does one that is in another place.
func (w *worker) folderRenamed(r plan.Renamed) string {
	if maildir.Dir(filepath.Join(w.Root, r.Known.Folder)).Elsewhere() {
		return r.Known.Folder
	}
	was, err := w.Layout.Folder(r.Known.Name, r.Known.Delim)
	if err != nil {
		return r.Known.Folder
	}
	before, named := strings.CutSuffix(was, r.Known.Folder) // without the prefix that all have
	is, err := w.Layout.Folder(r.Now.Name, r.Now.Delim)
	if err != nil || !named {
		return r.Known.Folder
	}
	if short, ok := strings.CutPrefix(is, before); ok && short != "" {
		is = short
	}
	return is
}

// endRenaming moves the files of mailboxes that have another name into their folders of that, and
// has notmuch know them there. It is done again after a crash in the middle of it.
func (r *run) endRenaming(ctx context.Context) error {
	var boxes map[string]*box
	for {
		all, err := r.notes().Renaming.All(ctx)
		if err != nil || len(all) == 0 {
			return err
		}
		if boxes == nil {
			if boxes, err = r.knownBoxes(ctx); err != nil {
				return err
			}
		}
		name, free := nextRenaming(all)
		n, b := all[name], boxes[name]
		if b != nil && !free {
			n.To = r.aside(n.From)
			if err := r.notes().Renaming.Set(ctx, name, n); err != nil {
				return err
			}
			r.rep.Step("folder goes aside")
		}
		if b != nil {
			if err := r.attic.Rename(n.From, n.To); err != nil {
				return err
			}
			if err := r.moveFolder(ctx, b, maildir.Dir(filepath.Join(r.Root, n.From)), maildir.Dir(filepath.Join(r.Root, n.To))); err != nil {
				return err
			}
		}
		if b != nil && n.To != b.known.Folder {
			err = r.notes().Renaming.Set(ctx, name, journal.Renaming{From: n.To, To: b.known.Folder})
		} else {
			err = r.notes().Renaming.Drop(ctx, name)
		}
		if err != nil {
			return err
		}
		r.rep.Step("folder renamed")
	}
}

// nextRenaming gives the mailbox whose files go next, by its name: one into whose folder no other files
// go on their way from there. free is false if each of them waits for another one.
func nextRenaming(all map[string]journal.Renaming) (name string, free bool) {
	names := slices.Sorted(maps.Keys(all))
	for _, name := range names {
		if !slices.ContainsFunc(names, func(o string) bool { return o != name && all[o].From == all[name].To }) {
			return name, true
		}
	}
	return names[0], false
}

// aside gives a folder beside another one in which nothing is.
func (r *run) aside(folder string) string {
	for i := 1; ; i++ {
		name := filepath.Join(filepath.Dir(folder), fmt.Sprint("renamed-", i))
		if _, err := os.Lstat(filepath.Join(r.Root, name)); errors.Is(err, fs.ErrNotExist) {
			return name
		}
	}
}

// moveFolder moves all mail of a mailbox's folder into another one.
func (r *run) moveFolder(ctx context.Context, b *box, from, to maildir.Dir) error {
	if noMaildir(from) && noMaildir(to) {
		return nil // it is gone, and is no less gone by its other name
	}
	if err := to.Create(); err != nil {
		return err
	}
	// The folder is another directory now, and none that was restored, unless it was that before.
	last, known, err := r.notes().Scanned.Get(ctx, b.Name)
	if err != nil {
		return err
	}
	if known && from.Identity() != "0" && maildir.SameIdentity(last.Identity(), from.Identity()) {
		if err := r.notes().Scanned.Set(ctx, b.Name, journal.ScanAgain(to.Identity())); err != nil {
			return err
		}
	}
	files, err := from.Scan()
	if errors.Is(err, fs.ErrNotExist) {
		files, err = &maildir.Listing{}, nil
	}
	if err != nil {
		return err
	}
	mails, err := files.Files()
	if err != nil {
		return err
	}
	for _, f := range mails {
		// One that cannot have its name there stays, and is a file of a folder of its own.
		if err := maildir.Move(from.Path(f.Name), to.Path(f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := errors.Join(to.Sync(), ignoreGone(from.Sync())); err != nil {
		return err
	}
	r.rep.Step("files moved")
	if err := r.tellMoved(ctx, b, from, to); err != nil {
		return err
	}
	return removeFolder(from, r.Root)
}

// noMaildir tells whether a folder is not there; it may be the directory that others are in.
func noMaildir(d maildir.Dir) bool {
	_, err := os.Lstat(filepath.Join(string(d), "cur"))
	return errors.Is(err, fs.ErrNotExist)
}

// ignoreGone makes nothing of an error that says that a directory is not there.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// tellMoved has notmuch know the files of a mailbox in the folder where they are, of those that it
// knows in the one where they were.
func (r *run) tellMoved(ctx context.Context, b *box, from, to maildir.Dir) error {
	files, err := to.Scan()
	if err != nil {
		return err
	}
	mails, err := files.Files()
	if err != nil {
		return err
	}
	rows, err := r.Ledger.EveryValidity(ctx, b.Name)
	if err != nil {
		return err
	}
	ids := make(map[string]string, len(rows)) // by key
	for _, row := range rows {
		ids[row.Key] = row.ID
	}
	for part := range slices.Chunk(mails, deliver.BatchSize) {
		of, was := make([]string, len(part)), make([]string, len(part))
		for i, f := range part {
			was[i] = from.Path(f.Name)
			if of[i] = ids[f.Key]; of[i] == "" {
				h, err := maildir.ReadHeader(to.Path(f.Name))
				if err != nil {
					continue // notmuch hears of it when it is looked for
				}
				of[i] = h.MessageID()
			}
		}
		known, err := r.Index.Messages(ctx, mail.Asking(of, was), r.Root)
		if err != nil {
			return err
		}
		var changes []mail.Change
		for i, f := range part {
			t, _ := mail.Answer(known, of[i], was[i])
			for _, path := range t.Paths {
				if key, _ := maildir.ParseName(path); key == f.Key && filepath.Dir(filepath.Dir(path)) == string(from) {
					changes = append(changes, mail.Change{Op: mail.OpFlag, Path: to.Path(f.Name), OldPath: path, ID: t.ID})
				}
			}
		}
		if len(changes) == 0 {
			continue
		}
		if _, err := r.Index.Apply(ctx, changes); err != nil {
			return err
		}
		r.rep.Step("new places told")
	}
	return nil
}
