package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// noteRun notes how the run went; failed is the error of this machine that ended it, if
// one did. A run in which nothing is new says so once a minute at most, so that it costs
// an idle account next to nothing.
func (r *run) noteRun(ctx context.Context, failed error) error {
	if r.DryRun {
		return nil
	}
	last, noted, err := r.notes().LastRun.Get(ctx)
	if err != nil {
		return err
	}
	now, rep := r.Now().UTC().Truncate(time.Minute), r.rep.Report()
	next := journal.LastRun{Contact: last.Contact, Change: last.Change}
	if rep.Mailboxes > 0 {
		next.Contact = now
	}
	if rep.New+rep.Flagged+rep.Pushed+rep.Moved+rep.Deleted+rep.Uploaded+rep.Removed+rep.Healed+rep.NewStubs > 0 {
		next.Change = now
	}
	if failed != nil {
		next.Faults, next.At = []string{failed.Error()}, now
	}
	for _, f := range rep.Faults {
		if f.Mailbox == "" { // else it is remembered by its mailbox
			next.Faults, next.At = append(next.Faults, f.Text), now
		}
	}
	if noted && next.Same(last) {
		return nil
	}
	return r.notes().LastRun.Set(ctx, next)
}

// Status is how an account stands, by what is on this machine.
type Status struct {
	Account   string    `json:"account"`
	Contact   time.Time `json:"last_contact,omitzero"`      // with the server, to the minute
	Change    time.Time `json:"last_change,omitzero"`       // something came, or went there
	NotBefore time.Time `json:"not_before,omitzero"`        // the server wants to be left alone until then
	Refusals  int       `json:"sign_in_refusals,omitempty"` // since a sign-in succeeded or was tried with something else
	// NextSignIn is when a sync without a terminal tries the next one; zero if the last succeeded.
	NextSignIn time.Time       `json:"next_sign_in,omitzero"`
	Failed     []Failed        `json:"failed,omitempty"`
	Mailboxes  []MailboxStatus `json:"mailboxes"`
}

// MailboxStatus is a mailbox of it. Waiting counts what was changed here and has not been
// told to the server: files that are new, gone, or have other flags. Tags that no file's
// name shows are not counted.
type MailboxStatus struct {
	Mailbox  string `json:"mailbox"`
	Messages int    `json:"messages"`         // that are here
	Failed   int    `json:"failed,omitempty"` // stubs
	// Unindexed are messages on disk of which notmuch is yet to be told.
	Unindexed int `json:"not_in_notmuch,omitempty"`
	Skipped   int `json:"skipped,omitempty"` // left on the server by hooks
	New       int `json:"waiting_new,omitempty"`
	Gone      int `json:"waiting_gone,omitempty"`
	Flags     int `json:"waiting_flags,omitempty"`
	// NotBefore is until when it is left out since the server does not answer for it.
	NotBefore time.Time `json:"not_before,omitzero"`
}

// Waiting is how many changes wait to go to the server.
func (m MailboxStatus) Waiting() int { return m.New + m.Gone + m.Flags }

// Waits tells whether something waits for a person.
func (s *Status) Waits() bool {
	return slices.ContainsFunc(s.Failed, Failed.Waits)
}

// StatusOf looks at the ledger and at the folders, and changes nothing. Of the options it
// needs Account, Root, Ledger, Selects, ReadOnly, Deletions and Now. The server is not asked.
func StatusOf(ctx context.Context, o Options) (*Status, error) {
	r := newRun(o)
	s := &Status{Account: o.Name, Mailboxes: []MailboxStatus{}}
	last, _, err := o.notes().LastRun.Get(ctx)
	if err != nil {
		return nil, err
	}
	s.Contact, s.Change = last.Contact, last.Change
	if s.NotBefore, err = notBefore(ctx, o.Ledger, o.Now()); err != nil {
		return nil, err
	}
	refused, _, err := o.notes().Refused.Get(ctx)
	if err != nil {
		return nil, err
	}
	s.Refusals, s.NextSignIn = refused.Attempts, refused.NextTry
	if s.Failed, err = FailedOf(ctx, o.Name, o.Ledger); err != nil {
		return nil, err
	}
	rows, err := o.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	scanned, err := o.notes().Scanned.All(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.unanswered.Recall(ctx); err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b ledger.Mailbox) int { return strings.Compare(a.Name, b.Name) })
	for _, k := range rows {
		b := r.knownBox(k)
		if !r.selects(b.Mailbox) {
			continue
		}
		m := MailboxStatus{Mailbox: k.Name}
		if op := r.unanswered.LeavesOut(k.Name); op != "" {
			tries, _ := r.unanswered.Before(op, k.Name)
			m.NotBefore = tries.NextTry
		}
		for to, states := range map[*int][]ledger.State{
			&m.Messages: {ledger.Present}, &m.Unindexed: {ledger.Intended}, &m.Failed: {ledger.Stub}, &m.Skipped: {ledger.Skipped, ledger.Deferred},
		} {
			if *to, err = o.Ledger.Count(ctx, k.Name, k.UIDValidity, states...); err != nil {
				return nil, err
			}
		}
		if k.Complete && k.UIDValidity != 0 && !o.ReadOnly {
			f, err := r.here.Compare(ctx, b.place(), scanned[k.Name])
			if err != nil {
				return nil, report.OfMailbox(b.Name, err)
			}
			for _, n := range f.Untracked {
				if n.New() {
					m.New++
				}
			}
			if m.Flags = len(f.Flags); o.Deletions != DeletionsKeep {
				m.Gone = len(f.Missing) + len(f.Marked)
			}
		}
		s.Mailboxes = append(s.Mailboxes, m)
	}
	return s, nil
}
