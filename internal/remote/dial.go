package remote

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is made of it (RFC 2195)
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

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
	// "external"; "" takes the best that the server offers.
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
	if o.TLS == "none" && !o.AllowPlaintext {
		return nil, &mail.Fault{Kind: mail.KindPlaintext, Op: "sign-in"}
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindTLS, Op: "sign-in", Err: err}
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
	switch o.TLS {
	case "starttls":
		if err := startTLS(within, conn, o.Timeout); err != nil {
			return nil, errors.Join(err, ignore(conn.Close()))
		}
		// There is no greeting after the handshake, and imapclient wants one.
		greeting = "* OK TLS is up\r\n"
		fallthrough
	case "implicit":
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(within); err != nil {
			return nil, errors.Join(handshakeFault(within, err), ignore(conn.Close()))
		}
		conn = secure
	case "none":
	default:
		return nil, errors.Join(fmt.Errorf("no such kind of TLS: %q", o.TLS), ignore(conn.Close()))
	}
	w := newWire(conn, o.Timeout, o.Note)
	w.pending = []byte(greeting)
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

// startTLS speaks as far as the handshake (RFC 9051 6.2.1). Nothing that was
// said before it counts.
func startTLS(ctx context.Context, conn net.Conn, timeout time.Duration) error {
	fault := func(format string, args ...any) error {
		return &mail.Fault{Kind: mail.KindTLS, Op: "STARTTLS", Text: fmt.Sprintf(format, args...)}
	}
	w := newWire(conn, timeout, nil)
	ended := func(op string, err error) error {
		if ctx.Err() != nil {
			err = os.ErrDeadlineExceeded // it was us who closed the connection
		}
		return withOp(ioFault(err), op)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	line, err := w.readLine(maxText)
	if err != nil {
		return ended("greeting", err)
	}
	status, rest, _ := strings.Cut(strings.TrimPrefix(string(line), "* "), " ")
	switch strings.ToUpper(status) {
	case "OK":
	case "PREAUTH":
		return fault("the server signed us in before TLS; that may be somebody else's session")
	default:
		code, text := splitCode(rest)
		return withOp(refusal("BYE", strings.ToUpper(code), clip(text, 200)), "greeting")
	}
	if _, err := w.Write([]byte("s STARTTLS\r\n")); err != nil {
		return ended("STARTTLS", err)
	}
	for range 100 {
		line, err := w.readLine(maxText)
		if err != nil {
			return ended("STARTTLS", err)
		}
		tag, rest, _ := strings.Cut(string(line), " ")
		if tag != "s" {
			continue
		}
		if status, text, _ := strings.Cut(rest, " "); !strings.EqualFold(status, "OK") {
			return fault("the server refuses: %s", clip(text, 200))
		}
		// Bytes that are here already were sent without TLS and would be read
		// as if they had come through it (CVE-2011-0411 and its like).
		if w.br.Buffered() > 0 {
			return fault("the server, or somebody on the way, sent commands ahead of the handshake")
		}
		return nil
	}
	return fault("no answer among a hundred lines")
}

func withOp(f *mail.Fault, op string) *mail.Fault {
	f.Op = op
	return f
}

// signIn lets imapclient sign in, and takes the connection over.
func signIn(ctx context.Context, w *wire, o Options) (*Session, error) {
	client := imapclient.New(w, nil)
	fail := func(op string, err error) (*Session, error) {
		f := signInFault(w, op, err)
		_ = w.Close()
		_ = client.Close() // waits for its reader
		return nil, f
	}
	if err := client.WaitGreeting(); err != nil {
		return fail("greeting", err)
	}
	caps := client.Caps()
	if client.State() != imap.ConnStateAuthenticated {
		auth, err := mechanism(ctx, w, o, caps)
		if err != nil {
			return fail("sign-in", err)
		}
		if err := auth(client); err != nil {
			return fail("sign-in", err)
		}
		// Those from before sign-in do not count. The answer to it brings them;
		// else imapclient asks by itself, and this waits for the answer.
		caps = client.Caps()
		select {
		case <-client.Closed():
			return fail("sign-in", cmp.Or(client.Close(), io.ErrUnexpectedEOF))
		default:
		}
	}
	if err := w.endSignIn(); err != nil {
		return fail("sign-in", err)
	}
	s := &Session{client: client, user: o.User, caps: make(map[string]bool), names: cmp.Or(o.Names, &Names{})}
	s.reader = reader{wire: w, maxLiteral: o.MaxLiteral}
	for c := range caps {
		s.caps[strings.ToUpper(string(c))] = true
	}
	if s.caps["QRESYNC"] {
		s.caps["CONDSTORE"] = true // RFC 7162 3.2.3
	}
	for _, c := range o.Disable {
		delete(s.caps, strings.ToUpper(c))
		if strings.EqualFold(c, "CONDSTORE") {
			delete(s.caps, "QRESYNC")
		}
	}
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails (Go 1.24)
	// Not to be guessed: a mail that is cut short must not end a command by a
	// line in it.
	s.tags = "n" + hex.EncodeToString(random[:]) + "x"
	return s, nil
}

// signInFault says what went wrong while imapclient had the connection.
func signInFault(w *wire, op string, err error) *mail.Fault {
	if f, ok := errors.AsType[*mail.Fault](err); ok {
		if f.Op == "" {
			f.Op = op
		}
		return f
	}
	if e, ok := errors.AsType[*imap.Error](err); ok {
		f := refusal(string(e.Type), strings.ToUpper(w.redact(string(e.Code))), w.shown(e.Text, 300))
		// A server that is not well says so; the password is not at fault.
		if (f.Kind == mail.KindNo || f.Kind == mail.KindBad) && f.Code != "UNAVAILABLE" && f.Code != "SERVERBUG" {
			f.Kind = mail.KindAuth
		}
		f.Op = op
		return f
	}
	if words := w.lastWords(); words != "" {
		status, rest, _ := strings.Cut(words, " ")
		code, text := splitCode(rest)
		return withOp(refusal(strings.ToUpper(status), strings.ToUpper(code), clip(text, 300)), op)
	}
	// imapclient wraps with %v, so the wire is asked what it was.
	w.mu.Lock()
	cause := w.cause
	w.mu.Unlock()
	f := ioFault(cmp.Or(cause, err))
	if f.Err != nil {
		f.Err = errors.New(w.redact(f.Err.Error())) // without the words of imapclient around it
	}
	return withOp(f, op)
}

// mechanism chooses how to sign in, and gets the password for it.
func mechanism(ctx context.Context, w *wire, o Options, caps imap.CapSet) (func(*imapclient.Client) error, error) {
	offers := func(name string) bool { return caps.Has(imap.Cap("AUTH=" + strings.ToUpper(name))) }
	auth := strings.ToLower(o.Auth)
	plaintext := !caps.Has(imap.CapLoginDisabled)
	if auth == "" {
		switch {
		case o.TLS == "none" && offers("CRAM-MD5"):
			auth = "cram-md5"
		case offers("PLAIN"):
			auth = "plain"
		case plaintext:
			auth = "command"
		case offers("LOGIN"):
			auth = "login"
		case offers("CRAM-MD5"):
			auth = "cram-md5"
		default:
			return nil, &mail.Fault{Kind: mail.KindAuth, Text: "the server offers no way to sign in with a password"}
		}
	}
	switch {
	case auth == "login" && !offers("LOGIN") && plaintext:
		auth = "command" // the mechanism and the command are one to people
	case auth == "command" && !plaintext:
		return nil, &mail.Fault{Kind: mail.KindAuth, Text: "the server forbids the LOGIN command"}
	}
	switch {
	case auth == "login" && !offers("LOGIN") && plaintext:
		auth = "command" // the mechanism and the command are one to people
	case auth == "command" && !plaintext:
		return nil, &mail.Fault{Kind: mail.KindAuth, Text: "the server forbids the LOGIN command"}
	}
	if auth == "external" {
		return func(c *imapclient.Client) error { return c.Authenticate(sasl.NewExternalClient(o.User)) }, nil
	}
	if o.Password == nil {
		return nil, &mail.Fault{Kind: mail.KindSecret, Text: "no password is configured"}
	}
	password, err := o.Password(ctx)
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindSecret, Err: err}
	}
	w.hide(o.User, password)
	var client sasl.Client
	switch auth {
	case "command":
		return func(c *imapclient.Client) error { return c.Login(o.User, password).Wait() }, nil
	case "plain":
		client = sasl.NewPlainClient("", o.User, password)
	case "login":
		client = &login{o.User, password, !caps.Has(imap.CapSASLIR)}
	case "cram-md5":
		client = &cramMD5{o.User, password}
	case "oauthbearer":
		client = sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: o.User, Token: password, Host: o.Host, Port: o.Port})
	case "xoauth2":
		client = &xoauth2{o.User, password}
	default:
		return nil, &mail.Fault{Kind: mail.KindAuth, Text: fmt.Sprintf("no such way to sign in: %q", o.Auth)}
	}
	return func(c *imapclient.Client) error { return c.Authenticate(client) }, nil
}

// hide makes the secret, in each form in which it goes over the wire, one that
// is never shown.
func (w *wire) hide(user, password string) {
	if len(password) < 3 {
		return // replacing every "a" would hide nothing and spoil every text
	}
	b64 := base64.StdEncoding.EncodeToString
	quoted := strings.ReplaceAll(strings.ReplaceAll(password, `\`, `\\`), `"`, `\"`)
	// OAUTHBEARER holds host and port, too, so that its form is known up to the
	// token's place in it: each of the three alignments.
	secrets := []string{quoted, password, b64([]byte("\x00" + user + "\x00" + password)),
		b64([]byte("user=" + user + "\x01auth=Bearer " + password + "\x01\x01")), b64([]byte(password))}
	for skip := range 3 {
		// Only the digits that are the secret's alone.
		inner := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", skip) + password))
		from, to := []int{0, 2, 3}[skip], len(inner)
		if (skip+len(password))%3 != 0 {
			to--
		}
		if to-from >= 8 {
			secrets = append(secrets, inner[from:to])
		}
	}
	for _, secret := range slices.Clone(secrets) { // the words of answers are read in upper case
		secrets = append(secrets, strings.ToUpper(secret))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = secrets
}

// login is AUTH=LOGIN (draft-murchison-sasl-login). go-sasl's knows only
// servers that do not ask for the name.
type login struct {
	user, password string
	asked          bool // the name is sent where the server asks for nothing in particular
}

func (l *login) Start() (string, []byte, error) {
	if l.asked {
		return "LOGIN", []byte(l.user), nil
	}
	return "LOGIN", nil, nil
}

func (l *login) Next(challenge []byte) ([]byte, error) {
	if strings.HasPrefix(strings.ToLower(string(challenge)), "pass") {
		return []byte(l.password), nil
	}
	return []byte(l.user), nil
}

// cramMD5 is RFC 2195; go-sasl has it not.
type cramMD5 struct{ user, password string }

func (c *cramMD5) Start() (string, []byte, error) { return "CRAM-MD5", nil, nil }

func (c *cramMD5) Next(challenge []byte) ([]byte, error) {
	m := hmac.New(md5.New, []byte(c.password))
	_, _ = m.Write(challenge) // never fails (hash.Hash)
	return []byte(c.user + " " + hex.EncodeToString(m.Sum(nil))), nil
}

// xoauth2 is Google's and Microsoft's form of a bearer token.
type xoauth2 struct{ user, token string }

func (x *xoauth2) Start() (string, []byte, error) {
	return "XOAUTH2", []byte("user=" + x.user + "\x01auth=Bearer " + x.token + "\x01\x01"), nil
}

// Next answers the challenge that holds the reason of a refusal: with nothing,
// so that the server says NO.
func (x *xoauth2) Next([]byte) ([]byte, error) { return []byte{}, nil }
