package config

import (
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// OAuthProviders are those whose URLs and scopes need not be given.
func OAuthProviders() []string { return []string{"fastmail", "google", "microsoft"} }

// oauth reads the table of a client of OAuth; nil if there is none.
func (t *section) oauth(k, auth string) *OAuth {
	v, there := t.values[k]
	if !there {
		return nil
	}
	const example = `oauth = { provider = "microsoft", client_id = "..." }`
	table, ok := v.(map[string]any)
	if !ok {
		t.fail(k, "must be a table: %s", example)
		return nil
	}
	if auth != "" && auth != "xoauth2" && auth != "oauthbearer" {
		t.fail("auth", `%q signs in with a password; with oauth it is "oauthbearer", "xoauth2" or left out`, auth)
	}
	o := &section{r: t.r, key: t.path(k), values: table}
	known := []string{"provider", "tenant", "client_id", "client_secret", "auth_url", "token_url", "device_url", "scopes"}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if isSecret(key) {
			o.fail(key, "a token does not belong in this file; notmuch imap login gets it and keeps it")
		} else if !slices.Contains(known, key) {
			t.r.unknown(o.path(key), known, "")
		}
	}
	out := &OAuth{Provider: o.oneOf("provider", "", OAuthProviders()...)}
	if o.there("client_id") {
		out.ClientID = o.required("client_id")
	}
	out.ClientSecret = o.string("client_secret")
	if out.Tenant = o.string("tenant"); out.Tenant != "" {
		switch {
		case out.Provider != "microsoft":
			o.fail("tenant", `is for provider = "microsoft"`)
		case !regexp.MustCompile(`^[A-Za-z0-9.-]{1,255}$`).MatchString(out.Tenant):
			o.fail("tenant", `%q is neither a domain nor an id, nor "common", "organizations" or "consumers"`, out.Tenant)
		}
	}
	out.AuthURL, out.TokenURL, out.DeviceURL = o.secureURL("auth_url"), o.secureURL("token_url"), o.secureURL("device_url")
	out.Scopes, _ = o.strings("scopes", `scopes: ["https://mail.example.org/imap"]`)
	for _, s := range out.Scopes {
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || unicode.IsSpace(c) }) {
			o.fail("scopes", "%q is no scope", s)
		}
	}
	if _, named := table["provider"]; !named {
		for _, key := range []string{"auth_url", "token_url", "scopes"} {
			if _, ok := table[key]; !ok {
				t.r.errs = append(t.r.errs, &Error{File: t.r.file, Line: t.r.lines.line(o.key), Key: dotted(o.path(key)),
					Text: "is missing; or set provider to one of " + quoted(OAuthProviders())})
			}
		}
	}
	return out
}

// secureURL gives an address to which tokens may go: with TLS, or on this machine.
func (t *section) secureURL(k string) string {
	s := t.string(k)
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		t.fail(k, "is no address of the form https://login.example.org/token")
		return ""
	}
	ip := net.ParseIP(u.Hostname())
	if here := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback(); u.Scheme != "https" && (u.Scheme != "http" || !here) {
		t.fail(k, "must begin with https://, or tokens could be read on the way")
		return ""
	}
	return s
}
