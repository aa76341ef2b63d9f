package cmd

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// newApplicant is somebody with nothing but an address, whose mail server takes
// tokens alone. args make an account of it, all but the client.
func newApplicant(t *testing.T, mechanism string, a *imaptest.Authorizer, refuse func(string) string) (n *member, args []string) {
	t.Helper()
	n = &member{newcomer: newNewcomer(t), a: a}
	site := httptest.NewServer(a)
	t.Cleanup(site.Close)
	inbox := imaptest.Box("INBOX")
	for i := range 3 {
		inbox.Add(fmt.Sprintf("From: a@example.org\r\nSubject: mail %d\r\nMessage-ID: <%d@example.org>\r\n\r\nText.\r\n", i, i), "")
	}
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS AUTH="+mechanism, a.Bearer(refuse, nil), inbox, imaptest.Box("Sent"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	certificate, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, certificate.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	return n, []string{
		"setup", "account", "me@example.org", "--name", "work", "--host", "127.0.0.1", "--port", fmt.Sprint(behindTLS(t, certificate, server.Addr())), "--tls-ca-file", ca,
		"--oauth", "microsoft", "--auth-url", site.URL + "/authorize", "--token-url", site.URL + "/token", "--device-url", site.URL + "/device",
	}
}

// behindTLS gives a port at which a server without TLS is to be had with it.
func behindTLS(t *testing.T, certificate *imaptest.Certificate, server string) (port int) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate.TLS}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer in.Close()
				out, err := net.Dial("tcp", server)
				if err != nil {
					t.Error(err)
					return
				}
				serving.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
				_, _ = io.Copy(out, in)
				_ = out.Close()
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// By options alone, with each mechanism, kind of browser and provider: from an
// address to the first mail in one command and a sync.
func TestSetupAccountSignsInByOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, mechanism string
		more            []string
	}{
		{"browser", "XOAUTH2", nil},
		{"paste", "OAUTHBEARER", []string{"--paste"}},
		{"device", "XOAUTH2", []string{"--device"}},
		{"secret", "XOAUTH2", []string{"--oauth", "google", "--client-secret", "client-secret"}},
		{"any other", "OAUTHBEARER", []string{"--oauth", "", "--scope", "mail", "--scope", "offline", "--client-secret", "client-secret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := &imaptest.Authorizer{Rotate: true}
			n, args := newApplicant(t, c.mechanism, a, nil)
			if c.name == "device" {
				a.With(func() { a.Refuse = [][2]string{{"authorization_pending", ""}} })
			}
			out := n.signsIn(exitDone, func(address string, p *os.Process) string {
				if c.name == "paste" {
					return "nothing of use\n" + n.elsewhere(address) + "\n"
				}
				return n.browse(address, p)
			}, slices.Concat(args, []string{"--client-id", "client", "--store", "file", "--yes"}, c.more)...)
			n.wants(out, "signed in.", "2 mailboxes", "Sent  ", "work: the token is kept in "+n.home+"/"+kept, "ok    work: token: valid until", "ok    work: sign-in: as me@example.org", "Now: notmuch imap sync work")
			n.wants(n.does(exitDone, "sync"), "3 new")
			a.Expire()
			n.does(exitDone, "sync")
			if grants := a.Grants(); grants[len(grants)-1] != "refresh_token" {
				t.Errorf("grants: %v", grants)
			}
			n.safe()
		})
	}
}

// What goes wrong with the sign-in is said, with the next step, and leaves nothing.
func TestSetupAccountIsRefusedAToken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		a     *imaptest.Authorizer
		imap  string
		args  []string
		wants []string
	}{
		{"consent", &imaptest.Authorizer{Deny: [2]string{"access_denied", "AADSTS90094: The grant requires admin permission."}}, "", nil,
			[]string{"needs the consent of an administrator", "A text to send to who administers", "nothing was changed."}},
		{"for Graph", &imaptest.Authorizer{Mint: func(int) string { return imaptest.JWT(`{"aud":"https://graph.microsoft.com"}`) }}, "", nil,
			[]string{"this token is for Graph, not for IMAP", "nothing was changed."}},
		{"expired", &imaptest.Authorizer{Refuse: [][2]string{{"invalid_grant", ""}}}, "", nil,
			[]string{"sign in anew: notmuch imap setup account me@example.org", "nothing was changed."}},
		{"not connected", &imaptest.Authorizer{}, "BAD User is authenticated but not connected.", nil,
			[]string{"-> the usual causes: IMAP is switched off for this mailbox or it has no licence", "nothing was changed."}},
		{"refused", &imaptest.Authorizer{}, "NO AUTHENTICATE failed.", nil,
			[]string{`-> is user = "me@example.org" the mailbox that you signed in to`, "sign in anew: notmuch imap setup account me@example.org", "nothing was changed."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, args := newApplicant(t, "XOAUTH2", c.a, func(string) string { return c.imap })
			ends := exitBroken
			if c.name == "refused" {
				ends = exitRefused
			}
			n.wants(n.signsIn(ends, n.browse, append(args, "--client-id", "client", "--yes")...), c.wants...)
			if n.files() != "" {
				t.Errorf("left behind: %s", n.files())
			}
			n.safe()
		})
	}
	a := &imaptest.Authorizer{}
	n, args := newApplicant(t, "XOAUTH2", a, nil)
	for want, more := range map[string][]string{
		"give --client-id":                      nil,
		"one of --device and --paste is enough": {"--client-id", "x", "--device", "--paste"},
		"neither keyring nor file":              {"--client-id", "x", "--store", "pass"},
		"--client-id is enough":                 {"--client-id", "x", "--password-command", "cat x"},
		"give --client-secret":                  {"--client-id", "x", "--oauth", "google"},
		`"yahoo" is not one of`:                 {"--client-id", "x", "--oauth", "yahoo"},
		"must begin with https://":              {"--client-id", "x", "--token-url", "http://example.org/token"},
		"give --scope":                          {"--client-id", "x", "--oauth", ""},
	} {
		if out := n.run(exitUsage, "", slices.Concat([]string{name}, args, more)...); !strings.Contains(out, want) {
			t.Errorf("%v: %s", more, out)
		}
	}
	n.signsIn(exitInterrupted, func(_ string, p *os.Process) string {
		if err := p.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		return ""
	}, append(args, "--client-id", "x", "--yes")...)
	if n.files() != "" {
		t.Errorf("left behind: %s", n.files())
	}
}

// In a terminal: an address, a client id, a browser, a few times Enter, and mail;
// a sign-in that is refused is tried again.
func TestFromAnAddressToTheFirstMailByOAuth(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{Rotate: true, Deny: [2]string{"access_denied", "no"}}
	n, args := newApplicant(t, "XOAUTH2", a, nil)
	began := time.Now()
	r := startReader(t, n.env, "sh", "-c", name+" "+quote(args)+"; exec cat")
	keys := 0
	press := func(text string, patterns ...string) {
		t.Helper()
		keys += len(text) + 1
		r.tmux("send-keys", "-l", text)
		r.tmux("send-keys", "Enter")
		r.shows(patterns...)
		n.said.WriteString(r.screen())
	}
	address := func() string {
		t.Helper()
		return regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/authorize\S+`).FindString(r.screen())
	}
	r.shows(`is that right\? \[Y/n\]`)
	press("", `where all mail is to be kept`)
	press("", `your name`)
	press("", `Microsoft: at https://entra.microsoft.com`, `ID is asked for here`, `client id of your registration:$`, "!password of")
	press("client", `where is the browser`, `b  browser`, `p  paste`, `d  device`)
	press("", `Waiting for you to sign in there`)
	n.browse(address(), nil)
	r.shows(`the sign-in was denied at the provider's page`, `what now\?`, `b  browser`, `c  client`, `\[b/s/c/q, Enter is b\]`)
	a.With(func() { a.Deny = [2]string{} })
	r.tmux("clear-history")
	press("", `where is the browser`)
	press("p", `paste it here:\n+> *$`)
	paste := n.elsewhere(address())
	keys++ // Enter after the paste, which is a key of the mouse
	r.tmux("send-keys", "-l", paste)
	r.tmux("send-keys", "Enter")
	r.shows(`signed in`, `INBOX +3`, `Sent +\+sent -inbox -unread`, `tag so\?`)
	press("", `add them\?`, `oauth = \{ provider = "microsoft", client_id = "client"`)
	press("", `Now: notmuch imap sync work`, `ok .*sign-in: as`, "!fail")
	n.wants(n.does(exitDone, "sync"), "3 new")
	t.Logf("%d keystrokes, one refusal among them; %v", keys, time.Since(began).Round(100*time.Millisecond))
	n.safe()
}

// The client's secret goes into the configuration, and to no screen.
func TestSetupAccountShowsNoSecret(t *testing.T) {
	t.Parallel()
	n, args := newApplicant(t, "XOAUTH2", &imaptest.Authorizer{}, nil)
	r := startReader(t, n.env, "sh", "-c", "trap : INT; "+name+" "+quote(append(args, "--oauth", "google", "--client-id", "client", "--no-browser"))+"; echo status $?; exec cat")
	enter := func(text string, patterns ...string) {
		t.Helper()
		r.tmux("send-keys", "-l", text)
		r.tmux("send-keys", "Enter")
		r.shows(patterns...)
		n.said.WriteString(r.screen())
	}
	r.shows(`is that right\?`)
	enter("", `where all mail`)
	enter("", `your name`)
	enter("", `client secret of your registration:$`)
	enter("client-secret", `Waiting for you`)
	n.browse(regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/authorize\S+`).FindString(r.screen()), nil)
	r.shows(`tag so\?`)
	enter("", `client_secret = "\(not shown\)"`, `add them\?`)
	enter("n", "nothing was changed", "status 0")
	if n.files() != "" {
		t.Errorf("left behind: %s", n.files())
	}
	n.safe()
}
