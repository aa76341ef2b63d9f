package journal

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// For how long the tags of removed mail are kept, and of how many mails. A server may have
// left one out of one answer, or it is in another mailbox, which comes later: then it
// comes with its tags.
const (
	removedFor  = 90 * 24 * time.Hour
	removedMost = 10_000
)

// RemovedMail is the tags of mail that was removed here.
type RemovedMail struct {
	journal *Journal
	now     func() time.Time

	mu  sync.Mutex
	all map[string]Removed // by the content's digest; nil: not read yet
}

// NewRemovedMail starts a run's.
func NewRemovedMail(j *Journal, now func() time.Time) *RemovedMail {
	return &RemovedMail{journal: j, now: now}
}

// read reads them when they are first needed. The caller holds mu.
func (r *RemovedMail) read(ctx context.Context) (err error) {
	if r.all == nil {
		r.all, err = r.journal.Removed.All(ctx)
	}
	return err
}

// Note lets a change record the tags of a mail that is removed, and forget those that were
// removed long ago, or first of too many.
func (r *RemovedMail) Note(ctx context.Context, c *Change, content mail.Digest, tags []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.read(ctx); err != nil {
		return err
	}
	m := Removed{At: r.now().UTC().Truncate(time.Second), Tags: tags}
	r.journal.Removed.Put(c, content.String(), m)
	r.all[content.String()] = m
	forget := func(key string) {
		r.journal.Removed.Forget(c, key)
		delete(r.all, key)
	}
	for key, old := range r.all {
		if m.At.Sub(old.At) > removedFor {
			forget(key)
		}
	}
	if len(r.all) > removedMost {
		// Some more, so that this is not done for each.
		byAge := slices.SortedFunc(maps.Keys(r.all), func(a, b string) int { return r.all[a].At.Compare(r.all[b].At) })
		for _, key := range byAge[:len(r.all)-removedMost+removedMost/20] {
			forget(key)
		}
	}
	return nil
}

// TagsOf gives the tags that a mail had when it was removed here; ok is false if it was not,
// or too long ago.
func (r *RemovedMail) TagsOf(ctx context.Context, content mail.Digest) (tags []string, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.read(ctx); err != nil {
		return nil, false, err
	}
	m, ok := r.all[content.String()]
	return m.Tags, ok && r.now().Sub(m.At) <= removedFor, nil
}
