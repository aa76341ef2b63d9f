package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// survey decides which of the server's mailboxes to look into.
func (r *run) survey(ctx context.Context, s Lister, list []mail.Mailbox) ([]*box, error) {
	if err := recoverAll(ctx, r.recoverListed(list)); err != nil {
		return nil, err
	}
	rows, err := r.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]ledger.Mailbox, len(rows))
	folders := make(map[string]bool, len(rows)) // case-folded, for clashes
	for _, k := range rows {
		known[k.Name] = k
		folders[strings.ToLower(k.Folder)] = true
	}
	stubs, err := r.Ledger.InState(ctx, r.asked()...)
	if err != nil {
		return nil, err
	}
	revived, err := r.revived(ctx)
	if err != nil {
		return nil, err
	}
	stubs = append(stubs, revived...)
	now := r.Now()

	// By name, so that of two folders that differ only by case the same one
	// gets the escapes when the ledger was lost.
	slices.SortFunc(list, func(a, b mail.Mailbox) int { return strings.Compare(a.Name, b.Name) })
	var boxes []*box
	prefix := local.Prefix(list)
	r.listed = make(map[string]bool, len(list))
	odd := make(map[string]bool)
	for _, m := range list {
		if m.Odd {
			odd[m.Name] = true
			if err := r.noteOnce(ctx, &box{Mailbox: m}, r.notes().OddSaid, m.Name, "the mailbox with this name is left out: the name is too long, or has a line end or NUL in it, "+
				"and no command can say it; give it another one with the server's own tools"); err != nil {
				return nil, err
			}
			continue
		}
		r.listed[m.Name] = true
		if !r.selects(m) {
			if k := known[m.Name]; k.Folder != "" && (r.Restore && (m.Status != nil || m.Unasked) || len(r.Only) > 0) {
				// What is missing in one folder may be in this one.
				b := r.newBox(m, k)
				if err := r.scanBox(ctx, b); err != nil {
					return nil, err
				}
				r.unselected = append(r.unselected, b)
			}
			continue
		}
		if m.Status == nil && m.Err == nil {
			continue
		}
		r.tally(func(rep *report.Report) { rep.Mailboxes++ })
		k := known[m.Name]
		if k.Folder == "" {
			folder, err := r.here.FolderOf(m, prefix)
			if err != nil {
				r.mailboxFault(r.newBox(m, k), err)
				continue
			}
			k.Folder = maildir.Unclash(folder, func(f string) bool { return folders[strings.ToLower(f)] })
			folders[strings.ToLower(k.Folder)] = true
		}
		b := r.newBox(m, k)
		if m.Err != nil {
			if left, ok := errors.AsType[*leftOut](m.Err); ok {
				r.keepMarks(b)
				if err := r.standingFault(ctx, b, "silent", left); err != nil {
					return nil, err
				}
			} else {
				r.mailboxFault(b, m.Err)
			}
			// What is missing or new in other folders may be here, or from here.
			if err := r.scanBox(ctx, b); err != nil {
				return nil, err
			}
			r.unselected = append(r.unselected, b)
			continue
		}
		for _, st := range stubs {
			if st.Mailbox != m.Name || st.UIDValidity != m.Status.UIDValidity {
				continue
			}
			b.stubs[st.UID] = st
			if r.Full || !st.NextTry.After(now) || r.wants(st) {
				b.due = append(b.due, st)
			} else {
				r.tally(func(rep *report.Report) { rep.Stubs++ })
			}
		}
		b.need = plan.NeedOf(b.known, *m.Status, len(b.due) > 0, r.Full)
		if _, ok := r.silences[silentKey("EXAMINE", b.Name)]; ok {
			b.need = plan.NeedChanges // whether it answers now
		}
		if err := r.scanBox(ctx, b); err != nil {
			return nil, err
		}
		if r.isUnsettled(b) {
			b.local.Local, b.local.Scanned, b.local.Unread = plan.Local{}, "", true
		}
		if plan.MayHaveMoved(b.known, *m.Status) {
			r.moved = true
		}
		if r.stays == nil {
			r.stays = make(map[string]bool)
		}
		r.stays[b.Name] = b.known.Complete && b.known.UIDValidity == m.Status.UIDValidity && !plan.MayHaveMoved(b.known, *m.Status)
		if r.TagRules != nil {
			b.add, b.remove = r.TagRules(m.Name, m.Delim)
		}
		boxes = append(boxes, b)
	}
	if !r.DryRun {
		if err := r.notes().OddSaid.DropWhere(ctx, func(name string, _ journal.Text) bool { return !odd[name] }); err != nil {
			return nil, err
		}
	}
	r.prescan.Discard()
	followed, err := r.followTags(ctx, r.views(boxes))
	if err != nil {
		return nil, err
	}
	all := slices.Concat(boxes, r.unselected)
	still, err := r.here.ScanAgain(ctx, r.views(all))
	if err != nil {
		return nil, err
	}
	r.sayUnreadable(all)
	r.scansUnstable = !still
	if name := trashOf(r.Trash, list); name != "" {
		r.trash = &box{Mailbox: mail.Mailbox{Name: name}} // it need not be synchronised
		if i := slices.IndexFunc(boxes, func(b *box) bool { return b.Name == name }); i >= 0 {
			r.trash = boxes[i]
		}
	}
	r.daily = plan.DailyOf(list, trashOf(r.Trash, list))
	if r.tags, err = r.here.ScanTags(ctx, r.views(boxes), trashOf(r.Trash, list)); err != nil {
		return nil, err
	}
	r.makeTargets(boxes)
	if !followed {
		// Mail that notmuch is yet to hear of would look as if its tags were taken off.
		r.tags = mail.Revision{}
	}
	for _, want := range r.Only {
		if !r.listed[want] {
			r.mailboxFault(r.newBox(mail.Mailbox{Name: want}, ledger.Mailbox{}), errors.New("the server has no such mailbox"))
		}
	}
	if err := r.sortFolders(ctx, s, list, rows, boxes); err != nil {
		return nil, err
	}
	// INBOX first: it is where the mail is that its owner waits for.
	slices.SortStableFunc(boxes, func(a, b *box) int { return rank(a) - rank(b) })
	return boxes, nil
}

// sortFolders sorts out what the list of mailboxes does not explain. rows are those of
// the ledger, before this run.
func (r *run) sortFolders(ctx context.Context, s Lister, list []mail.Mailbox, rows []ledger.Mailbox, boxes []*box) error {
	if len(r.Only) > 0 {
		others, err := r.here.Others(ctx, rows, foldersOf(slices.Concat(boxes, r.unselected)))
		r.detach(others)
		return err
	}
	f, err := r.here.Folders(ctx, local.Listed{
		Mailboxes: list, Rows: rows, Taken: foldersOf(boxes), Wanted: foldersOf(r.foldersToCreate),
		Personal: func(ctx context.Context) (string, error) { return personal(ctx, s, list) },
	})
	r.detach(f.Detached)
	r.moved = r.moved || f.Moved
	for _, n := range f.Create {
		r.foldersToCreate = append(r.foldersToCreate, r.newBox(n.Mailbox, ledger.Mailbox{Folder: n.Folder}))
	}
	if err != nil || r.DryRun {
		return err
	}
	for _, k := range f.Forget {
		if err := r.notes().ForgetMailbox(ctx, k, journal.Change{}); err != nil {
			return err
		}
		r.step("mailbox forgotten")
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
func (r *run) detach(views []local.View) {
	for _, v := range views {
		b := r.newBox(mail.Mailbox{Name: v.Name, Delim: v.Known.Delim}, v.Known)
		b.local = *v.Folder
		r.detached = append(r.detached, b)
	}
	r.sayUnreadable(r.detached)
}

// personal gives the prefix that the user's own mailboxes have, such as "INBOX.".
func personal(ctx context.Context, s Lister, list []mail.Mailbox) (string, error) {
	if s.Has("NAMESPACE") {
		if prefix, told, err := s.Namespace(ctx); err != nil || told {
			return prefix, err
		}
	}
	return local.Prefix(list), nil
}

// trashOf gives the mailbox that is the account's Trash: the one of the
// configuration, or the one that is found; "" if there is none.
func trashOf(configured string, list []mail.Mailbox) string {
	return cmp.Or(configured, mail.Trash(list))
}

func rank(b *box) int {
	if strings.EqualFold(b.Name, "INBOX") {
		return 0
	}
	return 1
}

func (r *run) selects(m mail.Mailbox) bool {
	if len(r.Only) > 0 {
		return slices.Contains(r.Only, m.Name)
	}
	return r.Selects == nil || r.Selects(m.Name, m.Delim)
}
