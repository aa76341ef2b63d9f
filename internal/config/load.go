package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Bounds of the values.
const (
	maxFile        = 1 << 20
	maxConnections = 10
	maxLogDays     = 3650
	atticSize      = 1 << 30
	// MaxIndexWorkers: each takes a core, and some memory.
	MaxIndexWorkers = 16
	minTimeout      = time.Second
	maxTimeout      = time.Hour
	maxTag          = 200 // NOTMUCH_TAG_MAX
)

// Load reads the file; getenv gives the environment that it speaks of. An error is Errors:
// everything that is wrong, by line.
func Load(file string, getenv func(string) string) (*Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, unreadable(file, err)
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(file, err)
	}
	if len(text) > maxFile {
		return nil, Errors{{File: file, Text: "larger than 1 MiB: that is no configuration"}}
	}
	return parse(file, text, getenv)
}

// reader checks a decoded file and collects what is wrong with it.
type reader struct {
	file   string
	getenv func(string) string
	lines  positions
	errs   Errors
}

// ErrNoAccount is the cause of the error for a configuration that has no account.
var ErrNoAccount = errors.New("no account")

// parse is Load without the disk.
func parse(file string, text []byte, getenv func(string) string) (*Config, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as some editors begin a file
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, Errors{syntaxError(file, err)}
	}
	r := &reader{file: file, getenv: getenv, lines: locate(text)}
	c := r.config(tree)
	if len(r.errs) > 0 {
		slices.SortStableFunc(r.errs, func(a, b *Error) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
		})
		return nil, r.errs
	}
	return c, nil
}

func syntaxError(file string, err error) *Error {
	e := &Error{File: file, Err: err, Text: strings.TrimPrefix(err.Error(), "toml: ")}
	if d, ok := errors.AsType[*toml.DecodeError](err); ok {
		e.Line, _ = d.Position()
	}
	return e
}

func (r *reader) fail(key []string, format string, args ...any) {
	r.errs = append(r.errs, &Error{File: r.file, Line: r.lines.line(key), Key: dotted(key), Text: fmt.Sprintf(format, args...)})
}

func (r *reader) config(tree map[string]any) *Config {
	c := &Config{Path: r.file}
	for _, k := range slices.Sorted(maps.Keys(tree)) {
		switch k {
		case "account", "hook":
		case "hooks":
			r.fail([]string{k}, "a hook is written as [[hook]]")
		case "accounts":
			r.fail([]string{k}, "an account is written as [account.NAME]")
		default:
			r.unknown([]string{k}, []string{"account", "hook"}, "an account is written as [account.NAME]")
		}
	}
	accounts, ok := tree["account"].(map[string]any)
	switch {
	case !ok && tree["account"] != nil:
		r.fail([]string{"account"}, "an account needs a name: [account.NAME]")
	case len(accounts) == 0 && len(r.errs) == 0:
		r.errs = append(r.errs, &Error{File: r.file, Text: "no account; one begins with [account.NAME]", Err: ErrNoAccount})
	}
	for _, name := range r.lines.under("account") {
		key := []string{"account", name}
		table, ok := accounts[name].(map[string]any)
		if !ok {
			if accounts != nil {
				r.fail(key, "an account is a table and needs a name: [account.NAME]")
			}
			continue
		}
		if why := badName(name); why != "" {
			r.fail(key, "the account's name %s", why)
		}
		c.Accounts = append(c.Accounts, r.account(name, table))
	}
	r.apart(c.Accounts)
	hooks := r.hooks(tree["hook"])
	orders := orderTags(c.Accounts)
	for i := range c.Accounts {
		c.Accounts[i].Hooks, c.Accounts[i].OrderTags = hooks, orders
	}
	return c
}

// orderTags gives the tags by which something is ordered in any of the accounts.
func orderTags(accounts []Account) []string {
	var out []string
	for _, a := range accounts {
		out = append(out, a.RetryTag, a.DropTag, a.DeletedTag)
		for _, m := range a.Moves {
			out = append(out, m.With, m.Without)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(t string) bool { return t == "" })
}

// keys are an account's, in the order of the manual page.
func keys() []string {
	return []string{"host", "port", "tls", "allow_plaintext", "tls_ca_file", "tls_pin", "tls_server_name", "tls_legacy", "tls_cert", "tls_key", "tunnel", "proxy", "user", "auth", "password_command", "password_file",
		"keyring", "oauth", "mailboxes", "watch", "folder", "layout", "timeout", "connections", "log_days", "attic_days", "attic_size", "index_workers", "disable_extensions", "tags", "retry_tag", "drop_tag", "read_only", "deletions", "trash", "deleted_tag", "keywords", "moves"}
}

func (r *reader) account(name string, table map[string]any) Account {
	t := &section{r: r, key: []string{"account", name}, values: table}
	for _, k := range slices.Sorted(maps.Keys(table)) {
		if !slices.Contains(keys(), k) {
			r.unknownOfAccount(t.path(k))
		}
	}
	a := Account{Name: name}
	_, tunnelled := table["tunnel"]
	if a.Host = "localhost"; !tunnelled || table["host"] != nil {
		a.Host = t.required("host")
	}
	if a.Host != "" {
		if why := badHost(a.Host); why != "" {
			t.fail("host", "%q %s", a.Host, why)
		}
	}
	usual := TLSImplicit
	if tunnelled {
		usual = TLSNone // the tunnel is what protects
	}
	a.TLS = TLSMode(t.oneOf("tls", string(usual), string(TLSImplicit), string(TLSStart), string(TLSNone)))
	a.AllowPlaintext = t.boolean("allow_plaintext")
	if a.TLS == TLSNone && !a.AllowPlaintext && !tunnelled {
		t.fail("tls", `"none" sends password and mail where others can read them; if that is what you want, say allow_plaintext = true`)
	}
	a.Port = t.integer("port", map[bool]int{true: 993, false: 143}[a.TLS == TLSImplicit], 1, 65535)
	a.TLSCAFile = t.file("tls_ca_file")
	a.TLSPin = t.pin("tls_pin")
	a.TLSServerName = t.string("tls_server_name")
	if a.TLSServerName != "" {
		if why := badHost(a.TLSServerName); why != "" {
			t.fail("tls_server_name", "%q %s", a.TLSServerName, why)
		}
	}
	a.TLSLegacy = t.boolean("tls_legacy")
	a.TLSCert = t.file("tls_cert")
	a.TLSKey = cmp.Or(t.file("tls_key"), a.TLSCert)
	if a.TLSKey != "" && a.TLSCert == "" {
		t.fail("tls_key", "there is no tls_cert that it is the key of")
	}
	for _, k := range []string{"tls_ca_file", "tls_pin", "tls_server_name", "tls_legacy", "tls_cert", "tls_key"} {
		if v, there := table[k]; a.TLS == TLSNone && there && v != "" && v != false {
			t.fail(k, `has no meaning with tls = "none"`)
		}
	}
	if a.TLSPin != "" && a.TLSServerName != "" {
		t.fail("tls_server_name", "has no meaning beside tls_pin, which names the certificate itself")
	}
	a.Tunnel = t.command("tunnel", `["ssh", "mail.example.org", "imapd", "--preauth"]`)
	a.Proxy = t.proxy("proxy")
	if a.Proxy != "" && tunnelled {
		t.fail("proxy", "has no meaning beside tunnel")
	}
	a.User = t.required("user")
	if strings.ContainsFunc(a.User, unicode.IsControl) {
		t.fail("user", "holds a control character")
	}
	a.Auth = t.oneOf("auth", "", mechanisms()...)

	a.PasswordCommand = t.command("password_command", `["pass", "show", "mail/work"]`)
	a.PasswordFile = t.file("password_file")
	a.Keyring = t.boolean("keyring")
	a.OAuth = t.oauth("oauth", a.Auth)
	t.onePassword(&a)
	if a.Auth == "external" && a.TLSCert == "" && !tunnelled {
		t.fail("auth", `"external" signs in by a certificate of yours: tls_cert`)
	}

	a.Mailboxes = t.patterns("mailboxes")
	a.Watch = t.watch("watch")
	a.Folder = t.folder("folder", name)
	a.Layout = t.oneOf("layout", "nested", "nested", "maildir++")
	a.Timeout = t.duration("timeout", time.Minute, minTimeout, maxTimeout)
	a.Connections = t.integer("connections", 3, 1, maxConnections)
	a.LogDays = t.integer("log_days", 90, 0, maxLogDays)
	a.AtticDays = t.integer("attic_days", 30, 0, maxLogDays)
	a.AtticSize = cmp.Or(t.size("attic_size"), atticSize)
	a.IndexWorkers = t.integer("index_workers", 0, 1, MaxIndexWorkers)
	a.Disable = t.extensions("disable_extensions")
	a.RetryTag = t.tag("retry_tag", "fetch-retry")
	a.DropTag = t.tag("drop_tag", "fetch-drop")
	a.ReadOnly = t.boolean("read_only")
	a.Deletions = t.oneOf("deletions", "trash", "trash", "expunge", "keep")
	if a.Trash = mail.InboxName(t.string("trash")); a.Trash == "INBOX" {
		t.fail("trash", `is INBOX, where mail would be gone for good that is deleted; write the name of another mailbox, as "Trash", or leave trash out; deletions = "expunge" deletes for good`)
	}
	a.Keywords = t.globs("keywords")
	a.DeletedTag = t.tag("deleted_tag", "")
	a.Tags = t.tags("tags")
	a.Moves = t.moves("moves", &a)
	return a
}

// mechanisms are what auth may be.
func mechanisms() []string {
	return []string{"scram-sha-256-plus", "scram-sha-256", "scram-sha-1-plus", "scram-sha-1", "cram-md5", "plain", "login", "oauthbearer", "xoauth2", "external"}
}

// unknownOfAccount tells of a key that no account has. A password in the file
// gets words of its own; its value is never shown.
func (r *reader) unknownOfAccount(key []string) {
	if isSecret(key[len(key)-1]) {
		r.fail(key, "a password does not belong in this file; use password_command, password_file or keyring = true")
		return
	}
	r.unknown(key, keys(), "")
}

// isSecret tells whether a key is one under which people write passwords.
func isSecret(key string) bool {
	return slices.Contains([]string{"password", "pass", "passwd", "secret", "token"}, strings.ToLower(key))
}

func (r *reader) unknown(key, known []string, otherwise string) {
	text := "unknown key"
	if near := nearest(key[len(key)-1], known); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	} else if otherwise != "" {
		text += "; " + otherwise
	} else {
		text += "; allowed: " + strings.Join(known, ", ")
	}
	r.fail(key, "%s", text)
}

// apart makes sure that no two accounts write into the same place, on file
// systems that fold case too.
func (r *reader) apart(as []Account) {
	for i := range as {
		for j := range i {
			key := []string{"account", as[i].Name}
			if strings.EqualFold(as[i].Name, as[j].Name) {
				r.fail(key, "the name differs from account.%s in case alone", as[j].Name)
				continue
			}
			x, y := strings.ToLower(as[i].Folder), strings.ToLower(as[j].Folder)
			switch {
			case x == "" || y == "":
			case x == y:
				r.fail(append(key, "folder"), "%q is the folder of account.%s already", as[i].Folder, as[j].Name)
			case y == "." || strings.HasPrefix(x, y+"/"):
				r.fail(append(key, "folder"), "%q lies within %q, the folder of account.%s", as[i].Folder, as[j].Folder, as[j].Name)
			case x == "." || strings.HasPrefix(y, x+"/"):
				r.fail(append(key, "folder"), "%q holds %q, the folder of account.%s", as[i].Folder, as[j].Folder, as[j].Name)
			}
		}
	}
}

// badName says why a name cannot be an account's: it names files, too.
func badName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > 64:
		return "is longer than 64 bytes"
	case strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-"):
		return fmt.Sprintf("begins with %q", name[:1])
	case slices.Contains([]string{"cur", "new", "tmp"}, strings.ToLower(name)):
		return "is the name of a part of every maildir"
	case strings.ContainsFunc(name, func(c rune) bool {
		return c == utf8.RuneError || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("._@+-", c)
	}):
		return "may hold letters, digits and . _ @ + - only"
	}
	return ""
}

// badHost says why a text cannot be a host.
func badHost(host string) string {
	switch {
	case net.ParseIP(strings.Trim(host, "[]")) != nil:
		if strings.HasPrefix(host, "[") {
			return "is an address in brackets; leave them out"
		}
		return ""
	case strings.Contains(host, "://"):
		return "is an address of another kind; give the host's name alone"
	case strings.Contains(host, ":"):
		return "is not a host name; the port is a key of its own"
	case strings.ContainsFunc(host, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || strings.ContainsRune(`/@"\`, c)
	}):
		return "is not a host name"
	}
	return ""
}
