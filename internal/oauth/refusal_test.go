package oauth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
)

// TestRefusals: each has its words, its next step, and shows no secret.
func TestRefusals(t *testing.T) {
	client := Client{Provider: "microsoft", ID: "1234", Account: "work", User: "me@corp.example"}
	const consent = "https://login.microsoftonline.com/common/oauth2/authorize?client_id=1234&response_type=code&prompt=admin_consent"
	for _, c := range []struct {
		code, description string
		text, next        string
		letter            string
	}{
		{"invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.\r\nTrace ID: 5 Timestamp: 6", "the sign-in has expired or was revoked", "notmuch imap login work", ""},
		{"invalid_grant", "AADSTS50173: The provided grant has expired due to it being revoked.", "expired or was revoked", "notmuch imap login work", ""},
		{"invalid_grant", "", "expired or was revoked", "notmuch imap login work", ""},
		{"access_denied", "AADSTS53003: Access has been blocked by Conditional Access policies.", "conditional access", "not by --device", "conditional access"},
		{"invalid_grant", "AADSTS65001: The user or administrator has not consented to use the application", "nobody has consented", consent, consent},
		{"access_denied", "AADSTS90094: The grant requires admin permission.", "consent of an administrator", consent, consent},
		{"invalid_client", "AADSTS7000218: The request body must contain client_assertion or client_secret", "not registered as a public one", "Allow public client flows", ""},
		{"invalid_request", "AADSTS50011: The redirect URI does not match", "not registered for this client", "http://localhost", ""},
		{"unauthorized_client", "AADSTS700016: Application was not found in the directory", "does not know this client", "tenant", ""},
		{"access_denied", "the user said no", "denied at the provider's page", "consent", ""},
		{"invalid_scope", "", "no such scopes", "IMAP.AccessAsUser.All", ""},
		{"something_new", "with \x1b[31m words\nand lines", "the provider refuses (something_new: with [31m words and lines)", "notmuch imap login work", ""},
		{"invalid_grant", "the token s3cret is bad", "the token *** is bad", "login", ""},
	} {
		r := client.refusal(c.code, c.description, "s3cret")
		if !strings.Contains(r.Text, c.text) || !strings.Contains(r.Next, c.next) || !strings.Contains(r.Letter, c.letter) || (c.letter == "") != (r.Letter == "") ||
			strings.ContainsAny(r.Error(), "\n\x1b") || strings.Contains(r.Error()+r.Letter, "s3cret") || strings.Contains(r.Error(), "Trace ID") {
			t.Errorf("%s, %s: %q; letter %q", c.code, c.description, r, r.Letter)
		}
	}
	if r := (Client{Provider: "google"}).refusal("invalid_grant", "Token has been expired or revoked."); !strings.Contains(r.Next, "7 days") {
		t.Errorf("Google's: %v", r)
	}
}

// TestExplain: what a token tells of itself.
func TestExplain(t *testing.T) {
	now := time.Date(2026, 11, 28, 14, 30, 0, 0, time.Local)
	jwt := func(aud, scp string, exp time.Time) string {
		return imaptest.JWT(fmt.Sprintf(`{"aud":%q,"scp":%q,"exp":%d}`, aud, scp, exp.Unix()))
	}
	later := now.Add(time.Hour)
	microsoft, google := Client{Provider: "microsoft"}, Client{Provider: "google"}
	const all = "IMAP.AccessAsUser.All"
	for _, c := range []struct {
		name   string
		client Client
		token  Token
		want   string
	}{
		{"good", microsoft, Token{Access: jwt("https://outlook.office.com", all, later)}, ""},
		{"good by another name", microsoft, Token{Access: jwt("00000002-0000-0ff1-ce00-000000000000", "email "+all, later)}, ""},
		{"for Graph", microsoft, Token{Access: jwt("https://graph.microsoft.com", "Mail.Read", later)}, "this token is for Graph, not for IMAP"},
		{"for Graph by its number", microsoft, Token{Access: jwt("00000003-0000-0000-c000-000000000000", all, later)}, "this token is for Graph, not for IMAP"},
		{"for something else", microsoft, Token{Access: jwt("api://x", all, later)}, "this token is for api://x, not for IMAP"},
		{"another scope", microsoft, Token{Access: jwt("https://outlook.office.com", "POP.AccessAsUser.All", later)}, "this token is not for IMAP: it is for POP.AccessAsUser.All, without IMAP.AccessAsUser.All"},
		{"expired", microsoft, Token{Access: jwt("https://outlook.office.com", all, now.Add(-25*time.Minute))}, "this token expired at 14:05"},
		{"expired yesterday", microsoft, Token{Access: jwt("https://outlook.office.com", all, now.AddDate(0, 0, -1))}, "this token expired at 2026-11-27 14:30"},
		{"tells nothing, expired", google, Token{Access: "ya29.x", Expiry: now.Add(-time.Minute)}, "this token expired at 14:29"},
		{"granted less", google, Token{Access: "ya29.x", Scope: "openid email", Expiry: later}, "this token is not for IMAP: it is for openid email, without https://mail.google.com/"},
		{"granted", google, Token{Access: "ya29.x", Scope: "https://mail.google.com/", Expiry: later}, ""},
		{"another provider", Client{}, Token{Access: jwt("https://graph.microsoft.com", "x", later), Scope: "y"}, ""},
		{"a list of audiences", microsoft, Token{Access: imaptest.JWT(`{"aud":["a","b"]}`)}, ""},
		{"no JWT", microsoft, Token{Access: "a.b.c"}, ""},
	} {
		if got := c.client.Explain(&c.token, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRegistering: two sentences each, and what else there is.
func TestRegistering(t *testing.T) {
	for _, name := range Providers() {
		text := Registering(name)
		c := Client{Provider: name}.fill()
		if !strings.Contains(text, "client_id") || !strings.Contains(text, "app password") || c.AuthURL == "" || c.TokenURL == "" || len(c.Scopes) == 0 || c.needs == "" || c.ID != "" {
			t.Errorf("%s: %q %+v", name, text, c)
		}
	}
}
