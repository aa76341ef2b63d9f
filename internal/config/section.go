package config

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// section is one table of the file, with readers for its values. They tell what
// is wrong and go on with the default.
type section struct {
	r      *reader
	key    []string
	values map[string]any
}

func (t *section) path(k string) []string { return append(slices.Clone(t.key), k) }

func (t *section) fail(k, format string, args ...any) { t.r.fail(t.path(k), format, args...) }

// text gives a string without complaint.
func (t *section) text(k string) string {
	s, _ := t.values[k].(string)
	return s
}

func (t *section) string(k string) string {
	v, there := t.values[k]
	s, ok := v.(string)
	if there && !ok {
		t.fail(k, "must be a string in quotes, not %s", kindOf(v))
	}
	return s
}

// there complains of a key that is missing.
func (t *section) there(k string) bool {
	_, ok := t.values[k]
	if !ok {
		t.r.errs = append(t.r.errs, &Error{File: t.r.file, Line: t.r.lines.line(t.key), Key: dotted(t.path(k)), Text: "is missing"})
	}
	return ok
}

func (t *section) required(k string) string {
	if !t.there(k) {
		return ""
	}
	s := t.string(k)
	if _, ok := t.values[k].(string); ok && s == "" {
		t.fail(k, "is empty")
	}
	return s
}

func (t *section) oneOf(k, fallback string, allowed ...string) string {
	s := t.string(k)
	if s == "" {
		if _, ok := t.values[k].(string); ok && fallback != "" {
			t.fail(k, `"" is not one of %s`, quoted(allowed))
		}
		return fallback
	}
	if !slices.Contains(allowed, s) {
		t.fail(k, "%q is not one of %s", s, quoted(allowed))
		return fallback
	}
	return s
}

func (t *section) boolean(k string) bool {
	v, there := t.values[k]
	b, ok := v.(bool)
	if there && !ok {
		t.fail(k, "must be true or false, not %s", kindOf(v))
	}
	return b
}

func (t *section) integer(k string, fallback, least, most int) int {
	v, there := t.values[k]
	if !there {
		return fallback
	}
	n, ok := v.(int64)
	switch {
	case !ok:
		t.fail(k, "must be a number from %d to %d, not %s", least, most, kindOf(v))
	case n < int64(least) || n > int64(most):
		t.fail(k, "%d is not between %d and %d", n, least, most)
	default:
		return int(n)
	}
	return fallback
}

func (t *section) duration(k string, fallback, least, most time.Duration) time.Duration {
	v, there := t.values[k]
	if !there {
		return fallback
	}
	s, ok := v.(string)
	if !ok {
		t.fail(k, `must be a time such as "60s" or "2m", not %s`, kindOf(v))
		return fallback
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		t.fail(k, `%q is not a time such as "60s" or "2m"`, s)
	case d < least || d > most:
		t.fail(k, `%q is not between "1s" and "1h"`, s)
	default:
		return d
	}
	return fallback
}

// strings gives a list of strings, and whether it is one. what says what the
// list is of.
func (t *section) strings(k, what string) ([]string, bool) {
	v, there := t.values[k]
	if !there {
		return nil, true
	}
	list, ok := v.([]any)
	if !ok {
		t.fail(k, "must be a list of %s, not %s", what, kindOf(v))
		return nil, false
	}
	out := make([]string, 0, len(list))
	for i, e := range list {
		s, ok := e.(string)
		if !ok {
			t.fail(k, "must be a list of %s; number %d is %s", what, i+1, kindOf(e))
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// file gives an absolute path; a relative one is beside the configuration.
func (t *section) file(k string) string {
	s := t.string(k)
	if s == "" {
		return ""
	}
	p, err := t.expand(s)
	if err != nil {
		t.fail(k, "%v", err)
		return ""
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(filepath.Dir(t.r.file), p)
	}
	return filepath.Clean(p)
}

// expand replaces a leading ~/ by the home directory. No other variable is
// known: what a file means does not hang on the environment.
func (t *section) expand(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, "~/")
	if !ok {
		return s, nil
	}
	dir, err := home(t.r.getenv)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, rest), nil
}

// pin takes the spellings of openssl and of browsers, too: upper case, colons.
func (t *section) pin(k string) string {
	s := t.string(k)
	if s == "" {
		return ""
	}
	digits, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(s, ":", "")), "sha256")
	if !ok || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(digits) {
		t.fail(k, `must be "sha256:" and the 64 hexadecimal digits of the certificate's fingerprint`)
		return ""
	}
	return "sha256:" + digits
}

// command gives a program and its arguments; example is one.
func (t *section) command(k, example string) []string {
	list, ok := t.strings(k, "strings, the program and its arguments: "+example)
	if !ok {
		// Something is there; that it is of the wrong form was said.
		return []string{""}
	}
	if _, there := t.values[k]; there && (len(list) == 0 || list[0] == "") {
		t.fail(k, "names no program; write %s", example)
		return []string{""}
	}
	if len(list) > 0 {
		program, err := t.expand(list[0])
		if err != nil {
			t.fail(k, "%v", err)
		}
		list[0] = program
	}
	return list
}

// proxy takes the address of a SOCKS5 proxy and gives its host:port.
func (t *section) proxy(k string) string {
	s := t.string(k)
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "socks5" && u.Scheme != "socks5h" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		t.fail(k, `is no address of a proxy: "socks5://localhost:1080"`) // not what is there: it may hold a password
	case u.User != nil:
		t.fail(k, "a name and password do not belong in this file; use a proxy on this machine that asks for none")
	default:
		return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "1080"))
	}
	return ""
}

// onePassword makes sure that there is one way to the password.
func (t *section) onePassword(a *Account) {
	var ways []string // in the order of the file
	for _, k := range t.r.lines.under(t.key...) {
		switch v := t.values[k]; k {
		case "password_command":
			ways = append(ways, k)
		case "password_file", "keyring":
			if v != "" && v != false {
				ways = append(ways, k)
			}
		case "oauth":
			ways = append(ways, k)
		}
	}
	switch {
	case len(ways) > 1:
		t.fail(ways[len(ways)-1], "there is %s already; one of password_command, password_file, keyring and oauth is enough", ways[0])
	case len(ways) == 0 && a.Auth != "external" && a.TLSCert == "" && len(a.Tunnel) == 0:
		for k := range t.values {
			if isSecret(k) {
				return // said already
			}
		}
		t.r.errs = append(t.r.errs, &Error{File: t.r.file, Line: t.r.lines.line(t.key), Key: dotted(t.key),
			Text: "no password; set one of password_command, password_file, keyring = true and oauth"})
	}
}

func (t *section) patterns(k string) []string {
	list, _ := t.strings(k, `mailbox names and patterns: ["*", "!Spam"]`)
	if _, there := t.values[k]; !there {
		return []string{"*"}
	}
	for _, p := range list {
		if strings.TrimPrefix(p, "!") == "" {
			t.fail(k, "%q is no mailbox name or pattern", p)
		}
	}
	if v, ok := t.values[k].([]any); ok && len(v) == 0 {
		t.fail(k, `is empty, which leaves nothing to synchronise; "*" is all`)
	}
	return list
}

// maxWatch bounds how many mailboxes have a connection each to be watched: servers allow ten
// or fifteen in all.
const maxWatch = 5

// watch gives names of mailboxes.
func (t *section) watch(k string) []string {
	list, _ := t.strings(k, `mailbox names: ["INBOX", "Lists"]`)
	if len(list) > maxWatch {
		t.fail(k, "names %d mailboxes, each of which takes a connection: %d are the most; the others are asked for every few minutes", len(list), maxWatch)
	}
	for i, name := range list {
		switch {
		case name == "" || strings.ContainsFunc(name, unicode.IsControl):
			t.fail(k, "%q is no mailbox name", name)
		case strings.ContainsAny(name, "*%"):
			t.fail(k, "%q is a pattern: each mailbox that is watched has a connection, and is named", name)
		}
		list[i] = mail.InboxName(name)
	}
	return list
}

// maxFolder bounds an account's folder, in bytes: libnotmuch ends the process
// for a path of more than 237 below the mail root, and a mailbox's own folder
// may have 200 of them.
const maxFolder = 36

func (t *section) folder(k, fallback string) string {
	s := t.string(k)
	if s == "" {
		if len(fallback) > maxFolder {
			t.fail(k, "is needed: the account's name is longer than %d bytes", maxFolder)
		}
		return fallback
	}
	if s == "." || s == "./" {
		return "."
	}
	if filepath.IsAbs(s) || strings.HasPrefix(s, "~") {
		t.fail(k, "%q is not relative to notmuch's mail root", s)
		return ""
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(s, "/"), "/") {
		switch {
		case part == "..":
			t.fail(k, `%q leads out of notmuch's mail root ("..")`, s)
		case part == "" || strings.HasPrefix(part, "."):
			t.fail(k, `%q has a part that is empty or begins with a dot`, s)
		case slices.Contains([]string{"cur", "new", "tmp"}, strings.ToLower(part)):
			t.fail(k, `%q has a part named %q, as every maildir has`, s, part)
		case len(part) > 200 || strings.ContainsFunc(part, unicode.IsControl):
			t.fail(k, `%q cannot be the name of a folder`, s)
		default:
			continue
		}
		return ""
	}
	if s = path.Clean(s); len(s) > maxFolder {
		t.fail(k, "%q is longer than %d bytes", s, maxFolder)
		return ""
	}
	return s
}

// globs gives patterns of tags.
func (t *section) globs(k string) []string {
	list, _ := t.strings(k, `tags: ["work", "todo*"]`)
	for _, p := range list {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			t.fail(k, "%q is no pattern: * stands for any letters, ? for one, [ab] for one of these", p)
		}
	}
	return list
}

func (t *section) extensions(k string) []string {
	list, _ := t.strings(k, `names of server extensions: ["QRESYNC"]`)
	for i, e := range list {
		if e == "" || strings.ContainsFunc(e, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`(){}%*"\]`, c) }) {
			t.fail(k, "%q is not the name of a server extension", e)
		}
		list[i] = strings.ToUpper(e)
	}
	return list
}

// tags reads the table of patterns and tags.
func (t *section) tags(k string) []TagRule {
	v, there := t.values[k]
	if !there {
		return nil
	}
	table, ok := v.(map[string]any)
	if !ok {
		t.fail(k, `must be a table: [account.%s.tags], then "Archive/*" = ["+archive", "-inbox"]`, t.key[1])
		return nil
	}
	rules := &section{r: t.r, key: t.path(k), values: table}
	var out []TagRule
	for _, pattern := range t.r.lines.under(rules.key...) {
		switch {
		case strings.HasPrefix(pattern, "!"):
			rules.fail(pattern, `a tag rule cannot exclude ("!")`)
			continue
		case pattern == "":
			rules.fail(pattern, "is no mailbox name or pattern")
			continue
		}
		if _, nested := table[pattern].(map[string]any); nested {
			rules.fail(pattern, `put the pattern in quotes: "%s..." = ["+archive", "-inbox"]`, pattern)
			continue
		}
		tags, ok := rules.strings(pattern, `tags to add and remove: ["+archive", "-inbox"]`)
		if !ok {
			continue
		}
		for _, tag := range tags {
			if why := badTag(tag); why != "" {
				rules.fail(pattern, "%q %s", tag, why)
			}
		}
		out = append(out, TagRule{pattern, tags})
	}
	return out
}

// tag gives a tag's name; the empty string says that there is no such tag.
func (t *section) tag(k, fallback string) string {
	if _, there := t.values[k]; !there {
		return fallback
	}
	name := t.string(k)
	if name == "" {
		return ""
	}
	if why := badTag("+" + name); why != "" {
		t.fail(k, "%q %s", name, why)
	}
	return name
}

func badTag(tag string) string {
	name := strings.TrimLeft(tag, "+-")
	switch {
	case !strings.HasPrefix(tag, "+") && !strings.HasPrefix(tag, "-"):
		return `begins with neither "+" nor "-"`
	case name == "":
		return "names no tag"
	case len(name) != len(tag)-1:
		return `names a tag that begins with "+" or "-"`
	case len(name) > maxTag:
		return fmt.Sprintf("is longer than notmuch's limit of %d bytes", maxTag)
	case strings.ContainsFunc(name, unicode.IsControl):
		return "holds a control character"
	}
	return ""
}

// kindOf names a value's type in TOML's words.
func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = `"` + s + `"`
	}
	return strings.Join(out, ", ")
}
