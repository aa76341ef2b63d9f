package remote

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is made of it (RFC 2195)
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// mechanism is the client's side of one SASL mechanism (RFC 4422 5).
type mechanism interface {
	// first gives the initial response; ok is false where the server speaks
	// first.
	first() (response []byte, ok bool)
	next(challenge []byte) (response []byte, err error)
	// proved tells whether the password, the token or a proof of it was sent.
	proved() bool
	// done is asked when the server says OK.
	done() error
}

// way is a mechanism that can be tried.
type way struct {
	name   string // as in the capabilities; commandLogin is the command
	secret string // "" for EXTERNAL
	begin  func() (mechanism, error)
}

const commandLogin = "LOGIN command"

// ways gives the mechanisms to try, strongest first, and gets the secret for
// them. There is one at least.
func (s *Session) ways(ctx context.Context, o Options) ([]way, error) {
	names, err := s.choose(o)
	if err != nil {
		return nil, err
	}
	var secret string
	if names[0] != "EXTERNAL" {
		if secret, err = o.secret(ctx, isBearer(names[0])); err != nil {
			return nil, err
		}
		s.hide(forms(o.User, secret)...)
	}
	out := make([]way, len(names))
	for i, name := range names {
		out[i] = way{name, secret, func() (mechanism, error) { return s.mechanism(name, o, secret) }}
	}
	return out, nil
}

// secret gets the password, or the token if there is a source of tokens.
func (o Options) secret(ctx context.Context, token bool) (string, error) {
	from := o.Password
	if token && o.Token != nil {
		from = func(ctx context.Context) (string, error) { return o.Token(ctx, o.renew) }
	}
	if from == nil {
		return "", &mail.Fault{Kind: mail.KindSecret, Op: "sign-in", Text: "no password is configured"}
	}
	secret, err := from(ctx)
	if err != nil {
		return "", &mail.Fault{Kind: mail.KindSecret, Op: "sign-in", Err: err}
	}
	return secret, nil
}

func isBearer(name string) bool { return name == "OAUTHBEARER" || name == "XOAUTH2" }

// choose gives the names of the mechanisms to try, strongest first: the one that
// the configuration names, or what the server offers of them.
func (s *Session) choose(o Options) ([]string, error) {
	offers := func(name string) bool { return s.caps["AUTH="+name] }
	command := !s.caps["LOGINDISABLED"]
	if o.Auth != "" {
		name := strings.ToUpper(o.Auth)
		if name == "LOGIN" && !offers(name) && command {
			name = commandLogin // the mechanism and the command are one to people
		}
		return []string{name}, nil
	}
	var names []string
	take := func(list ...string) {
		for _, name := range list {
			if offers(name) && (!strings.HasSuffix(name, "-PLUS") || s.binding() != nil) {
				names = append(names, name)
			}
		}
	}
	if o.Certificate != nil {
		take("EXTERNAL")
	}
	switch {
	case len(names) > 0:
	case o.Certificate != nil && o.Password == nil && o.Token == nil:
		return nil, &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Text: s.noWay(o),
			Do: fmt.Sprintf("the server does not offer EXTERNAL, by which tls_cert signs in; it offers %s: for a password set password_command, password_file or keyring", strings.Join(s.offered(), ", "))}
	case o.Token != nil:
		take("OAUTHBEARER", "XOAUTH2")
	default:
		take("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1")
		// Within TLS the password needs no protection of its own, and a server
		// that keeps hashes has no CRAM-MD5, whatever it offers.
		if o.TLS == "none" {
			take("CRAM-MD5")
		}
		take("PLAIN")
		if command {
			names = append(names, commandLogin)
		}
		take("LOGIN")
		if o.TLS != "none" {
			take("CRAM-MD5")
		}
	}
	if len(names) > 0 {
		return names, nil
	}
	return nil, &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Text: s.noWay(o), Do: s.adviseNoWay(o)}
}

// noWay says why there is no way to sign in.
func (s *Session) noWay(o Options) string {
	what := "a password"
	switch {
	case o.Token != nil:
		what = "a token"
	case o.Password == nil:
		what = "a certificate"
	}
	text := "the server offers no way to sign in with " + what
	if list := s.offered(); len(list) > 0 {
		text += "; it offers " + strings.Join(list, ", ")
	}
	return text
}

// mechanism makes a mechanism ready.
func (s *Session) mechanism(name string, o Options, secret string) (mechanism, error) {
	switch name {
	case commandLogin:
		if s.caps["LOGINDISABLED"] {
			return nil, errors.New("the server forbids the LOGIN command")
		}
		return &loginCommand{pieces: loginPieces(o.User, secret)}, nil
	case "EXTERNAL":
		return &atOnce{response: o.User}, nil
	case "PLAIN":
		return &atOnce{response: "\x00" + o.User + "\x00" + secret}, nil
	case "LOGIN":
		return &login{user: o.User, password: secret}, nil
	case "CRAM-MD5":
		return &cramMD5{user: o.User, password: secret}, nil
	case "OAUTHBEARER": // RFC 7628 3.1
		return &bearer{response: "n,a=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(o.User) + ",\x01host=" + o.Host +
			"\x01port=" + strconv.Itoa(o.Port) + "\x01auth=Bearer " + secret + "\x01\x01", refused: "\x01"}, nil
	case "XOAUTH2":
		return &bearer{response: "user=" + o.User + "\x01auth=Bearer " + secret + "\x01\x01"}, nil
	case "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS":
		return s.scram(name, o.User, secret)
	}
	return nil, fmt.Errorf("no such way to sign in: %q", o.Auth)
}

// forms gives the forms in which a password goes over the wire.
func forms(user, password string) []string {
	b64 := base64.StdEncoding.EncodeToString
	out := []string{password, quotedString(password), b64([]byte("\x00" + user + "\x00" + password)),
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

// quotedString gives what stands between the quotes of a quoted string.
func quotedString(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`)
}

// atOnce is a mechanism of one response: PLAIN (RFC 4616), EXTERNAL (RFC 4422 A).
type atOnce struct {
	response string
}

func (p *atOnce) first() ([]byte, bool) { return []byte(p.response), true }

func (p *atOnce) next([]byte) ([]byte, error) {
	return nil, errors.New("the server asks for more than there is to say")
}

func (p *atOnce) proved() bool { return true }

func (p *atOnce) done() error { return nil }

// loginCommand is the LOGIN command (RFC 9051 6.2.3), in the pieces between which
// the server is to say that it wants a literal.
type loginCommand struct {
	pieces []string
	at     int
}

// loginPieces gives the command with its arguments as quoted strings, or as
// literals where they do not fit into those (RFC 3501 9: seven bits).
func loginPieces(args ...string) []string {
	pieces := []string{"LOGIN"}
	for _, arg := range args {
		last := &pieces[len(pieces)-1]
		if !strings.ContainsFunc(arg, func(r rune) bool { return r > '~' || r < ' ' }) {
			*last += ` "` + quotedString(arg) + `"`
			continue
		}
		*last += fmt.Sprintf(" {%d}", len(arg))
		pieces = append(pieces, arg)
	}
	return pieces
}

func (l *loginCommand) line() string { return l.pieces[0] }

// goOn gives the next piece.
func (l *loginCommand) goOn() ([]byte, error) {
	if l.at++; l.at >= len(l.pieces) {
		return nil, errors.New("the server asks for more than there is to say")
	}
	return []byte(l.pieces[l.at] + "\r\n"), nil
}

func (l *loginCommand) first() ([]byte, bool)       { return nil, false }
func (l *loginCommand) next([]byte) ([]byte, error) { return l.goOn() }
func (l *loginCommand) proved() bool                { return l.at == len(l.pieces)-1 }
func (l *loginCommand) done() error                 { return nil }

// login is AUTH=LOGIN (draft-murchison-sasl-login).
type login struct {
	user, password string
	turn           int
}

func (l *login) first() ([]byte, bool) { return nil, false }

// next gives the name and then the password; servers ask for them in many words,
// or in none.
func (l *login) next(challenge []byte) ([]byte, error) {
	if l.turn++; l.turn == 2 || strings.HasPrefix(strings.ToLower(string(challenge)), "pass") {
		l.turn = 2
		return []byte(l.password), nil
	}
	if l.turn > 2 {
		return nil, errors.New("the server asks for more than there is to say")
	}
	return []byte(l.user), nil
}

func (l *login) proved() bool { return l.turn >= 2 }

func (l *login) done() error { return nil }

// cramMD5 is RFC 2195.
type cramMD5 struct {
	user, password string
	answered       bool
}

func (c *cramMD5) first() ([]byte, bool) { return nil, false }

func (c *cramMD5) next(challenge []byte) ([]byte, error) {
	if c.answered {
		return nil, errors.New("the server asks for more than there is to say")
	}
	c.answered = true
	m := hmac.New(md5.New, []byte(c.password))
	_, _ = m.Write(challenge) // never fails (hash.Hash)
	return []byte(c.user + " " + hex.EncodeToString(m.Sum(nil))), nil
}

func (c *cramMD5) proved() bool { return c.answered }

func (c *cramMD5) done() error { return nil }

// bearer is a bearer token: OAUTHBEARER (RFC 7628), or XOAUTH2 of Google and
// Microsoft.
type bearer struct {
	response string
	refused  string // answers the challenge that holds the reason of a refusal
	reason   string // that reason
}

func (b *bearer) first() ([]byte, bool) { return []byte(b.response), true }

// next takes the reason of a refusal, so that the server says NO.
func (b *bearer) next(challenge []byte) ([]byte, error) {
	if b.reason != "" {
		return nil, errors.New("the server asks for more than there is to say")
	}
	var told struct {
		Status json.RawMessage `json:"status"` // a string or, rarely, a number
		Scope  string          `json:"scope"`
	}
	b.reason = "the server's reason is " + mail.Quoted(string(challenge[:min(len(challenge), 200)]))
	if json.Unmarshal(challenge, &told) == nil {
		b.reason = "status " + cmp.Or(strings.Trim(string(told.Status), `"`), "none")
		if told.Scope != "" {
			b.reason += ", scope " + told.Scope
		}
	}
	return []byte(b.refused), nil
}

func (b *bearer) proved() bool { return true }

func (b *bearer) done() error { return nil }

// maxIterations bounds the work that a server can ask for: a second or two.
const maxIterations = 2_000_000

// scramming is SCRAM (RFC 5802, RFC 7677).
type scramming struct {
	conv *scram.ClientConversation
	turn int
	said string // the first message
}

// binding is the connection's channel binding (RFC 9266), nil if it has none.
func (s *Session) binding() *scram.ChannelBinding {
	secure, ok := s.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := secure.ConnectionState()
	// Before TLS 1.3 it is tls-unique (RFC 5929), which crypto/tls does not give.
	if state.Version < tls.VersionTLS13 {
		return nil
	}
	b, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		return nil // then there is none
	}
	return &b
}

func (s *Session) scram(name, user, password string) (mechanism, error) {
	hash := scram.SHA256
	if strings.HasPrefix(name, "SCRAM-SHA-1-") || name == "SCRAM-SHA-1" {
		hash = scram.SHA1
	}
	client, err := hash.NewClient(user, password, "")
	if err != nil {
		return nil, err
	}
	bind := s.binding()
	bare, plus := strings.CutSuffix(name, "-PLUS")
	var conv *scram.ClientConversation
	switch {
	case plus && bind == nil:
		return nil, errors.New("there is no channel binding without TLS 1.3")
	case plus:
		conv = client.NewConversationWithChannelBinding(*bind)
	case bind != nil && !s.caps["AUTH="+bare+"-PLUS"]:
		// A server that does offer -PLUS sees that somebody has taken it out.
		conv = client.NewConversationAdvertisingChannelBinding()
	default:
		conv = client.NewConversation()
	}
	m := &scramming{conv: conv}
	m.said, err = conv.Step("")
	return m, err
}

func (m *scramming) first() ([]byte, bool) { return []byte(m.said), true }

func (m *scramming) next(challenge []byte) ([]byte, error) {
	m.turn++
	if n := regexp.MustCompile(`,i=([0-9]+)`).FindSubmatch(challenge); m.turn == 1 && n != nil {
		if i, err := strconv.Atoi(string(n[1])); err != nil || i > maxIterations {
			return nil, fmt.Errorf("the server asks for %.20s rounds of hashing", n[1])
		}
	}
	said, err := m.conv.Step(string(challenge))
	return []byte(said), err
}

func (m *scramming) proved() bool { return m.turn > 0 }

// done makes sure that the server has proved that it knows the password.
func (m *scramming) done() error {
	if !m.conv.Valid() {
		return errors.New("the server says OK without a proof that it knows the password; somebody may stand in for it")
	}
	return nil
}
