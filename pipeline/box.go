package pipeline

import (
	"context"
	"path/filepath"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// box is one mailbox while it is worked on: as the server lists it, and in parts by who
// writes them. One goroutine at a time works on a mailbox, until its batches are given out;
// from then on it is constant.
type box struct {
	mail.Mailbox
	line   *deliver.Mailbox
	local  local.Folder // what is here, less what is dealt with
	barred bool         // that its folder could not be read was said
	agreed
	wanted
	pushed plan.Pushed // what the push has done, less what the look has found of it
	looked
}

// agreed is what both sides agreed upon. A push that is to have mail come again, and a look
// that finds other messages under its UIDs, take back that it was complete.
type agreed struct {
	known ledger.Mailbox // zero if the ledger does not know it
	dir   maildir.Dir
}

// wanted is what the survey asks for in the mailbox.
type wanted struct {
	need   plan.Need                   // a push raises it
	due    []ledger.Message            // stubs to ask for again
	stubs  map[imap.UID]ledger.Message // all its stubs
	add    []string                    // tags by rule
	remove []string
}

// looked is what the look has found.
type looked struct {
	uidValidity uint64                    // of its messages, as they are fetched
	marks       *ledger.Mailbox           // what is to be recorded when all is dealt with; nil if that is nothing
	left        plan.Local                // what a dry run finds for the server when it has paired what is here
	matched     map[imap.UID]mail.Message // messages that were known by these UIDs before
	unmatched   []ledger.Message          // what was known by others, and is not there
}

// newBox begins the work in a mailbox of which the ledger knows this, and whose folder
// that says.
func (r *run) newBox(m mail.Mailbox, known ledger.Mailbox) *box {
	b := &box{
		Mailbox: m,
		agreed:  agreed{known, maildir.Dir(filepath.Join(r.Root, known.Folder))},
		wanted:  wanted{stubs: make(map[imap.UID]ledger.Message)},
	}
	b.line = deliver.NewMailbox(m.Name, b.dir,
		func(ctx context.Context) error { return r.recordMarks(ctx, b) },
		func(err error) { r.faults.mailbox(b, err) })
	b.line.Quiet = m.IsCalled(r.Trash) || m.For(`\Trash`, "Trash", "Deleted Items", "Deleted Messages") || m.For(`\Junk`, "Junk", "Spam") || plan.OwnFlags(m) != nil
	return b
}

// recordMarks moves the mailbox's marks on: all that the server told is dealt with. From then on its
// folder is known by the directory that it is, so that another one in its place is not taken for it.
func (r *run) recordMarks(ctx context.Context, b *box) error {
	if r.DryRun {
		return nil
	}
	if err := r.told.Over(ctx, b.Name); err != nil || b.marks == nil {
		return err
	}
	c := journal.Change{Mailbox: b.marks}
	if _, known, err := r.notes().Scanned.Get(ctx, b.Name); err != nil {
		return err
	} else if id := b.dir.Identity(); !known && id != "0" {
		r.notes().Scanned.Put(&c, b.Name, journal.ScanAgain(id))
	}
	if err := r.notes().Record(ctx, c); err != nil {
		return err
	}
	r.rep.Step("mailbox recorded")
	return nil
}

// path is where a file of the mailbox lies.
func (b *box) path(name string) string { return b.dir.Path(name) }
