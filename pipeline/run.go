package pipeline

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
	"github.com/notmuch-imap/notmuch-imap/pipeline/ask"
	"github.com/notmuch-imap/notmuch-imap/pipeline/conn"
	"github.com/notmuch-imap/notmuch-imap/pipeline/deliver"
	"github.com/notmuch-imap/notmuch-imap/pipeline/local"
	"github.com/notmuch-imap/notmuch-imap/pipeline/look"
	"github.com/notmuch-imap/notmuch-imap/pipeline/match"
	"github.com/notmuch-imap/notmuch-imap/pipeline/pull"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
	"github.com/notmuch-imap/notmuch-imap/pipeline/resume"
	"github.com/notmuch-imap/notmuch-imap/pipeline/show"
)

// run is one account's sync while it goes on.
type run struct {
	Options
	rep    *report.Reporter
	keys   maildir.Keys
	secret *secret
	signIn *signIn
	faults *faults

	line    *deliver.Line
	pusher  *push.Pusher
	resumer *resume.Resumer
	twins   *twins
	shower  *show.Shower
	looking *look.Looking // from the end of the push on
	ask     *ask.Hooks
	here    *local.Reader
	attic   *maildir.Attic
	noted
	match *match.Matcher
	// prescan is what the folders held before the server was heard of.
	prescan *local.Prescan
	listed  []*box           // mailboxes of the server that take part
	since   *bool            // whether mail has come to one since it was looked into; nil: that was not asked
	pool    *pull.Pool[*box] // what is to be looked into and fetched

	first   *conn.Conn[Session] // the account's, open or not; that of the run before where this one ends it
	gaveWay atomic.Bool         // large messages wait for the next run

	mu         sync.Mutex
	largeBegun bool            // some large messages were asked for
	paired     map[string]bool // mailboxes whose first look found mail here that is theirs
	matched    bool            // some were found under other UIDs
	hooksBegan bool            // they let the run begin, and are told of its end

	renamed asBefore // of a dry run
	// apart are names of mailboxes that take no part, by those of mailboxes that the server has no more
	// and that are these, perhaps.
	apart map[string]string
}

// newRun begins a run: the whole of it, or the part that a verb of its own needs.
func newRun(o Options) *run {
	return reportingRun(o, report.NewReporter(report.Report{Account: o.Name, DryRun: o.DryRun}, o.Now, o.Emit, o.Step))
}

func reportingRun(o Options, rep *report.Reporter) *run {
	renamed := make(asBefore)
	if o.DryRun {
		o.Dial = renamed.dial(o.Dial)
		rep.Calls(renamed)
	}
	r := &run{Options: o, rep: rep, renamed: renamed, first: conn.New(o.Dial, o.Pause), paired: make(map[string]bool), noted: newNoted(o)}
	r.secret = &secret{journal: o.notes(), dryRun: o.DryRun, step: rep.Step}
	r.signIn = &signIn{o, r.secret}
	r.faults = &faults{Options: o, rep: rep, signIn: r.signIn, standing: r.standing, unanswered: r.unanswered}
	r.attic = o.newAttic()
	r.ask = ask.New(o.Name, o.Hooks, o.Ledger.Dir(), r.rep, o.Now)
	r.here = &local.Reader{
		Account: o.Name, Root: o.Root, Ledger: o.Ledger, Index: o.Index, Journal: o.notes(), Old: r.old, Report: r.rep,
		Tags: o.Tags, Deletions: o.Deletions, Believed: r.yes, Selects: o.Selects,
		Layout: o.Layout, Layouts: o.Folders, Were: o.Were, Own: o.Own,
		ReadOnly: o.ReadOnly, Restore: o.Restore, DryRun: o.DryRun, UploadHere: o.UploadHere, UploadNext: o.then != nil, UploadIn: o.uploadIn, Rules: o.Rules,
	}
	r.match = &match.Matcher{Files: r.here, Dir: o.Ledger.Dir(), Ours: r.arrivals.Noted}
	r.twins = &twins{ledger: o.Ledger, ours: r.arrivals.Noted, rep: rep}
	line := deliver.Options{
		Index: o.Index, Ledger: o.Ledger, Journal: lineNotes{o.notes(), r.noted, &r.Tags}, Hooks: r.ask, Report: r.rep, Now: o.Now,
		NewTags: o.NewTags, Batch: o.Batch, FlagTags: r.FlagTags, Twins: r.twins.of, Elsewhere: r.elsewhere, ChangedSince: r.links.ChangedSince, PutOff: r.shelf().Put,
	}
	line.Orders = lineOrders{&r.Tags, r.old, o.Index, o.Root}
	line.Ordered = o.HasRules() || len(o.OrderTags) > 0
	if o.AtticDays > 0 {
		line.Attic = lineAttic{r}
	}
	if o.Ahead != nil {
		line.Ahead = r.indexAhead
	}
	r.line = deliver.New(line)
	r.twins.line = r.line
	r.pusher, r.resumer, r.shower = r.newPusher(), r.newResumer(), r.newShower()
	return r
}

// indexAhead has mail indexed ahead of its delivery. Where that makes another database, the
// account's marks follow.
func (r *run) indexAhead(ctx context.Context, changes []mail.Change, own int, progress func(done int)) error {
	was, _, _, err := r.Index.Stamped(ctx, r.Name)
	if err != nil {
		return err
	}
	renewed, err := r.Ahead(ctx, changes, own, progress)
	if renewed {
		err = errors.Join(err, r.here.Renewed(ctx, was.UUID))
	}
	return err
}
