package pipeline

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// mostSilent bounds of how many mailboxes one run waits in vain for their status: each
// costs the timeout and a connection. The next run finds more.
const mostSilent = 3

// leftOut says that a mailbox is left out because it does not answer.
type leftOut struct{ op string }

func (e *leftOut) Error() string {
	return e.op + ": no answer; the mailbox is left out, and asked again after a while, or with --full or --mailbox"
}

func silentKey(op, mailbox string) string { return journal.AboutWord(op, mailbox) }

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
	how := mail.Listing{Singly: w.silentSince("LIST", "")}
	for key := range w.silences {
		if name, ok := strings.CutPrefix(key, silentKey("STATUS", "")); ok {
			how.Singly = how.Singly || w.silentSince("STATUS", name)
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
					list[i].Status, list[i].Err = nil, &leftOut{op}
				}
			}
			if unlisted {
				w.note(&box{}, "the server lists its mailboxes, but not with their status: it is asked for that of each, for a while")
				w.fellSilent("LIST", "")
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

// silentSince tells whether a command was not answered, and is not to be asked again yet.
func (r *run) silentSince(op, mailbox string) bool {
	return r.silences[silentKey(op, mailbox)].NextTry.After(r.Now()) && !r.Full && !slices.Contains(r.Only, mailbox)
}

// leavesOut gives the command to which a mailbox does not answer, for which it is left
// out now; "" if it is not.
func (r *run) leavesOut(mailbox string) string {
	for _, op := range []string{"STATUS", "EXAMINE"} {
		if r.silentSince(op, mailbox) {
			return op
		}
	}
	return ""
}

// fellSilent notes that a command was not answered. What is left out already, and asked
// all the same to end what was interrupted, keeps its time.
func (r *run) fellSilent(op, mailbox string) {
	if r.silentSince(op, mailbox) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent == nil {
		r.silent = make(map[string]bool)
	}
	r.silent[silentKey(op, mailbox)] = true
}

// isSilent tells whether a mailbox that was opened in this run did not answer.
func (r *run) isSilent(b *box) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.silent[silentKey("EXAMINE", b.Name)]
}

// heard forgets that what the list of mailboxes answers was not answered before, and what
// was remembered of mailboxes that are not there any more.
func (r *run) heard(ctx context.Context, list []mail.Mailbox, how mail.Listing) error {
	keep := make(map[string]bool)
	for _, m := range list {
		keep[silentKey("EXAMINE", m.Name)] = true
		keep[silentKey("STATUS", m.Name)] = m.Status == nil
	}
	keep[silentKey("LIST", "")] = how.Singly
	for key := range r.silences {
		if !keep[key] {
			if err := r.answered(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// answered forgets that a command was not answered before.
func (r *run) answered(ctx context.Context, key string) error {
	if _, ok := r.silences[key]; !ok || r.DryRun {
		return nil
	}
	return r.notes().Silent.Drop(ctx, key)
}

// noteSilences remembers what was not answered in this run, by the schedule of messages
// that failed to come.
func (r *run) noteSilences(ctx context.Context) error {
	r.mu.Lock()
	silent := slices.Sorted(maps.Keys(r.silent))
	r.mu.Unlock()
	if len(silent) == 0 || r.DryRun {
		return nil
	}
	var c journal.Change
	now := r.Now().UTC().Truncate(time.Second)
	for _, key := range silent {
		n := r.silences[key].Attempts + 1
		next := now // once it may be the line's fault: the next run asks again
		if n > 1 {
			next = report.RetryAt(now, n-1)
		}
		r.notes().Silent.Put(&c, key, journal.Silence{Attempts: n, NextTry: next})
		op, mailbox, _ := strings.Cut(key, "/")
		if mailbox != "" { // it was told
			r.standing.Told(&c, "silent", mailbox, (&leftOut{op}).Error())
		}
	}
	return r.commit(ctx, c, "silences remembered")
}
