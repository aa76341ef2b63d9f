package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
)

// put gives a newcomer a file in the home directory.
func (n *newcomer) put(file, text string, mode os.FileMode) {
	n.t.Helper()
	path := filepath.Join(n.home, file)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		n.t.Fatal(err)
	}
}

// wants tells which of some texts an output has not.
func wants(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if there := strings.Contains(out, strings.TrimPrefix(text, "!")); there == strings.HasPrefix(text, "!") {
			t.Errorf("%q: %s", text, out)
		}
	}
}

// What is to be typed next works as it stands, also where --config named the file.
func TestSetupAccountNamesItsConfiguration(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	setup := append(n.hasServer(), "--store", "file")
	conf := filepath.Join(n.home, "my mail.toml")
	with := append([]string{name, "--config", conf}, setup[1:]...)
	wants(t, n.run(exitDone, imaptest.Password+"\n", with...), "Now: notmuch imap --config '"+conf+"' sync example\n", "notmuch imap --config '"+conf+"' setup hooks\n")
	wants(t, n.run(exitUsage, imaptest.Password+"\n", with...), "notmuch imap --config '"+conf+"' check example", "notmuch imap --config '"+conf+"' sync example")
}

// A client's secret is for nobody else to read, as every other secret.
func TestClientSecretIsInNoFileThatOthersRead(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	const before = "[account.a]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"me\"\noauth = { provider = \"google\", client_id = \"x\", client_secret = \"hush\" }\n"
	n.put(newConfig, before, 0o644)
	do := "chmod 600 " + filepath.Join(n.home, newConfig)
	wants(t, n.run(exitBroken, "", name, "check", "a"), "others can read", "0644", do, "!hush")
	setup := []string{name, "setup", "account", "me@gmail.com", "--client-id", "y", "--client-secret", "secret", "--store", "file", "--yes", "--no-browser"}
	wants(t, n.run(exitBroken, "", setup...), "others can read", do, "nothing was changed", "!Waiting")
	if got := n.read(newConfig); got != before {
		t.Error(got)
	}
	if err := os.Chmod(filepath.Join(n.home, newConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, n.run(exitBroken, "", name, "check", "a"), "!others can read")
}

// A mailbox that holds mail only below it is tagged below it.
func TestTagRulesOfWhatHoldsNoMailItself(t *testing.T) {
	t.Parallel()
	archive, empty := imaptest.Box("Archive"), imaptest.Box("Trash")
	archive.Attrs, empty.Attrs = `\Noselect \HasChildren`, `\Noselect \HasNoChildren`
	s, said := signedUp(t, provider.Preset{}, imaptest.Box("INBOX"), archive, imaptest.Box("Archive/2024"), empty)
	if err := s.mailboxes(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, s.account.text(), `"Archive/*" = ["+archive", "-inbox"]`, `!"Archive" =`, "!Trash")
	if t.Failed() {
		t.Log(said)
	}
}

// The files of a command line are where it was typed.
func TestSetupAccountTakesFilesFromHere(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	n.put("here/ca.pem", "x", 0o600)
	n.put("here/pw", "x", 0o600)
	out := n.run(exitDone, "", "sh", "-c", `cd "$HOME/here" && exec notmuch-imap setup account me@own.example --host 127.0.0.1 --tls-ca-file ca.pem --password-file pw --print`)
	wants(t, out, `tls_ca_file = "`+n.home+`/here/ca.pem"`, `password_file = "`+n.home+`/here/pw"`)
}

// A name that cannot be an account's is told with the option that gives another.
func TestSetupAccountAsksForAName(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	long := strings.Repeat("d", 37)
	for want, args := range map[string][]string{
		"give --name: the account's name is longer than 36 bytes": {"me@" + long + ".example"},
		"--name: the account's name is longer than 36 bytes":      {"me@own.example", "--name", long},
		"give --name: the account's name is the name of a part":   {"me@tmp.example"},
		"its domain cannot be one":                                {"me@.."},
		"is no mail address":                                      {"m\xffe@own.example"},
		"--user is not UTF-8":                                     {"me@own.example", "--user", "m\xffe"},
	} {
		out := n.run(exitUsage, "", append([]string{name, "setup", "account", "--host", "127.0.0.1", "--print"}, args...)...)
		wants(t, out, want, "!folder", "!is needed")
	}
}

// What a configuration looks like is no reason to say nothing.
func TestSetupAccountMeetsOtherConfigurations(t *testing.T) {
	t.Parallel()
	const account = "host = \"127.0.0.1\"\nuser = \"me\"\nkeyring = true\n"
	n := newNewcomer(t)
	setup := append(n.hasServer(), "--store", "file")
	n.put(newConfig, "account = { x = { host = \"127.0.0.1\", user = \"me\", keyring = true } }\n", 0o600)
	wants(t, n.run(exitUsage, imaptest.Password+"\n", setup...), newConfig+": ", "no account can be added", "[account.NAME]")
	n.put(newConfig, "\ufeff[account.x]\n"+account, 0o600)
	wants(t, n.run(exitDone, imaptest.Password+"\n", setup...), "Now: notmuch imap sync example")
	wants(t, n.read(newConfig), "\ufeff[account.x]\n"+account, "[account.example]")
	n = newNewcomer(t)
	n.unwritable()
	wants(t, n.run(exitBroken, imaptest.Password+"\n", append(n.hasServer(), "--store", "file")...), newConfig+" is a link to /nonexistent/config.toml, which is not there", "nothing was changed", "!written", "!file exists")
}

// What cannot be is said before the sign-in.
func TestSetupAccountRefusesBeforeTheSignIn(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	n.put("file", "x", 0o600)
	setup := n.hasServer()
	bin := filepath.Join(n.home, "bin")
	for _, program := range []string{"setsid", "sh"} {
		if err := os.Symlink("/usr/bin/"+program, filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	for want, more := range map[string][]string{
		"no pass on the PATH": {"--store", "pass"},
		"is no directory":     {"--store", "file", "--mail-root", filepath.Join(n.home, "file", "mail")},
	} {
		n := *n
		n.env = append(slices.Clone(n.env), "PATH="+bin)
		args := append([]string{"sh", "-c", `"$@"; test $? != 0`, "sh"}, append(setup, more...)...)
		wants(t, n.run(exitDone, imaptest.Password+"\n", args...), want, "nothing was changed", "!signing in", "!signed in", "!written")
	}
}

// The lines that are printed work on this machine.
func TestSetupAccountPrintsNoKeyringWhereNoneIs(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	args := []string{name, "setup", "account", "me@own.example", "--host", "127.0.0.1", "--print"}
	wants(t, n.run(exitDone, "", args...), "!keyring", `password_file = "`+n.home+`/.config/notmuch-imap/own.password"`)
	wants(t, n.run(exitUsage, "", append(args, "--tls", "none")...), `--tls: "none"`, "!say allow_plaintext")
	setup := append(n.hasServer(), "--store", "file")
	i := slices.Index(setup, "--tls-ca-file")
	wants(t, n.run(exitBroken, imaptest.Password+"\n", slices.Delete(setup, i, i+2)...), "--tls-pin sha256:", "!tls_pin")
}

// Who presses Enter or the wrong key goes on, and Ctrl-D says what happened.
func TestSetupAccountAsksAgain(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	setup := n.hasServer()
	setup = setup[:slices.Index(setup, "--password-stdin")]
	r := startReader(t, n.env, "sh", "-c", quote(setup)+"; echo status $?; exec cat")
	enter := func(text string, patterns ...string) {
		t.Helper()
		r.tmux("send-keys", "-l", text)
		r.tmux("send-keys", "Enter")
		r.shows(patterns...)
	}
	r.tmux("resize-window", "-x", "120", "-y", "60")
	r.shows(`tls +implicit +\(the usual one\)`, `user .*\(the address\)`, `is that right`)
	enter("n", `host \[`)
	enter("", `tls, implicit or starttls \[implicit\]`)
	enter("abc", `user \[`)
	enter("", `port \[`)
	enter("", `"abc"`, "!none", `host \[127[^\n]*\n?$`)
	enter("", `(?s)abc.*tls, implicit or starttls \[implicit\]`, `!\[abc\]`)
	enter("", `(?s)abc.*user \[.*user \[`)
	enter("", `(?s)port \[.*port \[`)
	enter("", `where all mail`)
	enter("/dev/null/mail", `/dev/null is no directory`, `where all mail[^/]*\[.*/Mail\]:$`, "!--mail-root")
	enter("", `your name`)
	enter("", `where to keep`)
	enter("f", `password of .*:$`)
	enter("", `(?s)password of .*password of .*:$`)
	r.tmux("send-keys", "C-d")
	r.shows(`^notmuch-imap: nothing was answered; nothing was changed`, "status 1")
}
