package stub

import (
	"strings"
	"testing"
	"time"

	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

const cureCommand = "Set-CASMailbox me@example.org -ImapUseProtocolDefaults $false `\n      -ImapForceICalForCalendarRetrievalOption $true\n"

// TestStubsOfExchangeSayWhatOftenHelps, and those of other servers do not.
func TestStubsOfExchangeSayWhatOftenHelps(t *testing.T) {
	t.Parallel()
	for greeting, want := range map[string]bool{
		"The Microsoft Exchange IMAP4 service is ready. [QQBN]": true,
		"Dovecot ready.": false,
		"":               false,
	} {
		o := testOrigin()
		o.Exchange = IsExchange(greeting)
		text := string(Failed(o, seedFailure(), time.Unix(0, 0)))
		if got := strings.Contains(text, "\n  "+cureCommand) && strings.Contains(mail.FoldSpace(text), "It often helps. Then press ,r."); got != want {
			t.Errorf("%q: %v, want %v:\n%s", greeting, got, want, text)
		}
	}
	sub, _ := ParseSubstitute([]byte(exchangeSubstitute))
	f := seedFailure()
	f.Substitute = &sub
	if text := string(Failed(testOrigin(), f, time.Unix(0, 0))); !strings.Contains(text, cureCommand) {
		t.Errorf("the substitute is Exchange's:\n%s", text)
	}
}

// TestTheCureIsNoOrderOfAnother: what is to be typed holds nothing that PowerShell
// takes for more than a name.
func TestTheCureIsNoOrderOfAnother(t *testing.T) {
	t.Parallel()
	for user, want := range map[string]string{
		"me@example.org":    "me@example.org",
		`DOM\me`:            `DOM\me`,
		"me; Remove-Item x": "USER",
		"$(x)":              "USER",
		"a'b":               "USER",
		"":                  "USER",
	} {
		if _, command := ExchangeCure(user); !strings.HasPrefix(command, "Set-CASMailbox "+want+" -Imap") {
			t.Errorf("%q: %s", user, command)
		}
	}
}
