package pipeline

import (
	"context"
	"path/filepath"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
)

// box is one mailbox while it is worked on: as the server lists it, and in parts by who
// writes them. One goroutine at a time works on a mailbox, until its batches are given out;
// from then on all but what is said to be guarded is constant.
type box struct {
	mail.Mailbox
	line   *deliver.Mailbox
	local  local.Folder // what is here, less what the push has dealt with
	barred bool         // that its folder could not be read was said
	agreed
	wanted
	push.Outcome // what the push has done; the look takes out what it finds
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

// looked is what the look has found on the server.
type looked struct {
	now        mail.Status    // as EXAMINE had it
	identified []mail.Message // messages that EXAMINE told more of
	witnesses  []imap.UID     // whose identity tells whether UIDs mean what they meant

	// guarded by run.mu
	// unsettled: flags on the server differ from the rows', and are to be told again.
	unsettled bool
	// suspect is set where so much is gone from the server that it is to be judged when
	// all that came is known.
	suspect *plan.Suspicion
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
		func(ctx context.Context) error { return r.settled(ctx, b) },
		func(err error) { r.mailboxFault(b, err) })
	b.line.Quiet = m.Name == r.Trash || m.For(`\Trash`, "Trash", "Deleted Items", "Deleted Messages") || m.For(`\Junk`, "Junk", "Spam") || plan.OwnFlags(m) != nil
	return b
}
