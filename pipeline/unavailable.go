package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
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

func commandKey(op, mailbox string) string { return journal.AboutWord(op, mailbox) }

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
func (w *worker) list(ctx context.Context) ([]mail.Mailbox, error) {
	_, removing, err := w.notes().Remove.Get(ctx)
	if err != nil {
		return nil, err
	}
	silent := make(map[string]error) // in this run, by mailbox
	var unheard error                // the last of them
	unlisted := false
	how := mail.Listing{Singly: w.lacksSince("LIST", "")}
	for key := range w.unavailable {
		if name, ok := strings.CutPrefix(key, commandKey("STATUS", "")); ok {
			how.Singly = how.Singly || w.lacksSince("STATUS", name)
		}
	}
	how.Skip = func(m mail.Mailbox) bool {
		return silent[m.Name] != nil || w.leavesOut(m.Name) != "" ||
			!removing && !w.Restore && !w.selects(m) // what is missing in one folder may have gone to any
	}
	for {
		if err := w.conn.Connect(ctx); err != nil {
			return nil, err
		}
		list, err := w.conn.Session().List(ctx, how)
		w.listedAt = w.Now()
		f, _ := errors.AsType[*mail.Fault](err)
		switch op := silentOp(err); {
		case err == nil && unheard != nil && !slices.ContainsFunc(list, func(m mail.Mailbox) bool { return m.Status != nil }):
			return nil, unheard // it answers for none: no mailbox is at fault
		case err == nil:
			for i, m := range list {
				switch op := w.leavesOut(m.Name); {
				case silent[m.Name] != nil:
					list[i].Err = silent[m.Name]
				case op != "" && (m.Unasked || m.Status != nil):
					list[i].Status, list[i].Err = nil, w.leftOut(op, m.Name)
				}
			}
			if unlisted {
				w.note(&box{}, "the server lists its mailboxes, but not with their status: it is asked for that of each, for a while")
				w.lacks("LIST", "", "")
			}
			return list, w.heard(ctx, list, how)
		case ctx.Err() != nil || w.conn.Alive():
			return nil, err
		case op == "STATUS" && f.Mailbox != "" && len(silent) < mostSilent:
			silent[f.Mailbox], unheard = err, err
		case op == "LIST" && !how.Singly && w.conn.Session().Has("LIST-STATUS"):
			how.Singly, unlisted = true, true
		default:
			return nil, err
		}
	}
}

// lacksSince tells whether a command was not answered or refused, and is not to be tried
// again yet; or, if that was given up, not until somebody asks for it.
func (r *run) lacksSince(op, mailbox string) bool {
	n := r.unavailable[commandKey(op, mailbox)]
	return n.Waits(r.Now()) && (n.GivenUp || !r.Full) && !r.asksFor(mailbox)
}

// asksFor tells whether this run is asked for a mailbox by its name.
func (r *run) asksFor(mailbox string) bool {
	return slices.Contains(r.Only, mailbox) || slices.ContainsFunc(r.Retry, func(t Target) bool { return t.Mailbox == mailbox && t.Whole() })
}

// leavesOut gives the command to which a mailbox lacks the answer, for which it is left
// out now; "" if it is not.
func (r *run) leavesOut(mailbox string) string {
	for _, op := range []string{"STATUS", "EXAMINE"} {
		if r.lacksSince(op, mailbox) {
			return op
		}
	}
	return ""
}

// leftOut says why a mailbox is left out.
func (r *run) leftOut(op, mailbox string) *leftOut {
	return &leftOut{op, r.unavailable[commandKey(op, mailbox)].Reason}
}

// sayLeftOut says that a mailbox is left out now, unless its owner wanted that.
func (r *run) sayLeftOut(b *box, left *leftOut) {
	if r.unavailable[commandKey(left.op, b.Name)].GivenUp {
		return
	}
	r.meet(b.Name, faultUnavailable, report.Failure{Text: left.Error(), Err: left, Bars: true}, true)
}

// lacks notes that a command was not answered, or why it was refused. What is left out
// already, and asked all the same to end what was interrupted, keeps its time.
func (r *run) lacks(op, mailbox, reason string) {
	if r.lacksSince(op, mailbox) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lacking == nil {
		r.lacking = make(map[string]string)
	}
	r.lacking[commandKey(op, mailbox)] = reason
}

// isSilent tells whether a mailbox that was opened in this run did not answer.
func (r *run) isSilent(b *box) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	reason, lacks := r.lacking[commandKey("EXAMINE", b.Name)]
	return lacks && reason == ""
}

// heard forgets that what the list of mailboxes answers was not answered before, and what
// was remembered of mailboxes that are not there any more, or are there now.
func (r *run) heard(ctx context.Context, list []mail.Mailbox, how mail.Listing) error {
	listed := make(map[string]mail.Mailbox, len(list))
	for _, m := range list {
		listed[m.Name] = m
	}
	for key := range r.unavailable {
		op, name, _ := strings.Cut(key, "/")
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
		if !keep {
			if err := r.answered(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// answered forgets that a command was not answered, or refused, before.
func (r *run) answered(ctx context.Context, key string) error {
	if _, ok := r.unavailable[key]; !ok || r.DryRun {
		return nil
	}
	return r.notes().Unavailable.Drop(ctx, key)
}

// noteUnavailable lets a change remember to which commands mailboxes lacked the answer in
// this run, by the schedule of messages that failed to come.
func (r *run) noteUnavailable(c *journal.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, reason := range r.lacking {
		n := r.unavailable[key]
		n.Failed(r.Now(), reason, report.RetryFromSecond)
		r.notes().Unavailable.Put(c, key, n)
	}
}
