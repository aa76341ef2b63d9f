package report

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

// Place is where in the work a fault happened: the same NO means one message
// when a message was asked for, and the whole account at sign-in.
type Place int

const (
	AtConnect Place = iota
	AtList
	AtStatus // of one mailbox
	AtMailbox
	AtMessage
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
		mail.KindCrowded:      {ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount, ScopeAccount},
		mail.KindBye:          {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindCut:          {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindSilent:       {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindNo:           {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindBad:          {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindNoData:       {ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMailbox, ScopeMessage},
		mail.KindShort:        {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindMalformed:    {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
		mail.KindTooLarge:     {ScopeAccount, ScopeAccount, ScopeAccount, ScopeMailbox, ScopeMessage},
	}
}

// ScopeOf looks a fault up in the table. What is no fault of the server is one
// of this machine (disk, ledger, notmuch, the user's Ctrl-C) and ends the run, or the
// mailbox if only its folder is in the way of it.
func ScopeOf(err error, at Place) Scope {
	if err == nil {
		return ScopeNone
	}
	if _, connecting := errors.AsType[*ConnectError](err); connecting {
		at = AtConnect // whatever the connection was wanted for
	}
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		if s, ok := consequences()[f.Kind]; ok {
			return s[at]
		}
	}
	if at == AtMailbox && barred(err) {
		return ScopeMailbox
	}
	return ScopeRun
}

// ConnectError is a failure to connect or to sign in: it says nothing about the
// mailbox or message for which the connection was wanted.
type ConnectError struct{ Err error }

func (e *ConnectError) Error() string { return e.Err.Error() }
func (e *ConnectError) Unwrap() error { return e.Err }

// Patience is how long a run waits on the spot for a server that asks for time;
// beyond it the account is left until then.
const Patience = 30 * time.Second

// LongestPause bounds how long a server is left alone because it asks for it.
const LongestPause = 24 * time.Hour

// ErrUnhealthy ends an account whose messages fail one after the other.
var ErrUnhealthy = errors.New("message after message fails, and one that came before does not come now: the server is not well; no stub was written")

// OwnError is an error of this machine: it says nothing about mail, and the next run
// does what was left. It ends the run, or costs a mailbox alone where the others are
// safe without it; the run is then no success either (Report.Broken).
type OwnError struct {
	Mailbox string // "" if it is of none
	Err     error
}

func (e *OwnError) Unwrap() error { return e.Err }

func (e *OwnError) Error() string {
	text := e.Err.Error()
	if e.Mailbox != "" {
		text = e.Mailbox + ": " + text
	}
	if do := Remedy(e.Err); do != "" {
		text += "; " + do
	}
	return text
}

// Remedy says what to do about an error of this machine; "" where that is not known.
func Remedy(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "make space; the next sync does the rest"
	case errors.Is(err, unix.EROFS):
		return "see that it can be written to; the next sync does the rest"
	case errors.Is(err, fs.ErrPermission):
		return "see that you may read and write it; the next sync does the rest"
	case barred(err):
		return "put that right; the next sync does the rest"
	case lacking(err):
		return "allow more open files (ulimit -n), then begin again"
	}
	return ""
}

// lacking tells whether this machine ran out of what every open file or connection
// needs, which looks like a server that cannot be reached.
func lacking(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// barred tells whether a file or directory cannot be used because of what it is, of its
// permissions, or of what is mounted there: others can.
func barred(err error) bool {
	_, path := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return (path || link) && (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) || errors.Is(err, fs.ErrInvalid) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EROFS))
}

// Own tells whether an error is one of this machine, whatever was left because of it:
// the operating system's, met here and not on the way to a server. The password is
// asked for here.
func Own(err error) bool {
	_, said := errors.AsType[*OwnError](err)
	_, system := errors.AsType[unix.Errno](err)
	_, network := errors.AsType[*net.OpError](err)
	f, server := errors.AsType[*mail.Fault](err)
	return said || lacking(err) || system && !network && (!server || f.Kind == mail.KindSecret)
}

// OfMailbox says in which mailbox's work an error of this machine happened; mailbox is ""
// if it was in none's.
func OfMailbox(mailbox string, err error) error {
	if _, said := errors.AsType[*OwnError](err); said || errors.Is(err, ErrUnhealthy) || ScopeOf(err, AtMailbox) != ScopeRun || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &OwnError{mailbox, err}
}

// Advice is what there is to do about a fault.
type Advice struct {
	Do    string // by a person; "" for nothing
	Again bool   // the next sync tries again
}

// String is the advice in words; "" if there is none.
func (a Advice) String() string {
	switch {
	case !a.Again:
		return a.Do
	case a.Do == "":
		return nextRun
	}
	return a.Do + "; " + nextRun
}

const nextRun = "the next sync tries again"

// Hint says what to do next about a fault that cost an account or a mailbox.
func Hint(err error) Advice {
	if _, said := errors.AsType[*OwnError](err); said {
		return Advice{} // it says so itself
	}
	f, ok := errors.AsType[*mail.Fault](err)
	if Own(err) && (!ok || f.Do == "" && !f.Again || lacking(err)) {
		return Advice{Do: Remedy(err)}
	}
	if !ok {
		return Advice{}
	}
	if again := f.Again || transient(f.Kind); again || f.Do != "" {
		return Advice{f.Do, again}
	}
	do := usual(f.Kind)
	return Advice{do, do == ""}
}

// usual is what mostly helps with faults of a kind that lasts; "" where nothing is known.
func usual(k mail.Kind) string {
	switch k {
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
		return ""
	}
}

// transient tells whether the next run may well meet no such fault.
func transient(k mail.Kind) bool {
	return k == mail.KindDial || k == mail.KindCut || k == mail.KindSilent || k == mail.KindBye || k == mail.KindCrowded
}

// Throttled says how long the server asks to be left alone, LongestPause at most. ok is
// false if err is no such request.
func Throttled(err error) (wait time.Duration, ok bool) {
	f, isFault := errors.AsType[*mail.Fault](err)
	if !isFault || f.Kind != mail.KindThrottled {
		return 0, false
	}
	if f.RetryAfter <= 0 {
		return 5 * time.Minute, true
	}
	return min(f.RetryAfter, LongestPause), true
}

// Lull says how long to wait on the spot before the server is connected to again, of which
// waited is past already: as long as it asks for, or a little, then ever longer, where it
// has no room for another connection. ok is false if that is no help, or too long.
func Lull(err error, waited time.Duration) (wait time.Duration, ok bool) {
	wait, ok = Throttled(err)
	if f, isFault := errors.AsType[*mail.Fault](err); isFault && f.Kind == mail.KindCrowded {
		ok = true
	}
	wait = max(wait, waited+2*time.Second)
	return wait, ok && waited+wait <= Patience
}

// Pause waits, or gives the context's error.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// RetryAt is the schedule by which a message that failed is asked for again:
// soon, since Office 365 often heals within the hour (emailengine#53), then
// ever less.
func RetryAt(now time.Time, attempts int) time.Time {
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

// RetryFromSecond is the schedule of what is refused, or not answered, of a mailbox or a change: the
// first time that may be so for a moment, and the next run asks again; then a day passes at most.
func RetryFromSecond(now time.Time, attempts int) time.Time {
	if attempts < 2 {
		return now
	}
	return RetryAt(now, min(attempts-1, 3))
}

// ErrLater is why a dry run ends nothing.
var ErrLater = errors.New("a run ends first what an earlier one had begun, and what that leaves to do cannot be foreseen")

// Unended tells why something that was begun in a mailbox is not ended now, unless that is
// more than a mailbox's matter: then it gives the error back. leave is told of what costs the
// mailbox.
func (r *Reporter) Unended(ctx context.Context, mailbox string, err error, what string, leave func(error)) error {
	_, connecting := errors.AsType[*ConnectError](err)
	switch {
	case errors.Is(err, ErrLater):
		r.Note(mailbox, "%v", err)
	case ctx.Err() != nil:
		return ctx.Err()
	case connecting || ScopeOf(err, AtMailbox) > ScopeMailbox:
		return err
	default:
		leave(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}
