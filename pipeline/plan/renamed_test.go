package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"github.com/notmuch-imap/notmuch-imap/internal/ledger"
	"github.com/notmuch-imap/notmuch-imap/internal/mail"
)

// Which mailboxes may have another name, and of which that is certain. A mailbox is a name and its
// UIDVALIDITY; each has three messages.
func TestWhichMailboxesAreRenamed(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		had, has string
		not      string // names that take no part
		unlike   string // renamings that the messages do not bear out
		want     string
	}{
		"none":                          {had: "a1 b2", has: "a1 b2"},
		"a new name":                    {had: "a1 b2", has: "c1 b2", want: "a-c"},
		"a new one has the name":        {had: "a1 b2", has: "c1 b2 a9", want: "a-c"},
		"exchanged":                     {had: "a1 b2", has: "a2 b1", want: "a-b b-a"},
		"three in a ring":               {had: "a1 b2 c3", has: "a3 b1 c2", want: "a-b b-c c-a"},
		"one after one":                 {had: "a1 b2 c3", has: "a9 b1 c2 d3", want: "a-b b-c c-d"},
		"the last one is gone":          {had: "a1 b2 c3", has: "a9 b1 c2"},
		"the name of one that is gone":  {had: "a1 b2", has: "b1"},
		"one cannot be told":            {had: "a1 b2 c3", has: "b1 c2 d3", unlike: "b-c", want: "c-d"},
		"one is excluded":               {had: "a1 b2", has: "a2 b1", not: "b"},
		"one has the messages anew":     {had: "a1 b2", has: "a9 b1"},
		"two have the same UIDVALIDITY": {had: "a1 b1 c2", has: "a2 b1 c1", want: "a-c c-a"},
		"two may be it":                 {had: "a1", has: "b1 c1"},
		"a copy of another one":         {had: "a1 b2", has: "a1 b1"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var rows []ledger.Mailbox
			for s := range strings.FieldsSeq(tc.had) {
				rows = append(rows, ledger.Mailbox{Name: s[:1], UIDValidity: uint64(s[1] - '0'), UIDNext: 4, Messages: 3, Complete: true})
			}
			var list []mail.Mailbox
			for s := range strings.FieldsSeq(tc.has) {
				list = append(list, mail.Mailbox{Name: s[:1], Status: &mail.Status{UIDValidity: uint64(s[1] - '0'), UIDNext: 4, Messages: 3}})
			}
			var same []Renamed
			for _, r := range MayBeRenamed(rows, list, func(m mail.Mailbox) bool { return !strings.Contains(tc.not, m.Name) || tc.not == "" }) {
				if r.Numbered() && !slices.Contains(strings.Fields(tc.unlike), r.Known.Name+"-"+r.Now.Name) {
					same = append(same, r)
				}
			}
			var got []string
			for _, r := range Certain(same, rows) {
				got = append(got, fmt.Sprintf("%s-%s", r.Known.Name, r.Now.Name))
			}
			if slices.Sort(got); strings.Join(got, " ") != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// A mailbox is another one if its newest messages are: all that are known of it, and half at least.
func TestTheMessagesOfARenamedMailbox(t *testing.T) {
	t.Parallel()
	row := func(uid imap.UID) ledger.Message {
		return ledger.Message{UID: uid, ID: fmt.Sprintf("m%d@example.org", uid), Size: int64(uid)}
	}
	there := func(uid, of imap.UID) mail.Message {
		return mail.Message{UID: uid, MessageID: fmt.Sprintf("m%d@example.org", of), Size: int64(of)}
	}
	r := Renamed{ledger.Mailbox{Name: "a", UIDValidity: 1, UIDNext: 5}, mail.Mailbox{Name: "b", Status: &mail.Status{UIDValidity: 1, UIDNext: 5}}}
	rows := []ledger.Message{row(4), row(3), row(2), row(1)}
	for what, tc := range map[string]struct {
		there []mail.Message
		want  bool
	}{
		"all":               {[]mail.Message{there(1, 1), there(2, 2), there(3, 3), there(4, 4)}, true},
		"half":              {[]mail.Message{there(1, 1), there(4, 4)}, true},
		"less":              {[]mail.Message{there(4, 4)}, false},
		"none":              {nil, false},
		"one is another":    {[]mail.Message{there(1, 1), there(2, 7), there(3, 3), there(4, 4)}, false},
		"and one that came": {[]mail.Message{there(1, 1), there(2, 2), there(3, 3), there(4, 4), there(5, 9)}, true},
	} {
		if got := r.Same(rows, tc.there, true); got != tc.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
