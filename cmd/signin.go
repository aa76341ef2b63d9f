package cmd

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// fingerprints gives what tells whether an account would sign in with something else than
// before (pipeline.Options.SignIn). A file is read for it; a program or the keyring is
// not asked but for a sign-in, and an OAuth token is another one every hour.
func (s *secrets) fingerprints(a *config.Account) func(ctx context.Context, key string) (way, secret string) {
	return func(ctx context.Context, key string) (way, secret string) {
		cert, _ := os.ReadFile(a.TLSCert) // "" if there is none
		text, _ := json.Marshal([]any{a.User, a.Auth, a.Where(), a.TLS, a.AllowPlaintext, a.TLSServerName, a.TLSPin, cert, a.Tunnel, a.Proxy, a.Disable,
			a.PasswordCommand, a.PasswordFile, a.Keyring, a.OAuth}) // nothing of these fails
		return fingerprintOf(key, string(text)), fingerprintOf(key, s.known(ctx, a))
	}
}

// known gives the account's password if it was had already or stands in a file; "" if it
// is not known.
func (s *secrets) known(ctx context.Context, a *config.Account) string {
	if a.PasswordFile != "" {
		pw, err := s.password(ctx, a)
		if err != nil {
			return err.Error() // to be told at once: with it no server is asked
		}
		return pw
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[a.Name]
}

// fingerprintOf gives two bytes of a keyed hash: enough to see that a text is another
// one, and too few to find a password by trying words, also for who has the key. "" for "".
func fingerprintOf(key, text string) string {
	if text == "" {
		return ""
	}
	m := hmac.New(sha256.New, []byte(key))
	_, _ = m.Write([]byte("sign-in " + text)) // never fails (hash.Hash)
	return fmt.Sprintf("%x", m.Sum(nil)[:2])
}

// signedIn forgets that sign-ins of an account were refused. A run that is under way does
// so itself.
func (p *program) signedIn(ctx context.Context, a *config.Account) (err error) {
	dir, err := a.StateDir(p.getenv)
	if err != nil {
		return err
	}
	seen, err := ledger.OpenReadOnly(ctx, dir)
	if errors.Is(err, ledger.ErrNotExist) {
		return nil // Open would make one
	}
	if err != nil {
		return err
	}
	if err := seen.Close(); err != nil {
		return err
	}
	l, err := ledger.Open(ctx, dir)
	if errors.Is(err, ledger.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return pipeline.ForgetRefusal(ctx, l)
}
