package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/oauth"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

func (p *program) loginCommand() *cli.Command {
	text := `Signs in to an account by OAuth 2.0: shows an address to open in a browser, keeps what the provider gives for it, and signs in to the
server. From then on every command renews the token by itself. The account's table names the client, which you register at the provider:
nobody's is used without your knowledge.`
	for _, name := range oauth.Providers() {
		text += "\n\n" + oauth.Registering(name)
	}
	text += "\n\nAny other: oauth = { client_id = \"...\", auth_url = \"...\", token_url = \"...\", scopes = [\"...\"] }."
	return &cli.Command{
		Name: "login", Usage: "sign in by OAuth, with the help of a browser", ArgsUsage: "ACCOUNT", Description: text,
		Flags:  append(browserFlags(), &cli.StringFlag{Name: "store", Usage: "keep the token in `PLACE`: keyring or file"}),
		Action: p.login,
	}
}

// browserFlags say where the browser is in which somebody signs in.
func browserFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "device", Usage: "show a code to type in a browser on any device"},
		&cli.BoolFlag{Name: "paste", Usage: "take the address that a browser elsewhere ends at: over ssh"},
		&cli.BoolFlag{Name: "no-browser", Usage: "show the address, and start no browser"},
	}
}

func (p *program) logoutCommand() *cli.Command {
	return &cli.Command{
		Name: "logout", Usage: "forget what login has kept", ArgsUsage: "ACCOUNT",
		Description: `Removes the account's token from where it is kept, and has the provider revoke it where there is a way. Mail stays as it is.`,
		Action:      p.logout,
	}
}

// oauthAccount gives the account that the command line names, if it signs in by
// OAuth.
func (p *program) oauthAccount(c *cli.Context) (*config.Account, error) {
	if c.NArg() != 1 {
		return nil, &usageError{c.Command.Name + " wants one account", c.Command.HelpName}
	}
	accounts, err := p.accounts(c)
	if err != nil {
		return nil, err
	}
	a := &accounts[0]
	if a.OAuth == nil {
		text := fmt.Sprintf("account.%s has no oauth in the configuration", a.Name)
		if preset, ok := provider.ByHost(a.Host); ok && preset.OAuth != "" {
			prose(p.stderr, oauth.Registering(preset.OAuth))
		}
		return nil, &usageError{text, c.Command.HelpName}
	}
	return a, nil
}

// oauthClient is an account's client in internal/oauth's words.
func oauthClient(a *config.Account) oauth.Client {
	o := a.OAuth
	return oauth.Client{
		Provider: o.Provider, Tenant: o.Tenant, ID: o.ClientID, Secret: o.ClientSecret,
		AuthURL: o.AuthURL, TokenURL: o.TokenURL, DeviceURL: o.DeviceURL, Scopes: o.Scopes,
		Account: a.Name, User: a.User,
	}
}

func oauthStore(a *config.Account, getenv func(string) string) (oauth.Store, error) {
	dir, err := a.StateDir(getenv)
	return oauth.Store{Dir: dir, User: a.KeyringUser()}, err
}

// source is where an account's tokens come from, one for the whole run.
func (s *secrets) source(a *config.Account) (*oauth.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.sources[a.Name]; got != nil {
		return got, nil
	}
	store, err := oauthStore(a, s.getenv)
	if err != nil {
		return nil, err
	}
	s.sources[a.Name] = oauth.NewSource(oauthClient(a), store, nil)
	return s.sources[a.Name], nil
}

// loginOf is the command that signs in to an account.
func loginOf(a *config.Account) string { return "notmuch imap login " + a.Name }

// tokens gives a connection its token, and another one if the server refused it.
func tokens(source *oauth.Source) func(ctx context.Context, renew bool) (string, error) {
	var mu sync.Mutex
	var last string // what was given
	return func(ctx context.Context, renew bool) (string, error) {
		mu.Lock()
		refused := last
		mu.Unlock()
		if !renew {
			refused = ""
		}
		token, err := source.Token(ctx, refused)
		mu.Lock()
		last = token
		mu.Unlock()
		return token, err
	}
}

// noToken is why there is no token, without the next step.
type noToken struct{ why *oauth.Refusal }

func (e *noToken) Error() string { return e.why.Text }

// explain adds to a refused sign-in what the token tells, and the next step. about
// says what makes the token useless, "" if nothing does; command signs in anew.
func explain(about func() string, a *config.Account, command string) func(*mail.Fault) {
	anew := "sign in anew: " + command
	return func(f *mail.Fault) {
		switch f.Kind {
		case mail.KindSecret:
			f.Again = true
			if r, ok := errors.AsType[*oauth.Refusal](f.Err); ok {
				f.Err, f.Do, f.Again = &noToken{r}, r.Next, false
			}
		case mail.KindAuth:
			f.Do = fmt.Sprintf("is user = %q the mailbox that you signed in to, and IMAP switched on for it? else %s", a.User, anew)
			if why := about(); why != "" {
				f.Err, f.Do = errors.New(why), anew
			}
		case mail.KindNotConnected:
			f.Do = "the usual causes: IMAP is switched off for this mailbox or it has no licence (an administrator sees both), or there are too many connections (connections = 1)"
			if why := about(); why != "" {
				f.Err, f.Do = errors.New(why), anew
			}
		}
	}
}

// loginTime is how long a browser is waited for.
const loginTime = 10 * time.Minute

func (p *program) login(c *cli.Context) error {
	ctx := c.Context
	a, err := p.oauthAccount(c)
	if err != nil {
		return err
	}
	where, err := browserGiven(c)
	if err != nil {
		return err
	}
	store, err := oauthStore(a, p.getenv)
	if err != nil {
		return err
	}
	place, err := tokenPlace(ctx, c, store)
	if err != nil {
		return err
	}
	lines := bufio.NewReader(io.LimitReader(p.stdin, 64<<10))
	t, err := p.authorize(ctx, c, where, oauthClient(a), func(ctx context.Context) (string, error) { return nextLine(ctx, lines) })
	if err != nil {
		p.letter(err)
		if ctx.Err() != nil {
			return errUnchanged
		}
		return err
	}
	if err := p.keep(ctx, a, store, t, place); err != nil {
		return err
	}
	return p.tryLogin(ctx, a)
}

// tokenPlace is where the command line wants the tokens kept: in the keyring, if
// it does not say and there is one.
func tokenPlace(ctx context.Context, c *cli.Context, store oauth.Store) (string, error) {
	switch place := c.String("store"); {
	case place == oauth.InKeyring && !store.HasKeyring(ctx):
		return "", fmt.Errorf("%w; nothing was changed", errNoKeyring)
	case place == oauth.InKeyring || place == oauth.InFile:
		return place, nil
	case place != "":
		return "", &usageError{fmt.Sprintf("--store %q is neither keyring nor file", place), c.Command.HelpName}
	case store.HasKeyring(ctx):
		return oauth.InKeyring, nil
	}
	return oauth.InFile, nil
}

// letter shows the text for an administrator, if an error has one.
func (p *program) letter(err error) {
	if r, ok := errors.AsType[*oauth.Refusal](err); ok && r.Letter != "" {
		p.say("A text to send to who administers your accounts:\n\n%s\n", r.Letter)
	}
}

// keep saves the tokens of a sign-in, after any run that is renewing older ones,
// and says where.
func (p *program) keep(ctx context.Context, a *config.Account, store oauth.Store, t *oauth.Token, place string) error {
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unlock, err := store.Lock(waiting)
	if err != nil {
		return err
	}
	defer unlock()
	if err := store.Save(ctx, t, place); err != nil {
		return err
	}
	p.say("%s: the token is kept in %s.", a.Name, store.Place())
	if t.Refresh == "" {
		p.say("%s: the provider gave no refresh token: sign in again when this one ends, at %s", a.Name, t.Expiry.Local().Format("2006-01-02 15:04"))
	}
	return nil
}

// tryLogin signs in to the server with what was kept.
func (p *program) tryLogin(ctx context.Context, a *config.Account) error {
	o, err := remoteOptions(a, p.newSecrets(nil))
	if err != nil {
		return err
	}
	o.Timeout = min(o.Timeout, trialTime)
	s, err := remote.Dial(ctx, o)
	if err != nil {
		if next := advice(err); next != "" && ctx.Err() == nil {
			return fmt.Errorf("%w; %s", err, next)
		}
		return err
	}
	p.say("%s: signed in at %s as %s.", a.Name, a.Host, a.User)
	return errors.Join(p.signedIn(ctx, a), s.Close())
}

// The places where the browser can be.
const (
	browserHere      = "browser"
	browserElsewhere = "paste"
	browserAnywhere  = "device"
)

// browserGiven is where the command line says that the browser is; "" if it does
// not say.
func browserGiven(c *cli.Context) (string, error) {
	switch device, paste := c.Bool("device"), c.Bool("paste"); {
	case device && paste:
		return "", &usageError{"one of --device and --paste is enough", c.Command.HelpName}
	case device:
		return browserAnywhere, nil
	case paste:
		return browserElsewhere, nil
	}
	return "", nil
}

// authorize gets tokens by a browser at a place; "" is here. ask gives what
// somebody pastes.
func (p *program) authorize(ctx context.Context, c *cli.Context, where string, client oauth.Client, ask func(context.Context) (string, error)) (*oauth.Token, error) {
	note := func(text string) { p.say("%s", text) }
	switch where {
	case browserAnywhere:
		return client.Device(ctx, func(address, code string, until time.Time) {
			p.say("Open %s in any browser, and enter the code %s there, until %s.", plain(address), plain(code), until.Local().Format("15:04"))
		})
	case browserElsewhere:
		return client.Paste(ctx, func(address string) {
			p.say("Open this address in a browser, anywhere:\n\n%s\n", address)
			p.say("At the end it goes to an address where it finds nothing. Copy that from the address bar, and paste it here:")
		}, ask, note)
	}
	return client.Loopback(ctx, loginTime, func(address string) {
		if open := p.opener(c); open != "" {
			p.say("Opening a browser (%s) at this address:\n\n%s\n", open, address)
			if err := start(open, address); err != nil {
				p.say("%s: %v; open it yourself.", open, err)
			}
		} else {
			p.say("Open this address in a browser on this machine (elsewhere: --paste or --device):\n\n%s\n", address)
		}
		p.say("Waiting for you to sign in there, for %v at most ...", loginTime)
	}, note)
}

// opener is the program that opens a browser; "" if there is no display.
func (p *program) opener(c *cli.Context) string {
	const open = "xdg-open"
	if c.Bool("no-browser") || p.getenv("DISPLAY") == "" && p.getenv("WAYLAND_DISPLAY") == "" {
		return ""
	}
	if _, err := exec.LookPath(open); err != nil {
		return ""
	}
	return open
}

// start starts a program that is not waited for.
func start(program, arg string) error {
	// The browser may be one that goes on when we have ended.
	cmd := exec.Command(program, arg)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // whether it opened one, the person sees
	return nil
}

// nextLine reads a line until ctx ends. A terminal cannot be interrupted: the
// goroutine is given up with it.
func nextLine(ctx context.Context, lines *bufio.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := lines.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			err = nil // a last line without its end
		}
		got <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case a := <-got:
		if errors.Is(a.err, io.EOF) {
			return "", errors.New("nothing more was pasted; nothing was changed")
		}
		return a.line, a.err
	}
}

func (p *program) logout(c *cli.Context) error {
	ctx := c.Context
	a, err := p.oauthAccount(c)
	if err != nil {
		return err
	}
	store, err := oauthStore(a, p.getenv)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	unlock, err := store.Lock(waiting)
	if err != nil {
		return err
	}
	defer unlock()
	t, err := store.Load(ctx)
	if errors.Is(err, oauth.ErrNone) {
		p.say("%s: nobody was signed in.", a.Name)
		return nil
	}
	if oauth.NoKeyring(err) {
		p.say("%s: there is no token in %s, and this session has no keyring to look in.", a.Name, filepath.Join(store.Dir, "oauth.json"))
		return nil
	}
	place := store.Place()
	// What cannot be read can be removed.
	if err := store.Remove(ctx); err != nil {
		return err
	}
	p.say("%s: the token is removed from %s.", a.Name, place)
	if t == nil {
		return nil
	}
	told, err := oauthClient(a).Revoke(ctx, t)
	switch {
	case err != nil:
		p.say("%s: the provider could not be told (%v); you can revoke the sign-in at its page for your account.", a.Name, err)
	case told:
		p.say("%s: the provider has revoked it.", a.Name)
	default:
		p.say("%s: the provider was not told; you can revoke the sign-in at its page for your account.", a.Name)
	}
	return nil
}

// token looks at the account's token, and tells whether there is one.
func (c *checker) token(ctx context.Context, a *config.Account, keys *secrets) bool {
	store, err := oauthStore(a, c.p.getenv)
	var source *oauth.Source
	if err == nil {
		source, err = keys.source(a)
	}
	if err == nil {
		_, err = source.Token(ctx, "") // renews it
	}
	if err != nil {
		f := &mail.Fault{Kind: mail.KindSecret, Err: err}
		if source != nil {
			explain(source.Explain, a, loginOf(a))(f)
		}
		c.fail("token", f.Do, f.Err)
		return false
	}
	until, renewable, err := source.Status(ctx)
	if err != nil {
		c.fail("token", "", err)
		return false
	}
	text := "valid until the provider says otherwise"
	if !until.IsZero() {
		text = "valid until " + until.Local().Format("2006-01-02 15:04")
	}
	if renewable {
		c.ok("token", "%s, and renewed by itself; kept in %s", text, store.Place())
	} else {
		c.warn("token", "then: notmuch imap login "+a.Name, "%s, and not renewed, since the provider gave no refresh token; kept in %s", text, store.Place())
	}
	return true
}
