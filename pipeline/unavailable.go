package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// mostSilent bounds of how many mailboxes one run waits in vain for their status: each
// costs the timeout and a connection. The next run finds more.
const mostSilent = 3

// leftOut says that a mailbox is left out because it lacks the answer to a command.
type leftOut struct {
	op     string
	reason string // of the refusal; "": there was no answer
}

func (e *leftOut) Error() string {
	if e.op == "CREATE" {
		return e.reason + "; it is tried again after a while, or with --full"
	}
	text := cmp.Or(e.reason, e.op+": no answer") + "; the mailbox is left out, and asked again after a while, or with --full or --mailbox"
	if e.reason != "" {
		text += "; to leave it out for good, say so in mailboxes in the configuration"
	}
	return text
}

// silentOp gives the command to which no answer came that costs its mailbox, and is of
// the mailbox and of no message in it; "" if err is something else.
func silentOp(err error) string {
	f, ok := errors.AsType[*mail.Fault](err)
	if !ok || f.Kind != mail.KindSilent || report.ScopeOf(err, report.AtStatus) != report.ScopeMailbox {
		return ""
	}
	switch f.Op {
	case "EXAMINE", "SELECT":
		return "EXAMINE" // the same to the mailbox
	case "STATUS", "LIST":
		return f.Op
	}
	return ""
}

// unavailableOp gives the command to which a mailbox lacks the answer, and why; "" if err is
// something else. What the server refuses for a moment, it may give to the next run.
func unavailableOp(err error) (op, reason string) {
	if op := silentOp(err); op != "" {
		return op, ""
	}
	if f, ok := mail.Refused(err); ok && slices.Contains([]string{"EXAMINE", "STATUS", "CREATE"}, f.Op) {
		return f.Op, err.Error()
	}
	return "", ""
}

// list asks for the mailboxes with their status. One whose STATUS is not answered is left
// out, and the others are asked for on another connection; so is one that was silent
// before and whose time has not come. That the server is well otherwise shows when it
// answers for the others.
func (w *worker) list(ctx context.Context) (list []mail.Mailbox, at time.Time, err error) {
	_, removing, err := w.notes().Remove.Get(ctx)
	if err != nil {
		return nil, at, err
	}
	silent := make(map[string]error) // in this run, by mailbox
	var unheard error                // the last of them
	unlisted := false
	how := mail.Listing{Singly: w.unanswered.Waits("LIST", "")}
	for op, name := range w.unanswered.All() {
		how.Singly = how.Singly || op == "STATUS" && w.unanswered.Waits(op, name)
	}
	how.Skip = func(m mail.Mailbox) bool {
		return silent[m.Name] != nil || w.unanswered.LeavesOut(m.Name) != "" ||
			!removing && !w.Restore && !w.selects(m) // what is missing in one folder may have gone to any
	}
	for {
		if err := w.conn.Connect(ctx); err != nil {
			return nil, at, err
		}
		list, err := w.conn.Session().List(ctx, how)
		at = w.Now()
		f, _ := errors.AsType[*mail.Fault](err)
		switch op := silentOp(err); {
		case err == nil && unheard != nil && !slices.ContainsFunc(list, func(m mail.Mailbox) bool { return m.Status != nil }):
			return nil, at, unheard // it answers for none: no mailbox is at fault
		case err == nil:
			for i, m := range list {
				switch op := w.unanswered.LeavesOut(m.Name); {
				case silent[m.Name] != nil:
					list[i].Err = silent[m.Name]
				case op != "" && (m.Unasked || m.Status != nil):
					list[i].Status, list[i].Err = nil, w.faults.leftOut(op, m.Name)
				}
			}
			if unlisted {
				w.rep.Note("", "the server lists its mailboxes, but not with their status: it is asked for that of each, for a while")
				w.unanswered.Meet("LIST", "", "")
			}
			return list, at, w.faults.heard(ctx, list, how)
		case ctx.Err() != nil || w.conn.Alive():
			return nil, at, err
		case op == "STATUS" && f.Mailbox != "" && len(silent) < mostSilent:
			silent[f.Mailbox], unheard = err, err
		case op == "LIST" && !how.Singly && w.conn.Session().Has("LIST-STATUS"):
			how.Singly, unlisted = true, true
		default:
			return nil, at, err
		}
	}
}

// asksFor tells whether this run is asked for a mailbox by its name.
func (r Request) asksFor(mailbox string) bool {
	return slices.Contains(r.Only, mailbox) || slices.ContainsFunc(r.Retry, func(t Target) bool { return t.Mailbox == mailbox && t.Whole() })
}

// leftOut says why a mailbox is left out.
func (f *faults) leftOut(op, mailbox string) *leftOut {
	tries, _ := f.unanswered.Before(op, mailbox)
	return &leftOut{op, tries.Reason}
}

// sayLeftOut says that a mailbox is left out now, unless its owner wanted that.
func (f *faults) sayLeftOut(b *box, left *leftOut) {
	if tries, _ := f.unanswered.Before(left.op, b.Name); tries.GivenUp {
		return
	}
	f.meet(b.Name, faultUnavailable, report.Failure{Text: left.Error(), Err: left, Bars: true}, true)
}

// heard forgets that what the list of mailboxes answers was not answered before, and what
// was remembered of mailboxes that are not there any more, or are there now.
func (f *faults) heard(ctx context.Context, list []mail.Mailbox, how mail.Listing) error {
	listed := make(map[string]mail.Mailbox, len(list))
	for _, m := range list {
		listed[m.Name] = m
	}
	for op, name := range f.unanswered.All() {
		m, there := listed[name]
		keep := there
		switch op {
		case "LIST":
			keep = how.Singly
		case "STATUS":
			keep = there && m.Status == nil
		case "CREATE":
			keep = !there
		}
		if keep {
			continue
		}
		if err := f.unanswered.Answered(ctx, op, name); err != nil {
			return err
		}
	}
	return nil
}
