package cmd

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// unwritable makes the configuration a file that is not there and cannot be made, which
// shows when the lines are added, after all else.
func (n *newcomer) unwritable() {
	n.t.Helper()
	file := filepath.Join(n.home, newConfig)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.Symlink("/nonexistent/config.toml", file)); err != nil {
		n.t.Fatal(err)
	}
}

// What was written before the lines could not be added is taken back: the token, the
// password and notmuch's configuration.
func TestSetupAccountIsUndone(t *testing.T) {
	t.Parallel()
	const nothing = "nothing was changed"
	t.Run("token", func(t *testing.T) {
		t.Parallel()
		n, args := newApplicant(t, "XOAUTH2", &imaptest.Authorizer{}, nil)
		n.unwritable()
		out := n.signsIn(exitBroken, n.browse, append(args, "--client-id", "client", "--store", "file", "--yes")...)
		n.wants(out, "the token is kept in", "the token is taken away again", "config.toml", nothing)
		if left := n.files(); left != newConfig+" .local/state/notmuch-imap/work/oauth.lock" {
			t.Errorf("left behind: %s", left)
		}
		n.said.Reset()
	})
	t.Run("password", func(t *testing.T) {
		t.Parallel()
		server, err := imaptest.NewSeed()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
		n := newNewcomer(t)
		n.unwritable()
		ca := filepath.Join(t.TempDir(), "ca.pem")
		// A pass that keeps one password in a file.
		pass := "#!/bin/sh\nstore=$HOME/kept\ncase $1 in show) cat \"$store\" 2>/dev/null;; insert) cat >\"$store\";; rm) rm \"$store\"; echo removed >>\"$HOME/told\";; esac\n"
		if err := errors.Join(os.WriteFile(ca, server.Certificate.PEM, 0o600), os.WriteFile(filepath.Join(n.home, "bin", "pass"), []byte(pass), 0o700)); err != nil {
			t.Fatal(err)
		}
		for _, store := range []string{"pass", "file"} {
			out := n.run(exitBroken, imaptest.Password+"\n", name, "setup", "account", imaptest.User, "--host", server.Host(), "--port", fmt.Sprint(server.Port()), "--tls-ca-file", ca, "--store", store, "--password-stdin", "--yes")
			if !strings.Contains(out, nothing) {
				t.Errorf("%s: %s", store, out)
			}
			if left := n.files(); left != newConfig+" bin/pass told" {
				t.Errorf("%s, left behind: %s", store, left)
			}
			if _, err := os.Lstat(filepath.Join(n.home, "Mail")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, left behind: the place for mail, %v", store, err)
			}
		}
	})
}

// Several set-ups for one address at once: one of them makes the account, and the
// others leave its lines and its token alone.
func TestSetupAccountsAtOnce(t *testing.T) {
	t.Parallel()
	const together = 3
	// All have the same name for the account in mind before one of them goes on.
	var named sync.WaitGroup
	named.Add(together)
	a := &imaptest.Authorizer{}
	n, args := newApplicant(t, "XOAUTH2", a, nil)
	n.hasNotmuch()
	outs, ends := make([]string, together), make([]int, together)
	var running sync.WaitGroup
	for i := range together {
		running.Go(func() {
			// Each is a sign-in of its own, with a token of its own.
			n := &member{newcomer: n.newcomer, a: a}
			outs[i], ends[i] = n.endsSigningIn(func(address string) { named.Done(); named.Wait(); n.browse(address, nil) }, append(args[:len(args):len(args)], "--client-id", "client", "--store", "file", "--yes")...)
		})
	}
	running.Wait()
	n.said.WriteString(strings.Join(outs, ""))
	slices.Sort(ends)
	if !slices.Equal(ends, []int{exitDone, exitBroken, exitBroken}) {
		t.Fatalf("they end with %v: %s", ends, outs)
	}
	for _, out := range outs {
		if !strings.Contains(out, "Now: notmuch imap sync work") && !strings.Contains(out, `the configuration has an account "work" by now; nothing was changed: begin again`) {
			t.Error(out)
		}
	}
	conf, err := config.Load(filepath.Join(n.home, newConfig), os.Getenv)
	if err != nil || len(conf.Accounts) != 1 {
		t.Fatalf("%v, %v", conf, err)
	}
	n.wants(n.does(exitDone, "sync"), "3 new")
	n.safe()
}

// endsSigningIn runs the program, and opens the address that it shows.
func (n *member) endsSigningIn(open func(address string), args ...string) (out string, status int) {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), filepath.Join(n.home, "bin", name), args...)
	cmd.Env = n.env
	said := &browsing{open: open}
	cmd.Stdout, cmd.Stderr = said, said
	err := cmd.Run()
	said.opening.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return said.text(), exit.ExitCode()
	}
	if err != nil {
		n.t.Error(err)
	}
	return said.text(), exitDone
}

// browsing collects what a program prints, and opens the address in it.
type browsing struct {
	open    func(address string)
	mu      sync.Mutex
	all     strings.Builder
	opened  bool
	opening sync.WaitGroup
}

var addressShown = regexp.MustCompile(`https?://\S+code_challenge=\S+\n`)

func (b *browsing) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all.Write(p)
	if address := addressShown.FindString(b.all.String()); address != "" && !b.opened {
		b.opened = true
		b.opening.Go(func() { b.open(strings.TrimSpace(address)) })
	}
	return len(p), nil
}

func (b *browsing) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// Where there is a keyring, it is asked whether the token is to be kept there: runs
// without a desktop cannot reach it.
func TestSetupAccountAsksWhereToKeepTheToken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, answer, kept string
		file               bool
	}{{"keyring", "", `token: valid until [^:]*:[^:]*kept in\s+the system.s keyring`, false}, {"file", "f", `token: valid until [^:]*:[^:]*kept in\s+\S+oauth.json`, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, args := newApplicant(t, "XOAUTH2", &imaptest.Authorizer{}, nil)
			n.hasNotmuch()
			me, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(t.TempDir(), "with-keyring")
			if err := os.Symlink(me, program); err != nil {
				t.Fatal(err)
			}
			r := startReader(t, n.env, "sh", "-c", program+" "+quote(append(args, "--client-id", "client", "--no-browser"))+"; exec cat")
			enter := func(text string, patterns ...string) {
				t.Helper()
				r.tmux("send-keys", "-l", text)
				r.tmux("send-keys", "Enter")
				r.shows(patterns...)
			}
			r.tmux("resize-window", "-x", "200", "-y", "60") // for the whole of a check
			r.shows(`is that right\?`)
			enter("", `where to keep the token\?`, `k  keyring`, `f  file`, `\[k/f, Enter is k\]`)
			enter(c.answer, `Waiting for you`)
			n.browse(regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/authorize\S+`).FindString(r.screen()), nil)
			r.shows(`tag so\?`)
			enter("", `add them\?`)
			enter("", c.kept, `Now: notmuch imap sync work`)
			if there := strings.Contains(n.files(), "oauth.json"); there != c.file {
				t.Errorf("there is %s", n.files())
			}
			n.said.WriteString(r.screen())
			n.safe()
		})
	}
}

// The domain itself says that its server takes OAuth alone, and where: that is
// offered, and no password is asked for.
func TestSetupAccountTakesTheDomainsOAuth(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{Rotate: true}
	n, args := newApplicant(t, "OAUTHBEARER", a, nil)
	port, ca := args[slices.Index(args, "--port")+1], args[slices.Index(args, "--tls-ca-file")+1]
	says := `<clientConfig version="1.1"><emailProvider id="x"><incomingServer type="imap"><hostname>127.0.0.1</hostname><port>` + port + `</port><socketType>SSL</socketType>` +
		`<username>me@example.org</username><authentication>OAuth2</authentication></incomingServer></emailProvider>` +
		`<oAuth2><issuer>` + domain + `</issuer><scope>mail offline</scope><authURL>https://` + domain + `/authorize</authURL><tokenURL>https://` + domain + `/token</tokenURL></oAuth2></clientConfig>`
	home := newHome(t, says, a)
	n.env = append(n.env, home.env...)
	n.hasNotmuch()
	set := []string{"setup", "account", "me@" + domain, "--tls-ca-file", ca, "--user", "me@example.org", "--yes"}
	n.wants(n.does(exitUsage, set...), "it takes no password, but OAuth 2.0 (https://autoconfig."+domain, "at https://"+domain+"/authorize", "give --client-id")
	said := n.signsIn(exitDone, func(address string, _ *os.Process) string {
		// The browser of this machine goes to the domain by the same proxy.
		answer, err := (&http.Client{Transport: home.transport}).Get(address)
		if err != nil {
			t.Error(err)
			return ""
		}
		_ = answer.Body.Close()
		return ""
	}, append(set, "--client-id", "client", "--store", "file")...)
	n.wants(said, `auth_url = "https://`+domain+`/authorize"`, `scopes = ["mail", "offline"]`, "signed in.", "Now: notmuch imap sync own")
	n.wants(n.does(exitDone, "sync"), "3 new")
	a.Expire()
	n.does(exitDone, "sync")
	if grants := a.Grants(); !slices.Equal(grants, []string{"authorization_code", "refresh_token"}) {
		t.Errorf("grants: %v", grants)
	}
}
