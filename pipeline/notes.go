package pipeline

import (
	"context"
	"slices"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/plan"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// noted is what a run remembers of the notes that it, and interrupted runs, have made. Several
// goroutines make and forget them.
type noted struct {
	told       *journal.ToldFlags
	standing   *journal.StandingFaults
	unanswered *journal.UnansweredCommands
	removed    *journal.RemovedMail
	arrivals   *journal.Arrivals
	ruled      *journal.RuledMoves
	links      *journal.Links
	old        *journal.OldTags
	kept       *journal.KeptMail
}

func newNoted(o Options) noted {
	j := o.notes()
	return noted{
		told: journal.NewToldFlags(j), standing: journal.NewStandingFaults(j, o.Now, o.Remind), removed: journal.NewRemovedMail(j, o.Now),
		arrivals: journal.NewArrivals(j), ruled: journal.NewRuledMoves(j), links: journal.NewLinks(j), old: journal.NewOldTags(j), kept: journal.NewKeptMail(j),
		unanswered: journal.NewUnansweredCommands(j, journal.Asking{
			Now: o.Now, Pause: report.RetryFromSecond, All: o.Full, Named: o.asksFor, DryRun: o.DryRun,
		}),
	}
}

// lineNotes is the journal as the line writes it: what else was noted of a message goes
// with its record, so far as this run knows of it.
type lineNotes struct {
	*journal.Journal
	noted
	tags *plan.Tags
}

// lineOrders is what tags order, as the line has to know.
type lineOrders struct {
	*plan.Tags
	*journal.OldTags
	index Index
	root  string
}

// Messages gives those of the messages with these ids that notmuch knows, by id.
func (o lineOrders) Messages(ctx context.Context, ids []string) (map[string]mail.Tagged, error) {
	return o.index.Messages(ctx, ids, o.root)
}

// Recorded lets a change record rows, and forget what was noted until then.
func (n lineNotes) Recorded(ctx context.Context, c *journal.Change, rows []ledger.Message) error {
	c.Save = append(c.Save, rows...)
	n.arrivals.Recorded(c, rows)
	n.told.Forget(c, rows...)
	n.old.Recorded(c, rows)
	return n.kept.Recorded(ctx, c, rows)
}

// Deleted lets a change forget what was noted of a message that is gone. tags are those
// that its mail had, if it is to get them when it comes again: what flags and keywords give
// comes with them, and what is an order is none a second time.
func (n lineNotes) Deleted(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error {
	n.ruled.Forget(c, row)
	n.told.Forget(c, row)
	n.links.Forget(c, row)
	n.old.Forget(c, row)
	deleted(c, row)
	return n.keepTags(ctx, c, row, tags)
}

// deleted lets a change say of a message that is gone that it was deleted on the server, or its file
// removed, if that was begun, and nobody has said more of it.
func deleted(c *journal.Change, row ledger.Message) {
	for _, kind := range []mail.ActionKind{mail.ActDelete, mail.ActRemove} {
		c.Became(mail.IsDone, "", mail.Action{Kind: kind, Mailbox: row.Mailbox, UIDValidity: row.UIDValidity, UID: row.UID})
	}
}

// keepTags is Deleted of the tags alone.
func (n lineNotes) keepTags(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error {
	if tags == nil || row.Digest.IsZero() {
		return nil
	}
	fromFlags := func(t string) bool {
		return plan.OfFlag(t) ||
			slices.ContainsFunc(row.Flags, func(f string) bool { return n.tags.StandsFor(t, f) })
	}
	return n.removed.Note(ctx, c, row.Digest, slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return fromFlags(t) || n.tags.IsOrder(t) }))
}

// ToTellGone lets a change forget a message, and note that notmuch is yet to hear of its
// file. tags are those that its mail has, as far as they are known.
func (n lineNotes) ToTellGone(c *journal.Change, row ledger.Message, tags []string) {
	c.Forget = append(c.Forget, row)
	n.told.Forget(c, row)
	n.links.Forget(c, row)
	n.old.Forget(c, row)
	deleted(c, row)
	n.Forgotten.Put(c, journal.About(row), journal.Gone{Message: row, Tags: tags})
}

// ToldGone lets a change forget that, by the row that went before. tags as for Deleted.
func (n lineNotes) ToldGone(ctx context.Context, c *journal.Change, row ledger.Message, tags []string) error {
	n.Forgotten.Forget(c, journal.About(row))
	return n.keepTags(ctx, c, row, tags)
}
