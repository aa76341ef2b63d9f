package cmd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/oauth"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

// secrets remembers passwords while the program runs: a second connection must not ask a
// second time. An account that waits for its own keeps no other account from theirs.
type secrets struct {
	getenv   func(string) string
	tell     func(account, text string) // what a secret is being waited for
	terminal chan struct{}              // one program at a time may ask somebody there

	mu      sync.Mutex
	got     map[string]string        // account -> password
	asked   map[string]*asking       // account -> the asking that is under way
	sources map[string]*oauth.Source // account -> where its tokens come from
}

// asking is one asking for a password, and what all who wait for it get.
type asking struct {
	done     chan struct{}
	password string
	err      error
}

// secretSlow is after how long it is told that a secret is being waited for.
const secretSlow = 10 * time.Second

// newSecrets gives secrets that nobody has been asked for. tell may be nil for a command that
// says what it has to say at its end.
func (p *program) newSecrets(tell func(account, text string)) *secrets {
	if tell == nil {
		tell = func(account, text string) {
			fmt.Fprintln(p.stderr, fold(plain(account+": "+text), columns(p.stderr), hang)) //nolint:errcheck // nowhere left to tell
		}
	}
	return &secrets{getenv: p.getenv, tell: tell, terminal: make(chan struct{}, 1),
		got: make(map[string]string), asked: make(map[string]*asking), sources: make(map[string]*oauth.Source)}
}

// forget has an account's secret asked for anew.
func (s *secrets) forget(account string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.got, account)
	delete(s.asked, account)
	delete(s.sources, account)
}

func (s *secrets) password(ctx context.Context, a *config.Account) (string, error) {
	for {
		s.mu.Lock()
		had, ok := s.got[a.Name]
		if ok && a.PasswordFile == "" {
			s.mu.Unlock()
			return had, nil
		}
		if err := ctx.Err(); err != nil {
			s.mu.Unlock()
			return "", err
		}
		now := s.asked[a.Name]
		if now == nil {
			now = &asking{done: make(chan struct{})}
			s.asked[a.Name] = now
			s.mu.Unlock()
			now.password, now.err = s.ask(ctx, a)
			if now.err != nil && ok { // a file may have another one now, or be away
				now.password, now.err = had, nil
			}
			s.mu.Lock()
			if s.asked[a.Name] == now {
				delete(s.asked, a.Name)
				if now.err == nil {
					s.got[a.Name] = now.password
				}
			}
			s.mu.Unlock()
			close(now.done)
			return now.password, now.err
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-now.done:
		}
		if !errors.Is(now.err, context.Canceled) { // which was the other one's end
			return now.password, now.err
		}
	}
}

// dial opens a connection of an account. What was remembered and is refused may not be the
// password any more: it is asked for again, and if it is another one the server is, too, once.
func (s *secrets) dial(ctx context.Context, a *config.Account, o remote.Options) (*remote.Session, error) {
	s.mu.Lock()
	had, remembered := s.got[a.Name]
	s.mu.Unlock()
	session, err := remote.Dial(ctx, o)
	if f, ok := errors.AsType[*mail.Fault](err); !remembered || !ok || f.Kind != mail.KindAuth || !s.changed(ctx, a, had) {
		return session, err
	}
	return remote.Dial(ctx, o)
}

// changed tells whether an account's password is another one than the remembered one that was
// refused. One that cannot be had now is none.
func (s *secrets) changed(ctx context.Context, a *config.Account, refused string) bool {
	s.mu.Lock()
	if s.got[a.Name] == refused {
		delete(s.got, a.Name)
	}
	s.mu.Unlock()
	now, err := s.password(ctx, a)
	if err == nil {
		return now != refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.got[a.Name]; !ok {
		s.got[a.Name] = refused // by which the refusal is known again
	}
	return false
}

// ask gets an account's password from where it is, and tells when that takes long.
func (s *secrets) ask(ctx context.Context, a *config.Account) (string, error) {
	where := "the keyring has not answered"
	if len(a.PasswordCommand) > 0 {
		where = "its password_command has not ended"
		if config.Attended() {
			select {
			case <-ctx.Done():
				return "", ctx.Err()
			case s.terminal <- struct{}{}:
				defer func() { <-s.terminal }()
			}
		}
	}
	t := time.AfterFunc(secretSlow, func() {
		s.tell(a.Name, fmt.Sprintf("%s for %d s; does it wait for somebody, as for a passphrase?", where, int(secretSlow.Seconds())))
	})
	defer t.Stop()
	return a.Password(ctx)
}
