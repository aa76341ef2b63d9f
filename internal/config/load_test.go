package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestManualPageKnowsEveryKey(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/notmuch-imap.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range builtins() {
		if !strings.Contains(string(page), "\n.It Ql "+kind+"\n") {
			t.Errorf("no entry for the built-in hook %s", kind)
		}
	}
	all := slices.Concat(keys(), hookKeys(), moveKeys())
	for _, of := range builtinKeys() {
		all = append(all, of...)
	}
	for _, k := range all {
		if !regexp.MustCompile(`(?m)^\.(It )?Ic (\S+ , )*` + regexp.QuoteMeta(k) + `( |$)`).Match(page) {
			t.Errorf("no entry for %s", k)
		}
	}
}

func TestFullFileGivesEveryValue(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse("/etc/mail/config.toml", text, env("HOME", "/home/me"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{Path: "/etc/mail/config.toml", Accounts: []Account{
		{
			Name: "work", Host: "imap.example.org", Port: 10993, TLS: TLSStart, TLSCAFile: "/home/me/certs/ca.pem",
			TLSPin: "sha256:" + strings.Repeat("00112233445566778899aabbccddeeff", 2),
			User:   "me@example.org", Auth: "plain", PasswordCommand: []string{"/home/me/bin/secret", "mail/work"},
			Mailboxes: []string{"*", "!Spam"}, Watch: []string{"INBOX", "Lists"}, Folder: "jobs/work", Layout: "maildir++", Timeout: 2 * time.Minute, Connections: 5, LogDays: 90, AtticDays: 30, AtticSize: 1 << 30, RetryTag: "again", DropTag: "", ReadOnly: true, Deletions: "expunge", Trash: "Bin", Keywords: []string{"work", "todo*"},
			DeletedTag: "deleted", Moves: []MoveRule{{From: "INBOX", Without: "inbox", To: "Archive"}, {From: "INBOX", With: "spam", To: "Junk"}},
			Disable: []string{"QRESYNC", "LIST-STATUS"},
			Tags: []TagRule{
				{"Archive/*", []string{"+archive", "-inbox"}},
				{"Archive/2024", []string{"+old"}},
				{"Sent", []string{"+sent"}},
			},
		},
		{
			Name: "me@home", Host: "::1", Port: 143, TLS: TLSNone, AllowPlaintext: true, User: "me", PasswordFile: "/etc/mail/secret",
			Mailboxes: []string{"*"}, Folder: "me@home", Layout: "nested", Timeout: time.Minute, Connections: 3, LogDays: 90, AtticDays: 30, AtticSize: 1 << 30, RetryTag: "fetch-retry", DropTag: "fetch-drop", Deletions: "trash",
		},
		{
			Name: "last", Host: "imap.example.net", Port: 993, TLS: TLSImplicit, User: "me", Keyring: true,
			Mailboxes: []string{"*"}, Folder: "last", Layout: "nested", Timeout: time.Minute, Connections: 3, LogDays: 90, AtticDays: 30, AtticSize: 1 << 30, RetryTag: "fetch-retry", DropTag: "fetch-drop", Deletions: "trash",
		},
	}}
	for i := range want.Accounts {
		want.Accounts[i].OrderTags = []string{"again", "deleted", "fetch-drop", "fetch-retry", "inbox", "spam"}
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestEverythingWrongIsToldAtOnceByLine(t *testing.T) {
	t.Parallel()
	_, err := Load("testdata/broken.toml", os.Getenv)
	if err == nil {
		t.Fatal("a broken file was taken")
	}
	want, rerr := os.ReadFile("testdata/broken.want")
	if rerr != nil {
		t.Fatal(rerr)
	}
	if got := err.Error() + "\n"; got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the password is in the error")
	}
}

// good is what an account needs; a table's text is put after it.
const good = "[account.a]\nhost = \"h\"\nuser = \"u\"\nkeyring = true\n"

func TestOneMistakeGivesOneExactLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, text, want string }{
		{"empty file", "", `c.toml: no account; one begins with [account.NAME]`},
		{"empty account table", "[account]\n", `c.toml: no account; one begins with [account.NAME]`},
		{"account without name", "[account]\nhost = \"h\"\n", `c.toml:2: account.host: an account is a table and needs a name: [account.NAME]`},
		{"account as array", "[[account]]\nhost = \"h\"\n", `c.toml:1: account: an account needs a name: [account.NAME]`},
		{"account as string", "account = \"work\"\n", `c.toml:1: account: an account needs a name: [account.NAME]`},
		{"plural", "[accounts.work]\nhost = \"h\"\n", `c.toml:1: accounts: an account is written as [account.NAME]`},
		{"top-level typo", "[acount.work]\nhost = \"h\"\n", `c.toml:1: acount: unknown key; did you mean "account"?`},
		{"not toml", good + "port 993\n", `c.toml:5: expected '=' after key`},
		{"key twice", good + "user = \"v\"\n", `c.toml:5: key user is already defined`},
		{"string not closed", good + "folder = \"x\n", `c.toml:5: basic strings cannot have new lines`},
		{"name with slash", strings.Replace(good, "account.a", `account."a/b"`, 1), `c.toml:1: account."a/b": the account's name may hold letters, digits and . _ @ + - only`},
		{"name with dots", strings.Replace(good, "account.a", `account.".."`, 1), `c.toml:1: account."..": the account's name begins with "."`},
		{"name empty", strings.Replace(good, "account.a", `account.""`, 1), `c.toml:1: account."": the account's name is empty`},
		{"name cur", strings.Replace(good, "account.a", `account.cur`, 1), `c.toml:1: account.cur: the account's name is the name of a part of every maildir`},
		{"hyphen for underscore", good + "password-file = \"x\"\n", `c.toml:5: account.a.password-file: unknown key; did you mean "password_file"?`},
		{"nothing near", good + "colour = 1\n", `c.toml:5: account.a.colour: unknown key; allowed: host, port, tls, allow_plaintext, tls_ca_file, tls_pin, tls_server_name, tls_legacy, tls_cert, tls_key, tunnel, proxy, user, auth, ` +
			`password_command, password_file, keyring, oauth, mailboxes, watch, folder, layout, timeout, connections, log_days, attic_days, attic_size, index_workers, disable_extensions, tags, retry_tag, drop_tag, read_only, deletions, trash, deleted_tag, keywords, moves`},
		{"host empty", strings.Replace(good, `"h"`, `""`, 1), `c.toml:2: account.a.host: is empty`},
		{"host number", strings.Replace(good, `"h"`, `5`, 1), `c.toml:2: account.a.host: must be a string in quotes, not a number`},
		{"host with port", strings.Replace(good, `"h"`, `"h:993"`, 1), `c.toml:2: account.a.host: "h:993" is not a host name; the port is a key of its own`},
		{"host as URL", strings.Replace(good, `"h"`, `"imaps://h"`, 1), `c.toml:2: account.a.host: "imaps://h" is an address of another kind; give the host's name alone`},
		{"host with space", strings.Replace(good, `"h"`, `"h h"`, 1), `c.toml:2: account.a.host: "h h" is not a host name`},
		{"port as string", good + "port = \"993\"\n", `c.toml:5: account.a.port: must be a number from 1 to 65535, not a string`},
		{"port zero", good + "port = 0\n", `c.toml:5: account.a.port: 0 is not between 1 and 65535`},
		{"port with fraction", good + "port = 1.5\n", `c.toml:5: account.a.port: must be a number from 1 to 65535, not a number with a fraction`},
		{"tls none without consent", good + "tls = \"none\"\n", `c.toml:5: account.a.tls: "none" sends password and mail where others can read them; if that is what you want, say allow_plaintext = true`},
		{"tls empty", good + "tls = \"\"\n", `c.toml:5: account.a.tls: "" is not one of "implicit", "starttls", "none"`},
		{"pin short", good + "tls_pin = \"sha256:00\"\n", `c.toml:5: account.a.tls_pin: must be "sha256:" and the 64 hexadecimal digits of the certificate's fingerprint`},
		{"pin without tls", good + "tls = \"none\"\nallow_plaintext = true\ntls_ca_file = \"x\"\n", `c.toml:7: account.a.tls_ca_file: has no meaning with tls = "none"`},
		{"auth unknown", good + "auth = \"ntlm\"\n", `c.toml:5: account.a.auth: "ntlm" is not one of "scram-sha-256-plus", "scram-sha-256", "scram-sha-1-plus", "scram-sha-1", "cram-md5", "plain", "login", "oauthbearer", "xoauth2", "external"`},
		{"password", "[account.a]\nhost = \"h\"\nuser = \"u\"\npassword = \"hunter2\"\n",
			`c.toml:4: account.a.password: a password does not belong in this file; use password_command, password_file or keyring = true`},
		{"password beside a keyring", good + "Password = 12345\n",
			`c.toml:5: account.a.Password: a password does not belong in this file; use password_command, password_file or keyring = true`},
		{"no password", "[account.a]\nhost = \"h\"\nuser = \"u\"\n", `c.toml:1: account.a: no password; set one of password_command, password_file, keyring = true and oauth`},
		{"keyring off", strings.Replace(good, "true", "false", 1), `c.toml:1: account.a: no password; set one of password_command, password_file, keyring = true and oauth`},
		{"two ways", good + "password_file = \"x\"\n", `c.toml:5: account.a.password_file: there is keyring already; one of password_command, password_file, keyring and oauth is enough`},
		{"command as string", strings.Replace(good, "keyring = true", `password_command = "pass show hunter2"`, 1),
			`c.toml:4: account.a.password_command: must be a list of strings, the program and its arguments: ["pass", "show", "mail/work"], not a string`},
		{"command empty", strings.Replace(good, "keyring = true", `password_command = []`, 1),
			`c.toml:4: account.a.password_command: names no program; write ["pass", "show", "mail/work"]`},
		{"command with number", strings.Replace(good, "keyring = true", `password_command = ["x", 1]`, 1),
			`c.toml:4: account.a.password_command: must be a list of strings, the program and its arguments: ["pass", "show", "mail/work"]; number 2 is a number`},
		{"watch by a pattern", good + "watch = [\"Lists/*\"]\n", `c.toml:5: account.a.watch: "Lists/*" is a pattern: each mailbox that is watched has a connection, and is named`},
		{"watch without a name", good + "watch = [\"\"]\n", `c.toml:5: account.a.watch: "" is no mailbox name`},
		{"watch of too many", good + "watch = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]\n", `c.toml:5: account.a.watch: names 6 mailboxes, each of which takes a connection: 5 are the most; the others are asked for every few minutes`},
		{"mailboxes as string", good + "mailboxes = \"*\"\n", `c.toml:5: account.a.mailboxes: must be a list of mailbox names and patterns: ["*", "!Spam"], not a string`},
		{"mailboxes empty", good + "mailboxes = []\n", `c.toml:5: account.a.mailboxes: is empty, which leaves nothing to synchronise; "*" is all`},
		{"mailboxes bare exclusion", good + "mailboxes = [\"*\", \"!\"]\n", `c.toml:5: account.a.mailboxes: "!" is no mailbox name or pattern`},
		{"folder absolute", good + "folder = \"/mail\"\n", `c.toml:5: account.a.folder: "/mail" is not relative to notmuch's mail root`},
		{"folder home", good + "folder = \"~/mail\"\n", `c.toml:5: account.a.folder: "~/mail" is not relative to notmuch's mail root`},
		{"folder out", good + "folder = \"a/../../b\"\n", `c.toml:5: account.a.folder: "a/../../b" leads out of notmuch's mail root ("..")`},
		{"folder out and in", good + "folder = \"a/..\"\n", `c.toml:5: account.a.folder: "a/.." leads out of notmuch's mail root ("..")`},
		{"folder of all within", good + strings.Replace(good, "account.a", "account.b", 1) + "folder = \".\"\n", `c.toml:9: account.b.folder: "." holds "a", the folder of account.a`},
		{"folder within that of all", good + "folder = \"./\"\n" + strings.Replace(good, "account.a", "account.b", 1), `c.toml:6: account.b.folder: "b" lies within ".", the folder of account.a`},
		{"layout", good + "layout = \"mbox\"\n", `c.toml:5: account.a.layout: "mbox" is not one of "nested", "maildir++"`},
		{"folder hidden", good + "folder = \".notmuch\"\n", `c.toml:5: account.a.folder: ".notmuch" has a part that is empty or begins with a dot`},
		{"folder tmp", good + "folder = \"x/tmp\"\n", `c.toml:5: account.a.folder: "x/tmp" has a part named "tmp", as every maildir has`},
		{"timeout number", good + "timeout = 60\n", `c.toml:5: account.a.timeout: must be a time such as "60s" or "2m", not a number`},
		{"timeout without unit", good + "timeout = \"60\"\n", `c.toml:5: account.a.timeout: "60" is not a time such as "60s" or "2m"`},
		{"timeout long", good + "timeout = \"61m\"\n", `c.toml:5: account.a.timeout: "61m" is not between "1s" and "1h"`},
		{"log_days", good + "log_days = -1\n", `c.toml:5: account.a.log_days: -1 is not between 0 and 3650`},
		{"attic_size", good + "attic_size = 0\n", `c.toml:5: account.a.attic_size: 0 is not a size such as "500K", "10M" or "1G"`},
		{"connections", good + "connections = 0\n", `c.toml:5: account.a.connections: 0 is not between 1 and 10`},
		{"index workers", good + "index_workers = 17\n", `c.toml:5: account.a.index_workers: 17 is not between 1 and 16`},
		{"extension", good + "disable_extensions = [\"A B\"]\n", `c.toml:5: account.a.disable_extensions: "A B" is not the name of a server extension`},
		{"tags as list", good + "tags = [\"+x\"]\n", `c.toml:5: account.a.tags: must be a table: [account.a.tags], then "Archive/*" = ["+archive", "-inbox"]`},
		{"tags as string", good + "[account.a.tags]\nX = \"+x\"\n", `c.toml:6: account.a.tags.X: must be a list of tags to add and remove: ["+archive", "-inbox"], not a string`},
		{"tag without sign", good + "[account.a.tags]\nX = [\"x\"]\n", `c.toml:6: account.a.tags.X: "x" begins with neither "+" nor "-"`},
		{"tag empty", good + "[account.a.tags]\nX = [\"+\"]\n", `c.toml:6: account.a.tags.X: "+" names no tag`},
		{"tag with two signs", good + "[account.a.tags]\nX = [\"+-x\"]\n", `c.toml:6: account.a.tags.X: "+-x" names a tag that begins with "+" or "-"`},
		{"tag pattern not quoted", good + "[account.a.tags]\nArchive.2024 = [\"+x\"]\n", `c.toml:6: account.a.tags.Archive: put the pattern in quotes: "Archive..." = ["+archive", "-inbox"]`},
		{"tag exclusion", good + "[account.a.tags]\n\"!X\" = [\"+x\"]\n", `c.toml:6: account.a.tags."!X": a tag rule cannot exclude ("!")`},
		{"moves as table", good + "[account.a.moves]\nfrom = \"INBOX\"\n", `c.toml:5: account.a.moves: a rule is written as [[account.a.moves]], with two brackets`},
		{"moves without a tag", good + "[[account.a.moves]]\nfrom = \"A\"\nto = \"B\"\n", `c.toml:5: account.a.moves: needs a tag: with = "spam", or without = "inbox"`},
		{"moves with two tags", good + "[[account.a.moves]]\nfrom = \"A\"\nto = \"B\"\nwith = \"x\"\nwithout = \"y\"\n",
			`c.toml:9: account.a.moves.without: one of with and without is enough; the first rule that holds counts`},
		{"moves from a pattern", good + "[[account.a.moves]]\nfrom = \"A\"\nto = \"B\"\nwith = \"x\"\n[[account.a.moves]]\nfrom = \"L/*\"\nto = \"B\"\nwith = \"x\"\n",
			`c.toml:10: account.a.moves.from: "L/*" is a pattern; the name of one mailbox is needed`},
		{"moves in a list", good + "moves = [\n{from = \"A\", with = \"x\", to = \"B\"},\n{from = \"A\", with = \"x\"}]\n", `c.toml:5: account.a.moves.to: is missing`},
		{"trash", good + "trash = \"INBOX\"\n",
			`c.toml:5: account.a.trash: is INBOX, where mail would be gone for good that is deleted; write the name of another mailbox, as "Trash", or leave trash out; deletions = "expunge" deletes for good`},
		{"trash in small letters", good + "trash = \"inBox\"\n",
			`c.toml:5: account.a.trash: is INBOX, where mail would be gone for good that is deleted; write the name of another mailbox, as "Trash", or leave trash out; deletions = "expunge" deletes for good`},
		{"moves to the same", good + "moves = [{from = \"inbox\", with = \"x\", to = \"INBOX\"}]\n", `c.toml:5: account.a.moves.to: "INBOX" is where the mail is already`},
		{"moves misspelt", good + "moves = [{from = \"A\", too = \"x\", with = \"y\", to = \"B\"}]\n", `c.toml:5: account.a.moves.too: unknown key; did you mean "to"?`},
		{"moves there and back", good + "moves = [{from = \"A\", with = \"x\", to = \"B\"}, {from = \"B\", without = \"y\", to = \"A\"}]\n",
			`c.toml:5: account.a.moves.to: some mail that this rule moves to A would be moved back to B by the rules before, without end`},
		{"moves for what comes", good + "moves = [{from = \"A\", with = \"x\", to = \"B\"}]\n[account.a.tags]\nA = [\"+x\"]\n",
			`c.toml:5: account.a.moves.to: all mail that comes to A would be moved to B, since its tags are given or taken there by tags`},
		{"moves round by tags", good + "moves = [{from = \"A\", without = \"t\", to = \"B\"}, {from = \"B\", with = \"u\", to = \"C\"}, {from = \"C\", with = \"v\", to = \"A\"}]\n" +
			"[account.a.tags]\nB = [\"+t\"]\nC = [\"-t\"]\n",
			`c.toml:5: account.a.moves.to: some mail that this rule moves to A would be moved back to C by the rules before, without end`},
		{"deleted_tag with a sign", good + "deleted_tag = \"+x\"\n", `c.toml:5: account.a.deleted_tag: "+x" names a tag that begins with "+" or "-"`},
		{"folder twice", good + strings.Replace(good, "account.a", "account.b", 1) + "folder = \"A\"\n", `c.toml:9: account.b.folder: "A" is the folder of account.a already`},
		{"folder within", good + strings.Replace(good, "account.a", "account.b", 1) + "folder = \"a/b\"\n", `c.toml:9: account.b.folder: "a/b" lies within "a", the folder of account.a`},
		{"folder around", good + "folder = \"x/a\"\n" + strings.Replace(good, "account.a", "account.b", 1) + "folder = \"x\"\n", `c.toml:10: account.b.folder: "x" holds "x/a", the folder of account.a`},
		{"names in case alone", good + strings.Replace(good, "account.a", "account.A", 1), `c.toml:5: account.A: the name differs from account.a in case alone`},
		{"inline table", `account = { a = { host = "h", user = "u", keyring = true, port = 0 } }`, `c.toml:1: account.a.port: 0 is not between 1 and 65535`},
		{"dotted keys", "account.a.host = \"h\"\naccount.a.user = \"u\"\naccount.a.keyring = true\naccount.a.tls = \"ssl\"\n",
			`c.toml:4: account.a.tls: "ssl" is not one of "implicit", "starttls", "none"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := parse("c.toml", []byte(tc.text), env("HOME", "/home/me"))
			if err == nil {
				t.Fatalf("taken: %+v", c)
			}
			if got := err.Error(); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "12345") {
				t.Error("the error shows the password")
			}
		})
	}
}

// Rules that lead back only for a mail whose tags its owner changed are what
// afew's users have.
func TestRulesThatComplementEachOtherAreGood(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`moves = [{from = "INBOX", without = "inbox", to = "Archive"}, {from = "Archive", with = "inbox", to = "INBOX"}, {from = "INBOX", with = "spam", to = "Junk"}, {from = "Junk", without = "spam", to = "INBOX"}]`,
		"moves = [{from = \"A\", with = \"x\", to = \"B\"}, {from = \"B\", with = \"x\", to = \"C\"}]\n",
		"moves = [{from = \"A\", with = \"x\", to = \"B\"}, {from = \"B\", with = \"y\", to = \"A\"}]\n[account.a.tags]\nB = [\"-x\"]\n",
	} {
		if _, err := parse("c.toml", []byte(good+text), env("HOME", "/home/me")); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAccountsStandInTheOrderOfTheFile(t *testing.T) {
	t.Parallel()
	var text string
	for _, n := range []string{"zebra", "ant", "Moose", "bee"} {
		text += strings.Replace(good, "account.a", "account."+n, 1)
	}
	c, err := parse("c.toml", []byte(text), env("HOME", "/home/me"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range c.Accounts {
		got = append(got, a.Name)
	}
	if s := strings.Join(got, " "); s != "zebra ant Moose bee" {
		t.Error(s)
	}

	some, err := c.Select([]string{"bee", "ant", "bee"})
	if err != nil || len(some) != 2 || some[0].Name != "ant" || some[1].Name != "bee" {
		t.Errorf("Select gave %v, %v", some, err)
	}
	if all, err := c.Select(nil); err != nil || len(all) != 4 {
		t.Errorf("Select of none gave %v, %v", all, err)
	}
	if _, err := c.Select([]string{"work"}); err == nil || err.Error() != `no account "work" in c.toml; there is: zebra, ant, Moose, bee` {
		t.Error(err)
	}
}

func TestFindLooksWhereXDGSays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, flag string
		env        []string
		want       string
	}{
		{"flag before all", "/x/c.toml", []string{EnvFile, "/y", "HOME", "/h"}, "/x/c.toml"},
		{"variable", "", []string{EnvFile, "/y/c.toml", "XDG_CONFIG_HOME", "/z", "HOME", "/h"}, "/y/c.toml"},
		{"XDG", "", []string{"XDG_CONFIG_HOME", "/z", "HOME", "/h"}, "/z/notmuch-imap/config.toml"},
		{"relative XDG is ignored", "", []string{"XDG_CONFIG_HOME", "z", "HOME", "/h"}, "/h/.config/notmuch-imap/config.toml"},
		{"home", "", []string{"HOME", "/h"}, "/h/.config/notmuch-imap/config.toml"},
	} {
		if got, err := Find(tc.flag, env(tc.env...)); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
	if _, err := Find("", env()); err == nil || err.Error() != "HOME is not set, nor is XDG_CONFIG_HOME" {
		t.Error(err)
	}
	a := Account{Name: "work"}
	if dir, err := a.StateDir(env("HOME", "/h")); err != nil || dir != "/h/.local/state/notmuch-imap/work" {
		t.Error(dir, err)
	}
	if dir, err := a.StateDir(env("XDG_STATE_HOME", "/s")); err != nil || dir != "/s/notmuch-imap/work" {
		t.Error(dir, err)
	}
}

func TestMissingFileSaysWhereToLook(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "config.toml")
	_, err := Load(file, os.Getenv)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if want := file + ": this file is not there; the manual page has an example of one: man notmuch-imap.conf"; err.Error() != want {
		t.Errorf("got %s", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"testdata/full.toml", "testdata/broken.toml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("account.a.tags.\"*\" = [[]]\n[[account.b]]\n"))
	f.Add([]byte("account = {a = {tags = {x = {}}}, b = 1979-05-27}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parse("c.toml", text, env("HOME", "/home/me"))
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error without words")
			}
			return
		}
		for _, a := range c.Accounts {
			if a.Name == "" || a.Host == "" || a.User == "" || a.Port == 0 || !filepath.IsLocal(a.Folder) || len(a.Mailboxes) == 0 {
				t.Errorf("taken: %+v", a)
			}
			a.Selects("INBOX", '/')
			a.TagRules("INBOX", '/')
		}
	})
}
