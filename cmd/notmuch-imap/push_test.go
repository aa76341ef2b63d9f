package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/notmuch-imap/notmuch-imap/pipeline"
)

// What notmuch's tags and Mutt's letters say of a mail reaches a real server,
// with any of its extensions, and both sides are the same afterwards.
func TestDovecotIsToldOfChangedFlags(t *testing.T) {
	for name, hide := range dovecots() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot(t, hide...)
			var raws []string
			for i := range 6 {
				raws = append(raws, rawDovecot(i))
			}
			appendAll(t, s, "INBOX", raws...)
			appendAll(t, s, "Archiv&AOk-/2024", rawDovecot(100))
			w := newWorld(t, s.Addr(), s.User, s.Password)
			w.sync()
			w.notmuch("tag", "-unread", "+flagged", "--", "id:d0@example.org", "or", "id:d100@example.org")
			w.notmuch("tag", "+replied", "--", "id:d1@example.org")
			command(t, s, "SELECT INBOX", `UID STORE 2 +FLAGS (\Seen)`, `UID STORE 3 +FLAGS (\Flagged work)`)
			if rep := w.sync(func(o *pipeline.Options) { o.ReadOnly = true }); rep.Pushed != 0 || !rep.Clean() {
				t.Errorf("read only: %+v", rep)
			}
			if rep := w.sync(); rep.Pushed != 3 || !rep.Clean() {
				t.Errorf("%+v", rep)
			}
			flags := func(mailbox string) string {
				out, err := s.Command("EXAMINE "+mailbox, "UID FETCH 1:* (FLAGS)")
				if err != nil {
					t.Fatal(err)
				}
				var b strings.Builder
				for _, line := range out {
					var seq, uid int
					if n, _ := fmt.Sscanf(line, "* %d FETCH (UID %d", &seq, &uid); n == 2 {
						_, list, _ := strings.Cut(line, "FLAGS (")
						list, _, _ = strings.Cut(list, ")")
						fmt.Fprintf(&b, "%d: %s\n", uid, list)
					}
				}
				return b.String()
			}
			want := "1: \\Flagged \\Seen\n2: \\Answered \\Seen\n3: \\Flagged work\n4: \n5: \n6: \n"
			if got := flags("INBOX"); got != want {
				t.Errorf("the server has\n%s, want\n%s", got, want)
			}
			if got := flags("Archiv&AOk-/2024"); got != "1: \\Flagged \\Seen\n" {
				t.Errorf("the other mailbox has %s", got)
			}
			for query, n := range map[string]string{"tag:unread": "4", "tag:flagged": "3", "tag:replied": "1", "tag:work": "1"} {
				if got := w.notmuch("count", query); got != n {
					t.Errorf("%s: %s, want %s", query, got, n)
				}
			}
			for range 2 {
				if rep := w.sync(); rep.Pushed+rep.Flagged+rep.New != 0 || !rep.Clean() {
					t.Errorf("then: %+v", rep)
				}
			}
			// And back again.
			w.notmuch("tag", "+unread", "-flagged", "--", "id:d0@example.org")
			if rep := w.sync(); rep.Pushed != 1 {
				t.Errorf("%+v", rep)
			}
			if got, want := flags("INBOX"), strings.Replace(want, "1: \\Flagged \\Seen", "1: ", 1); got != want {
				t.Errorf("the server has\n%s, want\n%s", got, want)
			}
		})
	}
}
