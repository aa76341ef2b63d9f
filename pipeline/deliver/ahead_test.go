package deliver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// waiting is a notmuch that is at its first mails until all are written.
type waiting struct {
	*world
	whole chan struct{}
}

func (w waiting) Apply(ctx context.Context, cs []mail.Change) ([]mail.Result, error) {
	select {
	case <-w.whole:
	case <-time.After(5 * time.Minute):
		return nil, errors.New("nothing more is written")
	}
	return w.world.Apply(ctx, cs)
}

// Where much mail waits for notmuch, what is new of it is indexed ahead, once, behind the first
// of it; and told and recorded as ever, whatever comes of that.
func TestMuchMailIsIndexedAhead(t *testing.T) {
	t.Parallel()
	const n = 40
	for name, c := range map[string]struct {
		after, from int
		err         error
		times       int
	}{
		"much":           {after: 1, from: 20, times: 1},
		"little":         {after: 1, from: 2 * n},
		"none before it": {after: n, from: 20},
		"it fails":       {after: 1, from: 20, err: errors.New("no room"), times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var keys []string
			for i := range n {
				keys = append(keys, fmt.Sprint("m", i))
			}
			w, settled := &world{}, 0
			b := mailbox(t, func(context.Context) error { settled++; return nil }, keys...)
			notmuch := waiting{w, make(chan struct{})}
			l := w.line()
			l.Index, l.after, l.from = notmuch, c.after, c.from
			// The first mail alone is a batch.
			l.Batch = 1
			said := ""
			l.Report = report.NewReporter(report.Report{}, time.Now, func(e report.Event) bool { said += e.Text; return true }, nil)
			l.Report.Expect(report.Amount{Messages: n})
			times, told := 0, 0
			l.Ahead = func(_ context.Context, changes []mail.Change, own int, progress func(int)) error {
				times, told = times+1, len(w.told)
				progress(len(changes))
				if own != told || own+len(changes) != n-1 {
					t.Errorf("%d of %d changes told, %d its own, %d to come", told, n, own, len(changes))
				}
				for _, c := range changes {
					if c.Op != mail.OpAdd {
						t.Errorf("%+v is not new", c)
					}
				}
				return c.err
			}
			err := l.Run(t.Context(), func(ctx context.Context) error {
				for i, key := range keys {
					it := add(b, imap.UID(i+1), key)
					if i == n/2 {
						it.Op = OpFlag
					}
					if err := l.Send(ctx, it); err != nil {
						return err
					}
				}
				for len(l.written) < n-1 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				close(notmuch.whole)
				return b.End(ctx)
			})
			if err != nil || times != c.times || len(w.told) != n || len(w.rows) != n || settled != 1 {
				t.Errorf("%v; ahead %d times; %d told, %d recorded, settled %d times", err, times, len(w.told), len(w.rows), settled)
			}
			if (c.err != nil) != strings.Contains(said, "no room") {
				t.Errorf("it said %q", said)
			}
		})
	}
}
