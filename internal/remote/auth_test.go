package remote

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// scramServer gives the server's side of SCRAM for the test's user.
func scramServer(tb testing.TB, name string) *scram.Server {
	tb.Helper()
	hash := scram.SHA256
	if strings.Contains(name, "SHA-1") {
		hash = scram.SHA1
	}
	client, err := hash.NewClient(testUser, testSecret, "")
	if err != nil {
		tb.Fatal(err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: 4096})
	if err != nil {
		tb.Fatal(err)
	}
	srv, err := hash.NewServer(func(user string) (scram.StoredCredentials, error) {
		if user != testUser {
			return scram.StoredCredentials{}, errors.New("unknown user")
		}
		return stored, nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return srv
}

// speakSCRAM is the exchange as the server has it.
func speakSCRAM(p *peer, command, name string, conv *scram.ServerConversation) (heard []string, ok bool) {
	said := initial(p, command, name)
	for {
		heard = append(heard, said)
		raw, err := base64.StdEncoding.DecodeString(said)
		if err != nil {
			return heard, false
		}
		answer, err := conv.Step(string(raw))
		if err != nil {
			return heard, false
		}
		p.send("+ %s\r\n", b64(answer))
		said = p.line()
		if conv.Done() {
			return heard, conv.Valid() && said == "" // an empty line and no "=" (go-imap#760)
		}
	}
}

// scramMechanisms are of the same kind as mechanisms.
func scramMechanisms(tb testing.TB) []saslServer {
	tb.Helper()
	var out []saslServer
	for _, name := range []string{"SCRAM-SHA-256", "SCRAM-SHA-1"} {
		srv := scramServer(tb, name)
		for _, ir := range []string{"", " SASL-IR"} {
			out = append(out, saslServer{name: strings.ToLower(name), caps: "IMAP4rev1 AUTH=" + name + ir,
				check: func(p *peer, _, command string) ([]string, bool) {
					return speakSCRAM(p, command, name, srv.NewConversation())
				}})
		}
	}
	return out
}

// TestChannelBinding: SCRAM-SHA-256-PLUS over TLS 1.3, and what is done where it
// cannot be.
func TestChannelBinding(t *testing.T) {
	t.Parallel()
	cert, err := imaptest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	const both = "IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS"
	for _, c := range []struct {
		name    string
		offers  string
		version uint16
		foreign bool // the binding is of another connection: somebody stands between
		takes   string
		flag    string // of the client's first message (RFC 5802 6)
		refused bool
	}{
		{"bound", both, tls.VersionTLS13, false, "SCRAM-SHA-256-PLUS", "p=tls-exporter", false},
		{"somebody stands between", both, tls.VersionTLS13, true, "SCRAM-SHA-256-PLUS", "p=tls-exporter", true},
		{"somebody has taken the offer out", "IMAP4rev1 SASL-IR LOGINDISABLED AUTH=SCRAM-SHA-256", tls.VersionTLS13, false, "SCRAM-SHA-256", "y", true},
		{"TLS 1.2 has no binding", both, tls.VersionTLS12, false, "SCRAM-SHA-256", "n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := scramServer(t, "SCRAM-SHA-256")
			var mu sync.Mutex
			var took, flag string
			config := &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12, MaxVersion: c.version}
			o := plain(serve(t, func(p *peer) {
				secure := tls.Server(p.Conn, config)
				q := &peer{secure, bufio.NewReader(secure)}
				q.send("* OK [CAPABILITY %s] ready\r\n", c.offers)
				tag, command := q.command()
				name, ir, _ := strings.Cut(strings.TrimPrefix(command, "AUTHENTICATE "), " ")
				first, _ := base64.StdEncoding.DecodeString(ir)
				mu.Lock()
				took = name
				flag, _, _ = strings.Cut(string(first), ",")
				mu.Unlock()
				conv := srv.NewConversation()
				if state := secure.ConnectionState(); state.Version == tls.VersionTLS13 {
					binding, err := scram.NewTLSExporterBinding(&state)
					if err != nil {
						t.Error(err)
					}
					if c.foreign {
						binding.Data[0] ^= 1
					}
					conv = srv.NewConversationWithChannelBinding(binding)
				}
				if _, ok := speakSCRAM(q, command, name, conv); !ok {
					q.send("%s NO [AUTHENTICATIONFAILED] no\r\n", tag)
					return
				}
				q.send("%s OK [CAPABILITY IMAP4rev1] welcome\r\n", tag)
				q.hang()
			}))
			o.TLS, o.RootCAs = "implicit", cert.Pool()
			s, err := Dial(t.Context(), o)
			if c.refused {
				_ = wantFault(t, err, mail.KindAuth)
			} else if err != nil {
				t.Fatal(err)
			} else if err := s.Close(); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if took != c.takes || flag != c.flag {
				t.Errorf("the client took %s with %q, want %s with %q", took, flag, c.takes, c.flag)
			}
		})
	}
}

// attempts serves each command that signs in by its answers, in order, and gives
// what was tried. In an answer, "|" stands between turns: those that begin with
// "+" are challenges.
func attempts(tb testing.TB, secure bool, caps string, answers ...string) (o Options, tried func() []string) {
	tb.Helper()
	var mu sync.Mutex
	var names []string
	cert, err := imaptest.NewCertificate()
	if err != nil {
		tb.Fatal(err)
	}
	o = plain(serve(tb, func(p *peer) {
		if secure {
			p = secured(p, &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12})
		}
		p.send("* OK [CAPABILITY %s] ready\r\n", caps)
		for _, answer := range answers {
			tag, command := p.command()
			if tag == "" {
				return
			}
			words := strings.Fields(command)
			mu.Lock()
			if names = append(names, words[0]); words[0] == "AUTHENTICATE" {
				names[len(names)-1] = words[1]
			}
			mu.Unlock()
			for turn := range strings.SplitSeq(answer, "|") {
				if strings.HasPrefix(turn, "+") {
					p.send("%s\r\n", turn)
					p.line()
				} else {
					p.send("%s %s\r\n", tag, turn)
				}
			}
		}
		p.hang()
	}))
	if secure {
		o.TLS, o.RootCAs = "implicit", cert.Pool()
	}
	return o, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return names
	}
}

// TestTheNextMechanism is tried where a mechanism is refused, and no other where
// it was the password.
func TestTheNextMechanism(t *testing.T) {
	t.Parallel()
	const all = "IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5 AUTH=GSSAPI"
	const welcome = "OK [CAPABILITY IMAP4rev1] welcome"
	for _, c := range []struct {
		name    string
		secure  bool
		caps    string
		answers []string
		tried   string
		refused bool
	}{
		{"the strongest first", true, "IMAP4rev1 SASL-IR LOGINDISABLED AUTH=CRAM-MD5 AUTH=PLAIN AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-256", []string{"BAD no", "BAD no", "BAD no", "+|BAD no"},
			"SCRAM-SHA-256 SCRAM-SHA-1 PLAIN CRAM-MD5", true},
		{"no SCRAM for this user", true, all, []string{"NO [AUTHENTICATIONFAILED] Authentication failed.", welcome}, "SCRAM-SHA-256 PLAIN", false},
		{"not known after all", true, all, []string{"BAD what?", "NO [CANNOT] no", welcome}, "SCRAM-SHA-256 PLAIN LOGIN", false},
		{"not supported after all", true, all, []string{"NO Unsupported authentication mechanism.", "NO mechanism disabled", "NO not supported here", "+|+|NO no such mechanism", "+|" + welcome},
			"SCRAM-SHA-256 PLAIN LOGIN LOGIN CRAM-MD5", false},
		{"nothing goes", true, "IMAP4rev1 AUTH=PLAIN LOGINDISABLED", []string{"BAD no", welcome}, "PLAIN", true},
		{"the password is wrong", true, "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN", []string{"NO [AUTHENTICATIONFAILED] no", welcome}, "PLAIN", true},
		{"the proof of the password is wrong", false, "IMAP4rev1 AUTH=CRAM-MD5 AUTH=PLAIN", []string{"+ PDFAMj4=|NO no", welcome}, "CRAM-MD5", true},
		{"the password is wrong, asked for in turns", true, "IMAP4rev1 LOGINDISABLED AUTH=LOGIN AUTH=CRAM-MD5", []string{"+|+|NO no", welcome}, "LOGIN", true},
		{"the password is wrong, by the command", true, "IMAP4rev1 AUTH=LOGIN AUTH=CRAM-MD5", []string{"NO no", welcome}, "LOGIN", true},
		{"the password is wrong, in other words", true, "IMAP4rev1 AUTH=PLAIN AUTH=LOGIN", []string{"+|NO LOGIN failed.", welcome}, "PLAIN", true},
		{"throttled", true, all, []string{"BAD Request is throttled.", welcome}, "SCRAM-SHA-256", true},
		{"no TLS: what does not tell the password goes first", false, "IMAP4rev1 AUTH=PLAIN AUTH=CRAM-MD5", []string{"+ PDFAMj4=|" + welcome}, "CRAM-MD5", false},
		{"the command", true, "IMAP4rev1", []string{welcome}, "LOGIN", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o, tried := attempts(t, c.secure, c.caps, c.answers...)
			s, err := Dial(t.Context(), o)
			if (err != nil) != c.refused {
				t.Errorf("Dial: %v", err)
			}
			if err == nil {
				_ = s.Close() // nothing hangs on it
			}
			if names := strings.Join(tried(), " "); names != c.tried {
				t.Errorf("tried %s, want %s", names, c.tried)
			}
		})
	}
}

// TestTheProofOfSCRAMIsRefusedOnce: it is as good as a password, and servers count.
func TestTheProofOfSCRAMIsRefusedOnce(t *testing.T) {
	t.Parallel()
	commands := make(chan string, 10)
	srv := scramServer(t, "SCRAM-SHA-256")
	o := plain(serve(t, func(p *peer) {
		p.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-1 AUTH=PLAIN] ready\r\n")
		tag, command := p.command()
		commands <- command
		if _, ok := speakSCRAM(p, command, "SCRAM-SHA-256", srv.NewConversation()); ok {
			t.Error("another password is taken")
		}
		p.send("%s NO [AUTHENTICATIONFAILED] no\r\n", tag)
		for tag, command = p.command(); tag != ""; tag, command = p.command() {
			commands <- command
			p.send("%s NO no\r\n", tag)
		}
		close(commands)
	}))
	o.Password = func(context.Context) (string, error) { return "another password", nil }
	_, err := Dial(t.Context(), o)
	_ = wantFault(t, err, mail.KindAuth)
	var said []string
	for command := range commands {
		said = append(said, command)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "AUTHENTICATE SCRAM-SHA-256 ") {
		t.Errorf("the client said %q", said)
	}
}

// TestOAUTHBEARERFirst: the token goes by the standard's mechanism (RFC 7628) where
// there are both, and by the other one if that is not known after all.
func TestOAUTHBEARERFirst(t *testing.T) {
	t.Parallel()
	const welcome = "OK [CAPABILITY IMAP4rev1] welcome"
	for _, c := range []struct {
		caps    string
		answers []string
		tried   string
	}{
		{"IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER", []string{welcome}, "OAUTHBEARER"},
		{"IMAP4rev1 SASL-IR AUTH=OAUTHBEARER AUTH=XOAUTH2", []string{"BAD what?", welcome}, "OAUTHBEARER XOAUTH2"},
		{"IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2", []string{welcome}, "XOAUTH2"},
	} {
		o, tried := attempts(t, true, c.caps, c.answers...)
		o.Token = func(context.Context, bool) (string, error) { return "t", nil }
		s, err := Dial(t.Context(), o)
		if err != nil {
			t.Errorf("%s: %v", c.caps, err)
			continue
		}
		_ = s.Close() // nothing hangs on it
		if got := strings.Join(tried(), " "); got != c.tried {
			t.Errorf("%s: tried %s, want %s", c.caps, got, c.tried)
		}
	}
}

// TestNoWayToSignIn: the fault names what the server offers.
func TestNoWayToSignIn(t *testing.T) {
	t.Parallel()
	token := func(context.Context, bool) (string, error) { return "t", nil }
	for _, c := range []struct {
		caps  string
		token func(context.Context, bool) (string, error)
		words string
	}{
		{"IMAP4rev1 LOGINDISABLED AUTH=NTLM AUTH=GSSAPI", nil, "with a password; it offers GSSAPI, NTLM"},
		{"IMAP4rev1 LOGINDISABLED", nil, "with a password"},
		{"IMAP4rev1 AUTH=PLAIN", token, "with a token; it offers PLAIN"},
	} {
		o, tried := attempts(t, true, c.caps, "BAD no")
		o.Token = c.token
		_, err := Dial(t.Context(), o)
		if f := wantFault(t, err, mail.KindAuth); !strings.Contains(f.Error(), c.words) || len(tried()) > 0 {
			t.Errorf("%s: %v, tried %v", c.caps, f, tried())
		}
	}
}

// TestPREAUTH of a server at the other end of a network may be somebody else's
// session: mail would be uploaded into it.
func TestPREAUTH(t *testing.T) {
	t.Parallel()
	said := make(chan string, 10)
	o := plain(serve(t, func(p *peer) {
		p.send("* PREAUTH [CAPABILITY IMAP4rev1] hi\r\n")
		said <- p.line()
	}))
	_, err := Dial(t.Context(), o)
	if f := wantFault(t, err, mail.KindAuth); !strings.Contains(f.Text, "PREAUTH") {
		t.Error(f)
	}
	if line := <-said; line != "" {
		t.Errorf("the client said %q", line)
	}
}

// TestOddExchanges end in a fault, or sign in all the same.
func TestOddExchanges(t *testing.T) {
	t.Parallel()
	const welcome = "OK [CAPABILITY IMAP4rev1] welcome"
	for _, c := range []struct {
		name, auth, answer string
		words              string // of the fault; "": it signs in
	}{
		{"the initial response was not heard", "plain", "+|" + welcome, ""},
		{"nor was SCRAM's", "scram-sha-256", "+|+ cj14|NO no", "server message"},
		{"a challenge where there is none", "plain", "+ aGVsbG8=|BAD no", "more than there is to say"},
		{"no base64", "cram-md5", "+ hello!|BAD no", "base64"},
		{"no end", "login", strings.Repeat("+|", 30) + "NO no", "more than there is to say"},
		{"LOGIN asks three times", "login", "+|+|+|NO no", "more than there is to say"},
		{"OK without the server's proof", "scram-sha-256", welcome, "without a proof"},
		{"rounds without end", "scram-sha-256", "+ " + b64("r=x,s=c2FsdA==,i=999999999") + "|NO no", "999999999 rounds"},
		{"a reason for the refusal", "xoauth2", "+ " + b64(`{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}`) + "|NO SASL failed", "status 401, scope https://mail.google.com/"},
		{"in OAUTHBEARER", "oauthbearer", "+ " + b64(`{"status":"invalid_token","scope":"imap","openid-configuration":"x"}`) + "|NO no", "status invalid_token, scope imap"},
		{"a number", "oauthbearer", "+ " + b64(`{"status":400}`) + "|NO no", "status 400"},
		{"a reason that is no JSON", "xoauth2", "+ " + b64("to\x1b[31mken") + "|NO no", `to\x1b[31mken`},
		{"no such way", "ntlm", welcome, `no such way to sign in: "ntlm"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o, _ := attempts(t, false, "IMAP4rev1 SASL-IR AUTH="+strings.ToUpper(c.auth), c.answer)
			o.Auth = c.auth
			s, err := Dial(t.Context(), o)
			if c.words == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = s.Close() // nothing hangs on it
				return
			}
			f, ok := errors.AsType[*mail.Fault](err)
			if !ok || !strings.Contains(f.Text, c.words) {
				t.Errorf("%v does not say %q", err, c.words)
			}
		})
	}
}

// TestSASLIRSwitchedOff by the configuration: nothing goes with the command.
func TestSASLIRSwitchedOff(t *testing.T) {
	t.Parallel()
	said := make(chan string, 10)
	o := plain(serve(t, func(p *peer) {
		p.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n")
		tag, command := p.command()
		said <- command
		p.send("+ \r\n")
		said <- p.line()
		p.send("%s OK [CAPABILITY IMAP4rev1] welcome\r\n", tag)
		p.hang()
	}))
	o.Disable = []string{"SASL-IR"}
	_ = dialed(t, o)
	if command, response := <-said, <-said; command != "AUTHENTICATE PLAIN" || response != b64("\x00"+testUser+"\x00"+testSecret) {
		t.Errorf("the client said %q and %q", command, response)
	}
}

// TestLOGINWithAnyPassword: what a quoted string may not hold goes as a literal.
func TestLOGINWithAnyPassword(t *testing.T) {
	t.Parallel()
	for password, want := range map[string]string{
		"a b":       `LOGIN "me@example.org" "a b"`,
		`a\"b`:      `LOGIN "me@example.org" "a\\\"b"`,
		"süß":       "LOGIN \"me@example.org\" {5}\r\nsüß",
		"tab\there": "LOGIN \"me@example.org\" {8}\r\ntab\there",
		"":          `LOGIN "me@example.org" ""`,
	} {
		said := make(chan string, 10)
		o := plain(serve(t, func(p *peer) {
			p.send("* OK [CAPABILITY IMAP4rev1] hi\r\n")
			tag, command := p.command()
			said <- command
			p.send("%s OK [CAPABILITY IMAP4rev1] welcome\r\n", tag)
			p.hang()
		}))
		o.User, o.Password = "me@example.org", func(context.Context) (string, error) { return password, nil }
		_ = dialed(t, o)
		if got := <-said; got != want {
			t.Errorf("%q: the client said %q, want %q", password, got, want)
		}
	}
}

// TestToken is asked for again, once, after the server has refused it.
func TestToken(t *testing.T) {
	t.Parallel()
	refuse := "+ " + b64(`{"status":"401"}`) + "|NO expired"
	for _, c := range []struct {
		name   string
		answer func(token string) string
		asked  string // renew, for each call
		works  bool
	}{
		{"it is good", func(string) string { return "OK [CAPABILITY IMAP4rev1] hi" }, "[false]", true},
		{"it has expired", func(token string) string {
			if strings.Contains(token, "token-1") {
				return refuse
			}
			return "OK [CAPABILITY IMAP4rev1] hi"
		}, "[false true]", true},
		{"no token is good", func(string) string { return refuse }, "[false true]", false},
		{"the server is not well", func(string) string { return "NO [UNAVAILABLE] later" }, "[false]", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := plain(serve(t, func(p *peer) {
				p.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=PLAIN] hi\r\n")
				tag, command := p.command()
				raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(command, "AUTHENTICATE XOAUTH2 "))
				for turn := range strings.SplitSeq(c.answer(string(raw)), "|") {
					if strings.HasPrefix(turn, "+") {
						p.send("%s\r\n", turn)
						p.line()
					} else {
						p.send("%s %s\r\n", tag, turn)
					}
				}
				p.hang()
			}))
			var asked []bool
			o.Password = nil
			o.Token = func(_ context.Context, renew bool) (string, error) {
				asked = append(asked, renew)
				return fmt.Sprintf("token-%d", len(asked)), nil
			}
			s, err := Dial(t.Context(), o)
			if (err == nil) != c.works || fmt.Sprint(asked) != c.asked {
				t.Errorf("%v; asked %v, want %s", err, asked, c.asked)
			}
			if err == nil {
				_ = s.Close() // nothing hangs on it
			}
		})
	}
}
