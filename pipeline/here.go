package pipeline

import (
	"context"
	"fmt"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
)

// place is the mailbox as its folder is read.
func (b *box) place() local.Mailbox {
	return local.Mailbox{Name: b.Name, Known: b.known, Status: b.Status, Dir: b.dir}
}

// views are mailboxes with what is here of them.
func (r *run) views(boxes []*box) []local.View {
	out := make([]local.View, len(boxes))
	for i, b := range boxes {
		out[i] = local.View{
			Mailbox: b.place(), Folder: &b.local, Unsettled: r.unsettled[b.Name],
			Unasked: len(r.Only) > 0 && !r.Restore && slices.Contains(r.unselected, b),
		}
	}
	return out
}

// scanBox reads a mailbox's folder. That it cannot be read costs only this mailbox.
func (r *run) scanBox(ctx context.Context, b *box) (err error) {
	b.local, err = r.here.Scan(ctx, b.place(), r.prescan)
	r.sayUnreadable([]*box{b})
	return err
}

// sayUnreadable says of mailboxes that their folders cannot be read.
func (r *run) sayUnreadable(boxes []*box) {
	for _, b := range boxes {
		if b.local.Err != nil && !b.barred {
			r.mailboxFault(b, fmt.Errorf("its folder cannot be read, so that nothing of it goes to the server, "+
				"and what is gone from other folders waits, since it may be here: %w", b.local.Err))
			b.barred = true
		}
	}
}
