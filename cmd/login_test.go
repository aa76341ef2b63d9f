package cmd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// member is somebody with an account that takes tokens alone, and no keyring.
type member struct {
	*newcomer
	a    *imaptest.Authorizer
	said strings.Builder // all that the program printed
}

// newMember starts an authorization server and an IMAP server. oauth are more
// lines of the oauth table.
func newMember(t *testing.T, caps string, a *imaptest.Authorizer, fault *imaptest.Fault, oauth ...string) *member {
	t.Helper()
	n := &member{newcomer: newNewcomer(t), a: a}
	site := httptest.NewServer(a)
	t.Cleanup(site.Close)
	box := imaptest.Box("INBOX")
	for i := range 3 {
		box.Add(fmt.Sprintf("From: a@example.org\r\nSubject: mail %d\r\nMessage-ID: <%d@example.org>\r\n\r\nText.\r\n", i, i), "")
	}
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR UIDPLUS "+caps, fault, box)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	host, port, _ := strings.Cut(server.Addr(), ":")
	n.write(newConfig, fmt.Sprintf("[account.work]\nhost = %q\nport = %s\ntls = \"none\"\nallow_plaintext = true\nuser = \"me@example.org\"\n\n[account.work.oauth]\nclient_id = \"client\"\nclient_secret = \"client-secret\"\n"+
		"auth_url = %[3]q\ntoken_url = %[4]q\ndevice_url = %[5]q\nscopes = [\"mail\"]\n%[6]s\n", host, port, site.URL+"/authorize", site.URL+"/token", site.URL+"/device", strings.Join(oauth, "\n")))
	n.hasNotmuch()
	return n
}

// hasNotmuch sets notmuch up.
func (n *member) hasNotmuch() {
	n.t.Helper()
	n.write(".notmuch-config", "[database]\npath="+n.home+"/mail\n[user]\nname=Me\nprimary_email=me@example.org\n[new]\ntags=unread;inbox\n")
	if err := os.Mkdir(filepath.Join(n.home, "mail"), 0o700); err != nil {
		n.t.Fatal(err)
	}
	n.run(0, "", "notmuch", "new", "--quiet")
}

func (n *member) write(file, text string) {
	n.t.Helper()
	path := filepath.Join(n.home, file)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		n.t.Fatal(err)
	}
}

// does runs the program and gives what it printed.
func (n *member) does(status int, args ...string) string {
	n.t.Helper()
	out := n.run(status, "", append([]string{name}, args...)...)
	n.said.WriteString(out)
	return out
}

// logsIn runs login and gives the address that it shows to browse, which gives
// what is to be typed. It gives what the program printed.
func (n *member) logsIn(status int, browse func(address string, p *os.Process) string, args ...string) string {
	n.t.Helper()
	return n.signsIn(status, browse, append([]string{"login", "work"}, args...)...)
}

// signsIn is logsIn for any command that does.
func (n *member) signsIn(status int, browse func(address string, p *os.Process) string, args ...string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), tooLong)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(n.home, "bin", name), args...)
	cmd.Env = n.env
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	var said strings.Builder
	var browsing sync.WaitGroup
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if address := lines.Text(); strings.Contains(address, "code_challenge=") {
			browsing.Go(func() { _, _ = io.WriteString(in, browse(address, cmd.Process)) })
		}
	}
	browsing.Wait()
	err = cmd.Wait()
	said.Write(errs.Bytes())
	n.said.WriteString(said.String())
	if got := cmd.ProcessState.ExitCode(); got != status {
		n.t.Fatalf("%v: %v, want status %d: %s", args, err, status, said.String())
	}
	return said.String()
}

// browse opens an address as a browser on this machine does.
func (n *member) browse(address string, _ *os.Process) string {
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(address)
	if err != nil {
		n.t.Error(err)
		return ""
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		n.t.Errorf("the browser ends with %s", answer.Status)
	}
	return ""
}

// elsewhere opens an address as a browser on another machine does, and gives the
// address that it ends at.
func (n *member) elsewhere(address string) string {
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(must(http.NewRequest(http.MethodGet, address, nil)))
	if err != nil {
		n.t.Error(err)
		return ""
	}
	_ = answer.Body.Close()
	return answer.Header.Get("Location")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const kept = ".local/state/notmuch-imap/work/oauth.json"

// safe looks for every secret in all that was printed and written; only the file
// of tokens, which nobody else can read, may hold any.
func (n *member) safe() {
	n.t.Helper()
	secrets := n.a.Secrets()
	find := func(where, text string) {
		for _, s := range secrets {
			// client_secret stands in the configuration because the user wrote it there.
			if strings.Contains(text, s) && (s != "client-secret" || where != newConfig) {
				n.t.Errorf("a secret (%s) is in %s", s, where)
			}
		}
	}
	find("what was printed", n.said.String())
	for file := range strings.FieldsSeq(n.files()) {
		if file == kept {
			if st, err := os.Stat(filepath.Join(n.home, file)); err != nil || st.Mode() != 0o600 {
				n.t.Errorf("%s: %v %v", file, st.Mode(), err)
			}
			continue
		}
		find(file, n.read(file))
	}
}

// wants looks for texts in what was printed.
func (n *member) wants(out string, texts ...string) {
	n.t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			n.t.Errorf("no %q in: %s", text, out)
		}
	}
}

// TestLogin: from nothing to mail by each mechanism; the token is renewed when it
// has ended; logout forgets it. No secret is seen anywhere.
func TestLogin(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"XOAUTH2", "OAUTHBEARER"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			a := &imaptest.Authorizer{Rotate: true}
			n := newMember(t, "AUTH="+mechanism, a, a.Bearer(nil, nil))
			n.wants(n.does(1, "check"), "fail  work: token: there is no token in "+n.home+"/"+kept+", and the system's keyring cannot be read", "-> sign in: notmuch imap login work")
			n.wants(n.does(exitRefused, "sync"), "cannot get the password or token: there is no token in", "sign in: notmuch imap login work")
			began := time.Now()
			n.wants(n.logsIn(0, n.browse), "the token is kept in "+n.home+"/"+kept, "work: signed in at 127.0.0.1 as me@example.org.", "Waiting for you")
			out := n.does(0, "check")
			n.wants(out, "and renewed by itself; kept in "+n.home+"/"+kept)
			known := false
			for at := began; !known && at.Before(time.Now().Add(time.Minute)); at = at.Add(time.Minute) {
				known = strings.Contains(out, "ok    work: token: valid until "+at.Add(time.Hour).Format("2006-01-02 15:04"))
			}
			if !known {
				t.Errorf("not an hour: %s", out)
			}
			n.wants(n.does(0, "sync"), "3 new")
			n.wants(n.does(0, "status"), "  sign-in         valid until ", ", and renewed by itself")
			n.wants(n.does(0, "status", "--json"), `"sign_in_until":"`, `"sign_in_renewable":true`)
			if got := a.Grants(); len(got) != 1 {
				t.Errorf("grants: %v", got)
			}
			a.Expire()
			n.does(0, "sync")
			n.does(0, "sync", "--full")
			if got := a.Grants(); !slices.Equal(got, []string{"authorization_code", "refresh_token"}) {
				t.Errorf("grants: %v", got)
			}
			n.safe()
			if got := len(a.Secrets()); got != 8 { // code, verifier, two client secrets, two pairs of tokens
				t.Errorf("there are %d secrets", got)
			}
			n.wants(n.does(0, "logout", "work"), "the token is removed from "+n.home+"/"+kept, "you can revoke the sign-in")
			n.wants(n.does(0, "logout", "work"), "there is no token in "+n.home+"/"+kept, "this session has no keyring")
			n.does(exitRefused, "sync")
			n.wants(n.does(exitRefused, "verify", "work"), "sign in: notmuch imap login work")
			if strings.Contains(n.files(), "oauth.json") {
				t.Errorf("there is %s", n.files())
			}
		})
	}
}

// TestLoginExpiresMidSync: the connection is cut while the mail comes, and the
// token is of no more use when it is opened anew.
func TestLoginExpiresMidSync(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{Rotate: true}
	var once sync.Once
	cut := func() (now bool) {
		once.Do(func() { a.Expire(); now = true })
		return now
	}
	n := newMember(t, "AUTH=XOAUTH2", a, a.Bearer(nil, cut))
	n.logsIn(0, n.browse)
	n.does(0, "sync")
	if out := n.run(0, "", "notmuch", "count", "*"); out != "3\n" {
		t.Errorf("%s mails came", out)
	}
	if got := a.Grants(); !slices.Equal(got, []string{"authorization_code", "refresh_token"}) {
		t.Errorf("grants: %v", got)
	}
	n.safe()
}

// TestLoginElsewhere: --paste takes nothing wrong and asks again; --device shows
// what to type.
func TestLoginElsewhere(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{}
	n := newMember(t, "AUTH=XOAUTH2", a, a.Bearer(nil, nil))
	out := n.logsIn(0, func(address string, _ *os.Process) string {
		return "ls -l\n\n" + strings.Replace(n.elsewhere(address), "state=", "state=x", 1) + "\n" + n.elsewhere(address) + "\n"
	}, "--paste")
	n.wants(out, "that is neither the address that the browser ends at nor a code", "that is nothing", "that is from another sign-in", "signed in at")
	n.safe()
	before := n.read(kept)
	if out := n.run(1, "garbage\n", name, "login", "--paste", "work"); !strings.Contains(out, "nothing more was pasted; nothing was changed") || n.read(kept) != before {
		t.Errorf("garbage alone: %s", out)
	}
	a.With(func() { a.Refuse = [][2]string{{"access_denied", ""}} })
	n.wants(n.does(1, "login", "--device", "work"), "Open https://login.example.org/device in any browser, and enter the code WDJB-MJHT there, until ", "the sign-in was denied")
	n.wants(n.does(2, "login", "--device", "--paste", "work"), "one of --device and --paste is enough")
	n.wants(n.does(2, "login", "--store", "pass", "work"), "neither keyring nor file")
	if n.read(kept) != before {
		t.Error("a login that failed has changed what was kept")
	}
	n.safe()
}

// TestLoginInterrupted: Ctrl-C, while the browser is waited for and while the code
// is exchanged, leaves nothing behind.
func TestLoginInterrupted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		late bool
	}{{"waiting", nil, false}, {"pasting", []string{"--paste"}, false}, {"exchanging", nil, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := &imaptest.Authorizer{}
			n := newMember(t, "AUTH=XOAUTH2", a, a.Bearer(nil, nil))
			before := n.files()
			n.logsIn(exitInterrupted, func(address string, p *os.Process) string {
				if c.late {
					a.Pause = func(r *http.Request) {
						if err := p.Signal(syscall.SIGINT); err != nil {
							t.Error(err)
						}
						<-r.Context().Done() // it has hung up
					}
					return n.browse(address, p)
				}
				if err := p.Signal(syscall.SIGINT); err != nil {
					t.Error(err)
				}
				return ""
			}, c.args...)
			if now := n.files(); now != before {
				t.Errorf("there is %s", now)
			}
		})
	}
}

// TestLoginTogether: two processes at once renew a token that is good once.
func TestLoginTogether(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{Rotate: true}
	n := newMember(t, "AUTH=XOAUTH2", a, a.Bearer(nil, nil))
	n.logsIn(0, n.browse)
	a.Expire()
	var wg sync.WaitGroup
	outs := make([]string, 4)
	for i := range outs {
		wg.Go(func() { outs[i] = n.run(0, "", name, "check", "work") })
	}
	wg.Wait()
	n.said.WriteString(strings.Join(outs, ""))
	if got := a.Grants(); !slices.Equal(got, []string{"authorization_code", "refresh_token"}) {
		t.Errorf("grants: %v", got)
	}
	n.safe()
}

// TestLoginRefusals: each refusal in words, with the next step.
func TestLoginRefusals(t *testing.T) {
	t.Parallel()
	jwt := func(claims string) func(int) string { return func(int) string { return imaptest.JWT(claims) } }
	const microsoft = `provider = "microsoft"`
	for _, c := range []struct {
		name  string
		a     *imaptest.Authorizer
		imap  string // what the mail server says to a good token
		login int
		check bool // it is check that shows it, after a login
		want  []string
	}{
		{"for Graph", &imaptest.Authorizer{Mint: jwt(`{"aud":"https://graph.microsoft.com","scp":"Mail.Read"}`)}, "", 1, false,
			[]string{"this token is for Graph, not for IMAP; nothing was kept"}},
		{"another scope", &imaptest.Authorizer{Scope: "https://outlook.office.com/SMTP.Send"}, "", 1, false,
			[]string{"this token is not for IMAP: it is for https://outlook.office.com/SMTP.Send, without IMAP.AccessAsUser.All"}},
		{"consent", &imaptest.Authorizer{Deny: [2]string{"access_denied", "AADSTS90094: The grant requires admin permission."}}, "", 1, false,
			[]string{"needs the consent of an administrator", "an administrator can give it at http", "prompt=admin_consent", "A text to send to who administers", "me@example.org"}},
		{"no consent", &imaptest.Authorizer{Refuse: [][2]string{{"invalid_grant", "AADSTS65001: The user or administrator has not consented"}}}, "", 1, false,
			[]string{"nobody has consented yet", "A text to send"}},
		{"conditional access", &imaptest.Authorizer{Refuse: [][2]string{{"invalid_grant", "AADSTS53003: blocked"}}}, "", 1, false,
			[]string{"conditional access", "not by --device", "A text to send"}},
		{"not connected", &imaptest.Authorizer{}, "BAD User is authenticated but not connected.", 1, false,
			[]string{"User is authenticated but not connected", "IMAP is switched off for this mailbox or it has no licence"}},
		{"refused", &imaptest.Authorizer{}, "NO AUTHENTICATE failed.", 1, false,
			[]string{"AUTHENTICATE failed", `is user = "me@example.org" the mailbox that you signed in to, and IMAP switched on for it?`, "notmuch imap login work"}},
		{"refresh token has ended", &imaptest.Authorizer{Lifetime: time.Second, Refuse: [][2]string{{"", ""}, {"", ""}, {"invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity."}, {"invalid_grant", ""}}}, "", 0, true,
			[]string{"the sign-in has expired or was revoked (invalid_grant: AADSTS700082: The refresh token has expired due to inactivity.)", "-> sign in anew: notmuch imap login work"}},
		{"no refresh token", &imaptest.Authorizer{NoRefresh: true, Lifetime: time.Second}, "", 1, true,
			[]string{"the provider gave no refresh token", "-> sign in"}},
		{"expired by its own word", &imaptest.Authorizer{Mint: jwt(`{"exp":1}`)}, "NO AUTHENTICATE failed.", 1, false,
			[]string{"this token expired at 1970-01-01", "sign in anew: notmuch imap login work"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			refuse := func(string) string { return c.imap }
			n := newMember(t, "AUTH=XOAUTH2", c.a, c.a.Bearer(refuse, nil), microsoft)
			out := n.logsIn(c.login, n.browse)
			if c.check {
				out = n.does(1, "check", "work")
			} else if c.imap == "" && strings.Contains(n.files(), "oauth.json") {
				t.Error("a token was kept")
			}
			n.wants(out, c.want...)
			status := exitRefused // it does not heal by itself
			if strings.HasPrefix(c.imap, "BAD") {
				status = exitLater
			}
			if out := n.does(status, "sync"); strings.Contains(out, "application password") {
				t.Errorf("sync says %s", out)
			}
			n.safe()
		})
	}
}

// TestADeadSignInIsRefused: what only somebody who signs in anew mends is told by the exit
// status, with one next step; a provider that cannot be asked is not.
func TestADeadSignInIsRefused(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{}
	n := newMember(t, "AUTH=XOAUTH2", a, a.Bearer(nil, nil))
	n.logsIn(0, n.browse)
	token, file := n.read(kept), filepath.Join(n.home, kept)
	n.write(kept, "{}")
	n.wants(n.does(exitRefused, "sync"), "what is in "+file+" is no token", "sign in: notmuch imap login work")
	n.write(kept, token)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	out := n.does(exitRefused, "sync")
	n.wants(out, "others can read it (mode 0644)", "sign in anew: notmuch imap login work")
	if strings.Contains(out, "next run") {
		t.Errorf("two next steps: %s", out)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	config := n.read(newConfig)
	n.write(newConfig, strings.Replace(config, `client_id = "client"`, `client_id = "another"`, 1))
	n.wants(n.does(exitRefused, "sync"), "another client_id", "sign in anew: notmuch imap login work")
	n.write(newConfig, config)
	n.does(0, "sync")
	a.Refuse = [][2]string{{"temporarily_unavailable", ""}, {"invalid_grant", ""}}
	a.Expire()
	n.wants(n.does(exitLater, "sync"), "the provider asks to wait")
	n.wants(n.does(exitRefused, "sync"), "the sign-in has expired or was revoked")
}

// TestLoginBrowser: a browser is started only where there is a display, and that
// is said.
func TestLoginBrowser(t *testing.T) {
	t.Parallel()
	a := &imaptest.Authorizer{}
	n := newMember(t, "AUTH=XOAUTH2", a, a.Bearer(nil, nil))
	n.write("bin/xdg-open", "#!/bin/sh\n: >$HOME/started\nprintf '%s\\n' \"$1\" >$HOME/opened\n")
	opened := filepath.Join(n.home, "opened")
	if err := errors.Join(os.Chmod(filepath.Join(n.home, "bin/xdg-open"), 0o700), syscall.Mkfifo(opened, 0o600)); err != nil {
		t.Fatal(err)
	}
	n.wants(n.logsIn(0, n.browse), "Open this address in a browser on this machine")
	n.env = append(n.env, "DISPLAY=:77")
	n.wants(n.logsIn(0, n.browse, "--no-browser"), "Open this address")
	if _, err := os.Stat(filepath.Join(n.home, "started")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a browser was started: %v", err)
	}
	n.wants(n.logsIn(0, func(address string, p *os.Process) string {
		pipe, err := os.OpenFile(opened, os.O_RDWR, 0)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer pipe.Close()
		// A browser that does not come ends the test.
		_ = pipe.SetReadDeadline(time.Now().Add(tooLong))
		if got, err := bufio.NewReader(pipe).ReadString('\n'); err != nil || got != address+"\n" {
			t.Errorf("opened: %q, %v", got, err)
		}
		return n.browse(address, p)
	}), "Opening a browser (xdg-open) at this address")
}
