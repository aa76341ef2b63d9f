package provider

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/idna"
)

// maxAutoconfig bounds an answer; the largest of public ones is some 10 KiB.
const maxAutoconfig = 64 << 10

// autoconfigPlaces are where a domain says what its servers are
// (draft-ietf-mailmaint-autoconfig). The address itself is not sent along.
func autoconfigPlaces(domain string) []string {
	return []string{
		"https://autoconfig." + domain + "/mail/config-v1.1.xml",
		"https://" + domain + "/.well-known/autoconfig/mail/config-v1.1.xml",
	}
}

// autoconfig asks the domain itself.
func (f Finder) autoconfig(ctx context.Context, a Address) ([]Server, error) {
	client := f.Client
	if client == nil {
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSHandshakeTimeout: Patience}
		client = &http.Client{Transport: transport, CheckRedirect: onlyHTTPS}
	}
	places := autoconfigPlaces(a.Domain)
	found := make([][]Server, len(places))
	var group sync.WaitGroup
	for i, place := range places {
		group.Go(func() {
			body, err := get(ctx, client, place)
			if err != nil {
				return
			}
			found[i] = readAutoconfig(body, a, place)
		})
	}
	group.Wait()
	for _, servers := range found {
		if len(servers) > 0 {
			return servers, nil
		}
	}
	return nil, errNothing
}

// onlyHTTPS refuses to be led to where anybody could answer.
func onlyHTTPS(r *http.Request, via []*http.Request) error {
	if r.URL.Scheme != "https" || len(via) > 3 {
		return http.ErrUseLastResponse
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, maxAutoconfig))
}

// clientConfig is the part of an answer that matters.
type clientConfig struct {
	Incoming []struct {
		Type           string   `xml:"type,attr"`
		Hostname       string   `xml:"hostname"`
		Port           string   `xml:"port"`
		SocketType     string   `xml:"socketType"`
		Username       string   `xml:"username"`
		Authentication []string `xml:"authentication"`
	} `xml:"emailProvider>incomingServer"`
	OAuth struct {
		AuthURL  string `xml:"authURL"`
		TokenURL string `xml:"tokenURL"`
		Scope    string `xml:"scope"` // between blanks
	} `xml:"oAuth2"`
}

// readAutoconfig gives the IMAP servers of an answer. One that wants plain text,
// or that says something which cannot be, is left out: an answer can propose
// nothing that its reader would not type.
func readAutoconfig(text []byte, a Address, place string) []Server {
	var c clientConfig
	if err := xml.Unmarshal(text, &c); err != nil {
		return nil
	}
	fill := strings.NewReplacer("%EMAILADDRESS%", a.String(), "%EMAILLOCALPART%", a.Local, "%EMAILDOMAIN%", a.Domain)
	var out []Server
	for _, in := range c.Incoming {
		host, ok := hostName(fill.Replace(strings.TrimSpace(in.Hostname)))
		port, err := strconv.Atoi(strings.TrimSpace(in.Port))
		if !strings.EqualFold(in.Type, "imap") || !ok || err != nil || port < 1 || port > 65535 {
			continue
		}
		s := Server{Host: host, Port: port, User: UserAddress, Source: place}
		switch strings.ToUpper(strings.TrimSpace(in.SocketType)) {
		case "SSL":
			s.TLS = "implicit"
		case "STARTTLS":
			s.TLS = "starttls"
		default:
			continue
		}
		if fill.Replace(strings.TrimSpace(in.Username)) == a.Local {
			s.User = UserLocal
		}
		s.NoPassword = len(in.Authentication) > 0
		for _, way := range in.Authentication {
			if strings.EqualFold(strings.TrimSpace(way), "OAuth2") {
				s.OAuth = true
			} else {
				s.NoPassword = false
			}
		}
		if auth, token := c.OAuth.AuthURL, c.OAuth.TokenURL; s.OAuth && isHTTPS(auth) && isHTTPS(token) {
			s.AuthURL, s.TokenURL, s.Scopes = strings.TrimSpace(auth), strings.TrimSpace(token), strings.Fields(c.OAuth.Scope)
		}
		out = append(out, s)
	}
	return out
}

// isHTTPS tells whether what a stranger calls an address is one that a sign-in may
// go to.
func isHTTPS(s string) bool {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" {
		return false
	}
	host, ok := hostName(u.Hostname())
	return ok && host == u.Hostname()
}

// hostName makes a host of what a stranger calls one; ok is false if it cannot
// be.
func hostName(s string) (host string, ok bool) {
	s = strings.TrimSuffix(s, ".")
	if net.ParseIP(s) != nil {
		return s, true
	}
	host, err := idna.Lookup.ToASCII(s)
	if err != nil || host == "" || len(host) > 253 {
		return "", false
	}
	for _, r := range host {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' {
			return "", false
		}
	}
	return host, true
}
