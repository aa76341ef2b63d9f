package config

import (
	"reflect"
	"strings"
	"testing"
)

// TestOAuth: the tables that can be, and one line for each that cannot.
func TestOAuth(t *testing.T) {
	t.Parallel()
	const head = "[account.a]\nhost = \"h\"\nuser = \"u\"\n"
	const urls = `auth_url = "https://l/a", token_url = "https://l/t", scopes = ["s"]`
	for _, c := range []struct {
		text string
		want OAuth
		err  string
	}{
		{text: `oauth = { provider = "microsoft", client_id = "x", tenant = "corp.example" }`, want: OAuth{Provider: "microsoft", ClientID: "x", Tenant: "corp.example"}},
		{text: `oauth = { provider = "google", client_id = "x", client_secret = "y" }`, want: OAuth{Provider: "google", ClientID: "x", ClientSecret: "y"}},
		{text: `oauth = { client_id = "x", ` + urls + `, device_url = "http://127.0.0.1:1/d" }`,
			want: OAuth{ClientID: "x", AuthURL: "https://l/a", TokenURL: "https://l/t", DeviceURL: "http://127.0.0.1:1/d", Scopes: []string{"s"}}},
		{text: `oauth = "microsoft"`, err: `account.a.oauth: must be a table: oauth = { provider = "microsoft", client_id = "..." }`},
		{text: `oauth = { provider = "microsoft" }`, err: `account.a.oauth.client_id: is missing`},
		{text: `oauth = { provider = "yahoo", client_id = "x" }`, err: `account.a.oauth.provider: "yahoo" is not one of "fastmail", "google", "microsoft"`},
		{text: `oauth = { provider = "google", client_id = "x", tenant = "t" }`, err: `account.a.oauth.tenant: is for provider = "microsoft"`},
		{text: `oauth = { provider = "microsoft", client_id = "x", tenant = "../t" }`, err: `account.a.oauth.tenant: "../t" is neither a domain nor an id`},
		{text: `oauth = { client_id = "x", token_url = "https://l/t", scopes = ["s"] }`, err: `account.a.oauth.auth_url: is missing; or set provider to one of`},
		{text: `oauth = { client_id = "x", ` + strings.Replace(urls, "https://l/t", "http://l/t", 1) + ` }`, err: `account.a.oauth.token_url: must begin with https://`},
		{text: `oauth = { client_id = "x", ` + strings.Replace(urls, "https://l/a", "l/a", 1) + ` }`, err: `account.a.oauth.auth_url: is no address`},
		{text: `oauth = { client_id = "x", ` + strings.Replace(urls, `"s"`, `"s t"`, 1) + ` }`, err: `account.a.oauth.scopes: "s t" is no scope`},
		{text: `oauth = { provider = "google", client_id = "x", token = "hunter2" }`, err: `account.a.oauth.token: a token does not belong in this file; notmuch imap login gets it and keeps it`},
		{text: `oauth = { provider = "google", client_ids = "x", client_id = "x" }`, err: `account.a.oauth.client_ids: unknown key; did you mean "client_id"?`},
		{text: "auth = \"plain\"\noauth = { provider = \"google\", client_id = \"x\" }", err: `account.a.auth: "plain" signs in with a password; with oauth it is "oauthbearer", "xoauth2" or left out`},
		{text: "keyring = true\noauth = { provider = \"google\", client_id = \"x\" }", err: `account.a.oauth: there is keyring already`},
	} {
		got, err := parse("c.toml", []byte(head+c.text+"\n"), func(string) string { return "" })
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: got %v, want %s", c.text, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.text, err)
		case !reflect.DeepEqual(*got.Accounts[0].OAuth, c.want):
			t.Errorf("%s: %+v", c.text, *got.Accounts[0].OAuth)
		}
	}
}
