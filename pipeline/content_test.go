package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAMailSavedHereAndAnotherOneThereWithOneMessageID: both come to be on both sides,
// whatever else of them is alike; and one mail that the server has with other headers is
// not doubled.
func TestAMailSavedHereAndAnotherOneThereWithOneMessageID(t *testing.T) {
	t.Parallel()
	raw := func(date, body string) string {
		return fmt.Sprintf("From: a@example.org\r\nSubject: s\r\nDate: %s\r\nMessage-ID: <one@example.org>\r\n\r\n%s\r\n", date, body)
	}
	const date = "Fri, 02 Jan 2026 03:04:05 +0000"
	there := raw(date, "AAAA")
	for name, c := range map[string]struct {
		here string
		both bool // they are two mails
	}{
		"another text, as long":    {raw(date, "BBBB"), true},
		"another text, longer":     {raw(date, "BBBB, and much more than that"), true},
		"another date":             {raw("Fri, 02 Jan 2026 03:04:09 +0000", "AAAA"), true},
		"a header that was added":  {"X-Mailer: Mutt\r\n" + there, false},
		"line ends that were lost": {strings.TrimRight(there, "\r\n"), false},
	} {
		for wire, caps := range wires() {
			t.Run(name+"/"+wire, func(t *testing.T) {
				t.Parallel()
				s, h, in := few(t, caps...)
				in.msgs[in.add(there, `\Seen`)].date = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
				h.put("INBOX", c.here, "S")
				h.sync(s)
				h.sync(s)
				h.quiet(s)
				want := 4
				if c.both {
					want = 5
				}
				if n := len(in.msgs); n != want || len(h.files("INBOX")) != want {
					t.Errorf("%d on the server, %d files, want %d", n, len(h.files("INBOX")), want)
				}
				if c.both && !slices.ContainsFunc(slices.Collect(maps.Values(in.msgs)), func(m *serverMail) bool { return m.raw == c.here }) {
					t.Error("it did not go up")
				}
			})
		}
	}
}
