package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// survey decides which of the server's mailboxes take part, and what in them is asked for.
// rows are those that the ledger has.
func (r *run) survey(ctx context.Context, there *listing, rows []ledger.Mailbox) (*overview, error) {
	list := there.mailboxes
	known := make(map[string]ledger.Mailbox, len(rows))
	folders := maildir.NewTaken(r.Root)
	for _, k := range rows {
		known[k.Name] = k
		folders.Put(k.Folder)
	}
	if err := r.here.NoteBefore(ctx, len(rows) == 0, r.Only); err != nil {
		return nil, err
	}
	stubs, err := r.Ledger.InState(ctx, r.retryableStates()...)
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
	o := &overview{listing: there, listed: make(map[string]bool, len(list)), stays: make(map[string]bool)}
	prefix := mail.Prefix(list)
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
		o.listed[m.Name] = true
		if !r.selects(m) {
			if k := known[m.Name]; k.Folder != "" && (r.Restore && (m.Status != nil || m.Unasked) || len(r.Only) > 0) {
				// What is missing in one folder may be in this one, and what is new in another from this one.
				o.mayHaveMoved = o.mayHaveMoved || m.Status == nil || plan.MayHaveMoved(k, *m.Status)
				o.unselected = append(o.unselected, r.newBox(m, k))
			}
			continue
		}
		if m.Status == nil && m.Err == nil {
			continue
		}
		r.rep.Tally(func(rep *report.Report) { rep.Mailboxes++ })
		k := known[m.Name]
		if k.Folder == "" {
			folder, err := r.here.FolderOf(ctx, m, prefix, folders)
			if err != nil {
				r.faults.mailbox(r.newBox(m, k), err)
				continue
			}
			k.Folder = maildir.Unclash(folder, folders.Has)
			folders.Put(k.Folder)
		}
		b := r.newBox(m, k)
		if m.Err != nil {
			if left, ok := errors.AsType[*leftOut](m.Err); ok {
				b.line.KeepMarks()
				r.faults.sayLeftOut(b, left)
			} else {
				r.faults.mailbox(b, m.Err)
			}
			// What is missing or new in other folders may be here, or from here.
			o.unselected = append(o.unselected, b)
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
				r.rep.Tally(func(rep *report.Report) { rep.Stubs++ })
			}
		}
		b.need = plan.NeedOf(b.known, *m.Status, len(b.due) > 0, r.Full)
		if _, ok := r.unanswered.Before("EXAMINE", b.Name); ok {
			b.need = plan.NeedChanges // whether it answers now
		}
		if plan.MayHaveMoved(b.known, *m.Status) {
			o.mayHaveMoved = true
		}
		o.stays[b.Name] = plan.Current(b.known, *m.Status) && !plan.MayHaveMoved(b.known, *m.Status)
		if r.TagRules != nil {
			b.add, b.remove = r.TagRules(m.Name, m.Delim)
		}
		o.boxes = append(o.boxes, b)
	}
	r.leaveShared(o, known)
	if !r.DryRun {
		if err := r.notes().OddSaid.DropWhere(ctx, func(name string, _ journal.Text) bool { return !odd[name] }); err != nil {
			return nil, err
		}
	}
	o.trash = mail.TrashOf(r.Trash, list)
	o.daily = plan.DailyOf(list, o.trash)
	for _, want := range slices.Concat(r.Only, r.uploadIn) {
		if !o.listed[want] {
			text := "the server has no such mailbox"
			if r.UploadHere {
				text += "; `notmuch imap folder create " + mail.Typed(r.Name+"/"+want) + "` makes it"
			}
			r.faults.mailbox(r.newBox(mail.Mailbox{Name: want}, ledger.Mailbox{}), errors.New(text))
		}
	}
	// INBOX first: it is where the mail is that its owner waits for.
	slices.SortStableFunc(o.boxes, func(a, b *box) int { return rank(a) - rank(b) })
	return o, nil
}

// leaveShared leaves out mailboxes whose folders are one directory: what of it is the mail of which
// cannot be told, so that mail of one would go to the other, or be taken for deleted. One that the
// configuration leaves out has none.
func (r *run) leaveShared(o *overview, known map[string]ledger.Mailbox) {
	of := make(map[string]string) // mailboxes by folder
	for _, b := range o.boxes {
		of[b.known.Folder] = b.Name
	}
	for _, m := range o.mailboxes {
		if m.Odd || m.Status == nil && m.Err == nil && !m.Unasked || r.Selects != nil && !r.Selects(m.Name, m.Delim) {
			continue
		}
		folder := known[m.Name].Folder
		if folder == "" { // the one that it would have
			folder, _ = r.Layout.Folder(m.Name, m.Delim)
		}
		if folder != "" && of[folder] == "" {
			of[folder] = m.Name
		}
	}
	with := maildir.OneDirectory(r.Root, slices.Sorted(maps.Keys(of)))
	o.boxes = slices.DeleteFunc(o.boxes, func(b *box) bool {
		other := with[b.known.Folder]
		if other == "" {
			return false
		}
		r.faults.mailbox(b, fmt.Errorf("its folder %s is one directory with %s, the folder of the mailbox %s, by a symbolic link or a mount, "+
			"so that nothing is done in either; give each a folder of its own, or leave one out with mailboxes in the configuration", b.known.Folder, other, of[other]))
		b.Status = nil // nothing is moved there
		o.unselected = append(o.unselected, b)
		delete(o.stays, b.Name)
		return true
	})
}

func rank(b *box) int {
	if strings.EqualFold(b.Name, "INBOX") {
		return 0
	}
	return 1
}

// selectsKnown is selects of a mailbox that the ledger knows.
func (o *Options) selectsKnown(k ledger.Mailbox) bool {
	return o.selects(mail.Mailbox{Name: k.Name, Delim: k.Delim})
}

// selects tells whether this run synchronises a mailbox.
func (o *Options) selects(m mail.Mailbox) bool {
	if len(o.Only) > 0 {
		return slices.Contains(o.Only, m.Name)
	}
	return o.takesPart(m)
}

// takesPart tells whether a run of all mailboxes synchronises one.
func (o *Options) takesPart(m mail.Mailbox) bool {
	return o.Selects == nil || o.Selects(m.Name, m.Delim)
}
