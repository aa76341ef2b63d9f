package plan

import (
	"errors"
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
		doubt    string // of which the messages do not tell whether they are it
		other    string // of which they tell the other thing than the UIDVALIDITY
		want     string
	}{
		"none":                              {had: "a1 b2", has: "a1 b2"},
		"a new name":                        {had: "a1 b2", has: "c1 b2", want: "a-c"},
		"a new one has the name":            {had: "a1 b2", has: "c1 b2 a9", want: "a-c"},
		"exchanged":                         {had: "a1 b2", has: "a2 b1", want: "a-b b-a"},
		"three in a ring":                   {had: "a1 b2 c3", has: "a3 b1 c2", want: "a-b b-c c-a"},
		"one after one":                     {had: "a1 b2 c3", has: "a9 b1 c2 d3", want: "a-b b-c c-d"},
		"the last one is gone":              {had: "a1 b2 c3", has: "a9 b1 c2", want: "a-b b-c c-c_(deleted)"},
		"the name of one that is gone":      {had: "a1 b2", has: "b1", want: "a-b b-b_(deleted)"},
		"likewise, of two":                  {had: "a1 b2 c3", has: "b1 c2", want: "a-b b-c c-c_(deleted)"},
		"one of which nothing is told":      {had: "a1 b2", has: "b1 c0"},
		"the one that is gone may be there": {had: "a1 b2", has: "b1 c2 d2", doubt: "b-c b-d"},
		"one cannot be told":                {had: "a1 b2 c3", has: "b1 c2 d3", doubt: "b-c", want: "c-d"},
		"one is excluded":                   {had: "a1 b2", has: "a2 b1", not: "b"},
		"one is another one":                {had: "a1 b2 c3", has: "b1 c2 d3", other: "b-c", want: "a-b b-b_(deleted) c-d"},
		"one has the messages anew":         {had: "a1 b2", has: "a9 b1", other: "b-a", want: "a-b b-a"},
		"one may have them":                 {had: "a1 b2", has: "a9 b1", doubt: "b-a"},
		"all have them anew":                {had: "a1 b2 c3", has: "a7 b8 c9", other: "a-b b-c"},
		"two have the same UIDVALIDITY":     {had: "a1 b1 c2", has: "a2 b1 c1", want: "a-c c-a"},
		"two may be it":                     {had: "a1", has: "b1 c1"},
		"a copy of another one":             {had: "a1 b2", has: "a1 b1"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var rows []ledger.Mailbox
			for s := range strings.FieldsSeq(tc.had) {
				rows = append(rows, ledger.Mailbox{Name: s[:1], UIDValidity: uint64(s[1] - '0'), UIDNext: 4, Messages: 3, Complete: true})
			}
			var list []mail.Mailbox
			for s := range strings.FieldsSeq(tc.has) {
				if s[1] == '0' {
					list = append(list, mail.Mailbox{Name: s[:1], Err: errors.New("no answer")})
					continue
				}
				list = append(list, mail.Mailbox{Name: s[:1], Status: &mail.Status{UIDValidity: uint64(s[1] - '0'), UIDNext: 4, Messages: 3}})
			}
			maybe := MayBeRenamed(rows, list)
			likes := make([]Likeness, len(maybe))
			for i, r := range maybe {
				name := r.Known.Name + "-" + r.Now.Name
				switch {
				case strings.Contains(tc.not, r.Now.Name) && tc.not != "" || slices.Contains(strings.Fields(tc.doubt), name):
					likes[i] = MayBe
				case r.Numbered() != slices.Contains(strings.Fields(tc.other), name):
					likes[i] = SameBox
				}
			}
			var got []string
			for _, r := range Certain(maybe, likes, rows, list) {
				if r.Gone() != strings.Contains(r.Now.Name, " ") {
					t.Errorf("%+v is gone: %v", r, r.Gone())
				}
				got = append(got, fmt.Sprintf("%s-%s", r.Known.Name, strings.ReplaceAll(r.Now.Name, " ", "_")))
			}
			if slices.Sort(got); strings.Join(got, " ") != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// A mailbox is another one if its newest messages are: all that are known of it, and half at least,
// or one where no other mailbox has that UIDVALIDITY.
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
		want  Likeness
	}{
		"all":               {[]mail.Message{there(1, 1), there(2, 2), there(3, 3), there(4, 4)}, SameBox},
		"half":              {[]mail.Message{there(1, 1), there(4, 4)}, SameBox},
		"less":              {[]mail.Message{there(4, 4)}, SameBox},
		"none":              {nil, Unlike},
		"others":            {[]mail.Message{there(1, 6), there(2, 7), there(3, 8), there(4, 9)}, Unlike},
		"one is another":    {[]mail.Message{there(1, 1), there(2, 7), there(3, 3), there(4, 4)}, MayBe},
		"and one that came": {[]mail.Message{there(1, 1), there(2, 2), there(3, 3), there(4, 4), there(5, 9)}, SameBox},
	} {
		if got := r.Like(rows, tc.there, true); got != tc.want {
			t.Errorf("%s: %v", what, got)
		}
		if what == "less" {
			tc.want = MayBe
		}
		if got := r.Like(rows, tc.there, false); got != tc.want {
			t.Errorf("%s, and another mailbox has that UIDVALIDITY: %v", what, got)
		}
	}

	for what, tc := range map[string]struct {
		of    []ledger.Message
		there []mail.Message
		want  Likeness
	}{
		"under new UIDs":                   {rows, []mail.Message{there(11, 1), there(12, 2), there(13, 3), there(14, 4)}, SameBox},
		"under new UIDs, and one came":     {rows, []mail.Message{there(11, 1), there(12, 2), there(13, 3), there(14, 4), there(15, 9)}, SameBox},
		"under new UIDs, and one is gone":  {rows, []mail.Message{there(11, 1), there(12, 2), there(14, 4), there(15, 9)}, MayBe},
		"under new UIDs, and one is twice": {append([]ledger.Message{row(1)}, rows...), []mail.Message{there(11, 1), there(12, 2), there(13, 3), there(14, 4), there(15, 9)}, MayBe},
		"others":                           {rows, []mail.Message{there(11, 6), there(12, 7), there(13, 8), there(14, 9)}, Unlike},
		"nothing was in it":                {nil, nil, Unlike},
	} {
		anew := r
		anew.Known.UIDValidity = 7
		if got := anew.Like(tc.of, tc.there, true); got != tc.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	sent := func(n imap.UID) ledger.Message { m := row(n); m.UID = 0; return m }
	for what, tc := range map[string]struct {
		there []mail.Message
		want  Likeness
	}{
		"some of what was sent":   {[]mail.Message{there(5, 1), there(6, 3)}, SameBox},
		"and another one":         {[]mail.Message{there(5, 1), there(6, 9)}, MayBe},
		"none of what was sent":   {[]mail.Message{there(5, 9)}, Unlike},
		"nothing of it was taken": {nil, Unlike},
	} {
		if got := r.Like([]ledger.Message{sent(1), sent(2), sent(3)}, tc.there, false); got != tc.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
