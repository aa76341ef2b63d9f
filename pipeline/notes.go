package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// lineNotes is the journal as the line writes it: what else was noted of a message goes
// with its record, so far as this run knows of it.
type lineNotes struct {
	*journal.Journal
	run *run
}

// Recorded lets a change record rows, and forget what was noted until then.
func (n lineNotes) Recorded(c *journal.Change, rows []ledger.Message) {
	n.run.haveArrived(c, rows)
	n.run.told.Forget(c, rows...)
}

// Deleted lets a change forget what was noted of a message that is gone. tags are those
// that its mail had, if it is to get them when it comes again.
func (n lineNotes) Deleted(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error {
	n.run.forgetRuled(c, row)
	n.run.told.Forget(c, row)
	n.run.forgetLinks(c, row)
	return n.run.noteRemoved(ctx, c, row, tags)
}

// ToldGone lets a change forget that notmuch was yet to hear of a file, by the row that
// went before.
func (n lineNotes) ToldGone(c *journal.Change, row ledger.Message) {
	n.Forgotten.Forget(c, journal.About(row))
}
