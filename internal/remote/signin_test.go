package remote

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is made of it
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

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
					_, err = s.List(t.Context(), mail.Listing{})
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
		"{tag} NO [LIMIT] Not so many at once\r\n":                            mail.KindCrowded,
		"{tag} NO Maximum number of connections from user+IP exceeded\r\n":    mail.KindCrowded,
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
