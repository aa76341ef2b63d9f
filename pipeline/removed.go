package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// arrival is where a mail comes to.
type arrival struct {
	mailbox, trash string
	add, remove    []string // tags by rule
}

// rememberRemoved gives a mail that comes, and that was removed here before, the tags
// that it had in place of those of new mail, if notmuch has it not.
func (n noted) rememberRemoved(ctx context.Context, t *plan.Tags, to arrival, it *deliver.Item) error {
	if it.Op != deliver.OpAdd || it.Row.Digest.IsZero() {
		return nil
	}
	tags, ok, err := n.removed.TagsOf(ctx, it.Row.Digest)
	if err != nil || !ok {
		return err
	}
	it.Add, it.Remove = t.Arriving(to.mailbox, to.trash, it.Row.Flags, to.add, to.remove, plan.ByOther)
	it.Tags = slices.DeleteFunc(slices.Clone(t.NewTags), func(t string) bool { return t != "unread" })
	for _, tag := range tags {
		if !t.IsOrder(tag) {
			it.Tags = append(it.Tags, tag)
		}
	}
	if it.Tags == nil {
		it.Tags = []string{}
	}
	return nil
}
