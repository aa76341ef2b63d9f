package report_test

import (
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// TestALargeMailIsSeenComing while it comes, and once: what is thrown away counts no more, and
// what is recorded not twice.
func TestALargeMailIsSeenComing(t *testing.T) {
	t.Parallel()
	var seen []report.Event
	r := report.NewReporter(report.Report{Account: "work"}, time.Now, func(e report.Event) bool { seen = append(seen, e); return true }, nil)
	last := func() report.Event { return seen[len(seen)-1] }
	const size, piece = 10 << 20, 16 << 10
	r.Expect(report.Amount{Messages: 2, Bytes: 2 * size})
	come := func(bytes int) {
		for range bytes / piece {
			r.Flown(piece)
		}
	}
	come(size / 2)
	if e := last(); e.Done != 0 || e.Total != 2 || e.DoneBytes != size/2 || len(seen) > size/piece/4 {
		t.Errorf("half of it: %+v, %d events", e, len(seen))
	}
	r.Flown(-size / 2) // the connection was lost
	come(size)
	if e := last(); e.DoneBytes != size {
		t.Errorf("all of it, the second time: %+v", e)
	}
	r.Came(size, size)
	r.Progress()
	if e := last(); e.Done != 1 || e.DoneBytes != size {
		t.Errorf("recorded: %+v", e)
	}
	r.Expect(report.Amount{Messages: 1})
	r.Announced(size) // of a message whose size was not known
	come(size)
	if e := last(); e.Total != 3 || e.TotalBytes != 3*size || e.DoneBytes != 2*size {
		t.Errorf("announced as it came: %+v", e)
	}
	r.Came(0, size)
	r.Progress()
	if e := last(); e.Done != 2 || e.TotalBytes != 3*size || e.DoneBytes != 2*size {
		t.Errorf("recorded: %+v", e)
	}
	come(3 * size) // more than was announced
	if e := last(); e.DoneBytes != 3*size {
		t.Errorf("more than there is: %+v", e)
	}
}
