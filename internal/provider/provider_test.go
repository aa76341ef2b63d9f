package provider

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheTableIsInOrder(t *testing.T) {
	t.Parallel()
	domains, exchangers := map[string]string{}, map[string]string{}
	once := func(seen map[string]string, name, host string) {
		if before, twice := seen[name]; twice {
			t.Errorf("%s stands twice: %s and %s", name, before, host)
		}
		seen[name] = host
		if a, err := ParseAddress("me@" + name); err != nil || a.Domain != name {
			t.Errorf("%s is no domain", name)
		}
	}
	for _, r := range table() {
		s := r.server("x")
		if host, ok := hostName(s.Host); !ok || host != s.Host || s.Preset.Name == "" || len(r.domains)+len(r.exchangers) == 0 {
			t.Errorf("not whole: %+v", r)
		}
		if s.TLS == "implicit" != (s.Port == 993) {
			t.Errorf("%s: %s at port %d", s.Host, s.TLS, s.Port)
		}
		if p := s.Preset; (p.BulkHost != "") != (p.BulkShows > p.Shows) || (p.Shows == 0) != (p.BulkHost == "") || p.Most(s.Host) != p.Shows || p.BulkHost != "" && p.Most(p.BulkHost) != p.BulkShows {
			t.Errorf("%s: of the two hosts %+v", s.Host, p)
		}
		for _, page := range []string{s.Preset.Help, s.Preset.AppPassword} {
			if page != "" && !strings.HasPrefix(page, "https://") {
				t.Errorf("%s: %s", s.Host, page)
			}
		}
		for _, d := range r.domains {
			once(domains, d, s.Host)
		}
		for _, x := range r.exchangers {
			once(exchangers, x, s.Host)
		}
	}
	if len(domains) < 200 {
		t.Errorf("%d domains", len(domains))
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"me@example.org": "me@example.org", " Me@Example.ORG. ": "Me@example.org", "a+b@bücher.example": "a+b@xn--bcher-kva.example",
		"": "", "me": "", "@example.org": "", "me@": "", "a@b@c": "", "Me <me@example.org>": "", "me@exa mple.org": "", "me@-x-.org": "", "me@127.0.0.1": "",
		"me@[127.0.0.1]": "", "me@x/..": "", "a\nb@example.org": "",
	} {
		got, err := ParseAddress(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

// zone is a resolver that knows one domain; what it does not know hangs until
// the context ends if silent is set.
type zone struct {
	mx     []*net.MX
	srv    map[string][]*net.SRV
	silent bool
}

func (z zone) nothing(ctx context.Context) error {
	if z.silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (z zone) LookupMX(ctx context.Context, _ string) ([]*net.MX, error) {
	if z.mx == nil {
		return nil, z.nothing(ctx)
	}
	return z.mx, nil
}

func (z zone) LookupSRV(ctx context.Context, service, _, _ string) (string, []*net.SRV, error) {
	if z.srv[service] == nil {
		return "", nil, z.nothing(ctx)
	}
	return "", z.srv[service], nil
}

// site answers for every name over https; asked are the addresses.
func site(t *testing.T, handler http.HandlerFunc) *http.Client {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	transport := &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server answers for other names
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if _, port, _ := net.SplitHostPort(addr); port != "443" {
				return nil, fmt.Errorf("only https is asked, not %s", addr)
			}
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		}}
	return &http.Client{Transport: transport, CheckRedirect: onlyHTTPS}
}

func incoming(kind, host, port, socket, user string, auth ...string) string {
	text := fmt.Sprintf("<incomingServer type=%q><hostname>%s</hostname><port>%s</port><socketType>%s</socketType><username>%s</username>", kind, host, port, socket, user)
	for _, a := range auth {
		text += "<authentication>" + a + "</authentication>"
	}
	return text + "</incomingServer>"
}

func config(servers ...string) string {
	return `<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="x"><domain>x</domain>` + strings.Join(servers, "") + `</emailProvider></clientConfig>`
}

func TestFind(t *testing.T) {
	t.Parallel()
	srv := func(host string, port uint16) []*net.SRV { return []*net.SRV{{Target: host, Port: port}} }
	nowhere := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }
	says := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" || strings.Contains(r.URL.String(), "me") && !strings.Contains(r.URL.Path, "config-v1.1.xml") {
				t.Errorf("the address was told: %s", r.URL)
			}
			_, _ = w.Write([]byte(text))
		}
	}
	for name, c := range map[string]struct {
		address string
		zone    zone
		site    http.HandlerFunc
		want    []string
	}{
		"a domain of the table":            {"me@gmail.com", zone{}, nil, []string{"imap.gmail.com:993 implicit me@gmail.com Gmail"}},
		"the table wants the local part":   {"me@icloud.com", zone{}, nil, []string{"imap.mail.me.com:993 implicit me iCloud"}},
		"a customer's domain, by its mail": {"me@firm.example", zone{mx: []*net.MX{{Host: "firm-example.mail.protection.outlook.com."}}}, nowhere, []string{"outlook.office365.com:993 implicit me@firm.example Microsoft 365"}},
		"a host that only ends alike":      {"me@firm.example", zone{mx: []*net.MX{{Host: "mx.notgoogle.com."}}}, nowhere, nil},
		"the domain's own word":            {"me@own.example", zone{}, says(config(incoming("pop3", "pop.own.example", "995", "SSL", "x"), incoming("imap", "mail.%EMAILDOMAIN%", "993", "SSL", "%EMAILLOCALPART%", "OAuth2"))), []string{"mail.own.example:993 implicit me  oauth alone"}},
		"tokens alone, and where": {"me@own.example", zone{}, says(strings.Replace(config(incoming("imap", "own.example", "993", "SSL", "%EMAILADDRESS%", "OAuth2")), "</clientConfig>",
			"<oAuth2><issuer>x</issuer><scope>a b</scope><authURL>https://login.own.example/auth</authURL><tokenURL>https://login.own.example/token</tokenURL></oAuth2></clientConfig>", 1)),
			[]string{"own.example:993 implicit me@own.example  oauth alone https://login.own.example/auth https://login.own.example/token [a b]"}},
		"tokens at what is no safe place": {"me@own.example", zone{}, says(strings.Replace(config(incoming("imap", "own.example", "993", "SSL", "%EMAILADDRESS%", "password-cleartext", "OAuth2")), "</clientConfig>",
			"<oAuth2><authURL>http://login.own.example/auth</authURL><tokenURL>https://login.own.example/token</tokenURL></oAuth2></clientConfig>", 1)),
			[]string{"own.example:993 implicit me@own.example  oauth"}},
		"STARTTLS":                   {"me@own.example", zone{}, says(config(incoming("imap", "mail.own.example", "143", "STARTTLS", "%EMAILADDRESS%"))), []string{"mail.own.example:143 starttls me@own.example"}},
		"plain text is not proposed": {"me@own.example", zone{}, says(config(incoming("imap", "mail.own.example", "143", "plain", "%EMAILADDRESS%"))), nil},
		"what cannot be a server": {"me@own.example", zone{}, says(config(incoming("imap", "mail own", "993", "SSL", "x"), incoming("imap", "m", "0", "SSL", "x"), incoming("imap", "m", "99999", "SSL", "x"),
			incoming("imap", "a\u202eb", "993", "SSL", "x"), incoming("imap", "", "993", "SSL", "x"), incoming("imap", "x\x7f", "993", "SSL", "x"))), nil},
		"no XML":  {"me@own.example", zone{}, says("<html>hello"), nil},
		"endless": {"me@own.example", zone{}, says(strings.Repeat("<a>", 1<<20)), nil},
		"led to plain": {"me@own.example", zone{}, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/x", http.StatusFound)
		}, nil},
		"the DNS":         {"me@own.example", zone{srv: map[string][]*net.SRV{"imaps": srv("a.own.example.", 993), "imap": srv("b.own.example.", 143)}}, nowhere, []string{"a.own.example:993 implicit me@own.example", "b.own.example:143 starttls me@own.example"}},
		"no such service": {"me@own.example", zone{srv: map[string][]*net.SRV{"imaps": srv(".", 0), "imap": srv(".", 0)}}, nowhere, nil},
		"nothing at all":  {"me@own.example", zone{}, nowhere, nil},
		"all, in order":   {"me@own.example", zone{mx: []*net.MX{{Host: "in1-smtp.messagingengine.com."}}, srv: map[string][]*net.SRV{"imaps": srv("imap.fastmail.com.", 993)}}, says(config(incoming("imap", "own.example", "993", "SSL", "%EMAILADDRESS%"))), []string{"own.example:993 implicit me@own.example", "imap.fastmail.com:993 implicit me@own.example Fastmail", "imap.fastmail.com:993 implicit me@own.example Fastmail"}},
		"a resolver that hangs costs what it finds, no more": {"me@own.example", zone{silent: true}, says(config(incoming("imap", "own.example", "993", "SSL", "x"))), []string{"own.example:993 implicit me@own.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, err := ParseAddress(c.address)
			if err != nil {
				t.Fatal(err)
			}
			f := Finder{Resolver: c.zone}
			if c.site == nil {
				c.site = func(http.ResponseWriter, *http.Request) { t.Error("somebody was asked") }
			}
			f.Client = site(t, c.site)
			servers, err := f.Find(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range servers {
				line := strings.TrimRight(fmt.Sprintf("%s:%d %s %s %s", s.Host, s.Port, s.TLS, s.UserName(a), s.Preset.Name), " ")
				if s.OAuth && s.Preset.OAuth == "" {
					line += "  oauth"
					if s.NoPassword {
						line += " alone"
					}
					if s.AuthURL != "" {
						line += fmt.Sprintf(" %s %s %v", s.AuthURL, s.TokenURL, s.Scopes)
					}
				}
				if s.Source == "" {
					t.Errorf("%s: from where?", line)
				}
				got = append(got, line)
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	hang := func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }
	_, err := Finder{Resolver: zone{silent: true}, Client: site(t, hang)}.Find(ctx, Address{"me", "own.example"})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzAutoconfig(f *testing.F) {
	f.Add([]byte(config(incoming("imap", "mail.%EMAILDOMAIN%", "993", "SSL", "%EMAILLOCALPART%", "OAuth2"))))
	f.Add([]byte("<clientConfig><emailProvider><incomingServer type='imap'><hostname>\x00</hostname>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, s := range readAutoconfig(text, Address{"me", "own.example"}, "x") {
			if host, ok := hostName(s.Host); !ok || host != s.Host || s.Port < 1 || s.Port > 65535 || s.TLS != "implicit" && s.TLS != "starttls" || s.AuthURL != "" && !isHTTPS(s.AuthURL) {
				t.Errorf("%+v", s)
			}
		}
	})
}
