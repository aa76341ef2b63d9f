package pipeline

import (
	"context"
	"fmt"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/takeover"
)

// imported says why nothing may be done: a program went on between the take-over and the first
// sync, which cannot tell what that program has brought here from what its owner has changed, and
// would tell the server what it says no more. nil if none did.
func (r *run) imported(ctx context.Context) (*report.Failure, error) {
	mailbox, program, err := takeover.WentOn(ctx, r.Ledger)
	if err != nil || program == "" {
		return nil, err
	}
	return &report.Failure{Scope: report.ScopeAccount, Text: fmt.Sprintf("%s has gone on with %s since that was taken over, and a sync would turn back what it did; nothing was done: "+
		"end that program, and type `notmuch imap import %[1]s %[3]s` once more", program, mailbox, mail.Typed(r.Name))}, nil
}

// ownNow notes of mailboxes that from now on it is this program that synchronises them.
func (r *run) ownNow(ctx context.Context, boxes []*box) error {
	if r.DryRun || r.PairOnly {
		return nil
	}
	names := make(map[string]bool, len(boxes))
	for _, b := range boxes {
		names[b.Name] = true
	}
	return r.notes().Imported.DropWhere(ctx, func(mailbox string, _ journal.Imported) bool { return names[mailbox] })
}
