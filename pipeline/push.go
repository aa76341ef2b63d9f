package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/look"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
)

// pushedOver lets a push work over a connection.
type pushedOver struct{ *conn.Conn[Session] }

// Session gives what a push needs of the session.
func (c pushedOver) Session() push.Session {
	s := c.Conn.Session()
	return push.Session{Describer: s, Writer: s, Expunger: s}
}

// newPusher gives the one by which this run tells the server what changed here.
func (r *run) newPusher() *push.Pusher {
	return push.New(push.Options{
		Account: r.Name, Line: r.line, Ledger: r.Ledger, Here: r.here, Hooks: r.ask, Match: r.match, Report: r.rep, Now: r.Now, Pause: r.Pause,
		Journal: r.notes(), Told: r.told, Arrivals: r.arrivals, Ruled: r.ruled, Old: r.old,
		Tags: &r.Tags, Deletions: r.Deletions,
		ReadOnly: r.ReadOnly, DryRun: r.DryRun, Plan: r.DryRun && r.Plan, Full: r.Full, Restore: r.Restore, Some: len(r.Only) > 0, UploadHere: r.UploadHere,
		Standing: r.faults.stays, Again: r.sendsAgain,
		InNotmuch: r.inNotmuch,
		LeftOut:   func(mailbox string) bool { return r.unanswered.LeavesOut(mailbox) != "" },
	})
}

// toPush is the mailbox as the server is told of it.
func (b *box) toPush() *push.Mailbox {
	return &push.Mailbox{
		Mailbox: b.line, Listed: b.Mailbox, Known: b.known, Local: b.local.Local, Scanned: b.local.Scanned, Add: b.add, Remove: b.remove,
		Due: b.need != plan.NeedNothing,
	}
}

// takePush takes over what a push has done in the mailbox.
func (b *box) takePush(m *push.Mailbox) {
	b.pushed, b.local.Local, b.local.Scanned = m.Pushed, m.Local, m.Scanned
	if m.Look {
		b.need = plan.NeedChanges
	}
	if m.Incomplete {
		b.known.Complete = false
	}
}

// push tells the server what the user changed here, before anything is fetched.
func (w *worker) push(ctx context.Context, o *overview, plans map[string]*plan.Outgoing) error {
	orders := push.Orders{Plans: plans, Trash: o.trash, Tags: o.tags, ListedAt: o.at}
	all := slices.Concat(o.boxes, o.unselected)
	for i, b := range all {
		m := b.toPush()
		m.Aside, m.NotThere = i >= len(o.boxes), !o.listed[b.Name]
		orders.Mailboxes = append(orders.Mailboxes, m)
	}
	did, err := w.pusher.Push(ctx, pushedOver{w.conn}, orders)
	if err != nil {
		return err
	}
	for i, b := range all {
		b.takePush(orders.Mailboxes[i])
	}
	w.looking = w.newLooking(o, did)
	var moved []*look.Mailbox
	for _, b := range all {
		moved = append(moved, b.toLook())
	}
	for _, b := range o.detached {
		moved = append(moved, b.toLook())
	}
	return w.looking.Over(lookedOver{w.conn}).FindStrays(ctx, moved, append(did.Unmade, outOfLeft(o, plans)...))
}

// outOfLeft gives the moves of messages by whose UIDs the server can be asked no more: out of mailboxes
// that it lists no more, and of UIDVALIDITYs that others had. It may have moved their mail, too.
func outOfLeft(o *overview, plans map[string]*plan.Outgoing) (out []plan.Unmade) {
	for _, b := range slices.Concat(o.detached, o.boxes, o.unselected) {
		p := plans[b.Name]
		if p == nil || b.Status == nil && o.listed[b.Name] {
			continue
		}
		for _, to := range o.boxes {
			for _, m := range p.Waiting[to.Name] {
				if b.Status == nil || m.Row.UIDValidity != b.Status.UIDValidity {
					out = append(out, plan.Unmade{Move: m, To: to.Name})
				}
			}
		}
	}
	return out
}
