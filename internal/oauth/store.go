package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/notmuch-imap/notmuch-imap/internal/vault"
)

// Token is what a provider gave.
type Token struct {
	Access  string    `json:"access_token"`
	Refresh string    `json:"refresh_token,omitempty"` // "" if the provider gives none
	Expiry  time.Time `json:"expiry,omitzero"`         // of Access; zero if it was not told
	Scope   string    `json:"scope,omitempty"`         // as granted; "" if that was not told
	// ClientID and TokenURL are whom it was given to and by: it goes nowhere else.
	ClientID string `json:"client_id"`
	TokenURL string `json:"token_url"`
}

// ErrNone says that nobody has signed in.
var ErrNone = errors.New("nobody has signed in to this account")

// unfitError says that the file of the token is none to be used.
type unfitError struct{ text string }

func (e *unfitError) Error() string { return e.text }

// The places where tokens are kept.
const (
	InKeyring = "keyring"
	InFile    = "file"
)

// Store keeps an account's tokens: in the system's keyring, or in a file in Dir.
// If the file is there, it counts.
type Store struct {
	Dir  string // the account's state directory
	User string // of the keyring's entry; the service is notmuch-imap
}

const (
	service     = "notmuch-imap"
	maxToken    = 64 << 10
	keyringTime = time.Minute // a person may have to unlock it
)

func (s Store) file() string { return filepath.Join(s.Dir, "oauth.json") }

// keyringUser is not the one of a password.
func (s Store) keyringUser() string { return s.User + " (oauth)" }

// Place says where the tokens are or would be looked for, in words.
func (s Store) Place() string {
	if _, err := os.Lstat(s.file()); err == nil {
		return s.file()
	}
	return "the system's keyring"
}

// Load gets the tokens. It is ErrNone if there are none.
func (s Store) Load(ctx context.Context) (*Token, error) {
	text, err := s.fromFile()
	if errors.Is(err, fs.ErrNotExist) {
		text, err = vault.Ask(ctx, keyringTime, func() (string, error) { return keyring.Get(service, s.keyringUser()) })
		if errors.Is(err, keyring.ErrNotFound) {
			return nil, ErrNone
		}
		if err != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("there is no token in %s, and %w", s.file(), &keyringError{err})
		}
	}
	if err != nil {
		return nil, err
	}
	t := new(Token)
	if json.Unmarshal([]byte(text), t) != nil || t.Access == "" && t.Refresh == "" {
		return nil, fmt.Errorf("%w: what is in %s is no token", ErrNone, s.Place())
	}
	return t, nil
}

func (s Store) fromFile() (string, error) {
	// Not to wait for a writer, should it be a pipe.
	f, err := os.OpenFile(s.file(), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", &unfitError{s.file() + ": not a regular file"}
	case st.Mode().Perm()&0o077 != 0:
		return "", &unfitError{fmt.Sprintf("%s: others can read it (mode %04o)", s.file(), st.Mode().Perm())}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	return string(text), err
}

// Save keeps the tokens in a place, or where they are if it is "". What another
// place holds is removed. After an error what was there is there.
func (s Store) Save(ctx context.Context, t *Token, place string) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if place == "" {
		place = InKeyring
		if _, err := os.Lstat(s.file()); err == nil {
			place = InFile
		}
	}
	if place == InFile {
		if err := s.toFile(text); err != nil {
			return err
		}
		// What is left there does not count, and may not be reachable.
		_, _ = vault.Ask(ctx, keyringTime, func() (string, error) { return "", keyring.Delete(service, s.keyringUser()) })
		return nil
	}
	if _, err := vault.Ask(ctx, keyringTime, func() (string, error) { return "", keyring.Set(service, s.keyringUser(), string(text)) }); err != nil {
		return fmt.Errorf("the system's keyring does not take the token: %w", err)
	}
	return s.removeFile()
}

// toFile writes the file whole or not at all. The lock is held.
func (s Store) toFile(text []byte) (err error) {
	draft := s.file() + ".new"
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err == nil {
		err = os.Rename(draft, s.file())
	}
	if err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return s.syncDir()
}

func (s Store) syncDir() error {
	d, err := os.Open(s.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s Store) removeFile() error {
	for _, f := range []string{s.file() + ".new", s.file()} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// keyringError says that the system's keyring does not answer.
type keyringError struct{ err error }

func (e *keyringError) Error() string { return "the system's keyring cannot be read: " + e.err.Error() }

// absent tells whether this session has no keyring at all, as one without a desktop: there
// is no bus to ask at, nor a program that starts one.
func (e *keyringError) absent() bool {
	_, bus := errors.AsType[*net.OpError](e.err)
	_, missing := errors.AsType[*exec.Error](e.err)
	_, failed := errors.AsType[*exec.ExitError](e.err)
	return bus || missing || failed
}

// NoKeyring tells of an error of Load that there is no token in the file, and that this
// session has no keyring.
func NoKeyring(err error) bool {
	e, ok := errors.AsType[*keyringError](err)
	return ok && e.absent()
}

// Remove forgets the tokens wherever they are.
func (s Store) Remove(ctx context.Context) error {
	_, err := vault.Ask(ctx, keyringTime, func() (string, error) { return "", keyring.Delete(service, s.keyringUser()) })
	if errors.Is(err, keyring.ErrNotFound) {
		err = nil
	} else if err != nil {
		err = &keyringError{err}
	}
	if _, there := os.Lstat(s.file()); there == nil {
		err = nil // they were in the file, and a keyring that is not there held none
	}
	return errors.Join(err, s.removeFile())
}

// HasKeyring tells whether the system's keyring answers.
func (s Store) HasKeyring(ctx context.Context) bool {
	_, err := vault.Ask(ctx, keyringTime, func() (string, error) { return keyring.Get(service, s.keyringUser()) })
	return err == nil || errors.Is(err, keyring.ErrNotFound)
}

// Lock takes the lock under which tokens are renewed and changed, and waits for
// it until ctx ends: a refresh token may be good for one use.
func (s Store) Lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "oauth.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if unlock, err = vault.Lock(ctx, f); errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("another run is renewing the token and does not come to an end (%s)", f.Name())
	}
	return unlock, err
}
