package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

// changed gives those of the mailboxes that are to be looked into.
func (r *run) changed(o *overview) []*box {
	boxes := slices.DeleteFunc(slices.Clone(o.boxes), func(b *box) bool { return b.need == plan.NeedNothing || o.isUnsettled(b) })
	r.rep.Tally(func(rep *report.Report) { rep.Changed = len(boxes) })
	return boxes
}

const (
	// worthCensus is how many messages come before anybody asks how many there are.
	worthCensus = 25
	// longestCensus is how long what is new waits for mailboxes that may have more.
	longestCensus = 10 * time.Second
)

// toCome guesses, by what the server's list says, how many messages are new.
func (r *run) toCome(boxes []*box) (n uint64) {
	for _, b := range boxes {
		switch {
		case b.Status == nil:
		case plan.Current(b.known, *b.Status) && b.known.UIDNext <= b.Status.UIDNext:
			n += min(uint64(b.Status.UIDNext-b.known.UIDNext), uint64(b.Status.Messages))
		default:
			n += uint64(b.Status.Messages)
		}
	}
	return n
}

// neverComplete gives the mailboxes of which no sync came to its end.
func neverComplete(boxes []*box) []*box {
	return slices.DeleteFunc(slices.Clone(boxes), func(b *box) bool { return b.known.Complete || b.barred })
}

// pull looks into mailboxes and fetches what is new in them, over as many connections as the
// account may have, of which first is one.
func (r *run) pull(ctx context.Context, first *worker, o *overview, boxes []*box) error {
	if r.looking == nil { // nothing was pushed
		r.looking = r.newLooking(o, push.Result{})
	}
	r.pool = pull.NewPool(boxes)
	if len(boxes) == 0 {
		first.conn.Close()
		return nil
	}
	if r.toCome(boxes) > worthCensus {
		defer r.pool.LookFirst(longestCensus)()
	}
	stop := context.AfterFunc(ctx, func() { r.pool.End() })
	defer stop()
	fetching := r.fetching(o)
	first.fetcher = fetching.Worker(fetchedOver{first.conn})
	workers, working := errgroup.WithContext(ctx)
	workers.Go(func() error { return first.loop(working) })
	for range r.Connections - 1 {
		w := &worker{run: r, conn: conn.New(r.Dial, r.Pause), spare: true}
		w.fetcher = fetching.Worker(fetchedOver{w.conn})
		workers.Go(func() error { return w.loop(working) })
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	r.sayLeft()
	return nil
}

// toFetch is the mailbox as it is fetched from.
func (b *box) toFetch() *pull.Mailbox {
	return &pull.Mailbox{Mailbox: b.line, UIDValidity: b.uidValidity, Stubs: b.stubs, Add: b.add, Remove: b.remove}
}

// fetching is what fetching needs of a run, when its mailboxes are known.
func (r *run) fetching(o *overview) *pull.Fetching {
	return pull.New(pull.Options{
		Line: r.line, Index: r.Index, Ledger: r.Ledger, Hooks: r.ask, Report: r.rep, Keys: &r.keys, Now: r.Now, Pause: r.Pause, Timeout: r.Timeout, Tags: &r.Tags,
		Origin: stub.Origin{Account: r.Name, Address: r.Address, Secret: r.secret.text, Exchange: o.exchange},
		Wanted: r.wants, Trash: o.trash, Carrier: r.Carrier, Shelf: r.shelf(),
		RestoreTags: func(ctx context.Context, m *pull.Mailbox, it *deliver.Item) error {
			return r.rememberRemoved(ctx, &r.Tags, arrival{m.Name, o.trash, m.Add, m.Remove}, it)
		},
		Known: func(ctx context.Context) ([]*pull.Mailbox, error) {
			known, err := r.knownBoxes(ctx)
			var out []*pull.Mailbox
			for _, name := range slices.Sorted(maps.Keys(known)) {
				out = append(out, known[name].toFetch())
			}
			return out, err
		},
		SendFlags: func(ctx context.Context, m *pull.Mailbox, row ledger.Message, after []string) error {
			return r.looking.SendFlags(ctx, m.Mailbox, row, after)
		},
	})
}

// fetchedOver lets a worker fetch over a connection.
type fetchedOver struct{ *conn.Conn[Session] }

// Enter gives a session on which the mailbox is open.
func (c fetchedOver) Enter(ctx context.Context, m *pull.Mailbox) (pull.Session, error) {
	err := c.Conn.Enter(ctx, m.Name, m.UIDValidity)
	return c.Session(), err
}

// EnterByHand gives it for what is asked for item by item.
func (c fetchedOver) EnterByHand(ctx context.Context, m *pull.Mailbox) (probe.Speaker, error) {
	err := c.Conn.Enter(ctx, m.Name, m.UIDValidity)
	return c.Session(), err
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
	text := "left for the next sync: " + strings.Join(lines, ", ")
	if r.gaveWay.Load() || len(r.rep.Report().Faults) > 0 {
		r.rep.Emit(report.Event{Type: report.EventNote, Text: text})
		return
	}
	r.rep.Fault(report.Failure{Scope: report.ScopeAccount, Text: text})
}
