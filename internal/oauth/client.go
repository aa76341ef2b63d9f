// Package oauth signs in by OAuth 2.0 (RFC 6749, RFC 8252): it gets tokens with
// the help of a browser, keeps them, and gives one that is valid when a server
// asks. No error, and nothing that it shows, holds a token, a code or a secret.
package oauth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Client is a program as it is registered at a provider, and where the provider
// is to be asked.
type Client struct {
	Provider string // a key of the table: "microsoft"; "" if the URLs are given
	Tenant   string // of Microsoft; "" is common
	ID       string
	Secret   string // "" of a public client
	AuthURL  string
	TokenURL string
	// DeviceURL gives device codes (RFC 8628); "" if there are none.
	DeviceURL string
	Scopes    []string

	// Account and User are who signs in: the account's name and the user name at
	// the server.
	Account, User string
	// Command is what signs in anew; "" is login of the account.
	Command string

	// HTTP carries the requests; nil is the usual way. For tests.
	HTTP http.RoundTripper

	needs     string // what the granted scopes must hold, in any case of letters; "" is not known
	revokeURL string // RFC 7009; "" if there is none
	host      string // in the address to come back to
	params    []oauth2.AuthCodeOption
}

// Providers are the names that Client.Provider may have.
func Providers() []string { return []string{"fastmail", "google", "microsoft"} }

// fill gives the client with the provider's part of it.
func (c Client) fill() Client {
	scopes := func(list ...string) {
		if len(c.Scopes) == 0 {
			c.Scopes = list
		}
	}
	set := func(to *string, value string) { *to = cmp.Or(*to, value) }
	c.host = "127.0.0.1"
	switch c.Provider {
	case "microsoft":
		c.Tenant = cmp.Or(c.Tenant, "common")
		base := "https://login.microsoftonline.com/" + c.Tenant + "/oauth2/v2.0/"
		set(&c.AuthURL, base+"authorize")
		set(&c.TokenURL, base+"token")
		set(&c.DeviceURL, base+"devicecode")
		scopes("https://outlook.office.com/IMAP.AccessAsUser.All", "offline_access")
		c.needs = "IMAP.AccessAsUser.All"
		// The portal takes this one only, and then any port.
		c.host = "localhost"
	case "google":
		set(&c.AuthURL, "https://accounts.google.com/o/oauth2/v2/auth")
		set(&c.TokenURL, "https://oauth2.googleapis.com/token")
		scopes("https://mail.google.com/")
		c.needs, c.revokeURL = "https://mail.google.com/", "https://oauth2.googleapis.com/revoke"
		// Without both there is a refresh token at the first consent only.
		c.params = []oauth2.AuthCodeOption{oauth2.AccessTypeOffline, oauth2.SetAuthURLParam("prompt", "consent")}
	case "fastmail":
		set(&c.AuthURL, "https://api.fastmail.com/oauth/authorize")
		set(&c.TokenURL, "https://api.fastmail.com/oauth/refresh")
		scopes("https://www.fastmail.com/dev/protocol-imap")
		c.needs, c.revokeURL = "protocol-imap", "https://api.fastmail.com/oauth/revoke"
	}
	if strings.Contains(c.User, "@") {
		c.params = append(c.params, oauth2.SetAuthURLParam("login_hint", c.User))
	}
	return c
}

// Registering says how to register a client at a provider, and where one makes an
// app password if there are any; "" of a provider that is not in the table.
func Registering(provider string) string {
	how, what, table, else_ := registration(provider)
	if how == "" {
		return ""
	}
	return how + " " + what + " to be written into the account's table: " + table + else_
}

// RegisteringToTell is Registering for who is asked for the client next.
func RegisteringToTell(provider string) string {
	how, what, _, else_ := registration(provider)
	if how == "" {
		return ""
	}
	return how + " " + what + " asked for here" + else_
}

func registration(provider string) (how, what, table, else_ string) {
	switch provider {
	case "microsoft":
		return "Microsoft: at https://entra.microsoft.com, App registrations, make one for accounts in any directory and personal accounts, with the redirect URI http://localhost " +
				"of the platform \"Mobile and desktop applications\" and \"Allow public client flows\" on.",
			"Its Application (client) ID is", `oauth = { provider = "microsoft", client_id = "..." }`, "; there are no app passwords."
	case "google":
		return "Google: at https://console.cloud.google.com/auth/clients make a client of the type \"Desktop app\" and publish its project, since in \"Testing\" each sign-in ends after 7 days.",
			"Its id and its secret are", `oauth = { provider = "google", client_id = "...", client_secret = "..." }`,
			". An app password is the two-minute way: https://myaccount.google.com/apppasswords (it wants 2-step verification)."
	case "fastmail":
		return "Fastmail: it registers clients by hand, as https://www.fastmail.com/dev/ says, with the redirect URI http://127.0.0.1.",
			"The id that it gives is", `oauth = { provider = "fastmail", client_id = "..." }`,
			". An app password is the two-minute way: https://app.fastmail.com/settings/security/apps."
	}
	return "", "", "", ""
}

// GivesDeviceCodes tells whether Device has a place to ask.
func (c Client) GivesDeviceCodes() bool { return c.fill().DeviceURL != "" }

// config is the client in the library's words.
func (c Client) config(redirect string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: c.ID, ClientSecret: c.Secret, Scopes: c.Scopes, RedirectURL: redirect,
		// To try both styles would use up a code or a refresh token that is good
		// once.
		Endpoint: oauth2.Endpoint{AuthURL: c.AuthURL, TokenURL: c.TokenURL, DeviceAuthURL: c.DeviceURL, AuthStyle: oauth2.AuthStyleInParams},
	}
}

// requestTime bounds one request to the provider.
const requestTime = 30 * time.Second

// maxAnswer bounds what a provider answers, in bytes.
const maxAnswer = 1 << 20

// with gives a context in which the library's requests end with ctx.
func (c Client) with(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport: bound{ctx, c.HTTP},
		// Who is sent elsewhere would send the secrets there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
}

// bound makes requests end with a context, or after their time, and reads their answers to the end:
// the library does neither for device codes.
type bound struct {
	ctx context.Context // http.RoundTripper has none, and the library gives requests none
	to  http.RoundTripper
}

func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	to := b.to
	if to == nil {
		to = http.DefaultTransport
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)() //nolint:contextcheck // it is beside the request's own
	answer, err := to.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}

// granted makes a Token of what a provider gave, and refuses one that is of no
// use at the server.
func (c Client) granted(t *oauth2.Token) (*Token, error) {
	out := &Token{Access: t.AccessToken, Refresh: t.RefreshToken, Expiry: t.Expiry, ClientID: c.ID, TokenURL: c.TokenURL}
	out.Scope, _ = t.Extra("scope").(string)
	if !strings.EqualFold(t.Type(), "Bearer") {
		return nil, fmt.Errorf("the provider gave a token of a kind that no mail server takes: %.40q", t.Type())
	}
	if why := c.misfit(out); why != "" {
		return nil, &Refusal{Text: why, Next: "nothing was kept; consent to all that the page asks for, and see that the client may ask for " + strings.Join(c.Scopes, " ")}
	}
	return out, nil
}
