package config

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/zalando/go-keyring"
	"golang.org/x/sys/unix"

	"github.com/notmuch-imap/notmuch-imap/internal/vault"
)

const (
	// secretWait is how long a password may take: a person may have to type
	// the passphrase of a key.
	secretWait = time.Minute
	maxSecret  = 64 << 10 // an OAuth token is some KiB
	maxStderr  = 2 << 10
)

// Password gets the secret in the way that the account names. It takes a minute
// at most. No error holds the secret.
func (a *Account) Password(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, secretWait)
	defer cancel()
	switch {
	case len(a.PasswordCommand) > 0:
		return a.fromCommand(ctx, Attended())
	case a.PasswordFile != "":
		return a.fromFile()
	case a.Keyring:
		return a.fromKeyring(ctx)
	}
	return "", fmt.Errorf("account.%s: no password_command, password_file or keyring", a.Name)
}

// Attended tells whether we are in the foreground of a terminal, where a program may ask
// somebody for a passphrase.
func Attended() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close() //nolint:errcheck // only asked
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// fromCommand takes the first line that a program prints. Where somebody may be asked the
// program stays in our process group, or it could not read from the terminal. Else it has
// one of its own, so that nothing of it is left when it is ended.
func (a *Account) fromCommand(ctx context.Context, attended bool) (string, error) {
	program := a.PasswordCommand[0]
	fail := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("password_command %s: %w", program, fmt.Errorf(format, args...))
	}
	cmd := exec.CommandContext(ctx, program, a.PasswordCommand[1:]...)
	out, stderr := &bounded{most: maxSecret}, &bounded{most: maxStderr}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, stderr
	// A pinentry on the terminal restores it when told to end.
	end := func(sig syscall.Signal) error { return cmd.Process.Signal(sig) }
	if !attended {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		end = func(sig syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, sig) }
	}
	cmd.Cancel = func() error { return end(syscall.SIGTERM) }
	// An agent that the program started may keep its output open for ever.
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		_ = end(syscall.SIGKILL) // most often there is nothing left
	}
	secret, _, _ := strings.Cut(string(out.kept), "\n")
	secret = strings.TrimSuffix(secret, "\r")
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fail("no answer within %v", secretWait)
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
	case errors.Is(err, exec.ErrNotFound):
		return fail("there is no such program on the PATH")
	case errors.As(err, &exit):
		said := stderr.words(secret)
		if said == "" {
			return fail("%v", exit)
		}
		return fail("%v: %s", exit, said)
	default:
		return fail("%v", err)
	}
	switch {
	case secret == "":
		return fail("it printed no password on its first line")
	case out.cut:
		return fail("it printed more than %d KiB; the password is to stand on the first line", maxSecret>>10)
	}
	return secret, nil
}

// bounded keeps the first bytes of what a program prints and swallows the rest.
type bounded struct {
	kept []byte
	most int
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.most - len(b.kept)
	b.cut = b.cut || len(p) > room
	b.kept = append(b.kept, p[:min(len(p), room)]...)
	return len(p), nil
}

// words makes one line of what was printed, without the secret.
func (b *bounded) words(secret string) string {
	s := strings.ToValidUTF8(string(b.kept), "?")
	if secret != "" {
		s = strings.ReplaceAll(s, secret, "***")
	}
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), "; ")
	if r := []rune(s); len(r) > 400 {
		s = string(r[:400]) + "..."
	}
	return strings.TrimSpace(s)
}

// fromFile takes the first line of a file that nobody else can read.
func (a *Account) fromFile() (string, error) {
	// Not to wait for a writer, should it be a pipe.
	f, err := os.OpenFile(a.PasswordFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return "", fmt.Errorf("password_file %s: %w", a.PasswordFile, err)
	}
	defer f.Close() //nolint:errcheck // only read
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	switch {
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("password_file %s: not a regular file", a.PasswordFile)
	case st.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("password_file %s: others can read it (mode %04o); run: chmod 600 %s", a.PasswordFile, st.Mode().Perm(), a.PasswordFile)
	}
	line, err := bufio.NewReader(io.LimitReader(f, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("password_file: %w", err)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", fmt.Errorf("password_file %s: its first line is empty", a.PasswordFile)
	}
	return line, nil
}

// KeyringUser is the name under which the system's keyring holds the account's
// password; the service is notmuch-imap.
func (a *Account) KeyringUser() string { return a.User + "@" + a.Host }

// fromKeyring asks the system's keyring.
func (a *Account) fromKeyring(ctx context.Context) (string, error) {
	secret, err := inKeyring(ctx, func() (string, error) { return keyring.Get(program, a.KeyringUser()) })
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		return "", fmt.Errorf("keyring: it has no password for service %s, user name %s", program, a.KeyringUser())
	case err != nil:
		return "", err
	case secret == "":
		return "", errors.New("keyring: the password is empty")
	}
	return secret, nil
}

// inKeyring lets the system's keyring do something, a minute at most.
func inKeyring(ctx context.Context, do func() (string, error)) (string, error) {
	secret, err := vault.Ask(ctx, secretWait, do)
	if err != nil && !errors.Is(err, context.Canceled) {
		return "", fmt.Errorf("keyring: %w", err)
	}
	return secret, err
}
