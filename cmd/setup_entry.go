package cmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
)

// entry is the table of a new account. What is as the program's default is not
// written.
type entry struct {
	Name, Host, TLS, User string
	Port                  int
	Pin, CAFile           string
	Command               []string
	File                  string
	Keyring               bool
	OAuth                 *config.OAuth // nil if a password is used
	Connections           int
	Mailboxes             []string
	Trash                 string
	Tags                  []config.TagRule
	imported
}

// imported is what only an account of another program has.
type imported struct {
	Plaintext       bool
	Auth, Cert, Key string
	Tunnel          []string
	Folder, Timeout string
	Layout          string
	ReadOnly        bool
	Deletions       string
	Comments        []string // lines before all others
}

// keptNowhere tells whether the way to the password is not known yet.
func (e *entry) keptNowhere() bool {
	return len(e.Command) == 0 && e.File == "" && !e.Keyring && e.OAuth == nil
}

// text is the table as it goes into the file.
func (e *entry) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, c := range e.Comments {
		line("# %s", c)
	}
	line("[account.%s]", key(e.Name))
	if e.Host != "" || len(e.Tunnel) == 0 {
		line("host = %s", value(e.Host))
	}
	if e.Port != 0 && e.Port != usualPort(e.TLS) {
		line("port = %d", e.Port)
	}
	if e.TLS != string(config.TLSImplicit) && (len(e.Tunnel) == 0 || e.TLS != string(config.TLSNone)) {
		line("tls = %s", value(e.TLS))
	}
	if e.Plaintext {
		line("allow_plaintext = true")
	}
	if e.CAFile != "" {
		line("tls_ca_file = %s", value(e.CAFile))
	}
	if e.Pin != "" {
		line("tls_pin = %s", value(e.Pin))
	}
	if e.Cert != "" {
		line("tls_cert = %s", value(e.Cert))
	}
	if e.Key != "" {
		line("tls_key = %s", value(e.Key))
	}
	if len(e.Tunnel) > 0 {
		line("tunnel = %s", values(e.Tunnel))
	}
	line("user = %s", value(e.User))
	if e.Auth != "" {
		line("auth = %s", value(e.Auth))
	}
	switch {
	case len(e.Command) > 0:
		line("password_command = %s", values(e.Command))
	case e.File != "":
		line("password_file = %s", value(e.File))
	case e.Keyring:
		line("keyring = true")
	case e.OAuth != nil:
		line("oauth = { %s }", strings.Join(client(e.OAuth), ", "))
	}
	if e.Connections > 0 && e.Connections != defaultConnections {
		line("connections = %d", e.Connections)
	}
	if len(e.Mailboxes) > 0 {
		line("mailboxes = %s", values(e.Mailboxes))
	}
	if e.Folder != "" {
		line("folder = %s", value(e.Folder))
	}
	if e.Layout != "" {
		line("layout = %s", value(e.Layout))
	}
	if e.Timeout != "" {
		line("timeout = %s", value(e.Timeout))
	}
	if e.ReadOnly {
		line("read_only = true")
	}
	if e.Deletions != "" {
		line("deletions = %s", value(e.Deletions))
	}
	if e.Trash != "" {
		line("trash = %s", value(e.Trash))
	}
	if len(e.Tags) > 0 {
		line("\n[account.%s.tags]", key(e.Name))
		for _, r := range e.Tags {
			line("%s = %s", value(r.Pattern), values(r.Tags))
		}
	}
	return b.String()
}

// client are the keys of a client of OAuth.
func client(o *config.OAuth) (keys []string) {
	for _, k := range []struct{ key, text string }{
		{"provider", o.Provider}, {"tenant", o.Tenant}, {"client_id", o.ClientID}, {"client_secret", o.ClientSecret},
		{"auth_url", o.AuthURL}, {"token_url", o.TokenURL}, {"device_url", o.DeviceURL},
	} {
		if k.text != "" {
			keys = append(keys, k.key+" = "+value(k.text))
		}
	}
	if len(o.Scopes) > 0 {
		keys = append(keys, "scopes = "+values(o.Scopes))
	}
	return keys
}

// shown is the table without the client's secret, for a screen.
func (e entry) shown() string {
	if e.OAuth != nil && e.OAuth.ClientSecret != "" {
		o := *e.OAuth
		o.ClientSecret, e.OAuth = "(not shown)", &o
	}
	return e.text()
}

// defaultConnections is what the configuration has if it says nothing.
const defaultConnections = 3

// key writes a table's name, without quotes where TOML wants none.
func key(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return value(s)
	}
	return s
}

// value writes a string as TOML has it.
func value(s string) string {
	out, err := toml.Marshal(map[string]string{"v": s})
	if err != nil {
		return `""` // it is no UTF-8; that it is wrong the configuration's reader says
	}
	quoted := strings.TrimSpace(strings.TrimPrefix(string(out), "v = "))
	// The usual form of quotes where both would do.
	if inner := strings.Trim(quoted, "'"); quoted == "'"+inner+"'" && !strings.ContainsAny(inner, `\"`) {
		quoted = `"` + inner + `"`
	}
	return quoted
}

func values(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, value(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// proposal is what mail in a mailbox of a certain use is tagged with.
type proposal struct {
	use   string // special use (RFC 6154)
	names []string
	tags  []string
}

// calls tells whether a mailbox has one of the usual names.
func (p proposal) calls(m mail.Mailbox) bool {
	last := m.Name
	if m.Delim != 0 {
		last = last[strings.LastIndex(last, string(m.Delim))+1:]
	}
	return last != "" && slices.Contains(p.names, strings.ToLower(last))
}

// proposals are the tags that notmuch users give these mailboxes, since new mail
// gets inbox and unread otherwise.
func proposals(preset provider.Preset) []proposal {
	list := []proposal{
		{`\Sent`, []string{"sent", "sent items", "sent messages", "sent mail", "gesendet"}, []string{"+sent", "-inbox", "-unread"}},
		{`\Drafts`, []string{"drafts", "draft", "entwürfe"}, []string{"+draft", "-inbox", "-unread"}},
		{`\Archive`, []string{"archive", "archives", "archiv"}, []string{"+archive", "-inbox"}},
		{`\All`, nil, []string{"+archive", "-inbox"}},
		{`\Trash`, []string{"trash", "deleted items", "deleted messages", "papierkorb"}, []string{"+trash", "-inbox", "-unread"}},
		{`\Junk`, []string{"junk", "spam", "junk e-mail", "junk email", "bulk mail", "bulk"}, []string{"+spam", "-inbox", "-unread"}},
	}
	for i := range list {
		switch list[i].use {
		case `\Archive`:
			list[i].names = append(list[i].names, strings.ToLower(preset.Archive))
		case `\Trash`:
			list[i].names = append(list[i].names, strings.ToLower(preset.Trash))
		}
	}
	return list
}

// trashOf gives the mailbox that is the Trash by its name where a sync would find
// none: the server marks none, and none is called as it usually is. "" elsewhere.
func trashOf(boxes []mail.Mailbox, preset provider.Preset) string {
	if mail.Trash(boxes) != "" {
		return ""
	}
	for _, p := range proposals(preset) {
		for _, m := range boxes {
			if p.use == `\Trash` && !m.Odd && p.calls(m) {
				return m.Name
			}
		}
	}
	return ""
}

// tagRules proposes tags for the server's mailboxes: by what the server says a
// mailbox is for or, where it marks none for that, by the names that are usual.
// What the provider calls its Trash and its archive counts as such a name.
func tagRules(boxes []mail.Mailbox, preset provider.Preset) (rules []config.TagRule) {
	// A name in which the configuration would see a pattern is left out.
	plain := func(m mail.Mailbox) bool {
		return (m.Selectable() || parent(m, boxes)) && m.Name != "" && !strings.ContainsAny(m.Name, "*%") && m.Name[0] != '!'
	}
	for _, p := range proposals(preset) {
		var of []string
		for _, m := range boxes {
			if plain(m) && slices.ContainsFunc(m.Attrs, func(a string) bool { return strings.EqualFold(a, p.use) }) {
				of = append(of, whole(m))
			}
		}
		for _, m := range boxes {
			if len(of) == 0 && plain(m) && p.calls(m) {
				of = append(of, whole(m))
			}
		}
		for _, name := range of {
			rules = append(rules, config.TagRule{Pattern: name, Tags: p.tags})
		}
	}
	return rules
}

// parent tells whether a mailbox has one below it that can be selected.
func parent(m mail.Mailbox, boxes []mail.Mailbox) bool {
	return m.Delim != 0 && slices.ContainsFunc(boxes, func(b mail.Mailbox) bool {
		return b.Selectable() && strings.HasPrefix(b.Name, m.Name+string(m.Delim))
	})
}

// whole is the pattern of a mailbox or, if it holds no mail itself, of those below it.
func whole(m mail.Mailbox) string {
	if m.Selectable() {
		return m.Name
	}
	return m.Name + string(m.Delim) + "*"
}
