package cmd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/oauth"
)

// oauthKnown is the client of OAuth as far as the server's provider or its domain says,
// without an id; nil if neither says that there is OAuth.
func (s *setup) oauthKnown() *config.OAuth {
	switch {
	case s.preset.OAuth != "":
		return &config.OAuth{Provider: s.preset.OAuth}
	case s.preset.Name == "" && s.found.OAuth:
		return &config.OAuth{AuthURL: s.found.AuthURL, TokenURL: s.found.TokenURL, Scopes: s.found.Scopes}
	}
	return nil
}

// tokensOnly tells whether the server is known to take no password.
func (s *setup) tokensOnly() bool {
	return s.preset.NoPassword || s.preset.Name == "" && s.found.OAuth && s.found.NoPassword
}

// clientGiven is the client of OAuth that the command line names; nil if it names
// none.
func (s *setup) clientGiven() (*config.OAuth, error) {
	given := false
	get := func(option string) string {
		given = given || s.c.String(option) != ""
		return s.c.String(option)
	}
	o := &config.OAuth{
		Provider: get("oauth"), Tenant: get("tenant"), ClientID: get("client-id"), ClientSecret: get("client-secret"),
		AuthURL: get("auth-url"), TokenURL: get("token-url"), DeviceURL: get("device-url"), Scopes: s.c.StringSlice("scope"),
	}
	if !given && len(o.Scopes) == 0 {
		return nil, nil
	}
	if known := s.oauthKnown(); known != nil && o.Provider == "" && o.AuthURL == "" {
		o.Provider, o.AuthURL, o.TokenURL = known.Provider, known.AuthURL, either(o.TokenURL, known.TokenURL)
		if len(o.Scopes) == 0 {
			o.Scopes = known.Scopes
		}
	}
	if o.Provider == "" && o.AuthURL == "" {
		return nil, &usageError{"how " + s.account.Host + " signs in by OAuth is not known; give --oauth, or --auth-url, --token-url and --scope", s.person.command}
	}
	return o, nil
}

// client asks for the client of OAuth, as far as it is not known.
func (s *setup) client(ctx context.Context) (err error) {
	o := s.account.OAuth
	if o.Provider == "" {
		scopes := strings.Join(o.Scopes, " ")
		for _, q := range []struct {
			question, option string
			value            *string
		}{
			{"address at which one signs in", "--auth-url", &o.AuthURL}, {"address that gives tokens", "--token-url", &o.TokenURL}, {"scope of mail (several between blanks)", "--scope", &scopes},
		} {
			if *q.value == "" {
				if *q.value, err = s.person.line(ctx, q.question, "", q.option); err != nil {
					return err
				}
			}
		}
		o.Scopes = strings.Fields(scopes)
	}
	if o.ClientID == "" {
		if text := oauth.RegisteringToTell(o.Provider); text != "" {
			prose(s.stderr, "\n\n"+text)
		}
		if o.ClientID, err = s.person.line(ctx, "client id of your registration", "", "--client-id"); err != nil {
			return err
		}
	}
	if o.ClientSecret == "" && o.Provider == "google" {
		o.ClientSecret, err = s.person.secret(ctx, "client secret of your registration", "--client-secret")
	}
	return err
}

// unexposed refuses to add a client's secret to a configuration that others can read.
func (s *setup) unexposed() error {
	if o := s.account.OAuth; o == nil || o.ClientSecret == "" {
		return nil
	}
	if err := config.Exposed(s.file); err != nil {
		return fmt.Errorf("the client secret belongs there, but %w; %w", err, errUnchanged)
	}
	return nil
}

// bearer gives what the connection is to be signed in with: the token that somebody
// gets by a browser now, unless there is one already.
func (s *setup) bearer(ctx context.Context, a *config.Account) (token func(context.Context, bool) (string, error), about func(*mail.Fault), err error) {
	again := s.typed(s.file, "setup account "+s.address.String())
	client := oauthClient(a)
	client.Command = again
	if s.token == nil {
		if s.token, err = s.browse(ctx, a, client); err != nil {
			return nil, nil, err
		}
	}
	held := func(context.Context, bool) (string, error) { return s.token.Access, nil }
	return held, explain(func() string { return client.Explain(s.token, time.Now()) }, a, again), nil
}

// browse has somebody sign in by a browser. Nothing is kept yet.
func (s *setup) browse(ctx context.Context, a *config.Account, client oauth.Client) (*oauth.Token, error) {
	store, err := oauthStore(a, s.getenv)
	if err != nil {
		return nil, err
	}
	if s.keptIn, err = tokenPlace(ctx, s.c, store); err != nil {
		return nil, err
	}
	if s.keptIn == oauth.InKeyring && s.c.String("store") == "" && s.person.there() {
		places := []choice{{oauth.InKeyring, "the desktop's keyring"}, {oauth.InFile, "a file that only you can read, but not encrypted: for runs without a desktop, as by cron"}}
		if s.keptIn, err = s.person.chooses(ctx, "where to keep the token?", "--store", places); err != nil {
			return nil, err
		}
	}
	where := s.browser
	if where == "" && s.person.there() && !s.c.Bool("no-browser") && s.opener(s.c) == "" {
		// No browser can be started from here: that it is elsewhere is likely.
		places := []choice{{browserHere, "on this machine"}, {browserElsewhere, "elsewhere; the address that it ends at is pasted here"}}
		if s.getenv("SSH_CONNECTION") != "" {
			places[0], places[1] = places[1], places[0]
		}
		if client.GivesDeviceCodes() {
			places = append(places, choice{browserAnywhere, "anywhere; a code is typed there (some organisations forbid that)"})
		}
		if where, err = s.person.chooses(ctx, "where is the browser to sign in with?", "--paste or --device", places); err != nil {
			return nil, err
		}
	}
	ask := func(ctx context.Context) (string, error) { return s.person.ask(ctx, "> ") }
	if !s.person.there() {
		lines := bufio.NewReader(io.LimitReader(s.stdin, 64<<10))
		ask = func(ctx context.Context) (string, error) { return nextLine(ctx, lines) }
	}
	return s.authorize(ctx, s.c, where, client, ask)
}

// storeToken puts the token where every later run looks for it.
func (s *setup) storeToken(ctx context.Context, a *config.Account) (undo func(), err error) {
	store, err := oauthStore(a, s.getenv)
	if err != nil {
		return nil, err
	}
	if err := s.keep(ctx, a, store, s.token, s.keptIn); err != nil {
		return nil, err
	}
	return func() {
		if err := store.Remove(context.WithoutCancel(ctx)); err == nil { // what is left there is of no account
			s.say("%s: the token is taken away again.", a.Name)
		}
	}, nil
}
