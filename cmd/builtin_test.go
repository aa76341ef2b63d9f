package cmd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/hooks"
	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// Many mails beyond a limit, on a real server: each has a placeholder with its
// own words, and a second sync costs nothing.
func TestLimitOnDovecot(t *testing.T) {
	t.Parallel()
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 60)
			var raws []string
			for i := range 130 {
				raw := fmt.Sprintf("From: a@example.org\r\nMessage-ID: <m%d@example.org>\r\nSubject: number %d\r\n\r\n", i, i)
				if i%13 != 0 {
					raw += large
				}
				raws = append(raws, raw)
			}
			// One of which nothing is known, and that notmuch will not take for a mail.
			raws = append(raws, "X-Nothing: of use\r\n\r\n"+large)
			appendAll(t, s, "INBOX", raws...)
			w := newWorld(t, s.Addr(), s.User, s.Password)
			limit := func(o *pipeline.Options) {
				r, err := hooks.NewRunner([]hooks.Hook{hooks.Limit("big", hooks.Limits{Size: 4000})})
				if err != nil {
					t.Fatal(err)
				}
				o.Hooks = r
			}
			if rep := w.sync(limit); rep.New != 10 || rep.Skipped != 121 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			_, stubs := w.mails("INBOX")
			if len(stubs) != 121 {
				t.Errorf("%d placeholders", len(stubs))
			}
			if n := w.notmuch("count", "tag:fetch-skipped"); n != "121" {
				t.Errorf("notmuch has %s of them", n)
			}
			for i := range 130 {
				if i%13 == 0 {
					continue
				}
				subject := fmt.Sprintf("\nSubject: [not fetched] number %d\n", i)
				n := 0
				for _, raw := range stubs {
					if strings.Contains(raw, subject) && strings.Contains(raw, fmt.Sprintf("\nIn-Reply-To: <m%d@example.org>\n", i)) {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%d placeholders are of number %d", n, i)
				}
			}
			if rep := w.sync(limit); rep.New+rep.Skipped+rep.Flagged+rep.Removed+rep.Pushed+rep.Uploaded+rep.Deleted != 0 || !rep.Clean() {
				t.Errorf("the second sync: %+v", rep)
			}
			rep := w.sync(limit, func(o *pipeline.Options) { o.Retry = []pipeline.Target{{Mailbox: "INBOX", UID: 2}} })
			if rep.New != 1 || rep.Healed != 1 || w.notmuch("count", "id:m1@example.org and not tag:fetch-skipped") != "1" {
				t.Errorf("retry: %+v", rep)
			}
			// Without the limit all of it comes, and none of the stubs stays. Beside what notmuch
			// does not take for a mail a note says so.
			if rep := w.sync(func(o *pipeline.Options) { o.Full = true }); rep.New != 120 || rep.Healed != 120 || rep.NotMail != 1 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			w.holds("INBOX", raws)
			if _, stubs := w.mails("INBOX"); len(stubs) != 1 || w.notmuch("count", "*") != "131" || w.notmuch("count", "tag:fetch-failed") != "1" {
				t.Errorf("%d stubs stayed, notmuch has %s mails", len(stubs), w.notmuch("count", "*"))
			}
		})
	}
}
