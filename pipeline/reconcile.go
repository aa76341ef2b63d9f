package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
)

// reconcile makes of what is here in all mailboxes, by name, what the server is to be told.
// What is there is compared mailbox by mailbox, when it is looked into.
func (r *run) reconcile(ctx context.Context, o *overview) (map[string]*plan.Outgoing, error) {
	every := slices.Concat(o.boxes, o.unselected)
	views := r.views(o, every)
	still, err := r.here.Unchanged(views)
	if err != nil {
		return nil, err
	}
	locals, err := r.here.Locals(ctx, views, r.views(o, o.detached))
	if err != nil {
		return nil, err
	}
	every = slices.Concat(every, o.detached)
	r.sayUnreadable(every)
	policy := plan.Policy{
		Deletions: r.Deletions, Yes: r.yes, Held: r.standing.Before(push.Held), Daily: o.daily, Restore: r.Restore,
		Whole: still && !o.scansUnstable, Some: len(r.Only) > 0,
		Tags: &r.Tags, Told: r.told.Before(),
		Unread: slices.ContainsFunc(every, func(b *box) bool { return b.local.Unread }),
	}
	plans := plan.OfFolders(locals, policy)
	if policy.Whole && !policy.Unread && !r.ReadOnly {
		r.nothingLacks(o.boxes, plans)
	}
	for name, p := range plans {
		for _, f := range p.Twins {
			if err := r.here.SayTwin(ctx, name, f); err != nil {
				return nil, err
			}
		}
	}
	return plans, nil
}

// yes tells whether a person has let a mailbox's deletions past the guard.
func (r Request) yes(mailbox string) bool {
	return r.YesDelete || slices.Contains(r.YesDeleteIn, mailbox)
}
