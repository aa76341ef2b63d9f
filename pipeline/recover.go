package pipeline

import (
	"context"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/probe"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// notes are what the account's ledger keeps beside its rows.
func (o *Options) notes() *journal.Journal { return journal.Of(o.Ledger) }

// recovery ends what an earlier run has left of some kinds of intents.
type recovery struct {
	of  []string // their keys in the journal, whose order this is
	end func(context.Context) error
}

// recoverHere are those that need only this machine, before anything is compared.
func (r *run) recoverHere() []recovery {
	return []recovery{{[]string{"renaming/"}, r.endRenaming}, {[]string{"told/"}, r.recallTold}, {[]string{"flags"}, r.resumer.Flags}, {[]string{"back"}, r.pusher.ResumeBack}, {[]string{"undoing/"}, r.endUndo}}
}

// recoverThere are those for which the server is asked, as soon as it is connected to.
func (w *worker) recoverThere(there *listing) []recovery {
	return []recovery{
		{[]string{"expunge"}, w.putMarksRight},
		{[]string{"moving/", "arriving/", "linked/", "forgotten/"}, func(ctx context.Context) error { return w.endInterrupted(ctx, there) }},
		{[]string{"ruled/"}, w.recallRuled},
	}
}

// recoverListed are those for which its mailboxes must be known.
func (r *run) recoverListed(list []mail.Mailbox) []recovery {
	return []recovery{{[]string{"remove"}, func(ctx context.Context) error { return r.finishFolder(ctx, list) }}}
}

func recoverAll(ctx context.Context, all []recovery) error {
	for _, rec := range all {
		if err := rec.end(ctx); err != nil {
			return err
		}
	}
	return nil
}

// putMarksRight ends a deletion on the server that was interrupted. That it
// cannot be done now keeps nothing else from being done.
func (w *worker) putMarksRight(ctx context.Context) error {
	if w.DryRun {
		return nil
	}
	text, err := probe.RestoreMarks(ctx, w.notes().Expunge, w.conn.Session().Deleter(), w.rep.Step)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && report.ScopeOf(err, report.AtMailbox) == report.ScopeRun:
		return err
	case err != nil:
		w.rep.Fault(report.Failure{Scope: report.ScopeMailbox, Text: "an interrupted deletion could not be put right: " + err.Error(), Err: err})
	case text != "":
		w.rep.Emit(report.Event{Type: report.EventNote, Text: text})
	}
	return nil
}

// endInterrupted ends what an interrupted run has begun to move or to link, and finds the
// mail that it has put into mailboxes, before anything here is compared with the rows: the
// user may have moved the files since. Where that cannot be found out today, nothing
// is done in these mailboxes.
func (w *worker) endInterrupted(ctx context.Context, there *listing) error {
	begun, err := w.pusher.Begun(ctx)
	if err != nil {
		return err
	}
	links, err := w.notes().Linked.All(ctx)
	if err != nil {
		return err
	}
	forgotten, err := w.notes().Forgotten.All(ctx)
	if err != nil || !begun && len(links)+len(forgotten) == 0 {
		return err
	}
	w.prescan.Discard() // it compares with the rows of before
	boxes, err := w.knownBoxes(ctx)
	if err != nil {
		return err
	}
	pushed := make(map[string]*push.Mailbox, len(boxes))
	for name, b := range boxes {
		pushed[name] = b.toPush()
		pushed[name].Aside = !w.selects(b.Mailbox)
	}
	if there.unsettled, err = w.pusher.EndInterrupted(ctx, pushedOver{w.conn}, pushed); err != nil {
		return err
	}
	if err := w.resumer.Links(ctx, lookedOver{w.conn}, there.unsettled); err != nil || len(there.unsettled) > 0 {
		return err // where mail went is not known yet
	}
	return w.resumer.Forgotten(ctx)
}

// recallRuled finds what interrupted runs have moved by tags.
func (w *worker) recallRuled(ctx context.Context) error {
	return w.resumer.RuledMoves(ctx, lookedOver{w.conn})
}

// commit records a change. What the server has answered is recorded also when the run
// is told to end in this moment.
func (r *run) commit(ctx context.Context, c journal.Change, step string) error {
	if err := r.notes().Record(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	r.rep.Step(step)
	return nil
}

// noteOnce is a note that no later run repeats, once somebody could read it: said has that.
func (r *run) noteOnce(ctx context.Context, b *box, said journal.Notes[journal.Text], about, format string, args ...any) error {
	return journal.Once(ctx, said, about, journal.Text(b.Name), !r.DryRun, func() bool { return r.rep.Note(b.Name, format, args...) })
}
