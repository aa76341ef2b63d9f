package remote

import (
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is made of it (RFC 2195)
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

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
	if auth == "external" {
		return func(c *imapclient.Client) error { return c.Authenticate(sasl.NewExternalClient(o.User)) }, nil
	}
	if o.Password == nil {
		return nil, &mail.Fault{Kind: mail.KindSecret, Text: "no password is configured"}
	}
	password, err := w.waitFor(func() (string, error) { return o.Password(ctx) })
	if err != nil {
		return nil, &mail.Fault{Kind: mail.KindSecret, Err: err}
	}
	w.hide(forms(o.User, password)...)
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
	return func(c *imapclient.Client) error { return c.Authenticate(hiding{client, w}) }, nil
}

// forms gives the forms in which a password goes over the wire.
func forms(user, password string) []string {
	b64 := base64.StdEncoding.EncodeToString
	quoted := strings.ReplaceAll(strings.ReplaceAll(password, `\`, `\\`), `"`, `\"`)
	out := []string{password, quoted, b64([]byte("\x00" + user + "\x00" + password)),
		b64([]byte("user=" + user + "\x01auth=Bearer " + password + "\x01\x01")), b64([]byte(password))}
	// OAUTHBEARER holds host and port, too, and a server may echo any part of
	// it: each of the three alignments.
	for skip := range 3 {
		// Only the digits that are the secret's alone.
		inner := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", skip) + password))
		from, to := []int{0, 2, 3}[skip], len(inner)
		if (skip+len(password))%3 != 0 {
			to--
		}
		if to-from >= 8 {
			out = append(out, inner[from:to])
		}
	}
	return out
}

// hiding makes a secret of all that a mechanism sends.
type hiding struct {
	sasl.Client
	w *wire
}

func (h hiding) Start() (string, []byte, error) {
	mech, ir, err := h.Client.Start()
	h.hide(ir)
	return mech, ir, err
}

func (h hiding) Next(challenge []byte) ([]byte, error) {
	response, err := h.Client.Next(challenge)
	h.hide(response)
	return response, err
}

func (h hiding) hide(b []byte) {
	h.w.hide(string(b), base64.StdEncoding.EncodeToString(b), base64.RawStdEncoding.EncodeToString(b))
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
