package remote

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Options is how to reach one account.
type Options struct {
	Host string
	Port int
	// TLS is "implicit", "starttls" or "none". "none" needs AllowPlaintext.
	TLS            string
	AllowPlaintext bool
	RootCAs        *x509.CertPool // nil: the system's
	// Pin is "sha256:" and the hash of the server's certificate (DER) in
	// hexadecimal. That certificate is then required, and suffices.
	Pin  string
	User string
	// Auth is "plain", "login", "cram-md5", "oauthbearer", "xoauth2" or
	// "external"; "" takes the best that the server offers. SCRAM is not among
	// them: go-imap sends an empty answer as "=" (go-imap#760), and Dovecot
	// takes that for a wrong one.
	Auth string
	// Password is called once, after TLS is up. For oauthbearer and xoauth2 it
	// gives the token.
	Password func(context.Context) (string, error)
	// Timeout is the longest silence of the server; 0 means a minute.
	Timeout    time.Duration
	MaxLiteral int64    // largest message in bytes; 0 means 1 GiB
	Disable    []string // capabilities not to use although they are advertised
	Note       func(string)
	// Names is shared by the sessions of an account: one lists the mailboxes,
	// another selects them. Nil is one of its own.
	Names *Names
	// Record gets what is said, from the greeting to the good-bye, secrets
	// replaced and long lines cut, one line at a time. While Dial runs that is in
	// any goroutine, and it must not use the session. Nil for nobody.
	Record func(mail.Line)
	// DialContext replaces the net.Dialer's, for tests.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Dial connects and signs in. Errors are *mail.Fault, or the context's.
func Dial(ctx context.Context, o Options) (*Session, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.MaxLiteral <= 0 {
		o.MaxLiteral = 1 << 30
	}
	s, err := dial(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return s, nil
}

func dial(ctx context.Context, o Options) (*Session, error) {
	switch o.TLS {
	case "implicit", "starttls":
	case "none":
		if !o.AllowPlaintext {
			return nil, &mail.Fault{Kind: mail.KindPlaintext, Op: "sign-in"}
		}
	default:
		return nil, &mail.Fault{Kind: mail.KindTLS, Op: "dial", Err: fmt.Errorf("no such kind of TLS: %q", o.TLS)}
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindTLS, Op: "dial", Err: err}
	}
	dialer := o.DialContext
	if dialer == nil {
		dialer = (&net.Dialer{}).DialContext
	}
	within, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	conn, err := dialer(within, "tcp", net.JoinHostPort(o.Host, strconv.Itoa(o.Port)))
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindDial, Op: "dial", Err: err}
	}
	greeting := ""
	if o.TLS == "starttls" {
		if greeting, err = startTLS(within, conn, o); err != nil {
			return nil, errors.Join(err, ignore(conn.Close()))
		}
	}
	if o.TLS != "none" {
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(within); err != nil {
			return nil, errors.Join(handshakeFault(within, err), ignore(conn.Close()))
		}
		conn = secure
	}
	w := newWire(conn, o.Timeout, o.Note)
	w.log = newLog(o, w)
	if o.TLS == "starttls" {
		// There is no greeting after the handshake, and imapclient wants one.
		// Without capabilities: those from before TLS do not count.
		w.greeting, w.pending = greeting, []byte("* OK TLS is up\r\n")
	}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	s, err := signIn(ctx, w, o)
	if err != nil {
		return nil, errors.Join(err, ignore(w.Close()))
	}
	return s, nil
}

// handshakeFault tells a server that is silent from one that is not to be
// trusted.
func handshakeFault(ctx context.Context, err error) *mail.Fault {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return &mail.Fault{Kind: mail.KindSilent, Op: "TLS", Err: err}
	}
	return &mail.Fault{Kind: mail.KindTLS, Op: "TLS", Err: err}
}

// ignore drops the error of closing what has failed already.
func ignore(error) error { return nil }

func tlsConfig(o Options) (*tls.Config, error) {
	config := &tls.Config{ServerName: o.Host, RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
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
			return fmt.Errorf("the server's certificate is sha256:%x, not the pinned one", got)
		}
		return nil
	}
	return config, nil
}

// startTLS speaks as far as the handshake (RFC 9051 6.2.1) and gives the
// greeting's text. Nothing else that was said before it counts.
func startTLS(ctx context.Context, conn net.Conn, o Options) (greeting string, err error) {
	fault := func(format string, args ...any) error {
		return &mail.Fault{Kind: mail.KindTLS, Op: "STARTTLS", Text: fmt.Sprintf(format, args...)}
	}
	w := newWire(conn, o.Timeout, nil)
	w.log = newLog(o, w)
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	ended := func(op string, err error) error {
		if ctx.Err() != nil {
			err = os.ErrDeadlineExceeded // it was us who closed the connection
		}
		return withOp(ioFault(err), op)
	}
	line, err := w.readLine(maxText)
	if err != nil {
		return "", ended("greeting", err)
	}
	w.trace(false, string(line))
	status, rest, _ := strings.Cut(strings.TrimPrefix(string(line), "* "), " ")
	code, text := splitCode(rest)
	switch strings.ToUpper(status) {
	case "OK":
	case "PREAUTH":
		return "", fault("the server signed us in before TLS; that may be somebody else's session")
	case "BYE":
		return "", withOp(refusal("BYE", clip(strings.ToUpper(code), 200), clip(text, 300)), "greeting")
	default:
		return "", &mail.Fault{Kind: mail.KindMalformed, Op: "greeting", Text: clip(string(line), 200)}
	}
	greeting = clip(text, 300)
	if _, err := w.Write([]byte("s STARTTLS\r\n")); err != nil {
		return "", ended("STARTTLS", err)
	}
	for range 100 {
		line, err := w.readLine(maxText)
		if err != nil {
			return "", ended("STARTTLS", err)
		}
		w.trace(false, string(line))
		tag, rest, _ := strings.Cut(string(line), " ")
		if tag != "s" {
			continue
		}
		if status, text, _ := strings.Cut(rest, " "); !strings.EqualFold(status, "OK") {
			return "", fault("the server refuses: %s", clip(text, 200))
		}
		// Bytes that are here already were sent without TLS and would be read
		// as if they had come through it (CVE-2011-0411 and its like).
		if w.br.Buffered() > 0 {
			return "", fault("the server, or somebody on the way, sent commands ahead of the handshake")
		}
		return greeting, nil
	}
	return "", fault("no answer among a hundred lines")
}

func withOp(f *mail.Fault, op string) *mail.Fault {
	f.Op = op
	return f
}

// signIn lets imapclient sign in, and takes the connection over.
func signIn(ctx context.Context, w *wire, o Options) (*Session, error) {
	client := imapclient.New(w, nil)
	fail := func(op string, err error) (*Session, error) {
		_ = w.Close()      // what went wrong is told already
		_ = client.Close() // waits for its reader
		return nil, signInFault(w, op, err)
	}
	if err := client.WaitGreeting(); err != nil {
		return fail("greeting", err)
	}
	caps := client.Caps() // from the greeting, or asked for
	if caps == nil {
		return fail("CAPABILITY", errors.New("the server does not say what it can do"))
	}
	if client.State() != imap.ConnStateAuthenticated {
		auth, err := mechanism(ctx, w, o, caps)
		if err != nil {
			return fail("sign-in", err)
		}
		if err := auth(client); err != nil {
			return fail("sign-in", err)
		}
	}
	if err := w.endSignIn(); err != nil {
		return fail("sign-in", err)
	}
	s := &Session{client: client, caps: make(map[string]bool), names: cmp.Or(o.Names, &Names{}), exists: unknownExists, unheard: maxUnheard}
	s.reader = reader{wire: w, maxLiteral: o.MaxLiteral, next: -1}
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails (Go 1.24)
	// Not to be guessed: a mail that is cut short must not end a command by a
	// line in it.
	s.tags = "n" + hex.EncodeToString(random[:]) + "x"
	s.tag = s.tags
	w.record = w.log
	// Those from before the sign-in do not count any more. Most servers tell
	// the new ones with their OK.
	if w.caps == nil {
		if err := s.capability(ctx); err != nil {
			return nil, errors.Join(err, ignore(s.Close()))
		}
	}
	s.learnCaps(w.caps, o.Disable)
	return s, nil
}

// capability asks what the server can do.
func (s *Session) capability(ctx context.Context) error {
	a, err := s.command(ctx, "CAPABILITY", handler{data: func(word string) (bool, error) {
		if word != "CAPABILITY" {
			return false, nil
		}
		line, err := s.dataLine()
		s.wire.caps = atoms(line)
		return true, err
	}})
	if err != nil {
		return err
	}
	return s.refused(a, "CAPABILITY")
}

func (s *Session) learnCaps(caps, disable []string) {
	for _, c := range caps {
		s.caps[strings.ToUpper(c)] = true
	}
	if s.caps["QRESYNC"] {
		s.caps["CONDSTORE"] = true // RFC 7162 3.2.3
	}
	for _, c := range disable {
		s.disable(c)
	}
}

// disable leaves a capability unused, and with CONDSTORE what builds on it.
func (s *Session) disable(capability string) {
	delete(s.caps, strings.ToUpper(capability))
	if strings.EqualFold(capability, "CONDSTORE") {
		delete(s.caps, "QRESYNC")
	}
}

// signInFault says what went wrong while imapclient had the connection. It wraps
// with %v, so what ended it is asked of the wire.
func signInFault(w *wire, op string, err error) *mail.Fault {
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		if f.Op == "" {
			f.Op = op
		}
		return f
	}
	w.mu.Lock()
	said, cause := w.said, w.cause
	w.mu.Unlock()
	status, rest, _ := strings.Cut(said, " ")
	code, text := splitCode(rest)
	code, _, _ = strings.Cut(strings.ToUpper(code), " ")
	if _, ok := errors.AsType[*imap.Error](err); ok {
		f := refusal(status, code, text)
		// A server that is not well, or has too many guests, says so; the
		// password is not at fault (RFC 5530).
		switch {
		case f.Kind != mail.KindNo && f.Kind != mail.KindBad:
		case code == "LIMIT" || code == "INUSE":
			f.Kind = mail.KindThrottled
		case code != "UNAVAILABLE" && code != "SERVERBUG":
			f.Kind = mail.KindAuth
		}
		return withOp(f, op)
	}
	if said != "" {
		return withOp(refusal(status, code, text), op)
	}
	if cause == nil || errors.Is(cause, net.ErrClosed) {
		// The server spoke, and imapclient made nothing of it.
		return &mail.Fault{Kind: mail.KindMalformed, Op: op, Err: errors.New(w.redact(err.Error()))}
	}
	return withOp(ioFault(cause), op)
}
