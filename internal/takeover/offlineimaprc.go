package takeover

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// OfflineIMAPAccount is an account of an .offlineimaprc.
type OfflineIMAPAccount struct {
	LocalFolders string // absolute path
	State        OfflineIMAPState
	Proposal     Proposal
}

// maxConfig bounds what is read of another program's configuration.
const maxConfig = 1 << 20

// OfflineIMAPAccounts reads an .offlineimaprc. home is what ~ stands for.
func OfflineIMAPAccounts(file, home string) ([]OfflineIMAPAccount, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	sections, err := iniOf(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, err
	}
	for _, section := range sections {
		as := maps.Clone(section)
		for key, value := range as {
			if section[key], err = interpolated(value, as, sections["DEFAULT"], 0); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, key, err)
			}
		}
	}
	path := func(s string) string {
		if rest, ok := strings.CutPrefix(s, "~/"); ok {
			s = filepath.Join(home, rest)
		}
		return filepath.Clean(os.ExpandEnv(s))
	}
	general := sections["general"]
	metadata := general["metadata"]
	if metadata == "" {
		metadata = "~/.offlineimap"
	}
	var out []OfflineIMAPAccount
	for name := range strings.SplitSeq(general["accounts"], ",") {
		name = strings.TrimSpace(name)
		account := sections["Account "+name]
		remote, local := account["remoterepository"], sections["Repository "+account["localrepository"]]
		if name == "" || remote == "" || local["localfolders"] == "" || strings.EqualFold(sections["Repository "+remote]["type"], "maildir") {
			continue
		}
		a := OfflineIMAPAccount{LocalFolders: path(local["localfolders"]), State: StateOfflineIMAP(path(metadata), name, remote)}
		a.Proposal = offlineIMAPProposal(name, a.LocalFolders, account, local, sections["Repository "+remote], path)
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: it has no account with Maildirs, as an .offlineimaprc has", file)
	}
	return out, nil
}

// offlineIMAPProposal is an account as it stands in three sections: its own, and those of its
// repositories.
func offlineIMAPProposal(name, root string, account, local, remote map[string]string, path func(string) string) Proposal {
	p := Proposal{Name: name, Root: root, Host: remote["remotehost"], User: remote["remoteuser"], TLS: "implicit"}
	p.Port, _ = strconv.Atoi(remote["remoteport"]) // 0 is the usual one
	yes := func(section map[string]string, key string, usual bool) bool {
		switch strings.ToLower(section[key]) {
		case "yes", "true", "on", "1":
			return true
		case "no", "false", "off", "0":
			return false
		}
		return usual
	}
	switch ssl := yes(remote, "ssl", true); {
	case strings.EqualFold(remote["type"], "gmail"):
		p.Host = cmp.Or(p.Host, "imap.gmail.com")
		p.leave("type = Gmail: what is deleted goes to the mailbox that is the Trash; labels are not synchronised")
	case !ssl && yes(remote, "starttls", true):
		p.TLS = "starttls"
	case !ssl:
		p.TLS = "none"
	}
	if tunnel := cmp.Or(remote["preauthtunnel"], remote["transporttunnel"]); tunnel != "" {
		p.Tunnel, p.TLS, p.Port = []string{"sh", "-c", tunnel}, "none", 0
	}
	file := func(key string) string {
		if v := remote[key]; v != "" && v != "OS-DEFAULT" {
			return path(v)
		}
		return ""
	}
	p.PasswordFile = file("remotepassfile")
	if p.TLS != "none" {
		p.CAFile, p.Cert, p.Key = file("sslcacertfile"), file("sslclientcert"), file("sslclientkey")
	}
	if remote["remotepass"] != "" {
		p.leave("remotepass: a password does not belong in this file; keep it with your keyring (keyring = true), or in a file that you alone can read (password_file)")
	}
	if mechs := strings.FieldsFunc(remote["auth_mechanisms"], func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }); len(mechs) == 1 {
		p.Auth = strings.ToLower(mechs[0])
	} else if len(mechs) > 1 {
		p.leave("auth_mechanisms: the best one that the server offers is taken")
	}
	for _, oauth := range []string{"oauth2_client_id", "oauth2_refresh_token", "oauth2_access_token", "oauth2_access_token_eval"} {
		if remote[oauth] == "" {
			continue
		}
		p.Google = strings.HasSuffix(p.Host, "gmail.com")
		p.leave("oauth2: its token is not taken over; sign in anew with `notmuch imap login`")
	}
	p.ReadOnly = yes(remote, "readonly", false)
	if !yes(account, "sync_deletes", true) || !yes(remote, "sync_deletes", true) || !yes(remote, "expunge", true) {
		p.Deletions = "keep"
	}
	for _, k := range []struct {
		section map[string]string
		key     string
		why     string
	}{
		{remote, "remoteusereval", "it is Python: write the user's name here"},
		{remote, "remotehosteval", "it is Python: write the server's name here"},
		{remote, "remotepasseval", "it is Python: name a program that prints the password (password_command)"},
		{remote, "cert_fingerprint", "tls_pin takes the fingerprint by SHA-256 of one certificate"},
		{remote, "nametrans", "it is Python: folders that are there keep their names; new ones are called as the mailbox"},
		{local, "nametrans", "it is Python: a folder that is new is called as the mailbox"},
		{remote, "folderfilter", "it is Python: name what is to come with mailboxes"},
		{remote, "folderincludes", "it is Python: name what is to come with mailboxes"},
		{remote, "createfolders", "folders that are new become mailboxes"},
		{local, "createfolders", "mailboxes that are new become folders"},
		{local, "filename_use_mail_timestamp", "files have names of their own"},
		{remote, "idlefolders", "`watch` names mailboxes that are watched"},
		{remote, "singlethreadperfolder", "connections says how much is done at once"},
		{remote, "maxconnections", "connections says how much is done at once"},
		{remote, "sync_deletes", "deletions here are kept on the server; those there remove mail here"},
		{account, "sync_deletes", "deletions here are kept on the server; those there remove mail here"},
		{local, "sync_deletes", "mail that is deleted on the server goes here, too"},
		{remote, "reference", "mailboxes names those that come, by their whole names"},
		{account, "maxage", "all mail comes; the built-in hook `limit` keeps old mail away"},
		{account, "maxsize", "all mail comes; the built-in hook `limit` keeps large mail away"},
		{remote, "startdate", "all mail comes; the built-in hook `limit` keeps old mail away"},
		{local, "startdate", "all mail comes; the built-in hook `limit` keeps old mail away"},
		{account, "synclabels", "labels are not synchronised"},
		{account, "presynchook", "the hook pre-sync does this"},
		{account, "postsynchook", "the hook post-sync does this"},
		{account, "autorefresh", "`notmuch imap watch` stays and synchronises"},
		{account, "utf8foldernames", "folders have the mailboxes' names in UTF-8"},
		{account, "proxy", "proxy is a key of the account: \"socks5://HOST:PORT\""},
	} {
		if k.section[k.key] != "" {
			p.leave("%s: %s", k.key, k.why)
		}
	}
	return p
}

// maxInterpolation is how deep values of Python's configparser may refer to each other.
const maxInterpolation = 10

// interpolated puts values in the places of their names, %(name)s, as Python's configparser
// does; %% is a percent sign.
func interpolated(value string, section, usual map[string]string, depth int) (string, error) {
	if depth > maxInterpolation {
		return "", errors.New("its values refer to each other too deeply")
	}
	var out strings.Builder
	for {
		before, rest, more := strings.Cut(value, "%")
		out.WriteString(before)
		if !more {
			return out.String(), nil
		}
		if after, twice := strings.CutPrefix(rest, "%"); twice {
			out.WriteByte('%')
			value = after
			continue
		}
		name, after, ok := strings.Cut(strings.TrimPrefix(rest, "("), ")s")
		if !ok || !strings.HasPrefix(rest, "(") {
			out.WriteByte('%') // as OfflineIMAP, which reads Python as it stands
			value = rest
			continue
		}
		name = strings.ToLower(name)
		v, known := section[name]
		if !known {
			if v, known = usual[name]; !known {
				return "", fmt.Errorf("there is no %s that %%(%s)s could stand for", name, name)
			}
		}
		v, err := interpolated(v, section, usual, depth+1)
		if err != nil {
			return "", err
		}
		out.WriteString(v)
		value = after
	}
}

// iniOf reads what Python's configparser reads: sections of `key = value` or `key: value`,
// in which a line that begins with a blank goes on with the value before it.
func iniOf(r io.Reader) (map[string]map[string]string, error) {
	out := make(map[string]map[string]string)
	var section map[string]string
	key := ""
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxConfig)
	for in.Scan() {
		line := in.Text()
		text := strings.TrimSpace(line)
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text[0] == '[' && strings.HasSuffix(text, "]"):
			name := strings.TrimSpace(text[1 : len(text)-1])
			if out[name] == nil {
				out[name] = make(map[string]string)
			}
			section, key = out[name], ""
		case section == nil:
		case (line[0] == ' ' || line[0] == '\t') && key != "":
			section[key] += "\n" + text
		default:
			i := strings.IndexAny(text, "=:")
			if i < 0 {
				continue
			}
			key = strings.ToLower(strings.TrimSpace(text[:i]))
			section[key] = strings.TrimSpace(text[i+1:])
		}
	}
	return out, in.Err()
}
