package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
)

// Scope is how far a fault reaches: what is left alone because of it.
type Scope int

// The scopes, from nothing to everything.
const (
	ScopeNone Scope = iota
	ScopeMessage
	ScopeMailbox
	ScopeAccount
	ScopeRun
)

// String gives the scope's name as --json has it.
func (s Scope) String() string {
	return [...]string{"none", "message", "mailbox", "account", "run"}[s]
}

// MarshalText makes the scope a word in JSON.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// place is where in the work a fault happened: the same NO means one message
// when a message was asked for, and the whole account at sign-in.
type place int

const (
	atConnect place = iota
	atList
	atStatus // of one mailbox
	atMailbox
	atMessage
)

// consequences is the one table of what a fault costs. Leaves say what happened
// and nothing else.
func consequences() map[mail.Kind][5]Scope {
	return map[mail.Kind][5]Scope{
		//                      connect       list          status        mailbox       message
		mail.KindDial:         {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindTLS:          {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindPlaintext:    {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindSecret:       {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindAuth:         {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindNotConnected: {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindThrottled:    {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindBye:          {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindCut:          {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindSilent:       {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindNo:           {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindBad:          {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindNoData:       {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindShort:        {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindMalformed:    {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindTooLarge:     {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindSubstitute:   {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
	}
}

// scopeOf looks a fault up in the table. What is no fault of the server is one
// of this machine (disk, ledger, notmuch, the user's Ctrl-C) and ends the run, or the
// mailbox if only its folder is in the way of it.
func scopeOf(err error, at place) Scope {
	if err == nil {
		return ScopeNone
	}
	if _, connecting := errors.AsType[*connectError](err); connecting {
		at = atConnect // whatever the connection was wanted for
	}
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		if s, ok := consequences()[f.Kind]; ok {
			return s[at]
		}
	}
	if at == atMailbox && barred(err) {
		return ScopeMailbox
	}
	return ScopeRun
}

// patience is how long a run waits on the spot for a server that asks for time;
// beyond it the account is left until then.
const patience = 30 * time.Second

// sick is how many messages in a row may fail before the server, not the
// messages, is suspected.
const sick = 10

// errSick ends an account whose messages fail one after the other.
var errSick = errors.New("message after message fails, and one that came before does not come now: the server is not well; no stub was written")

// ownError is an error of this machine: it says nothing about mail, and the next run
// does what was left. It ends the run, or costs a mailbox alone where the others are
// safe without it; the run is then no success either (Report.Broken).
type ownError struct {
	mailbox string // "" if it is of none
	err     error
}

func (e *ownError) Unwrap() error { return e.err }

func (e *ownError) Error() string {
	text := e.err.Error()
	if e.mailbox != "" {
		text = e.mailbox + ": " + text
	}
	if do := Remedy(e.err); do != "" {
		text += "; " + do
	}
	return text
}

// Remedy says what to do about an error of this machine; "" where that is not known.
func Remedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "make space, then run sync again"
	case errors.Is(err, unix.EROFS):
		return "see that it can be written to, then run sync again"
	case errors.Is(err, fs.ErrPermission):
		return "see that you may read and write it, then run sync again"
	case barred(err):
		return "put that right, then run sync again"
	case lacking(err):
		return "allow more open files (ulimit -n), then run sync again"
	}
	return ""
}

// lacking tells whether this machine ran out of what every open file or connection
// needs, which looks like a server that cannot be reached.
func lacking(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// barred tells whether a file or directory cannot be used because of what it is, or of
// its permissions: others can.
func barred(err error) bool {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return (path || link) && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ELOOP))
}

// own tells whether an error is one of this machine, whatever was left because of it:
// the operating system's, met here and not on the way to a server. The password is
// asked for here.
func own(err error) bool {
	_, said := errors.AsType[*ownError](err)
	_, system := errors.AsType[unix.Errno](err)
	_, network := errors.AsType[*net.OpError](err)
	f, server := errors.AsType[*mail.Fault](err)
	return said || lacking(err) || system && !network && (!server || f.Kind == mail.KindSecret)
}

// ofMailbox says in which mailbox's work an error of this machine happened.
func ofMailbox(b *box, err error) error {
	if _, said := errors.AsType[*ownError](err); said || errors.Is(err, errSick) || scopeOf(err, atMailbox) != ScopeRun || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &ownError{b.Name, err}
}

// hint says what to do next about a fault that cost an account or a mailbox.
func hint(err error) string {
	if _, said := errors.AsType[*ownError](err); said {
		return "" // it says so itself
	}
	f, ok := errors.AsType[*mail.Fault](err)
	if own(err) && (!ok || f.Do == "" || lacking(err)) {
		return Remedy(err)
	}
	if !ok {
		return ""
	}
	switch {
	case f.Do != "" && transient(f.Kind):
		return f.Do + "; the next run tries again"
	case f.Do != "":
		return f.Do
	case transient(f.Kind):
		return "the next run tries again"
	}
	switch f.Kind {
	case mail.KindTLS:
		return "check host, port and tls; a server of your own wants tls_ca_file or tls_pin"
	case mail.KindPlaintext:
		return `use tls = "implicit" or "starttls", or say allow_plaintext = true`
	case mail.KindSecret:
		return "check password_command, password_file or keyring"
	case mail.KindAuth:
		return "check user and password; many providers want an application password"
	case mail.KindNotConnected:
		return "the usual causes: wrong password, no permission for this mailbox, too many connections"
	case mail.KindThrottled:
		return "nothing to do; runs before that time leave this account alone"
	default:
		return "the next run tries again"
	}
}

// transient tells whether the next run may well meet no such fault.
func transient(k mail.Kind) bool {
	return k == mail.KindDial || k == mail.KindCut || k == mail.KindSilent || k == mail.KindBye
}

// ask says how long the server asks to be left alone, longestPause at most. ok is
// false if err is no such request.
func ask(err error) (wait time.Duration, ok bool) {
	f, isFault := errors.AsType[*mail.Fault](err)
	if !isFault || f.Kind != mail.KindThrottled {
		return 0, false
	}
	if f.RetryAfter <= 0 {
		return 5 * time.Minute, true
	}
	return min(f.RetryAfter, longestPause), true
}

// pause waits, or gives the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// retryAt is the schedule by which a message that failed is asked for again:
// soon, since Office 365 often heals within the hour (emailengine#53), then
// ever less.
func retryAt(now time.Time, attempts int) time.Time {
	switch attempts {
	case 0, 1:
		return now.Add(15 * time.Minute)
	case 2:
		return now.Add(time.Hour)
	case 3:
		return now.Add(24 * time.Hour)
	default:
		return now.Add(7 * 24 * time.Hour)
	}
}

// accountFault reports a fault that costs the account, or gives back an error
// that costs the run.
func (r *run) accountFault(ctx context.Context, err error, at place) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errSick) {
		// Two connections may find that at once.
		r.mu.Lock()
		said := r.sick
		r.sick = true
		r.mu.Unlock()
		if said {
			return nil
		}
		r.fault(Failure{Scope: ScopeAccount, Text: err.Error(), Err: err})
		return nil
	}
	if scopeOf(err, at) == ScopeRun {
		return err
	}
	text := err.Error()
	if wait, ok := ask(err); ok {
		until := r.Now().Add(wait)
		text = fmt.Sprintf("%s; left alone until %s", text, moment(until, r.Now()))
		if !r.DryRun {
			if err := r.notes().NotBefore.Set(ctx, journal.Moment{Time: until}); err != nil {
				return err
			}
		}
	} else if h := hint(err); h != "" {
		text += "; " + h
	}
	if f, ok := errors.AsType[*mail.Fault](err); ok && f.Kind == mail.KindAuth {
		next, err := r.signInRefused(ctx, text)
		if err != nil {
			return err
		}
		text += next
	}
	r.fault(Failure{Scope: ScopeAccount, Text: text, Err: err})
	return nil
}

// mailboxFault reports a mailbox that is left for now and keeps its ledger row
// from moving on.
func (r *run) mailboxFault(b *box, err error) {
	if b.barred && own(err) {
		return // that was said, and is why it failed
	}
	text := err.Error()
	if op := silentOp(err); op != "" {
		r.fellSilent(op, b.Name)
		text = (&leftOut{op}).Error()
	} else if h := hint(err); h != "" {
		text += "; " + h
	}
	r.fault(Failure{Scope: ScopeMailbox, Mailbox: b.Name, Text: text, Err: err})
	r.keepMarks(b)
}

// keepMarks keeps a mailbox's marks where they are.
func (r *run) keepMarks(b *box) {
	r.mu.Lock()
	b.failed = true
	r.mu.Unlock()
}

func (r *run) fault(f Failure) {
	r.mu.Lock()
	r.report.Faults = append(r.report.Faults, f)
	r.mu.Unlock()
	r.emit(Event{Type: EventFault, Mailbox: f.Mailbox, Text: f.Text})
}
