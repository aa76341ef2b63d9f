package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/pipeline/journal"
	"github.com/notmuch-imap/notmuch-imap/pipeline/report"
)

// longestRefusal bounds how long a refused sign-in is not tried again.
const longestRefusal = 6 * time.Hour

// believed tells whether t is still to come. One beyond the longest pause that is ever made
// is of a clock that was wrong, or of a version that believed more, and is over.
func believed(t, now time.Time, longest time.Duration) bool {
	return t.After(now) && !t.After(now.Add(longest))
}

// moment gives a time to a person, with its date where that is not today's.
func moment(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// notBefore gives the time until when the server asked to be left alone; zero if it did
// not, or if that is over.
func notBefore(ctx context.Context, l *ledger.Ledger, now time.Time) (time.Time, error) {
	t, _, err := journal.Of(l).NotBefore.Get(ctx)
	if err != nil || !believed(t.Time, now, report.LongestPause) {
		return time.Time{}, err
	}
	return t.Time, nil
}

// ForgetRefusal forgets that sign-ins were refused: one succeeded.
func ForgetRefusal(ctx context.Context, l *ledger.Ledger) error {
	return journal.Of(l).Refused.Drop(ctx)
}

// retrySignIn is the schedule by which a refused sign-in is tried again: after 5 minutes,
// then twice as long each time, at most longestRefusal.
func retrySignIn(now time.Time, attempts int) time.Time {
	return now.Add(min(5*time.Minute<<min(attempts-1, 10), longestRefusal))
}

// signIn is what is known of the sign-in of an account: whether it was refused, and when it
// is tried again.
type signIn struct {
	Options
	secret *secret // by which fingerprints are made
}

// mayBegin tells whether the server is to be asked now: it does not want to be left alone, no
// program has gone on with what was taken over from it, and no hook puts the account off.
func (r *run) mayBegin(ctx context.Context) (bool, error) {
	why, err := r.signIn.mustWait(ctx)
	if err != nil {
		return false, err
	}
	if why != nil {
		r.rep.Fault(*why)
		return false, nil
	}
	if why, err := r.imported(ctx); err != nil || why != nil {
		if why != nil {
			r.rep.Fault(*why)
		}
		return false, err
	}
	return r.preSync(ctx)
}

// mustWait says why the server is to be left alone by this run; nil if it is not.
func (s *signIn) mustWait(ctx context.Context) (*report.Failure, error) {
	now := s.Now()
	until, err := s.leftUntil(ctx)
	if err != nil {
		return nil, err
	}
	if !until.IsZero() {
		return &report.Failure{Scope: report.ScopeAccount, Text: fmt.Sprintf("the server asked to be left alone until %s; nothing was done", moment(until, now))}, nil
	}
	if !s.DryRun {
		if err := s.notes().NotBefore.Drop(ctx); err != nil {
			return nil, err
		}
	}
	n, _, err := s.notes().Refused.Get(ctx)
	if err != nil || s.Attended || !s.same(ctx, n) {
		return nil, err
	}
	return &report.Failure{Scope: report.ScopeAccount, Text: n.Text + nextTry(n, now), Err: &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Err: errNotTried}}, nil
}

// leftUntil gives the time until when the server asked to be left alone; zero if it did not, if
// that is over, or if it was reached in another way than it would be now: it may be another one.
func (s *signIn) leftUntil(ctx context.Context) (time.Time, error) {
	until, err := notBefore(ctx, s.Ledger, s.Now())
	if err != nil || until.IsZero() {
		return until, err
	}
	by, _, err := s.notes().LeftBy.Get(ctx)
	if way, _ := s.triedWith(ctx); err == nil && by != "" && way != "" && string(by) != way {
		return time.Time{}, nil
	}
	return until, err
}

// same tells whether a sign-in was refused and is not to be tried again yet: nothing
// else would be tried.
func (s *signIn) same(ctx context.Context, n journal.Refusal) bool {
	if !believed(n.NextTry, s.Now(), longestRefusal) {
		return false
	}
	way, secret := s.triedWith(ctx)
	return way == n.Way && (secret == "" || secret == n.Secret)
}

// Paused gives the time until when a run without a terminal does not sign in at the server:
// it asked for that, or refused what would be tried; zero if it does. Of the options it needs
// Ledger, SignIn and Now.
func Paused(ctx context.Context, o Options) (time.Time, error) {
	o.DryRun = true
	s := &signIn{o, &secret{journal: o.notes(), dryRun: true}}
	if _, err := s.secret.read(ctx); err != nil {
		return time.Time{}, err
	}
	until, err := s.leftUntil(ctx)
	if err != nil {
		return time.Time{}, err
	}
	n, _, err := o.notes().Refused.Get(ctx)
	if err != nil || n.Attempts == 0 {
		return until, err
	}
	if s.same(ctx, n) && n.NextTry.After(until) {
		until = n.NextTry
	}
	return until, nil
}

// Meet does with a failure to connect what a run does that meets it: it is told, and what
// the server is not to be asked before is remembered. Of the options it needs Name, Ledger,
// SignIn, Now and Emit. The error is one of this machine.
func Meet(ctx context.Context, o Options, failure error) error {
	r := newRun(o)
	if _, err := r.secret.read(ctx); err != nil {
		return err
	}
	return r.faults.account(ctx, failure, report.AtConnect)
}

// errNotTried says that it was an earlier run whose sign-in was refused.
var errNotTried = errors.New("not tried again yet")

func nextTry(n journal.Refusal, now time.Time) string {
	return "; the next try without a terminal is at " + moment(n.NextTry, now)
}

// triedWith gives fingerprints of what a sign-in is tried with.
func (s *signIn) triedWith(ctx context.Context) (way, secret string) {
	if s.SignIn == nil {
		return "", ""
	}
	return s.SignIn(ctx, s.secret.text)
}

// refused remembers that the server refused the sign-in, and gives what to say of
// the next one. text is the refusal.
func (s *signIn) refused(ctx context.Context, text string) (string, error) {
	if s.DryRun {
		return "", nil
	}
	n, _, err := s.notes().Refused.Get(ctx)
	if err != nil {
		return "", err
	}
	way, secret := s.triedWith(ctx)
	if n.Way != way || n.Secret != secret {
		n.Attempts = 0
	}
	now := s.Now()
	if n.Attempts == 0 {
		n.Since = now.UTC().Truncate(time.Second)
	}
	n = journal.Refusal{Attempts: n.Attempts + 1, Text: text, Way: way, Secret: secret, Since: n.Since}
	n.NextTry = retrySignIn(now, n.Attempts).UTC().Truncate(time.Second)
	return nextTry(n, now), s.notes().Refused.Set(ctx, n)
}
