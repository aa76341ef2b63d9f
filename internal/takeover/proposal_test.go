package takeover

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestProposalsOfMbsync are of configurations as their manual has them; those that the real
// one takes are tested with that, in cmd.
func TestProposalsOfMbsync(t *testing.T) {
	t.Parallel()
	const account = "IMAPAccount a\nHost mail.example.org\nUser me\n%s\n\nIMAPStore far\nAccount a\n%s\n\nMaildirStore near\nPath ~/Mail/\nInbox ~/Mail/Inbox\n%s\n\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\n%s\n"
	for name, c := range map[string]struct {
		account, far, near, channel string
		change                      func(p *Proposal)
		left                        []string // what is said
	}{
		"nothing said":               {"", "", "", "", func(*Proposal) {}, nil},
		"a password":                 {"Pass hunter2", "", "", "", func(*Proposal) {}, []string{"Pass: "}},
		"a program":                  {`PassCmd "+pass \"my mail\""`, "", "", "", func(p *Proposal) { p.Password = []string{"sh", "-c", `pass "my mail"`} }, nil},
		"implicit":                   {"SSLType IMAPS\nPort 1993\nCertificateFile ~/ca.pem\nTimeout 90", "", "", "", func(p *Proposal) { p.TLS, p.Port, p.CAFile, p.Timeout = "implicit", 1993, "/home/me/ca.pem", 90 }, nil},
		"isync 1.1":                  {"Host imaps:mail.example.org", "", "", "", func(p *Proposal) { p.TLS = "implicit" }, nil},
		"a tunnel":                   {"Tunnel \"ssh -q host imapd\"", "", "", "", func(p *Proposal) { p.TLS, p.Tunnel = "none", []string{"sh", "-c", "ssh -q host imapd"} }, nil},
		"old TLS":                    {"SSLVersions TLSv1 TLSv1.1\nAuthMechs PLAIN LOGIN\nPipelineDepth 1", "", "", "", func(*Proposal) {}, []string{"AuthMechs PLAIN LOGIN", "SSLVersions TLSv1 TLSv1.1", "PipelineDepth 1"}},
		"pull":                       {"", "", "", "Sync Pull", func(p *Proposal) { p.ReadOnly = true }, nil},
		"pull of kinds":              {"", "", "", "Sync Pull New Flags Delete", func(p *Proposal) { p.ReadOnly = true }, []string{"Sync Pull New Flags Delete of channel c: all changes on the server come here, and none of here go there"}},
		"pull by kinds":              {"", "", "", "Sync PullNew PullFlags", func(p *Proposal) { p.ReadOnly = true }, []string{"Sync PullNew PullFlags of channel c: "}},
		"push, too":                  {"", "", "", "Sync Pull PushFlags", func(*Proposal) {}, []string{"Sync Pull PushFlags of channel c: both directions"}},
		"one that pulls":             {"", "", "", "\nChannel d\nFar :far:Lists\nNear :near:Lists\nCreate Both\nExpunge Both\nSync Pull", func(p *Proposal) { p.ReadOnly, p.Mailboxes = true, []string{"*", "Lists"} }, []string{"Sync Pull of channel d alone: read_only is of the whole account"}},
		"no deletions":               {"", "", "", "Sync New ReNew Flags\nExpunge None", func(p *Proposal) { p.Deletions = "expunge" }, []string{"Sync New ReNew Flags of channel c"}},
		"a trash":                    {"", "Trash Bin", "", "", func(p *Proposal) { p.Deletions, p.Trash = "", "Bin" }, nil},
		"not all":                    {"", "SubscribedOnly yes", "MaxSize 1m\nFlatten .", "MaxMessages 1000\nRemove Both", func(*Proposal) {}, []string{"SubscribedOnly", "Flatten .", "Remove Both of channel c", "MaxMessages 1000 of channel c", "MaxSize 1m"}},
		"an Inbox outside":           {"", "", "Inbox ~/inbox", "", func(*Proposal) {}, []string{"Inbox /home/me/inbox: it is not below /home/me/Mail"}},
		"a Path there":               {"", "Path INBOX.", "", "", func(p *Proposal) { p.Mailboxes = []string{"INBOX.*", "INBOX"} }, nil},
		"a Path there, and no INBOX": {"", "Path INBOX.", "", "Patterns !INBOX", func(p *Proposal) { p.Mailboxes = []string{"INBOX.*", "!INBOX"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			text := account
			for _, part := range []string{c.account, c.far, c.near, c.channel} {
				if part == "" {
					part = "# nothing"
				}
				text = strings.Replace(text, "%s", part, 1)
			}
			if strings.HasPrefix(c.account, "Host") {
				text = strings.Replace(text, "Host mail.example.org\n", "", 1)
			}
			if strings.HasPrefix(c.near, "Inbox") {
				text = strings.Replace(text, "Inbox ~/Mail/Inbox\n", "", 1)
			}
			if strings.Contains(c.channel, "Expunge None") {
				text = strings.Replace(text, "Expunge Both\n", "", 1)
			}
			write(t, dir, ".mbsyncrc", text)
			config, err := ReadMbsyncConfig(filepath.Join(dir, ".mbsyncrc"), "/home/me")
			if err != nil {
				t.Fatal(err)
			}
			want := Proposal{Name: "a", Host: "mail.example.org", TLS: "starttls", User: "me", Root: "/home/me/Mail", Mailboxes: []string{"*"}, Deletions: "expunge"}
			if c.change(&want); strings.Contains(c.channel, "Expunge None") {
				want.Deletions = "keep"
			}
			got := config.Proposals()
			if len(got) != 1 {
				t.Fatalf("%+v", got)
			}
			left := got[0].NotCarriedOver
			got[0].NotCarriedOver = nil
			if !reflect.DeepEqual(got[0], want) {
				t.Errorf("%+v, want\n%+v", got[0], want)
			}
			if len(left) != len(c.left) {
				t.Errorf("not carried over: %q, want %q", left, c.left)
			}
			for _, l := range c.left {
				if !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, l) }) {
					t.Errorf("not carried over: %q, without %q", left, l)
				}
			}
			if strings.Contains(strings.Join(left, ""), "hunter2") {
				t.Errorf("a secret is said: %q", left)
			}
		})
	}
}

func TestAnMbsyncrcThatIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for text, words := range map[string]string{"": "neither stores nor channels", "Channel \"c\nFar :a:\n": "a quote has no end"} {
		write(t, dir, "rc", text)
		if _, err := ReadMbsyncConfig(filepath.Join(dir, "rc"), "/home/me"); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v does not say %q", err, words)
		}
	}
}

func TestProposalsOfOfflineIMAP(t *testing.T) {
	t.Parallel()
	const sections = "[general]\naccounts = a\n[DEFAULT]\nhome = ~/Mail\n[Account a]\nlocalrepository = near\nremoterepository = far\n%s\n[Repository near]\ntype = Maildir\nbox = a\nlocalfolders = %(home)s/%(box)s\n[Repository far]\nremotehost = mail.example.org\nremoteuser = me%%x\n%s\n"
	for name, c := range map[string]struct {
		account, far string
		change       func(p *Proposal)
		left         []string
	}{
		"nothing said": {"", "", func(*Proposal) {}, nil},
		"a file":       {"", "remotepassfile = ~/secret\nremoteport = 1993\nsslcacertfile = OS-DEFAULT\nauth_mechanisms = PLAIN", func(p *Proposal) { p.PasswordFile, p.Port, p.Auth = "/home/me/secret", 1993, "plain" }, nil},
		"a password":   {"", "remotepass = hunter2", func(*Proposal) {}, []string{"remotepass: "}},
		"Python":       {"", "remotepasseval = get_pass(\"x\")\nfolderfilter = lambda f: f not in ['x']\nnametrans = lambda f:\n  f", func(*Proposal) {}, []string{"remotepasseval: ", "folderfilter: ", "nametrans: "}},
		"a part of it": {"\n[Repository near]\nsync_deletes = no", "reference = Mail", func(*Proposal) {}, []string{"sync_deletes: mail that is deleted on the server goes here", "reference: "}},
		"STARTTLS":     {"", "ssl = no", func(p *Proposal) { p.TLS = "starttls" }, nil},
		"plain":        {"", "ssl = no\nstarttls = no\nreadonly = True", func(p *Proposal) { p.TLS, p.ReadOnly = "none", true }, nil},
		"Gmail":        {"", "type = Gmail\nsync_deletes = no\noauth2_refresh_token = hunter2", func(p *Proposal) { p.Deletions = "keep" }, []string{"type = Gmail", "sync_deletes: ", "oauth2: "}},
		"a tunnel":     {"", "preauthtunnel = ssh -q host imapd", func(p *Proposal) { p.TLS, p.Tunnel = "none", []string{"sh", "-c", "ssh -q host imapd"} }, nil},
		"limits":       {"maxage = 90\npresynchook = x", "startdate = 2020-01-01", func(*Proposal) {}, []string{"maxage: ", "startdate: ", "presynchook: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "rc", strings.Replace(strings.Replace(sections, "\n%s\n", "\n"+c.account+"\n", 1), "\n%s\n", "\n"+c.far+"\n", 1))
			got, err := OfflineIMAPAccounts(filepath.Join(dir, "rc"), "/home/me")
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			want := Proposal{Name: "a", Root: "/home/me/Mail/a", Host: "mail.example.org", User: "me%x", TLS: "implicit"}
			c.change(&want)
			p := got[0].Proposal
			left := p.NotCarriedOver
			if p.NotCarriedOver = nil; !reflect.DeepEqual(p, want) {
				t.Errorf("%+v, want\n%+v", p, want)
			}
			if len(left) != len(c.left) {
				t.Errorf("not carried over: %q, want %q", left, c.left)
			}
			for _, l := range c.left {
				if !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, l) }) {
					t.Errorf("not carried over: %q, without %q", left, l)
				}
			}
			if strings.Contains(strings.Join(left, ""), "hunter2") {
				t.Errorf("a secret is said: %q", left)
			}
		})
	}
}
