package cmd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/maildir"
)

// The places where a password can be kept, as --store names them.
const (
	inKeyring = "keyring"
	inPass    = "pass"
	inFile    = "file"
	byCommand = "command"
	byOAuth   = "oauth" // there is no password
)

// errNoKeyring says what there is besides a keyring that does not answer.
var errNoKeyring = errors.New("no keyring answers here; besides it there is a file that only you can read (--store file)")

// wayGiven takes the way to the password that the command line names.
func (s *setup) wayGiven() error {
	given := 0
	if c := strings.Fields(s.c.String("password-command")); len(c) > 0 {
		s.account.Command, given = c, given+1
	}
	if f := s.c.String("password-file"); f != "" {
		abs, err := filepath.Abs(f)
		if err != nil {
			return err
		}
		s.account.File, given = abs, given+1
	}
	client, err := s.clientGiven()
	if err != nil {
		return err
	}
	place := s.c.String("store")
	switch {
	case client != nil: // --store is for its tokens
		s.account.OAuth, given = client, given+1
	case place != "" && !s.tokensOnly():
		given++
		if err := s.keepIn(place); err != nil {
			return err
		}
	}
	if given > 1 {
		return &usageError{"one of --store, --password-command, --password-file and --client-id is enough", s.person.command}
	}
	if s.account.keptNowhere() && s.tokensOnly() {
		s.account.OAuth = s.oauthKnown()
	}
	return nil
}

// keepIn makes the account's table name a place for the password.
func (s *setup) keepIn(place string) error {
	a := &s.account
	a.Command, a.File, a.Keyring = nil, "", false
	switch place {
	case inKeyring:
		a.Keyring = true
	case inPass:
		a.Command = []string{"pass", "show", passEntry(a.Name)}
	case inFile:
		a.File = filepath.Join(filepath.Dir(s.file), a.Name+".password")
		if _, err := os.Lstat(a.File); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, fmt.Errorf("%s is there already; name it with --password-file, or move it away", a.File))
		}
	default:
		return &usageError{fmt.Sprintf("--store %q is none of keyring, pass and file", place), s.person.command}
	}
	return nil
}

func passEntry(account string) string { return name + "/" + account }

// password asks for the password and where to keep it, as far as that is not
// known.
func (s *setup) password(ctx context.Context) error {
	if s.account.keptNowhere() {
		if err := s.wayGiven(); err != nil {
			return err
		}
		if s.account.Keyring && !config.HasKeyring(ctx) {
			return fmt.Errorf("%w, or pass where it is set up (--store pass), or a command or file of yours (--password-command, --password-file); nothing was changed", errNoKeyring)
		}
		if _, err := exec.LookPath("pass"); err != nil && s.toStore() && len(s.account.Command) > 0 {
			return fmt.Errorf("there is no pass on the PATH; besides it there is a file that only you can read (--store file), or a command or file of yours (--password-command, --password-file); %w", errUnchanged)
		}
	}
	if s.account.keptNowhere() {
		place, err := s.place(ctx)
		if err != nil {
			return err
		}
		switch place {
		case byOAuth:
			s.account.OAuth = s.oauthKnown()
		case byCommand:
			words, err := s.person.line(ctx, "command that prints the password (no shell, words at blanks)", "", "--password-command")
			if err != nil {
				return err
			}
			s.account.Command = strings.Fields(words)
			return nil
		default:
			if err := s.keepIn(place); err != nil {
				return err
			}
		}
	}
	if s.account.OAuth != nil {
		return s.client(ctx)
	}
	if !s.toStore() {
		return nil
	}
	var err error
	if s.c.Bool("password-stdin") && s.secret == "" {
		s.secret, err = firstLine(s.stdin)
	} else {
		kind := "password"
		if s.preset.AppPassword != "" {
			kind = "app password"
		}
		s.secret, err = s.person.secret(ctx, kind+" of "+plain(s.account.User), "--password-stdin")
	}
	if err == nil && s.secret == "" {
		err = errors.New("the password is empty; nothing was changed")
	}
	return err
}

// toStore tells whether the password is ours to put where the account will look
// for it, and not there already by somebody else's doing.
func (s *setup) toStore() bool {
	a := &s.account
	return a.Keyring || len(a.Command) == 3 && a.Command[0] == "pass" && a.Command[2] == passEntry(a.Name) && s.c.String("password-command") == "" ||
		a.File != "" && s.c.String("password-file") == ""
}

// place asks where to keep the password.
func (s *setup) place(ctx context.Context) (string, error) {
	var places []choice
	if config.HasKeyring(ctx) {
		places = append(places, choice{inKeyring, "the desktop's keyring"})
	}
	if home := s.getenv("HOME"); home != "" {
		_, missing := exec.LookPath("pass")
		store := either(s.getenv("PASSWORD_STORE_DIR"), filepath.Join(home, ".password-store"))
		if _, err := os.Stat(filepath.Join(store, ".gpg-id")); err == nil && missing == nil {
			places = append(places, choice{inPass, "pass, as " + passEntry(s.account.Name)})
		}
	}
	places = append(places, choice{inFile, "a file that only you can read, but not encrypted"},
		choice{byCommand, "nowhere: a command of yours prints it"})
	if s.oauthKnown() != nil {
		places = append(places, choice{byOAuth, "there is none: sign in by a browser, as a client that you register"})
	}
	return s.person.chooses(ctx, "where to keep the password?", "--store, --password-command, --password-file or --client-id", places)
}

// store puts the password where the account will look for it, and reads it back.
func (s *setup) store(ctx context.Context, a *config.Account) (undo func(), err error) {
	undo = func() {}
	if a.OAuth != nil {
		return s.storeToken(ctx, a)
	}
	if !s.toStore() {
		return undo, nil
	}
	switch {
	case a.Keyring:
		undo, err = a.StoreInKeyring(ctx, s.secret)
	case a.PasswordFile != "":
		undo = func() { _ = os.Remove(a.PasswordFile) } // it is gone already otherwise
		err = writeSecret(a.PasswordFile, s.secret)
	default:
		undo, err = storeInPass(ctx, a.Name, s.secret)
	}
	if err == nil {
		var back string
		if back, err = a.Password(ctx); err == nil && back != s.secret {
			err = errors.New("the password that was stored is not the one that comes back; nothing was changed")
		}
	}
	if err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

func writeSecret(file, secret string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(secret + "\n")
	return errors.Join(err, f.Sync(), f.Close(), maildir.SyncDir(filepath.Dir(file)))
}

// storeInPass gives the password to pass by its standard input. An entry that is
// there is kept: pass has no way to put it back.
func storeInPass(ctx context.Context, account, secret string) (undo func(), err error) {
	undo = func() {}
	entry := passEntry(account)
	if exec.CommandContext(ctx, "pass", "show", entry).Run() == nil {
		return undo, fmt.Errorf("pass has an entry %s already; remove it (pass rm %s), or use it: --password-command 'pass show %s'", entry, entry, entry)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	insert := exec.CommandContext(ctx, "pass", "insert", "--multiline", entry)
	insert.Stdin = strings.NewReader(secret + "\n")
	var said bytes.Buffer
	insert.Stderr = &said
	if err := insert.Run(); err != nil {
		return undo, fmt.Errorf("pass insert %s: %w: %s", entry, err, strings.Join(strings.Fields(said.String()), " "))
	}
	return func() { _ = exec.CommandContext(context.WithoutCancel(ctx), "pass", "rm", "--force", entry).Run() }, nil
}

// firstLine reads the password from standard input.
func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
