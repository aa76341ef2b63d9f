package imaptest

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Authorizer is an authorization server (RFC 6749, 7636, 8628) whose users consent
// to everything at once, and the judge of its tokens for a mail server. Its fields
// are the test's before it is used, and under With afterwards.
type Authorizer struct {
	Lifetime time.Duration // of access tokens; 0 is an hour
	Rotate   bool          // a refresh token is good once
	Scope    string        // what is said to be granted; "" is not said
	// Mint makes an access token; nil makes one that tells nothing.
	Mint func(n int) string
	// Refuse are the answers of the token endpoint, each given once: an error code
	// and a description. An empty code is no refusal.
	Refuse [][2]string
	// Deny is what the browser comes back with instead of a code.
	Deny [2]string
	// NoRefresh gives no refresh tokens.
	NoRefresh bool
	// Pause is called before the token endpoint answers.
	Pause func(*http.Request)

	mu      sync.Mutex
	n       int
	codes   map[string]url.Values // code -> what it was asked for with
	device  string
	access  map[string]bool // false: was good once
	refresh map[string]bool
	given   []string // all secrets that went out or in
	grants  []string // what the token endpoint was asked for
}

// With lets a test look at the server or change it.
func (a *Authorizer) With(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do()
}

// Secrets are all that must not be seen anywhere but where tokens are kept.
func (a *Authorizer) Secrets() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.given)
}

// Grants are the grant types that the token endpoint was asked for, in order.
func (a *Authorizer) Grants() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.grants)
}

// Expire makes all access tokens so far worthless at the mail server.
func (a *Authorizer) Expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
}

func (a *Authorizer) expire() {
	for t := range a.access {
		a.access[t] = false
	}
}

// Good tells whether the mail server takes a token.
func (a *Authorizer) Good(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.access[token]
}

func (a *Authorizer) secret(kind string) string {
	s := kind + "-" + rand.Text()
	a.given = append(a.given, s)
	return s
}

// ServeHTTP serves /authorize, /token and /device.
func (a *Authorizer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/token" && a.Pause != nil {
		a.Pause(r)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r.URL.Path {
	case "/authorize":
		back := url.Values{"state": {r.Form.Get("state")}}
		if a.Deny[0] != "" {
			back.Set("error", a.Deny[0])
			back.Set("error_description", a.Deny[1])
		} else {
			code := a.secret("code")
			if a.codes == nil {
				a.codes = make(map[string]url.Values)
			}
			a.codes[code] = r.Form
			back.Set("code", code)
		}
		http.Redirect(w, r, r.Form.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	case "/device":
		a.device = a.secret("device")
		answer(w, http.StatusOK, map[string]any{"device_code": a.device, "user_code": "WDJB-MJHT", "verification_uri": "https://login.example.org/device", "expires_in": 60, "interval": 5})
	case "/token":
		a.token(w, r.PostForm)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func answer(w http.ResponseWriter, status int, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever does not listen does not matter
}

func (a *Authorizer) token(w http.ResponseWriter, q url.Values) {
	grant := q.Get("grant_type")
	a.grants = append(a.grants, grant)
	for _, k := range []string{"code_verifier", "client_secret"} {
		if s := q.Get(k); s != "" {
			a.given = append(a.given, s)
		}
	}
	refuse := func(code, description string) {
		answer(w, http.StatusBadRequest, map[string]any{"error": code, "error_description": description})
	}
	if len(a.Refuse) > 0 {
		now := a.Refuse[0]
		a.Refuse = a.Refuse[1:]
		if now[0] != "" {
			refuse(now[0], now[1])
			return
		}
	}
	switch grant {
	case "authorization_code":
		asked, ok := a.codes[q.Get("code")]
		delete(a.codes, q.Get("code"))
		sum := sha256.Sum256([]byte(q.Get("code_verifier")))
		if !ok || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || asked.Get("code_challenge_method") != "S256" ||
			asked.Get("redirect_uri") != q.Get("redirect_uri") || asked.Get("client_id") != q.Get("client_id") {
			refuse("invalid_grant", "the code "+q.Get("code")+" is not for this")
			return
		}
	case "refresh_token":
		old := q.Get("refresh_token")
		if !a.refresh[old] {
			refuse("invalid_grant", "the refresh token "+old+" is of no use")
			return
		}
		if a.Rotate {
			a.refresh[old] = false
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		if q.Get("device_code") != a.device {
			refuse("invalid_grant", "no such device code")
			return
		}
	default:
		refuse("unsupported_grant_type", grant)
		return
	}
	if a.access == nil {
		a.access, a.refresh = make(map[string]bool), make(map[string]bool)
	}
	a.n++
	token := a.secret("access")
	if a.Mint != nil {
		token = a.Mint(a.n)
		a.given = append(a.given, token)
	}
	a.access[token] = true
	out := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(cmp.Or(a.Lifetime, time.Hour).Seconds())}
	if a.Scope != "" {
		out["scope"] = a.Scope
	}
	if !a.NoRefresh && (grant != "refresh_token" || a.Rotate) {
		refresh := a.secret("refresh")
		a.refresh[refresh] = true
		out["refresh_token"] = refresh
	}
	answer(w, http.StatusOK, out)
}

// Bearer makes a Script one that takes the authorizer's tokens and no passwords,
// for its capabilities that begin with AUTH=. refuse gives what it says to a user
// with a good token, "" to let that in; nil lets all in. cut is called for each
// FETCH of a body, and has the connection closed if it says so; nil closes none.
func (a *Authorizer) Bearer(refuse func(user string) string, cut func() bool) *Fault {
	return &Fault{Command: func(c *scriptConn, command, args string) (bool, error) {
		switch {
		case command == "UID FETCH" && strings.Contains(args, "BODY.PEEK[]") && cut != nil && cut():
			return true, errHangUp
		case command == "LOGIN":
			c.final = "NO [AUTHENTICATIONFAILED] passwords are switched off"
			return true, nil
		case command != "AUTHENTICATE":
			return false, nil
		}
		name, response, _ := strings.Cut(args, " ")
		said, err := base64.StdEncoding.DecodeString(response)
		user, token := "", ""
		for part := range strings.SplitSeq(string(said), "\x01") {
			if u, ok := strings.CutPrefix(part, "user="); ok && name == "XOAUTH2" {
				user = u
			}
			if u, ok := strings.CutPrefix(part, "n,a="); ok && name == "OAUTHBEARER" {
				user = strings.TrimSuffix(u, ",")
			}
			if t, ok := strings.CutPrefix(part, "auth=Bearer "); ok {
				token = t
			}
		}
		switch {
		case err != nil || user == "" || !strings.Contains(c.s.Caps, "AUTH="+name):
			c.final = "BAD that is no sign-in"
		case !a.Good(token):
			c.send("+ %s\r\n", base64.StdEncoding.EncodeToString([]byte(`{"status":"400","schemes":"Bearer","scope":"https://mail.example.org/"}`)))
			if err := c.w.Flush(); err != nil {
				return true, err
			}
			if _, err := c.r.ReadString('\n'); err != nil {
				return true, err
			}
			c.final = "NO [AUTHENTICATIONFAILED] AUTHENTICATE failed."
		default:
			if refuse != nil {
				if c.final = refuse(user); c.final != "" {
					return true, nil
				}
			}
			c.final = "OK [CAPABILITY " + c.s.Caps + "] signed in"
		}
		return true, nil
	}}
}

// JWT makes a token that tells these claims, with a signature that nobody can
// check.
func JWT(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf("%s.%s.%s", encode([]byte(`{"alg":"RS256","typ":"JWT"}`)), encode([]byte(claims)), encode([]byte(rand.Text())))
}
