package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/push"
	"github.com/notmuch-imap/notmuch-imap/pipeline/show"
)

// Failed is one thing that failed, in either direction, as the ledger remembers it: a
// message, a mail here that is none yet, a mailbox, or the account.
type Failed struct {
	Mailbox     string      `json:"mailbox,omitempty"`
	UIDValidity uint64      `json:"uidvalidity,omitempty"`
	UID         imap.UID    `json:"uid,omitempty"`
	ID          string      `json:"id,omitempty"`       // in notmuch: of the stub, or of the mail
	Since       time.Time   `json:"since,omitzero"`     // zero: not known
	Attempts    int         `json:"attempts,omitempty"` // 0: not counted
	NextTry     time.Time   `json:"next_try,omitzero"`  // zero, or over: with the next sync, if it is Tried
	Reason      string      `json:"reason"`
	State       FailedState `json:"state"`
	File        string      `json:"file,omitempty"`   // the mail's, below the mailbox's folder; of a folder, its own name
	Untold      bool        `json:"untold,omitempty"` // nobody could read of it yet

	key string // of the file
}

// Target is by what it is named to Request.Retry, GiveUp and GiveUpBeside.
func (f Failed) Target() Target {
	return Target{Mailbox: f.Mailbox, UIDValidity: f.UIDValidity, UID: f.UID, File: f.key}
}

// FailedState says what failed, and what becomes of it.
type FailedState string

// The states.
const (
	FailedStub        FailedState = "stub"        // a message that could not be fetched
	FailedGivenUp     FailedState = "givenup"     // not tried again until somebody asks for it
	FailedSkipped     FailedState = "skipped"     // a message that a hook left on the server
	FailedDeferred    FailedState = "deferred"    // a message that a hook put off
	FailedNotMail     FailedState = "notmail"     // a mail that notmuch does not take for one
	FailedUnsent      FailedState = "unsent"      // new mail here that the server refused
	FailedRefused     FailedState = "refused"     // flags, moves or deletions that the server refused
	FailedHeld        FailedState = "held"        // what waits for a person's word
	FailedUnavailable FailedState = "unavailable" // a mailbox that is not answered for, cannot be opened, or was not made
	FailedMailbox     FailedState = "mailbox"     // another fault of a mailbox
	FailedAccount     FailedState = "account"     // what the last run left undone
	FailedSignIn      FailedState = "sign-in"     // it was refused
	FailedUnnamed     FailedState = "unnamed"     // a mailbox whose name no command can say
	FailedFolder      FailedState = "folder"      // a folder that does not go to the server
	FailedGone        FailedState = "gone"        // a mailbox that the server has no more
	FailedTwin        FailedState = "twin"        // a file that its mailbox has already
	FailedFlag        FailedState = "flag"        // a flag that the server does not keep
)

// Tried tells whether it is tried again by itself.
func (f Failed) Tried() bool {
	switch f.State {
	case FailedStub, FailedDeferred, FailedUnsent, FailedRefused, FailedUnavailable, FailedMailbox, FailedAccount, FailedSignIn:
		return true
	}
	return false
}

// Waits tells whether it is what its owner should look at; the others are as somebody wanted
// them, or as the server is.
func (f Failed) Waits() bool { return f.Tried() && f.State != FailedDeferred || f.State == FailedHeld }

// FailedOf gives all that failed in an account, the oldest first; what is not known to be of
// any time comes last.
func FailedOf(ctx context.Context, account string, l *ledger.Ledger) ([]Failed, error) {
	var all []Failed
	for _, part := range []func(context.Context, string, *ledger.Ledger) ([]Failed, error){
		failedMessages, func(ctx context.Context, _ string, l *ledger.Ledger) ([]Failed, error) { return Unsent(ctx, l) }, failedMailboxes, failedAccount, toldOnce,
	} {
		some, err := part(ctx, account, l)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b Failed) int {
		if a.Since.IsZero() != b.Since.IsZero() {
			return b.Since.Compare(a.Since)
		}
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Mailbox, b.Mailbox), cmp.Compare(a.UID, b.UID), strings.Compare(a.File, b.File))
	})
	return all, nil
}

// failedMessages are those of the ledger's rows.
func failedMessages(ctx context.Context, account string, l *ledger.Ledger) (all []Failed, err error) {
	rows, err := l.InState(ctx, ledger.Stub, ledger.GivenUp, ledger.Skipped, ledger.Deferred)
	if err != nil {
		return nil, err
	}
	for _, m := range rows {
		f := Failed{
			State: FailedState(m.State), Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID,
			Reason: m.Reason, Attempts: m.Attempts, Since: m.Since, NextTry: m.NextTry,
		}
		if m.StubKey != "" || m.State == ledger.Stub || m.State == ledger.GivenUp {
			// What another program left in its place has an id of its own.
			f.ID = cmp.Or(m.ID, KeyOf(account, m).MessageID())
		}
		all = append(all, f)
	}
	none, err := show.NotMail(ctx, l)
	if err != nil {
		return nil, err
	}
	notes, err := journal.Of(l).Beside.All(ctx)
	for _, m := range none {
		f := Failed{
			State: FailedNotMail, Mailbox: m.Mailbox, UIDValidity: m.UIDValidity, UID: m.UID, File: m.Name,
			Reason: m.Reason, Since: m.Since,
		}
		switch n := notes[journal.About(m)]; {
		case n.GivenUp:
			f.State = FailedGivenUp
		case n.Placed:
			f.ID = KeyOf(account, m).MessageID()
		}
		all = append(all, f)
	}
	return all, err
}

// tried is what failed and is remembered with its tries.
func tried(state FailedState, t journal.Tries) Failed {
	f := Failed{State: state, Reason: t.Reason, Attempts: t.Attempts, Since: t.Since, NextTry: t.NextTry}
	if t.GivenUp {
		f.State, f.NextTry = FailedGivenUp, time.Time{}
	}
	return f
}

// Unsent gives new mails here that the server refused.
func Unsent(ctx context.Context, l *ledger.Ledger) (all []Failed, err error) {
	notes, err := journal.Of(l).Unsent.All(ctx)
	for about, u := range notes {
		f := tried(FailedUnsent, u.Tries)
		f.Mailbox, f.File, f.ID, f.key = u.Mailbox, u.Name, u.ID, strings.TrimPrefix(about, journal.AboutFile(u.Mailbox, ""))
		all = append(all, f)
	}
	return all, err
}

// failedMailboxes are mailboxes, and what is left undone in them.
func failedMailboxes(ctx context.Context, _ string, l *ledger.Ledger) (all []Failed, err error) {
	standing, err := journal.Of(l).Standing.All(ctx)
	if err != nil {
		return nil, err
	}
	untold := func(kind, mailbox string) bool { return standing[journal.AboutWord(kind, mailbox)].Told.IsZero() }
	for about, s := range standing {
		kind, mailbox, _ := strings.Cut(about, "/")
		f := Failed{State: FailedHeld, Mailbox: mailbox, Reason: s.Text, Since: s.Since, Untold: s.Told.IsZero()}
		switch kind {
		case faultUnavailable, push.Refused, push.Unsent:
			continue // there is more of it below
		case faultMailbox:
			f.State = FailedMailbox
		case "push":
			f.State = FailedRefused
		}
		all = append(all, f)
	}
	notes, err := journal.Of(l).Unavailable.All(ctx)
	for about, n := range notes {
		op, mailbox, _ := strings.Cut(about, "/")
		f := tried(FailedUnavailable, n.Tries)
		f.Mailbox, f.Reason = mailbox, cmp.Or(n.Reason, op+": no answer")
		f.Untold = mailbox != "" && untold(faultUnavailable, mailbox)
		all = append(all, f)
	}
	if err != nil {
		return nil, err
	}
	declined, err := journal.Of(l).Declined.All(ctx)
	for _, r := range push.Refusals(slices.Collect(maps.Values(declined))) {
		f := tried(FailedRefused, r.Tries)
		f.Mailbox, f.Reason, f.Untold = r.Mailbox, r.Text, untold(push.Refused, r.Mailbox)
		all = append(all, f)
	}
	return all, err
}

// failedAccount is what keeps all of an account.
func failedAccount(ctx context.Context, _ string, l *ledger.Ledger) (all []Failed, err error) {
	notes := journal.Of(l)
	refused, signIn, err := notes.Refused.Get(ctx)
	if err != nil {
		return nil, err
	}
	if signIn {
		all = append(all, Failed{State: FailedSignIn, Reason: refused.Text, Attempts: refused.Attempts, Since: refused.Since, NextTry: refused.NextTry})
	}
	until, _, err := notes.NotBefore.Get(ctx)
	if err != nil {
		return nil, err
	}
	last, _, err := notes.LastRun.Get(ctx)
	for _, text := range last.Faults {
		if !signIn || !strings.HasPrefix(text, refused.Text) {
			all = append(all, Failed{State: FailedAccount, Reason: text, Since: last.At, NextTry: until.Time})
		}
	}
	return all, err
}

// toldOnce is what is told once and stays as it is.
func toldOnce(ctx context.Context, _ string, l *ledger.Ledger) (all []Failed, err error) {
	notes := journal.Of(l)
	for _, of := range []struct {
		said journal.Notes[journal.Text]
		as   func(about string, what journal.Text) Failed
	}{
		{notes.OddSaid, func(name string, _ journal.Text) Failed {
			return Failed{State: FailedUnnamed, Mailbox: name, Reason: "its name is too long, or has a line end or NUL in it, and no command can say it"}
		}},
		{notes.FolderSaid, func(folder string, why journal.Text) Failed {
			if why == journal.SaidOnce {
				why = "it is of no mailbox"
			}
			return Failed{State: FailedFolder, File: folder, Reason: "the folder does not go to the server: " + string(why)}
		}},
		{notes.GoneSaid, func(about string, as journal.Text) Failed {
			_, name, _ := strings.Cut(about, "/")
			f := Failed{State: FailedGone, Mailbox: name, Reason: "the server has this mailbox no more; its mail here stays, and goes nowhere"}
			if as != journal.SaidOnce && string(as) != name {
				f.Reason = fmt.Sprintf("the server has this mailbox as %s, it seems, which takes no part; its mail stays, and goes nowhere", as)
			}
			return f
		}},
		{notes.TwinSaid, func(key string, in journal.Text) Failed {
			f := Failed{State: FailedTwin, File: key, Reason: "it is of a message that the mailbox has already, and is not uploaded"}
			if in != journal.SaidOnce {
				f.Mailbox = string(in)
			}
			return f
		}},
		{notes.StaysSaid, func(about string, _ journal.Text) Failed {
			flag, name, _ := strings.Cut(about, "/")
			return Failed{State: FailedFlag, Mailbox: name, Reason: "the server keeps no flag " + flag + " in this mailbox; it stays here"}
		}},
	} {
		texts, err := of.said.All(ctx)
		if err != nil {
			return nil, err
		}
		for _, about := range slices.Sorted(maps.Keys(texts)) {
			what, said := texts[about].Said()
			f := of.as(about, what)
			f.Untold = !said
			all = append(all, f)
		}
	}
	return all, nil
}
