package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// makeMailboxes makes mailboxes of the new folders, which then go the way of all
// others: mail in them is uploaded, or moved from where it is on the server. One
// that is refused costs only itself.
func (w *worker) makeMailboxes(ctx context.Context, o *overview) error {
	if err := w.forgetUnmade(ctx, o); err != nil {
		return err
	}
	for _, b := range o.foldersToCreate {
		if w.unanswered.Waits("CREATE", b.Name) {
			o.detached = append(o.detached, b)
			w.faults.sayLeftOut(b, w.faults.leftOut("CREATE", b.Name))
			continue
		}
		files, err := b.dir.Scan()
		if errors.Is(err, fs.ErrNotExist) {
			files, err = &maildir.Listing{}, nil // one that tags want
		}
		if err != nil {
			b.local.Unread = true
			o.detached = append(o.detached, b)
			w.faults.mailbox(b, fmt.Errorf("its folder cannot be read: %w", err))
			continue
		}
		if files.Len() == 0 && o.listed[b.Name] {
			continue // on the server it only holds other mailboxes, as here
		}
		err = w.makeMailbox(ctx, o, b, files)
		w.sayNewFolder(b, files.Len())
		switch {
		case err == nil:
			if err := w.unanswered.Answered(ctx, "CREATE", b.Name); err != nil {
				return err
			}
			w.rep.Tally(func(r *report.Report) { r.Mailboxes++ })
			o.boxes = append(o.boxes, b)
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case report.ScopeOf(err, report.AtMailbox) != report.ScopeMailbox:
			return err
		default:
			o.detached = append(o.detached, b)
			w.faults.mailbox(b, fmt.Errorf("the server did not make this mailbox, so that the mail of its folder stays here: %w", err))
		}
	}
	return nil
}

// sayNewFolder says of a folder that a mailbox is made of it, with what of its files is mail that
// goes there: no stubs, and nothing that is empty. Where it was not scanned that is not known.
func (w *worker) sayNewFolder(b *box, files int) {
	if b.local.Changed != [4]time.Time{} && b.local.Err == nil {
		files = 0
		for _, s := range b.local.Untracked {
			if !s.RuledOut {
				files++
			}
		}
	}
	text := fmt.Sprintf("new folder: %s (%s)", b.known.Folder, mail.Number(files, "message", "messages"))
	if w.DryRun {
		text = "would: " + text
	}
	w.rep.Emit(report.Event{Type: report.EventMailbox, Mailbox: b.Name, Text: text})
}

// forgetUnmade forgets that the server did not make mailboxes whose folders are no more.
func (w *worker) forgetUnmade(ctx context.Context, o *overview) error {
	if len(w.Only) > 0 || w.ReadOnly || w.Restore {
		return nil
	}
	for op, name := range w.unanswered.All() {
		if op != "CREATE" || slices.ContainsFunc(o.foldersToCreate, func(b *box) bool { return b.Name == name }) {
			continue
		}
		if err := w.unanswered.Answered(ctx, op, name); err != nil {
			return err
		}
	}
	return nil
}

// makeMailbox makes one mailbox, records it, and scans its folder, of which files are. A crash before
// that leaves what is known of the folder, and perhaps a mailbox, which is then as one that others made.
func (w *worker) makeMailbox(ctx context.Context, o *overview, b *box, files *maildir.Listing) error {
	b.known.Name, b.known.Delim = b.Name, b.Delim
	if w.TagRules != nil {
		b.add, b.remove = w.TagRules(b.Name, b.Delim)
	}
	released, err := w.here.Release(ctx, b.known, files)
	if err != nil {
		return err
	}
	made := mail.Action{Kind: mail.ActCreate, Mailbox: b.Name, Why: "its folder " + b.known.Folder + " is new here"}
	if w.DryRun {
		if w.Plan {
			w.rep.Plan(made)
		}
		b.known.Complete, b.known.UIDValidity = true, 1
		b.Status = &mail.Status{UIDValidity: 1, UIDNext: 1}
		return w.scanBox(ctx, b)
	}
	if err := w.conn.Connect(ctx); err != nil {
		return err
	}
	placed, err := w.place(ctx, b.known)
	if err != nil {
		return err
	}
	var begun journal.Change
	begun.Begin(made)
	if err := w.commit(ctx, begun, "mailbox about to be made"); err != nil {
		return err
	}
	if err := w.create(ctx, o.listed, b); err != nil {
		if _, refused := mail.Refused(err); !refused {
			return err
		}
		if placed {
			if err := w.Ledger.Forget(ctx, b.Name); err != nil {
				return err
			}
		}
		if called, _ := w.Layout.Folder(b.Name, b.Delim); called != b.known.Folder {
			released = journal.Change{} // else a sync asks for the same again
		}
		released.Became(mail.IsRefused, err.Error(), made)
		if err := w.notes().Record(ctx, released); err != nil {
			return err
		}
		return err
	}
	sel, err := w.conn.Select(ctx, b.Name)
	if err != nil {
		return err
	}
	b.Status = &sel.Status
	if sel.Messages > 0 {
		b.need = plan.NeedChanges // somebody made it at the same time
		var c journal.Change
		c.Became(mail.IsDone, "", made)
		return w.commit(ctx, c, "mailbox made noted")
	}
	b.known.UIDValidity, b.known.UIDNext, b.known.HighestModSeq, b.known.Complete = sel.UIDValidity, sel.UIDNext, sel.HighestModSeq, true
	released.Mailbox = &b.known
	released.Became(mail.IsDone, "", made)
	if err := w.notes().Record(ctx, released); err != nil {
		return err
	}
	w.rep.Step("mailbox recorded")
	return w.scanBox(ctx, b)
}

// place records the folder of a mailbox that is about to be made, unless the ledger has a mailbox of
// this name, and tells whether it did.
func (w *worker) place(ctx context.Context, m ledger.Mailbox) (bool, error) {
	known, err := w.Ledger.Mailboxes(ctx)
	if err != nil || slices.ContainsFunc(known, func(k ledger.Mailbox) bool { return k.Name == m.Name }) {
		return false, err
	}
	return true, w.Ledger.SaveMailbox(ctx, m)
}

// create makes a mailbox, and subscribes to it, since most mail readers show no
// others. listed gets the names above it that are made for that.
func (w *worker) create(ctx context.Context, listed map[string]bool, b *box) error {
	try := func(name string) error {
		if err := w.conn.Session().Create(ctx, name); err != nil {
			return err
		}
		w.rep.Step("mailbox made")
		err := w.conn.Session().Subscribe(ctx, name)
		if _, refused := mail.Refused(err); refused {
			return nil
		}
		return err
	}
	err := try(b.Name)
	if f, refused := mail.Refused(err); refused && f.Kind == mail.KindNo && b.Delim != 0 {
		// A server should make what is above it by itself (RFC 9051 6.3.4).
		again := false
		for i, c := range b.Name {
			if up := b.Name[:i]; c == b.Delim && up != "" && !listed[up] {
				listed[up], again = true, true
				err := try(up)
				if _, refused := mail.Refused(err); err != nil && !refused {
					return err
				}
			}
		}
		if again {
			err = try(b.Name)
		}
	}
	return err
}
