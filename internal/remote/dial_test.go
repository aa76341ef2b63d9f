package remote

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is made of it
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func embedded(t *testing.T) (*imaptest.Server, Options) {
	t.Helper()
	srv, err := imaptest.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() }) // nothing hangs on it
	return srv, Options{
		Host: srv.Host(), Port: srv.Port(), TLS: "implicit", User: imaptest.User, Timeout: 10 * time.Second,
		Password: func(context.Context) (string, error) { return imaptest.Password, nil },
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	srv, o := embedded(t)
	other, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		change  func(*Options)
		refused bool
	}{
		{"unknown", func(*Options) {}, true},
		{"of a known authority", func(o *Options) { o.RootCAs = srv.Certificate.Pool() }, false},
		{"of another authority", func(o *Options) { o.RootCAs = other.Pool() }, true},
		{"pinned", func(o *Options) { o.Pin = srv.Certificate.Pin() }, false},
		{"not the pinned one", func(o *Options) { o.Pin = other.Pin() }, true},
		{"not the pinned one, of a known authority", func(o *Options) { o.Pin, o.RootCAs = other.Pin(), srv.Certificate.Pool() }, true},
		{"pin that is none", func(o *Options) { o.Pin = "sha256:abc" }, true},
		{"name of another host", func(o *Options) {
			o.RootCAs = srv.Certificate.Pool()
			dial := (&net.Dialer{}).DialContext
			o.Host, o.DialContext = "imap.example.org", func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dial(ctx, network, fmt.Sprintf("127.0.0.1:%d", o.Port))
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := o
			asked := false
			password := o.Password
			o.Password = func(ctx context.Context) (string, error) {
				asked = true
				return password(ctx)
			}
			c.change(&o)
			s, err := Dial(t.Context(), o)
			if c.refused {
				_ = wantFault(t, err, mail.KindTLS)
				if asked {
					t.Error("the password was asked for although the server is not to be trusted")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.List(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	cert, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	for _, c := range []struct {
		name     string
		greeting string
		answer   string
		want     mail.Kind // 0: it works
		words    string
	}{
		{"works", "* OK ready", "s OK go on\r\n", 0, ""},
		{"works after lines nobody asked for", "* OK ready", "* OK wait\r\n* CAPABILITY IMAP4rev1\r\ns OK go on\r\n", 0, ""},
		{"refused where commands came ahead of the handshake", "* OK ready", "s OK go on\r\n* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] evil\r\n", mail.KindTLS, "ahead of the handshake"},
		{"refused where the server has signed in before", "* PREAUTH welcome", "s OK go on\r\n", mail.KindTLS, "before TLS"},
		{"refused by the server", "* OK ready", "s NO not today\r\n", mail.KindTLS, "not today"},
		{"throttled", "* BYE Request is throttled. Suggested Backoff Time: 2000 milliseconds", "", mail.KindThrottled, "throttled"},
		{"BYE", "* BYE too busy", "", mail.KindBye, "too busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said := make(chan string, 100)
			port := serve(t, func(p *peer) {
				p.send("%s\r\n", c.greeting)
				line := p.line()
				said <- line
				if line == "" {
					return
				}
				p.send("%s", strings.Replace(c.answer, "s ", strings.Fields(line)[0]+" ", 1))
				secure := tls.Server(p.Conn, config)
				if secure.Handshake() != nil {
					return
				}
				q := &peer{secure, bufio.NewReader(secure)}
				for {
					tag, command := q.command()
					said <- command
					switch {
					case tag == "":
						return
					case command == "CAPABILITY":
						q.send("* CAPABILITY %s\r\n%s OK done\r\n", testCaps, tag)
					default:
						q.send("%s OK [CAPABILITY %s] welcome\r\n", tag, testCaps)
					}
				}
			})
			o := plain(port)
			o.TLS, o.AllowPlaintext, o.RootCAs = "starttls", false, cert.Pool()
			s, err := Dial(t.Context(), o)
			if c.want == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if f := wantFault(t, err, c.want); !strings.Contains(f.Error(), c.words) {
				t.Errorf("%v does not say %q", f, c.words)
			}
			for len(said) > 0 {
				if line := <-said; line != "" && !strings.HasSuffix(line, "STARTTLS") {
					t.Errorf("the client said %q", line)
				}
			}
		})
	}
}

func TestNothingIsSentWithoutTLS(t *testing.T) {
	t.Parallel()
	dials := 0
	o := plain(143)
	o.AllowPlaintext = false
	o.DialContext = func(context.Context, string, string) (net.Conn, error) {
		dials++
		return nil, errors.New("dialled")
	}
	_, err := Dial(t.Context(), o)
	_ = wantFault(t, err, mail.KindPlaintext)
	if dials != 0 {
		t.Error("the client connected")
	}
}

func TestLoginDisabled(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{"", "login"} {
		said := make(chan string, 10)
		port := serve(t, func(p *peer) {
			p.send("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n")
			for {
				tag, command := p.command()
				if tag == "" {
					return
				}
				said <- command
				p.send("%s BAD no\r\n", tag)
			}
		})
		o := plain(port)
		o.Auth = auth
		_, err := Dial(t.Context(), o)
		_ = wantFault(t, err, mail.KindAuth)
		for len(said) > 0 {
			if line := <-said; strings.HasPrefix(strings.ToUpper(line), "LOGIN") || strings.Contains(line, "hunter2") {
				t.Errorf("auth %q: the client said %q", auth, line)
			}
		}
	}
}

// sasl is a server that knows one way to sign in, and echoes at every turn what
// it hears if it is told to.
type saslServer struct {
	name, caps string
	echo       bool
	refuse     bool
	check      func(p *peer, tag, command string) (heard []string, ok bool)
}

func initial(p *peer, command, mechanism string) string {
	ir, ok := strings.CutPrefix(command, "AUTHENTICATE "+mechanism+" ")
	if !ok {
		p.send("+ \r\n")
		ir = p.line()
	}
	return ir
}

func mechanisms() []saslServer {
	first := func(mechanism, want string) func(*peer, string, string) ([]string, bool) {
		return func(p *peer, _, command string) ([]string, bool) {
			ir := initial(p, command, mechanism)
			return []string{ir}, ir == b64(want)
		}
	}
	xoauth2 := "user=" + testUser + "\x01auth=Bearer " + testSecret + "\x01\x01"
	return []saslServer{
		{name: "plain", caps: "IMAP4rev1 AUTH=PLAIN", check: first("PLAIN", "\x00"+testUser+"\x00"+testSecret)},
		{name: "plain", caps: "IMAP4rev1 AUTH=PLAIN SASL-IR", check: first("PLAIN", "\x00"+testUser+"\x00"+testSecret)},
		{name: "xoauth2", caps: "IMAP4rev1 AUTH=XOAUTH2", check: first("XOAUTH2", xoauth2)},
		{name: "xoauth2", caps: "IMAP4rev1 AUTH=XOAUTH2 SASL-IR", check: first("XOAUTH2", xoauth2)},
		{name: "oauthbearer", caps: "IMAP4rev1 AUTH=OAUTHBEARER SASL-IR", check: func(p *peer, _, command string) ([]string, bool) {
			ir := initial(p, command, "OAUTHBEARER")
			raw, err := base64.StdEncoding.DecodeString(ir)
			return []string{ir}, err == nil && strings.Contains(string(raw), "auth=Bearer "+testSecret)
		}},
		{name: "", caps: "IMAP4rev1", check: func(_ *peer, _, command string) ([]string, bool) {
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(testSecret)
			return []string{command, quoted}, strings.HasPrefix(command, "LOGIN ") && (strings.Contains(command, testSecret) || strings.Contains(command, quoted))
		}},
		{name: "login", caps: "IMAP4rev1 AUTH=LOGIN", check: func(p *peer, _, _ string) ([]string, bool) {
			p.send("+ %s\r\n", b64("Username:"))
			user := p.line()
			p.send("+ %s\r\n", b64("Password:"))
			password := p.line()
			return []string{user, password}, user == b64(testUser) && password == b64(testSecret)
		}},
		{name: "login", caps: "IMAP4rev1 AUTH=LOGIN SASL-IR", check: func(p *peer, _, command string) ([]string, bool) {
			user, ok := strings.CutPrefix(command, "AUTHENTICATE LOGIN ")
			if !ok {
				p.send("+ %s\r\n", b64("User Name\x00"))
				user = p.line()
			}
			p.send("+ %s\r\n", b64("Password:"))
			password := p.line()
			return []string{user, password}, user == b64(testUser) && password == b64(testSecret)
		}},
		{name: "cram-md5", caps: "IMAP4rev1 AUTH=CRAM-MD5", check: func(p *peer, _, _ string) ([]string, bool) {
			const challenge = "<1896.697170952@postoffice.example.org>"
			p.send("+ %s\r\n", b64(challenge))
			m := hmac.New(md5.New, []byte(testSecret))
			_, _ = m.Write([]byte(challenge)) // never fails
			line := p.line()
			return []string{line}, line == b64(testUser+" "+hex.EncodeToString(m.Sum(nil)))
		}},
	}
}

// run answers a connection.
func (m saslServer) run(p *peer) {
	p.send("* OK [CAPABILITY %s] ready\r\n", m.caps)
	for {
		tag, command := p.command()
		switch {
		case tag == "":
			return
		case command == "CAPABILITY":
			p.send("* CAPABILITY %s\r\n%s OK done\r\n", m.caps, tag)
			continue
		}
		heard, ok := m.check(p, tag, command)
		echo := ""
		if m.echo {
			forms := append(heard, testSecret, b64(testSecret), b64("\x00"+testUser+"\x00"+testSecret))
			echo = strings.NewReplacer("\r", "", "\n", "").Replace(strings.Join(forms, " "))
			p.send("* OK I heard %s\r\n* %s unknown\r\n* NO [ALERT] I heard %s\r\n", echo, echo, echo)
		}
		switch {
		case m.refuse:
			p.send("%s NO [AUTHENTICATIONFAILED] %s is wrong\r\n", tag, echo)
		case ok:
			p.send("%s OK [CAPABILITY %s] welcome\r\n", tag, m.caps)
		default:
			p.send("%s NO that is not it\r\n", tag)
		}
		if ok && !m.refuse {
			if m.echo {
				echoes(p, echo)
			} else {
				p.hang()
			}
			return
		}
	}
}

// echoes answers each command with the secret everywhere.
func echoes(p *peer, echo string) {
	long := strings.Repeat("x", 395) + echo
	for {
		tag, command := p.command()
		if tag == "" {
			return
		}
		p.send("* OK [ALERT] %s\r\n* OK %s\r\n* %s (a\r\n* %s\r\n", echo, long, echo, echo)
		p.send("* 1 FETCH (UID {%s}\r\n* 1 FETCH (UID %s)\r\n", strings.Fields(echo)[0], strings.Fields(echo)[0])
		switch {
		case strings.HasPrefix(command, "EXAMINE"):
			p.send("* 3 EXISTS\r\n* OK [UIDVALIDITY 1] %s\r\n%s OK %s\r\n", echo, tag, echo)
		case strings.Contains(command, "FETCH"):
			p.send("* 1 FETCH (UID 1 FLAGS () BODY[TEXT] {%d}\r\n%s BODY[] {%d}\r\n%s)\r\n%s NO [%s] %s\r\n", len(long), long, len(echo), echo, tag, echo, long)
		default:
			p.send("%s BAD [%s] %s\r\n", tag, echo, long)
		}
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	for _, m := range append(mechanisms(), scramMechanisms(t)...) {
		t.Run(m.name+" "+m.caps, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, m.run))
			o.Auth = m.name
			s := dialed(t, o)
			if !s.Alive() || !s.Has("IMAP4rev1") {
				t.Errorf("alive %v, capabilities %v", s.Alive(), s.Capabilities())
			}
		})
	}
}

func TestSignInRefused(t *testing.T) {
	t.Parallel()
	for _, m := range append(mechanisms(), scramMechanisms(t)...) {
		m.refuse = true
		t.Run(m.name+" "+m.caps, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, m.run))
			o.Auth = m.name
			_, err := Dial(t.Context(), o)
			f := wantFault(t, err, mail.KindAuth)
			if !strings.Contains(f.Text, "is wrong") || f.Code != "AUTHENTICATIONFAILED" {
				t.Errorf("code %q, text %q", f.Code, f.Text)
			}
		})
	}
}

func TestGreeting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		greeting string
		want     mail.Kind
		after    time.Duration
	}{
		{"* BYE Too busy", mail.KindBye, 0},
		{"* BYE Request is throttled. Suggested Backoff Time: 299961 milliseconds", mail.KindThrottled, 299961 * time.Millisecond},
		{"* BYE [ALERT] Too many simultaneous connections. (Failure)", mail.KindThrottled, 0},
	} {
		port := serve(t, func(p *peer) {
			p.send("%s\r\n", c.greeting)
		})
		_, err := Dial(t.Context(), plain(port))
		f := wantFault(t, err, c.want)
		if f.RetryAfter != c.after || !strings.Contains(c.greeting, f.Text) || f.Text == "" {
			t.Errorf("%s: retry after %v, text %q", c.greeting, f.RetryAfter, f.Text)
		}
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	const timeout = 150 * time.Millisecond
	for _, c := range []struct {
		name, tls string
		script    func(*peer)
	}{
		{"no greeting", "none", func(p *peer) { p.hang() }},
		{"half a greeting", "none", func(p *peer) { p.send("* O"); p.hang() }},
		{"no answer to the sign-in", "none", func(p *peer) { p.send("* OK [CAPABILITY %s] ready\r\n", testCaps); p.hang() }},
		{"no greeting before STARTTLS", "starttls", func(p *peer) { p.hang() }},
		{"no answer to STARTTLS", "starttls", func(p *peer) { p.send("* OK ready\r\n"); p.hang() }},
		{"no handshake", "implicit", func(p *peer) { p.hang() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, c.script))
			o.TLS, o.Timeout = c.tls, timeout
			start := time.Now()
			_, err := Dial(t.Context(), o)
			_ = wantFault(t, err, mail.KindSilent)
			if d := time.Since(start); d > 20*timeout {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestSilenceOfACommand(t *testing.T) {
	t.Parallel()
	o := plain(serve(t, func(p *peer) {
		p.greet(testCaps)
		p.command()
		p.send("* LIST () ")
		p.hang()
	}))
	o.Timeout = 150 * time.Millisecond
	s := dialed(t, o)
	_, err := s.List(t.Context())
	_ = wantFault(t, err, mail.KindSilent)
	if s.Alive() {
		t.Error("the session is alive")
	}
	if _, err = s.List(t.Context()); err == nil {
		t.Error("a dead session lists")
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, tls string
		script    func(p *peer, now func())
		run       func(ctx context.Context, s *Session) error // nil: Dial itself
	}{
		{"dial", "none", func(p *peer, now func()) { now(); p.hang() }, nil},
		{"handshake", "implicit", func(p *peer, now func()) { now(); p.hang() }, nil},
		{"STARTTLS", "starttls", func(p *peer, now func()) { p.send("* OK ready\r\n"); p.line(); now(); p.hang() }, nil},
		{"sign-in", "none", func(p *peer, now func()) {
			p.send("* OK [CAPABILITY %s] ready\r\n", testCaps)
			p.line()
			now()
			p.hang()
		}, nil},
		{"list", "none", func(p *peer, now func()) { p.greet(testCaps); p.line(); now(); p.hang() },
			func(ctx context.Context, s *Session) error { _, err := s.List(ctx); return err }},
		{"examine", "none", func(p *peer, now func()) { p.greet(testCaps); p.line(); now(); p.hang() },
			func(ctx context.Context, s *Session) error { _, err := s.Examine(ctx, "INBOX", nil); return err }},
		{"exchange", "none", func(p *peer, now func()) {
			p.greet(testCaps)
			p.line()
			p.send("* 1 FETCH (UID 1 BODY[] {10}\r\nabc")
			now()
			p.hang()
		},
			func(ctx context.Context, s *Session) error { _, err := s.Exchange(ctx, "NOOP"); return err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := plain(serve(t, func(p *peer) { c.script(p, cancel) }))
			o.TLS, o.Timeout = c.tls, time.Minute
			start := time.Now()
			s, err := Dial(ctx, o)
			if c.run != nil {
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				err = c.run(ctx, s)
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestSecretsAreNotShown signs in at servers that echo the secret wherever they
// can.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, m := range append(mechanisms(), scramMechanisms(t)...) {
		for _, refuse := range []bool{true, false} {
			m := m
			m.echo, m.refuse = true, refuse
			t.Run(fmt.Sprintf("%s %s refused=%v", m.name, m.caps, m.refuse), func(t *testing.T) {
				t.Parallel()
				var shown []string
				show := func(what string, err error) {
					shown = append(shown, what)
					for ; err != nil; err = errors.Unwrap(err) {
						shown = append(shown, err.Error())
						if f, ok := errors.AsType[*mail.Fault](err); ok {
							shown = append(shown, f.Text, f.Code)
						}
					}
				}
				exchange := func(ex *mail.Exchange, err error) {
					show(ex.Command+ex.Code+ex.Text, err)
					shown = append(shown, ex.Untagged...)
					for _, l := range ex.Lines {
						shown = append(shown, l.Text)
					}
				}
				o := plain(serve(t, m.run))
				o.Auth = m.name
				o.Note = func(s string) { shown = append(shown, s) }
				var trace strings.Builder
				o.Record = func(l mail.Line) {
					who := "\nS: "
					if l.Client {
						who = "\nC: "
					}
					trace.WriteString(who + l.Text)
				}
				s, err := Dial(t.Context(), o)
				show("", err)
				if (err != nil) != m.refuse {
					t.Fatalf("Dial: %v", err)
				}
				if err == nil {
					_, err = s.List(t.Context())
					show("", err)
					_, err = s.Examine(t.Context(), "INBOX", nil)
					show("", err)
					var b basket
					exchange(s.FetchOne(t.Context(), 2, b.sink()))
					exchange(s.Exchange(t.Context(), "UID FETCH 1 (BODY.PEEK[TEXT])"))
					exchange(s.Exchange(t.Context(), "NOOP"))
					_ = s.Close() // whatever became of it
				}
				if !strings.Contains(trace.String(), "\nC: ") || !strings.Contains(trace.String(), "\nS: ") {
					t.Errorf("the transcript is %q", trace.String())
				}
				shown = append(shown, trace.String())
				if len(shown) < 2 {
					t.Fatal("nothing was shown, nothing is shown by that")
				}
				quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(testSecret)
				forms := []string{"hunter2", testSecret, quoted, b64(testSecret), b64(testSecret)[:12],
					b64("\x00" + testUser + "\x00" + testSecret), b64("user=" + testUser + "\x01auth=Bearer " + testSecret + "\x01\x01")}
				for _, text := range shown {
					for _, form := range forms {
						if strings.Contains(strings.ToUpper(text), strings.ToUpper(form)) {
							t.Fatalf("%.200q shows %q", text, form)
						}
					}
				}
			})
		}
	}
}

// flights counts how often the client writes after it has read: each is a round
// trip.
type flights struct {
	net.Conn
	n    *atomic.Int32
	read atomic.Bool
}

func (f *flights) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if n > 0 {
		f.read.Store(true)
	}
	return n, err
}

func (f *flights) Write(p []byte) (int, error) {
	if f.read.Swap(false) {
		f.n.Add(1)
	}
	return f.Conn.Write(p)
}

func TestAnIdleRunTakesFewRoundTrips(t *testing.T) {
	t.Parallel()
	cert, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	const caps = "IMAP4rev1 SASL-IR AUTH=PLAIN LIST-STATUS CONDSTORE ID COMPRESS=DEFLATE"
	for _, told := range []bool{true, false} {
		port := serve(t, func(p *peer) {
			secure := tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12})
			q := &peer{secure, bufio.NewReader(secure)}
			code := ""
			if told {
				code = "[CAPABILITY " + caps + "] "
			}
			q.send("* OK %sready\r\n", code)
			for {
				tag, command := q.command()
				switch word, _, _ := strings.Cut(command, " "); {
				case tag == "":
					return
				case word == "CAPABILITY":
					q.send("* CAPABILITY %s\r\n%s OK done\r\n", caps, tag)
				case word == "LIST":
					for i := range 200 {
						q.send("* LIST () \"/\" box%d\r\n* STATUS box%d (MESSAGES %d UIDNEXT 2 UIDVALIDITY 3 HIGHESTMODSEQ 4)\r\n", i, i, i)
					}
					q.send("%s OK done\r\n", tag)
				default:
					q.send("%s OK %sdone\r\n", tag, code)
				}
			}
		})
		var n atomic.Int32
		o := plain(port)
		o.TLS, o.RootCAs = "implicit", cert.Pool()
		o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			n.Add(2) // TCP, and the first write of TLS
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &flights{Conn: conn, n: &n}, err
		}
		s, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		boxes, err := s.List(t.Context())
		if err != nil || len(boxes) != 200 || boxes[199].Status == nil || *boxes[199].Status != (mail.Status{Messages: 199, UIDNext: 2, UIDValidity: 3, HighestModSeq: 4}) {
			t.Errorf("%d mailboxes, %v", len(boxes), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := n.Load(); got > 8 {
			t.Errorf("capabilities told: %v; %d round trips, at most 8 are allowed", told, got)
		} else {
			t.Logf("capabilities told: %v; %d round trips", told, got)
		}
	}
}

// TestSignInForms signs in at servers that bend the rules, and knows the
// capabilities afterwards.
func TestSignInForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, greeting, list string // list: the answer to CAPABILITY
		noise, answer        string // before and as the answer to the sign-in
		want                 string // capabilities
	}{
		{"capabilities in the answer", "OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi", "", "", "OK [CAPABILITY IMAP4rev1 IDLE] hi", "IDLE IMAP4REV1"},
		{"in an untagged line", "OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi", "IMAP4rev1 IDLE", "* CAPABILITY IMAP4rev1 IDLE\r\n", "OK hi", "IDLE IMAP4REV1"},
		{"not told", "OK hi", "IMAP4rev1 IDLE", "", "OK hi", "IDLE IMAP4REV1"},
		{"no text", "OK", "IMAP4rev1 IDLE", "", "OK", "IDLE IMAP4REV1"},
		{"spaces too many", "OK [CAPABILITY IMAP4rev1 AUTH=PLAIN ]", "", "", "OK [CAPABILITY  IMAP4rev1  IDLE ] hi", "IDLE IMAP4REV1"},
		{"capabilities that are none", "OK [CAPABILITY IMAP4rev1 \"x\" (y)] hi", "IMAP4rev1 {3} IDLE", "", "OK hi", "IDLE IMAP4REV1"},
		{"lines nobody asked for", "OK [CAPABILITY IMAP4rev1] hi", "", "* 5 EXISTS\r\n* OK [XYZZY a]b\"c] plugh\r\n* BOGUS (\r\n* NO [ALERT] quota\r\n\r\n", "OK [CAPABILITY IMAP4rev1] hi", "IMAP4REV1"},
		{"disabled", "OK [CAPABILITY IMAP4rev1] hi", "", "", "OK [CAPABILITY IMAP4rev1 QRESYNC condstore MOVE] hi", "IMAP4REV1 MOVE"},
		{"QRESYNC alone", "OK [CAPABILITY IMAP4rev1] hi", "", "", "OK [CAPABILITY IMAP4rev1 qresync] hi", "CONDSTORE IMAP4REV1 QRESYNC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, func(p *peer) {
				p.send("* %s\r\n", c.greeting)
				for {
					tag, command := p.command()
					switch word, _, _ := strings.Cut(command, " "); {
					case tag == "":
						return
					case word == "CAPABILITY":
						p.send("* CAPABILITY %s\r\n%s OK\r\n", c.list, tag)
					case word == "AUTHENTICATE":
						p.send("+\r\n") // without the space, as Exchange
						p.line()
						fallthrough
					default:
						p.send("%s%s %s\r\n", c.noise, tag, c.answer)
					}
				}
			}))
			if c.name == "disabled" {
				o.Disable = []string{"condstore"}
			}
			s := dialed(t, o)
			if got := strings.Join(s.Capabilities(), " "); got != c.want {
				t.Errorf("capabilities %s, want %s", got, c.want)
			}
		})
	}
}

// TestOddAnswersToTheSignIn end in a fault of a kind that says what to do.
func TestOddAnswersToTheSignIn(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]mail.Kind{
		"{tag} NO [UNAVAILABLE] Temporary authentication failure\r\n": mail.KindNo,
		"{tag} NO [AUTHENTICATIONFAILED] Invalid credentials\r\n":     mail.KindAuth,
		"{tag} NO\r\n": mail.KindAuth,
		"{tag} BAD Request is throttled. Suggested Backoff Time: 5000 ms\r\n": mail.KindThrottled,
		"{tag} BAD User is authenticated but not connected.\r\n":              mail.KindNotConnected,
		"* BYE Autologout\r\n{hangup}":                                        mail.KindBye,
		"{hangup}":                                                            mail.KindCut,
		strings.Repeat("x", 4*maxText) + "\r\n":                               mail.KindTooLarge,
	} {
		o := plain(serve(t, func(p *peer) {
			p.send("* OK [CAPABILITY IMAP4rev1] hi\r\n")
			tag, _ := p.command()
			answer, hangUp := strings.CutSuffix(strings.ReplaceAll(answer, "{tag}", tag), "{hangup}")
			p.send("%s", answer)
			if !hangUp {
				p.hang()
			}
		}))
		_, err := Dial(t.Context(), o)
		f, ok := errors.AsType[*mail.Fault](err)
		if !ok || f.Kind != want {
			t.Errorf("%.60q: %v, want %v", answer, err, want)
		}
	}
}
