package pipeline

import (
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
)

// listing is what the server tells of the account as a whole.
type listing struct {
	mailboxes []mail.Mailbox
	at        time.Time // when it told them
	exchange  bool      // the server is Exchange, so far as it shows
	// unsettled are mailboxes of which it is not known what an interrupted run has put
	// there, with what that may be.
	unsettled map[string][]ledger.Message
}

// isUnsettled tells whether nothing is to be done in the mailbox now.
func (l *listing) isUnsettled(b *box) bool {
	_, ok := l.unsettled[b.Name]
	return ok
}

// overview is what the two views tell of the account as a whole, and which mailboxes are
// worked on for that. It is complete when the mailboxes of new folders are made.
type overview struct {
	*listing
	listed map[string]bool // names that the server has
	trash  string          // the mailbox that is the account's Trash; "" if it has none
	daily  map[string]bool // mailboxes that are emptied in daily life

	boxes           []*box        // to be synchronised
	unselected      []*box        // not to be synchronised now, but mail may be in their folders
	foldersToCreate []*box        // folders of which the server is to make mailboxes
	detached        []*box        // folders whose mail the server cannot have now, also since it did not make their mailboxes
	gone            []local.Gone  // those of them that the server has no more, which was not said yet
	scansUnstable   bool          // folders changed all the while they were scanned
	tags            mail.Revision // the notmuch database when its tags were looked at; zero if some are to be looked at again

	mayHaveMoved bool            // mail may have moved between mailboxes: look before downloading
	stays        map[string]bool // mailboxes that no message has left, as far as is known
}
