// Package provider finds the IMAP server of a mail address: in a table of its
// own, at the address's own domain over https, and in the DNS. Nobody but the
// domain itself and the resolver learns which domain is asked for.
package provider

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// UserForm is how a server wants its user names.
type UserForm string

// The forms.
const (
	UserAddress UserForm = "address" // me@example.org
	UserLocal   UserForm = "local"   // me
)

// Preset is what is known of a provider beside its server. The zero value is a
// provider of which nothing particular is known.
type Preset struct {
	Name string // for people
	// Connections is how many connections are wise at once; 0 if no limit below
	// our own default is known.
	Connections int
	// OAuth names the sign-in that the provider wants or offers: "google",
	// "microsoft", "fastmail", or "".
	OAuth string
	// NoPassword: a password never works, only OAuth.
	NoPassword bool
	// AppPassword is where one makes a password for a program like this one; ""
	// if the ordinary one is taken, or if there is none.
	AppPassword string
	// Help is the provider's page about IMAP; "" if none is known.
	Help string
	// Poll is the least time between two looks that no person asks for, where the
	// provider is known to refuse who comes more often; 0 if it is not.
	Poll time.Duration
	// Shows is how many messages of a mailbox its host shows at most, the newest; 0
	// if there is no limit. BulkHost shows more of the same mail, up to BulkShows, as
	// a first import wants; "" if there is no such host.
	Shows, BulkShows uint32
	BulkHost         string
	// Trash and Archive are what these mailboxes are called where the server does not
	// mark them (RFC 6154) and they are not called as they usually are; "" elsewhere.
	Trash, Archive string
	// SkipAll: the mailbox marked \All (RFC 6154) holds each message of the
	// others once more, and is left out unless asked for.
	SkipAll bool
	// Note is one more sentence worth saying before the sign-in.
	Note string
}

// Server is one proposal for an address.
type Server struct {
	Host string
	Port int
	TLS  string // "implicit" or "starttls"; plain text is never proposed
	User UserForm
	// OAuth: the domain says that OAuth 2.0 is offered, and NoPassword, that nothing
	// else is. AuthURL, TokenURL and Scopes are where and what for, if it says that,
	// too.
	OAuth, NoPassword bool
	AuthURL, TokenURL string
	Scopes            []string
	Source            string // where this comes from, for people
	Preset            Preset
}

// UserName gives the name to sign in with.
func (s Server) UserName(a Address) string {
	if s.User == UserLocal {
		return a.Local
	}
	return a.String()
}

// Address is a mail address, its domain in lower case and in ASCII (RFC 5890).
type Address struct{ Local, Domain string }

// String gives the address as one writes it.
func (a Address) String() string { return a.Local + "@" + a.Domain }

// ParseAddress reads a bare address.
func ParseAddress(s string) (Address, error) {
	s = strings.TrimSpace(s)
	at := strings.LastIndexByte(s, '@')
	if !utf8.ValidString(s) || at <= 0 || at == len(s)-1 || strings.ContainsAny(s, " \t\r\n<>\"(),;:\\") || strings.Count(s, "@") != 1 {
		return Address{}, fmt.Errorf("%q is no mail address; it looks like me@example.org", s)
	}
	domain, err := idna.Lookup.ToASCII(strings.TrimSuffix(s[at+1:], "."))
	if err != nil || domain == "" || strings.HasPrefix(domain, ".") || strings.Contains(domain, "..") || net.ParseIP(domain) != nil {
		return Address{}, fmt.Errorf("%q is no mail address: its domain cannot be one", s)
	}
	return Address{s[:at], strings.ToLower(domain)}, nil
}

// Most is how many messages of a mailbox one of the provider's hosts shows at most;
// 0 if there is no limit.
func (p Preset) Most(host string) uint32 {
	if p.BulkHost != "" && strings.EqualFold(p.BulkHost, host) {
		return p.BulkShows
	}
	return p.Shows
}

// errNothing is the answer of a place that knows nothing of the domain.
var errNothing = errors.New("nothing is known there")

// sameOrBelow tells whether a host is a domain or lies below it.
func sameOrBelow(host, domain string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == domain || strings.HasSuffix(host, "."+domain)
}

// ofDomain gives the table's row for a domain; nil if there is none.
func ofDomain(domain string) *row {
	for _, r := range table() {
		if slices.Contains(r.domains, domain) {
			return &r
		}
	}
	return nil
}

// ofExchanger gives the table's row for the host that takes a domain's mail; nil
// if there is none.
func ofExchanger(host string) *row {
	for _, r := range table() {
		if slices.ContainsFunc(r.exchangers, func(suffix string) bool { return sameOrBelow(host, suffix) }) {
			return &r
		}
	}
	return nil
}

// ByHost gives what is known of the provider whose IMAP server has this name, so
// that an account that was set up by hand has the same advice.
func ByHost(host string) (Preset, bool) {
	for _, r := range table() {
		if net.ParseIP(host) == nil && (strings.EqualFold(r.host, host) || strings.EqualFold(r.preset.BulkHost, host)) {
			return r.preset, true
		}
	}
	return Preset{}, false
}
