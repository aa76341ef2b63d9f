package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/index"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
	"github.com/notmuch-imap/notmuch-imap/pipeline/show"
	"github.com/notmuch-imap/notmuch-imap/pipeline/stub"
)

func (p *program) retryCommand() *cli.Command {
	return &cli.Command{
		Name:      "retry",
		Usage:     "ask for failed messages now, whatever their schedule",
		ArgsUsage: targetArgs,
		Description: `When the mail comes, it takes its stub's place and keeps its tags. One that was given up is asked for again, too. New mail that
the server refused is sent, and a mailbox that could not be synchronised is tried.

` + targetHelp + targetsBeside,
		Flags: []cli.Flag{
			quietFlag(),
		},
		Action: func(c *cli.Context) error {
			all, err := p.choose(c, true)
			if err != nil {
				return err
			}
			out := p.wordsOutput(c.Bool("quiet"))
			keys := p.newSecrets(out.account)
			var ends []error
			for i := range all {
				ends = append(ends, p.retry(c.Context, &all[i], keys, out))
			}
			return worst(ends)
		},
	}
}

// retry asks for the messages of one account, and says what became of each.
func (p *program) retry(ctx context.Context, ch *chosen, keys *secrets, out *output) error {
	return p.withAccount(ctx, &ch.account, keys, out, func(h *hold) error {
		messages, beside := parted(ch.targets)
		left := p.tryBeside(ctx, ch, beside, h, out)
		if left != nil && !errors.Is(left, errPartly) {
			return left
		}
		answers, err := askAgain(ctx, h, messages)
		if err != nil {
			return err
		}
		for i, t := range messages {
			row, name := answers[i].row, label(ch.account.Name, t)
			switch answers[i].end {
			case wasHere:
				out.say(name + ": the mail is here; there is nothing to ask for")
			case notKnown:
				out.account(ch.account.Name, name+notKnownText)
				left = errPartly
			case cameNow:
				out.say(name + ": the mail came and took its stub's place")
			case goneNow:
				out.say(name + ": the server has it no more; nothing is left to ask for")
			case failsStill:
				out.say(name + ": " + row.Reason + "; its stub stays")
				left = errPartly
			case notAsked:
				left = errors.Join(left, errLater)
			}
		}
		return left
	})
}

// What became of a message that was asked for again.
type askEnd int

const (
	wasHere  askEnd = iota + 1 // no failed message at all
	notKnown                   // nor any other that a sync has met
	cameNow
	goneNow
	failsStill
	notAsked // the account or mailbox failed, and that was told
)

const notKnownText = ": this is none of the messages that failed; see `notmuch imap stubs --all`"

// answer is what became of one message.
type answer struct {
	row ledger.Message // as it is now; before, if it was not asked for
	end askEnd
}

// askAgain synchronises the messages' mailboxes with the messages asked for, all in one
// run.
func askAgain(ctx context.Context, h *hold, targets []pipeline.Target) ([]answer, error) {
	o := h.options
	answers := make([]answer, len(targets))
	for i, t := range targets {
		before, known, err := rowOf(ctx, h.options.Ledger, t)
		answers[i].row = before
		switch {
		case err != nil:
			return nil, err
		case !known:
			answers[i].end = notKnown
		case before.State == ledger.Present && !show.IsNotMail(before) || before.State == ledger.Intended || before.State == ledger.Kept:
			answers[i].end = wasHere
		default:
			o.Retry = append(o.Retry, t)
			if !slices.Contains(o.Only, t.Mailbox) {
				o.Only = append(o.Only, t.Mailbox)
			}
		}
	}
	if len(o.Retry) == 0 {
		return answers, nil
	}
	report, err := pipeline.Sync(ctx, o)
	if err != nil {
		return nil, err
	}
	for i, t := range targets {
		a := &answers[i]
		if a.end != 0 {
			continue
		}
		t.UIDValidity = a.row.UIDValidity
		row, there, err := rowOf(ctx, h.options.Ledger, t)
		if err != nil {
			return nil, err
		}
		a.row = row
		switch {
		case there && row.State == ledger.Present && !show.IsNotMail(row):
			a.end = cameNow
		case report.Broken():
			return nil, errTold
		case slices.ContainsFunc(report.Faults, func(f pipeline.Failure) bool { return f.Mailbox == "" || f.Mailbox == t.Mailbox }):
			a.end = notAsked
		case !there:
			a.end = goneNow
		default:
			a.end = failsStill
		}
	}
	return answers, nil
}

// rowOf gives the row of a message.
func rowOf(ctx context.Context, l *ledger.Ledger, t pipeline.Target) (row ledger.Message, ok bool, err error) {
	if t.UIDValidity == 0 {
		boxes, err := l.Mailboxes(ctx)
		if err != nil {
			return row, false, err
		}
		for _, b := range boxes {
			if b.Name == t.Mailbox {
				t.UIDValidity = b.UIDValidity
			}
		}
	}
	return l.Get(ctx, t.Mailbox, t.UIDValidity, t.UID)
}

// worst sums up how several accounts ended: an error of this machine first.
func worst(ends []error) error {
	var partly, later, done int
	for _, err := range ends {
		switch {
		case err == nil:
			done++
		case errors.Is(err, errPartly):
			partly++
		case errors.Is(err, errLater):
			later++
		default:
			return err
		}
	}
	switch {
	case partly+later == 0:
		return nil
	case partly == 0 && done == 0:
		return errLater
	}
	return errPartly
}

// orders are what the owners of stubs asked for by tags.
type orders struct {
	retry, giveUp []pipeline.Target
	given         []order
}

// order is one tag on one stub.
type order struct {
	id, tag string
	row     ledger.Message // as it was before; zero of new mail here
}

// orders reads the tags by which an account's stubs ask for something: any
// notmuch front end can set them. None of them ever deletes on the server.
func (p *program) orders(ctx context.Context, a *config.Account, l *ledger.Ledger, idx *index.Index) (o orders, err error) {
	some, err := l.Any(ctx, ledger.Stub, ledger.GivenUp, ledger.Skipped)
	if err != nil {
		return o, err
	}
	none, err := show.NotMail(ctx, l)
	if err != nil {
		return o, err
	}
	unsent, err := pipeline.Unsent(ctx, l)
	if err != nil || !some && len(none)+len(unsent) == 0 {
		return o, err
	}
	var rows []ledger.Message // read when there is an order: they may be many
	for tag, list := range map[string]*[]pipeline.Target{a.RetryTag: &o.retry, a.DropTag: &o.giveUp} {
		if tag == "" {
			continue
		}
		ids, err := idx.Search(ctx, fmt.Sprintf("tag:%q and (tag:%s or tag:%s or tag:%s)", tag, pipeline.TagFailed, pipeline.TagSkipped, pipeline.TagUnsent), 0)
		if err != nil {
			return o, err
		}
		if len(ids) > 0 && rows == nil {
			if rows, err = failures(ctx, l); err != nil {
				return o, err
			}
		}
		for _, id := range ids {
			key, ok := stub.ParseMessageID(id)
			if !ok {
				for _, f := range unsent { // else another mail, which somebody tagged so
					if f.ID == id {
						*list = append(*list, f.Target())
						o.given = append(o.given, order{id: id, tag: tag})
					}
				}
				continue
			}
			if m, ok := withKey(rows, a.Name, key); ok {
				*list = append(*list, pipeline.TargetOf(m))
				o.given = append(o.given, order{id, tag, m})
			}
		}
	}
	return o, nil
}

// obeyed takes the tags off those stubs that were asked for and still stand.
func obeyed(ctx context.Context, idx *index.Index, l *ledger.Ledger, o orders) error {
	var changes []mail.Change
	for _, g := range o.given {
		if g.row.UID != 0 && !show.IsNotMail(g.row) {
			row, ok, err := l.Get(ctx, g.row.Mailbox, g.row.UIDValidity, g.row.UID)
			if err != nil {
				return err
			}
			if !ok || row.State != ledger.Stub || row.Attempts == g.row.Attempts {
				continue // nothing to take it off, or not asked for yet
			}
		}
		files, err := idx.Files(ctx, g.id)
		if err != nil {
			return err
		}
		if len(files) > 0 {
			changes = append(changes, mail.Change{Op: mail.OpFlag, ID: g.id, Path: files[0], Remove: []string{g.tag}})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	_, err := idx.Apply(ctx, changes)
	return err
}
