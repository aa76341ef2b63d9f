package remote

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// maxSignInNoise is how many untagged responses there may be during one command
// of a sign-in.
const maxSignInNoise = 1000

// newSession makes a session of a connection on which nothing was said.
func newSession(conn net.Conn, o Options) *Session {
	s := &Session{names: cmp.Or(o.Names, &Names{}), exists: unknownExists, unheard: maxUnheard}
	s.reader = reader{wire: newWire(conn, o), next: -1}
	var random [3]byte
	_, _ = rand.Read(random[:]) // never fails (Go 1.24)
	// Not to be guessed: a mail that is cut short must not end a command by a
	// line in it.
	s.tags = "n" + hex.EncodeToString(random[:]) + "x"
	s.tag = s.tags
	return s
}

// signIn takes a connection from the greeting to the authenticated state.
func (s *Session) signIn(ctx context.Context, o Options, config *tls.Config) error {
	s.maxLine, s.maxLiteral, s.maxNoise = maxText, maxText, maxSignInNoise
	preauth, err := s.greet()
	if err != nil {
		return err
	}
	if preauth && o.TLS != "starttls" && len(o.Tunnel) > 0 {
		return s.signedIn(ctx, o)
	}
	if preauth && o.TLS == "starttls" {
		return &mail.Fault{Kind: mail.KindTLS, Op: "greeting", Text: "the server signed us in before TLS; that may be somebody else's session"}
	}
	if preauth {
		return &mail.Fault{Kind: mail.KindAuth, Op: "greeting",
			Text: "the server says that somebody is signed in already (PREAUTH); that may be somebody else"}
	}
	if o.TLS == "starttls" {
		if err := s.startTLS(ctx, config); err != nil {
			return err
		}
	}
	if err := s.capabilities(ctx, o); err != nil {
		return err
	}
	// Those from before the sign-in do not count any more. Most servers tell the
	// new ones with their OK.
	if err := s.authenticate(ctx, o); err != nil {
		return err
	}
	return s.signedIn(ctx, o)
}

// signedIn begins the authenticated state.
func (s *Session) signedIn(ctx context.Context, o Options) error {
	if err := s.capabilities(ctx, o); err != nil {
		return err
	}
	if isLocal(o, s.conn) && !o.Compress {
		s.disable(deflate)
	}
	s.recallRefusals()
	s.maxLine, s.maxLiteral, s.maxNoise = maxData, o.MaxLiteral, maxNoise
	s.identify(o.Version)
	return nil
}

// identify says who we are (RFC 2971): NetEase refuses SELECT to who does not. The
// answer is not waited for, and nothing hangs on it.
func (s *Session) identify(version string) {
	if !s.Has("ID") {
		return
	}
	line := `ID ("name" "notmuch-imap"`
	if version != "" {
		line += ` "version" "` + quotedString(version) + `"`
	}
	text, _ := s.tagging([]string{line + ")"})
	s.unread, _, _ = strings.Cut(text, " ")
	_, _ = s.Write([]byte(text)) // the next command meets the same error
}

// greet reads the greeting (RFC 9051 7.1.5).
func (s *Session) greet() (preauth bool, err error) {
	s.beginCommand()
	line, err := s.text()
	if err != nil {
		if f, ok := errors.AsType[*mail.Fault](err); ok {
			f.Op = "greeting"
		}
		return false, err
	}
	star, rest, _ := strings.Cut(line, " ")
	word, rest, _ := strings.Cut(rest, " ")
	code, text := splitCode(rest)
	s.tell(code)
	s.alerted(code, text)
	s.greeting = clip(text, 300)
	if star != "*" {
		word = ""
	}
	switch strings.ToUpper(word) {
	case "OK":
		return false, nil
	case "PREAUTH":
		return true, nil
	case "BYE":
		return false, withOp(refusal("BYE", clip(strings.ToUpper(code), 200), s.greeting), "greeting")
	}
	return false, &mail.Fault{Kind: mail.KindMalformed, Op: "greeting", Text: clip(line, 200)}
}

// tell notes the capabilities of a response code.
func (s *Session) tell(code string) {
	if name, list, _ := strings.Cut(code, " "); strings.EqualFold(name, "CAPABILITY") {
		s.told = atoms(list)
	}
}

// telling is the handler of commands whose answer may tell capabilities.
func (s *Session) telling() handler {
	return handler{
		data: func(word string) (bool, error) {
			if word != "CAPABILITY" {
				return false, nil
			}
			line, err := s.dataLine()
			s.told = atoms(line)
			return true, err
		},
		status: func(_, code, _ string) { s.tell(code) },
	}
}

// startTLS goes over to TLS (RFC 9051 6.2.1). Nothing that was said before it
// counts.
func (s *Session) startTLS(ctx context.Context, config *tls.Config) error {
	fault := func(text string) error { return &mail.Fault{Kind: mail.KindTLS, Op: "STARTTLS", Text: text} }
	a, err := s.command(ctx, "STARTTLS", handler{})
	if err != nil {
		return err
	}
	if a.status != "OK" {
		return fault("the server refuses: " + clip(a.text, 200))
	}
	// Bytes that are here already were sent without TLS and would be read as if
	// they had come through it (CVE-2011-0411 and its like).
	if s.br.Buffered() > 0 {
		return fault("the server, or somebody on the way, sent commands ahead of the handshake")
	}
	within, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	secure := tls.Client(s.conn, config)
	if err := secure.HandshakeContext(within); err != nil {
		return handshakeFault(within, err)
	}
	s.conn, s.told = secure, nil
	return nil
}

// capabilities learns what the server can do, and asks if it was not told.
func (s *Session) capabilities(ctx context.Context, o Options) error {
	if s.told == nil {
		a, err := s.command(ctx, "CAPABILITY", s.telling())
		if err == nil {
			err = s.refused(a, "CAPABILITY")
		}
		if err != nil {
			return err
		}
	}
	if s.told == nil {
		return &mail.Fault{Kind: mail.KindMalformed, Op: "CAPABILITY", Text: "the server does not say what it can do"}
	}
	s.caps = make(map[string]bool)
	for _, c := range s.told {
		s.caps[strings.ToUpper(c)] = true
	}
	// A server of IMAP4rev2 alone has in it what were extensions before, and names
	// in UTF-8 (RFC 9051 E, 5.1).
	if s.utf8 = s.caps["IMAP4REV2"] && !s.caps["IMAP4REV1"]; s.utf8 {
		for _, c := range strings.Fields("NAMESPACE UNSELECT UIDPLUS ESEARCH SEARCHRES ENABLE IDLE SASL-IR LIST-EXTENDED LIST-STATUS MOVE LITERAL- STATUS=SIZE SPECIAL-USE") {
			s.caps[c] = true
		}
	}
	if s.caps["QRESYNC"] {
		s.caps["CONDSTORE"] = true // RFC 7162 3.2.3
	}
	for _, c := range o.Disable {
		s.disable(c)
	}
	s.told = nil
	return nil
}

// disable leaves a capability unused, and with CONDSTORE what builds on it.
func (s *Session) disable(capability string) {
	delete(s.caps, strings.ToUpper(capability))
	if strings.EqualFold(capability, "CONDSTORE") {
		delete(s.caps, "QRESYNC")
	}
}

// authenticate signs in: by the strongest mechanism that both sides have, and by
// the next one where it is the mechanism that the server refuses.
func (s *Session) authenticate(ctx context.Context, o Options) error {
	ways, err := s.ways(ctx, o)
	if err != nil {
		return err
	}
	for i, w := range ways {
		m, err := w.begin()
		if err != nil && i < len(ways)-1 {
			s.note(fmt.Sprintf("%s cannot be used (%v); trying %s", w.name, err, ways[i+1].name))
			continue
		}
		if err != nil {
			return &mail.Fault{Kind: mail.KindAuth, Op: "sign-in", Text: w.name + ": " + s.redact(err.Error())}
		}
		a, err := s.attempt(ctx, w.name, m)
		if err != nil {
			if f, ok := errors.AsType[*mail.Fault](err); ok {
				f.Op = "sign-in"
			}
			return err
		}
		if a.status == "OK" {
			s.tell(a.code)
			return nil
		}
		f := s.signInFault(a, m)
		if f.Kind == mail.KindAuth {
			f.Do = s.adviseRefused(o, w.name, w.secret)
		}
		if i == len(ways)-1 || s.dead || !refusesMechanism(f, a, m) {
			return f
		}
		s.note(fmt.Sprintf("the server refuses to sign in by %s (%s); trying %s", w.name, cmp.Or(a.text, a.status), ways[i+1].name))
	}
	return nil // there is one way at least
}

// attempt speaks one mechanism to its end. A tagged NO or BAD is no error.
func (s *Session) attempt(ctx context.Context, name string, m mechanism) (answer, error) {
	h := s.telling()
	s.told = nil
	line := "AUTHENTICATE " + name
	first, speaksFirst := m.first()
	if l, ok := m.(*loginCommand); ok {
		line = l.line()
	}
	if speaksFirst {
		s.conceal(first)
		if s.Has("SASL-IR") {
			line += " " + cmp.Or(base64.StdEncoding.EncodeToString(first), "=") // RFC 4959 3
		}
	}
	turns := 0 // each mechanism bounds its own
	var failed error
	h.challenge = func(text string) error {
		if failed != nil {
			return &mail.Fault{Kind: mail.KindAuth} // it does not let itself be ended
		}
		turns++
		response, err := s.respond(m, first, speaksFirst && turns == 1, text)
		if err != nil {
			failed = err
			response = []byte("*\r\n") // RFC 9051 6.2.2
		}
		if s.record != nil {
			s.record.add(true, "[...]")
		}
		_, err = s.Write(response)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ioFault(err)
		}
		return nil // after any other error there may be a BYE to read, which says why
	}
	a, err := s.command(ctx, line, h)
	if err == nil && failed == nil && a.status == "OK" {
		failed = m.done()
	}
	if failed != nil && (err == nil || ctx.Err() == nil) {
		s.kill()
		return a, &mail.Fault{Kind: mail.KindAuth, Text: name + ": " + s.redact(failed.Error())}
	}
	return a, err
}

// respond gives the line that answers a challenge.
func (s *Session) respond(m mechanism, first []byte, begins bool, text string) ([]byte, error) {
	if l, ok := m.(*loginCommand); ok {
		return l.goOn()
	}
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "="))
	// The first turn is the server's leave to begin, whatever it says: some
	// write words there. If the response went with the command, an empty
	// challenge says that the server has not taken notice (Coremail).
	if begins && (!s.Has("SASL-IR") || len(challenge) == 0) {
		return line(first), nil
	}
	if err != nil {
		return nil, errors.New("the server's challenge is not in base64")
	}
	response, err := m.next(challenge)
	if err != nil {
		return nil, err
	}
	s.conceal(response)
	return line(response), nil
}

func line(response []byte) []byte {
	return []byte(base64.StdEncoding.EncodeToString(response) + "\r\n")
}

// conceal makes a secret of what a mechanism sends.
func (s *Session) conceal(b []byte) {
	s.hide(string(b), base64.StdEncoding.EncodeToString(b), base64.RawStdEncoding.EncodeToString(b))
}

// challenged takes a continuation request during a sign-in.
func (s *Session) challenged(h handler) error {
	record := s.record
	s.record = nil
	text, err := s.text()
	if s.record = record; record != nil {
		record.add(false, "+ [...]")
	}
	if err != nil {
		return err
	}
	return h.challenge(strings.TrimSpace(strings.TrimPrefix(text, "+")))
}

// unsaid gives a command as it may be shown: of one that signs in, its name.
func unsaid(line string) string {
	words := strings.Fields(line)
	switch {
	case len(words) > 1 && strings.EqualFold(words[0], "LOGIN"):
		return words[0] + " [...]"
	case len(words) > 1 && strings.EqualFold(words[0], "AUTHENTICATE"):
		return words[0] + " " + words[1] + " [...]"
	}
	return line
}

// signInFault gives the fault of a refused sign-in.
func (s *Session) signInFault(a answer, m mechanism) *mail.Fault {
	f := refusal(a.status, a.code, strings.TrimPrefix(strings.Join(append([]string{a.text}, s.aside...), "; "), "; "))
	f.Op = "sign-in"
	// A server that is not well, or has too many guests, says so; the password
	// is not at fault (RFC 5530).
	switch {
	case f.Kind != mail.KindNo && f.Kind != mail.KindBad:
		return f
	case f.Code == "LIMIT" || f.Code == "INUSE":
		f.Kind = mail.KindCrowded
		return f
	case f.Code == "UNAVAILABLE" || f.Code == "SERVERBUG":
		return f
	}
	f.Kind = mail.KindAuth
	if b, ok := m.(*bearer); ok && b.reason != "" {
		f.Text = strings.TrimPrefix(f.Text+" ("+s.shown(b.reason, 400)+")", " ")
	}
	return f
}

// refusesMechanism tells whether it is the mechanism that was refused, and not
// the password: that is not tried in other ways, since servers count.
func refusesMechanism(f *mail.Fault, a answer, m mechanism) bool {
	if f.Kind != mail.KindAuth {
		return false
	}
	lower := strings.ToLower(a.text)
	return a.status == "BAD" || f.Code == "CANNOT" || !m.proved() || strings.Contains(lower, "mechanism") ||
		strings.Contains(lower, "unsupported") || strings.Contains(lower, "not supported")
}

// offered are the SASL mechanisms that the server offers, sorted.
func (s *Session) offered() []string {
	var out []string
	for c := range s.caps {
		if name, ok := strings.CutPrefix(c, "AUTH="); ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
