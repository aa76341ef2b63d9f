package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// changed gives those of the mailboxes that are to be looked into.
func (r *run) changed(boxes []*box) []*box {
	boxes = slices.DeleteFunc(boxes, func(b *box) bool { return b.need == plan.NeedNothing || r.isUnsettled(b) })
	r.tally(func(rep *report.Report) { rep.Changed = len(boxes) })
	return boxes
}

// pull looks into mailboxes and fetches what is new in them, over as many connections as the
// account may have, of which first is one.
func (r *run) pull(ctx context.Context, first *worker, boxes []*box) error {
	if len(boxes) == 0 {
		first.conn.Close()
		return nil
	}
	r.pool = pull.NewPool(boxes)
	stop := context.AfterFunc(ctx, func() { r.pool.End() })
	defer stop()
	workers, working := errgroup.WithContext(ctx)
	workers.Go(func() error { return first.loop(working) })
	for range r.Connections - 1 {
		w := &worker{run: r, conn: conn.New(r.Dial), spare: true}
		workers.Go(func() error { return w.loop(working) })
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	r.sayLeft()
	return nil
}

// sayLeft tells what this run did not bring, in one line.
func (r *run) sayLeft() {
	var lines []string
	unseen := 0
	for _, l := range r.pool.Left() {
		if l.Unseen {
			unseen++
		} else {
			lines = append(lines, fmt.Sprintf("%s of %s", mail.Number(l.Messages, "message", "messages"), l.Mailbox.Name))
		}
	}
	if unseen > 0 {
		lines = append(lines, "what is new in "+mail.Number(unseen, "mailbox", "mailboxes"))
	}
	if len(lines) == 0 {
		return
	}
	text := "left for the next run: " + strings.Join(lines, ", ")
	if len(r.rep.Report().Faults) > 0 {
		r.emit(report.Event{Type: report.EventNote, Text: text})
		return
	}
	r.fault(report.Failure{Scope: report.ScopeAccount, Text: text})
}
