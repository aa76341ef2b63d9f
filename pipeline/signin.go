package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// metaNotBefore is where the ledger keeps the time before which the server does
// not want to be asked.
const metaNotBefore = "not_before"

// longestPause bounds how long a server is left alone because it asks for it, and
// longestRefusal how long a refused sign-in is not tried again.
const (
	longestPause   = 24 * time.Hour
	longestRefusal = 6 * time.Hour
)

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
	text, err := l.Meta(ctx, metaNotBefore)
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || !believed(t, now, longestPause) {
		return time.Time{}, nil //nolint:nilerr // a time that cannot be read is over
	}
	return t, nil
}

// metaRefused is where the ledger keeps that the server refused the sign-in, as JSON of
// refusedSignIn.
const metaRefused = "sign-in refused"

// refusedSignIn is what is remembered of refused sign-ins until one succeeds: servers lock
// accounts for which too many are tried.
type refusedSignIn struct {
	Attempts int       `json:"attempts"` // with the same configuration and secret
	NextTry  time.Time `json:"next_try"`
	Text     string    `json:"text"`             // the refusal, as it was told
	Way      string    `json:"way"`              // fingerprint of the configuration
	Secret   string    `json:"secret,omitempty"` // fingerprint of the secret; "": not known
}

// refusalOf reads that; Attempts is 0 if the last sign-in was not refused.
func refusalOf(ctx context.Context, l *ledger.Ledger) (n refusedSignIn, err error) {
	text, err := l.Meta(ctx, metaRefused)
	if err != nil || text == "" {
		return n, err
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return refusedSignIn{}, nil //nolint:nilerr // what cannot be read is forgotten
	}
	return n, nil
}

// ForgetRefusal forgets that sign-ins were refused: one succeeded.
func ForgetRefusal(ctx context.Context, l *ledger.Ledger) error {
	text, err := l.Meta(ctx, metaRefused)
	if err != nil || text == "" {
		return err
	}
	return l.SetMeta(ctx, metaRefused, "")
}

// retrySignIn is the schedule by which a refused sign-in is tried again: after 5 minutes,
// then twice as long each time, at most longestRefusal.
func retrySignIn(now time.Time, attempts int) time.Time {
	return now.Add(min(5*time.Minute<<min(attempts-1, 10), longestRefusal))
}

// waits tells whether the server is to be left alone by this run, and has said why.
func (r *run) waits(ctx context.Context) (bool, error) {
	now := r.Now()
	until, err := notBefore(ctx, r.Ledger, now)
	if err != nil {
		return false, err
	}
	if !until.IsZero() {
		r.fault(Failure{Scope: ScopeAccount, Text: fmt.Sprintf("the server asked to be left alone until %s; nothing was done", moment(until, now))})
		return true, nil
	}
	n, err := refusalOf(ctx, r.Ledger)
	if err != nil || r.Attended || !r.sameRefusal(ctx, n) {
		return false, err
	}
	r.fault(Failure{Scope: ScopeAccount, Text: n.Text + nextTry(n, now), Err: &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Err: errNotTried}})
	return true, nil
}

// sameRefusal tells whether a sign-in was refused and is not to be tried again yet: nothing
// else would be tried.
func (r *run) sameRefusal(ctx context.Context, n refusedSignIn) bool {
	if !believed(n.NextTry, r.Now(), longestRefusal) {
		return false
	}
	way, secret := r.triedWith(ctx)
	return way == n.Way && (secret == "" || secret == n.Secret)
}

// Paused gives the time until when a run without a terminal does not sign in at the server:
// it asked for that, or refused what would be tried; zero if it does. Of the options it needs
// Ledger, SignIn and Now.
func Paused(ctx context.Context, o Options) (time.Time, error) {
	o.DryRun = true
	r := &run{Options: o}
	until, err := notBefore(ctx, o.Ledger, o.Now())
	if err != nil {
		return time.Time{}, err
	}
	n, err := refusalOf(ctx, o.Ledger)
	if err != nil || n.Attempts == 0 {
		return until, err
	}
	if err := r.readSecret(ctx); err != nil {
		return until, err
	}
	if r.sameRefusal(ctx, n) && n.NextTry.After(until) {
		until = n.NextTry
	}
	return until, nil
}

// errNotTried says that it was an earlier run whose sign-in was refused.
var errNotTried = errors.New("not tried again yet")

func nextTry(n refusedSignIn, now time.Time) string {
	return "; the next try without a terminal is at " + moment(n.NextTry, now)
}

// triedWith gives fingerprints of what a sign-in is tried with.
func (r *run) triedWith(ctx context.Context) (way, secret string) {
	if r.SignIn == nil {
		return "", ""
	}
	return r.SignIn(ctx, r.secret)
}

// signInRefused remembers that the server refused the sign-in, and gives what to say of
// the next one. text is the refusal.
func (r *run) signInRefused(ctx context.Context, text string) (string, error) {
	if r.DryRun {
		return "", nil
	}
	n, err := refusalOf(ctx, r.Ledger)
	if err != nil {
		return "", err
	}
	way, secret := r.triedWith(ctx)
	if n.Way != way || n.Secret != secret {
		n.Attempts = 0
	}
	now := r.Now()
	n = refusedSignIn{Attempts: n.Attempts + 1, Text: text, Way: way, Secret: secret}
	n.NextTry = retrySignIn(now, n.Attempts).UTC().Truncate(time.Second)
	raw, err := json.Marshal(n)
	if err != nil {
		return "", err
	}
	return nextTry(n, now), r.Ledger.SetMeta(ctx, metaRefused, string(raw))
}
