package config

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zalando/go-keyring"

	"github.com/notmuch-imap/notmuch-imap/internal/vault"
)

// Draft is a configuration with one table more, as it would be read.
type Draft struct {
	file   string
	had    []byte
	exists bool
	text   string // what is to be added
	Config *Config
}

// NewDraft reads the configuration, which need not be there yet, and checks what
// it would be with text behind it. Nothing is written. An error is Errors if the
// text, or what is there already, is wrong.
func NewDraft(file, text string, getenv func(string) string) (*Draft, error) {
	d := &Draft{file: file, text: text}
	var err error
	switch d.had, err = os.ReadFile(file); {
	case err == nil:
		d.exists = true
	case !errors.Is(err, fs.ErrNotExist):
		return nil, unreadable(file, err)
	}
	if len(d.had) > 0 {
		d.text = "\n" + text
		if d.had[len(d.had)-1] != '\n' {
			d.text = "\n" + d.text
		}
	}
	d.Config, err = parse(file, append(d.had[:len(d.had):len(d.had)], d.text...), getenv)
	wrong, _ := errors.AsType[Errors](err)
	for _, e := range wrong {
		if e.Line > bytes.Count(d.had, []byte{'\n'})+1 || len(d.had) == 0 {
			if e.Line = 0; e.Key == "" && len(d.had) > 0 {
				e.Text = "no account can be added behind what is there (" + e.Text + "): write each of its accounts as [account.NAME]"
				continue
			}
			e.File = ""
		}
	}
	return d, err
}

// Append adds the text to the file, and makes the file if it is not there. What
// was there stays as it was, byte for byte; after an error that is all there is.
func (d *Draft) Append() (err error) {
	if err := os.MkdirAll(filepath.Dir(d.file), 0o700); err != nil {
		return err
	}
	how := os.O_WRONLY | os.O_APPEND
	if !d.exists {
		how |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(d.file, how, 0o600)
	if target, link := os.Readlink(d.file); errors.Is(err, fs.ErrExist) && link == nil {
		return fmt.Errorf("%s is a link to %s, which is not there", d.file, target)
	}
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil && !d.exists {
			err = errors.Join(err, os.Remove(d.file))
		}
	}()
	if now, err := os.ReadFile(d.file); err != nil || string(now) != string(d.had) {
		return errors.Join(err, fmt.Errorf("%s was changed by somebody else meanwhile; nothing was added to it", d.file))
	}
	if _, err = f.WriteString(d.text); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Truncate(int64(len(d.had))))
	}
	return nil
}

// Exposed says that others can read a configuration, which is no harm as long as there
// is no client's secret in it. That it is not there is no error.
func Exposed(file string) error {
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others can read %s (mode %04o); run: chmod 600 %s", file, st.Mode().Perm(), file)
	}
	return nil
}

// Lock keeps other programs from adding to a configuration until unlock, and makes its
// directory if it is not there. It waits for them until ctx ends.
func Lock(ctx context.Context, file string) (unlock func(), err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return vault.Lock(ctx, d)
}

// HasKeyring tells whether the system's keyring answers.
func HasKeyring(ctx context.Context) bool {
	_, err := inKeyring(ctx, func() (string, error) { return keyring.Get(program, "is there a keyring?") })
	return err == nil || errors.Is(err, keyring.ErrNotFound)
}

// StoreInKeyring gives the account's password to the system's keyring, and gives
// what takes it away again: what was there before is put back.
func (a *Account) StoreInKeyring(ctx context.Context, secret string) (undo func(), err error) {
	user := a.KeyringUser()
	before, err := inKeyring(ctx, func() (string, error) { return keyring.Get(program, user) })
	if err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return func() {}, err
	}
	had := err == nil
	undo = func() {
		// That it cannot be taken away leaves a password where passwords are.
		if had {
			_ = keyring.Set(program, user, before)
		} else {
			_ = keyring.Delete(program, user)
		}
	}
	_, err = inKeyring(ctx, func() (string, error) { return "", keyring.Set(program, user, secret) })
	return undo, err
}
