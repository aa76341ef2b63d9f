package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// made gives a certificate that is made after a template, and a pool that trusts
// it.
func made(tb testing.TB, change func(*x509.Certificate)) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.org"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// jwt makes a token with these claims.
func jwt(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none"}`)) + "." + e([]byte(claims)) + ".c2lnbmF0dXJl"
}

// TestEveryWrongThingHasItsLine: what is wrong with host, port, TLS, certificate
// or secret is told apart, each with a next step of its own.
func TestEveryWrongThingHasItsLine(t *testing.T) {
	t.Parallel()
	over := func(cert tls.Certificate, change func(*tls.Config), script func(*peer)) func(*peer) {
		config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10}
		change(config)
		return func(p *peer) { script(secured(p, config)) }
	}
	same := func(*tls.Config) {}
	say := func(text string) func(*peer) { return func(p *peer) { p.send("%s", text); p.hang() } }
	refuse := func(caps, answer string) func(*peer) {
		return func(p *peer) {
			p.send("* OK [CAPABILITY %s] hi\r\n", caps)
			for {
				tag, _ := p.command()
				if tag == "" {
					return
				}
				p.send("%s %s\r\n", tag, answer)
			}
		}
	}
	good, goodPool := made(t, func(*x509.Certificate) {})
	expired, expiredPool := made(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	future, futurePool := made(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(24*time.Hour), time.Now().Add(48*time.Hour)
	})
	old, oldPool := made(t, func(c *x509.Certificate) { c.IPAddresses = nil })
	other, otherPool := made(t, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"imap.example.org"} })
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pin := func(c tls.Certificate) string {
		return fmt.Sprintf(`tls_pin = "sha256:%x"`, sha256.Sum256(c.Certificate[0]))
	}
	refusing, end, err := imaptest.Nobody()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = end() }) // nothing hangs on it
	secret := jwt(`{"exp":1000000000,"aud":"https://outlook.office.com","scp":"IMAP.AccessAsUser.All"}`)
	rows := []struct {
		name   string
		script func(*peer) // nil: nobody listens
		change func(*Options)
		kind   mail.Kind
		do     []string
	}{
		{"no such host", nil, func(o *Options) { o.TLS, o.Host = "implicit", "no.invalid" }, mail.KindDial, []string{`host "no.invalid"`}},
		{"no such port", nil, func(o *Options) {}, mail.KindDial, []string{"nobody listens there", fmt.Sprintf("port = %d", refusing), "993", "143"}},
		{"firewall", nil, func(o *Options) {
			o.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, context.DeadlineExceeded }
		}, mail.KindDial, []string{"nothing comes back", "firewall"}},
		{"no tunnel", nil, func(o *Options) { o.Tunnel = []string{"no-such-program-here"} }, mail.KindDial, []string{"no-such-program-here"}},
		{"tunnel fails", nil, func(o *Options) { o.Tunnel = []string{"false"} }, mail.KindDial, []string{"by hand"}},
		{"no proxy", nil, func(o *Options) { o.Proxy = fmt.Sprintf("127.0.0.1:%d", refusing) }, mail.KindDial, []string{"does the proxy run"}},
		{"TLS where there is none", say("* OK hi\r\n"), func(o *Options) { o.TLS = "implicit" }, mail.KindTLS, []string{`tls = "starttls"`}},
		{"no TLS where it is", say(""), func(o *Options) { o.Timeout, o.DialContext = 100*time.Millisecond, connects }, mail.KindSilent, []string{`tls = "implicit"`}},
		{"no STARTTLS", refuse("IMAP4rev1", "BAD unknown"), func(o *Options) { o.TLS = "starttls" }, mail.KindTLS, []string{`tls = "implicit"`, "993"}},
		{"POP3", say("+OK hi\r\n"), func(*Options) {}, mail.KindMalformed, []string{"POP3", "993"}},
		{"SMTP", say("220 mail.example.org ESMTP\r\n"), func(*Options) {}, mail.KindMalformed, []string{"SMTP", "993"}},
		{"HTTP", say("HTTP/1.1 400 Bad Request\r\n"), func(*Options) {}, mail.KindMalformed, []string{"web server"}},
		{"SSH", say("SSH-2.0-OpenSSH_9.2\r\n"), func(*Options) {}, mail.KindMalformed, []string{"SSH server"}},
		{"down in the handshake", func(p *peer) { _ = p.Close() }, func(o *Options) { o.RootCAs = goodPool }, mail.KindCut, []string{"hung up before TLS was agreed", "it is down; if not", `tls = "implicit"`}},
		{"down after STARTTLS", func(p *peer) {
			p.send("* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n")
			tag, _ := p.command()
			p.send("%s OK go on\r\n", tag)
			_ = p.Close()
		}, func(o *Options) { o.TLS = "starttls" }, mail.KindCut, []string{"hung up before TLS was agreed", "it is down; if not"}},
		{"down at the greeting", func(p *peer) { _ = p.Close() }, func(*Options) {}, mail.KindCut, []string{"it is down; if not", `tls = "implicit"`}},
		{"untrusted", over(good, same, say("")), func(o *Options) { o.RootCAs = otherPool }, mail.KindTLS, []string{pin(good), "tls_ca_file", "compare"}},
		{"expired", over(expired, same, say("")), func(o *Options) { o.RootCAs = expiredPool }, mail.KindTLS, []string{"expired", "clock", pin(expired)}},
		{"not valid yet", over(future, same, say("")), func(o *Options) { o.RootCAs = futurePool }, mail.KindTLS, []string{"begins to be valid", "clock"}},
		{"common name alone", over(old, same, say("")), func(o *Options) { o.RootCAs = oldPool }, mail.KindTLS, []string{"old place", "mail.example.org", pin(old)}},
		{"another's", over(other, same, say("")), func(o *Options) { o.RootCAs = otherPool }, mail.KindTLS, []string{"imap.example.org", "tls_server_name"}},
		{"not the pinned one", over(good, same, say("")), func(o *Options) { o.Pin = "sha256:" + strings.Repeat("00", 32) }, mail.KindTLS, []string{"somebody stands between"}},
		{"TLS 1.0", over(good, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS10 }, say("")), func(o *Options) { o.RootCAs = goodPool }, mail.KindTLS, []string{"too old", "tls_legacy"}},
		{"key exchange by RSA", over(tls.Certificate{}, func(c *tls.Config) {
			template := &x509.Certificate{SerialNumber: big.NewInt(1)}
			der, _ := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}, say("")), func(o *Options) { o.RootCAs = goodPool }, mail.KindTLS, []string{"too old", "tls_legacy"}},
		{"older still", over(good, func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
		}, say("")), func(o *Options) { o.RootCAs, o.Legacy = goodPool, true }, mail.KindTLS, []string{"older than this program knows", "tunnel"}},
		{"wants our certificate", over(good, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, say("* OK hi\r\n")), func(o *Options) { o.RootCAs = goodPool }, mail.KindTLS, []string{"tls_cert"}},
		{"wants another one", over(good, func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, goodPool }, say("* OK hi\r\n")),
			func(o *Options) { o.RootCAs, o.Certificate = goodPool, &other }, mail.KindTLS, []string{"does not take the certificate of tls_cert"}},
		{"password", refuse("IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2", "NO [AUTHENTICATIONFAILED] Invalid credentials"), func(*Options) {}, mail.KindAuth,
			[]string{`user = "` + testUser + `"`, "application password", "it was PLAIN", "PLAIN, XOAUTH2"}},
		{"password by the command", refuse("IMAP4rev1", "NO no"), func(*Options) {}, mail.KindAuth, []string{"it was LOGIN command"}},
		{"only NTLM and GSSAPI", refuse("IMAP4rev1 LOGINDISABLED AUTH=NTLM AUTH=GSSAPI", "NO no"), func(o *Options) { o.TLS = "tls" }, mail.KindAuth, []string{"neither Kerberos (GSSAPI) nor NTLM", "basic authentication"}},
		{"only tokens", refuse("IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2", "NO no"), func(o *Options) { o.TLS = "tls" }, mail.KindAuth, []string{`auth = "xoauth2"`}},
		{"only certificates", refuse("IMAP4rev1 LOGINDISABLED AUTH=EXTERNAL", "NO no"), func(o *Options) { o.TLS = "tls" }, mail.KindAuth, []string{"tls_cert"}},
		{"TLS first", refuse("IMAP4rev1 LOGINDISABLED STARTTLS", "NO no"), func(*Options) {}, mail.KindAuth, []string{`tls = "starttls"`}},
		{"an expired token", refuse("IMAP4rev1 SASL-IR AUTH=XOAUTH2", "NO AUTHENTICATE failed."), func(o *Options) {
			o.Auth, o.Password = "xoauth2", func(context.Context) (string, error) { return secret, nil }
		}, mail.KindAuth, []string{"the token expired at 2001-09-09", "it was XOAUTH2"}},
		{"another mechanism than is offered", refuse("IMAP4rev1 AUTH=PLAIN AUTH=LOGIN", "NO no"), func(o *Options) { o.Auth = "scram-sha-256" }, mail.KindAuth,
			[]string{`the server does not offer SCRAM-SHA-256, which auth names; it offers LOGIN, PLAIN: change auth, or leave it out`}},
		{"a token where none is taken", refuse("IMAP4rev1 AUTH=PLAIN", "NO no"), func(o *Options) { o.Auth = "xoauth2" }, mail.KindAuth, []string{"the server does not offer XOAUTH2, which auth names"}},
		{"an opaque token", refuse("IMAP4rev1 SASL-IR AUTH=OAUTHBEARER", "NO no"), func(o *Options) { o.Auth = "oauthbearer" }, mail.KindAuth, []string{"a new token is needed"}},
		{"our certificate", refuse("IMAP4rev1 SASL-IR AUTH=EXTERNAL", "NO no"), func(o *Options) { o.Auth = "external" }, mail.KindAuth, []string{"tls_cert"}},
		{"our certificate where none is asked for", refuse("IMAP4rev1 AUTH=PLAIN", "NO no"), func(o *Options) { o.Certificate, o.Password = &other, nil }, mail.KindAuth,
			[]string{"does not offer EXTERNAL, by which tls_cert signs in", "it offers PLAIN", "password_command"}},
		{"a tunnel that says nothing", nil, func(o *Options) { o.Tunnel, o.Timeout = []string{"sleep", "60"}, time.Second }, mail.KindSilent, []string{"tunnel", "an IMAP server"}},
		{"no password", refuse("IMAP4rev1 SASL-IR AUTH=PLAIN", "NO no"), func(o *Options) {
			o.Password = func(context.Context) (string, error) { return "", errors.New("the vault is shut") }
		}, mail.KindSecret, []string{"password_command"}},
		{"plain text", nil, func(o *Options) { o.AllowPlaintext = false }, mail.KindPlaintext, []string{"allow_plaintext"}},
	}
	for _, c := range rows {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			port := refusing
			if c.script != nil {
				port = serve(t, c.script)
			}
			o := plain(port)
			c.change(&o)
			switch {
			case o.TLS == "tls": // with it, and nothing wrong with it
				cert, err := imaptest.NewCertificate()
				if err != nil {
					t.Fatal(err)
				}
				o = plain(serve(t, over(cert.TLS, same, c.script)))
				o.TLS, o.RootCAs = "implicit", cert.Pool()
			case o.RootCAs != nil || o.Pin != "":
				o.TLS = "implicit"
			}
			_, err := Dial(t.Context(), o)
			f := wantFault(t, err, c.kind)
			for _, words := range c.do {
				if !strings.Contains(f.Do, words) {
					t.Errorf("%v: %q does not say %q", f, f.Do, words)
				}
			}
			for _, form := range []string{testSecret, secret, b64(testSecret)} {
				if strings.Contains(f.Do, form) {
					t.Errorf("%q shows a secret", f.Do)
				}
			}
			if strings.ContainsAny(f.Do, "\n\x1b") {
				t.Errorf("%q is no line", f.Do)
			}
			// By settings that were right once, but for certificates and sign-ins.
			again := mail.Fault{Kind: f.Kind, Op: f.Op, Text: f.Text, Err: f.Err}
			o.Names = &Names{}
			o.Names.reached.Store(true)
			advise(o, &again)
			_, certificate := errors.AsType[*tls.CertificateVerificationError](f)
			switch passes := strings.Contains(again.Do, "reached like this before") || strings.Contains(again.Do, "is the network there?"); {
			case c.kind == mail.KindAuth, c.kind == mail.KindSecret, c.kind == mail.KindPlaintext, certificate, errors.Is(f, errPin):
				if passes {
					t.Errorf("a server that was reached before: %q", again.Do)
				}
			case !passes:
				t.Errorf("a server that was reached before: %q", again.Do)
			}
		})
	}
}

// TestAboutToken: what a token tells of itself, and nothing else of it.
func TestAboutToken(t *testing.T) {
	t.Parallel()
	now := time.Now()
	later := now.Add(time.Hour).Unix()
	for _, c := range []struct{ claims, want string }{
		{fmt.Sprintf(`{"exp":%d}`, now.Add(-time.Minute).Unix()), "the token expired at"},
		{fmt.Sprintf(`{"exp":%d,"aud":"https://graph.microsoft.com","scp":"Mail.Read"}`, later), "Microsoft Graph"},
		{fmt.Sprintf(`{"exp":%d,"aud":"00000003-0000-0000-c000-000000000000"}`, later), "Microsoft Graph"},
		{fmt.Sprintf(`{"exp":%d,"aud":"https://outlook.office.com","scp":"SMTP.Send"}`, later), "SMTP.Send, and not for IMAP"},
		{fmt.Sprintf(`{"exp":%d,"aud":["a","b"]}`, later), "for a"},
		{fmt.Sprintf(`{"exp":%d,"aud":"x\u001b[31my"}`, later), `x\x1b[31my`},
		{`{"exp":"soon"}`, ""},
		{`[]`, ""},
		{``, ""},
	} {
		got := aboutToken(jwt(c.claims), now)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.ContainsRune(got, '\x1b') {
			t.Errorf("%s: %q, want %q", c.claims, got, c.want)
		}
	}
	for _, token := range []string{"", "opaque", "a.b", "a.!.c", "ya29.a0AfH6SMC-x.y"} {
		if got := aboutToken(token, now); got != "" {
			t.Errorf("%s: %q", token, got)
		}
	}
}

// TestAlertsAreShown wherever they come, fit to be shown.
func TestAlertsAreShown(t *testing.T) {
	t.Parallel()
	var alerts, notes []string
	o := plain(serve(t, func(p *peer) {
		p.send("* OK [ALERT] one\r\n")
		for {
			tag, command := p.command()
			switch word, _, _ := strings.Cut(command, " "); word {
			case "":
				return
			case "CAPABILITY":
				p.send("* CAPABILITY IMAP4rev1\r\n* OK [alert] two\r\n%s OK done\r\n", tag)
			case "LOGIN":
				p.send("%s OK [ALERT] three \x1b[31m%s\r\n", tag, testSecret)
			default:
				p.send("* BAD [ALERT] four\r\n%s NO [ALERT] five %s\r\n", tag, strings.Repeat("x", 10_000))
			}
		}
	}))
	o.Alert = func(s string) { alerts = append(alerts, s) }
	o.Note = func(s string) { notes = append(notes, s) }
	s := dialed(t, o)
	if _, err := s.List(t.Context(), mail.Listing{}); err == nil {
		t.Error("the refused command has no error")
	}
	want := []string{"one", "two", `three \x1b[31m[secret]`, "two", "four", "five xxx"}
	if len(alerts) != len(want) || len(notes) > 0 {
		t.Fatalf("alerts %q, notes %q", alerts, notes)
	}
	for i := range want {
		if !strings.HasPrefix(alerts[i], want[i]) || len(alerts[i]) > 500 {
			t.Errorf("alert %q, want %q", alerts[i], want[i])
		}
	}
}
