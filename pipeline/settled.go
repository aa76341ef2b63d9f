package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// Settled tells whether all that is here is as it was agreed on with the server, and as notmuch was
// told of it: a sync would do no more than ask the server whether that has news. It reads, and
// changes nothing. What it is not sure of is not settled. The options are those of the sync.
func Settled(ctx context.Context, o Options) (bool, error) {
	o.DryRun, o.Hooks, o.Step, o.Emit = true, nil, nil, func(report.Event) bool { return true }
	r := newRun(o.withDefaults())
	if r.ReadOnly || r.HasRules() && r.Trash == "" {
		return false, nil // the server knows which mailbox is the Trash
	}
	if left, err := unended(ctx, o.Ledger); err != nil || left {
		return false, err
	}
	known, err := r.Ledger.Mailboxes(ctx)
	if err != nil || len(known) == 0 {
		return false, err
	}
	folders := make(map[string]bool)
	var views []local.View
	for _, k := range known {
		b := r.knownBox(k)
		if !r.selects(b.Mailbox) {
			continue
		}
		b.Status = &mail.Status{UIDValidity: k.UIDValidity, UIDNext: k.UIDNext, Messages: k.Messages, HighestModSeq: k.HighestModSeq}
		place := b.place()
		folder, err := r.here.Scan(ctx, place, nil)
		if err != nil || !place.Agreed() || !same(&folder) {
			return false, err
		}
		folders[k.Folder] = true
		views = append(views, local.View{Mailbox: place, Folder: &folder})
	}
	here, err := maildir.Folders(r.Root)
	if err != nil || slices.ContainsFunc(here, func(f string) bool { return !folders[f] }) {
		return false, err // it may become a mailbox
	}
	followed, err := r.here.Unfollowed(ctx, views, r.Trash)
	if err != nil || len(followed.Changes) > 0 || !followed.All {
		return false, err
	}
	if _, err := r.here.ScanTags(ctx, views, r.Trash); err != nil {
		return false, err
	}
	return !slices.ContainsFunc(views, func(v local.View) bool { return !same(v.Folder) }), nil
}

// Agreed gives which mailboxes are on the server, by what it tells of them, as they were agreed on
// with it: a sync would not look into them. It reads, and changes nothing.
func Agreed(ctx context.Context, o Options, told map[string]mail.Status) ([]string, error) {
	if left, err := unended(ctx, o.Ledger); err != nil || left {
		return nil, err
	}
	known, err := o.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range known {
		if now, ok := told[k.Name]; ok && (plan.NeedOf(k, now, false, false) == plan.NeedNothing || plan.FlagsSeen(k, now)) {
			names = append(names, k.Name)
		}
	}
	return names, nil
}

// unended tells whether the run before left something to be ended.
func unended(ctx context.Context, l *ledger.Ledger) (bool, error) {
	if interrupted, err := journal.Of(l).Interrupted(ctx); err != nil || interrupted {
		return interrupted, err
	}
	return l.Any(ctx, ledger.Intended)
}

// same tells whether nothing in a folder is other than it was agreed on.
func same(f *local.Folder) bool {
	return f.Nothing() && !f.Unread && f.Doubt == "" && len(f.Renamed) == 0
}
