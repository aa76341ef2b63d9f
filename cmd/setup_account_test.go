package cmd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/ledger/ledgertest"
)

// newcomer is somebody who has nothing but an address: no configuration, no
// notmuch, no keyring.
type newcomer struct {
	t    *testing.T
	home string
	env  []string
}

func newNewcomer(t *testing.T, env ...string) *newcomer {
	t.Helper()
	otherPrograms(t)
	n := &newcomer{t: t, home: ledgertest.Dir(t)}
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(n.home, "bin")
	if err := errors.Join(os.Mkdir(bin, 0o700), os.Symlink(me, filepath.Join(bin, name))); err != nil {
		t.Fatal(err)
	}
	n.env = append([]string{"HOME=" + n.home, "PATH=" + bin + ":" + os.Getenv("PATH"), "LANG=C.UTF-8", "TERM=xterm", "DBUS_SESSION_BUS_ADDRESS=unix:path=" + n.home + "/none"}, env...)
	return n
}

// run runs the program, without a terminal.
func (n *newcomer) run(status int, stdin string, args ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), tooLong)
	defer cancel()
	// setsid takes the terminal away that the tests may have.
	cmd := exec.CommandContext(ctx, "setsid", append([]string{"--wait", args[0]}, args[1:]...)...)
	cmd.Env, cmd.Stdin = n.env, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	exit, _ := errors.AsType[*exec.ExitError](err)
	if err != nil && exit == nil || exit != nil && exit.ExitCode() != status || err == nil && status != 0 {
		n.t.Fatalf("%v: %v, want status %d: %s", args, err, status, out)
	}
	return string(out)
}

// files gives what the newcomer has in the home directory, programs apart.
func (n *newcomer) files() string {
	n.t.Helper()
	var out []string
	err := filepath.WalkDir(n.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != name {
			out = append(out, strings.TrimPrefix(path, n.home+"/"))
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func (n *newcomer) read(file string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.home, file))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

const (
	newConfig = ".config/notmuch-imap/config.toml"
	domain    = "own.example"
)

// homeOf gives the environment in which a domain has a site that says something of its
// mail server.
func homeOf(t *testing.T, says string, trust ...[]byte) (env []string) {
	t.Helper()
	return newHome(t, says, http.NotFoundHandler(), trust...).env
}

// home is the site of a domain, which comes by a proxy, as from the network.
type home struct {
	env       []string        // in which it is there
	transport *http.Transport // by which a browser goes to it
}

// newHome makes one. says is what it says of its mail server, and all else is for rest;
// trust are certificates in PEM that the machine trusts beside its own.
func newHome(t *testing.T, says string, rest http.Handler, trust ...[]byte) home {
	t.Helper()
	authority, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "autoconfig."+domain {
			rest.ServeHTTP(w, r)
			return
		}
		_, _ = io.WriteString(w, says)
	}))
	site.TLS = &tls.Config{Certificates: []tls.Certificate{issue(t, authority, "autoconfig."+domain, domain)}, MinVersion: tls.VersionTLS12}
	site.StartTLS()
	t.Cleanup(site.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		up, err := net.Dial("tcp", site.Listener.Addr().String())
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(up, down); _ = up.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(down, up)
		_ = down.Close()
		<-done
	}))
	t.Cleanup(proxy.Close)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, bytes.Join(append(trust, authority.PEM), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority.PEM)
	way, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	return home{
		env: []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=/nonexistent"},
		transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Scheme != "https" {
				return nil, nil
			}
			return way, nil
		}},
	}
}

// issue makes a certificate for some names.
func issue(t *testing.T, by *imaptest.Certificate, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := x509.ParseCertificate(by.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: parent.NotBefore, NotAfter: parent.NotAfter, DNSNames: names}, parent, &key.PublicKey, by.TLS.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// ownServer is a Dovecot with some mail, and what its domain says of it.
func ownServer(t *testing.T) (s *imaptest.DovecotServer, autoconfig string) {
	t.Helper()
	otherPrograms(t)
	s, err := imaptest.StartDovecot(t.Context(), t.TempDir(), imaptest.DovecotOptions{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	appendAll(t, s, "INBOX", "From: ann@example.org\r\nSubject: the first mail\r\nMessage-ID: <1@example.org>\r\n\r\nunmistakable\r\n")
	command(t, s, "CREATE Sent", "CREATE Archive")
	appendAll(t, s, "Sent", "From: me@own.example\r\nSubject: an answer\r\nMessage-ID: <2@example.org>\r\n\r\nsent\r\n")
	return s, fmt.Sprintf(`<clientConfig version="1.1"><emailProvider id="x"><incomingServer type="imap"><hostname>%s</hostname><port>%d</port>`+
		`<socketType>SSL</socketType><username>%%EMAILLOCALPART%%</username></incomingServer></emailProvider></clientConfig>`, s.Host, s.Port)
}

// The way in: an address, a few times Enter, a password, and mail.
func TestFromAnAddressToTheFirstMail(t *testing.T) {
	t.Parallel()
	s, says := ownServer(t)
	n := newNewcomer(t, homeOf(t, says, s.CertPEM())...)
	began := time.Now()
	r := startReader(t, n.env, "sh", "-c", name+" setup account "+s.User+"@"+domain+"; exec cat")
	keys := 0
	press := func(text string, patterns ...string) {
		t.Helper()
		keys += len(text) + 1
		r.tmux("send-keys", "-l", text)
		r.tmux("send-keys", "Enter")
		r.shows(append(patterns, `!^\?`)...) // a line end that is shown as a control character
	}
	r.shows(fmt.Sprintf(`port +%d .*autoconfig.own.example`, s.Port), `user +`+s.User+` `, `is that right\? \[Y/n\]`)
	press("", `where all mail is to be kept\s+\[.*/Mail\]`)
	press("", `your name`)
	press("", `where to keep the password\?`, `f  file `, `c  command`, "!keyring")
	press("", `password of `+s.User+`:$`)
	press(s.Password, `signed in`, `INBOX +1`, `3 mailboxes +2`, `Sent +\+sent -inbox -unread`, `Archive +\+archive -inbox`, `tag so\?`, "!"+regexp.QuoteMeta(s.Password))
	press("", `add them\?`)
	press("", `Now: notmuch imap sync own`, `ok .*sign-in: as`, "!fail")
	out := n.run(exitDone, "", name, "sync")
	if !strings.Contains(out, "2 new") {
		t.Error(out)
	}
	if got := n.run(0, "", "notmuch", "search", "--output=messages", "unmistakable", "tag:inbox"); got != "id:1@example.org\n" {
		t.Errorf("%q", got)
	}
	t.Logf("%d keystrokes, the password's %d among them; %v", keys, len(s.Password), time.Since(began).Round(100*time.Millisecond))
	if got := n.run(0, "", "notmuch", "search", "--output=tags", "id:2@example.org"); got != "sent\n" {
		t.Errorf("%q", got)
	}
	for _, file := range []string{newConfig, ".config/notmuch-imap/own.password", ".notmuch-config"} {
		if st, err := os.Stat(filepath.Join(n.home, file)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, st, err)
		}
	}
	if strings.Contains(n.read(newConfig), s.Password) {
		t.Error("the password is in the configuration")
	}
}

// What goes wrong on the way is said and asked about; an account that comes to
// nothing leaves nothing.
func TestSetupAccountMeetsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s, says := ownServer(t)
	n := newNewcomer(t, homeOf(t, says)...)
	start := func() *reader {
		t.Helper()
		return startReader(t, n.env, "sh", "-c", "trap : INT; "+name+" setup account "+s.User+"@"+domain+"; echo status $?; exec cat")
	}
	enter := func(r *reader, text string, patterns ...string) {
		t.Helper()
		r.tmux("send-keys", "-l", text)
		r.tmux("send-keys", "Enter")
		r.shows(patterns...)
	}
	toPassword := func(r *reader) {
		t.Helper()
		r.shows(`is that right\?`)
		enter(r, "", `where all mail`)
		enter(r, "", `your name`)
		enter(r, "", `where to keep`)
		enter(r, "f", `password of .*:$`)
	}
	// Ctrl-C at a question, and at the one whose answer is not shown.
	r := start()
	r.shows(`is that right\?`)
	r.tmux("send-keys", "C-c")
	r.shows("interrupted; nothing was changed$", "status 130")
	r = start()
	toPassword(r)
	r.tmux("send-keys", "-l", "half a sec")
	r.tmux("send-keys", "C-c")
	r.shows("interrupted", "status 130", "!half a sec")
	enter(r, "the terminal shows again", `^the terminal shows again`)
	if got := n.files(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	// A certificate that nobody vouches for, and a wrong password.
	r = start()
	toPassword(r)
	enter(r, "wrong", `fingerprint$`, `^ +sha256:[0-9a-f]{64}$`, `trust exactly this certificate from now on\? \[y/N\]`)
	enter(r, "y", `what now\?`, `p  password`, `\[p/s/q, Enter is p\]`)
	enter(r, "q", "nothing was changed", "status 77")
	if got := n.files(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	r = start()
	toPassword(r)
	enter(r, "wrong", `from now on\?`)
	enter(r, "y", `what now\?`)
	enter(r, "p", `password of .*:$`)
	enter(r, s.Password, `tag so\?`)
	enter(r, "n", `add them\?`, `tls_pin = "sha256:`)
	enter(r, "y", `Now: notmuch imap sync own`, "status 0")
	if n.run(exitDone, "", name, "sync"); strings.Contains(n.read(newConfig), "tags") {
		t.Errorf("tags that nobody wanted: %s", n.read(newConfig))
	}
}

// A provider that takes no passwords is not asked for one, but for a client.
func TestSetupAccountOfAProviderWithoutPasswords(t *testing.T) {
	t.Parallel()
	n := newNewcomer(t)
	if out := n.run(exitUsage, "", name, "setup", "account", "me@outlook.com", "--yes"); !strings.Contains(out, "give --client-id") || !strings.Contains(out, "App registrations") || n.files() != "" {
		t.Errorf("%s, left %s", out, n.files())
	}
	if out := n.run(exitUsage, "", name, "setup", "account", "me@posteo.de", "--yes", "--client-id", "x"); !strings.Contains(out, "give --oauth, or --auth-url") || n.files() != "" {
		t.Errorf("%s, left %s", out, n.files())
	}
	for _, args := range [][]string{{"me@outlook.com"}, {"me@gmail.com", "--client-id", "x"}} {
		if out := n.run(exitUsage, "", append([]string{name, "setup", "account", "--print"}, args...)...); !strings.Contains(out, "give --client-") {
			t.Errorf("%v: %s", args, out)
		}
	}
	out := n.run(exitDone, "", name, "setup", "account", "me@outlook.com", "--print", "--client-id", "0000-1111", "--tenant", "example.org")
	if want := "oauth = { provider = \"microsoft\", tenant = \"example.org\", client_id = \"0000-1111\" }\n"; !strings.HasSuffix(out, want) {
		t.Error(out)
	}
	out = n.run(exitDone, "", name, "setup", "account", "me@gmail.com", "--print", "--client-id", "x", "--client-secret", "a \"b\"")
	if want := "oauth = { provider = \"google\", client_id = \"x\", client_secret = 'a \"b\"' }\n"; !strings.HasSuffix(out, want) || n.files() != "" {
		t.Errorf("%s, left %s", out, n.files())
	}
}

// Without a terminal each answer is an option.
func TestSetupAccountByOptions(t *testing.T) {
	t.Parallel()
	server, err := imaptest.NewSeed()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	n := newNewcomer(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.Certificate.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	account := func(more ...string) []string {
		return append([]string{name, "setup", "account", imaptest.User, "--host", server.Host(), "--port", fmt.Sprint(server.Port()), "--tls-ca-file", ca, "--yes"}, more...)
	}
	for want, args := range map[string][]string{
		"one mail address":           {name, "setup", "account"},
		"is no mail address":         {name, "setup", "account", "Me <me@example.org>"},
		"give --password-stdin":      account("--store", "file"),
		"is none of keyring":         account("--store", "drawer"),
		"is enough":                  account("--store", "file", "--password-command", "cat x"),
		"is not one of":              account("--tls", "maybe", "--store", "file", "--password-stdin"),
		"is not between 1 and 65535": account("--port", "99999", "--store", "file", "--password-stdin"),
	} {
		if out := n.run(exitUsage, "x\n", args...); !strings.Contains(out, want) {
			t.Errorf("%v: %s", args, out)
		}
	}
	if out := n.run(exitRefused, "wrong\n", account("--store", "file", "--password-stdin")...); !strings.Contains(out, "nothing was changed") || strings.Contains(out, "goroutine") {
		t.Error(out)
	}
	if out := n.run(exitBroken, "\n", account("--store", "file", "--password-stdin")...); !strings.Contains(out, "the password is empty") {
		t.Error(out)
	}
	// Nobody listens: a port that was free a moment ago.
	if out := n.run(exitLater, "x\n", account("--port", "1", "--store", "file", "--password-stdin")...); !strings.Contains(out, "connection refused") || !strings.Contains(out, "nobody listens there: is port = 1 right?") {
		t.Error(out)
	}
	if got := n.files(); got != "" {
		t.Errorf("left behind: %s", got)
	}
	if out := n.run(exitDone, "", account("--print")...); !strings.HasPrefix(out, "[account.example]\n") || strings.Count(out, "\n") != 6 {
		t.Errorf("%s", out)
	}
	if got := n.files(); got != "" {
		t.Errorf("printing left %s", got)
	}
	// What is in the file already stays, to the byte.
	before := "# mine, without a last line end\n[account.example]\nhost=\"x\" # odd\n  user = 'y'\nkeyring = true"
	if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(n.home, newConfig)), 0o700), os.WriteFile(filepath.Join(n.home, newConfig), []byte(before), 0o600)); err != nil {
		t.Fatal(err)
	}
	out := n.run(exitDone, imaptest.Password+"\n", account("--store", "file", "--password-stdin", "--mail-root", "~/post")...)
	if strings.Contains(out, imaptest.Password) || !strings.Contains(out, "Now: notmuch imap sync example2") {
		t.Error(out)
	}
	if got := n.read(newConfig); !strings.HasPrefix(got, before+"\n\n[account.example2]\n") || strings.Contains(got, imaptest.Password) {
		t.Error(got)
	}
	conf, err := config.Load(filepath.Join(n.home, newConfig), os.Getenv)
	if err != nil || len(conf.Accounts) != 2 || conf.Accounts[1].User != imaptest.User {
		t.Fatalf("%+v, %v", conf, err)
	}
	if out := n.run(exitPartly, "", name, "sync", "example2"); !strings.Contains(out, "1232 new") {
		t.Error(out)
	}
	if _, err := os.Stat(filepath.Join(n.home, "post", "example2", "INBOX", "cur")); err != nil {
		t.Error(err)
	}
	if out := n.run(exitUsage, "", account("--name", "Example2", "--store", "file", "--password-stdin")...); !strings.Contains(out, "already") {
		t.Error(out)
	}
}
