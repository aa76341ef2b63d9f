package oauth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// flow is one authorization by code with PKCE (RFC 7636).
type flow struct {
	Client
	config          *oauth2.Config
	state, verifier string
}

func (c Client) begin(redirect string) *flow {
	return &flow{Client: c, config: c.config(redirect), state: rand.Text(), verifier: oauth2.GenerateVerifier()}
}

// url is the address to open in a browser.
func (f *flow) url() string {
	return f.config.AuthCodeURL(f.state, append(f.params[:len(f.params):len(f.params)], oauth2.S256ChallengeOption(f.verifier))...)
}

// code takes what the browser came back with: the code, or the refusal.
func (f *flow) code(q url.Values) (string, error) {
	if e := q.Get("error"); e != "" {
		return "", f.refusal(e, q.Get("error_description"), f.Secret)
	}
	if q.Get("code") == "" {
		return "", errors.New("the provider came back without a code; try again: " + f.login())
	}
	return q.Get("code"), nil
}

// mine tells whether a browser comes back from this authorization.
func (f *flow) mine(q url.Values) bool {
	return subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(f.state)) == 1
}

// exchange gives the code for tokens.
func (f *flow) exchange(ctx context.Context, code string) (*Token, error) {
	t, err := f.config.Exchange(f.with(ctx), code, oauth2.VerifierOption(f.verifier))
	if err != nil {
		return nil, f.failed(ctx, err, code, f.verifier, f.Secret)
	}
	return f.granted(t)
}

// errTime is how an authorization ends that nobody brings to an end.
var errTime = errors.New("nobody signed in in time")

// Loopback signs in by a browser on this machine, which comes back to a port of
// ours (RFC 8252 7.3). show is called once, with the address to open; note, for
// each visit that is not from this sign-in. It ends with an error when patience
// does.
func (c Client) Loopback(ctx context.Context, patience time.Duration, show func(address string), note func(string)) (*Token, error) {
	c = c.fill()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	f := c.begin("http://" + c.host + ":" + port)
	visits := make(chan url.Values, 1)
	d := &doorkeeper{flow: f, port: port, visits: visits, note: note}
	srv := &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: nil}
	srv.SetKeepAlivesEnabled(false)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	show(f.url())
	waiting, cancel := context.WithTimeoutCause(ctx, patience, errTime)
	defer cancel()
	var q url.Values
	select {
	case q = <-visits:
	case err = <-served:
		return nil, err
	case <-waiting.Done():
		err = context.Cause(waiting)
	}
	// The page goes out before the port is closed.
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer done()
	if srv.Shutdown(closing) != nil {
		_ = srv.Close() // whoever is still there has had time
	}
	<-served
	if errors.Is(err, errTime) {
		err = fmt.Errorf("%w (%v); try again: %s", err, patience, c.login())
	}
	if err != nil {
		return nil, err
	}
	code, err := f.code(q)
	if err != nil {
		return nil, err
	}
	return f.exchange(ctx, code)
}

// doorkeeper lets one visitor in: the browser that comes back.
type doorkeeper struct {
	*flow
	port   string
	visits chan<- url.Values
	note   func(string)

	mu   sync.Mutex
	came bool
}

func (d *doorkeeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	say := func(status int, text string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text+"\n") // whoever does not listen does not matter
	}
	// Another name for this machine is somebody's trick (DNS rebinding).
	if r.Host != d.host+":"+d.port || r.Method != http.MethodGet || r.URL.Path != "/" {
		say(http.StatusNotFound, "There is nothing here.")
		return
	}
	q := r.URL.Query()
	if !d.mine(q) {
		say(http.StatusBadRequest, "This is not from the sign-in that the terminal is waiting for. Open the address that it shows.")
		d.note("a browser came back from another sign-in (its state differs), and was refused")
		return
	}
	d.mu.Lock()
	first := !d.came
	d.came = true
	d.mu.Unlock()
	if !first {
		say(http.StatusGone, "This sign-in is over.")
		return
	}
	if q.Get("error") != "" {
		say(http.StatusOK, "The sign-in was refused. You can close this page: the terminal says why.")
	} else {
		say(http.StatusOK, "You can close this page and go back to the terminal.")
	}
	d.visits <- q
}

// Paste signs in by a browser on another machine, where nobody listens at the
// address that it comes back to. show is called with the address to open; ask,
// for what the person has copied, until it is of use or ask has an error.
func (c Client) Paste(ctx context.Context, show func(address string), ask func(context.Context) (string, error), note func(string)) (*Token, error) {
	c = c.fill()
	f := c.begin("http://" + c.host + ":" + pastePort)
	show(f.url())
	for {
		text, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		code, err := f.pasted(text)
		if _, refused := errors.AsType[*Refusal](err); err == nil || refused {
			if err != nil {
				return nil, err
			}
			return f.exchange(ctx, code)
		}
		note(err.Error())
	}
}

// pastePort is in the address to come back to where nobody listens. Providers
// take any port; browsers refuse low ones without showing the address.
const pastePort = "53682"

// pasted finds the code in what a person has copied: the whole address, its query,
// or the code alone.
func (f *flow) pasted(text string) (string, error) {
	text = strings.Trim(strings.TrimSpace(text), `"'<>`)
	if text == "" {
		return "", errors.New("that is nothing; copy the whole address from the browser's address bar")
	}
	query := text
	if before, after, ok := strings.Cut(text, "?"); ok {
		if strings.HasPrefix(text, strings.SplitN(f.config.Endpoint.AuthURL, "?", 2)[0]) {
			return "", errors.New("that is the address to open, not the one that the browser ends at")
		}
		if before != "" && !strings.Contains(before, "://"+f.host) && !strings.HasPrefix(before, f.host) {
			return "", errors.New("that is the address of another page; it must begin with " + f.config.RedirectURL)
		}
		query, _, _ = strings.Cut(after, "#")
	}
	q, err := url.ParseQuery(query)
	if err == nil && (q.Has("code") || q.Has("error")) {
		if !f.mine(q) {
			return "", errors.New("that is from another sign-in (its state differs); open the address above")
		}
		return f.code(q)
	}
	// RFC 6749 A.11: any visible characters. It is of use with our verifier alone.
	if regexp.MustCompile(`^[A-Za-z0-9._~/+*!$%=|:,-]+$`).MatchString(text) && len(text) >= 10 && !strings.Contains(text, "://") {
		if plain, err := url.PathUnescape(text); err == nil {
			text = plain // as it stands in the address
		}
		return text, nil
	}
	return "", errors.New("that is neither the address that the browser ends at nor a code")
}

// Device signs in by a browser anywhere, where the person types a code (RFC 8628).
// show is called with where to go and what to type there.
func (c Client) Device(ctx context.Context, show func(address, code string, until time.Time)) (*Token, error) {
	c = c.fill()
	if c.DeviceURL == "" {
		return nil, &Refusal{Text: "this provider gives no device codes for mail", Next: "sign in without --device, or over ssh with --paste"}
	}
	conf, ctx2 := c.config(""), c.with(ctx)
	d, err := conf.DeviceAuth(ctx2)
	if err != nil {
		return nil, c.failedAt(ctx, "device_url", c.DeviceURL, err, c.Secret)
	}
	if d.DeviceCode == "" || d.UserCode == "" || d.VerificationURI == "" {
		return nil, fmt.Errorf("%s gave no device code; is device_url right?", site(c.DeviceURL))
	}
	if limit := time.Now().Add(maxDevice); d.Expiry.IsZero() || d.Expiry.After(limit) {
		d.Expiry = limit
	}
	show(clean(d.VerificationURI, nil), clean(d.UserCode, nil), d.Expiry)
	t, err := conf.DeviceAccessToken(ctx2, d)
	if err != nil && ctx.Err() == nil && !time.Now().Before(d.Expiry) {
		return nil, c.refusal("expired_token", "")
	}
	if err != nil {
		return nil, c.failed(ctx, err, d.DeviceCode, c.Secret)
	}
	return c.granted(t)
}

// maxDevice bounds how long a device code is waited for.
const maxDevice = 30 * time.Minute

// Revoke tells the provider that the tokens are of no more use (RFC 7009). told is
// false where it wants no such word.
func (c Client) Revoke(ctx context.Context, t *Token) (told bool, err error) {
	c = c.fill()
	secret := t.Refresh
	if secret == "" {
		secret = t.Access
	}
	if c.revokeURL == "" || t.TokenURL != c.TokenURL {
		return false, nil
	}
	form := url.Values{"token": {secret}, "client_id": {c.ID}}
	if c.Secret != "" {
		form.Set("client_secret", c.Secret)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.revokeURL, strings.NewReader(form.Encode()))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client, ok := c.with(ctx).Value(oauth2.HTTPClient).(*http.Client)
	if !ok {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil {
		return false, c.failed(ctx, err, secret, c.Secret)
	}
	_ = answer.Body.Close() // it is in memory
	// A token that it does not know any more is as good (RFC 7009 2.2), which
	// Google says by 400.
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusBadRequest {
		return false, fmt.Errorf("%s answers with HTTP status %d", site(c.revokeURL), answer.StatusCode)
	}
	return true, nil
}
