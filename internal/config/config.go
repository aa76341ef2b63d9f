// Package config turns the configuration file into typed values. What is wrong
// with the file is told all at once, with file, line, key and what is allowed.
package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The names by which the configuration and the state are found.
const (
	program = "notmuch-imap"
	// EnvFile is the environment variable that names the configuration file.
	EnvFile = "NOTMUCH_IMAP_CONFIG"
)

// Config is one configuration file.
type Config struct {
	Path     string
	Accounts []Account // in the order of the file
}

// TLSMode says how a connection is secured.
type TLSMode string

// The modes.
const (
	TLSImplicit TLSMode = "implicit" // TLS from the first byte (RFC 8314)
	TLSStart    TLSMode = "starttls" // RFC 9051 6.2.1; never goes on without it
	TLSNone     TLSMode = "none"     // only with allow_plaintext = true
)

// Account is one account, defaults filled in. Paths are absolute.
type Account struct {
	Name           string // safe as a file name
	Host           string // name or address, without port
	Port           int
	TLS            TLSMode
	AllowPlaintext bool
	TLSCAFile      string   // PEM, beside the system's; "" if none
	TLSPin         string   // "sha256:<64 lower-case hexadecimal digits>"; "" if none
	TLSServerName  string   // in the server's certificate, if not Host
	TLSLegacy      bool     // allow TLS 1.0 and 1.1, and key exchange by RSA
	TLSCert        string   // PEM, the client's; "" if none
	TLSKey         string   // PEM, its key; the same file as TLSCert if not said
	Tunnel         []string // a program and its arguments; nil if none
	Proxy          string   // host:port of a SOCKS5 proxy; "" if none
	User           string
	Auth           string // SASL mechanism in lower case; "" is the best that the server offers

	// One of these is set, unless there are a certificate or a tunnel in its place.
	PasswordCommand []string
	PasswordFile    string
	Keyring         bool
	OAuth           *OAuth

	Mailboxes   []string // patterns, see Selects
	Watch       []string // mailboxes that a watch has an IDLE on, INBOX if none are named
	Folder      string   // below notmuch's mail root, with slashes; "." is the mail root itself
	Layout      string   // of the folders: "nested" or "maildir++"
	Timeout     time.Duration
	Connections int
	LogDays     int   // how long the log of what was done is kept; 0: there is none
	AtticDays   int   // how long mail is kept that was removed here since it was on the server; 0: it is not
	AtticSize   int64 // and how much of it, in bytes
	// IndexWorkers is how many processes index much mail that comes at once; 0: as many as there are cores.
	IndexWorkers int
	Disable      []string   // server extensions not to use, upper case
	Tags         []TagRule  // in the order of the file
	RetryTag     string     // on a stub: ask for it at the next sync; "": no such tag
	DropTag      string     // on a stub: ask for it no more
	ReadOnly     bool       // a sync changes nothing on the server
	Deletions    string     // of mail here: "trash", "expunge" or "keep" it on the server
	Trash        string     // the mailbox that is the Trash; "" finds it
	Keywords     []string   // patterns (path.Match) of tags that go to the server
	Moves        []MoveRule // in the order of the file; the first that holds counts
	DeletedTag   string     // the tag that deletes mail; "": none does
	OrderTags    []string   // all tags by which something is ordered; the same for all accounts
	Hooks        []Hook     // in the order of the file; the same for all accounts
}

// OAuth is an account's `oauth` table: a client of OAuth 2.0.
type OAuth struct {
	Provider     string // of OAuthProviders; "" if the URLs are given
	Tenant       string // of Microsoft; "" is common
	ClientID     string
	ClientSecret string // "" of a public client
	AuthURL      string
	TokenURL     string
	DeviceURL    string   // "" if there are no device codes
	Scopes       []string // none: the provider's
}

// TagRule is one line of an account's `tags` table.
type TagRule struct {
	Pattern string   // as in Account.Mailboxes, without "!"
	Tags    []string // "+archive", "-inbox"
}

// Find gives the path of the configuration file: flag if it is not empty, else
// $NOTMUCH_IMAP_CONFIG, else $XDG_CONFIG_HOME/notmuch-imap/config.toml, else the
// same below ~/.config. It does not look whether the file is there.
func Find(flag string, getenv func(string) string) (string, error) {
	if flag != "" {
		return filepath.Abs(flag)
	}
	if p := getenv(EnvFile); p != "" {
		return filepath.Abs(p)
	}
	dir, err := xdg(getenv, "XDG_CONFIG_HOME", ".config")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, program, "config.toml"), nil
}

// StateDir is where the account's ledger and lock are:
// $XDG_STATE_HOME/notmuch-imap/NAME, else the same below ~/.local/state.
func (a *Account) StateDir(getenv func(string) string) (string, error) {
	dir, err := StateDir(getenv)
	return filepath.Join(dir, a.Name), err
}

// StateDir is where the states of all accounts are.
func StateDir(getenv func(string) string) (string, error) {
	dir, err := xdg(getenv, "XDG_STATE_HOME", ".local/state")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, program), nil
}

// xdg gives a base directory. The XDG specification says that a relative path
// there is invalid and to be ignored.
func xdg(getenv func(string) string, name, fallback string) (string, error) {
	if dir := getenv(name); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := home(getenv)
	if err != nil {
		return "", fmt.Errorf("%w, nor is %s", err, name)
	}
	return filepath.Join(home, fallback), nil
}

func home(getenv func(string) string) (string, error) {
	if dir := getenv("HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	return "", errors.New("HOME is not set")
}

// Select gives the accounts with these names in the order of the file; all if
// there are no names.
func (c *Config) Select(names []string) ([]Account, error) {
	if len(names) == 0 {
		return c.Accounts, nil
	}
	want := make(map[string]bool, len(names))
	known := make([]string, len(c.Accounts))
	for i, a := range c.Accounts {
		known[i] = a.Name
		want[a.Name] = false
	}
	for _, n := range names {
		if _, ok := want[n]; !ok {
			return nil, fmt.Errorf("no account %q in %s; there is: %s", n, c.Path, strings.Join(known, ", "))
		}
		want[n] = true
	}
	var out []Account
	for _, a := range c.Accounts {
		if want[a.Name] {
			out = append(out, a)
		}
	}
	return out, nil
}

// CertPool gives the system's certificates and those of tls_ca_file; nil, which
// crypto/tls takes for the system's, without one. An error is an *Error.
func (a *Account) CertPool() (*x509.CertPool, error) {
	if a.TLSCAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(a.TLSCAFile)
	if err != nil {
		return nil, &Error{Key: "account." + a.Name + ".tls_ca_file", Text: err.Error(), Err: err}
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		// A system without any still has the user's.
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, &Error{Key: "account." + a.Name + ".tls_ca_file", Text: a.TLSCAFile + " holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"}
	}
	return pool, nil
}

// Certificate gives the client's certificate of tls_cert and tls_key; nil without
// one. An error is an *Error.
func (a *Account) Certificate() (*tls.Certificate, error) {
	if a.TLSCert == "" {
		return nil, nil
	}
	fail := func(key string, err error) (*tls.Certificate, error) {
		return nil, &Error{Key: "account." + a.Name + "." + key, Text: err.Error(), Err: err}
	}
	if st, err := os.Stat(a.TLSKey); err == nil && st.Mode().Perm()&0o077 != 0 {
		return fail("tls_key", fmt.Errorf("%s: others can read the key (mode %04o); run: chmod 600 %s", a.TLSKey, st.Mode().Perm(), a.TLSKey))
	}
	for key, file := range map[string]string{"tls_cert": a.TLSCert, "tls_key": a.TLSKey} {
		if _, err := os.ReadFile(file); err != nil {
			return fail(key, err)
		}
	}
	cert, err := tls.LoadX509KeyPair(a.TLSCert, a.TLSKey)
	if err != nil {
		return fail("tls_cert", fmt.Errorf("%s and %s are no certificate and its key in PEM form: %s", a.TLSCert, a.TLSKey, strings.TrimPrefix(err.Error(), "tls: ")))
	}
	return &cert, nil
}

// HasPassword tells whether the account names a way to a password.
func (a *Account) HasPassword() bool {
	return len(a.PasswordCommand) > 0 || a.PasswordFile != "" || a.Keyring
}

// Where is the server, in words.
func (a *Account) Where() string {
	if len(a.Tunnel) > 0 {
		return "the end of the tunnel " + a.Tunnel[0]
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
}

// Error is one thing wrong with the configuration.
type Error struct {
	File string // "" if it is not about the file's text
	Line int    // from 1; 0 if it is about the file as a whole
	Key  string // "account.work.tls"; "" if it is about no key
	Text string // what is wrong and what is allowed, without secrets
	Err  error  // the cause, if there is one
}

// Error gives `FILE:LINE: KEY: TEXT`, without what there is not.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Text)
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Errors are all the errors of one file, by line.
type Errors []*Error

// Error gives one line for each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// unreadable puts an error of opening the file in words.
func unreadable(path string, err error) error {
	e := &Error{File: path, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Text = "this file is not there; the manual page has an example of one: man notmuch-imap.conf"
	case errors.Is(err, fs.ErrPermission):
		e.Text = "the configuration cannot be read: permission denied"
	default:
		cause := err
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			cause = p.Err
		}
		e.Text = "the configuration cannot be read: " + cause.Error()
	}
	return Errors{e}
}
