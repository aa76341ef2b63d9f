package remote

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		Host: srv.Host(), Port: srv.Port(), TLS: "implicit", User: imaptest.User, Timeout: 5 * time.Minute,
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
			if _, err := s.List(t.Context(), mail.Listing{}); err != nil {
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

func TestGreeting(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		greeting string
		want     mail.Kind
		after    time.Duration
	}{
		{"* BYE Too busy", mail.KindBye, 0},
		{"* BYE Request is throttled. Suggested Backoff Time: 299961 milliseconds", mail.KindThrottled, 299961 * time.Millisecond},
		{"* BYE [ALERT] Too many simultaneous connections. (Failure)", mail.KindCrowded, 0},
		{"* BYE Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)", mail.KindCrowded, 0},
		{"* BYE Too many open connections for this user", mail.KindCrowded, 0},
		{"* BYE [LIMIT] not now", mail.KindCrowded, 0},
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
			o.TLS, o.Timeout, o.DialContext = c.tls, timeout, connects
			_, err := Dial(t.Context(), o)
			_ = wantFault(t, err, mail.KindSilent)
		})
	}
}

func TestSilenceOfACommand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := pipe(t, time.Minute, testCaps, func(p *peer) {
			p.command()
			p.send("* LIST () ")
			p.hang()
		})
		_, err := s.List(t.Context(), mail.Listing{})
		_ = wantFault(t, err, mail.KindSilent)
		if s.Alive() {
			t.Error("the session is alive")
		}
		if _, err = s.List(t.Context(), mail.Listing{}); err == nil {
			t.Error("a dead session lists")
		}
	})
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
			func(ctx context.Context, s *Session) error { _, err := s.List(ctx, mail.Listing{}); return err }},
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
		})
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
		boxes, err := s.List(t.Context(), mail.Listing{})
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
