package deliver

import (
	"context"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

const (
	// aheadAfter is how many mails come into notmuch one after the other: the newest, which their
	// owner looks for.
	aheadAfter = 500
	// aheadFrom is how many have to be still to come, for more processes to be worth it.
	aheadFrom = 2000
	// aheadMost bounds how many are held for that.
	aheadMost = 50_000
)

// ahead takes all mail that comes now beside batch, where it comes so much faster than it is indexed
// that more waits than was indexed meanwhile, and has it indexed ahead, once in a run. What comes
// of it is indexed and recorded as any other batch: that it is in notmuch already makes that short.
func (l *Line) ahead(ctx context.Context, batch []*Item) ([]*Item, error) {
	if l.Ahead == nil || l.new < l.after || l.Report.Left() < l.from || 2*(len(batch)+len(l.written)) < 3*l.new {
		return batch, nil
	}
	index := l.Ahead
	l.Ahead = nil
	quiet := time.NewTimer(indexDelay)
	defer quiet.Stop()
gather:
	for len(batch) < aheadMost {
		select {
		case e := <-l.written: // without an item, nothing more comes
			if e.item == nil {
				break gather
			}
			batch = append(batch, e.item)
			quiet.Reset(indexDelay)
		case <-quiet.C:
			break gather
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	changes := make([]mail.Change, 0, len(batch))
	for _, it := range batch {
		if it.Op != OpAdd {
			continue
		}
		c, err := it.change(l.NewTags)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	if err := index(ctx, changes, l.new, l.Report.Indexing()); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		l.Report.Note("", "%v; one does it, which takes longer", err)
	}
	return batch, nil
}
