package journal

import (
	"context"
	"maps"
	"sync"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
)

// OldTags are the tags by which something would be ordered of files, and that their messages
// had, or did not have, before these files were there. notmuch has one set of tags for all files
// of a message, and no times: what was said of one file would be done to the next that comes. It
// is noted before notmuch hears of a file, so that a run that is stopped leaves it to the next
// one, and kept while the tag stays as it was.
type OldTags struct {
	journal *Journal

	mu  sync.Mutex
	all map[string]map[string]bool // by AboutFile; nil: not read yet
}

// NewOldTags starts a run's.
func NewOldTags(j *Journal) *OldTags { return &OldTags{journal: j} }

// read reads them when they are first needed. The caller holds mu.
func (o *OldTags) read(ctx context.Context) (err error) {
	if o.all == nil {
		o.all, err = o.journal.Old.All(ctx)
	}
	return err
}

// Of gives those of a file; ok is false if nothing was noted of it.
func (o *OldTags) Of(ctx context.Context, mailbox, key string) (tags map[string]bool, ok bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.read(ctx); err != nil {
		return nil, false, err
	}
	tags, ok = o.all[AboutFile(mailbox, key)]
	return maps.Clone(tags), ok, nil
}

// Put lets a change note those of a file; also that there are none.
func (o *OldTags) Put(c *Change, mailbox, key string, tags map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.put(c, AboutFile(mailbox, key), tags)
}

func (o *OldTags) put(c *Change, about string, tags map[string]bool) {
	o.journal.Old.Put(c, about, tags)
	if o.all != nil {
		o.all[about] = maps.Clone(tags)
	}
}

// Follow lets a change note of a file what was noted of the one in whose place it is, or will
// be.
func (o *OldTags) Follow(ctx context.Context, c *Change, from, to ledger.Message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.read(ctx); err != nil {
		return err
	}
	if tags, ok := o.all[AboutFile(from.Mailbox, from.Key)]; ok {
		o.put(c, AboutFile(to.Mailbox, to.Key), tags)
	}
	return nil
}

// Recorded lets a change that records rows forget that nothing was noted of their files.
func (o *OldTags) Recorded(c *Change, rows []ledger.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, row := range rows {
		if tags, ok := o.all[AboutFile(row.Mailbox, row.Key)]; ok && len(tags) == 0 {
			o.forget(c, row)
		}
	}
}

// Forget lets a change forget what was noted of files that are gone.
func (o *OldTags) Forget(c *Change, rows ...ledger.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, row := range rows {
		if _, ok := o.all[AboutFile(row.Mailbox, row.Key)]; row.Key != "" && (ok || o.all == nil) {
			o.forget(c, row)
		}
	}
}

func (o *OldTags) forget(c *Change, row ledger.Message) {
	about := AboutFile(row.Mailbox, row.Key)
	o.journal.Old.Forget(c, about)
	delete(o.all, about)
}
