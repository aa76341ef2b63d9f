package oauth

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/oauth2"
)

// Refusal is why there is no token, in words: mostly what a provider refuses.
type Refusal struct {
	Text string // what happened
	Next string // what to do next
	// Letter is a text to send to who administers the accounts; "" if that is of
	// no use.
	Letter string
	// Passing tells that the same may well succeed later, though nobody signs in anew.
	Passing bool
}

// Error gives one line: what happened and what to do next.
func (r *Refusal) Error() string { return r.Text + "; " + r.Next }

// login is the command that signs in anew.
func (c Client) login() string { return cmp.Or(c.Command, "notmuch imap login "+c.Account) }

// failed puts an error of a request for a token in words. Secrets are what must not show
// in them.
func (c Client) failed(ctx context.Context, err error, secrets ...string) error {
	return c.failedAt(ctx, "token_url", c.TokenURL, err, secrets...)
}

// failedAt is failed for a request to the address that a key of the configuration has.
func (c Client) failedAt(ctx context.Context, key, address string, err error, secrets ...string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		if r.ErrorCode == "" {
			text := "no answer that can be read"
			if r.Response != nil {
				text = "HTTP status " + fmt.Sprint(r.Response.StatusCode)
			}
			return fmt.Errorf("%s answers with %s; try again later, or look at %s", site(address), text, key)
		}
		return c.refusal(r.ErrorCode, r.ErrorDescription, secrets...)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		text := u.Err.Error()
		if n, ok := errors.AsType[net.Error](u.Err); ok && n.Timeout() {
			text = "no answer within " + requestTime.String()
		}
		return fmt.Errorf("cannot reach %s: %s; is the network there?", site(u.URL), clean(text, secrets))
	}
	return fmt.Errorf("%s: %s", site(address), clean(strings.TrimPrefix(err.Error(), "oauth2: "), secrets))
}

// site is where an URL leads, without what may be secret in it.
func site(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the provider"
	}
	return u.Host
}

// clean gives a provider's words in one bounded line without secrets.
func clean(text string, secrets []string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.NewReplacer(s, "***", url.QueryEscape(s), "***").Replace(text)
		}
	}
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "..."
	}
	return text
}

// refusal puts an error code (RFC 6749 4.1.2.1 and 5.2, RFC 8628 3.5) and what
// the provider says of it in words. Microsoft's numbers tell more than the code.
func (c Client) refusal(code, description string, secrets ...string) *Refusal {
	number := regexp.MustCompile(`AADSTS[0-9]{4,8}`).FindString(description)
	// What follows are identifiers for Microsoft's own people.
	description, _, _ = strings.Cut(description, "Trace ID:")
	said := clean(code, secrets)
	if description != "" {
		said += ": " + clean(description, secrets)
	}
	r := &Refusal{Text: "the provider refuses (" + said + ")", Next: "sign in anew: " + c.login()}
	is := func(numbers ...string) bool {
		for _, n := range numbers {
			if number == "AADSTS"+n {
				return true
			}
		}
		return false
	}
	switch {
	case is("53003", "53000", "53001", "53002", "530034", "530036"):
		r.Text = "a rule of your organisation (conditional access) forbids this sign-in (" + said + ")"
		r.Next = "sign in on a computer that it manages, and not by --device, which many forbid; else ask its administrator to permit this client"
		r.Letter = c.letter("Please permit it in the rules for conditional access, or tell me which devices may use it.")
	case is("90094", "90095", "900971"):
		r.Text = "this client needs the consent of an administrator of your organisation (" + said + ")"
		r.Next = "an administrator can give it at " + c.consentURL()
		r.Letter = c.letter("Please consent to it for me, or for all, at\n" + c.consentURL())
	case is("65001") || code == "consent_required":
		r.Text = "nobody has consented yet to what this client asks for (" + said + ")"
		r.Next = "consent at the provider's page: " + c.login() + "; if you may not, an administrator can at " + c.consentURL()
		r.Letter = c.letter("Please consent to it for me, or for all, at\n" + c.consentURL())
	case is("7000218"):
		r.Text = "the client is not registered as a public one (" + said + ")"
		r.Next = "set \"Allow public client flows\" to yes in its registration, or set client_secret"
	case is("50011", "500113") || strings.Contains(description, "redirect_uri") || code == "redirect_uri_mismatch":
		r.Text = "the address to come back to is not registered for this client (" + said + ")"
		r.Next = "add http://" + c.fill().host + " to the redirect URIs of its registration, as one of a desktop application"
	case is("700016", "90002", "50059", "50194") || code == "invalid_client" || code == "unauthorized_client":
		r.Text = "the provider does not know this client, or not for this (" + said + ")"
		r.Next = "look at client_id, client_secret and tenant in the configuration"
	case is("65004") || code == "access_denied":
		r.Text = "the sign-in was denied at the provider's page (" + said + ")"
		r.Next = "try again, and consent: " + c.login()
	case code == "expired_token" || code == "authorization_expired":
		r.Text = "the code has expired before it was entered (" + said + ")"
		r.Next = "try again: " + c.login()
	case code == "invalid_scope" || is("70011", "650053"):
		r.Text = "the provider has no such scopes for this client (" + said + ")"
		r.Next = "it must be permitted " + strings.Join(c.fill().Scopes, " ")
	case code == "invalid_grant":
		r.Text = "the sign-in has expired or was revoked (" + said + ")"
		if c.Provider == "google" {
			r.Next += " (while a client's project is in \"Testing\", that is so every 7 days: publish it)"
		}
	case code == "slow_down" || code == "temporarily_unavailable" || code == "server_error":
		r.Text = "the provider asks to wait (" + said + ")"
		r.Next, r.Passing = "try again later", true
	}
	return r
}

// consentURL is where an administrator of a Microsoft tenant gives consent.
func (c Client) consentURL() string {
	u, err := url.Parse(c.fill().AuthURL)
	if err != nil || c.Provider != "microsoft" {
		return "the provider's page for administrators"
	}
	u.Path = strings.Replace(u.Path, "/oauth2/v2.0/", "/oauth2/", 1)
	u.RawQuery = "client_id=" + url.QueryEscape(c.ID) + "&response_type=code&prompt=admin_consent"
	return u.String()
}

// letter is a text to send to an administrator.
func (c Client) letter(ask string) string {
	return "Hello,\n\nI would like to read my mail (" + c.User + ") by IMAP with notmuch-imap, a free program that runs on my computer\nand keeps a copy of my mailbox there. It signs in as the client " + c.ID +
		" and asks, as me,\nfor these permissions alone: " + strings.Join(c.fill().Scopes, " ") + "\n" + ask + "\n\nThank you."
}

// claims are those of a JWT (RFC 7519) that tell what it is for.
type claims struct {
	Aud any    `json:"aud"` // a string or a list
	Scp string `json:"scp"` // Microsoft's scopes
	Exp int64  `json:"exp"` // seconds
}

// decode reads what a token tells of itself, without a check of its signature:
// it serves words alone. Many providers' tokens tell nothing.
func decode(token string) (k claims, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return k, false
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	return k, err == nil && json.Unmarshal(text, &k) == nil
}

// audience names what tokens of Microsoft are for.
func audience(aud string) string {
	switch strings.TrimSuffix(strings.ToLower(aud), "/") {
	case "https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000":
		return "Graph"
	case "https://outlook.office.com", "https://outlook.office365.com", "00000002-0000-0ff1-ce00-000000000000":
		return ""
	}
	return clean(aud, nil)
}

// Explain says what makes a token useless at the mail server; "" if nothing does
// that can be seen.
func (c Client) Explain(t *Token, now time.Time) string {
	if why := c.fill().misfit(t); why != "" {
		return why
	}
	expiry := t.Expiry
	if k, ok := decode(t.Access); ok && k.Exp > 0 {
		expiry = time.Unix(k.Exp, 0)
	}
	if !expiry.IsZero() && !now.Before(expiry) {
		return "this token expired at " + when(expiry, now)
	}
	return ""
}

// misfit says why a token is not one for mail, by what it and the provider tell
// of it; "" if it may be one.
func (c Client) misfit(t *Token) string {
	k, _ := decode(t.Access)
	if aud, ok := k.Aud.(string); ok && c.Provider == "microsoft" {
		if of := audience(aud); of != "" {
			return "this token is for " + of + ", not for IMAP"
		}
	}
	for _, scopes := range []string{k.Scp, t.Scope} {
		if c.needs != "" && scopes != "" && !strings.Contains(strings.ToLower(scopes), strings.ToLower(c.needs)) {
			return "this token is not for IMAP: it is for " + clean(scopes, []string{t.Access, t.Refresh}) + ", without " + c.needs
		}
	}
	return ""
}

// when gives a time of today as the clock shows it, others with their date.
func when(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}
