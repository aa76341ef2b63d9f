package oauth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

const (
	// early is how long before its end a token is renewed: the server's clock may
	// be another, and the way to it takes time.
	early = time.Minute
	// lockTime is how long another run may take to renew the token.
	lockTime = 2 * requestTime
	// linger is how long a request may go on when the run is to end.
	linger = 5 * time.Second
)

// Source gives access tokens while a program runs. It may be used by several
// goroutines, and several programs may have one each for the same account.
type Source struct {
	client Client
	store  Store
	now    func() time.Time

	mu   sync.Mutex
	last *Token // as last read or renewed
}

// NewSource makes a source; nil for now is the clock.
func NewSource(c Client, s Store, now func() time.Time) *Source {
	if now == nil {
		now = time.Now
	}
	return &Source{client: c.fill(), store: s, now: now}
}

// Token gives an access token that is valid as far as one can tell. If refused is
// the present one, a new one is had; it is the token that the server did not take,
// or "".
func (s *Source) Token(ctx context.Context, refused string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good(s.last, refused) {
		return s.last.Access, nil
	}
	t, err := s.load(ctx)
	if err != nil {
		return "", err
	}
	if !s.good(t, refused) {
		if t, err = s.renew(ctx, refused); err != nil {
			return "", err
		}
	}
	s.last = t
	return t.Access, nil
}

// Status tells until when the access token is valid (zero if that is not known),
// and whether it can be renewed.
func (s *Source) Status(ctx context.Context) (until time.Time, renewable bool, err error) {
	t, err := s.load(ctx)
	if err != nil {
		return time.Time{}, false, err
	}
	return t.Expiry, t.Refresh != "", nil
}

// Explain says why a server may have refused the last token; "" if that cannot
// be seen.
func (s *Source) Explain() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return ""
	}
	return s.client.Explain(s.last, s.now())
}

func (s *Source) good(t *Token, refused string) bool {
	return t != nil && t.Access != "" && t.Access != refused && (t.Expiry.IsZero() || s.now().Add(early).Before(t.Expiry))
}

// load reads the tokens, if they are of this client.
func (s *Source) load(ctx context.Context) (*Token, error) {
	t, err := s.store.Load(ctx)
	keyring, unread := errors.AsType[*keyringError](err)
	_, unfit := errors.AsType[*unfitError](err)
	switch {
	case unread:
		return nil, &Refusal{Text: err.Error(), Next: "sign in: " + s.client.login() + "; for runs without a desktop, with --store file", Passing: !keyring.absent()}
	case unfit:
		return nil, &Refusal{Text: err.Error(), Next: "sign in anew: " + s.client.login()}
	case errors.Is(err, ErrNone):
		return nil, &Refusal{Text: err.Error(), Next: "sign in: " + s.client.login()}
	case err != nil:
		return nil, fmt.Errorf("cannot get the token: %w", err)
	case t.ClientID != s.client.ID || t.TokenURL != s.client.TokenURL:
		return nil, &Refusal{Text: "the sign-in was with another client_id or token_url than the configuration has now", Next: "sign in anew: " + s.client.login()}
	}
	return t, nil
}

// renew gets a new token, unless another program has got one meanwhile.
func (s *Source) renew(ctx context.Context, refused string) (*Token, error) {
	waiting, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	unlock, err := s.store.Lock(waiting)
	if err != nil {
		return nil, err
	}
	defer unlock()
	t, err := s.load(ctx)
	if err != nil || s.good(t, refused) {
		return t, err
	}
	if t.Refresh == "" {
		text := "the server does not take it any more"
		if t.Access != refused {
			text = "it expired at " + when(t.Expiry, s.now())
		}
		return nil, &Refusal{Text: "the token cannot be renewed, since the provider gave no refresh token, and " + text, Next: "sign in anew: " + s.client.login()}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A refresh token may be of no more use once it was sent: what comes for it
	// must be kept, though the run is to end.
	asking, cancel := lingering(ctx)
	defer cancel()
	got, err := s.client.config("").TokenSource(s.client.with(asking), &oauth2.Token{RefreshToken: t.Refresh}).Token()
	if err != nil {
		return nil, s.client.failed(ctx, err, t.Refresh, t.Access, s.client.Secret)
	}
	next, err := s.client.granted(got)
	if err != nil {
		return nil, err
	}
	if next.Scope == "" {
		next.Scope = t.Scope // RFC 6749 6
	}
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyringTime)
	defer cancel()
	if err := s.store.Save(saving, next, ""); err != nil {
		return nil, &Refusal{Text: "the new token cannot be kept: " + err.Error(), Next: "sign in anew: " + s.client.login(), Passing: true}
	}
	return next, nil
}

// lingering gives a context that ends a little after another.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(linger, cancel) })
	return out, func() { stop(); cancel() }
}
