package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Options is how to reach one account.
type Options struct {
	Host string
	Port int
	// Tunnel is a program and its arguments, through whose standard input and
	// output the server is spoken to; Host and Port are then names alone. It may
	// greet with PREAUTH. Nil for a connection of our own.
	Tunnel []string
	Proxy  string // host:port of a SOCKS5 proxy, which resolves Host; "" for none
	// TLS is "implicit", "starttls" or "none". "none" needs AllowPlaintext or
	// Tunnel.
	TLS            string
	AllowPlaintext bool
	ServerName     string         // in the certificate, if that is not Host
	Legacy         bool           // allow TLS 1.0 and 1.1, and key exchange by RSA
	RootCAs        *x509.CertPool // nil: the system's
	// Pin is "sha256:" and the hash of the server's certificate (DER) in
	// hexadecimal. That certificate is then required, and suffices.
	Pin  string
	User string
	// Auth is a SASL mechanism in lower case; "login" is the command, too. ""
	// takes the strongest that the server offers.
	Auth string
	// Certificate is the client's, which EXTERNAL signs in with; nil if there is
	// none.
	Certificate *tls.Certificate
	// Password is called once, after TLS is up. For oauthbearer and xoauth2 it
	// gives the token, if Token is nil.
	Password func(context.Context) (string, error)
	// Token gives the token for oauthbearer and xoauth2. If the server refuses it,
	// it is asked again, once, with renew. Nil: there is no source of tokens.
	Token func(ctx context.Context, renew bool) (string, error)
	renew bool // the token was refused once
	// Explain may add to the fault with which Dial ends what is known of the
	// token: Err and Do. Nil: nothing is.
	Explain func(*mail.Fault)
	// Timeout is the longest silence of the server; 0 means a minute.
	Timeout    time.Duration
	MaxLiteral int64    // largest message in bytes; 0 means 1 GiB
	Disable    []string // capabilities not to use although they are advertised
	Compress   bool     // also where the server is on this machine; for tests
	Version    string   // of this program, for ID (RFC 2971); "" is not told
	Note       func(string)
	// Alert gets what the server wants its user to read (RFC 9051 7.1, ALERT), fit
	// to be shown; nil for Note.
	Alert func(string)
	// Names is shared by the sessions of an account: one lists the mailboxes,
	// another selects them; and once one was signed in, a fault is no matter of
	// Host, Port and TLS any more. Nil is one of its own.
	Names *Names
	// Record gets what is said, from the greeting to the good-bye, secrets
	// replaced and long lines cut, one line at a time. It must not use the
	// session. Nil for nobody.
	Record func(mail.Line)
	// DialContext replaces the net.Dialer's, for tests.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// dialer finds and tries the addresses of Host; the zero one outside of tests.
	dialer net.Dialer
}

// Dial connects and signs in. Errors are *mail.Fault, or the context's.
func Dial(ctx context.Context, o Options) (*Session, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.MaxLiteral <= 0 {
		o.MaxLiteral = 1 << 30
	}
	s, err := dialRenewing(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if f, ok := errors.AsType[*mail.Fault](err); ok {
			advise(o, f)
			if o.Explain != nil {
				o.Explain(f)
			}
		}
		return nil, err
	}
	if o.Names != nil {
		o.Names.reached.Store(true)
	}
	return s, nil
}

// dialRenewing dials again with a new token if the server refuses the first: it
// may have expired. Some servers are of no more use after a refusal, so that it is
// by a new connection.
func dialRenewing(ctx context.Context, o Options) (*Session, error) {
	if o.Token == nil {
		return dial(ctx, o)
	}
	token, asked := o.Token, false
	o.Token = func(ctx context.Context, renew bool) (string, error) {
		asked = true
		return token(ctx, renew)
	}
	s, err := dial(ctx, o)
	if f, ok := errors.AsType[*mail.Fault](err); ok && f.Kind == mail.KindAuth && asked {
		o.renew = true
		return dial(ctx, o)
	}
	return s, err
}

func dial(ctx context.Context, o Options) (*Session, error) {
	switch o.TLS {
	case "implicit", "starttls":
	case "none":
		if !o.AllowPlaintext && len(o.Tunnel) == 0 {
			return nil, &mail.Fault{Kind: mail.KindPlaintext, Op: "sign-in"}
		}
	default:
		return nil, &mail.Fault{Kind: mail.KindTLS, Op: "dial", Err: fmt.Errorf("no such kind of TLS: %q", o.TLS)}
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindTLS, Op: "dial", Err: err}
	}
	within, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	conn, err := o.connect(within)
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindDial, Op: "dial", Err: err}
	}
	if o.TLS == "implicit" {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(within); err != nil {
			return nil, errors.Join(handshakeFault(within, err), ignore(conn.Close()))
		}
		conn = secure
	}
	s := newSession(conn, o)
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	if err := s.signIn(ctx, o, config); err != nil {
		s.cut()
		return nil, tunnelFault(o, err)
	}
	return s, nil
}

// handshakeFault tells a server that is silent, or gone, from one that is not to be
// trusted.
func handshakeFault(ctx context.Context, err error) *mail.Fault {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return &mail.Fault{Kind: mail.KindSilent, Op: "TLS", Err: err}
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return &mail.Fault{Kind: mail.KindCut, Op: "TLS", Err: err}
		}
	}
	return &mail.Fault{Kind: mail.KindTLS, Op: "TLS", Err: err}
}

// ignore drops the error of closing what has failed already.
func ignore(error) error { return nil }

// errPin says that it is another certificate.
var errPin = errors.New("not the pinned one")

func tlsConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{ServerName: cmp.Or(o.ServerName, o.Host), RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
	if o.Legacy {
		config.MinVersion = tls.VersionTLS10
		for _, c := range tls.CipherSuites() {
			config.CipherSuites = append(config.CipherSuites, c.ID)
		}
		for _, c := range tls.InsecureCipherSuites() {
			if strings.HasPrefix(c.Name, "TLS_RSA_WITH_AES_") {
				config.CipherSuites = append(config.CipherSuites, c.ID)
			}
		}
	}
	if o.Certificate != nil {
		config.Certificates = []tls.Certificate{*o.Certificate}
	}
	if o.Pin == "" {
		return config, nil
	}
	hash, ok := strings.CutPrefix(o.Pin, "sha256:")
	want, err := hex.DecodeString(strings.ReplaceAll(hash, ":", ""))
	if !ok || err != nil || len(want) != sha256.Size {
		return nil, fmt.Errorf("tls_pin %q is not sha256: and 64 hexadecimal digits", o.Pin)
	}
	// The pin takes the place of the chain and the name: it names one
	// certificate, which is stricter than both.
	config.InsecureSkipVerify = true //nolint:gosec // VerifyConnection verifies
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the server shows no certificate")
		}
		got := sha256.Sum256(cs.PeerCertificates[0].Raw)
		if !slices.Equal(got[:], want) {
			return fmt.Errorf("the server's certificate is sha256:%x, %w", got, errPin)
		}
		return nil
	}
	return config, nil
}

func withOp(f *mail.Fault, op string) *mail.Fault {
	f.Op = op
	return f
}
