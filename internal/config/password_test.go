package config

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zalando/go-keyring"
	"go.uber.org/goleak"
)

// TestMain puts the test keyring in the system's place before any test runs.
func TestMain(m *testing.M) {
	keyring.MockInit()
	goleak.VerifyTestMain(m)
}

func sh(script string) Account {
	return Account{Name: "work", PasswordCommand: []string{"/bin/sh", "-c", script}}
}

func TestCommandGivesItsFirstLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, script, want, fails string }{
		{"one line", `echo hunter2`, "hunter2", ""},
		{"no newline", `printf hunter2`, "hunter2", ""},
		{"CRLF", `printf 'hunter2\r\n'`, "hunter2", ""},
		{"more lines", `printf 'hunter2\nuser: me\n'`, "hunter2", ""},
		{"spaces stay", `printf ' hunter2 \n'`, " hunter2 ", ""},
		{"warnings on stderr", `echo careful >&2; echo hunter2`, "hunter2", ""},
		{"an agent keeps its output open", `sleep 30 & echo hunter2`, "hunter2", ""},
		{"nothing", `true`, "", "password_command /bin/sh: it printed no password on its first line"},
		{"empty first line", `printf '\nhunter2\n'`, "", "password_command /bin/sh: it printed no password on its first line"},
		{"failure", `echo 'gpg: no key' >&2; exit 2`, "", "password_command /bin/sh: exit status 2: gpg: no key"},
		{"silent failure", `exit 3`, "", "password_command /bin/sh: exit status 3"},
		{"failure that shows the secret", `echo hunter2; echo 'cannot use hunter2' >&2; exit 1`, "", "password_command /bin/sh: exit status 1: cannot use ***"},
		{"flood", `yes hunter2 | tr -d '\n' | head -c 1000000`, "", "password_command /bin/sh: it printed more than 64 KiB; the password is to stand on the first line"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := sh(tc.script)
			got, err := a.Password(t.Context())
			switch {
			case tc.fails == "" && (err != nil || got != tc.want):
				t.Errorf("%q, %v", got, err)
			case tc.fails != "" && (err == nil || err.Error() != tc.fails):
				t.Errorf("got %v\nwant %s", err, tc.fails)
			}
		})
	}
}

func TestCommandNotThere(t *testing.T) {
	t.Parallel()
	a := Account{PasswordCommand: []string{"no-such-program-here", "secret-argument"}}
	_, err := a.Password(t.Context())
	if err == nil || err.Error() != "password_command no-such-program-here: there is no such program on the PATH" {
		t.Error(err)
	}
}

func TestCancelEndsTheCommand(t *testing.T) {
	t.Parallel()
	ready := filepath.Join(t.TempDir(), "ready")
	if err := syscall.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := sh(`echo > ` + ready + `; exec sleep 600`)
	done := make(chan error, 1)
	go func() { _, err := a.Password(ctx); done <- err }()
	if _, err := os.ReadFile(ready); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestNothingIsLeftOfACommandThatIsEnded: where nobody can be asked, what the program started
// ends with it.
func TestNothingIsLeftOfACommandThatIsEnded(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{"a child": `sleep 600`, "one that heeds no SIGTERM": `trap '' TERM; sleep 600`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// All that is running has it open for writing.
			ready := filepath.Join(t.TempDir(), "ready")
			if err := syscall.Mkfifo(ready, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := sh(`exec 3> ` + ready + `; echo >&3; ` + script + `; echo no`)
			done := make(chan error, 1)
			go func() { _, err := a.fromCommand(ctx, false); done <- err }()
			r, err := os.Open(ready)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := r.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Errorf("something of it is still running: %v", err)
			}
		})
	}
}

func TestFileMustBeOursAlone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("hunter2\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := Account{PasswordFile: file}
	if got, err := a.Password(t.Context()); err != nil || got != "hunter2" {
		t.Errorf("%q, %v", got, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := a.Password(t.Context())
		if err == nil || !strings.HasSuffix(err.Error(), "run: chmod 600 "+file) {
			t.Errorf("%o: %v", mode, err)
		}
	}
	a.PasswordFile = filepath.Dir(file)
	if _, err := a.Password(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "not a regular file") {
		t.Error(err)
	}
	a.PasswordFile = file + "x"
	if _, err := a.Password(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestKeyring(t *testing.T) {
	t.Parallel()
	a := Account{Keyring: true, User: "me", Host: "imap.example.org"}
	if _, err := a.Password(t.Context()); err == nil || err.Error() != "keyring: it has no password for service notmuch-imap, user name me@imap.example.org" {
		t.Error(err)
	}
	if err := keyring.Set("notmuch-imap", "me@imap.example.org", "hunter2"); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Password(t.Context()); err != nil || got != "hunter2" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCertPool(t *testing.T) {
	t.Parallel()
	var a Account
	if pool, err := a.CertPool(); pool != nil || err != nil {
		t.Error(pool, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a = Account{Name: "work", TLSCAFile: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(a.TLSCAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	pool, err := a.CertPool()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(a.TLSCAFile, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.CertPool(); err == nil || !strings.Contains(err.Error(), "holds no certificate in PEM form") {
		t.Error(err)
	}
}
