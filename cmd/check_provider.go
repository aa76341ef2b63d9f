package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/notmuch-imap/notmuch-imap/internal/config"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
	"github.com/notmuch-imap/notmuch-imap/internal/provider"
)

// provider looks at what is known of the account's provider.
func (c *checker) provider(a *config.Account, p provider.Preset, boxes []mail.Mailbox) {
	if p.Name == "" {
		return
	}
	text := p.Name
	if p.Poll > 0 {
		text += fmt.Sprintf("; a timer is not to start a sync more often than every %d minutes", int(p.Poll.Minutes()))
	}
	if p.Help != "" {
		text += "; its help: " + p.Help
	}
	c.ok("provider", "%s", text)
	if p.Connections > 0 && a.Connections > p.Connections {
		c.warn("provider", fmt.Sprintf("connections = %d", p.Connections), "%s is known to refuse who has more than some %d connections; connections is %d", p.Name, p.Connections, a.Connections)
	}
	most := p.Most(a.Host)
	for _, m := range boxes {
		if m.Status == nil || most == 0 || m.Status.Messages < most {
			continue
		}
		do := "move older mail into mailboxes of its own, in the web mail"
		if p.BulkHost != "" && !strings.EqualFold(p.BulkHost, a.Host) {
			do = fmt.Sprintf("host = %q has the same mail and shows %d; do not go back later: what the other does not show would count as deleted", p.BulkHost, p.BulkShows)
		}
		c.warn("provider", do, "%s holds %d messages, which is all that %s shows of a mailbox: older mail does not come, and what falls out of sight stays here and waits for your word", m.Name, m.Status.Messages, a.Host)
	}
}

// gmail looks for settings of Gmail that keep mail from IMAP, as far as its
// answers show them.
func (c *checker) gmail(a *config.Account, boxes []mail.Mailbox) {
	hidden := true
	for _, m := range boxes {
		// Its setting has these limits to choose from, or none.
		if m.Status != nil && slices.Contains([]uint32{1000, 2000, 5000, 10000}, m.Status.Messages) {
			c.warn("gmail", `see "Folder size limits" in Gmail's settings, "Forwarding and POP/IMAP": they are not to limit the number of messages`,
				"%s holds exactly %d messages, which is a limit that Gmail can be set to: there may be older mail that it does not show", m.Name, m.Status.Messages)
		}
		if !holdsAll(m) {
			continue
		}
		hidden = false
		if !a.Selects(m.Name, m.Delim) {
			c.ok("gmail", "%s is left out: mail that was archived and has no label is there alone, and does not come", m.Name)
		}
	}
	if hidden {
		c.warn("gmail", `tick "Show in IMAP" at All Mail, in Gmail's settings, "Labels"`,
			"All Mail is hidden from IMAP: mail that was archived and has no label cannot be fetched")
	}
}

// holdsAll tells whether a mailbox holds the mail of all others (RFC 6154 2).
func holdsAll(m mail.Mailbox) bool {
	return slices.ContainsFunc(m.Attrs, func(attr string) bool { return strings.EqualFold(attr, `\All`) })
}

// signInAdvice is advice on an account's sign-in, with what is known of the provider.
func signInAdvice(a *config.Account, err error) string {
	text := advice(err)
	preset, _ := provider.ByHost(a.Host)
	f, ok := errors.AsType[*mail.Fault](err)
	if !ok || f.Kind != mail.KindAuth || a.OAuth != nil || preset.Note == "" {
		return text
	}
	known := preset.Note
	switch {
	case preset.AppPassword != "":
		known += " One is made at " + preset.AppPassword + "."
	case preset.NoPassword:
		known += " notmuch imap login --help says how."
	}
	if text == "" {
		return known
	}
	return fmt.Sprintf("%s Else: %s", known, text)
}
