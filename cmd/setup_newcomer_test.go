package cmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// hasServer gives a newcomer a server, and the words that make an account of it, whose
// password is on standard input.
func (n *newcomer) hasServer() (setup []string) {
	n.t.Helper()
	server, err := imaptest.NewSeed()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = server.Close() })
	ca := filepath.Join(n.t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.Certificate.PEM, 0o600); err != nil {
		n.t.Fatal(err)
	}
	return []string{name, "setup", "account", imaptest.User, "--host", server.Host(), "--port", fmt.Sprint(server.Port()), "--tls-ca-file", ca, "--password-stdin", "--yes"}
}

// Where there is no keyring, nothing is made for a password that was to be kept there.
func TestSetupAccountWithoutAKeyring(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	setup := append(n.hasServer(), "--store", "keyring")
	out := n.run(exitBroken, imaptest.Password+"\n", setup...)
	for _, want := range []string{"no keyring answers", "--store file", "--password-command"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q: %s", want, out)
		}
	}
	for _, left := range []string{".notmuch-config", "Mail", ".config"} {
		if _, err := os.Lstat(filepath.Join(n.home, left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %s, %v", left, err)
		}
	}
	// The lines can be for another machine.
	if out := n.run(exitDone, "", append(setup, "--print")...); !strings.Contains(out, "\nkeyring = true\n") {
		t.Error(out)
	}
}

// Nobody is sent to a browser for a token that cannot be kept.
func TestSetupAccountWithoutAKeyringForTokens(t *testing.T) {
	t.Parallel()
	n, args := newApplicant(t, "XOAUTH2", &imaptest.Authorizer{}, nil)
	out := n.does(exitBroken, append(args, "--client-id", "client", "--store", "keyring", "--yes")...)
	if !strings.Contains(out, "no keyring answers") || n.files() != "" {
		t.Errorf("%s, left %s", out, n.files())
	}
}

// A configuration that has no account yet gets its first one, and keeps what it has.
func TestSetupAccountAddsTheFirst(t *testing.T) {
	t.Parallel()
	for what, before := range map[string]string{
		"empty":    "",
		"comments": "# mine\n\n# without a line end",
		"hooks":    "[[hook]]\nname = \"mine\" # odd\npoints = [\"post-sync\"]\ncommand = [\"true\"]\n",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			n := newNewcomer(t)
			setup := append(n.hasServer(), "--store", "file")
			file, real := filepath.Join(n.home, newConfig), filepath.Join(n.home, "dotfiles.toml")
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(real, []byte(before), 0o600), os.Symlink(real, file)); err != nil {
				t.Fatal(err)
			}
			n.run(exitDone, "", append(setup, "--print")...)
			if out := n.run(exitDone, imaptest.Password+"\n", setup...); !strings.Contains(out, "Now: notmuch imap sync example") {
				t.Error(out)
			}
			if got := n.read("dotfiles.toml"); !strings.HasPrefix(got, before) || !strings.Contains(got, "[account.example]\n") {
				t.Error(got)
			}
			if st, err := os.Lstat(file); err != nil || st.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link: %v, %v", st, err)
			}
		})
	}
	// What else is wrong with it comes first.
	n := newNewcomer(t)
	file := filepath.Join(n.home, newConfig)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("[[hook]]\nquestion = \"x\"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out := n.run(exitUsage, "", name, "setup", "account", "me@example.org", "--host", "x", "--yes"); !strings.Contains(out, "question") {
		t.Error(out)
	}
}

func TestHelpPartsATermFromItsText(t *testing.T) {
	t.Parallel()
	for n := range 40 {
		term := strings.Repeat("T", n+1)
		var b strings.Builder
		row(&b, 24, term, "text")
		if strings.Contains(b.String(), term+"text") {
			t.Error(b.String())
		}
	}
}

func TestSetupAccountTakesNoEmptyOption(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	for want, more := range map[string][]string{
		"--port 0 is not between": {"--port", "0"},
		"--user is given without": {"--user", ""},
		"--host is given without": {"--host="},
	} {
		args := append([]string{name, "setup", "account", "me@example.org", "--host", "127.0.0.1", "--print"}, more...)
		if out := n.run(exitUsage, "", args...); !strings.Contains(out, want) {
			t.Error(out)
		}
	}
}

// An address that has an account already gets no second one by mistake.
func TestSetupAccountOfAnAddressThatIsThere(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	setup := append(n.hasServer(), "--store", "file")
	n.run(exitDone, imaptest.Password+"\n", setup...)
	before := n.read(newConfig)
	// By its address, and by the same user of the same server under another address.
	other := append([]string{name, "setup", "account", "other@example.com"}, setup[4:]...)
	for _, again := range [][]string{setup, append(setup, "--print"), append(other, "--user", strings.ToUpper(imaptest.User))} {
		out := n.run(exitUsage, imaptest.Password+"\n", again...)
		for _, want := range []string{imaptest.User, `account "example"`, "notmuch imap check example", "--name"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q: %s", want, out)
			}
		}
	}
	if got := n.read(newConfig); got != before {
		t.Errorf("from %s to %s", before, got)
	}
	// On purpose, with a name of its own.
	if out := n.run(exitDone, imaptest.Password+"\n", append(setup, "--name", "twice")...); !strings.Contains(out, "Now: notmuch imap sync twice") {
		t.Error(out)
	}
	// Somebody else at the same server is somebody else.
	if out := n.run(exitDone, "", append(other, "--print")...); !strings.Contains(out, "user = \"other@example.com\"") {
		t.Error(out)
	}
}

// A wrong answer is told as the option that it was, and before anything is asked; there is
// no file yet in which it could stand.
func TestSetupAccountBlamesTheOption(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	for want, more := range map[string][]string{
		`--tls: "maybe" is not one of`:                {"--tls", "maybe"},
		`--host: "a b" is not a host name`:            {"--host", "a b"},
		`--tls-pin: must be "sha256:"`:                {"--tls-pin", "sha256:12"},
		`--name: the account's name may hold letters`: {"--name", "a/b"},
		`--name: the account's name begins with "."`:  {"--name", ".a"},
		`--oauth: "yahoo" is not one of`:              {"--oauth", "yahoo", "--client-id", "x"},
		`--token-url: `:                               {"--auth-url", "https://a.example/x", "--token-url", "http://a.example/x", "--scope", "s", "--client-id", "x"},
		`--user: `:                                    {"--user", "a\tb"},
	} {
		for _, how := range []string{"--yes", "--print"} {
			args := append([]string{name, "setup", "account", "me@own.example", "--host", "127.0.0.1", how}, more...)
			out := n.run(exitUsage, "", args...)
			if !strings.Contains(out, want) || strings.Contains(out, "config.toml") || strings.Contains(out, "notmuch is not set up") {
				t.Errorf("%v: no %q: %s", args, want, out)
			}
		}
	}
	if got := n.files(); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

// Who is asked nothing is told what is taken for notmuch, which is not set up yet.
func TestSetupAccountTellsWhatNotmuchGets(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	out := n.run(exitDone, imaptest.Password+"\n", append(n.hasServer(), "--store", "file", "--mail-root", "~/post")...)
	if strings.Contains(out, "are needed") || !strings.Contains(out, "notmuch is not set up yet: mail is to be kept below "+n.home+"/post (--mail-root)") {
		t.Error(out)
	}
}
