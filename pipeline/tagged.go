package pipeline

import (
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// What tags order: that a mail goes to another mailbox, or that it is deleted.
// Only the server is told. The look that follows finds the mail where it went,
// links its file there and takes it away here, as if another program had moved
// it: so the server's own moves and deletions win, and there is nothing to put
// right after a crash.

// trashName is the mailbox that is the account's Trash, "" if there is none.
func (r *run) trashName() string {
	if r.trash == nil {
		return ""
	}
	return r.trash.Name
}

// arriving gives the tags of a mail that comes to a mailbox.
func (r *run) arriving(b *box, flags []string, by plan.Arrival) (add, remove []string) {
	return r.Arriving(b.Name, r.trashName(), flags, b.add, b.remove, by)
}
