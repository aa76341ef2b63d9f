package pipeline

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// For how long the tags of removed mail are kept, and of how many mails. A server may have
// left one out of one answer, or it is in another mailbox, which comes later: then it
// comes with its tags.
const (
	removedFor  = 90 * 24 * time.Hour
	removedMost = 10_000
)

// removedMails are those of the ledger, read when they are first needed.
func (r *run) removedMails(ctx context.Context) (map[string]journal.Removed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed != nil {
		return r.removed, nil
	}
	out, err := r.notes().Removed.All(ctx)
	if err != nil {
		return nil, err
	}
	r.removed = out
	return out, nil
}

// noteRemoved lets a change record the tags of a mail that is removed, and forget those
// that were removed long ago, or first of too many. What flags and keywords give comes
// with them, and what is an order is none a second time.
func (r *run) noteRemoved(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error {
	if tags == nil || row.Digest.IsZero() {
		return nil
	}
	all, err := r.removedMails(ctx)
	if err != nil {
		return err
	}
	fromFlags := func(t string) bool {
		return slices.ContainsFunc(plan.FlagRows(), func(f plan.FlagRow) bool { return f.Tag == t }) ||
			slices.ContainsFunc(row.Flags, func(f string) bool { return strings.EqualFold(plan.KeywordTag(f), t) })
	}
	m := journal.Removed{At: r.Now().UTC().Truncate(time.Second), Tags: slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return fromFlags(t) || r.IsOrder(t) })}
	key := row.Digest.String()
	r.notes().Removed.Put(c, key, m)
	r.mu.Lock()
	defer r.mu.Unlock()
	all[key] = m
	for k, old := range all {
		if m.At.Sub(old.At) > removedFor {
			r.notes().Removed.Forget(c, k)
			delete(all, k)
		}
	}
	if len(all) > removedMost {
		// Some more, so that this is not done for each.
		byAge := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return all[a].At.Compare(all[b].At) })
		for _, k := range byAge[:len(all)-removedMost+removedMost/20] {
			r.notes().Removed.Forget(c, k)
			delete(all, k)
		}
	}
	return nil
}

// rememberRemoved gives a mail that comes, and that was removed here before, the tags
// that it had in place of those of new mail, if notmuch has it not.
func (r *run) rememberRemoved(ctx context.Context, b *box, it *deliver.Item) error {
	if it.Op != deliver.OpAdd || it.Row.Digest.IsZero() {
		return nil
	}
	all, err := r.removedMails(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	m, ok := all[it.Row.Digest.String()]
	r.mu.Unlock()
	if !ok || r.Now().Sub(m.At) > removedFor {
		return nil
	}
	it.Add, it.Remove = r.arriving(b, it.Row.Flags, plan.ByOther)
	it.Tags = slices.DeleteFunc(slices.Clone(r.NewTags), func(t string) bool { return t != "unread" })
	for _, t := range m.Tags {
		if !r.IsOrder(t) {
			it.Tags = append(it.Tags, t)
		}
	}
	if it.Tags == nil {
		it.Tags = []string{}
	}
	return nil
}
