package probe

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// mostAtOnce bounds how many messages one command names.
const mostAtOnce = 500

// Lister tells which mailboxes there are.
type Lister interface {
	// List gives all mailboxes with their status, in as few round trips as the
	// server allows.
	List(ctx context.Context, how mail.Listing) ([]mail.Mailbox, error)
}

// Transferrer moves messages of the selected mailbox. A fault of Move or Copy has the code
// TRYCREATE if the other mailbox is not there.
type Transferrer interface {
	Move(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error)
	Copy(ctx context.Context, uids imap.UIDSet, to string) (mail.Copied, error)
	Create(ctx context.Context, mailbox string) error
}

// Marker sets and clears flags of messages of the selected mailbox.
type Marker interface {
	Store(ctx context.Context, uids imap.UIDSet, set bool, flag string) error
}

// Expunger removes messages that are marked \Deleted.
type Expunger interface {
	// Has tells whether a capability may be used.
	Has(capability string) bool
	// Deleted gives the messages that are marked \Deleted.
	Deleted(ctx context.Context) (imap.UIDSet, error)
	// ExpungeUIDs removes those of the messages that are marked (RFC 4315 2.1).
	ExpungeUIDs(ctx context.Context, uids imap.UIDSet) error
	// ExpungeMarked removes all that are marked, whoever marked them: only
	// ExpungeOnly calls it.
	ExpungeMarked(ctx context.Context) error
}

// Transfer moves or copies messages of the selected mailbox into another one, which is
// made if it is not there. step is told of that.
func Transfer(ctx context.Context, s Transferrer, move bool, uids []imap.UID, to string, step func(effect string)) (mail.Copied, error) {
	verb := s.Copy
	if move {
		verb = s.Move
	}
	out, err := verb(ctx, mail.UIDSet(uids), to)
	if f, ok := mail.Refused(err); !ok || f.Kind != mail.KindNo || !strings.HasPrefix(f.Code, "TRYCREATE") {
		return out, err
	}
	if err := s.Create(ctx, to); err != nil {
		return out, err
	}
	step("mailbox made")
	return verb(ctx, mail.UIDSet(uids), to)
}

// Store sets or clears a flag of messages, some at once. step is told after each command.
func Store(ctx context.Context, s Marker, uids []imap.UID, set bool, flag string, step func(effect string)) error {
	for part := range slices.Chunk(slices.Sorted(slices.Values(uids)), mostAtOnce) {
		if err := s.Store(ctx, mail.UIDSet(part), set, flag); err != nil {
			return err
		}
		step("flags stored")
	}
	return nil
}

// ExpungeOnly removes exactly these messages, which are marked \Deleted. A server without
// UIDPLUS can only remove all that are marked: it is asked for these first, and unless all
// of them are ours nothing is done. Then done is false, and marked are all of them; none
// means that ours are gone, or that the answer is wrong. Another client may mark a message
// between that answer and the next command, for which there is no remedy; it would have
// expunged it itself. step is told after each command.
func ExpungeOnly(ctx context.Context, s Expunger, mailbox string, uids []imap.UID, step func(effect string)) (marked []imap.UID, done bool, err error) {
	uids = slices.Sorted(slices.Values(uids))
	if s.Has("UIDPLUS") {
		for part := range slices.Chunk(uids, mostAtOnce) {
			if err := s.ExpungeUIDs(ctx, mail.UIDSet(part)); err != nil {
				return nil, false, err
			}
			step("messages expunged")
		}
		return nil, true, nil
	}
	marked, err = marks(ctx, s, mailbox)
	if err != nil || len(marked) == 0 || slices.ContainsFunc(marked, func(u imap.UID) bool {
		_, ours := slices.BinarySearch(uids, u)
		return !ours
	}) {
		return marked, false, err
	}
	if err := s.ExpungeMarked(ctx); err != nil {
		return nil, false, err
	}
	step("messages expunged")
	return nil, true, nil
}

// marks gives the messages that are marked \Deleted.
func marks(ctx context.Context, s Expunger, mailbox string) ([]imap.UID, error) {
	set, err := s.Deleted(ctx)
	if err != nil {
		return nil, err
	}
	uids, ok := mail.UIDList(set, mail.MaxUIDs)
	if !ok {
		return nil, &mail.Fault{Kind: mail.KindMalformed, Op: "UID SEARCH", Mailbox: mailbox, Text: "a list of deleted messages that cannot be true"}
	}
	return uids, nil
}

// DeletedSince tells whether the server has a mailbox no more, which it has just
// refused to open: that may be for today only.
func DeletedSince(ctx context.Context, s Lister, mailbox string) bool {
	list, err := s.List(ctx, mail.Listing{Skip: func(b mail.Mailbox) bool { return b.Name != mailbox }})
	return err == nil && len(list) > 0 && !slices.ContainsFunc(list, func(b mail.Mailbox) bool {
		return b.Name == mailbox && (b.Status != nil || b.Err != nil)
	})
}
