package pipeline

import (
	"context"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
)

// noteRemoved lets a change record the tags of a mail that is removed. What flags and
// keywords give comes with them, and what is an order is none a second time.
func (r *run) noteRemoved(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error {
	if tags == nil || row.Digest.IsZero() {
		return nil
	}
	fromFlags := func(t string) bool {
		return slices.ContainsFunc(plan.FlagRows(), func(f plan.FlagRow) bool { return f.Tag == t }) ||
			slices.ContainsFunc(row.Flags, func(f string) bool { return strings.EqualFold(plan.KeywordTag(f), t) })
	}
	return r.removed.Note(ctx, c, row.Digest, slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return fromFlags(t) || r.IsOrder(t) }))
}

// rememberRemoved gives a mail that comes, and that was removed here before, the tags
// that it had in place of those of new mail, if notmuch has it not.
func (r *run) rememberRemoved(ctx context.Context, m *pull.Mailbox, it *deliver.Item) error {
	if it.Op != deliver.OpAdd || it.Row.Digest.IsZero() {
		return nil
	}
	tags, ok, err := r.removed.TagsOf(ctx, it.Row.Digest)
	if err != nil || !ok {
		return err
	}
	it.Add, it.Remove = r.Arriving(m.Name, r.trashName(), it.Row.Flags, m.Add, m.Remove, plan.ByOther)
	it.Tags = slices.DeleteFunc(slices.Clone(r.NewTags), func(t string) bool { return t != "unread" })
	for _, t := range tags {
		if !r.IsOrder(t) {
			it.Tags = append(it.Tags, t)
		}
	}
	if it.Tags == nil {
		it.Tags = []string{}
	}
	return nil
}
