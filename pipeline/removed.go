package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
)

// metaRemoved is where the ledger keeps, by content, the tags of mail that was removed
// here since the server has it no more. A server may have left it out of one answer, or
// it is in another mailbox, which comes later: then it comes with its tags.
const metaRemoved = "removed/"

// For how long, and for how many mails.
const (
	removedFor  = 90 * 24 * time.Hour
	removedMost = 10_000
)

// removedMail is what is kept of one.
type removedMail struct {
	Tags []string  `json:"tags"`
	At   time.Time `json:"at"`
}

// removedMails are those of the ledger, read when they are first needed.
func (r *run) removedMails(ctx context.Context) (map[string]removedMail, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed != nil {
		return r.removed, nil
	}
	texts, err := r.Ledger.Metas(ctx, metaRemoved)
	if err != nil {
		return nil, err
	}
	out := make(map[string]removedMail, len(texts))
	for key, text := range texts {
		var m removedMail
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return nil, fmt.Errorf("the ledger's note of the tags of removed mail cannot be read: %w", err)
		}
		out[key] = m
	}
	r.removed = out
	return out, nil
}

// noteRemoved lets a change record the tags of a mail that is removed, and forget those
// that were removed long ago, or first of too many. What flags and keywords give comes
// with them, and what is an order is none a second time.
func (r *run) noteRemoved(ctx context.Context, c ledger.Change, row ledger.Message, tags []string) error {
	if tags == nil || row.Digest.IsZero() {
		return nil
	}
	all, err := r.removedMails(ctx)
	if err != nil {
		return err
	}
	fromFlags := func(t string) bool {
		return slices.ContainsFunc(plan.FlagRows(), func(f plan.FlagRow) bool { return f.Tag == t }) ||
			slices.ContainsFunc(row.Flags, func(f string) bool { return strings.EqualFold(keywordTag(f), t) })
	}
	m := removedMail{At: r.Now().UTC().Truncate(time.Second), Tags: slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return fromFlags(t) || r.isOrder(t) })}
	key := metaRemoved + row.Digest.String()
	if err := set(c, key, m); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all[key] = m
	for k, old := range all {
		if m.At.Sub(old.At) > removedFor {
			c.Metas[k] = ""
			delete(all, k)
		}
	}
	if len(all) > removedMost {
		// Some more, so that this is not done for each.
		byAge := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return all[a].At.Compare(all[b].At) })
		for _, k := range byAge[:len(all)-removedMost+removedMost/20] {
			c.Metas[k] = ""
			delete(all, k)
		}
	}
	return nil
}

// rememberRemoved gives a mail that comes, and that was removed here before, the tags
// that it had in place of those of new mail, if notmuch has it not.
func (r *run) rememberRemoved(ctx context.Context, it *item) error {
	if it.op != opAdd || it.row.Digest.IsZero() {
		return nil
	}
	all, err := r.removedMails(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	m, ok := all[metaRemoved+it.row.Digest.String()]
	r.mu.Unlock()
	if !ok || r.Now().Sub(m.At) > removedFor {
		return nil
	}
	it.add, it.remove = r.arriving(it.box, it.row.Flags, byOther)
	it.tags = slices.DeleteFunc(slices.Clone(r.NewTags), func(t string) bool { return t != "unread" })
	for _, t := range m.Tags {
		if !r.isOrder(t) {
			it.tags = append(it.tags, t)
		}
	}
	if it.tags == nil {
		it.tags = []string{}
	}
	return nil
}
