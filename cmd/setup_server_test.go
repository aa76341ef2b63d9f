package cmd

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/imaptest"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
	"github.com/notmuch-imap/notmuch-imap/internal/remote"
)

// signedUp is a set-up that is signed in at a server as at one of a provider, and takes
// every proposal. said is what it shows.
func signedUp(t *testing.T, preset provider.Preset, boxes ...*imaptest.ScriptBox) (s *setup, said *bytes.Buffer) {
	t.Helper()
	server, err := imaptest.NewScript("IMAP4rev1 SASL-IR LIST-STATUS", nil, boxes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	said = &bytes.Buffer{}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.Bool("no-tags", false, "")
	s = &setup{
		program: &program{stdout: said, stderr: said, getenv: func(string) string { return t.TempDir() }}, c: cli.NewContext(nil, flags, nil), person: &person{yes: true},
		sources: make(map[string]string), preset: preset, secret: "secret",
		account: entry{Name: "work", Host: "127.0.0.1", Port: server.Port(), User: "me", Keyring: true},
	}
	s.session, err = remote.Dial(t.Context(), remote.Options{Host: "127.0.0.1", Port: server.Port(), TLS: "none", AllowPlaintext: true, User: "me",
		Password: func(context.Context) (string, error) { return "secret", nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.hangUp)
	return s, said
}

// What holds all other mail once more is left out where the provider is known for it.
func TestSetupAccountLeavesOutAllMail(t *testing.T) {
	t.Parallel()
	for _, skip := range []bool{true, false} {
		all := imaptest.Box("[Gmail]/All Mail")
		all.Attrs = `\All`
		s, said := signedUp(t, provider.Preset{Name: "Gmail", SkipAll: skip}, imaptest.Box("INBOX"), all)
		if err := s.mailboxes(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := strings.Contains(s.account.text(), `mailboxes = ["*", "![Gmail]/All Mail"]`); left != skip {
			t.Errorf("%v: %s\n%s", skip, said, s.account.text())
		}
	}
}

// The Trash is named where a sync would not find it: the server marks none, and it is
// called as in another language, or as the provider calls it.
func TestSetupAccountNamesTheTrash(t *testing.T) {
	t.Parallel()
	marked := func(name, attr string) *imaptest.ScriptBox {
		b := imaptest.Box(name)
		b.Attrs = attr
		return b
	}
	for _, c := range []struct {
		name   string
		preset provider.Preset
		boxes  []*imaptest.ScriptBox
		want   string
	}{
		{"another language", provider.Preset{}, []*imaptest.ScriptBox{imaptest.Box("INBOX"), imaptest.Box("Papierkorb")}, `trash = "Papierkorb"`},
		{"the provider's", provider.Preset{Name: "NetEase", Trash: "已删除"}, []*imaptest.ScriptBox{imaptest.Box("INBOX"), imaptest.Box("已删除")}, `trash = "已删除"`},
		{"marked", provider.Preset{}, []*imaptest.ScriptBox{imaptest.Box("Papierkorb"), marked("Bin", `\Trash`)}, ""},
		{"usual", provider.Preset{Trash: "Bin"}, []*imaptest.ScriptBox{imaptest.Box("Bin"), imaptest.Box("Deleted Items")}, ""},
		{"none", provider.Preset{}, []*imaptest.ScriptBox{imaptest.Box("INBOX")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, said := signedUp(t, c.preset, c.boxes...)
			if err := s.mailboxes(t.Context()); err != nil {
				t.Fatal(err)
			}
			text := s.account.text()
			if c.want == "" && strings.Contains(text, "trash =") || !strings.Contains(text, c.want) {
				t.Errorf("%s\n%s", said, text)
			}
			if c.want != "" && !strings.Contains(text, `["+trash", "-inbox", "-unread"]`) {
				t.Errorf("no tags for it: %s", text)
			}
		})
	}
	// What is written is found by a sync, and the archive of a provider has its tags.
	rules := tagRules([]mail.Mailbox{{Name: "Ablage"}}, provider.Preset{Archive: "Ablage"})
	if len(rules) != 1 || rules[0].Pattern != "Ablage" || !slices.Contains(rules[0].Tags, "+archive") {
		t.Errorf("%v", rules)
	}
}

// A mailbox that is as large as its provider shows any has more mail at the provider's
// other host, which is the account's from then on.
func TestSetupAccountTakesTheBulkHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		messages int
		host     string // of the account
		tried    bool
	}{{"full", 3, "127.0.0.1", true}, {"not full", 2, "127.0.0.1", false}, {"there already", 3, "bulk.invalid", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			box := imaptest.Box("INBOX")
			for i := range c.messages {
				box.Add(fmt.Sprintf("Message-ID: <%d@example.org>\r\n\r\n", i), "")
			}
			s, said := signedUp(t, provider.Preset{Name: "X", Shows: 3, BulkHost: "bulk.invalid", BulkShows: 1000}, box)
			s.file, s.account.Host = t.TempDir()+"/config.toml", c.host
			err := s.mailboxes(t.Context())
			if c.tried {
				// Nobody answers there, in this test.
				if err == nil || s.account.Host != "bulk.invalid" || !strings.Contains(said.String(), "INBOX holds 3 messages, which is all that 127.0.0.1 shows of a mailbox") {
					t.Errorf("%v, %s", err, said)
				}
			} else if err != nil || s.account.Host != c.host {
				t.Errorf("%v, %s", err, said)
			}
		})
	}
}

// What is known of the provider is said by check: its limits, and what is beyond them.
func TestCheckKnowsAProvidersLimits(t *testing.T) {
	t.Parallel()
	yahoo, ok := provider.ByHost("imap.mail.yahoo.com")
	again, too := provider.ByHost("export.imap.mail.yahoo.com")
	if !ok || !too || yahoo.Name != again.Name {
		t.Fatal("the two hosts are not of one provider")
	}
	box := func(n uint32) []mail.Mailbox {
		return []mail.Mailbox{{Name: "INBOX", Status: &mail.Status{Messages: n}}, {Name: "x"}}
	}
	for _, c := range []struct {
		name       string
		account    config.Account
		preset     provider.Preset
		boxes      []mail.Mailbox
		wants, not []string
	}{
		{"full", config.Account{Host: "imap.mail.yahoo.com", Connections: 3}, yahoo, box(10_000), []string{
			"ok    provider: Yahoo; a timer is not to start a sync more often than every 5 minutes; its help: https://",
			"warn  provider: INBOX holds 10000 messages, which is all that imap.mail.yahoo.com shows", `-> host = "export.imap.mail.yahoo.com" has the same mail and shows 100000`}, []string{"connections"}},
		{"not full", config.Account{Host: "imap.mail.yahoo.com", Connections: 8}, yahoo, box(9_999), []string{"warn  provider: Yahoo is known to refuse who has more than some 3 connections; connections is 8", "-> connections = 3"}, []string{"holds"}},
		{"the other host", config.Account{Host: "export.imap.mail.yahoo.com"}, yahoo, box(99_999), nil, []string{"warn"}},
		{"the other host, full", config.Account{Host: "export.imap.mail.yahoo.com"}, yahoo, box(100_000), []string{"-> move older mail"}, []string{"host ="}},
		{"nobody's", config.Account{Host: "x", Connections: 9}, provider.Preset{}, box(1 << 30), nil, []string{"provider"}},
	} {
		var out bytes.Buffer
		check := &checker{p: &program{stdout: &out}}
		check.provider(&c.account, c.preset, c.boxes)
		for _, want := range c.wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in: %s", c.name, want, &out)
			}
		}
		for _, not := range c.not {
			if strings.Contains(out.String(), not) {
				t.Errorf("%s: %q is in: %s", c.name, not, &out)
			}
		}
	}
}
